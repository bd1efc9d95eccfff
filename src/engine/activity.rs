//! The activity map: which extents may be being written (rules W2, W3, W5).
//!
//! An extent is durably hot before any write is applied in it, and cold again only after everything in it is durable
//! everywhere. After a crash, hot extents are where this replica may differ from others. Pages of the map are written in turn
//! to two slots, one write at a time each; a write makes everything hot that was asked for since the one before.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::format::{self, Bitmap, PAGE_BITS, PageWrite, Region, encode_activity_page};
use crate::units::{BlockRange, Extent, ReplicaId, VolumeId, extents_of};

use super::event::Command;
use super::mutant::{Mutant, mutated};
use super::ops::{Op, Ops};

/// The activity map of a replica.
#[derive(Debug, Default)]
pub(super) struct Activity {
    volumes: BTreeMap<VolumeId, Volume>,
    hot: u64,
}

#[derive(Debug)]
struct Volume {
    region: Region,
    /// What is to be hot.
    wanted: Bitmap,
    /// What is hot on disk, whatever page write under way succeeds.
    durable: Bitmap,
    users: Vec<u32>,
    /// The last write's number; 0 when it was of an older reign.
    last: Vec<u64>,
    pages: Vec<Page>,
    /// What was copied to another region.
    copied: Option<Bitmap>,
}

#[derive(Debug)]
struct Page {
    sequence: u64,
    /// The image under way.
    writing: Option<Bitmap>,
    stale: bool,
}

impl Activity {
    /// A volume with the map that was read from disk.
    pub(super) fn add(&mut self, region: Region, map: format::Activity) {
        let extents = usize::try_from(extents_of(region.bytes)).expect("a volume has fewer than 2^64 extents");
        let pages = map.sequences.iter().map(|&sequence| Page { sequence, writing: None, stale: false });
        self.hot += map.hot.count();
        let volume = Volume {
            region,
            wanted: map.hot.clone(),
            durable: map.hot,
            users: vec![0; extents],
            last: vec![0; extents],
            pages: pages.collect(),
            copied: None,
        };
        self.volumes.insert(region.volume, volume);
    }

    /// A write of number `seq` is to be applied in `range`: it holds the extents hot until [`release`](Self::release). Returns
    /// whether all are durably hot now.
    pub(super) fn hold(&mut self, range: BlockRange, seq: u64) -> bool {
        let mut ready = true;
        for extent in range.extents() {
            let volume = self.volumes.get_mut(&extent.volume).expect("requests are checked against the volumes");
            let at = index(extent);
            volume.users[at] += 1;
            volume.last[at] = volume.last[at].max(seq);
            if !volume.wanted.is_set(extent.index) {
                self.hot += volume.wanted.set(extent.index..extent.index + 1);
                volume.stale(extent.index);
            }
            ready &= volume.durable.is_set(extent.index);
        }
        ready
    }

    /// Notes the number under which a held write was issued.
    pub(super) fn touch(&mut self, range: BlockRange, seq: u64) {
        for extent in range.extents() {
            if let Some(volume) = self.volumes.get_mut(&extent.volume) {
                volume.last[index(extent)] = seq;
            }
        }
    }

    /// Whether all extents of the range are durably hot.
    pub(super) fn is_durable(&self, range: BlockRange) -> bool {
        range.extents().all(|extent| self.volumes.get(&extent.volume).is_some_and(|v| v.durable.is_set(extent.index)))
    }

    /// The write that held `range` has ended.
    pub(super) fn release(&mut self, range: BlockRange) {
        for extent in range.extents() {
            if let Some(volume) = self.volumes.get_mut(&extent.volume) {
                volume.users[index(extent)] -= 1;
            }
        }
    }

    /// Makes extents hot that another replica has hot (rule M4).
    pub(super) fn heat(&mut self, extent: Extent) {
        if let Some(volume) = self.volumes.get_mut(&extent.volume)
            && extent.index < volume.wanted.len()
            && !volume.wanted.is_set(extent.index)
        {
            self.hot += volume.wanted.set(extent.index..extent.index + 1);
            volume.stale(extent.index);
        }
    }

    /// Makes extents cold that nothing holds and whose last write is not after `upto`. The caller has seen to it that all up to there is
    /// durable.
    pub(super) fn cool(&mut self, extents: &[Extent], upto: u64) {
        for extent in extents {
            if self.is_unwritten_since(*extent, upto)
                && let Some(volume) = self.volumes.get_mut(&extent.volume)
                && volume.wanted.is_set(extent.index)
            {
                self.hot -= volume.wanted.clear(extent.index..extent.index + 1);
                volume.stale(extent.index);
            }
        }
    }

    /// Whether nothing holds an extent and its last write is not after `upto`.
    pub(super) fn is_unwritten_since(&self, extent: Extent, upto: u64) -> bool {
        let volume = self.volumes.get(&extent.volume).filter(|volume| extent.index < volume.wanted.len());
        volume.is_some_and(|volume| volume.users[index(extent)] == 0 && volume.last[index(extent)] <= upto)
    }

    /// Up to `max` hot extents that nothing holds and whose last write is not after `settled`, the longest unwritten first.
    pub(super) fn coolable(&self, settled: u64, max: usize) -> Vec<Extent> {
        let mut found = Vec::new();
        for (&id, volume) in &self.volumes {
            for run in volume.wanted.runs(0..volume.wanted.len()) {
                for extent in run {
                    let at = index(Extent { volume: id, index: extent });
                    if volume.users[at] == 0 && volume.last[at] <= settled {
                        found.push((volume.last[at], Extent { volume: id, index: extent }));
                    }
                }
            }
        }
        found.sort_unstable();
        found.truncate(max);
        found.into_iter().map(|(_, extent)| extent).collect()
    }

    /// Another reign begins: its writes are numbered from 1 again.
    pub(super) fn begin_reign(&mut self) {
        self.volumes.values_mut().for_each(|volume| volume.last.fill(0));
    }

    /// Every hot extent.
    pub(super) fn hot_extents(&self) -> Vec<Extent> {
        let runs = |(&volume, v): (&VolumeId, &Volume)| -> Vec<Extent> {
            v.wanted.runs(0..v.wanted.len()).flatten().map(|index| Extent { volume, index }).collect()
        };
        self.volumes.iter().flat_map(runs).collect()
    }

    /// How many extents are hot.
    pub(super) fn hot(&self) -> u64 {
        self.hot
    }

    /// How many extents there are.
    pub(super) fn extents(&self) -> u64 {
        self.volumes.values().map(|v| v.wanted.len()).sum()
    }

    /// Whether the map on disk says what it is to say.
    pub(super) fn is_stored(&self) -> bool {
        self.volumes.values().all(|v| v.pages.iter().all(|p| !p.stale && p.writing.is_none()))
    }

    /// Starts the page writes that are due.
    pub(super) fn write_out(&mut self, replica: ReplicaId, ops: &mut Ops, out: &mut Vec<Command>) {
        for (&id, volume) in &mut self.volumes {
            for number in 0..volume.pages.len() {
                let page = &mut volume.pages[number];
                if !page.stale || page.writing.is_some() {
                    continue;
                }
                page.stale = false;
                page.sequence += 1;
                let number = number as u64;
                let page_write = encode_activity_page(replica, &volume.region, number, page.sequence, &volume.wanted);
                page.writing = Some(volume.wanted.clone());
                // The write may be on disk at any moment.
                volume.leave_cold(volume.durable.page_range(number));
                ops.meta(out, Op::ActivityPage { volume: id, page: number }, page_write.at, page_write.bytes);
            }
        }
    }

    /// Whether a page is on its way.
    pub(super) fn is_writing(&self) -> bool {
        self.volumes.values().any(|v| v.pages.iter().any(|p| p.writing.is_some()))
    }

    /// The pages of a volume's map as they are now, for a region that is all blank. From here until [`reshape`](Self::reshape) what
    /// becomes hot is asked for, and not written.
    pub(super) fn copy(&mut self, replica: ReplicaId, region: &Region) -> Vec<PageWrite> {
        let Some(volume) = self.volumes.get_mut(&region.volume) else { return Vec::new() };
        let mut image = volume.wanted.clone();
        image.resize(region.extents(), false);
        let pages = (0..volume.wanted.pages()).filter(|&page| image.any_in(image.page_range(page)));
        let writes = pages.map(|page| encode_activity_page(replica, region, page, 1, &image)).collect();
        volume.pages.iter_mut().for_each(|page| page.stale = false);
        // The region that still has it hot is given up at any moment (rule V2).
        if !mutated(Mutant::CopyLeavesHot) {
            volume.leave_cold(0..volume.durable.len());
        }
        volume.copied = Some(image);
        writes
    }

    /// The volume's region is another one, or of another length: a new volume, a grown one, or one whose map was copied.
    pub(super) fn reshape(&mut self, region: Region) {
        let Some(volume) = self.volumes.get_mut(&region.volume) else {
            self.add(region, format::Activity::new(&region));
            return;
        };
        let extents = usize::try_from(region.extents()).expect("a volume has fewer than 2^64 extents");
        volume.region = region;
        volume.wanted.resize(region.extents(), false);
        volume.durable.resize(region.extents(), false);
        volume.users.resize(extents, 0);
        volume.last.resize(extents, 0);
        if let Some(image) = volume.copied.take() {
            let written = |page: u64| u64::from(image.any_in(image.page_range(page)));
            let stale: Vec<bool> = volume.pages.iter().map(|page| page.stale).collect();
            let page = |at: u64| Page {
                sequence: written(at),
                writing: None,
                stale: stale.get(usize::try_from(at).expect("page numbers are small")).copied().unwrap_or(false),
            };
            volume.pages = (0..region.activity_pages()).map(page).collect();
            volume.durable = image;
        }
    }

    /// A volume is gone.
    pub(super) fn remove(&mut self, volume: VolumeId) {
        if let Some(volume) = self.volumes.remove(&volume) {
            self.hot -= volume.wanted.count();
        }
    }

    /// A page write is durable.
    pub(super) fn written(&mut self, id: VolumeId, number: u64) {
        let Some(volume) = self.volumes.get_mut(&id) else { return };
        let page = &mut volume.pages[usize::try_from(number).expect("page numbers are small")];
        let Some(image) = page.writing.take() else { return };
        for run in image.runs(image.page_range(number)) {
            volume.durable.set(run);
        }
    }
}

impl Volume {
    fn stale(&mut self, extent: u64) {
        let page = usize::try_from(extent / PAGE_BITS).expect("page numbers are small");
        self.pages[page].stale = true;
    }

    /// An image of the map is about to be what is on disk: what it leaves out counts as cold from now on.
    fn leave_cold(&mut self, range: Range<u64>) {
        let left_out = |extent: &u64| !self.wanted.is_set(*extent);
        let cold: Vec<u64> = self.durable.runs(range).flatten().filter(left_out).collect();
        for extent in cold {
            self.durable.clear(extent..extent + 1);
        }
    }
}

fn index(extent: Extent) -> usize {
    usize::try_from(extent.index).expect("extent numbers are checked against the volume")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(bytes: u64) -> (Activity, Region) {
        let region = Region { volume: VolumeId(0), bytes, at: 32 << 10, slots: 7 };
        let mut activity = Activity::default();
        activity.add(region, format::Activity::new(&region));
        (activity, region)
    }

    fn write_all(activity: &mut Activity, ops: &mut Ops) {
        activity.write_out(ReplicaId(1), ops, &mut Vec::new());
        activity.written(VolumeId(0), 0);
    }

    #[test]
    fn what_was_cooled_before_the_map_is_copied_is_hot_again_only_in_the_copy() {
        let (mut activity, region) = map(64 << 20);
        let mut ops = Ops::default();
        let block = BlockRange { volume: VolumeId(0), first: 0, count: 1 };
        assert!(!activity.hold(block, 1), "nothing is hot yet");
        write_all(&mut activity, &mut ops);
        assert!(activity.is_durable(block));
        activity.release(block);
        // It is cold in the copy, and in the old region still hot.
        activity.cool(&[Extent { volume: VolumeId(0), index: 0 }], 1);
        let region = Region { at: 1 << 20, ..region };
        activity.copy(ReplicaId(1), &region);
        assert!(!activity.hold(block, 2), "the old region is not what will be read after a crash");
        activity.reshape(region);
        assert!(!activity.is_durable(block));
        write_all(&mut activity, &mut ops);
        assert!(activity.is_durable(block));
    }
}
