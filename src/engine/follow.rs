//! What a replica does under a primary (rules F1, F3, F4, M5, P2); its writes are `arrivals`'.

use std::collections::VecDeque;

use crate::units::{BlockRange, Instant, NodeId, Record};
use crate::wire::{Message, Origin, RANGES_MAX, Report};

use super::arrivals::Arrival;
use super::core::{Engine, volume_blocks};
use super::entry::Wish;
use super::event::{BufferId, DiskIo, DiskOutcome};
use super::link::Links;
use super::mutant::{Mutant, mutated};
use super::ops::Op;
use super::prefix::Prefix;
use super::store::Then;

/// The following of a primary.
#[derive(Debug, Default)]
pub(super) struct Follow {
    /// The primary whose session is open.
    pub(super) primary: Option<usize>,
    /// That session's name. What was stored for an older one says nothing in this one.
    pub(super) session: u64,
    /// A primary that wants to be followed, while this node drains and stores.
    opening: Option<Opening>,
    /// The reign whose writes are remembered by number.
    pub(super) reign: u64,
    /// Writes of the session: up to where all are on disk.
    pub(super) applied: Prefix,
    /// The newest write of the reign that was seen in this life.
    pub(super) seen: u64,
    /// Writes that wait for their extents to be hot, or for the record to be stored.
    pub(super) waiting: VecDeque<Arrival>,
    /// The record says that writing has begun, and is being stored (rule Q3).
    pub(super) latched: bool,
    /// An older primary may hold a lease that this node granted, until then.
    pub(super) lease_until: Option<Instant>,
    /// Which forwarded requests the writes are that follow.
    pub(super) origins: std::collections::BTreeMap<u64, Origin>,
    /// Extents to be cooled when their bits are stored: the question's number, and the newest write when it was asked.
    pub(super) cooling: VecDeque<(u64, Vec<crate::units::Extent>, u64)>,
}

#[derive(Debug)]
struct Opening {
    peer: usize,
    session: u64,
    stored: bool,
    storing: bool,
}

impl Engine {
    /// A message of a peer's engine.
    pub(super) fn message(&mut self, links: &Links, from: NodeId, reign: u64, message: Message, payload: Option<BufferId>) {
        let Some(at) = self.peer_at(from) else {
            self.out.extend(payload.map(super::Command::Release));
            return;
        };
        let introduced = self.peers[at].their_token != 0;
        match message {
            Message::Hello(hello) => self.hello(links, at, *hello),
            _ if !introduced => self.out.extend(payload.map(super::Command::Release)),
            Message::Standing(standing) => self.stands(links, at, *standing),
            Message::Fenced { record } => self.fenced(at, &record),
            Message::Open { session, record } => self.open(links, at, session, record),
            Message::Leaving => self.peers[at].hopeless = !mutated(Mutant::LeavingForgotten),
            Message::StepDown => self.asked_to_step_down(at),
            Message::InUse => self.in_use_elsewhere(at),
            Message::Serve { session, entry, waits, sharing } => self.asked_to_serve(at, session, Wish { entry, waits, sharing }),
            Message::Serving { session, memory, entry, sharing } => {
                self.served(at, reign, session, memory, Wish { entry, waits: false, sharing });
            }
            Message::Barred { session, by } => self.forward_barred(session, by),
            Message::Meet { round } => self.send(at, Message::Met { round }),
            Message::Met { round } => self.met(at, round),
            Message::Busy { session, seq } => self.forward_busy(at, session, seq),
            Message::NotServing { session, why } => self.not_served(at, session, why),
            Message::Unserve { session } => self.unserved(at, session),
            Message::Forward { session, seq, answered, what } => {
                let origin = Origin { node: from, session, seq, answered };
                self.forwarded(at, origin, what, payload);
            }
            Message::Answer { session, seq, result } => self.forward_answered(at, session, seq, result, payload),
            Message::Propose { expect, record } => self.proposed(links, at, expect, record),
            Message::Accepted { id } => self.accepted(at, id),
            Message::Rejected { id, record } => self.rejected(links, at, id, record),
            Message::Withdraw { id } => self.withdrawn(id),
            Message::Diverged(word) => self.diverged(at, word),
            Message::Record { record } => self.record_changed(links, at, record),
            Message::ReportRanges { .. }
            | Message::Report(_)
            | Message::Written { .. }
            | Message::Received { .. }
            | Message::Flushed { .. }
            | Message::ReadReply { .. }
            | Message::SyncReady
            | Message::Hashes { .. }
            | Message::Cooled { .. }
            | Message::AdmitStored { .. } => self.hear(at, reign, message, payload),
            _ => self.obey(at, reign, message, payload),
        }
    }

    /// A message that only the primary that this node follows may send (rule F1): from any other it is refused, not answered.
    fn obey(&mut self, at: usize, reign: u64, message: Message, payload: Option<BufferId>) {
        let mine = self.record.as_ref().map_or(0, |r| r.reign);
        if (self.follow.primary != Some(at) || reign != mine) && !mutated(Mutant::ObeyAnybody) {
            self.out.extend(payload.map(super::Command::Release));
            if let Some(record) = self.record.clone().filter(|r| r.reign > reign) {
                self.send(at, Message::Fenced { record });
            }
            return;
        }
        match message {
            Message::Write(write) => self.arrived(at, write, payload),
            Message::Zero(zero) => self.arrived_zero(at, zero),
            Message::Flush { id } => self.flush_for(at, id),
            Message::Settled { seq, older } => self.settled(seq, older),
            Message::Read { id, range } => self.read_for(at, id, range),
            Message::Hash { id, range } => self.hash_for(at, id, range),
            Message::SyncBegin => self.sync_begin(at),
            Message::Cool { id, extents, dirty } => self.cool(id, extents, &dirty),
            Message::Origin { .. } if mutated(Mutant::OriginIgnored) => {}
            Message::Origin { seq, origin } => drop(self.follow.origins.insert(seq, origin)),
            Message::Applied { memory, node, session, done, equal } => {
                self.learn_applied(memory, node, (session, done), equal);
            }
            Message::AdmitPart { hot, dirty } => self.admit_part(&hot, &dirty),
            Message::Admit { id, bases } => self.admit(at, id, &bases),
            other => debug_assert!(false, "{other:?} is handled before"),
        }
    }

    /// A primary wants to be followed. Its record was compared when it introduced itself; here it can only be the same or newer.
    fn open(&mut self, links: &Links, at: usize, session: u64, record: Record) {
        let lineage = self.peers[at].standing.as_ref().map(|s| s.lineage.clone()).unwrap_or_default();
        match super::connect::relate(self.record.as_ref(), &self.lineage, Some(&record), &lineage) {
            super::connect::Relation::Same => {}
            super::connect::Relation::Older => self.learn(links, record.clone(), lineage),
            super::connect::Relation::Newer => {
                let record = self.record.clone().expect("a record that is newer is there");
                self.send(at, Message::Fenced { record });
                return;
            }
            super::connect::Relation::Fork => return,
        }
        let begins = self.change.as_ref().is_some_and(|c| c.draining);
        if self.left || begins || self.record.as_ref().and_then(|r| r.primary) != Some(self.peers[at].node) {
            return;
        }
        self.stop_following();
        self.follow.opening = Some(Opening { peer: at, session, stored: false, storing: false });
    }

    /// Goes on with an opening when everything submitted before has ended (rule F4) and the record is stored.
    pub(super) fn consider_follow(&mut self) {
        let Some(opening) = &mut self.follow.opening else { return };
        let (peer, session) = (opening.peer, opening.session);
        if opening.stored {
            self.follow.opening = None;
            self.report(peer, session);
        } else if !opening.storing && (self.ops.disk_is_idle() || mutated(Mutant::ReportUndrained)) && self.reign.is_none() {
            opening.storing = true;
            if !self.has_disk() || !self.store_record(Then::Follow { session }) {
                self.follow_stored(session);
            }
        }
    }

    /// The record is stored that a session was to begin with. One that was wanted before it, and broke while the disk hung, is not meant: the
    /// session that is wanted now has still to wait until the disk is idle.
    pub(super) fn follow_stored(&mut self, session: u64) {
        let meant = |opening: &&mut Opening| opening.session == session || mutated(Mutant::StoredForAnother);
        if let Some(opening) = self.follow.opening.as_mut().filter(meant) {
            opening.stored = true;
            self.consider_follow();
        }
    }

    /// Says where this replica may differ from others (rules M5, P2, R5) and follows.
    fn report(&mut self, peer: usize, session: u64) {
        let record = self.record.clone().expect("what is followed is a record");
        let same_reign = self.follow.reign == record.reign;
        if !same_reign {
            self.unsettled.begin_reign();
            if let Some(store) = &mut self.store {
                store.activity.begin_reign();
            }
            self.follow.reign = record.reign;
            self.follow.seen = 0;
        }
        let bits = if mutated(Mutant::BitsNotReported) { Vec::new() } else { self.peers[peer].dirty.runs() };
        let mut ranges: Vec<BlockRange> = self.unsettled.all().chain(bits).collect();
        ranges = if mutated(Mutant::ReportNothing) { Vec::new() } else { self.cut_off(ranges) };
        for part in ranges.chunks(RANGES_MAX) {
            self.send(peer, Message::ReportRanges { session, ranges: part.to_vec() });
        }
        self.follow.applied = Prefix::default();
        self.follow.latched = false;
        self.follow.primary = Some(peer);
        self.follow.session = session;
        let lease_left = self.lease_left();
        self.send(peer, Message::Report(Report { session, record: record.id, seen: self.follow.seen, lease_left }));
    }

    /// Ranges within the volumes; more of them than is sensible to send become whole extents.
    fn cut_off(&self, ranges: Vec<BlockRange>) -> Vec<BlockRange> {
        const FINE_MAX: usize = 128 * RANGES_MAX;
        let blocks = |range: &BlockRange| volume_blocks(&self.settings, range.volume);
        if ranges.len() <= FINE_MAX {
            let whole = |r: &BlockRange| BlockRange { volume: r.volume, first: 0, count: blocks(r) };
            return ranges.iter().filter_map(|r| r.intersection(&whole(r))).collect();
        }
        let extents: std::collections::BTreeSet<_> = ranges.iter().flat_map(BlockRange::extents).collect();
        extents.into_iter().filter_map(|e| e.range(volume_blocks(&self.settings, e.volume))).collect()
    }

    /// This node goes by another primary from now on: the one before may hold a lease until then (rule F3).
    ///
    /// A lease that was granted by this engine ends one lease and its drift after the last pong; a life before may have granted one
    /// until this life began. After this call no pong renews it: the fencing message is sent before the next.
    pub(super) fn note_old_lease(&mut self, links: &Links, new: Option<NodeId>) {
        let Some(old) = self.record.as_ref().and_then(|r| r.primary) else { return };
        if old == self.id.node || Some(old) == new {
            return;
        }
        let granted = links.get(&old).and_then(super::link::Link::last_grant);
        let before = if mutated(Mutant::RestartForgetsLease) { Instant(0) } else { self.started };
        let until = granted.unwrap_or(before).max(before).after(self.settings.timeouts.lease_with_drift());
        self.follow.lease_until = self.follow.lease_until.max(Some(until));
    }

    /// For how many nanoseconds more an older primary may hold a lease.
    pub(super) fn lease_left(&self) -> u64 {
        let left = self.follow.lease_until.map_or(std::time::Duration::ZERO, |until| until.since(self.now));
        u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Follows nobody: what has arrived and not been submitted is dropped, what was submitted is waited for before the next report.
    pub(super) fn stop_following(&mut self) {
        self.follow.primary = None;
        self.follow.opening = None;
        self.follow.cooling.clear();
        self.follow.origins.clear();
        self.forget_list();
        self.drop_arrivals();
    }

    pub(super) fn follow_lost(&mut self, at: usize) {
        let opening = self.follow.opening.as_ref().is_some_and(|o| o.peer == at);
        if opening || self.follow.primary == Some(at) {
            self.stop_following();
        }
    }

    pub(super) fn send_acknowledgements(&mut self, peer: usize) {
        let received = std::mem::take(&mut self.peers[peer].received);
        for part in received.chunks(RANGES_MAX) {
            self.send(peer, Message::Received { seqs: part.to_vec() });
        }
        let written = std::mem::take(&mut self.peers[peer].written);
        for part in written.chunks(RANGES_MAX) {
            self.send(peer, Message::Written { seqs: part.to_vec() });
        }
    }

    /// Whatever was acknowledged before the flush arrived was written before it is submitted.
    fn flush_for(&mut self, peer: usize, id: u64) {
        // Acknowledgements of writes that this flush covers must not be behind its answer.
        self.send_acknowledgements(peer);
        if self.has_disk() {
            let durable = self.follow.applied.done();
            self.ops.disk(&mut self.out, Op::PeerFlush { peer, id, durable }, DiskIo::Flush);
        }
    }

    pub(super) fn peer_flushed(&mut self, peer: usize, id: u64, durable: u64, outcome: &DiskOutcome) {
        if *outcome == DiskOutcome::Failed && !mutated(Mutant::FlushFailureIgnored) {
            self.disk_failed();
        } else if self.follow.primary == Some(peer) {
            self.send(peer, Message::Flushed { id, durable });
        }
    }

    fn settled(&mut self, seq: u64, older: bool) {
        self.unsettled.settle(seq);
        if older {
            self.unsettled.settle_older();
        }
    }

    /// A resync begins: from now on until the admission this replica is a mixture (rule R4).
    fn sync_begin(&mut self, peer: usize) {
        if let Some(store) = &mut self.store {
            store.superblock.inconsistent = !mutated(Mutant::NeverInconsistent);
            store.store_superblock(Then::SyncReady { peer }, &mut self.ops, &mut self.out);
        }
        if mutated(Mutant::ReadyEarly) {
            self.send(peer, Message::SyncReady);
        }
    }

    /// The present primary has changed the record within its reign, or has stepped down.
    fn record_changed(&mut self, links: &Links, at: usize, record: Record) {
        let stale = self.record.as_ref().is_some_and(|mine| mine.number >= record.number);
        if self.follow.primary != Some(at) || stale {
            return;
        }
        let over = record.primary.is_none();
        let id = self.record.as_ref().map(|r| r.id);
        let mut lineage = self.lineage.clone();
        lineage.splice(0..0, id);
        lineage.truncate(crate::format::LINEAGE_MAX);
        if over {
            // The primary dropped its lease before it said so: nothing is left to be waited for.
            self.follow.lease_until = None;
            self.stop_following();
            let old = self.record.replace(record);
            self.lineage = lineage;
            self.admitted_by_record(old.as_ref());
            self.store_record(Then::Nothing);
            let primary = self.peers[at].node;
            // One whose disk had failed could not cool: the bits of those who are away, and of itself, are nowhere but in the hot extents.
            let cooled = self.record.as_ref().is_some_and(|r| r.in_sync.contains_key(&primary));
            if cooled || mutated(Mutant::CoolAfterDiskless) {
                self.cool_all();
            }
        } else {
            self.learn(links, record, lineage);
        }
    }

    /// A primary steps down only when everything is equal and durable on every member and its map empty: a member's map can be, too.
    fn cool_all(&mut self) {
        let member = self.am_member() || mutated(Mutant::ForgetBeforeAdmission);
        if !member {
            // What a target remembers is its report, until its admission (rule M5).
            return;
        }
        self.unsettled = super::unsettled::Unsettled::default();
        if let Some(store) = self.store.as_mut().filter(|s| !s.failed) {
            let hot = store.activity.hot_extents();
            store.activity.cool(&hot, u64::MAX);
        }
    }

    /// The record has replaced `old` (rule M6).
    pub(super) fn admitted_by_record(&mut self, old: Option<&Record>) {
        if let (Some(record), Some(store)) = (&self.record, &mut self.store) {
            store.note_admissions(old, record);
        }
    }
}
