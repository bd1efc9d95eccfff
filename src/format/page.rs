//! The page that both maps are made of: a header that says whose bits these are, a checksum, and the bits.

use crate::units::{ReplicaId, VolumeId};

/// A page of a map, in bytes.
pub const PAGE: usize = 4096;

/// How many bits a page holds. As blocks these are exactly 31 extents, so that an extent's dirty bits lie in one page and cooling it
/// writes one page per absent peer.
pub const PAGE_BITS: u64 = PAGE_BIT_BYTES as u64 * 8;

/// The bytes of a page that hold bits.
pub(super) const PAGE_BIT_BYTES: usize = PAGE - HEADER;

/// What a page must say about itself to be believed. A page that belongs elsewhere got here by a misdirected write, or was here
/// before: it says nothing about this map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) replica: ReplicaId,
    pub(super) volume: VolumeId,
    /// Dirty bitmap: the peer's slot. Activity map: which of the two copies.
    pub(super) slot: u16,
    pub(super) page: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Activity,
    Dirty,
}

impl Kind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Activity => *b"bkAC",
            Self::Dirty => *b"bkDI",
        }
    }
}

/// A page as read from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page<'a> {
    /// All bytes are zero: it was never written.
    Blank,
    /// It is whole and belongs here.
    Valid { sequence: u64, bits: &'a [u8; PAGE_BIT_BYTES] },
    /// Anything else: torn, damaged, unreadable, another one's, or of a format this program does not know.
    Suspect,
}

/// Makes a page; `fill` writes the bits.
pub(super) fn seal(place: &Place, sequence: u64, fill: impl FnOnce(&mut [u8; PAGE_BIT_BYTES])) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page[..HEADER].copy_from_slice(&header(place, sequence));
    fill((&mut page[HEADER..]).try_into().expect("the rest of a page is its bits"));
    let checksum = crc32fast::hash(&page[CHECKSUM_END..]);
    page[..CHECKSUM_END].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// Reads a page. Whatever the bytes are, and however many, there is an answer.
pub(super) fn open<'a>(bytes: &'a [u8], place: &Place) -> Page<'a> {
    let Ok(page) = <&[u8; PAGE]>::try_from(bytes) else { return Page::Suspect };
    if *page == BLANK {
        return Page::Blank;
    }
    let (head, bits) = page.split_first_chunk::<HEADER>().expect("a page is longer than its header");
    let (checksum, _) = head.split_first_chunk::<CHECKSUM_END>().expect("a header is longer than its checksum");
    let sequence = u64::from_le_bytes(head[SEQUENCE..SEQUENCE + 8].try_into().expect("eight bytes"));
    let expected = header(place, sequence);
    let whole = u32::from_le_bytes(*checksum) == crc32fast::hash(&page[CHECKSUM_END..]);
    if !whole || head[CHECKSUM_END..] != expected[CHECKSUM_END..] {
        return Page::Suspect;
    }
    Page::Valid { sequence, bits: bits.try_into().expect("the rest of a page is its bits") }
}

/// The header with its checksum left out.
///
/// | bytes | what |
/// |---|---|
/// | 0..4 | CRC-32 of bytes 4..4096 |
/// | 4..8 | `bkAC` or `bkDI` |
/// | 8..10 | format version, 1 |
/// | 10..12 | volume |
/// | 12..16 | page number within the map |
/// | 16..18 | slot |
/// | 18..24 | zero |
/// | 24..32 | replica |
/// | 32..40 | sequence number; zero in a dirty bitmap |
/// | 40..128 | zero |
fn header(place: &Place, sequence: u64) -> [u8; HEADER] {
    let mut head = [0; HEADER];
    head[4..8].copy_from_slice(&place.kind.magic());
    head[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    head[10..12].copy_from_slice(&place.volume.0.to_le_bytes());
    head[12..16].copy_from_slice(&place.page.to_le_bytes());
    head[16..18].copy_from_slice(&place.slot.to_le_bytes());
    head[24..32].copy_from_slice(&place.replica.0.to_le_bytes());
    head[SEQUENCE..SEQUENCE + 8].copy_from_slice(&sequence.to_le_bytes());
    head
}

static BLANK: [u8; PAGE] = [0; PAGE];
const CHECKSUM_END: usize = 4;
const SEQUENCE: usize = 32;
const HEADER: usize = 128;
const FORMAT: u16 = 1;

const _: () = assert!(PAGE_BITS.is_multiple_of(crate::units::BLOCKS_PER_EXTENT), "an extent's bits lie in one page");
