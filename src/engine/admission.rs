//! Taking a resynced replica into the in-sync set (rule M4).
//!
//! In order: it is in the ack set already, since it gets clients' writes; nothing is dirty for it; a whole flush has confirmed what it
//! was given; it durably holds what its own promotion would need, the primary's hot set and the dirty bits of every absent replica; and
//! only then the record names it. Without the fourth step it became primary and knew nothing of the third replica.

use crate::units::{Extent, NodeId};
use crate::wire::{Message, RANGES_MAX, RecordPoint};

use super::change::Purpose;
use super::core::Engine;
use super::mutant::{Mutant, mutated};
use super::reign::Phase;
use super::store::Then;

/// An admission under way.
#[derive(Debug)]
pub(super) struct Admission {
    peer: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// A flush that begins after this many have ended confirms what the replica was given.
    Flushing { from: u64 },
    /// It stores what its promotion would need.
    Storing { id: u64 },
    /// The record is to name it.
    Stored,
    /// The change is asked for.
    Proposed,
}

impl Admission {
    /// Whether the replica was given what it needs to know, and nothing that is found out later reaches it before the record names it.
    pub(super) fn is_handed_over(&self) -> bool {
        !matches!(self.stage, Stage::Flushing { .. })
    }

    /// Whether the record is being asked for it.
    pub(super) fn is_proposed(&self) -> bool {
        matches!(self.stage, Stage::Proposed)
    }
}

impl Engine {
    pub(super) fn consider_admission(&mut self) {
        let proposed = self.change.is_some();
        if let Some(reign) = self.reign.as_mut().filter(|r| !proposed && r.admission.as_ref().is_some_and(Admission::is_proposed))
        {
            // It was refused: another try.
            reign.admission = None;
        }
        let Some(reign) = self.reign.as_ref().filter(|r| r.phase == Phase::Serving) else { return };
        let Some(admission) = &reign.admission else {
            self.begin_admission();
            return;
        };
        let at = admission.peer;
        match admission.stage {
            Stage::Flushing { from } if reign.flushes.ended > from || mutated(Mutant::AdmitUnflushed) => {
                if self.is_synced(at) {
                    self.hand_over(at);
                } else if let Some(reign) = &mut self.reign {
                    reign.admission = None;
                }
            }
            Stage::Stored if !self.is_synced(at) => {
                if let Some(reign) = &mut self.reign {
                    reign.admission = None;
                }
            }
            Stage::Stored if self.change.is_none() => self.propose_member(at),
            _ => {}
        }
    }

    /// Whether a target has every block.
    fn is_synced(&self, at: usize) -> bool {
        let peer = &self.peers[at];
        (peer.dirty.is_clear() || mutated(Mutant::AdmitDirty))
            && peer.sync.as_ref().is_some_and(|s| s.is_running() && s.is_quiet())
    }

    fn begin_admission(&mut self) {
        let Some(peer) = (0..self.peers.len()).find(|&at| self.is_synced(at)) else { return };
        let Some(reign) = &mut self.reign else { return };
        let from = reign.flushes.ended + u64::from(reign.flushes.is_running());
        reign.flushes.wanted = true;
        reign.admission = Some(Admission { peer, stage: Stage::Flushing { from } });
    }

    /// Gives the replica all that its promotion would need.
    fn hand_over(&mut self, at: usize) {
        let empty_handed = mutated(Mutant::AdmitEmptyHanded);
        let hot = self.store.as_ref().filter(|_| !empty_handed).map(|s| s.activity.hot_extents()).unwrap_or_default();
        for part in hot.chunks(RANGES_MAX) {
            self.send(at, Message::AdmitPart { hot: part.to_vec(), dirty: Vec::new() });
        }
        for absent in self.absent(at).into_iter().filter(|_| !empty_handed) {
            let node = self.peers[absent].node;
            let data = self.peers[absent].data && !mutated(Mutant::AdmitWithoutWindows);
            let window = data.then(|| self.unsettled.since(self.peers[absent].durable).collect::<Vec<_>>());
            let window = self.within_volumes(&window.unwrap_or_default());
            let ranges: Vec<_> = self.peers[absent].dirty.runs().into_iter().chain(window).collect();
            for part in ranges.chunks(RANGES_MAX) {
                self.send(at, Message::AdmitPart { hot: Vec::new(), dirty: vec![(node, part.to_vec())] });
            }
        }
        self.tell_applied(at, true);
        let bases = self.bases();
        let Some(reign) = &mut self.reign else { return };
        let id = reign.name();
        if let Some(admission) = &mut reign.admission {
            admission.stage = Stage::Storing { id };
        }
        self.send(at, Message::Admit { id, bases });
    }

    /// Replicas that are not in sync, other than `but`.
    fn absent(&self, but: usize) -> Vec<usize> {
        let Some(record) = &self.record else { return Vec::new() };
        let out =
            |at: &usize| *at != but && self.peers[*at].settings.diskful && !record.in_sync.contains_key(&self.peers[*at].node);
        (0..self.peers.len()).filter(out).collect()
    }

    fn bases(&self) -> Vec<(NodeId, RecordPoint)> {
        let slots = self.store.iter().flat_map(|s| &s.superblock.peers).filter(|_| !mutated(Mutant::AdmitWithoutBases));
        slots.filter_map(|p| p.base.map(|(number, id)| (p.node, RecordPoint { number, id }))).collect()
    }

    pub(super) fn admit_stored(&mut self, at: usize, id: u64) {
        if let Some(admission) = self.reign.as_mut().and_then(|r| r.admission.as_mut())
            && admission.peer == at
            && matches!(admission.stage, Stage::Storing { id: asked } if asked == id)
        {
            admission.stage = Stage::Stored;
        }
    }

    fn propose_member(&mut self, at: usize) {
        let (Some(record), Some(incarnation)) = (&self.record, self.peers[at].incarnation()) else { return };
        let mut next = record.next(self.ids.record());
        next.in_sync.insert(self.peers[at].node, incarnation);
        if let Some(admission) = self.reign.as_mut().and_then(|r| r.admission.as_mut()) {
            admission.stage = Stage::Proposed;
        }
        self.propose(next, Purpose::Admit(at));
    }

    /// The record names it. If its session was broken while the answer was on its way, a resync has begun anew: what that still holds for
    /// dirty is made equal as on any member.
    pub(super) fn admitted(&mut self, at: usize) {
        self.abort_sync(at);
        if let Some(reign) = &mut self.reign {
            reign.admission = None;
        }
        if !self.resume_named(at) {
            self.tell_equal(at);
        }
    }

    pub(super) fn abort_admission(&mut self, at: usize) {
        if let Some(reign) = &mut self.reign
            && reign.admission.as_ref().is_some_and(|a| a.peer == at && !matches!(a.stage, Stage::Proposed))
        {
            reign.admission = None;
        }
    }

    /// Target: extents and bits that the primary hands over.
    pub(super) fn admit_part(&mut self, hot: &[Extent], dirty: &[(NodeId, Vec<crate::units::BlockRange>)]) {
        if let Some(store) = &mut self.store {
            hot.iter().for_each(|extent| store.activity.heat(*extent));
        }
        self.set_bits(dirty);
    }

    /// Sets bits that another node has.
    pub(super) fn set_bits(&mut self, dirty: &[(NodeId, Vec<crate::units::BlockRange>)]) {
        for (node, ranges) in dirty {
            if let Some(at) = self.peer_at(*node) {
                ranges.iter().for_each(|range| self.peers[at].dirty.set(*range));
            }
        }
    }

    /// Target: all was handed over; store it and say so. Of whom the primary has no base there is none: what this node noted of it before may
    /// be of a line that was given up (rule M9).
    pub(super) fn admit(&mut self, peer: usize, id: u64, bases: &[(NodeId, RecordPoint)]) {
        let primary = self.peers[peer].node;
        let Some(store) = &mut self.store else { return };
        for slot in store.superblock.peers.iter_mut().filter(|slot| slot.node != primary) {
            let base = bases.iter().find(|(node, _)| *node == slot.node);
            slot.base = base.map(|(_, base)| (base.number, base.id));
        }
        if mutated(Mutant::AdmitUnstored) {
            self.send(peer, Message::AdmitStored { id });
        }
        self.store_maps(Then::AdmitMaps { peer, id });
    }

    pub(super) fn admit_maps_stored(&mut self, peer: usize, id: u64) {
        if let Some(store) = &mut self.store {
            store.when_activity_stored(Then::AdmitActivity { peer, id });
        }
    }

    pub(super) fn admit_activity_stored(&mut self, peer: usize, id: u64) {
        if let Some(store) = &mut self.store {
            store.store_superblock(Then::AdmitStored { peer, id }, &mut self.ops, &mut self.out);
        }
    }
}
