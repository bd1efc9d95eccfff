//! What an engine shows, and when it wants to be woken.

use crate::units::{BLOCK, BlockRange, Instant};

use super::core::Engine;
use super::link::Links;
use super::reign::Phase;
use super::reshape::Room;
use super::status::{PeerStatus, ResourceStatus, ResyncStatus, Suspension, VolumeStatus};

impl Engine {
    /// The resource as this node sees it.
    pub fn status(&self) -> ResourceStatus {
        let primary = match (&self.reign, self.follow.primary) {
            (Some(_), _) => Some(self.id.node),
            (None, Some(peer)) => Some(self.peers[peer].node),
            (None, None) => self.peers.iter().find(|p| p.is_connected() && p.is_primary()).map(|p| p.node),
        };
        let volume = |&volume| Some(VolumeStatus { volume, bytes: self.volume_bytes(volume)? });
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
            dropped: self.dropped,
            volumes: self.settings.volumes.keys().filter_map(volume).collect(),
        }
    }

    /// Whether what is a hole in this node's replica may be told to clients as zeroes now, like a read that is answered now: no write of
    /// these blocks is in flight (rule W4), they are equal everywhere (P3), and every lease is good (F2). If not they count as data.
    pub fn may_tell_holes(&self, now: Instant, links: &Links, range: BlockRange) -> bool {
        let Some(reign) = self.reign.as_ref().filter(|r| r.phase == Phase::Serving) else { return false };
        let settled = !reign.order.is_changing(range) && !self.is_unequal(range) && self.room_for(range) == Room::Everywhere;
        settled && self.has_disk() && self.am_member() && reign.ack.iter().all(|peer| self.has_lease_at(links, peer, now))
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
            verify: self.verified(peer.node),
        }
    }

    /// Why I/O waits.
    fn suspensions(&self) -> Vec<Suspension> {
        let mut found = Vec::new();
        if self.fails_io() {
            found.push(Suspension::Failing);
        }
        if self.change.as_ref().is_some_and(|c| c.unanswered) {
            found.push(Suspension::Authority);
        }
        found.extend(self.awaited_servers().map(Suspension::NoData));
        let Some(reign) = &self.reign else { return found };
        if reign.phase == Phase::TakingOver {
            found.push(Suspension::TakingOver);
            if let Some(left) = self.follow.lease_until.filter(|until| *until > self.now) {
                let left = u64::try_from(left.since(self.now).as_millis()).unwrap_or(u64::MAX);
                found.push(Suspension::Lease(left));
            }
        }
        if self.holds_writes() {
            found.push(Suspension::Snapshot);
        }
        let awaited = reign.ack.iter().filter(|&at| !self.peers[at].data);
        found.extend(awaited.map(|at| Suspension::Waiting(self.peers[at].node)));
        found
    }

    /// When the engine wants to be handed [`Event::Timeout`](super::Event::Timeout): something may be due then. `None` when only events
    /// can change anything.
    pub fn timeout(&self) -> Option<Instant> {
        let later = |at: Option<Instant>| at.filter(|at| *at > self.now);
        let mut due = [
            self.read_again,
            later(self.stop_by),
            later(self.hold_ends()),
            later(self.verify_due()),
            later(self.wanting.values().map(|wanting| wanting.until).min()),
            later(self.asked_elsewhere).filter(|_| !self.wanting.is_empty() || !self.clients.is_empty()),
            later(self.barred_due()),
            later(self.io_fails_from()),
            self.promoting_due(),
            self.reign.as_ref().and_then(|reign| reign.guests.lost_due(self.now)),
            later(self.forward_due()),
            later(self.visitors.values().map(|visitor| visitor.until).min()),
            self.change.as_ref().and_then(|c| c.again),
            later(self.primary_may_return()).filter(|_| self.reign.is_none()),
        ]
        .into_iter()
        .flatten()
        .min();
        let Some(reign) = &self.reign else { return due };
        let lease = self.follow.lease_until.filter(|_| reign.phase == Phase::TakingOver);
        for at in [later(reign.flush_due), later(self.linger_until()), later(self.heir_due()), self.cooling_due(), later(lease)]
            .into_iter()
            .flatten()
        {
            due = earlier(due, at);
        }
        for peer in &self.peers {
            let named = self.record.as_ref().is_some_and(|r| r.in_sync.contains_key(&peer.node));
            if named && self.change.is_none() {
                let at = if peer.is_connected() { self.narrow_until(peer) } else { Some(self.overdue_at(peer)) };
                due = later(at).map_or(due, |at| earlier(due, at));
            }
            if let Some(paced) = later(peer.sync.as_ref().map(super::resync::Sync::paced)) {
                due = earlier(due, paced);
            }
        }
        due
    }
}

fn earlier(due: Option<Instant>, at: Instant) -> Option<Instant> {
    Some(due.map_or(at, |due| due.min(at)))
}
