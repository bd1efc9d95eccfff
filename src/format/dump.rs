//! A metadata area as a document, and a document as an area: for operators who move an area, keep one aside, or bring one back.
//!
//! A document is JSON. It is checksummed, because a program that edits JSON may round the ids, and what is restored decides which copy
//! of the data counts.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::activity::encode_activity_page;
use super::bitmap::Bitmap;
use super::create::Step;
use super::dirty::encode_dirty_page;
use super::layout::{PageWrite, Span, plan};
use super::load::{Activity, Loaded};
use super::superblock::{Region, SUPERBLOCK, Superblock, TooLarge, superblock_at};
use crate::units::{NodeId, VolumeId};

/// The version of the document. A later one is refused.
const VERSION: u32 = 1;

/// All that a metadata area says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dump {
    /// The document's version.
    #[serde(rename = "blkrep-metadata")]
    version: u32,
    /// The CRC-32 of everything below in its binary form.
    checksum: u32,
    superblock: Superblock,
    volumes: Vec<Maps>,
}

/// The maps of one volume, as runs of set bits: the first and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Maps {
    volume: VolumeId,
    /// Hot extents.
    hot: Vec<(u64, u64)>,
    /// Blocks that each peer may lack.
    dirty: BTreeMap<NodeId, Vec<(u64, u64)>>,
}

/// Why a document is not restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    /// It was written by a later version of this program.
    #[error("the dump has version {0}, this program knows version {VERSION}; use the program that wrote it")]
    Newer(u32),
    /// It is not what was written.
    #[error(
        "the dump was changed since it was written (checksum {stored:08x}, its content has {computed:08x}); take another one"
    )]
    Changed {
        /// The checksum in the document.
        stored: u32,
        /// The checksum of its content.
        computed: u32,
    },
    /// It describes an area that there cannot be.
    #[error("the dump describes no metadata that there can be: {0}")]
    Impossible(String),
}

impl Dump {
    /// The document of an area.
    pub fn of(loaded: &Loaded) -> Self {
        let superblock = loaded.superblock.clone();
        let volumes = superblock.regions.iter().map(|region| Maps::of(region, &superblock, loaded)).collect();
        let mut dump = Self { version: VERSION, checksum: 0, superblock, volumes };
        dump.checksum = dump.content_checksum();
        dump
    }

    /// What an area that is written from this document will say, its regions one after the other whatever they were.
    ///
    /// # Errors
    ///
    /// When the document is of another version, was changed, or makes no sense.
    pub fn into_loaded(self) -> Result<Loaded, DumpError> {
        if self.version != VERSION {
            return Err(DumpError::Newer(self.version));
        }
        let computed = self.content_checksum();
        if computed != self.checksum {
            return Err(DumpError::Changed { stored: self.checksum, computed });
        }
        let Self { mut superblock, volumes: maps, .. } = self;
        superblock.check().map_err(|error| DumpError::Impossible(error.to_string()))?;
        let slots = superblock.regions.iter().map(|region| region.slots).max().unwrap_or_default();
        superblock.regions = plan(&superblock.regions.iter().map(|region| (region.volume, region.bytes)).collect(), slots);
        let (mut activity, mut dirty) = (BTreeMap::new(), BTreeMap::new());
        for region in &superblock.regions {
            let maps = maps.iter().find(|maps| maps.volume == region.volume);
            let maps = maps.ok_or_else(|| DumpError::Impossible(format!("volume {} has no maps", region.volume)))?;
            let hot = bitmap(region.extents(), &maps.hot)?;
            let written = |page| u64::from(hot.any_in(hot.page_range(page)));
            activity.insert(region.volume, Activity { sequences: (0..region.activity_pages()).map(written).collect(), hot });
            for (slot, peer) in (0..).zip(&superblock.peers) {
                let runs = maps.dirty.get(&peer.node);
                let runs = runs.ok_or_else(|| DumpError::Impossible(format!("node {} has no bitmap", peer.node)))?;
                dirty.insert((slot, region.volume), bitmap(region.blocks(), runs)?);
            }
        }
        Ok(Loaded { superblock, next_slot: 0, activity, dirty, damages: Vec::new() })
    }

    fn content_checksum(&self) -> u32 {
        let content = serde_json::to_vec(&(&self.superblock, &self.volumes)).expect("maps of numbers are JSON");
        crc32fast::hash(&content)
    }
}

impl Maps {
    fn of(region: &Region, superblock: &Superblock, loaded: &Loaded) -> Self {
        let dirty = (0..).zip(&superblock.peers).map(|(slot, peer)| (peer.node, runs(&loaded.dirty[&(slot, region.volume)])));
        Self { volume: region.volume, hot: runs(&loaded.activity[&region.volume].hot), dirty: dirty.collect() }
    }
}

impl Loaded {
    /// Takes the maps for the worst that they can say: every extent hot, every block dirty for every peer, the end not a clean one, the
    /// data an old state. An area from the past knows nothing of what came after it, and whoever believed its maps would leave blocks
    /// different that it has never heard of.
    pub fn distrust(&mut self) {
        self.superblock.clean = false;
        self.superblock.outdated = true;
        for activity in self.activity.values_mut() {
            activity.hot.fill();
            activity.sequences.fill(1);
        }
        self.dirty.values_mut().for_each(Bitmap::fill);
    }

    /// The steps that write it to an area, to be taken in this order. If they are interrupted the area reads as empty.
    ///
    /// # Errors
    ///
    /// When the lists do not fit the superblock.
    pub fn rewrite(&self) -> Result<impl Iterator<Item = Step> + '_, TooLarge> {
        let bytes = self.superblock.encode()?;
        let slots = Span { at: 0, len: 2 * SUPERBLOCK as u64 };
        let maps = self.superblock.regions.iter().flat_map(|region| {
            let pages = self.pages(region).map(|page| Step::Write { at: page.at, bytes: page.bytes });
            [Step::Zero(region.span())].into_iter().chain(pages)
        });
        // The same in both slots: one that is blank would count as lost, and the last stop as unclean.
        let superblocks = [0, 1].map(|slot| Step::Write { at: superblock_at(slot), bytes: bytes.clone() });
        let before = [Step::Zero(slots), Step::Flush].into_iter();
        Ok(before.chain(maps).chain([Step::Flush]).chain(superblocks).chain([Step::Flush]))
    }

    /// The pages of a region that have set bits; the others are as good as blank.
    fn pages(&self, region: &Region) -> impl Iterator<Item = PageWrite> + '_ {
        let (region, replica) = (*region, self.superblock.replica);
        let hot = &self.activity[&region.volume].hot;
        let activity = marked(hot).map(move |page| encode_activity_page(replica, &region, page, 1, hot));
        let slots = (0..region.slots).take(self.superblock.peers.len());
        let dirty = slots.flat_map(move |slot| {
            let map = &self.dirty[&(slot, region.volume)];
            marked(map).map(move |page| encode_dirty_page(replica, &region, slot, page, map))
        });
        activity.chain(dirty)
    }
}

fn runs(map: &Bitmap) -> Vec<(u64, u64)> {
    map.runs(0..map.len()).map(|run| (run.start, run.end - run.start)).collect()
}

fn bitmap(bits: u64, runs: &[(u64, u64)]) -> Result<Bitmap, DumpError> {
    let mut map = Bitmap::new(bits);
    for &(first, count) in runs {
        let range = range_of(first, count).filter(|range| range.end <= bits);
        map.set(range.ok_or_else(|| DumpError::Impossible(format!("bits {first}+{count} of a map of {bits}")))?);
    }
    Ok(map)
}

fn range_of(first: u64, count: u64) -> Option<Range<u64>> {
    Some(first..first.checked_add(count)?)
}

/// The pages that have set bits.
fn marked(map: &Bitmap) -> impl Iterator<Item = u64> + '_ {
    (0..map.pages()).filter(|&page| map.any_in(map.page_range(page)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::load::Loader;
    use super::super::superblock::strategies::example;
    use super::*;

    /// What a loader makes of an area, as far as the steps write it; the rest is holes.
    fn written(steps: impl Iterator<Item = Step>) -> Loaded {
        let mut bytes: BTreeMap<u64, Box<[u8]>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Zero(span) => bytes.retain(|&at, _| !(span.at..span.end()).contains(&at)),
                Step::Write { at, bytes: new } => drop(bytes.insert(at, new)),
                Step::Flush => {}
            }
        }
        let read = |span: Span| {
            let mut out = vec![0; usize::try_from(span.len).unwrap()];
            for (&at, bytes) in bytes.range(span.at..span.end()) {
                let first = usize::try_from(at - span.at).unwrap();
                out[first..first + bytes.len()].copy_from_slice(bytes);
            }
            out
        };
        let slots = [0, 1].map(|slot| read(Span { at: superblock_at(slot), len: SUPERBLOCK as u64 }));
        let mut loader = Loader::new(&slots[0], &slots[1], u64::MAX).unwrap();
        for piece in loader.pieces() {
            loader.feed(piece.at, &read(piece));
        }
        loader.finish()
    }

    /// An area with something in every map.
    fn loaded(hot: &[(u64, u64)], dirty: &[(u64, u64)]) -> Loaded {
        let superblock = example();
        let maps = |runs: &[(u64, u64)], bits: u64| {
            let mut map = Bitmap::new(bits);
            for &(first, count) in runs {
                let first = first % bits;
                map.set(first..(first + count).min(bits));
            }
            map
        };
        let (mut activity, mut bitmaps) = (BTreeMap::new(), BTreeMap::new());
        for region in &superblock.regions {
            let hot = maps(hot, region.extents());
            let sequences = (0..region.activity_pages()).map(|page| u64::from(hot.any_in(hot.page_range(page)))).collect();
            activity.insert(region.volume, Activity { hot, sequences });
            bitmaps.extend((0..2).map(|slot| ((slot, region.volume), maps(dirty, region.blocks()))));
        }
        Loaded { superblock, next_slot: 0, activity, dirty: bitmaps, damages: Vec::new() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn an_area_survives_being_a_document_and_an_area_again(hot in prop::collection::vec((any::<u64>(), 1..9_u64), 0..8), dirty in prop::collection::vec((any::<u64>(), 1..90_000_u64), 0..8)) {
            let before = loaded(&hot, &dirty);
            let text = serde_json::to_string(&Dump::of(&before)).unwrap();
            let after = serde_json::from_str::<Dump>(&text).unwrap().into_loaded().unwrap();
            prop_assert_eq!(&after, &before);
            prop_assert_eq!(&written(after.rewrite().unwrap()), &before);
        }

        #[test]
        fn no_document_panics_and_none_that_was_changed_is_taken(at in any::<prop::sample::Index>(), byte in b' '..b'~') {
            let whole = serde_json::to_string(&Dump::of(&loaded(&[(3, 2)], &[(8, 9)]))).unwrap();
            let mut bytes = whole.clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(dump) = serde_json::from_slice::<Dump>(&bytes) {
                let same = serde_json::to_string(&dump).unwrap() == whole;
                prop_assert_eq!(dump.into_loaded().is_ok(), same);
            }
        }
    }

    #[test]
    fn what_is_distrusted_says_the_worst_of_everything() {
        let mut area = loaded(&[(3, 1)], &[]);
        area.distrust();
        let again = written(area.rewrite().unwrap());
        assert!(again.activity.values().all(|map| map.hot.count() == map.hot.len()));
        assert!(again.dirty.values().all(|map| map.count() == map.len()));
        assert!(!again.superblock.clean && again.superblock.outdated);
        assert_eq!(again.damages, []);
    }

    #[test]
    fn a_clean_end_survives_a_rewrite() {
        assert!(written(loaded(&[], &[]).rewrite().unwrap()).superblock.clean);
    }

    #[test]
    fn an_interrupted_rewrite_leaves_an_area_that_reads_as_empty() {
        let area = loaded(&[(0, 1)], &[(0, 1)]);
        let steps: Vec<Step> = area.rewrite().unwrap().collect();
        let first_superblock = steps.iter().position(|step| matches!(step, Step::Write { at: 0, .. })).unwrap();
        assert_eq!(steps[..2], [Step::Zero(Span { at: 0, len: 2 * SUPERBLOCK as u64 }), Step::Flush]);
        assert_eq!(steps[first_superblock - 1], Step::Flush, "the maps are durable before the superblock names them");
    }
}
