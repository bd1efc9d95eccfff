//! Reading a metadata area, in pieces that the caller reads.

use std::collections::BTreeMap;

use super::activity::{Copies, choose as choose_copy, sequence_floor};
use super::bitmap::Bitmap;
use super::dirty;
use super::layout::{Span, end_of};
use super::page::{PAGE, PAGE_BIT_BYTES};
use super::superblock::{Present, Region, SlotsError, Superblock, SuperblockError, choose};
use crate::units::VolumeId;

/// The most bytes asked for in one piece.
const PIECE: u64 = 1 << 20;

/// Reads a metadata area, without doing the reading.
///
/// The caller reads both superblock slots ([`superblock_at`](super::superblock_at), [`SUPERBLOCK`](super::SUPERBLOCK) bytes each) and
/// makes a loader of them; reads the [`pieces`](Self::pieces) in any order, any number at a time, and [`feed`](Self::feed)s each;
/// then [`finish`](Self::finish)es. What cannot be read, or is never fed, comes out as hot and dirty.
#[derive(Debug)]
pub struct Loader {
    present: Present,
    activity: BTreeMap<VolumeId, Activity>,
    dirty: BTreeMap<(u16, VolumeId), Bitmap>,
    pieces: BTreeMap<u64, Piece>,
    damages: BTreeMap<(VolumeId, Option<u16>), u64>,
}

/// What a metadata area holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The present superblock. Not [`clean`](Superblock::clean) when the other slot was damaged, whatever it says itself.
    pub superblock: Superblock,
    /// The slot that the next superblock is written to.
    pub next_slot: usize,
    /// The activity map of each volume.
    pub activity: BTreeMap<VolumeId, Activity>,
    /// The dirty bitmap of each peer, by its slot, and volume.
    pub dirty: BTreeMap<(u16, VolumeId), Bitmap>,
    /// What could not be believed and was taken for the worst, for the log. Empty when all is well.
    pub damages: Vec<Damage>,
}

/// A volume's activity map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The hot extents.
    pub hot: Bitmap,
    /// For each page the last sequence number; its next write takes the one after it.
    pub sequences: Vec<u64>,
}

impl Activity {
    /// The map of a volume in a new region: all cold, nothing written.
    pub fn new(region: &Region) -> Self {
        let pages = usize::try_from(region.activity_pages()).expect("maps are smaller than the address space");
        Self { hot: Bitmap::new(region.extents()), sequences: vec![0; pages] }
    }
}

/// Metadata that could not be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// One of the superblocks.
    #[error("one of the two superblocks cannot be used, so that the last stop does not count as clean: {0}")]
    Superblock(SuperblockError),
    /// Pages of an activity map.
    #[error("{pages} page(s) of the activity map of volume {volume} are damaged: every extent under them counts as hot")]
    Activity {
        /// The volume.
        volume: VolumeId,
        /// How many pages.
        pages: u64,
    },
    /// Pages of a dirty bitmap.
    #[error(
        "{pages} page(s) of the dirty bitmap in slot {slot} of volume {volume} are damaged: every block under them counts as dirty"
    )]
    Dirty {
        /// The peer's slot.
        slot: u16,
        /// The volume.
        volume: VolumeId,
        /// How many pages.
        pages: u64,
    },
}

/// Why an area cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// There is no usable superblock.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// The area is shorter than what it should hold.
    #[error(
        "the metadata area is cut off: it has {len} bytes, and its maps end at byte {needed}; give the file or volume its full \
         length back"
    )]
    Truncated {
        /// The area's length in bytes.
        len: u64,
        /// Where the last region ends.
        needed: u64,
    },
}

/// Pages that are read together.
#[derive(Clone, Copy, Debug)]
struct Piece {
    region: Region,
    /// The peer's slot; `None` for the activity map.
    slot: Option<u16>,
    /// The first page.
    first: u64,
    /// How many.
    pages: u64,
    /// The bytes to read.
    len: u64,
}

impl Loader {
    /// Begins with the bytes of both superblock slots, empty where one could not be read, and the area's length in bytes.
    pub fn new(slot0: &[u8], slot1: &[u8], area_len: u64) -> Result<Self, LoadError> {
        let present = choose(slot0, slot1)?;
        let needed = end_of(&present.superblock.regions);
        if needed > area_len {
            return Err(LoadError::Truncated { len: area_len, needed });
        }
        let superblock = &present.superblock;
        let mut pieces = BTreeMap::new();
        let (mut activity, mut dirty) = (BTreeMap::new(), BTreeMap::new());
        for region in &superblock.regions {
            pieces.extend(activity_pieces(region));
            activity.insert(region.volume, Activity::new(region));
            for slot in (0..region.slots).take(superblock.peers.len()) {
                pieces.extend(dirty_pieces(region, slot));
                dirty.insert((slot, region.volume), Bitmap::new(region.blocks()));
            }
        }
        Ok(Self { present, activity, dirty, pieces, damages: BTreeMap::new() })
    }

    /// The superblock that was chosen.
    pub fn superblock(&self) -> &Superblock {
        &self.present.superblock
    }

    /// What is still to be read, in ascending order.
    pub fn pieces(&self) -> Vec<Span> {
        self.pieces.iter().map(|(&at, piece)| Span { at, len: piece.len }).collect()
    }

    /// Takes the bytes of the piece that begins at `at`. Where `bytes` is too short the rest counts as unreadable; for an unreadable
    /// page within it, give bytes that are not zero, for instance all `0xff`.
    ///
    /// # Panics
    ///
    /// When no such piece was asked for, or it was fed before.
    pub fn feed(&mut self, at: u64, bytes: &[u8]) {
        let piece = self.pieces.remove(&at).expect("only pieces that were asked for are fed, each once");
        match piece.slot {
            None => self.feed_activity(at, &piece, bytes),
            Some(slot) => self.feed_dirty(slot, &piece, bytes),
        }
    }

    /// The maps.
    pub fn finish(mut self) -> Loaded {
        while let Some(&at) = self.pieces.keys().next() {
            self.feed(at, &[]);
        }
        let maps = self.damages.into_iter().map(|((volume, slot), pages)| match slot {
            None => Damage::Activity { volume, pages },
            Some(slot) => Damage::Dirty { slot, volume, pages },
        });
        let damages = self.present.damaged.map(Damage::Superblock).into_iter().chain(maps).collect();
        Loaded {
            superblock: self.present.superblock,
            next_slot: self.present.next_slot,
            activity: self.activity,
            dirty: self.dirty,
            damages,
        }
    }

    fn feed_activity(&mut self, at: u64, piece: &Piece, bytes: &[u8]) {
        let (region, superblock) = (&piece.region, &self.present.superblock);
        let activity = self.activity.get_mut(&region.volume).expect("every region has a map");
        for page in piece.first..piece.first + piece.pages {
            let copies = [0, 1].map(|copy| page_of(bytes, region.activity_page(page, copy) - at));
            let sequence = &mut activity.sequences[usize::try_from(page).expect("an index of a list in memory")];
            match choose_copy(superblock.replica, region, page, copies) {
                Copies::Blank => {}
                Copies::Newest { sequence: newest, bits } => {
                    *sequence = newest;
                    activity.hot.load_page(page, bits);
                }
                Copies::Suspect => {
                    *sequence = sequence_floor(superblock.version);
                    activity.hot.set(activity.hot.page_range(page));
                    *self.damages.entry((region.volume, None)).or_default() += 1;
                }
            }
        }
    }

    fn feed_dirty(&mut self, slot: u16, piece: &Piece, bytes: &[u8]) {
        let region = &piece.region;
        let map = self.dirty.get_mut(&(slot, region.volume)).expect("every slot in use has a map");
        for page in piece.first..piece.first + piece.pages {
            let bytes = page_of(bytes, (page - piece.first) * PAGE as u64);
            if !dirty::load(self.present.superblock.replica, region, slot, page, bytes, map) {
                *self.damages.entry((region.volume, Some(slot))).or_default() += 1;
            }
        }
    }
}

/// The pieces of an activity map: both copies of a page lie in the same one.
fn activity_pieces(region: &Region) -> impl Iterator<Item = (u64, Piece)> + use<> {
    let region = *region;
    let whole = Span { at: region.at, len: region.activity_len() };
    // Two copies lie in as many bytes as two pages.
    let step = PIECE / (2 * PAGE as u64);
    (0..region.activity_pages()).step_by(index(step)).map(move |first| {
        let pages = step.min(region.activity_pages() - first);
        let at = region.activity_page(first, 0);
        (at, Piece { region, slot: None, first, pages, len: PIECE.min(whole.end() - at) })
    })
}

fn dirty_pieces(region: &Region, slot: u16) -> impl Iterator<Item = (u64, Piece)> + use<> {
    let region = *region;
    let step = PIECE / PAGE as u64;
    (0..region.bitmap_pages()).step_by(index(step)).map(move |first| {
        let pages = step.min(region.bitmap_pages() - first);
        (region.bitmap_page(slot, first), Piece { region, slot: Some(slot), first, pages, len: pages * PAGE as u64 })
    })
}

/// The page at `offset`, or nothing where it is not wholly there.
fn page_of(bytes: &[u8], offset: u64) -> &[u8] {
    let page = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)?.get(..PAGE));
    page.unwrap_or_default()
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a piece is smaller than the address space")
}

const _: () = assert!(PAGE_BIT_BYTES < PAGE && PIECE.is_multiple_of(2 * super::layout::ALIGN), "a piece holds whole groups");

#[cfg(test)]
mod tests;
