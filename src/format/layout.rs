//! Where everything lies in a metadata area.

use std::collections::BTreeMap;

use super::page::{PAGE, PAGE_BITS};
use super::superblock::{Region, SUPERBLOCK};
use crate::units::{VolumeId, blocks_of, extents_of};

/// The most bitmaps that a region can have room for: a resource has at most 32 replicas, as in DRBD.
pub const SLOTS_MAX: u16 = 31;

/// The most volumes a resource can have: what a superblock has room for.
pub const VOLUMES_MAX: usize = 512;

/// The largest volume, in bytes: 1 PiB, as in DRBD.
pub const VOLUME_BYTES_MAX: u64 = 1 << 50;

/// The alignment of superblocks, regions and groups of activity pages. A device that tears writes in units of up to this size damages
/// one of two copies at most.
pub(super) const ALIGN: u64 = 16 << 10;

/// Where the first region begins.
const REGIONS_AT: u64 = 2 * SUPERBLOCK as u64;

/// Pages of one copy of the activity map that lie together: one alignment unit.
const GROUP: u64 = ALIGN / PAGE as u64;

/// A stretch of the metadata area, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub at: u64,
    /// How many.
    pub len: u64,
}

impl Span {
    /// The byte after the last.
    pub const fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// A page and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageWrite {
    /// The page's first byte in the metadata area.
    pub at: u64,
    /// Its [`PAGE`] bytes.
    pub bytes: Box<[u8]>,
}

/// How a region is divided. The order is: groups of up to four activity pages, first copy then second; then the dirty bitmaps, slot by
/// slot.
impl Region {
    /// The blocks of the volume: the bits of a dirty bitmap.
    pub const fn blocks(&self) -> u64 {
        blocks_of(self.bytes)
    }

    /// The extents of the volume: the bits of the activity map.
    pub const fn extents(&self) -> u64 {
        extents_of(self.bytes)
    }

    /// Pages of the activity map; each has two copies.
    pub const fn activity_pages(&self) -> u64 {
        self.extents().div_ceil(PAGE_BITS)
    }

    /// Pages of one dirty bitmap.
    pub const fn bitmap_pages(&self) -> u64 {
        self.blocks().div_ceil(PAGE_BITS)
    }

    /// Where copy `copy` (0 or 1) of a page of the activity map lies.
    pub fn activity_page(&self, page: u64, copy: u16) -> u64 {
        assert!(page < self.activity_pages() && copy < 2, "copy {copy} of activity page {page} in {self:?}");
        self.at + page / GROUP * 2 * ALIGN + u64::from(copy) * ALIGN + page % GROUP * PAGE as u64
    }

    /// Where a page of the dirty bitmap in `slot` lies.
    pub fn bitmap_page(&self, slot: u16, page: u64) -> u64 {
        assert!(page < self.bitmap_pages() && slot < self.slots, "page {page} of slot {slot} in {self:?}");
        self.at + self.activity_len() + (u64::from(slot) * self.bitmap_pages() + page) * PAGE as u64
    }

    /// The whole region.
    pub const fn span(&self) -> Span {
        let bitmaps = self.slots as u64 * self.bitmap_pages() * PAGE as u64;
        Span { at: self.at, len: (self.activity_len() + bitmaps).next_multiple_of(ALIGN) }
    }

    /// The bytes of both copies of the activity map.
    pub(super) const fn activity_len(&self) -> u64 {
        self.activity_pages().div_ceil(GROUP) * 2 * ALIGN
    }

    /// Whether a region of `other`'s size is divided the same way, so that the maps can stay where they are.
    const fn same_division(&self, other: &Self) -> bool {
        self.slots == other.slots
            && self.activity_pages() == other.activity_pages()
            && self.bitmap_pages() == other.bitmap_pages()
    }
}

/// The regions of a new area, one after the other, for volumes of these sizes in bytes and `slots` peers.
pub fn plan(volumes: &BTreeMap<VolumeId, u64>, slots: u16) -> Vec<Region> {
    let mut at = REGIONS_AT;
    let place = |(&volume, &bytes): (&VolumeId, &u64)| {
        let region = Region { volume, bytes, at, slots };
        at = region.span().end();
        region
    };
    volumes.iter().map(place).collect()
}

/// How long a new area must be, in bytes, for volumes of these sizes and `slots` peers.
pub fn area_len(volumes: &BTreeMap<VolumeId, u64>, slots: u16) -> u64 {
    end_of(&plan(volumes, slots))
}

/// How long an area must be to hold these regions.
pub fn end_of(regions: &[Region]) -> u64 {
    regions.iter().map(|region| region.span().end()).max().unwrap_or(REGIONS_AT)
}

/// How an area changes when volumes come, go or change their size, or when more peers need bitmaps.
///
/// A region whose pages stay the same in number stays where it is. Any other volume gets a new region, in the first gap that holds it
/// or at the end. The order that loses nothing at a crash:
///
/// 1. make the area at least [`area_len`](Self::area_len) bytes long;
/// 2. write zeroes over [`zero`](Self::zero);
/// 3. for each volume in [`moved`](Self::moved), write every page of its maps that is not all clear to the new region; flush;
/// 4. write a superblock that names [`regions`](Self::regions), flush, and do so once more: while either slot names an old region, its
///    place must not be given away, since a superblock that is damaged later falls back to the other slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// All regions after the change.
    pub regions: Vec<Region>,
    /// The volumes whose region is new.
    pub moved: Vec<VolumeId>,
    /// What has to be overwritten with zeroes.
    pub zero: Vec<Span>,
    /// How long the area has to be, in bytes.
    pub area_len: u64,
}

/// Plans the change from `regions` to volumes of these sizes and `slots` peers.
pub fn grow(regions: &[Region], volumes: &BTreeMap<VolumeId, u64>, slots: u16) -> Growth {
    let mut taken: Vec<Span> = regions.iter().map(Region::span).collect();
    let mut growth = Growth { regions: Vec::new(), moved: Vec::new(), zero: Vec::new(), area_len: 0 };
    for (&volume, &bytes) in volumes {
        let wanted = Region { volume, bytes, at: 0, slots };
        let old = regions.iter().find(|region| region.volume == volume);
        if let Some(old) = old.filter(|old| old.same_division(&wanted)) {
            growth.regions.push(Region { at: old.at, ..wanted });
            continue;
        }
        let region = Region { at: first_gap(&mut taken, wanted.span().len), ..wanted };
        taken.push(region.span());
        growth.zero.push(region.span());
        growth.moved.push(volume);
        growth.regions.push(region);
    }
    growth.area_len = end_of(&growth.regions);
    growth
}

/// The first place for `len` bytes that meets none of `taken`, which do not meet each other and are sorted on the way.
fn first_gap(taken: &mut [Span], len: u64) -> u64 {
    taken.sort_unstable();
    let mut at = REGIONS_AT;
    for span in taken.iter() {
        if span.at >= at + len {
            break;
        }
        at = span.end().next_multiple_of(ALIGN);
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const TIB: u64 = 1 << 40;

    fn volumes() -> impl Strategy<Value = BTreeMap<VolumeId, u64>> {
        let bytes = prop_oneof![1..64 * MIB, 1..2 * TIB, Just(TIB), Just(PAGE_BITS * 4096), Just(PAGE_BITS * 4096 + 1)];
        prop::collection::btree_map((0..12_u16).prop_map(VolumeId), bytes, 0..6)
    }

    /// Every page of every map of the regions.
    fn pages(regions: &[Region]) -> Vec<u64> {
        let mut pages = Vec::new();
        for region in regions {
            for page in 0..region.activity_pages() {
                pages.extend([region.activity_page(page, 0), region.activity_page(page, 1)]);
            }
            // All pages of a large bitmap lie between its ends.
            for slot in 0..region.slots {
                let ends = [0, region.bitmap_pages().saturating_sub(1)];
                pages.extend(
                    ends.iter().take(usize::from(region.bitmap_pages() > 1) + 1).map(|&page| region.bitmap_page(slot, page)),
                );
            }
        }
        pages
    }

    fn apart(regions: &[Region]) -> bool {
        let mut spans: Vec<Span> = regions.iter().map(Region::span).collect();
        spans.sort_unstable();
        spans.windows(2).all(|pair| pair[0].end() <= pair[1].at)
    }

    proptest! {
        #[test]
        fn no_two_pages_share_a_place_and_all_lie_in_their_region(volumes in volumes(), slots in 1..=SLOTS_MAX) {
            let regions = plan(&volumes, slots);
            prop_assert!(apart(&regions));
            let mut all = pages(&regions);
            prop_assert!(all.iter().all(|at| at % PAGE as u64 == 0 && *at >= REGIONS_AT));
            prop_assert!(all.iter().all(|&at| regions.iter().any(|r| r.at <= at && at + PAGE as u64 <= r.span().end())));
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), count);
            prop_assert_eq!(area_len(&volumes, slots), end_of(&regions));
        }

        #[test]
        fn the_two_copies_of_an_activity_page_never_share_an_alignment_unit(bytes in 1..900 * TIB) {
            let region = Region { volume: VolumeId(0), bytes, at: REGIONS_AT, slots: 0 };
            for page in 0..region.activity_pages() {
                let copies = [0, 1].map(|copy| region.activity_page(page, copy) / ALIGN);
                prop_assert!(copies[0] != copies[1]);
                prop_assert!(region.activity_page(page, 1) + PAGE as u64 <= region.span().end());
            }
        }

        #[test]
        fn growth_moves_a_region_only_to_where_none_was(before in volumes(), between in volumes(), after in volumes(), slots in 1..8_u16) {
            let first = plan(&before, 7);
            let second = grow(&first, &between, 7);
            let third = grow(&second.regions, &after, slots);
            for (old, new) in [(&first, &second), (&second.regions, &third)] {
                prop_assert!(apart(&new.regions));
                prop_assert!(new.regions.iter().all(|region| region.at % ALIGN == 0 && region.span().end() <= new.area_len));
                for moved in new.regions.iter().filter(|region| new.moved.contains(&region.volume)) {
                    prop_assert!(new.zero.contains(&moved.span()));
                    prop_assert!(old.iter().all(|old| moved.span().end() <= old.at || old.span().end() <= moved.at));
                }
                for kept in new.regions.iter().filter(|region| !new.moved.contains(&region.volume)) {
                    let was = old.iter().find(|old| old.volume == kept.volume).expect("it was there before");
                    prop_assert_eq!(pages(&[*was]), pages(&[*kept]));
                }
            }
            let wanted: Vec<(VolumeId, u64)> = after.into_iter().collect();
            prop_assert_eq!(third.regions.iter().map(|r| (r.volume, r.bytes)).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn a_tebibyte_with_seven_peers_takes_about_a_quarter_of_a_gibibyte() {
        let len = area_len(&BTreeMap::from([(VolumeId(0), TIB)]), 7);
        assert!(len < 233 * MIB, "{len}");
    }

    #[test]
    fn small_steps_reuse_the_gap_of_the_step_before_the_last() {
        let mut regions = plan(&BTreeMap::from([(VolumeId(0), TIB)]), 7);
        for step in 1..50 {
            regions = grow(&regions, &BTreeMap::from([(VolumeId(0), TIB + step * (1 << 30))]), 7).regions;
        }
        let needed = area_len(&BTreeMap::from([(VolumeId(0), TIB + (50 << 30))]), 7);
        assert!(end_of(&regions) < 4 * needed, "{} for {needed}", end_of(&regions));
    }
}
