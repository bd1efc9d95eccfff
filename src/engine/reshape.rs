//! Volumes that come, go or grow under an open engine (rules V1 and V2).
//!
//! The storage has changed before the engine is told; what is left is the metadata, whose maps get room for the new blocks before any
//! of them is written. Regions that have to move are zeroed first, beside everything else; then no page of a map is written for as
//! long as it takes to copy the maps and to store two superblocks that name the new regions. Writes to hot extents do not notice; the
//! others wait for that. A crash at any moment finds one of the two sets of regions, whole.

use std::collections::{BTreeMap, VecDeque};

use crate::format::{Growth, PageWrite, Region, SLOTS_DEFAULT, Span, grow};
use crate::units::{BlockRange, VolumeId, blocks_of};

use super::core::Engine;
use super::event::Failure;
use super::mutant::{Mutant, mutated};
use super::ops::Op;
use super::peer::Session;
use super::reign::State;
use super::requests::range_of;
use super::store::Then;

/// The most bytes that are zeroed by one write, and how many such writes are under way.
const ZEROES: u64 = 256 << 10;
const ZEROING: usize = 4;

/// A change of the volumes.
#[derive(Debug)]
pub(super) struct Reshape {
    /// The volumes as they shall be.
    volumes: BTreeMap<VolumeId, u64>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// What is under way in volumes that go has to end.
    Emptying,
    /// The new regions are being zeroed.
    Zeroing { growth: Growth, left: VecDeque<Span>, under_way: usize },
    /// Pages that are being written have to end before the maps are copied.
    Holding { growth: Growth },
    /// The maps are being written to their new regions.
    Copying { growth: Growth, under_way: usize },
    /// So many superblocks have still to be stored: both slots have to name the new regions before the old ones' places are free.
    Naming { left: u8 },
}

/// Whether a request may go ahead, as far as the volumes are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// All replicas that count have the blocks.
    Everywhere,
    /// Some have not yet.
    Awaited,
    /// There are no such blocks.
    Nowhere,
}

impl Engine {
    /// The size of a volume in bytes, as far as all replicas have it that this node needs now; `None` when there is no such volume.
    pub fn volume_bytes(&self, volume: VolumeId) -> Option<u64> {
        let own = *self.settings.volumes.get(&volume)?;
        let needed = (0..self.peers.len()).filter(|&at| self.reign.is_some() && self.counts(at));
        Some(needed.filter_map(|at| self.peers[at].volumes.get(&volume)).fold(own, |least, bytes| least.min(*bytes)))
    }

    /// Whether a range may be written and read: not before every replica that counts can take it (rule V1).
    pub(super) fn room_for(&self, range: BlockRange) -> Room {
        let within = |volumes: &BTreeMap<VolumeId, u64>| volumes.get(&range.volume).is_some_and(|b| range.end() <= blocks_of(*b));
        let latest = self.next_settings.as_ref().map(|s| &s.volumes);
        let latest = latest.or_else(|| self.reshape.as_ref().map(|r| &r.volumes));
        if latest.is_some_and(|latest| !within(latest)) {
            return Room::Nowhere;
        }
        if !within(&self.settings.volumes) {
            return if latest.is_some() { Room::Awaited } else { Room::Nowhere };
        }
        let all = (0..self.peers.len()).all(|at| self.peers[at].holds(range) || !self.counts(at)) || mutated(Mutant::GrowAhead);
        if all { Room::Everywhere } else { Room::Awaited }
    }

    /// Whether a peer gets writes, or has to have them.
    fn counts(&self, at: usize) -> bool {
        self.peers[at].data || self.is_needed_member(at)
    }

    /// The volumes are to be these. A volume never shrinks.
    pub(super) fn begin_reshape(&mut self, mut wanted: BTreeMap<VolumeId, u64>) {
        for (volume, bytes) in &mut wanted {
            *bytes = self.settings.volumes.get(volume).copied().unwrap_or(0).max(*bytes);
        }
        if wanted != self.settings.volumes {
            self.reshape = Some(Reshape { volumes: wanted, stage: Stage::Emptying });
        }
    }

    pub(super) fn consider_reshape(&mut self) {
        let Some(reshape) = &self.reshape else { return };
        if matches!(reshape.stage, Stage::Emptying) {
            let gone: Vec<VolumeId> =
                self.settings.volumes.keys().filter(|v| !reshape.volumes.contains_key(v)).copied().collect();
            gone.iter().for_each(|volume| self.empty(*volume));
            if gone.iter().any(|volume| self.is_busy(*volume)) {
                return;
            }
        }
        if !self.has_disk() {
            // Nothing is stored by a node without a replica, nor on a disk that has failed.
            return self.finish_reshape();
        }
        self.plan_regions();
        self.zero_regions();
        self.copy_maps();
    }

    fn plan_regions(&mut self) {
        let (Some(reshape), Some(store)) = (&mut self.reshape, &self.store) else { return };
        if matches!(reshape.stage, Stage::Emptying) {
            let regions = &store.superblock.regions;
            let slots = regions.first().map_or(SLOTS_DEFAULT, |region| region.slots);
            let growth = grow(regions, &reshape.volumes, slots);
            let left = growth.zero.iter().copied().collect();
            reshape.stage = Stage::Zeroing { growth, left, under_way: 0 };
        }
    }

    fn zero_regions(&mut self) {
        let Some(Reshape { stage, .. }) = &mut self.reshape else { return };
        let Stage::Zeroing { growth, left, under_way } = stage else { return };
        while *under_way < ZEROING
            && let Some(span) = left.front_mut()
        {
            let len = span.len.min(ZEROES);
            let zeroes = vec![0; usize::try_from(len).expect("a small part")].into_boxed_slice();
            self.ops.meta(&mut self.out, Op::Reshape, span.at, zeroes);
            *under_way += 1;
            *span = Span { at: span.at + len, len: span.len - len };
            if span.len == 0 {
                left.pop_front();
            }
        }
        if *under_way == 0 {
            *stage = Stage::Holding { growth: growth.clone() };
        }
    }

    /// Copies the maps when no page of them is being written.
    fn copy_maps(&mut self) {
        let (Some(Reshape { stage, .. }), Some(store)) = (&mut self.reshape, &mut self.store) else { return };
        let Stage::Holding { growth } = stage else { return };
        if !store.hold_maps() {
            return;
        }
        let growth = growth.clone();
        let replica = store.superblock.replica;
        let mut pages: Vec<PageWrite> = Vec::new();
        let moved = |region: &&Region| growth.moved.contains(&region.volume) && !mutated(Mutant::MoveEmptyHanded);
        for region in growth.regions.iter().filter(moved) {
            pages.extend(store.activity.copy(replica, region));
            for peer in &mut self.peers {
                let window: Vec<_> = if peer.data { self.unsettled.since(peer.durable).collect() } else { Vec::new() };
                pages.extend(peer.dirty.copy(replica, region, &window));
            }
        }
        *stage = Stage::Copying { growth, under_way: pages.len() };
        for PageWrite { at, bytes } in pages {
            self.ops.meta(&mut self.out, Op::Reshape, at, bytes);
        }
        self.name_regions();
    }

    /// Something that was written for the change is durable.
    pub(super) fn reshape_part_written(&mut self) {
        match self.reshape.as_mut().map(|reshape| &mut reshape.stage) {
            Some(Stage::Zeroing { under_way, .. }) => *under_way -= 1,
            Some(Stage::Copying { under_way, .. }) => {
                *under_way -= 1;
                self.name_regions();
            }
            _ => {}
        }
    }

    fn name_regions(&mut self) {
        let (Some(Reshape { stage, .. }), Some(store)) = (&mut self.reshape, &mut self.store) else { return };
        if let Stage::Copying { growth, under_way: 0 } = stage {
            store.superblock.regions.clone_from(&growth.regions);
            *stage = Stage::Naming { left: if mutated(Mutant::NameOnce) { 1 } else { 2 } };
            store.store_superblock(Then::Reshaped, &mut self.ops, &mut self.out);
        }
    }

    pub(super) fn regions_named(&mut self) {
        let (Some(Reshape { stage, .. }), Some(store)) = (&mut self.reshape, &mut self.store) else { return };
        if let Stage::Naming { left } = stage {
            *left -= 1;
            if *left > 0 {
                store.store_superblock(Then::Reshaped, &mut self.ops, &mut self.out);
            } else {
                self.finish_reshape();
            }
        }
    }

    /// The maps have their room: the volumes are what they shall be.
    fn finish_reshape(&mut self) {
        let Some(Reshape { volumes, .. }) = self.reshape.take() else { return };
        let regions: Vec<Region> = self.store.as_ref().map(|s| s.superblock.regions.clone()).unwrap_or_default();
        let gone: Vec<VolumeId> = self.settings.volumes.keys().filter(|v| !volumes.contains_key(v)).copied().collect();
        for volume in gone {
            self.unsettled.forget(volume);
            if let Some(store) = &mut self.store {
                store.activity.remove(volume);
            }
        }
        for (&volume, &bytes) in &volumes {
            let region = regions.iter().find(|region| region.volume == volume && region.bytes == bytes).copied();
            if let (Some(region), Some(store)) = (region, &mut self.store) {
                store.activity.reshape(region);
            }
            self.peers.iter_mut().for_each(|peer| peer.dirty.reshape(volume, bytes, region));
        }
        self.settings.volumes = volumes;
        self.shapes += 1;
        if let Some(store) = &mut self.store {
            let ready = store.release_maps(&mut self.peers, &self.unsettled, &mut self.ops, &mut self.out);
            self.ready.extend(ready);
        }
        self.close_narrow_sessions();
        // What was copied while it waited for its extents is durable now.
        self.activity_written();
        self.configured();
    }

    /// A replica that was asked to follow before this node had its new blocks is asked again when it has them, too. Else it would be given
    /// writes of clients that it has no place for: those that began before it counted.
    fn close_narrow_sessions(&mut self) {
        let narrow =
            |p: &super::peer::Peer| !p.data && !p.holds_all(&self.settings.volumes) && !matches!(p.session, Session::None);
        let narrow = self.peers_that(|p| narrow(p) && !mutated(Mutant::NarrowSession));
        narrow.iter().for_each(|at| self.close_session(at));
    }

    /// Ends what is under way in a volume that goes: its bytes are of no use to anybody any more.
    fn empty(&mut self, volume: VolumeId) {
        self.drop_arrivals_in(volume);
        self.peers.iter_mut().for_each(|peer| peer.dirty.remove(volume));
        self.drop_chunks_in(volume);
        self.drop_pieces_in(volume);
        let Some(reign) = &self.reign else { return };
        let of = |request: &super::Request| range_of(request).is_some_and(|(range, _)| range.volume == volume);
        let waiting = |(key, p): (u64, &super::reign::Pending)| (of(&p.request) && p.state != State::Flying).then_some(key);
        let keys: Vec<u64> = reign.requests.iter().filter_map(waiting).collect();
        for key in keys {
            if let Some(reign) = &mut self.reign {
                reign.held.retain(|&k| k != key);
                reign.latched.retain(|&k| k != key);
            }
            self.fail(key, Failure::Io);
        }
        self.need_nobody_for(|flight| flight.range.volume == volume, None);
    }

    /// A peer does not have these volumes any more: it is not waited for in them.
    pub(super) fn forgo_volumes_without(&mut self, at: usize) {
        let volumes = self.peers[at].volumes.clone();
        self.need_nobody_for(|flight| !volumes.contains_key(&flight.range.volume), Some(at));
    }

    /// Whether a volume has been removed here, or is about to be.
    pub(super) fn is_gone(&self, volume: VolumeId) -> bool {
        let going = self.reshape.as_ref().is_some_and(|reshape| !reshape.volumes.contains_key(&volume));
        going || !self.settings.volumes.contains_key(&volume)
    }

    fn is_busy(&mut self, volume: VolumeId) -> bool {
        let Some(reign) = &mut self.reign else { return false };
        let flights = &mut reign.flights;
        flights.seqs().into_iter().any(|seq| flights.get_mut(seq).is_some_and(|flight| flight.range.volume == volume))
    }
}
