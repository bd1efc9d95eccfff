//! A primary's writes at a replica: from their arrival, through the activity map, to the disk (rules W2, F4, Q3).

use crate::units::{Authority, BlockRange, VolumeId};
use crate::wire::{Write, Zero};

use super::core::{Engine, volume_blocks};
use super::event::{BufferId, DiskIo, DiskOutcome};
use super::mutant::{Mutant, mutated};
use super::ops::Op;
use super::store::Then;

/// A write that has arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    peer: usize,
    seq: u64,
    range: BlockRange,
    fua: bool,
    what: Payload,
    hot: bool,
}

#[derive(Debug)]
enum Payload {
    Data(BufferId),
    Zeroes { unmap: bool },
}

impl Engine {
    /// Drops what has arrived and was not submitted.
    pub(super) fn drop_arrivals(&mut self) {
        for arrival in std::mem::take(&mut self.follow.waiting) {
            if let (true, Some(store)) = (arrival.hot, &mut self.store) {
                store.activity.release(arrival.range);
            }
            if let Payload::Data(buffer) = arrival.what {
                self.out.push(super::Command::Release(buffer));
            }
        }
    }

    /// A volume goes: what has arrived for it is as good as written.
    pub(super) fn drop_arrivals_in(&mut self, volume: VolumeId) {
        let (gone, stays) =
            std::mem::take(&mut self.follow.waiting).into_iter().partition(|a: &Arrival| a.range.volume == volume);
        self.follow.waiting = stays;
        for arrival in gone {
            self.void(arrival, true);
        }
    }

    /// Passes over a write to a volume that is not there any more.
    fn void(&mut self, arrival: Arrival, begun: bool) {
        if !begun {
            self.follow.applied.begin(arrival.seq);
        }
        self.follow.applied.end(arrival.seq);
        self.peers[arrival.peer].written.push(arrival.seq);
        if let Payload::Data(buffer) = arrival.what {
            self.out.push(super::Command::Release(buffer));
        }
    }

    pub(super) fn arrived(&mut self, peer: usize, write: Write, payload: Option<BufferId>) {
        let Some(buffer) = payload else { return };
        let what = Payload::Data(buffer);
        self.arrive(
            write.settled,
            write.sync,
            Arrival { peer, seq: write.seq, range: write.range, fua: write.fua, what, hot: false },
        );
    }

    pub(super) fn arrived_zero(&mut self, peer: usize, zero: Zero) {
        let what = Payload::Zeroes { unmap: zero.unmap };
        self.arrive(zero.settled, zero.sync, Arrival { peer, seq: zero.seq, range: zero.range, fua: zero.fua, what, hot: false });
    }

    fn arrive(&mut self, settled: u64, sync: bool, mut arrival: Arrival) {
        let gone = self.is_gone(arrival.range.volume);
        if gone && self.store.as_ref().is_some_and(|s| !s.failed) {
            return self.void(arrival, false);
        }
        let inside = arrival.range.end() <= volume_blocks(&self.settings, arrival.range.volume);
        let Some(store) = self.store.as_mut().filter(|s| !s.failed && inside) else {
            // It is not acknowledged, and no flush may pass over it.
            self.follow.applied.begin(arrival.seq);
            if let Payload::Data(buffer) = arrival.what {
                self.out.push(super::Command::Release(buffer));
            }
            return;
        };
        self.unsettled.settle(settled);
        self.unsettled.note(arrival.seq, arrival.range);
        self.follow.seen = self.follow.seen.max(arrival.seq);
        self.follow.applied.begin(arrival.seq);
        if self.settings.protocol == crate::units::Protocol::B && !sync {
            self.peers[arrival.peer].received.push(arrival.seq);
        }
        // A target of a resync is durably Inconsistent, and the source keeps its bits until it has flushed: it needs no mark for
        // a block that it is only given (rules R1 and R4). A member does.
        let mut ready = true;
        if !(sync && store.superblock.inconsistent) {
            arrival.hot = true;
            ready = store.activity.hold(arrival.range, arrival.seq) || mutated(Mutant::ApplyCold);
        }
        self.latch_follower();
        if ready && !self.follow.latched {
            self.apply(arrival);
        } else {
            self.follow.waiting.push_back(arrival);
        }
    }

    /// The first write under a record that says "unwritten" is applied only when the record says otherwise durably (rule Q3).
    fn latch_follower(&mut self) {
        let unwritten = self.record.as_ref().is_some_and(|r| r.unwritten && r.authority == Authority::Off);
        if unwritten && !self.follow.latched && !mutated(Mutant::NeverLatched) {
            self.follow.latched = true;
            if let Some(record) = &mut self.record {
                record.unwritten = false;
            }
            self.store_record(Then::Unlatch);
        }
    }

    pub(super) fn unlatch_follower(&mut self) {
        self.follow.latched = false;
        self.apply_waiting();
    }

    /// Applies what has become ready. Arrivals do not overlap, so their order among each other is free.
    pub(super) fn apply_waiting(&mut self) {
        if self.follow.latched {
            return;
        }
        for arrival in std::mem::take(&mut self.follow.waiting) {
            let durable = |s: &super::store::Store| !arrival.hot || s.activity.is_durable(arrival.range);
            if self.store.as_ref().is_some_and(durable) {
                self.apply(arrival);
            } else {
                self.follow.waiting.push_back(arrival);
            }
        }
    }

    fn apply(&mut self, arrival: Arrival) {
        let Arrival { peer, seq, range, fua, what, hot } = arrival;
        // It is on the disk before this node reports or takes over (rule F4).
        if let Some(origin) = self.follow.origins.remove(&seq) {
            self.applied.note(&origin);
        }
        let io = match what {
            Payload::Data(buffer) => DiskIo::Write { range, buffer, fua },
            Payload::Zeroes { unmap } => DiskIo::Zero { range, unmap, fua },
        };
        let held = hot.then_some(range);
        self.ops.disk(&mut self.out, Op::Apply { peer, seq, held }, io);
        if let Payload::Data(buffer) = what {
            self.out.push(super::Command::Release(buffer));
        }
    }

    pub(super) fn applied(&mut self, peer: usize, seq: u64, held: Option<BlockRange>, outcome: &DiskOutcome) {
        if let (Some(range), Some(store)) = (held, &mut self.store) {
            store.activity.release(range);
        }
        if *outcome == DiskOutcome::Failed && !mutated(Mutant::WriteFailureIgnored) {
            self.disk_failed();
            return;
        }
        if self.follow.primary == Some(peer) {
            self.follow.applied.end(seq);
            self.peers[peer].written.push(seq);
        }
    }
}
