//! Writes between their numbering and their last acknowledgement.

use std::collections::VecDeque;

use crate::units::BlockRange;

use super::event::BufferId;
use super::peerset::PeerSet;

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

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// The last number that was given, 0 for none.
    pub(super) fn last(&self) -> u64 {
        if self.first == 0 { 0 } else { self.first + self.queue.len() as u64 - 1 }
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
