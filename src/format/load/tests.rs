use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::superblock::strategies::example;
use super::super::{
    NewReplica, SLOTS_DEFAULT, SUPERBLOCK, Step, area_len, create, encode_activity_page, encode_dirty_page, superblock_at,
};
use super::*;
use crate::units::{ClusterId, Incarnation, NodeId, ReplicaId, ResourceId};

/// A metadata area in memory, whose end is a hole.
struct Area {
    bytes: Vec<u8>,
    len: u64,
}

impl Area {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        if self.bytes.len() < at + bytes.len() {
            self.bytes.resize(at + bytes.len(), 0);
        }
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn read(&self, span: Span) -> Vec<u8> {
        let at = usize::try_from(span.at).unwrap();
        let mut bytes: Vec<u8> = self.bytes.iter().skip(at).take(usize::try_from(span.len).unwrap()).copied().collect();
        bytes.resize(usize::try_from(span.len).unwrap(), 0);
        bytes
    }

    fn superblock(&self, slot: usize) -> Vec<u8> {
        self.read(Span { at: superblock_at(slot), len: SUPERBLOCK as u64 })
    }

    fn load(&self) -> Loaded {
        let mut loader = Loader::new(&self.superblock(0), &self.superblock(1), self.len).unwrap();
        for piece in loader.pieces() {
            loader.feed(piece.at, &self.read(piece));
        }
        loader.finish()
    }
}

fn new_replica() -> NewReplica {
    let example = example();
    NewReplica {
        cluster: ClusterId(1),
        resource: ResourceId(2),
        node: NodeId(3),
        replica: ReplicaId(4),
        incarnation: Incarnation(5),
        record: example.record,
        synced: example.synced,
        peers: example.peers,
        volumes: BTreeMap::from([(VolumeId(0), 40 << 30), (VolumeId(7), 300 << 30), (VolumeId(9), 1)]),
        slots: SLOTS_DEFAULT,
    }
}

/// Makes an area of what was other data, as far as it is looked at.
fn created(new: &NewReplica) -> Area {
    let mut area = Area { bytes: vec![0xee; 2 << 20], len: area_len(&new.volumes, new.slots) };
    for step in create(new).unwrap() {
        match step {
            Step::Zero(span) => {
                let end = usize::try_from(span.end()).unwrap().min(area.bytes.len());
                area.bytes[usize::try_from(span.at).unwrap().min(end)..end].fill(0);
            }
            Step::Write { at, bytes } => area.put(at, &bytes),
            Step::Flush => {}
        }
    }
    area
}

#[test]
fn a_new_area_is_all_cold_and_clean() {
    let new = new_replica();
    let loaded = created(&new).load();
    assert_eq!(loaded.damages, []);
    assert_eq!(loaded.next_slot, 1);
    let superblock = &loaded.superblock;
    assert!(superblock.clean && superblock.continues == superblock.incarnation && superblock.version == 1);
    assert_eq!((&superblock.record, superblock.synced, &superblock.peers), (&new.record, new.synced, &new.peers));
    assert_eq!(loaded.activity.keys().copied().collect::<Vec<_>>(), [VolumeId(0), VolumeId(7), VolumeId(9)]);
    assert!(loaded.activity.values().all(|map| map.hot.is_clear() && map.sequences.iter().all(|&s| s == 0)));
    assert_eq!(loaded.dirty.len(), 2 * 3, "a map for each peer and volume");
    assert!(loaded.dirty.values().all(Bitmap::is_clear));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn maps_come_back_as_they_were_written(hot in prop::collection::vec(any::<prop::sample::Index>(), 0..40), dirty in prop::collection::vec((any::<prop::sample::Index>(), 1..5000_u64), 0..10), rounds in 1..4_u64) {
        let mut area = created(&NewReplica { volumes: BTreeMap::from([(VolumeId(0), 150 << 30)]), ..new_replica() });
        let Loaded { superblock, mut activity, dirty: mut maps, .. } = area.load();
        let region = superblock.regions[0];
        let activity = activity.get_mut(&VolumeId(0)).unwrap();
        for round in 0..rounds {
            activity.hot.wipe();
            for bit in &hot {
                let bit = (bit.index(usize::try_from(region.extents()).unwrap()) as u64 + round) % region.extents();
                activity.hot.set(bit..bit + 1);
            }
            for page in 0..region.activity_pages() {
                let sequence = &mut activity.sequences[usize::try_from(page).unwrap()];
                *sequence += 1;
                let write = encode_activity_page(superblock.replica, &region, page, *sequence, &activity.hot);
                area.put(write.at, &write.bytes);
            }
        }
        let map = maps.get_mut(&(1, VolumeId(0))).unwrap();
        for (at, len) in dirty {
            let at = at.index(usize::try_from(region.blocks()).unwrap()) as u64;
            map.set(at..(at + len).min(region.blocks()));
        }
        for page in (0..region.bitmap_pages()).filter(|&page| map.any_in(map.page_range(page))) {
            let write = encode_dirty_page(superblock.replica, &region, 1, page, map);
            area.put(write.at, &write.bytes);
        }
        let loaded = area.load();
        prop_assert_eq!(&loaded.damages, &[]);
        prop_assert_eq!(&loaded.activity[&VolumeId(0)], &*activity);
        prop_assert_eq!(loaded.dirty, maps);
    }

    /// Whatever an area holds, it loads or says why not; and what was damaged is hot or dirty.
    #[test]
    fn no_content_of_the_maps_is_taken_for_clean(at in (32_u64 << 10)..(2 << 20), byte in 1..=255_u8) {
        let mut area = created(&NewReplica { volumes: BTreeMap::from([(VolumeId(0), 40 << 30)]), ..new_replica() });
        area.put(at, &[byte]);
        let loaded = area.load();
        let map = &loaded.activity[&VolumeId(0)];
        let region = loaded.superblock.regions[0];
        let pieces = Loader::new(&area.superblock(0), &area.superblock(1), area.len).unwrap().pieces();
        // Bytes between the maps and slots without a peer say nothing.
        let (activity_end, peers_end) = (region.activity_page(0, 1) + 4096, region.bitmap_page(2, 0));
        let matters = at < region.activity_page(0, 0) + 4096 || (region.activity_page(0, 1)..activity_end).contains(&at) || (region.bitmap_page(0, 0)..peers_end).contains(&at);
        prop_assert_eq!(loaded.damages.len(), usize::from(matters));
        if matters {
            prop_assert!(map.hot.count() == map.hot.len() || loaded.dirty.values().any(|map| !map.is_clear()));
            prop_assert!(pieces.iter().any(|piece| (piece.at..piece.end()).contains(&at)));
        }
    }
}

#[test]
fn what_is_unreadable_is_hot_and_dirty_and_its_pages_go_on_beyond_every_number_used() {
    let area = created(&new_replica());
    let loader = Loader::new(&area.superblock(0), &area.superblock(1), area.len).unwrap();
    let loaded = loader.finish();
    for (volume, map) in &loaded.activity {
        assert_eq!(map.hot.count(), map.hot.len(), "volume {volume}");
        assert!(map.sequences.iter().all(|&sequence| sequence == 1 << 32));
    }
    assert!(loaded.dirty.values().all(|map| map.count() == map.len()));
    assert_eq!(loaded.damages.len(), 3 + 6);
}

/// After damage to both copies the first write mends one and the second the other.
#[test]
fn a_damaged_activity_page_is_mended_by_the_writes_that_follow() {
    let mut area = created(&NewReplica { volumes: BTreeMap::from([(VolumeId(0), 1 << 30)]), ..new_replica() });
    let region = area.load().superblock.regions[0];
    for copy in 0..2 {
        area.put(region.activity_page(0, copy), &[0xff; 100]);
    }
    let Loaded { superblock, mut activity, .. } = area.load();
    let map = activity.get_mut(&VolumeId(0)).unwrap();
    assert_eq!(map.hot.count(), region.extents());
    map.hot.clear(10..region.extents());
    for left in [region.extents(), 10] {
        map.sequences[0] += 1;
        let write = encode_activity_page(superblock.replica, &region, 0, map.sequences[0], &map.hot);
        area.put(write.at, &write.bytes);
        assert_eq!(area.load().activity[&VolumeId(0)].hot.count(), left);
    }
}

#[test]
fn an_area_that_was_cut_off_is_refused() {
    let area = created(&new_replica());
    let error = Loader::new(&area.superblock(0), &area.superblock(1), area.len - 1).unwrap_err();
    assert!(matches!(error, LoadError::Truncated { .. }), "{error}");
}

#[test]
fn a_piece_holds_at_most_a_mebibyte_and_all_pieces_are_apart() {
    let area = created(&new_replica());
    let pieces = Loader::new(&area.superblock(0), &area.superblock(1), area.len).unwrap().pieces();
    assert!(pieces.iter().all(|piece| piece.len <= PIECE && piece.len > 0 && piece.end() <= area.len));
    assert!(pieces.windows(2).all(|pair| pair[0].end() <= pair[1].at));
}

#[test]
fn interrupted_creation_leaves_an_empty_area() {
    let new = new_replica();
    let steps = create(&new).unwrap();
    let first_write = steps.iter().position(|step| matches!(step, Step::Write { .. })).unwrap();
    assert_eq!(steps[0], Step::Zero(Span { at: 0, len: 2 * SUPERBLOCK as u64 }));
    assert_eq!((&steps[1], &steps[first_write - 1]), (&Step::Flush, &Step::Flush));
    let zeroed: Vec<Span> = steps.iter().filter_map(|s| if let Step::Zero(span) = s { Some(*span) } else { None }).collect();
    assert_eq!(zeroed.iter().map(|span| span.len).sum::<u64>(), area_len(&new.volumes, new.slots), "every byte is zeroed");
}
