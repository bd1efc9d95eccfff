//! The local replica's metadata on its way to disk.
//!
//! Everything that must be durable before something else happens is written through here, and what happens then is a value,
//! [`Then`]. A superblock write carries every change made until it starts; pages of dirty bitmaps are written in batches, one
//! batch at a time, because two writes of one page under way at once could reach the disk in either order.

use crate::format::{Superblock, superblock_at};
use crate::units::{DiskState, Record, RecordId};

use super::activity::Activity;
use super::event::Command;
use super::mutant::{Mutant, mutated};
use super::ops::{Op, Ops};
use super::peer::Peer;
use super::unsettled::Unsettled;

/// What happens when metadata is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing: it only had to be written some time.
    Nothing,
    /// The record of a primary is stored: follow it, if that session is still wanted.
    Follow { session: u64 },
    /// A peer's proposal is stored.
    Accept { peer: usize, id: RecordId },
    /// This node's own proposal is stored: it is the record.
    Grant { id: RecordId },
    /// This replica is durably Inconsistent.
    SyncReady { peer: usize },
    /// The dirty bits that came with a cooling are stored: cool the extents.
    CoolNow { session: u64, id: u64 },
    /// The extents that a primary wants cold are cold.
    Cooled { session: u64, id: u64 },
    /// The maps of an admission are stored.
    AdmitMaps { peer: usize, id: u64 },
    /// The activity map of an admission is stored.
    AdmitActivity { peer: usize, id: u64 },
    /// All of an admission is stored.
    AdmitStored { peer: usize, id: u64 },
    /// The primary's own dirty bits for a cooling are stored.
    CoolOwn { id: u64 },
    /// Blocks that a member reported are in the dirty bitmaps of those who are away.
    United { reign: u64 },
    /// Writing under this record has been noted (rule Q3).
    Unlatch,
    /// A superblock that names changed regions is stored.
    Reshaped,
    /// The maps are stored at the end of this life.
    LastMaps,
    /// The clean end is stored.
    Ended,
}

/// The metadata of the local replica.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) superblock: Superblock,
    pub(super) activity: Activity,
    /// A disk that failed a write or a flush is not asked again.
    pub(super) failed: bool,
    next_slot: usize,
    superblocks: Queue,
    maps: Queue,
    maps_under_way: usize,
    activity_then: Vec<Then>,
    /// The maps are being copied to other regions: no page is written until that is done.
    held: bool,
}

/// Continuations of writes that are under way, and of those that wait for the next one.
#[derive(Debug, Default)]
struct Queue {
    running: Option<Vec<Then>>,
    waiting: Vec<Then>,
}

impl Store {
    pub(super) fn new(superblock: Superblock, next_slot: usize, activity: Activity) -> Self {
        Self {
            superblock,
            activity,
            failed: false,
            next_slot,
            superblocks: Queue::default(),
            maps: Queue::default(),
            maps_under_way: 0,
            activity_then: Vec::new(),
            held: false,
        }
    }

    /// No page of a map is written from now on; whether none is being written.
    pub(super) fn hold_maps(&mut self) -> bool {
        self.held = true;
        self.maps.running.is_none() && !self.activity.is_writing()
    }

    /// Pages are written again; what has waited for that.
    pub(super) fn release_maps(
        &mut self,
        peers: &mut [Peer],
        memory: &Unsettled,
        ops: &mut Ops,
        out: &mut Vec<Command>,
    ) -> Vec<Then> {
        self.held = false;
        self.write_maps(peers, memory, ops, out)
    }

    /// The replica's disk state, as its own metadata has it.
    pub(super) fn disk(&self) -> DiskState {
        if self.failed { DiskState::Failed } else { self.superblock.disk() }
    }

    /// Lives that a record names and the one before it did not are in sync as of that record (rule M6). One that was restarted cleanly,
    /// too: what is noted from now on is missing from that life, and says nothing of a disk as it was in the life before.
    pub(super) fn note_admissions(&mut self, old: Option<&Record>, record: &Record) {
        for slot in &mut self.superblock.peers {
            let before = old.and_then(|r| r.in_sync.get(&slot.node));
            let now = record.in_sync.get(&slot.node);
            let same = before == now || before.is_some() && mutated(Mutant::BaseOfTheNode);
            if now.is_some() && (!same || slot.base.is_none()) {
                slot.base = Some((record.number, record.id));
            }
        }
    }

    /// The disk has failed: nothing more is written. What a primary has still to do goes on, since others' copies count now.
    pub(super) fn abandon(&mut self) -> Vec<Then> {
        let queues = [std::mem::take(&mut self.superblocks), std::mem::take(&mut self.maps)];
        let waiting = queues.into_iter().flat_map(|q| q.running.into_iter().flatten().chain(q.waiting));
        let own = |then: &Then| matches!(then, Then::Grant { .. } | Then::United { .. } | Then::Unlatch | Then::CoolOwn { .. });
        waiting.filter(|then| own(then) && !mutated(Mutant::AbandonOwn) || mutated(Mutant::AbandonStored)).collect()
    }

    /// The superblock has changed: write it, then go on.
    pub(super) fn store_superblock(&mut self, then: Then, ops: &mut Ops, out: &mut Vec<Command>) {
        self.superblocks.waiting.push(then);
        self.write_superblock(ops, out);
    }

    fn write_superblock(&mut self, ops: &mut Ops, out: &mut Vec<Command>) {
        if self.superblocks.running.is_some() || self.superblocks.waiting.is_empty() {
            return;
        }
        self.superblocks.running = Some(std::mem::take(&mut self.superblocks.waiting));
        self.superblock.version += 1;
        let bytes = self.superblock.encode().expect("peers, volumes and lineage are bounded where they are set");
        ops.meta(out, Op::Superblock, superblock_at(self.next_slot), bytes);
        self.next_slot ^= 1;
    }

    /// Whether the superblock on disk says what it is to say.
    pub(super) fn superblock_is_stored(&self) -> bool {
        self.superblocks.running.is_none() && self.superblocks.waiting.is_empty()
    }

    /// A superblock is durable; what was waiting for it.
    pub(super) fn superblock_written(&mut self, ops: &mut Ops, out: &mut Vec<Command>) -> Vec<Then> {
        let then = self.superblocks.running.take().unwrap_or_default();
        self.write_superblock(ops, out);
        then
    }

    /// Write the dirty bitmaps of all peers as they are when the batch starts, then go on.
    pub(super) fn store_maps(
        &mut self,
        then: Then,
        peers: &mut [Peer],
        memory: &Unsettled,
        ops: &mut Ops,
        out: &mut Vec<Command>,
    ) -> Vec<Then> {
        self.maps.waiting.push(then);
        self.write_maps(peers, memory, ops, out)
    }

    /// Returns what need not wait because there was nothing to write.
    fn write_maps(&mut self, peers: &mut [Peer], memory: &Unsettled, ops: &mut Ops, out: &mut Vec<Command>) -> Vec<Then> {
        if self.held || self.maps.running.is_some() || self.maps.waiting.is_empty() {
            return Vec::new();
        }
        let mut started = 0;
        for peer in peers {
            let window: Vec<_> =
                if peer.data && !mutated(Mutant::WindowNotStored) { memory.since(peer.durable).collect() } else { Vec::new() };
            started += peer.dirty.write_out(self.superblock.replica, &window, ops, out);
        }
        let then = std::mem::take(&mut self.maps.waiting);
        if started == 0 {
            return then;
        }
        self.maps_under_way = started;
        self.maps.running = Some(then);
        Vec::new()
    }

    /// A page of a dirty bitmap is durable; what was waiting for its batch.
    pub(super) fn dirty_page_written(
        &mut self,
        peers: &mut [Peer],
        memory: &Unsettled,
        ops: &mut Ops,
        out: &mut Vec<Command>,
    ) -> Vec<Then> {
        self.maps_under_way -= 1;
        if self.maps_under_way > 0 {
            return Vec::new();
        }
        let mut then = self.maps.running.take().unwrap_or_default();
        then.extend(self.write_maps(peers, memory, ops, out));
        then
    }

    /// Go on when the activity map on disk says what it is to say.
    pub(super) fn when_activity_stored(&mut self, then: Then) {
        self.activity_then.push(then);
    }

    /// Starts the activity pages that are due; returns what was waiting for them when there are none.
    pub(super) fn write_activity(&mut self, ops: &mut Ops, out: &mut Vec<Command>) -> Vec<Then> {
        if self.held {
            return Vec::new();
        }
        self.activity.write_out(self.superblock.replica, ops, out);
        if !self.activity_then.is_empty() && self.activity.is_stored() {
            return std::mem::take(&mut self.activity_then);
        }
        Vec::new()
    }
}
