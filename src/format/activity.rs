//! The activity map on disk: which extents may differ between replicas after a crash.
//!
//! Every page has two copies that are written in turn, so that one of them is whole at any moment: pages with an odd sequence number
//! go to copy 0, those with an even one to copy 1. A page must be durable before its successor is written, and before anything is
//! written to the extents that it makes hot (rule W2).

use super::bitmap::Bitmap;
use super::layout::PageWrite;
use super::page::{Kind, Page, Place, open, seal};
use super::superblock::Region;
use crate::units::ReplicaId;

/// Encodes a page of the activity map, with its place. `sequence` is the page's last sequence number and 1.
pub fn encode_activity_page(replica: ReplicaId, region: &Region, page: u64, sequence: u64, hot: &Bitmap) -> PageWrite {
    debug_assert_eq!(hot.len(), region.extents(), "the map is that of the region's volume");
    let copy = copy_of(sequence);
    let bytes = seal(&place(replica, region, page, copy), sequence, |bits| hot.store_page(page, bits));
    PageWrite { at: region.activity_page(page, copy), bytes: Box::new(bytes) }
}

/// What the two copies of a page say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copies<'a> {
    /// Neither was ever written: every extent is cold.
    Blank,
    /// The newer copy.
    Newest { sequence: u64, bits: &'a [u8; super::page::PAGE_BIT_BYTES] },
    /// A copy is torn or damaged, or one that was written is gone: every extent under the page is hot, whatever the other copy says.
    /// Which of the two was the newer is not known.
    Suspect,
}

/// Reads both copies of a page.
pub(super) fn choose<'a>(replica: ReplicaId, region: &Region, page: u64, copies: [&'a [u8]; 2]) -> Copies<'a> {
    let [first, second] = [0, 1].map(|copy| open(copies[usize::from(copy)], &place(replica, region, page, copy)));
    match (first, second) {
        (Page::Blank, Page::Blank) => Copies::Blank,
        // The very first write goes to copy 0. Any other page has a predecessor in the other copy: a blank there means that it was lost.
        (Page::Valid { sequence: 1, bits }, Page::Blank) => Copies::Newest { sequence: 1, bits },
        (Page::Valid { sequence: a, bits: in_a }, Page::Valid { sequence: b, bits: in_b })
            if copy_of(a) == 0 && copy_of(b) == 1 =>
        {
            let (sequence, bits) = if a > b { (a, in_a) } else { (b, in_b) };
            Copies::Newest { sequence, bits }
        }
        _ => Copies::Suspect,
    }
}

/// Where sequence numbers go on from when those on disk cannot be believed: beyond all that any earlier life can have used, so that a
/// copy that could not be read and comes back later is older than what was written since.
pub(super) fn sequence_floor(superblock_version: u64) -> u64 {
    superblock_version.min(u64::from(u32::MAX)) << 32
}

/// The copy that a page of this sequence number is.
fn copy_of(sequence: u64) -> u16 {
    u16::from(sequence.is_multiple_of(2))
}

fn place(replica: ReplicaId, region: &Region, page: u64, copy: u16) -> Place {
    let page = u32::try_from(page).expect("the largest volume has fewer pages");
    Place { kind: Kind::Activity, replica, volume: region.volume, slot: copy, page }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::page::{PAGE, PAGE_BITS};
    use crate::units::VolumeId;

    const REPLICA: ReplicaId = ReplicaId(0xfeed);
    const REGION: Region = Region { volume: VolumeId(3), bytes: 100 << 40, at: 1 << 20, slots: 2 };
    const BLANK: [u8; PAGE] = [0; PAGE];

    fn page(number: u64, sequence: u64, bits: &[u64]) -> Vec<u8> {
        let mut hot = Bitmap::new(REGION.extents());
        for &bit in bits {
            hot.set(bit..bit + 1);
        }
        encode_activity_page(REPLICA, &REGION, number, sequence, &hot).bytes.into_vec()
    }

    /// The hot extents of page 0 that two copies amount to.
    fn hot(first: &[u8], second: &[u8]) -> Bitmap {
        let mut map = Bitmap::new(PAGE_BITS);
        match choose(REPLICA, &REGION, 0, [first, second]) {
            Copies::Blank => {}
            Copies::Newest { bits, .. } => map.load_page(0, bits),
            Copies::Suspect => map.fill(),
        }
        map
    }

    fn includes(map: &Bitmap, bits: &[u64]) -> bool {
        bits.iter().all(|&bit| map.is_set(bit))
    }

    fn bits() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0..PAGE_BITS, 0..50)
    }

    proptest! {
        #[test]
        fn the_newer_copy_counts_and_the_next_write_goes_to_the_other(number in 0..REGION.activity_pages(), sequence in 1..u64::MAX, old in bits(), new in bits()) {
            let (a, b) = (page(number, sequence, &old), page(number, sequence + 1, &new));
            let copies = if copy_of(sequence) == 0 { [&*a, &*b] } else { [&*b, &*a] };
            let Copies::Newest { sequence: newest, .. } = choose(REPLICA, &REGION, number, copies) else { panic!("both are valid") };
            prop_assert_eq!(newest, sequence + 1);
            let places = [sequence, sequence + 1, sequence.saturating_add(2)].map(|s| encode_activity_page(REPLICA, &REGION, number, s, &Bitmap::new(REGION.extents())).at);
            prop_assert!(places[0] != places[1] && (places[0] == places[2] || sequence > u64::MAX - 2));
        }

        /// The write of 3 over 1 was cut short: any mixture of old and new sectors of that copy may be there. Nothing was written under
        /// 3 yet, so 2, which is whole, says what must be hot.
        #[test]
        fn a_torn_write_never_hides_what_was_durably_hot(before in bits(), durable in bits(), torn in bits(), sectors in any::<u8>()) {
            let (one, two, three) = (page(0, 1, &before), page(0, 2, &durable), page(0, 3, &torn));
            let mut mixed = one;
            for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
                mixed[sector * 512..][..512].copy_from_slice(&three[sector * 512..][..512]);
            }
            let seen = hot(&mixed, &two);
            // All of 3 is there, and it may have cooled what 2 had hot: it was allowed to.
            if mixed != three {
                prop_assert!(includes(&seen, &durable));
            } else {
                prop_assert!(includes(&seen, &torn));
            }
        }

        #[test]
        fn one_flipped_bit_in_either_copy_makes_everything_hot(old in bits(), new in bits(), copy in 0..2_usize, at in 0..PAGE * 8) {
            let mut copies = [page(0, 1, &old), page(0, 2, &new)];
            copies[copy][at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(hot(&copies[0], &copies[1]).count(), PAGE_BITS);
        }

        #[test]
        fn any_bytes_are_read_as_hot_rather_than_believed(first in prop::collection::vec(any::<u8>(), 0..PAGE + 1), flip in any::<bool>()) {
            let whole = page(0, if flip { 1 } else { 2 }, &[]);
            let seen = if flip { hot(&whole, &first) } else { hot(&first, &whole) };
            prop_assert_eq!(seen.count(), PAGE_BITS);
        }
    }

    #[test]
    fn a_page_that_was_never_written_is_cold() {
        assert!(hot(&BLANK, &BLANK).is_clear());
    }

    #[test]
    fn the_first_write_needs_no_other_copy() {
        let seen = hot(&page(0, 1, &[7]), &BLANK);
        assert!(seen.is_set(7) && seen.count() == 1);
    }

    #[test]
    fn a_copy_that_was_written_and_is_blank_is_suspect() {
        assert_eq!(hot(&page(0, 3, &[7]), &BLANK).count(), PAGE_BITS);
        assert_eq!(hot(&BLANK, &page(0, 2, &[7])).count(), PAGE_BITS);
    }

    #[test]
    fn a_page_of_another_place_is_suspect() {
        let good = page(0, 2, &[]);
        for (replica, volume, number) in [(1, 3, 0), (0xfeed, 4, 0), (0xfeed, 3, 1)] {
            let region = Region { volume: VolumeId(volume), ..REGION };
            let stranger = encode_activity_page(ReplicaId(replica), &region, number, 1, &Bitmap::new(REGION.extents()));
            assert_eq!(hot(&stranger.bytes, &good).count(), PAGE_BITS);
        }
        assert_eq!(hot(&good, &page(0, 1, &[])).count(), PAGE_BITS, "the copies are in each other's place");
        let out_of_turn = seal(&place(REPLICA, &REGION, 0, 0), 4, |_| {});
        assert_eq!(hot(&out_of_turn, &good).count(), PAGE_BITS, "an even number in copy 0");
    }

    #[test]
    fn sequence_numbers_after_damage_are_beyond_those_of_every_earlier_life() {
        assert!(sequence_floor(2) > sequence_floor(1) + (1 << 31));
        assert!(sequence_floor(u64::MAX).checked_add(1 << 31).is_some());
    }
}
