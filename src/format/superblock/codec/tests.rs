use proptest::prelude::*;

use super::super::strategies::{example, superblock};
use super::*;

/// The bytes with a checksum that is right for them.
fn resealed(mut bytes: Box<[u8]>) -> Box<[u8]> {
    let checksum = crc32fast::hash(&bytes[CHECKSUM + 4..]);
    bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

proptest! {
    #[test]
    fn a_superblock_comes_back_as_it_was(superblock in superblock()) {
        let bytes = superblock.encode().unwrap();
        prop_assert_eq!(bytes.len(), SUPERBLOCK);
        prop_assert_eq!(Superblock::decode(&bytes), Ok(superblock));
    }

    #[test]
    fn one_flipped_bit_is_found(superblock in superblock(), at in 0..SUPERBLOCK * 8) {
        let mut bytes = superblock.encode().unwrap();
        bytes[at / 8] ^= 1 << (at % 8);
        prop_assert!(Superblock::decode(&bytes).is_err());
    }

    #[test]
    fn no_bytes_are_too_strange_to_be_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), pad in any::<bool>()) {
        let mut bytes = bytes;
        if pad {
            bytes.resize(SUPERBLOCK, 0);
        }
        prop_assert!(Superblock::decode(&bytes).is_err());
    }

    /// A right checksum does not make the content right: the decoder meets any content without a panic, and what it accepts it
    /// would write the same way.
    #[test]
    fn content_under_a_right_checksum_is_still_judged(superblock in superblock(), changes in prop::collection::vec((24..2000_usize, any::<u8>()), 1..8)) {
        let mut bytes = superblock.encode().unwrap();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let bytes = resealed(bytes);
        if let Ok(read) = Superblock::decode(&bytes) {
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }
    }
}

#[test]
fn a_later_format_is_told_from_damage_and_names_its_program() {
    let mut bytes = example().encode().unwrap();
    bytes[12] = 2;
    bytes[14..20].copy_from_slice(&[0, 0, 9, 0, 4, 0]);
    let error = Superblock::decode(&resealed(bytes)).unwrap_err();
    assert_eq!(error, SuperblockError::Newer { format: 2, writer: (0, 9, 4) });
    assert!(error.to_string().contains("upgrade blkrep to at least 0.9.4"), "{error}");
}

#[test]
fn each_kind_of_wrong_bytes_has_its_own_answer() {
    assert_eq!(Superblock::decode(&[0; SUPERBLOCK]), Err(SuperblockError::Blank));
    assert_eq!(Superblock::decode(&[0; 100]), Err(SuperblockError::Truncated { len: 100 }));
    assert_eq!(Superblock::decode(&[0x55; SUPERBLOCK]), Err(SuperblockError::Foreign { seen: [0x55; 8] }));
    let mut bytes = example().encode().unwrap();
    bytes[3000] = 1;
    assert!(matches!(Superblock::decode(&bytes), Err(SuperblockError::Checksum { .. })));
    for (at, byte) in [(12, 0), (LENGTH, 1), (3000, 1)] {
        let mut bytes = example().encode().unwrap();
        bytes[at] = byte;
        let error = Superblock::decode(&resealed(bytes)).unwrap_err();
        assert!(matches!(error, SuperblockError::Malformed { .. }), "{error}");
    }
}

#[test]
fn regions_must_not_meet() {
    let superblock = example();
    let mut bytes = superblock.encode().unwrap();
    let second = LISTS + 2 * 16 + 2 * 8 + 2 * 24 + 24 + 16;
    assert_eq!(bytes[second..second + 8], superblock.regions[1].at.to_le_bytes());
    bytes[second..second + 8].copy_from_slice(&(superblock.regions[0].at + 4096).to_le_bytes());
    assert!(matches!(Superblock::decode(&resealed(bytes)), Err(SuperblockError::Malformed { .. })));
}

#[test]
fn peers_without_room_for_their_bitmaps_are_refused_when_written() {
    let mut superblock = example();
    superblock.peers = vec![superblock.peers[0]; 8];
    assert_eq!(superblock.encode().unwrap_err().max, 7);
}

#[test]
fn lists_beyond_their_bounds_are_refused_when_written() {
    let mut superblock = example();
    superblock.lineage = vec![RecordId(1); LINEAGE_MAX + 1];
    let error = superblock.encode().unwrap_err();
    assert_eq!(error.to_string(), "a replica's metadata has room for 64 ancestors of a record, not for 65");
}

/// The bytes of format 1, pinned: a change here is a change of format.
#[test]
fn format_1_stays_what_it_is() {
    let mut bytes = example().encode().unwrap();
    bytes[14..20].fill(0);
    assert_eq!(crc32fast::hash(&resealed(bytes)[12..]), PINNED);
}

const PINNED: u32 = 2_433_843_369;
