//! Writes that may not be everywhere (rules P2, P4 and R1).
//!
//! Primary and replicas remember every write until the primary knows it durable on all members. From this memory come the
//! window of a peer that is dropped (what it may lose with its power), and what a new primary has to make equal.

use std::collections::{BTreeMap, VecDeque};

use crate::units::{BLOCKS_PER_EXTENT, BlockRange, Extent, VolumeId};

/// The most single writes that are remembered; older ones are then remembered as extents, which may only over-report.
const FINE_MAX: usize = 32 * 1024;

/// The memory of writes not yet durable everywhere.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// This reign's writes in ascending order of their numbers.
    fine: VecDeque<(u64, BlockRange)>,
    /// This reign's older writes: the last number that touched an extent.
    coarse: BTreeMap<Extent, u64>,
    /// Writes of reigns before.
    older: Vec<BlockRange>,
    /// Bytes in `fine`.
    bytes: u64,
}

impl Unsettled {
    /// Remembers a write. Numbers ascend within a reign; one that is sent again is remembered twice, harmlessly.
    pub(super) fn note(&mut self, seq: u64, range: BlockRange) {
        self.fine.push_back((seq, range));
        self.bytes += range.bytes();
        if self.fine.len() > FINE_MAX {
            for (seq, range) in self.fine.drain(..FINE_MAX / 2) {
                self.bytes -= range.bytes();
                for extent in range.extents() {
                    let last = self.coarse.entry(extent).or_insert(seq);
                    *last = seq.max(*last);
                }
            }
        }
    }

    /// Everything up to `seq` is durable on all members.
    pub(super) fn settle(&mut self, seq: u64) {
        while let Some(&(first, range)) = self.fine.front() {
            if first > seq {
                break;
            }
            self.bytes -= range.bytes();
            self.fine.pop_front();
        }
        if !self.coarse.is_empty() {
            self.coarse.retain(|_, last| *last > seq);
        }
    }

    /// What older reigns left is equal and durable everywhere.
    pub(super) fn settle_older(&mut self) {
        self.older = Vec::new();
    }

    /// Another reign begins, with numbers of its own: what is remembered belongs to an older one.
    pub(super) fn begin_reign(&mut self) {
        let mut older = std::mem::take(&mut self.older);
        older.extend(self.since(0));
        if older.len() > FINE_MAX {
            let extents: std::collections::BTreeSet<Extent> = older.iter().flat_map(BlockRange::extents).collect();
            older = extents.into_iter().map(whole).collect();
        }
        *self = Self { older, ..Self::default() };
    }

    /// Remembers blocks of an older life or reign.
    pub(super) fn note_older(&mut self, range: BlockRange) {
        self.older.push(range);
    }

    /// A volume is gone.
    pub(super) fn forget(&mut self, volume: VolumeId) {
        self.fine.retain(|(_, range)| range.volume != volume);
        self.bytes = self.fine.iter().map(|(_, range)| range.bytes()).sum();
        self.coarse.retain(|extent, _| extent.volume != volume);
        self.older.retain(|range| range.volume != volume);
    }

    /// This reign's writes after `seq`; their order says nothing. Ranges may reach beyond the volume's end.
    pub(super) fn since(&self, seq: u64) -> impl Iterator<Item = BlockRange> + '_ {
        let coarse = self.coarse.iter().filter(move |(_, last)| **last > seq).map(|(extent, _)| whole(*extent));
        let fine = self.fine.iter().rev().take_while(move |(at, _)| *at > seq).map(|(_, range)| *range);
        coarse.chain(fine)
    }

    /// Everything remembered, older reigns too.
    pub(super) fn all(&self) -> impl Iterator<Item = BlockRange> + '_ {
        self.older.iter().copied().chain(self.since(0))
    }

    /// Whether nothing is remembered.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.fine.is_empty() && self.coarse.is_empty() && self.older.is_empty()
    }

    /// Whether any write of this reign is remembered.
    pub(super) fn has_current(&self) -> bool {
        !self.fine.is_empty() || !self.coarse.is_empty()
    }

    /// Bytes written in this reign and remembered one by one: what a flush would settle.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn whole(extent: Extent) -> BlockRange {
    BlockRange { volume: extent.volume, first: extent.index * BLOCKS_PER_EXTENT, count: BLOCKS_PER_EXTENT }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(first: u64) -> BlockRange {
        BlockRange { volume: VolumeId(0), first, count: 1 }
    }

    #[test]
    fn a_peers_window_is_what_came_after_its_last_confirmed_flush() {
        let mut memory = Unsettled::default();
        (1..=4).for_each(|seq| memory.note(seq, block(seq)));
        assert_eq!(memory.since(2).collect::<Vec<_>>(), [block(4), block(3)]);
        memory.settle(3);
        assert_eq!(memory.all().collect::<Vec<_>>(), [block(4)]);
        memory.settle(4);
        assert!(memory.is_empty());
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn overflow_loses_precision_but_no_write() {
        let mut memory = Unsettled::default();
        let count = FINE_MAX as u64 * 3;
        (1..=count).for_each(|seq| memory.note(seq, block(seq * 7)));
        for seq in [1, 2, count / 2, count] {
            assert!(memory.since(seq - 1).any(|r| r.overlaps(&block(seq * 7))), "write {seq} was forgotten");
        }
        memory.settle(count);
        assert!(memory.is_empty());
    }

    #[test]
    fn a_new_reign_keeps_the_old_ones_writes_until_they_are_equal() {
        let mut memory = Unsettled::default();
        memory.note(9, block(9));
        memory.begin_reign();
        memory.note(1, block(1));
        memory.settle(1);
        assert_eq!(memory.all().collect::<Vec<_>>(), [block(9)]);
        memory.settle_older();
        assert!(memory.is_empty());
    }
}
