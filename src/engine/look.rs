//! What an engine shows, and when it wants to be woken.

use crate::units::{BLOCK, Instant};

use super::core::Engine;
use super::reign::Phase;
use super::status::{PeerStatus, ResourceStatus, ResyncStatus, Suspension, VolumeStatus};

impl Engine {
    /// The resource as this node sees it.
    pub fn status(&self) -> ResourceStatus {
        let primary = match (&self.reign, self.follow.primary) {
            (Some(_), _) => Some(self.id.node),
            (None, Some(peer)) => Some(self.peers[peer].node),
            (None, None) => self.peers.iter().find(|p| p.is_connected() && p.is_primary()).map(|p| p.node),
        };
        let volume = |(&volume, &bytes): (&crate::units::VolumeId, &u64)| VolumeStatus { volume, bytes };
        ResourceStatus {
            resource: self.id.resource,
            role: self.role(),
            primary,
            disk: self.disk_state(),
            in_sync: self.am_member(),
            record: self.record.clone(),
            peers: (0..self.peers.len()).filter(|&at| self.is_peer(at)).map(|at| self.peer_status(at)).collect(),
            suspended: self.suspensions(),
            clients: self.clients.len(),
            volumes: self.settings.volumes.iter().map(volume).collect(),
        }
    }

    fn is_peer(&self, at: usize) -> bool {
        self.settings.peers.contains_key(&self.peers[at].node)
    }

    fn peer_status(&self, at: usize) -> PeerStatus {
        let peer = &self.peers[at];
        let resync = self.sync_progress(at).map(|(done, total)| ResyncStatus { source: true, total, done });
        PeerStatus {
            node: peer.node,
            connection: peer.connection,
            disk: peer.disk(),
            dirty: if self.reign.is_some() { peer.dirty.count() * BLOCK } else { 0 },
            resync,
        }
    }

    /// Why I/O waits.
    fn suspensions(&self) -> Vec<Suspension> {
        let mut found = Vec::new();
        if self.change.as_ref().is_some_and(|c| c.unanswered) {
            found.push(Suspension::Authority);
        }
        let Some(reign) = &self.reign else { return found };
        if reign.phase == Phase::TakingOver {
            found.push(Suspension::TakingOver);
            if let Some(left) = self.follow.lease_until.filter(|until| *until > self.now) {
                let left = u64::try_from(left.since(self.now).as_millis()).unwrap_or(u64::MAX);
                found.push(Suspension::Lease(left));
            }
        }
        let awaited = reign.ack.iter().filter(|&at| !self.peers[at].data);
        found.extend(awaited.map(|at| Suspension::Waiting(self.peers[at].node)));
        found
    }

    /// When the engine wants to be handed [`Event::Timeout`](super::Event::Timeout): something may be due then. `None` when only events
    /// can change anything.
    pub fn timeout(&self) -> Option<Instant> {
        let mut due: Vec<Option<Instant>> = vec![self.read_again, self.stop_by.filter(|by| *by > self.now)];
        due.extend(self.wanting.values().map(|until| Some(*until)));
        due.push(self.asked_elsewhere.filter(|until| *until > self.now && !self.wanting.is_empty()));
        due.push(self.change.as_ref().and_then(|c| c.again));
        if let Some(reign) = &self.reign {
            due.push(reign.flush_due);
            due.push(self.linger_until());
            due.push(self.cooling_due());
            if reign.phase == Phase::TakingOver {
                due.push(self.follow.lease_until.filter(|until| *until > self.now));
            }
            let record = self.record.as_ref();
            for peer in &self.peers {
                let named = record.is_some_and(|r| r.in_sync.contains_key(&peer.node));
                if named && !peer.is_connected() && self.change.is_none() {
                    due.push(Some(self.overdue_at(peer)));
                }
                due.push(peer.sync.as_ref().map(super::resync::Sync::paced).filter(|paced| *paced > self.now));
            }
        }
        due.into_iter().flatten().min()
    }
}
