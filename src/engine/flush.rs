//! Flushes (rules W1, P4): one round at a time makes everything durable that was written before it, here and on every replica of
//! the ack set. Requests that come while a round runs share the next one.

use std::time::Duration;

use crate::units::Protocol;
use crate::wire::Message;

use super::core::Engine;
use super::event::{DiskIo, DiskOutcome};
use super::mutant::{Mutant, mutated};
use super::ops::Op;
use super::peerset::PeerSet;
use super::reign::Phase;

/// A round is due this long after the first write that it would settle ...
pub(super) const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// ... or when so many bytes have been written.
const FLUSH_BYTES: u64 = 64 << 20;

/// The rounds.
#[derive(Debug, Default)]
pub(super) struct Flushes {
    /// Requests for the next round.
    pub(super) waiting: Vec<u64>,
    /// A round is wanted for the engine's own sake.
    pub(super) wanted: bool,
    running: Option<Round>,
    /// Protocols A and B: what has to be on all disks before the next round begins.
    barrier: Option<Barrier>,
    next: u64,
    /// How many rounds have ended.
    pub(super) ended: u64,
}

/// What a replica had been sent when it was last asked to flush.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlushAsked {
    /// The last write that went to it.
    sent: u64,
    /// The last write that went to anybody.
    upto: u64,
}

/// What a round waits for that must not overtake writes that were answered early.
#[derive(Clone, Copy, Debug)]
struct Barrier {
    /// The writes up to here.
    upto: u64,
    /// So many of the waiting requests came before any write after those; the others cover later writes, and wait for the next round.
    requests: usize,
}

#[derive(Debug)]
struct Round {
    id: u64,
    requests: Vec<u64>,
    /// Replicas that have not confirmed.
    missing: PeerSet,
    local: bool,
    /// Up to where local writes were on disk when it began.
    durable: u64,
}

impl Flushes {
    /// Whether a round runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

impl Engine {
    /// Starts a round when one is due and none runs. A flush waits for blocks that are not equal yet (rule P3).
    pub(super) fn consider_flush(&mut self) {
        let has_disk = self.has_disk();
        let Some(reign) = &mut self.reign else { return };
        let due = reign.flush_due.is_some_and(|due| due <= self.now) || self.unsettled.bytes() >= FLUSH_BYTES;
        let wanted = due || reign.flushes.wanted || !reign.flushes.waiting.is_empty();
        let unequal = reign.phase == Phase::TakingOver || (!reign.equal && self.members_are_unequal());
        let unequal = unequal && !mutated(Mutant::FlushUnequal);
        let early = self.settings.protocol != Protocol::C && !mutated(Mutant::FlushOvertakes);
        let targets = self.peers_that(|p| p.sync.is_some() && mutated(Mutant::FlushMembersOnly));
        let Some(reign) = self.reign.as_mut().filter(|r| wanted && !unequal && r.flushes.running.is_none()) else { return };
        let mut covered = reign.flushes.waiting.len();
        if early {
            // With protocols A and B a write may have been answered that is not on every disk yet: a flush that would overtake it
            // there waits until it is (rule W1).
            let now = Barrier { upto: reign.flights.last(), requests: covered };
            let barrier = *reign.flushes.barrier.get_or_insert(now);
            if reign.flights.first_open().is_some_and(|open| open <= barrier.upto) {
                return;
            }
            reign.flushes.barrier = None;
            covered = if mutated(Mutant::FlushJoinsLate) { covered } else { barrier.requests };
        }
        reign.flushes.next += 1;
        reign.flushes.wanted = false;
        reign.flush_due = None;
        let id = reign.flushes.next;
        let requests = reign.flushes.waiting.drain(..covered).collect();
        let missing = reign.ack.iter().filter(|&at| !targets.contains(at)).collect();
        let round = Round {
            id,
            requests,
            missing,
            local: has_disk && !mutated(Mutant::FlushSkipsOwnDisk),
            durable: reign.local.upto(reign.flights.last()),
        };
        reign.flushes.running = Some(round);
        let number = reign.number;
        for peer in reign.ack.iter() {
            if self.peers[peer].data {
                self.ask_flush(peer, id);
            }
        }
        if has_disk {
            self.ops.disk(&mut self.out, Op::Flush { reign: number, round: id }, DiskIo::Flush);
        }
        self.check_round();
    }

    pub(super) fn local_flush_done(&mut self, number: u64, round: u64, outcome: &DiskOutcome) {
        if *outcome == DiskOutcome::Failed {
            // What an fsync that failed has lost is not known: the disk is not asked again.
            self.disk_failed();
            return;
        }
        let Some(reign) = self.reign.as_mut().filter(|r| r.number == number) else { return };
        if let Some(running) = reign.flushes.running.as_mut().filter(|r| r.id == round) {
            running.local = false;
            reign.local_durable = reign.local_durable.max(running.durable);
            self.check_round();
        }
    }

    pub(super) fn flushed_by(&mut self, peer: usize, id: u64, durable: u64) {
        let asked = &mut self.peers[peer].flush_asked;
        // A replica counts only what it was sent; numbers that went to another peer's resync are not missing here.
        let durable = if durable >= asked.sent { durable.max(asked.upto) } else { durable };
        let known = &mut self.peers[peer].durable;
        *known = durable.max(*known);
        let Some(reign) = &mut self.reign else { return };
        if let Some(running) = reign.flushes.running.as_mut().filter(|r| r.id == id) {
            running.missing.remove(peer);
            self.check_round();
        }
    }

    /// A peer that was away for a moment is asked again.
    pub(super) fn resend_flush(&mut self, peer: usize) {
        let Some(running) = self.reign.as_ref().and_then(|r| r.flushes.running.as_ref()) else { return };
        if running.missing.contains(peer) {
            let id = running.id;
            self.ask_flush(peer, id);
        }
    }

    fn ask_flush(&mut self, peer: usize, id: u64) {
        let upto = self.reign.as_ref().map_or(0, |r| r.flights.last());
        let p = &mut self.peers[peer];
        p.flush_asked = FlushAsked { sent: p.sent, upto };
        self.send(peer, Message::Flush { id });
    }

    /// Ends the round when every member of the ack set *as it is now* has confirmed: one that was evicted is not waited for, one
    /// that joined while the round ran is (it was not asked, so another round follows).
    pub(super) fn check_round(&mut self) {
        let own_word_missing = !self.has_disk() && self.record.as_ref().is_some_and(|r| r.in_sync.contains_key(&self.id.node));
        let has_disk = self.has_disk();
        let Some(reign) = &mut self.reign else { return };
        let ack = reign.ack;
        let Some(running) = &mut reign.flushes.running else { return };
        running.local &= has_disk;
        if running.local || own_word_missing || running.missing.meets(ack) {
            return;
        }
        let Some(round) = reign.flushes.running.take() else { return };
        reign.flushes.ended += 1;
        for key in round.requests {
            self.finish(key, Ok(()));
        }
        self.settle();
    }

    /// A member joined the ack set: a round that runs did not ask it, and its requests have to.
    pub(super) fn extend_round(&mut self, peer: usize) {
        let Some(reign) = &mut self.reign else { return };
        if let Some(running) = &mut reign.flushes.running {
            running.missing.insert(peer);
            let id = running.id;
            self.ask_flush(peer, id);
        }
    }

    /// Forgets what is durable on every member (rule P4).
    pub(super) fn settle(&mut self) {
        let local = if self.has_disk() { self.reign.as_ref().map_or(0, |r| r.local_durable) } else { u64::MAX };
        let Some(reign) = &mut self.reign else { return };
        let everywhere = reign.ack.iter().map(|peer| self.peers[peer].durable).min().unwrap_or(u64::MAX);
        let upto = if mutated(Mutant::SettleWritten) {
            reign.flights.all_ended()
        } else {
            local.min(everywhere).min(reign.flights.last())
        };
        if upto > reign.settled {
            reign.settled = upto;
            self.unsettled.settle(upto);
        }
        if self.unsettled.has_current() && reign.flush_due.is_none() {
            reign.flush_due = Some(self.now.after(FLUSH_EVERY));
        }
    }

    /// Tells the replicas what is settled when no write has carried it to them for a while.
    pub(super) fn tell_settled(&mut self) {
        let Some(reign) = &mut self.reign else { return };
        if reign.settled == reign.settled_told || !reign.flights.is_empty() {
            return;
        }
        reign.settled_told = reign.settled;
        let seq = reign.settled;
        for peer in 0..self.peers.len() {
            if self.peers[peer].data {
                self.send(peer, Message::Settled { seq, older: false });
            }
        }
    }
}
