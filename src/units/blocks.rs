//! Blocks and extents: what replication counts in.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::VolumeId;

/// A resource's block, in bytes: the primary ships whole blocks, and a dirty bit stands for one.
pub const BLOCK: u64 = 4096;

/// An extent of the activity map, in bytes.
pub const EXTENT: u64 = 4 << 20;

/// An extent, in blocks.
pub const BLOCKS_PER_EXTENT: u64 = EXTENT / BLOCK;

/// How many blocks hold `bytes` bytes, the last one perhaps in part.
pub const fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK)
}

/// How many extents hold `bytes` bytes, the last one perhaps in part.
pub const fn extents_of(bytes: u64) -> u64 {
    bytes.div_ceil(EXTENT)
}

/// Consecutive blocks of one volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRange {
    /// The volume.
    pub volume: VolumeId,
    /// The first block.
    pub first: u64,
    /// How many; at least 1 in every range that travels or is tracked.
    pub count: u64,
}

impl BlockRange {
    /// The blocks that the bytes `offset .. offset + len` touch. `len` must not be 0.
    pub fn covering(volume: VolumeId, offset: u64, len: u64) -> Self {
        debug_assert!(len > 0, "a range of no bytes covers no block");
        let first = offset / BLOCK;
        Self { volume, first, count: (offset + len).div_ceil(BLOCK) - first }
    }

    /// The block after the last.
    pub const fn end(&self) -> u64 {
        self.first + self.count
    }

    /// The first byte.
    pub const fn offset(&self) -> u64 {
        self.first * BLOCK
    }

    /// The length in bytes.
    pub const fn bytes(&self) -> u64 {
        self.count * BLOCK
    }

    /// Whether the two share a block.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.volume == other.volume && self.first < other.end() && other.first < self.end()
    }

    /// The blocks that both hold.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let end = self.end().min(other.end());
        (self.volume == other.volume && first < end).then(|| Self { volume: self.volume, first, count: end - first })
    }

    /// The extents that hold these blocks, in ascending order.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + use<> {
        let volume = self.volume;
        let first = self.first / BLOCKS_PER_EXTENT;
        let last = (self.end() - 1) / BLOCKS_PER_EXTENT;
        (first..=last).map(move |index| Extent { volume, index })
    }
}

impl fmt::Debug for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}+{}", self.volume, self.first, self.count)
    }
}

/// One extent of one volume.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// The volume.
    pub volume: VolumeId,
    /// The extent's number within the volume.
    pub index: u64,
}

impl Extent {
    /// The extent's blocks, cut off at the end of a volume of `blocks` blocks. `None` when it lies beyond the end.
    pub fn range(&self, blocks: u64) -> Option<BlockRange> {
        let first = self.index * BLOCKS_PER_EXTENT;
        let end = (first + BLOCKS_PER_EXTENT).min(blocks);
        (first < end).then(|| BlockRange { volume: self.volume, first, count: end - first })
    }
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:x{}", self.volume, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: VolumeId = VolumeId(0);

    #[test]
    fn a_range_covers_every_block_it_touches() {
        assert_eq!(BlockRange::covering(V, 0, 1), BlockRange { volume: V, first: 0, count: 1 });
        assert_eq!(BlockRange::covering(V, 4095, 2), BlockRange { volume: V, first: 0, count: 2 });
        assert_eq!(BlockRange::covering(V, 4096, 4096), BlockRange { volume: V, first: 1, count: 1 });
    }

    #[test]
    fn extents_of_a_range_are_those_of_its_ends_and_all_between() {
        let range = BlockRange { volume: V, first: BLOCKS_PER_EXTENT - 1, count: BLOCKS_PER_EXTENT + 2 };
        let extents: Vec<u64> = range.extents().map(|e| e.index).collect();
        assert_eq!(extents, [0, 1, 2]);
    }

    #[test]
    fn the_last_extent_is_cut_off_at_the_volumes_end() {
        assert_eq!(Extent { volume: V, index: 1 }.range(1030), Some(BlockRange { volume: V, first: 1024, count: 6 }));
        assert_eq!(Extent { volume: V, index: 2 }.range(1030), None);
    }
}
