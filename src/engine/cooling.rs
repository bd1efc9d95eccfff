//! Making extents cold (rule W5): first everything in them is durable on every member, then the dirty bits of absent replicas are, here
//! and there, and only then the extents are taken out of the activity maps. In batches, never in a write's path.

use std::time::Duration;

use crate::units::{BlockRange, Extent, NodeId};
use crate::wire::{Message, RANGES_MAX};

use super::admission::Admission;
use super::core::{Engine, volume_blocks};
use super::mutant::{Mutant, mutated};
use super::peer::Peer;
use super::peerset::{PEERS_MAX, PeerSet};
use super::reign::Phase;
use super::store::Then;

/// Hot extents are cooled when there was no write for so long.
const IDLE: Duration = Duration::from_secs(5);

/// The fewest extents that may be hot before the oldest are cooled: 4 GiB.
const HOT_MIN: u64 = 1024;

/// The most extents of one batch: even with every extent dirty for every peer they fit in a message.
const BATCH: usize = RANGES_MAX / (PEERS_MAX + 1);

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Cooling {
    id: u64,
    extents: Vec<Extent>,
    /// Writes after this one keep their extents hot.
    upto: u64,
    /// Replicas that have not cooled them.
    missing: PeerSet,
    /// This node has not.
    own: bool,
}

impl Engine {
    /// Starts a batch when too much is hot, when nothing is written, or when the role is given up.
    pub(super) fn consider_cooling(&mut self) {
        let Some(store) = self.store.as_ref().filter(|s| !s.failed && s.activity.hot() > 0) else { return };
        let Some(reign) = self.reign.as_ref().filter(|r| r.cooling.is_none() && r.equal) else { return };
        if reign.admission.as_ref().is_some_and(Admission::is_handed_over) && !mutated(Mutant::CoolDuringAdmission) {
            // The bits that go with a cooling would not reach it, and it would be cold there when the role is given up (rule M4).
            return;
        }
        let limit = HOT_MIN.max(store.activity.extents() / 16);
        let idle = reign.last_write.after(IDLE) <= self.now && reign.flights.is_empty();
        let all = idle || reign.phase == Phase::SteppingDown;
        let over = store.activity.hot().saturating_sub(limit * 3 / 4);
        let want = if all {
            BATCH
        } else if store.activity.hot() > limit && reign.cooling_tried != reign.settled {
            usize::try_from(over).unwrap_or(BATCH).min(BATCH)
        } else {
            return;
        };
        let upto = if mutated(Mutant::CoolUnflushed) { u64::MAX } else { reign.settled };
        let extents = store.activity.coolable(upto, want);
        let settled = reign.settled;
        if let Some(reign) = &mut self.reign {
            // Nothing more becomes coolable before more is settled.
            reign.cooling_tried = settled;
        }
        if extents.is_empty() {
            return;
        }
        self.begin_cooling(extents);
    }

    fn begin_cooling(&mut self, extents: Vec<Extent>) {
        let Some(record) = &self.record else { return };
        // A target keeps its own hot extents until its admission: they are its report, should it be needed again (rule M5). A member that
        // is away for a moment hears of the batch when it is back, or is evicted.
        let needed = |p: &Peer| p.data || !mutated(Mutant::CoolWithoutTheAway);
        let missing = self.peers_that(|p| record.in_sync.contains_key(&p.node) && needed(p));
        let dirty = if mutated(Mutant::CoolWithoutBits) { Vec::new() } else { self.dirty_in(&extents) };
        let Some(reign) = &mut self.reign else { return };
        let id = reign.name();
        let upto = if mutated(Mutant::CoolUnflushed) { u64::MAX } else { reign.settled };
        reign.cooling = Some(Cooling { id, extents: extents.clone(), upto, missing, own: true });
        for peer in missing.iter() {
            if self.peers[peer].data {
                self.send(peer, Message::Cool { id, extents: extents.clone(), dirty: dirty.clone() });
            }
        }
        if mutated(Mutant::CoolOwnEarly) {
            self.cool_own(id);
        }
        self.store_maps(Then::CoolOwn { id });
    }

    /// For each replica that is not in sync, what is dirty in the extents: for a target too, since its resync may end early.
    fn dirty_in(&self, extents: &[Extent]) -> Vec<(NodeId, Vec<BlockRange>)> {
        let Some(record) = &self.record else { return Vec::new() };
        let ranges: Vec<_> = extents.iter().filter_map(|e| e.range(volume_blocks(&self.settings, e.volume))).collect();
        let absent = self.peers.iter().filter(|p| p.settings.diskful && !record.in_sync.contains_key(&p.node));
        // What a target was given and has not confirmed durable may be gone with its power, and its source with it (rule R1).
        let window = |p: &Peer| -> Vec<BlockRange> {
            let data = p.data && !mutated(Mutant::CoolWithoutWindows);
            if data { self.unsettled.since(p.durable).collect() } else { Vec::new() }
        };
        let fine = |p: &Peer| -> Vec<BlockRange> {
            let window = window(p);
            let given = |r: &BlockRange| window.iter().filter_map(|w| w.intersection(r)).collect::<Vec<_>>();
            ranges.iter().flat_map(|r| p.dirty.runs_in(*r).into_iter().chain(given(r))).collect()
        };
        let coarse = |p: &Peer| {
            let window = window(p);
            ranges.iter().copied().filter(|r| p.dirty.meets(*r) || window.iter().any(|w| w.overlaps(r))).collect()
        };
        // Too many runs for a message become whole extents, which over-reports.
        let of = |p| Some(fine(p)).filter(|runs| runs.len() <= BATCH).unwrap_or_else(|| coarse(p));
        absent.map(|p| (p.node, of(p))).filter(|(_, runs)| !runs.is_empty()).collect()
    }

    /// The primary's own bits of a batch are durable.
    pub(super) fn cool_own(&mut self, id: u64) {
        let Some(cooling) = self.reign.as_mut().and_then(|r| r.cooling.as_mut()).filter(|c| c.id == id) else { return };
        if let Some(store) = &mut self.store {
            store.activity.cool(&cooling.extents, cooling.upto);
        }
        cooling.own = false;
        self.end_cooling();
    }

    pub(super) fn cooled_by(&mut self, peer: usize, id: u64) {
        if let Some(cooling) = self.reign.as_mut().and_then(|r| r.cooling.as_mut()).filter(|c| c.id == id) {
            cooling.missing.remove(peer);
            self.end_cooling();
        }
    }

    /// A member that was away for a moment has to hear of the batch, with the bits that come with it, before it is over. What was written
    /// since the batch began is left out: the member may have that by now, and would take it for older than the batch.
    pub(super) fn resend_cool(&mut self, peer: usize) {
        let Some(cooling) = self.reign.as_ref().and_then(|r| r.cooling.as_ref()) else { return };
        if cooling.missing.contains(peer) {
            let (id, upto) = (cooling.id, cooling.upto);
            let store = self.store.as_ref().filter(|store| !store.failed);
            let same = |extent: &Extent| {
                store.is_some_and(|s| s.activity.is_unwritten_since(*extent, upto)) || mutated(Mutant::CoolAgainWritten)
            };
            let extents: Vec<Extent> = cooling.extents.iter().copied().filter(same).collect();
            let dirty = self.dirty_in(&extents);
            self.send(peer, Message::Cool { id, extents, dirty });
        }
    }

    /// A replica that the record does not name any more keeps its extents hot; it will be resynced there.
    pub(super) fn cooling_lost_peer(&mut self, peer: usize) {
        if let Some(cooling) = self.reign.as_mut().and_then(|r| r.cooling.as_mut()) {
            cooling.missing.remove(peer);
            self.end_cooling();
        }
    }

    fn end_cooling(&mut self) {
        if let Some(reign) = &mut self.reign
            && reign.cooling.as_ref().is_some_and(|c| c.missing.is_empty() && !c.own)
        {
            reign.cooling = None;
        }
    }

    /// When cooling for idleness is due.
    pub(super) fn cooling_due(&self) -> Option<crate::units::Instant> {
        let hot = self.store.as_ref().is_some_and(|s| !s.failed && s.activity.hot() > 0);
        let reign = self.reign.as_ref().filter(|r| hot && r.cooling.is_none() && r.equal && r.flights.is_empty())?;
        let at = reign.last_write.after(IDLE);
        (at > self.now).then_some(at)
    }

    /// Replica: the primary wants extents cold. Bits first.
    pub(super) fn cool(&mut self, id: u64, extents: Vec<Extent>, dirty: &[(NodeId, Vec<BlockRange>)]) {
        self.set_bits(dirty);
        let seen = self.follow.seen;
        self.follow.cooling.push_back((id, extents, seen));
        let session = self.follow.session;
        if mutated(Mutant::CoolEarly) {
            self.cool_now(session, id);
        }
        self.store_maps(Then::CoolNow { session, id });
    }

    /// Replica: the bits are durable. A write that came meanwhile keeps its extent hot.
    ///
    /// What was stored for a session that is over is passed over: the same batch came again in the present one, perhaps with other bits.
    pub(super) fn cool_now(&mut self, session: u64, id: u64) {
        if session != self.follow.session {
            return;
        }
        let Some(at) = self.follow.cooling.iter().position(|(asked, _, _)| *asked == id) else { return };
        let Some((_, extents, seen)) = self.follow.cooling.remove(at) else { return };
        if let (Some(store), true) = (&mut self.store, self.follow.primary.is_some()) {
            store.activity.cool(&extents, seen);
            store.when_activity_stored(Then::Cooled { session, id });
        }
    }

    /// Replica: the extents are durably cold.
    pub(super) fn tell_cooled(&mut self, session: u64, id: u64) {
        if let Some(primary) = self.follow.primary.filter(|_| session == self.follow.session) {
            self.send(primary, Message::Cooled { id });
        }
    }
}
