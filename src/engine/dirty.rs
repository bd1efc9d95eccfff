//! Dirty bitmaps: for each peer, the blocks that it does not have (rules M1, M5, R1, R5).
//!
//! A bit is set when a peer is known to lack a block or may lack it, and cleared when the block is on the peer's disk. What is
//! written out is the bit *or* the peer's window, so that a crash of the peer that follows finds every block it may have lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::{Bitmap, PAGE_BITS, PageWrite, Region, encode_dirty_page};
use crate::units::{BlockRange, ReplicaId, VolumeId, blocks_of};

use super::event::Command;
use super::ops::{Op, Ops};

/// The bitmap of one peer, over all volumes.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// The slot in the metadata area; `None` on a node without a replica, which has nowhere to store it.
    slot: Option<u16>,
    volumes: BTreeMap<VolumeId, Volume>,
}

#[derive(Debug)]
struct Volume {
    region: Option<Region>,
    bits: Bitmap,
    /// Pages that differ from what is on disk.
    stale: BTreeSet<u64>,
}

impl Dirty {
    pub(super) fn new(slot: Option<u16>) -> Self {
        Self { slot, volumes: BTreeMap::new() }
    }

    /// Another peer has the slot now.
    pub(super) fn give_up(&mut self, slot: Option<u16>) {
        if self.slot == slot {
            self.slot = None;
        }
    }

    /// A volume, with the bitmap that was read from disk, if any.
    pub(super) fn add(&mut self, volume: VolumeId, bytes: u64, region: Option<Region>, bits: Option<Bitmap>) {
        let bits = bits.unwrap_or_else(|| Bitmap::new(blocks_of(bytes)));
        self.volumes.insert(volume, Volume { region, bits, stale: BTreeSet::new() });
    }

    /// The pages of a volume's bitmap as they are now, with `window` added, for a region that is all blank.
    pub(super) fn copy(&mut self, replica: ReplicaId, region: &Region, window: &[BlockRange]) -> Vec<PageWrite> {
        let (Some(slot), Some(volume)) = (self.slot, self.volumes.get_mut(&region.volume)) else { return Vec::new() };
        let mut image = with(&volume.bits, region.volume, window).unwrap_or_else(|| volume.bits.clone());
        image.resize(region.blocks(), false);
        let pages = (0..volume.bits.pages()).filter(|&page| image.any_in(image.page_range(page)));
        let writes = pages.map(|page| encode_dirty_page(replica, region, slot, page, &image)).collect();
        volume.stale = pages_of(window, region.volume, volume.bits.len()).collect();
        writes
    }

    /// The volume has another size, and perhaps another region: a new volume, a grown one, or one whose bitmap was copied. What is new is
    /// equal everywhere (rule V1).
    pub(super) fn reshape(&mut self, volume: VolumeId, bytes: u64, region: Option<Region>) {
        match self.volumes.get_mut(&volume) {
            None => self.add(volume, bytes, region, None),
            Some(volume) => {
                volume.bits.resize(blocks_of(bytes), false);
                volume.region = region;
            }
        }
    }

    /// A volume is gone.
    pub(super) fn remove(&mut self, volume: VolumeId) {
        self.volumes.remove(&volume);
    }

    /// Sets the bits of a range; what lies beyond the volume's end is passed over.
    pub(super) fn set(&mut self, range: BlockRange) {
        self.change(range, Bitmap::set);
    }

    /// Clears the bits of a range.
    pub(super) fn clear(&mut self, range: BlockRange) {
        self.change(range, Bitmap::clear);
    }

    fn change(&mut self, range: BlockRange, how: impl Fn(&mut Bitmap, std::ops::Range<u64>) -> u64) {
        let Some(volume) = self.volumes.get_mut(&range.volume) else { return };
        let end = range.end().min(volume.bits.len());
        if range.first < end && how(&mut volume.bits, range.first..end) > 0 {
            volume.stale.extend(range.first / PAGE_BITS..=(end - 1) / PAGE_BITS);
        }
    }

    /// Sets every bit.
    pub(super) fn fill(&mut self) {
        for volume in self.volumes.values_mut() {
            volume.bits.fill();
            volume.stale.extend(0..volume.bits.pages());
        }
    }

    /// Clears every bit.
    pub(super) fn clear_all(&mut self) {
        for volume in self.volumes.values_mut().filter(|v| !v.bits.is_clear()) {
            volume.bits.wipe();
            volume.stale.extend(0..volume.bits.pages());
        }
    }

    /// Whether a block of the range is dirty.
    pub(super) fn meets(&self, range: BlockRange) -> bool {
        self.volumes.get(&range.volume).is_some_and(|v| {
            let end = range.end().min(v.bits.len());
            range.first < end && v.bits.any_in(range.first..end)
        })
    }

    /// Whether no block is dirty.
    pub(super) fn is_clear(&self) -> bool {
        self.volumes.values().all(|v| v.bits.is_clear())
    }

    /// How many blocks are dirty.
    pub(super) fn count(&self) -> u64 {
        self.volumes.values().map(|v| v.bits.count()).sum()
    }

    /// The first run of at most `max` dirty blocks at or after a place, going around at the end.
    pub(super) fn next_run(&self, from: (VolumeId, u64), max: u64) -> Option<BlockRange> {
        let after = self.volumes.range(from.0..).chain(self.volumes.range(..=from.0));
        for (nth, (&volume, v)) in after.enumerate() {
            let start = if nth == 0 && volume == from.0 { from.1 } else { 0 };
            if let Some(run) = (start < v.bits.len()).then(|| v.bits.next_set_run(start, max)).flatten() {
                return Some(BlockRange { volume, first: run.start, count: run.end - run.start });
            }
        }
        None
    }

    /// The dirty runs within a range.
    pub(super) fn runs_in(&self, range: BlockRange) -> Vec<BlockRange> {
        let Some(volume) = self.volumes.get(&range.volume) else { return Vec::new() };
        let end = range.end().min(volume.bits.len());
        let runs = if range.first < end { Some(volume.bits.runs(range.first..end)) } else { None };
        let range_of =
            |run: std::ops::Range<u64>| BlockRange { volume: range.volume, first: run.start, count: run.end - run.start };
        runs.into_iter().flatten().map(range_of).collect()
    }

    /// Every dirty run.
    pub(super) fn runs(&self) -> Vec<BlockRange> {
        let whole = |(&volume, v): (&VolumeId, &Volume)| BlockRange { volume, first: 0, count: v.bits.len() };
        self.volumes.iter().map(whole).filter(|r| r.count > 0).flat_map(|r| self.runs_in(r)).collect()
    }

    /// Starts writing every page that differs, each with `window` added. Returns how many writes were started.
    pub(super) fn write_out(
        &mut self,
        replica: ReplicaId,
        window: &[BlockRange],
        ops: &mut Ops,
        out: &mut Vec<Command>,
    ) -> usize {
        let Some(slot) = self.slot else { return 0 };
        let mut started = 0;
        for (&id, volume) in &mut self.volumes {
            let Some(region) = volume.region else { continue };
            let mut pages = std::mem::take(&mut volume.stale);
            pages.extend(pages_of(window, id, volume.bits.len()));
            if pages.is_empty() {
                continue;
            }
            let with_window = with(&volume.bits, id, window);
            let image = with_window.as_ref().unwrap_or(&volume.bits);
            for &page in &pages {
                let write = encode_dirty_page(replica, &region, slot, page, image);
                ops.meta(out, Op::DirtyPage, write.at, write.bytes);
                started += 1;
            }
            if with_window.is_some() {
                // The window will be confirmed or become bits; either way these pages are written once more.
                volume.stale = pages;
            }
        }
        started
    }
}

/// The pages that hold blocks of a window.
fn pages_of(window: &[BlockRange], volume: VolumeId, blocks: u64) -> impl Iterator<Item = u64> {
    let inside = move |range: &&BlockRange| range.volume == volume && range.first < blocks;
    window.iter().filter(inside).flat_map(move |r| r.first / PAGE_BITS..=(r.end().min(blocks) - 1) / PAGE_BITS)
}

/// The bits with a window added; `None` when the window has nothing in this volume.
fn with(bits: &Bitmap, volume: VolumeId, window: &[BlockRange]) -> Option<Bitmap> {
    let mut image = None;
    for range in window.iter().filter(|r| r.volume == volume) {
        let end = range.end().min(bits.len());
        if range.first < end {
            image.get_or_insert_with(|| bits.clone()).set(range.first..end);
        }
    }
    image
}
