//! Where this node stands, as peers are told.

use crate::units::{DiskState, Incarnation, RecordId, Role, Sharing};
use crate::wire::{Message, RecordPoint, ReplicaStanding, Standing};

use super::core::Engine;

/// The changing part of a [`Standing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gist {
    record: Option<(RecordId, bool)>,
    continues: Option<Incarnation>,
    synced: Option<(u64, RecordId)>,
    disk: DiskState,
    role: Role,
    in_use: bool,
    sharing: Option<Sharing>,
    shapes: u64,
}

impl Engine {
    /// Where this node stands.
    pub(super) fn standing(&self) -> Standing {
        let replica = self.store.as_ref().map(|store| ReplicaStanding {
            replica: store.superblock.replica,
            incarnation: store.superblock.incarnation,
            continues: store.superblock.continues,
            disk: store.disk(),
            synced: store.superblock.synced.map(|(number, id)| RecordPoint { number, id }),
        });
        Standing {
            replica,
            record: self.record.clone(),
            lineage: self.lineage.clone(),
            role: self.role(),
            in_use: self.is_in_use(),
            sharing: self.shares(),
            volumes: self.settings.volumes.iter().map(|(volume, bytes)| (*volume, *bytes)).collect(),
        }
    }

    /// Tells every peer that has introduced itself where this node stands, when that has changed.
    pub(super) fn announce(&mut self) {
        let gist = self.gist();
        for peer in 0..self.peers.len() {
            let p = &mut self.peers[peer];
            if p.link && p.their_token != 0 && p.told != Some(gist) {
                p.told = Some(gist);
                self.private = false;
                let standing = self.standing();
                self.send(peer, Message::Standing(Box::new(standing)));
            }
        }
    }

    /// What can change in the standing, small enough to be compared after every event.
    pub(super) fn gist(&self) -> Gist {
        let superblock = self.store.as_ref().map(|s| &s.superblock);
        Gist {
            record: self.record.as_ref().map(|r| (r.id, r.unwritten)),
            continues: superblock.map(|s| s.continues),
            synced: superblock.and_then(|s| s.synced),
            disk: self.disk_state(),
            role: self.role(),
            in_use: self.is_in_use(),
            sharing: self.shares(),
            shapes: self.shapes,
        }
    }

    pub(super) fn is_in_use(&self) -> bool {
        let guests = self.reign.as_ref().is_some_and(|r| !r.guests.is_empty());
        guests || !self.clients.is_empty() || !self.wanting.is_empty() || !self.visitors.is_empty()
    }
}
