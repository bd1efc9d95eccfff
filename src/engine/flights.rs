//! Writes between their numbering and their last acknowledgement (rules W1, R2).

use std::collections::VecDeque;

use crate::units::{BlockRange, Protocol};
use crate::wire::{Message, Origin};

use super::core::Engine;
use super::event::{BufferId, Command, DiskIo, DiskOutcome};
use super::mutant::{Mutant, mutated};
use super::ops::Op;
use super::peerset::PeerSet;
use super::requests::order_key;

/// A write that is on its way to disks.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) cause: Cause,
    pub(super) range: BlockRange,
    pub(super) what: What,
    pub(super) fua: bool,
    /// Replicas that have not said that it is written.
    pub(super) unwritten: PeerSet,
    /// Replicas that have not said that they have received it (protocol B).
    pub(super) unreceived: PeerSet,
    /// The local disk is not done.
    pub(super) local: bool,
    /// It holds its extents hot.
    pub(super) holds: bool,
    /// The client was answered.
    pub(super) answered: bool,
    /// Which forwarded request it is.
    pub(super) origin: Option<Origin>,
}

/// Why blocks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A client's request, by its key.
    Client(u64),
    /// A resync chunk, by its key, for one peer.
    Sync { chunk: u64, peer: usize },
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Data(BufferId),
    Zeroes { unmap: bool },
}

/// The writes of a reign, by their numbers. Numbers ascend by one, so that a queue with holes is the whole index.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// The number of the first place in `queue`.
    first: u64,
    queue: VecDeque<Option<Flight>>,
    open: usize,
}

impl Flights {
    /// Numbers a write.
    pub(super) fn insert(&mut self, flight: Flight) -> u64 {
        self.first = self.first.max(1);
        self.queue.push_back(Some(flight));
        self.open += 1;
        self.first + self.queue.len() as u64 - 1
    }

    /// Uses up a number for something that is on its replica already.
    pub(super) fn skip(&mut self) -> u64 {
        self.first = self.first.max(1);
        self.queue.push_back(None);
        let seq = self.first + self.queue.len() as u64 - 1;
        self.trim();
        seq
    }

    fn trim(&mut self) {
        while let Some(None) = self.queue.front() {
            self.queue.pop_front();
            self.first += 1;
        }
    }

    /// The lowest number in flight.
    pub(super) fn first_open(&self) -> Option<u64> {
        (self.open > 0).then_some(self.first)
    }

    /// Everything up to here has ended.
    pub(super) fn all_ended(&self) -> u64 {
        self.first_open().map_or_else(|| self.last(), |open| open - 1)
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Flight> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.queue.get_mut(at)?.as_mut()
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Flight> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        let flight = self.queue.get_mut(at)?.take()?;
        self.open -= 1;
        self.trim();
        Some(flight)
    }

    /// The numbers in flight, ascending.
    pub(super) fn seqs(&self) -> Vec<u64> {
        let open = self.queue.iter().enumerate().filter(|(_, flight)| flight.is_some());
        open.map(|(at, _)| self.first + at as u64).collect()
    }

    /// How many writes of a resync chunk are in flight.
    pub(super) fn parts_of(&self, chunk: u64) -> usize {
        let of = |flight: &&Flight| matches!(flight.cause, Cause::Sync { chunk: of, .. } if of == chunk);
        self.queue.iter().flatten().filter(of).count()
    }

    /// The requests whose clients were answered while some replica has still to write.
    pub(super) fn answered_keys(&self) -> Vec<u64> {
        let key = |flight: &Flight| match flight.cause {
            Cause::Client(key) if flight.answered => Some(key),
            _ => None,
        };
        self.queue.iter().flatten().filter_map(key).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// The last number that was given, 0 for none.
    pub(super) fn last(&self) -> u64 {
        if self.first == 0 { 0 } else { self.first + self.queue.len() as u64 - 1 }
    }
}

impl Engine {
    /// Sends a write to the local disk and to every replica that receives writes, or, for a resync, to one.
    pub(super) fn fly(&mut self, cause: Cause, range: BlockRange, what: What, fua: bool, holds: bool) {
        let only = if let Cause::Sync { peer, .. } = cause { Some(peer) } else { None };
        let receivers = match only {
            Some(peer) => PeerSet::from_iter([peer]),
            None => self.peers_that(|p| p.data),
        };
        let local = only.is_none() && self.has_disk();
        let reign = self.reign.as_mut().expect("writes belong to a reign");
        let unwritten = if only.is_some() { receivers } else { receivers.union(reign.ack) };
        let unreceived = if self.settings.protocol == Protocol::B { unwritten } else { PeerSet::default() };
        let origin = match cause {
            Cause::Client(key) => reign.requests.get(key).and_then(|pending| pending.origin),
            Cause::Sync { .. } => None,
        };
        let answered = only.is_some();
        let flight = Flight { cause, range, what, fua, unwritten, unreceived, local, holds, answered, origin };
        let seq = reign.flights.insert(flight);
        reign.last_write = self.now;
        reign.flush_due.get_or_insert_with(|| self.now.after(super::flush::FLUSH_EVERY));
        let number = reign.number;
        if local {
            reign.local.begin(seq);
        }
        self.unsettled.note(seq, range);
        if let Some(origin) = &origin {
            self.applied.note(origin);
        }
        for peer in receivers.iter() {
            self.send_flight(peer, seq);
        }
        if local {
            if let Some(store) = &mut self.store {
                store.activity.touch(range, seq);
            }
            let io = match what {
                What::Data(buffer) => DiskIo::Write { range, buffer, fua },
                What::Zeroes { unmap } => DiskIo::Zero { range, unmap, fua },
            };
            self.ops.disk(&mut self.out, Op::Write { reign: number, seq }, io);
        }
        if only.is_none() {
            self.mark_for_absent(range, unwritten);
            self.check_flight(seq);
        }
    }

    /// Marks a write dirty for every replica that does not get it. A member of the ack set that is away for a moment gets its bits
    /// when it is evicted, from the memory of unsettled writes.
    fn mark_for_absent(&mut self, range: BlockRange, gets_it: PeerSet) {
        for (at, peer) in self.peers.iter_mut().enumerate() {
            if peer.settings.diskful && !gets_it.contains(at) {
                peer.dirty.set(range);
            }
        }
    }

    pub(super) fn send_flight(&mut self, peer: usize, seq: u64) {
        let reign = self.reign.as_mut().expect("writes belong to a reign");
        let settled = reign.settled;
        let Some(flight) = reign.flights.get_mut(seq) else { return };
        let (range, fua) = (flight.range, flight.fua && !mutated(Mutant::FuaIsWritten));
        let (what, origin, sync) = (flight.what, flight.origin, matches!(flight.cause, Cause::Sync { .. }));
        let p = &mut self.peers[peer];
        p.sent = p.sent.max(seq);
        if sync && mutated(Mutant::ClearWhenSent) {
            p.dirty.clear(range);
        }
        if let Some(origin) = origin {
            self.send(peer, Message::Origin { seq, origin });
        }
        match what {
            What::Data(buffer) => {
                let write = crate::wire::Write { seq, range, fua, sync, settled };
                self.send_with(peer, Message::Write(write), Some(buffer));
            }
            What::Zeroes { unmap } => {
                self.send(peer, Message::Zero(crate::wire::Zero { seq, range, unmap, fua, sync, settled }));
            }
        }
    }

    pub(super) fn local_write_done(&mut self, number: u64, seq: u64, outcome: &DiskOutcome) {
        if *outcome == DiskOutcome::Failed && !mutated(Mutant::OwnWriteFailureIgnored) {
            self.disk_failed();
            return;
        }
        let Some(reign) = self.reign.as_mut().filter(|r| r.number == number) else { return };
        reign.local.end(seq);
        if let Some(flight) = reign.flights.get_mut(seq) {
            flight.local = false;
            self.check_flight(seq);
        }
    }

    pub(super) fn received_by(&mut self, peer: usize, seqs: &[u64]) {
        for &seq in seqs {
            if let Some(flight) = self.reign.as_mut().and_then(|r| r.flights.get_mut(seq)) {
                flight.unreceived.remove(peer);
                self.check_flight(seq);
            }
        }
    }

    pub(super) fn written_by(&mut self, peer: usize, seqs: &[u64]) {
        for &seq in seqs {
            let Some(flight) = self.reign.as_mut().and_then(|r| r.flights.get_mut(seq)) else { continue };
            if !flight.unwritten.contains(peer) {
                continue;
            }
            flight.unwritten.remove(peer);
            flight.unreceived.remove(peer);
            // The block is on the target now: it is not dirty any more (rule R2).
            let range = flight.range;
            self.peers[peer].dirty.clear(range);
            self.check_flight(seq);
        }
    }

    /// Answers a write when all whose word is needed have given it (rule W1), and ends it when nobody is left.
    pub(super) fn check_flight(&mut self, seq: u64) {
        let (own_word_missing, has_disk) = (self.own_word_missing(), self.has_disk());
        let protocol = self.settings.protocol;
        let reign = self.reign.as_mut().expect("writes belong to a reign");
        let ack = reign.ack;
        let Some(flight) = reign.flights.get_mut(seq) else { return };
        let early = match protocol {
            _ if mutated(Mutant::AckOwnWrite) => true,
            _ if flight.origin.is_some() && mutated(Mutant::ForwardAnsweredEarly) => true,
            _ if flight.fua => !flight.unwritten.meets(ack),
            Protocol::A if has_disk => true,
            // Without an own disk nothing would be anywhere.
            Protocol::A => !flight.unwritten.meets(ack),
            Protocol::B => !flight.unreceived.meets(ack),
            Protocol::C => !flight.unwritten.meets(ack),
        };
        if !flight.answered && !flight.local && !own_word_missing && early {
            flight.answered = true;
            if let Cause::Client(key) = flight.cause {
                reign.completed = true;
                let asked = reign.requests.get(key).map(|pending| (pending.asker, pending.origin));
                if let Some((asker, origin)) = asked {
                    self.tell(asker, origin, Ok(()), None);
                }
            }
        }
        let reign = self.reign.as_mut().expect("writes belong to a reign");
        let ended = reign.flights.get_mut(seq).is_some_and(|f| f.answered && !f.local && f.unwritten.is_empty());
        if ended {
            self.end_flight(seq);
        }
    }

    /// Such writes need no further word of one peer, or of any.
    pub(super) fn need_nobody_for(&mut self, is_such: impl Fn(&Flight) -> bool, of: Option<usize>) {
        let Some(reign) = &mut self.reign else { return };
        for seq in reign.flights.seqs() {
            let Some(reign) = &mut self.reign else { return };
            let Some(flight) = reign.flights.get_mut(seq).filter(|flight| is_such(flight)) else { continue };
            match of {
                Some(at) => {
                    flight.unwritten.remove(at);
                    flight.unreceived.remove(at);
                }
                None => {
                    flight.unwritten = PeerSet::default();
                    flight.unreceived = PeerSet::default();
                }
            }
            self.check_flight(seq);
        }
    }

    /// This node's disk has failed and the record still counts on it: nothing may be answered until it does not (rule M1).
    pub(super) fn own_word_missing(&self) -> bool {
        let counts = self.record.as_ref().is_some_and(|r| r.in_sync.contains_key(&self.id.node));
        !self.has_disk() && counts && !mutated(Mutant::OwnWordCounts)
    }

    pub(super) fn end_flight(&mut self, seq: u64) {
        let reign = self.reign.as_mut().expect("writes belong to a reign");
        let Some(flight) = reign.flights.remove(seq) else { return };
        if let What::Data(buffer) = flight.what {
            self.out.push(Command::Release(buffer));
        }
        match flight.cause {
            Cause::Client(key) => {
                reign.requests.remove(key);
                if let (true, Some(store)) = (flight.holds, &mut self.store) {
                    store.activity.release(flight.range);
                }
                self.leave(order_key(key));
            }
            Cause::Sync { chunk, .. } => self.chunk_part_written(chunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::VolumeId;

    fn flight() -> Flight {
        Flight {
            cause: Cause::Client(0),
            range: BlockRange { volume: VolumeId(0), first: 0, count: 1 },
            what: What::Zeroes { unmap: false },
            fua: false,
            unwritten: PeerSet::default(),
            unreceived: PeerSet::default(),
            local: true,
            holds: false,
            answered: false,
            origin: None,
        }
    }

    #[test]
    fn numbers_ascend_whatever_ends_first() {
        let mut flights = Flights::default();
        assert_eq!((flights.insert(flight()), flights.insert(flight()), flights.insert(flight())), (1, 2, 3));
        assert!(flights.remove(2).is_some());
        assert!(flights.remove(2).is_none());
        assert_eq!(flights.seqs(), [1, 3]);
        assert!(flights.remove(1).is_some());
        assert!(flights.remove(3).is_some());
        assert!(flights.is_empty());
        assert_eq!((flights.last(), flights.insert(flight())), (3, 4));
    }
}
