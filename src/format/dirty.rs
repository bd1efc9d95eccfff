//! A dirty bitmap on disk: which blocks a peer may lack.
//!
//! Its pages are written in place. A page that is torn by that reads as dirty everywhere, which costs a resync of 124 MiB and loses
//! nothing.

use std::ops::Range;

use super::bitmap::Bitmap;
use super::layout::PageWrite;
use super::page::{Kind, Page, Place, open, seal};
use super::superblock::Region;
use crate::units::ReplicaId;

/// Encodes a page of the dirty bitmap of the peer in `slot`, with its place.
///
/// A page that has been written is never written as zeroes again: one without set bits still has its header, so that zeroes stay the
/// sign of a page that was never written.
pub fn encode_dirty_page(replica: ReplicaId, region: &Region, slot: u16, page: u64, dirty: &Bitmap) -> PageWrite {
    debug_assert_eq!(dirty.len(), region.blocks(), "the map is that of the region's volume");
    let bytes = seal(&place(replica, region, slot, page), 0, |bits| dirty.store_page(page, bits));
    PageWrite { at: region.bitmap_page(slot, page), bytes: Box::new(bytes) }
}

/// As [`encode_dirty_page`], with `window` dirty as well, without copying the map: blocks that are on their way to the peer (rule R1).
/// Ranges of other pages are passed over.
pub fn encode_dirty_page_with(
    replica: ReplicaId,
    region: &Region,
    slot: u16,
    page: u64,
    dirty: &Bitmap,
    window: impl IntoIterator<Item = Range<u64>>,
) -> PageWrite {
    debug_assert_eq!(dirty.len(), region.blocks(), "the map is that of the region's volume");
    let fill = |bits: &mut _| dirty.store_page_with(page, window.into_iter(), bits);
    let bytes = seal(&place(replica, region, slot, page), 0, fill);
    PageWrite { at: region.bitmap_page(slot, page), bytes: Box::new(bytes) }
}

/// Reads a page into the map; returns false, with every bit of the page set, when the page cannot be believed.
pub(super) fn load(replica: ReplicaId, region: &Region, slot: u16, page: u64, bytes: &[u8], dirty: &mut Bitmap) -> bool {
    match open(bytes, &place(replica, region, slot, page)) {
        Page::Blank => {
            dirty.clear(dirty.page_range(page));
            true
        }
        Page::Valid { bits, .. } => {
            dirty.load_page(page, bits);
            true
        }
        Page::Suspect => {
            dirty.set(dirty.page_range(page));
            false
        }
    }
}

fn place(replica: ReplicaId, region: &Region, slot: u16, page: u64) -> Place {
    let page = u32::try_from(page).expect("the largest volume has fewer pages");
    Place { kind: Kind::Dirty, replica, volume: region.volume, slot, page }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::page::{PAGE, PAGE_BITS};
    use crate::units::VolumeId;

    const REPLICA: ReplicaId = ReplicaId(0xbeef);
    /// Two and a half pages of blocks, the last one cut off in mid-word.
    const REGION: Region = Region { volume: VolumeId(1), bytes: (PAGE_BITS * 5 / 2 + 3) * 4096, at: 1 << 20, slots: 4 };

    fn map(bits: &[u64]) -> Bitmap {
        let mut map = Bitmap::new(REGION.blocks());
        for &bit in bits {
            map.set(bit..bit + 1);
        }
        map
    }

    fn page(number: u64, bits: &[u64]) -> Vec<u8> {
        encode_dirty_page(REPLICA, &REGION, 2, number, &map(bits)).bytes.into_vec()
    }

    fn bits() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0..REGION.blocks(), 0..60)
    }

    fn loaded(number: u64, bytes: &[u8]) -> (bool, Bitmap) {
        let mut map = map(&[]);
        map.fill();
        let believed = load(REPLICA, &REGION, 2, number, bytes, &mut map);
        (believed, map)
    }

    proptest! {
        #[test]
        fn a_map_comes_back_as_it_was_written(bits in bits(), full in any::<bool>()) {
            let mut before = map(&bits);
            if full {
                before.fill();
                bits.iter().for_each(|&bit| { before.clear(bit..bit + 1); });
            }
            let mut after = map(&[]);
            for number in 0..REGION.bitmap_pages() {
                let written = encode_dirty_page(REPLICA, &REGION, 2, number, &before);
                prop_assert!(load(REPLICA, &REGION, 2, number, &written.bytes, &mut after));
            }
            prop_assert_eq!(before, after);
        }

        #[test]
        fn a_window_is_written_as_if_it_were_dirty(bits in bits(), full in any::<bool>(), window in prop::collection::vec((0..REGION.blocks(), 0..PAGE_BITS), 0..6)) {
            let mut dirty = map(&bits);
            if full {
                dirty.fill();
                dirty.clear(PAGE_BITS..PAGE_BITS + 7);
            }
            let window: Vec<_> = window.into_iter().map(|(at, len)| at..(at + len).min(REGION.blocks())).collect();
            let mut both = dirty.clone();
            window.iter().for_each(|range| { both.set(range.clone()); });
            for number in 0..REGION.bitmap_pages() {
                let write = encode_dirty_page_with(REPLICA, &REGION, 2, number, &dirty, window.iter().cloned());
                prop_assert_eq!(write, encode_dirty_page(REPLICA, &REGION, 2, number, &both));
            }
        }

        /// The write of a page was cut short. It is not known which sectors are there, so every bit must be set that either image has,
        /// unless exactly one of the two images is there.
        #[test]
        fn a_torn_write_reads_as_one_of_the_images_or_as_all_dirty(old in bits(), new in bits(), first in any::<bool>(), sectors in any::<u8>(), number in 0..3_u64) {
            let before = if first { vec![0; PAGE] } else { page(number, &old) };
            let after = page(number, &new);
            let mut mixed = before.clone();
            for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
                mixed[sector * 512..][..512].copy_from_slice(&after[sector * 512..][..512]);
            }
            let (believed, seen) = loaded(number, &mixed);
            prop_assert_eq!(believed, mixed == before || mixed == after);
            let range = seen.page_range(number);
            if !believed {
                prop_assert_eq!(seen.count_in(range.clone()), range.end - range.start);
            }
            let must: Vec<u64> = if first { vec![] } else { old.iter().filter(|bit| new.contains(bit)).copied().collect() };
            prop_assert!(must.iter().all(|&bit| seen.is_set(bit)));
        }

        #[test]
        fn one_flipped_bit_makes_every_block_of_the_page_dirty(bits in bits(), blank in any::<bool>(), at in 0..PAGE * 8) {
            let mut bytes = if blank { vec![0; PAGE] } else { page(1, &bits) };
            bytes[at / 8] ^= 1 << (at % 8);
            let (believed, seen) = loaded(1, &bytes);
            prop_assert!(!believed);
            prop_assert_eq!(seen.count_in(seen.page_range(1)), PAGE_BITS);
        }

        #[test]
        fn any_bytes_are_read_as_dirty_rather_than_believed(bytes in prop::collection::vec(any::<u8>(), 0..PAGE + 1)) {
            prop_assert!(!loaded(0, &bytes).0);
        }
    }

    #[test]
    fn a_page_that_was_never_written_is_clean() {
        let (believed, map) = loaded(1, &[0; PAGE]);
        assert!(believed);
        assert!(!map.any_in(map.page_range(1)));
        assert!(map.is_set(0), "other pages are left alone");
    }

    #[test]
    fn a_page_of_another_place_is_all_dirty() {
        let strangers = [
            encode_dirty_page(ReplicaId(1), &REGION, 2, 0, &map(&[])),
            encode_dirty_page(REPLICA, &Region { volume: VolumeId(9), ..REGION }, 2, 0, &map(&[])),
            encode_dirty_page(REPLICA, &REGION, 1, 0, &map(&[])),
            encode_dirty_page(REPLICA, &REGION, 2, 1, &map(&[])),
        ];
        assert!(strangers.iter().all(|stranger| !loaded(0, &stranger.bytes).0));
        assert!(!loaded(0, &crate::format::encode_activity_page(REPLICA, &REGION, 0, 1, &Bitmap::new(REGION.extents())).bytes).0);
    }
}
