//! Which peers and volumes there are, at the start and when that changes.

use std::collections::BTreeMap;

use crate::format::{Bitmap, PeerSlot, Superblock};
use crate::units::{NodeId, VolumeId};

use super::core::Engine;
use super::dirty::Dirty;
use super::event::Command;
use super::mutant::{Mutant, mutated};
use super::peer::Peer;
use super::peerset::PEERS_MAX;
use super::settings::Settings;

/// Bitmaps as they were read from disk, by slot and volume.
pub(super) type Bitmaps = BTreeMap<(u16, VolumeId), Bitmap>;

impl Engine {
    pub(super) fn configure(&mut self, settings: Settings) {
        if settings.peers.len() > PEERS_MAX {
            self.out.push(Command::Configured);
            return;
        }
        self.next_settings = Some(settings);
        if self.reshape.is_none() {
            self.configured();
        }
    }

    /// Nothing that was configured is under way: goes on with what came meanwhile.
    pub(super) fn configured(&mut self) {
        let Some(settings) = self.next_settings.take() else {
            self.out.push(Command::Configured);
            return;
        };
        let wanted = settings.volumes.clone();
        // The volumes follow when their maps have room.
        let volumes = std::mem::take(&mut self.settings.volumes);
        self.settings = Settings { volumes, ..settings };
        self.make_peers(&mut BTreeMap::new());
        self.drop_removed_peers();
        self.begin_reshape(wanted);
        if self.reshape.is_none() {
            self.out.push(Command::Configured);
        }
    }

    /// Makes the list of peers follow the settings. A peer keeps its place for the engine's life.
    pub(super) fn make_peers(&mut self, bitmaps: &mut Bitmaps) {
        let wanted: Vec<_> = self.settings.peers.iter().map(|(n, p)| (*n, p.clone())).collect();
        for (node, settings) in wanted {
            if let Some(peer) = self.peers.iter_mut().find(|p| p.node == node) {
                peer.settings = settings;
                continue;
            }
            let slot = self.store.as_mut().and_then(|store| slot_of(&mut store.superblock, &self.settings, node));
            if slot.is_some() {
                // A peer that is gone and had the slot before must not write there any more.
                self.peers.iter_mut().for_each(|peer| peer.dirty.give_up(slot));
            }
            let mut dirty = Dirty::new(slot);
            for (&volume, &bytes) in &self.settings.volumes {
                let region = self.store.as_ref().and_then(|s| s.superblock.regions.iter().find(|r| r.volume == volume));
                let bits = slot.and_then(|slot| bitmaps.remove(&(slot, volume)));
                dirty.add(volume, bytes, region.copied(), bits);
            }
            self.peers.push(Peer::new(node, settings, dirty));
        }
    }
}

/// The bitmap slot of a peer. A new peer takes a free slot, or that of a node that is no peer any more; whatever bits are in it
/// do no harm, since a peer without a base is synced in full. `None` when there is no room: such a peer is always synced in full.
fn slot_of(superblock: &mut Superblock, settings: &Settings, node: NodeId) -> Option<u16> {
    let room = superblock.regions.iter().map(|r| r.slots).min().unwrap_or(0);
    let fresh = PeerSlot { node, base: None };
    let known = superblock.peers.iter().position(|p| p.node == node);
    let at = match known {
        Some(at) => at,
        None if superblock.peers.len() < usize::from(room) => {
            superblock.peers.push(fresh);
            superblock.peers.len() - 1
        }
        None => {
            let at = superblock.peers.iter().position(|p| !settings.peers.contains_key(&p.node))?;
            superblock.peers[at] = if mutated(Mutant::SlotKeepsBase) { PeerSlot { node, ..superblock.peers[at] } } else { fresh };
            at
        }
    };
    u16::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Peer, Timeouts};
    use crate::format::Region;
    use crate::units::{AfterSplitBrain, Authority, ClusterId, Incarnation, Protocol, RecordId, ReplicaId, ResourceId};

    #[test]
    fn a_peer_that_gets_a_used_slot_does_not_inherit_what_its_bitmap_is_good_for() {
        let (gone, new) = (NodeId(1), NodeId(2));
        let mut superblock = Superblock {
            version: 1,
            cluster: ClusterId(1),
            resource: ResourceId(1),
            node: NodeId(0),
            replica: ReplicaId(1),
            incarnation: Incarnation(1),
            continues: Incarnation(1),
            clean: true,
            inconsistent: false,
            outdated: false,
            synced: None,
            record: None,
            parted: None,
            lineage: Vec::new(),
            peers: vec![PeerSlot { node: gone, base: Some((7, RecordId(7))) }],
            regions: vec![Region { volume: VolumeId(0), bytes: 4 << 20, at: 32 << 10, slots: 1 }],
        };
        let settings = Settings {
            peers: [(new, Peer { name: "new".parse().unwrap(), diskful: true, leaving: false, paused: false, apart: false })]
                .into(),
            volumes: [(VolumeId(0), 4 << 20)].into(),
            protocol: Protocol::C,
            authority: Authority::Majority,
            io_fails_after: None,
            after_split_brain: AfterSplitBrain::default(),
            resync_max: 0,
            timeouts: Timeouts::default(),
        };
        assert_eq!(slot_of(&mut superblock, &settings, new), Some(0));
        assert_eq!(superblock.peers, [PeerSlot { node: new, base: None }], "it is synced in full");
    }
}
