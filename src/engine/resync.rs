//! Resync: giving a replica the blocks that it lacks (rules R1 to R5, P3).
//!
//! Two kinds share the machinery. A *target* is not in the in-sync set: it is durably Inconsistent first, then gets what is dirty for
//! it, then is admitted. A *member* that may differ in the last writes of the reign before is made equal there, and requests for those
//! blocks wait. Chunks of dirty blocks take their place in the order of requests, so that a chunk and a client's write to the
//! same block never cross. A bit is cleared when the block is on the replica's disk, not when it was sent.

use std::time::Duration;

use crate::units::{BLOCK, BlockRange, DiskState, Instant, VolumeId};
use crate::wire::{BlockHash, Message};

use super::core::Engine;
use super::event::{BufferId, Command, DiskIo, DiskOutcome};
use super::flights::{Cause, Flight, What};
use super::mutant::{Mutant, mutated};
use super::ops::Op;
use super::peer::Peer;
use super::reign::Phase;

/// The blocks of a chunk: 256 KiB.
const CHUNK: u64 = 64;

/// Chunks under way for one replica: what keeps a disk and a link busy, and bounds what a client's write may have to wait for.
const CHUNKS_MAX: usize = 16;

/// The resync of one replica.
#[derive(Debug)]
pub(super) struct Sync {
    stage: Stage,
    /// Where to look for the next dirty block.
    cursor: (VolumeId, u64),
    /// Chunks under way.
    chunks: usize,
    /// Most blocks are likely equal: compare hashes before sending any.
    hash: bool,
    /// Blocks that were dirty when it began.
    pub(super) total: u64,
    /// With a rate cap: when the next chunk may start.
    paced: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The target is becoming durably Inconsistent.
    Beginning,
    /// A target gets what it lacks, and clients' writes.
    Target,
    /// A member is made equal.
    Member,
}

/// Blocks under way to one replica.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) peer: usize,
    range: BlockRange,
    /// Which question the hashes answer.
    question: u64,
    mine: Option<Vec<BlockHash>>,
    theirs: Option<Vec<BlockHash>>,
    /// Parts that are not on the replica yet.
    parts: usize,
    /// A buffer that was read and not sent.
    pub(super) buffer: Option<BufferId>,
    /// Its resync is over. It keeps its place in the order for what is still on its way to the replica.
    aborted: bool,
}

impl Sync {
    /// Whether it is a target that gets clients' writes.
    pub(super) fn is_running(&self) -> bool {
        self.stage == Stage::Target
    }

    /// Whether it is of a replica that is not in sync.
    fn is_target(&self) -> bool {
        self.stage != Stage::Member
    }

    /// Whether no chunk is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.chunks == 0
    }

    /// When a rate cap lets the next chunk start.
    pub(super) fn paced(&self) -> Instant {
        self.paced
    }
}

fn order_key(chunk: u64) -> u64 {
    chunk << 1 | 1
}

impl Engine {
    /// Begins the resyncs that are needed and keeps those that run supplied.
    pub(super) fn consider_syncs(&mut self) {
        if !(self.has_disk() && self.am_member()) {
            return;
        }
        let ending = self.reign.as_ref().is_some_and(|r| r.phase == Phase::SteppingDown);
        for at in 0..self.peers.len() {
            if !self.peers[at].is_ready() {
                continue;
            }
            self.end_member_sync(at);
            if self.peers[at].sync.is_none() {
                self.begin_sync(at);
            }
            // Members are made equal before the role is given up; a target is the next primary's to go on with.
            if !(ending && self.peers[at].sync.as_ref().is_some_and(Sync::is_target)) {
                self.pump(at);
            }
        }
    }

    /// A member is equal when none of its blocks is dirty, however the last of them became clean.
    fn end_member_sync(&mut self, at: usize) {
        let Peer { sync, dirty, .. } = &mut self.peers[at];
        sync.take_if(|sync| sync.stage == Stage::Member && sync.chunks == 0 && dirty.is_clear());
    }

    fn begin_sync(&mut self, at: usize) {
        let Some(record) = &self.record else { return };
        let peer = &self.peers[at];
        let member = peer.is_member_of(record);
        // What a proposal names is one life: until it is answered, another one neither counts nor is resynced (rule M3).
        let proposed = self.change.as_ref().and_then(|c| c.record.in_sync.get(&peer.node));
        let another = proposed.is_some_and(|life| Some(*life) != peer.incarnation()) && !mutated(Mutant::OtherLifeAnswers);
        let named = record.in_sync.contains_key(&peer.node) || another;
        let stage = match (member, named) {
            (true, _) if peer.data && !peer.dirty.is_clear() => Stage::Member,
            (true, _) => return,
            // A member in another life is dropped from the record first (rule M3).
            (false, true) => return,
            (false, false) => Stage::Beginning,
        };
        if peer.disk().is_none_or(|disk| disk <= DiskState::Failed) || peer.settings.leaving {
            return;
        }
        if stage == Stage::Beginning && peer.settings.paused {
            // It stays as it is, which may be old and whole, rather than become a mixture that nobody goes on with.
            return;
        }
        let known = peer.standing.as_ref().and_then(|s| s.replica).and_then(|r| r.synced).is_some();
        let cursor = (VolumeId(0), 0);
        let total = peer.dirty.count();
        self.peers[at].sync = Some(Sync { stage, cursor, chunks: 0, hash: known, total, paced: self.now });
        if stage == Stage::Beginning {
            self.send(at, Message::SyncBegin);
        }
    }

    pub(super) fn sync_ready(&mut self, at: usize) {
        let Some(sync) = self.peers[at].sync.as_mut().filter(|s| s.stage == Stage::Beginning) else { return };
        sync.stage = Stage::Target;
        self.resume(at);
    }

    /// Whether a replica is being brought up to date, and not held up by an operator: its end is waited for.
    pub(super) fn is_syncing(&self) -> bool {
        let runs = |peer: &Peer| peer.sync.as_ref().is_some_and(|sync| !(sync.is_target() && peer.settings.paused));
        self.peers.iter().any(runs)
    }

    /// Starts chunks while there is room.
    fn pump(&mut self, at: usize) {
        while let Some(range) = self.next_chunk(at) {
            let Some(sync) = &mut self.peers[at].sync else { return };
            sync.cursor = (range.volume, range.end());
            sync.chunks += 1;
            let nanos = range.bytes().saturating_mul(1_000_000_000).checked_div(self.settings.resync_max);
            if let Some(nanos) = nanos {
                sync.paced = sync.paced.max(self.now).after(Duration::from_nanos(nanos));
            }
            let Some(reign) = &mut self.reign else { return };
            let chunk = Chunk { peer: at, range, question: 0, mine: None, theirs: None, parts: 0, buffer: None, aborted: false };
            let key = reign.chunks.insert(chunk);
            if reign.order.enter(order_key(key), range, false) || mutated(Mutant::ChunksCross) {
                self.chunk_turn(key);
            }
        }
    }

    fn next_chunk(&self, at: usize) -> Option<BlockRange> {
        let peer = &self.peers[at];
        let sync = peer.sync.as_ref().filter(|s| s.stage != Stage::Beginning && s.chunks < CHUNKS_MAX && s.paced <= self.now)?;
        let reign = self.reign.as_ref()?;
        if sync.is_target() && peer.settings.paused {
            return None;
        }
        if sync.is_target() && !reign.equal && !mutated(Mutant::TargetBeforeMembers) {
            // What a member lacks yet may never be there: the target would have it, and no map that says so (rule R6).
            return None;
        }
        let range = peer.dirty.next_run(sync.cursor, CHUNK)?;
        let busy = reign.chunks.keys().filter_map(|key| reign.chunks.get(key)).any(|c| c.peer == at && c.range.overlaps(&range));
        (!busy).then_some(range)
    }

    /// A chunk's turn has come: nothing else changes its blocks until it is done.
    pub(super) fn chunk_turn(&mut self, key: u64) {
        if self.is_piece_turn(key) {
            return;
        }
        let Some(reign) = &mut self.reign else { return };
        let question = reign.name();
        let Some(chunk) = reign.chunks.get_mut(key) else { return };
        let (at, range) = (chunk.peer, chunk.range);
        if self.peers[at].sync.as_ref().is_some_and(|s| s.hash) {
            chunk.question = question;
            self.send(at, Message::Hash { id: question, range });
            self.ops.disk(&mut self.out, Op::SyncHash { chunk: key }, DiskIo::Hash { range });
        } else {
            chunk.parts = 1;
            self.read_part(key, range);
        }
    }

    fn read_part(&mut self, key: u64, range: BlockRange) {
        let io = DiskIo::Read { range, buffer: None, detect_zeroes: true };
        self.ops.disk(&mut self.out, Op::SyncRead { chunk: key, range }, io);
    }

    pub(super) fn sync_read_done(&mut self, key: u64, range: BlockRange, outcome: &DiskOutcome) {
        let what = match outcome {
            DiskOutcome::Done(Some(buffer)) => What::Data(*buffer),
            DiskOutcome::Zeroes => What::Zeroes { unmap: true },
            _ => {
                self.disk_failed();
                return;
            }
        };
        let peer = self.reign.as_ref().and_then(|r| r.chunks.get(key)).filter(|c| !c.aborted).map(|c| c.peer);
        match peer {
            Some(peer) if self.peers[peer].data => {
                self.fly(Cause::Sync { chunk: key, peer }, range, what, false, false);
            }
            _ => {
                if let What::Data(buffer) = what {
                    self.out.push(Command::Release(buffer));
                }
            }
        }
    }

    pub(super) fn sync_hash_done(&mut self, key: u64, outcome: DiskOutcome) {
        let DiskOutcome::Hashed(hashes) = outcome else {
            self.disk_failed();
            return;
        };
        if let Some(chunk) = self.reign.as_mut().and_then(|r| r.chunks.get_mut(key)).filter(|c| !c.aborted) {
            chunk.mine = Some(hashes);
            self.compare(key);
        }
    }

    pub(super) fn hashes_of(&mut self, at: usize, question: u64, hashes: Vec<BlockHash>) {
        let Some(reign) = &mut self.reign else { return };
        let asked = |key: &u64| reign.chunks.get(*key).is_some_and(|c| c.peer == at && c.question == question && question != 0);
        let Some(key) = reign.chunks.keys().find(asked) else { return self.piece_hashes_of(at, question, hashes) };
        if let Some(chunk) = reign.chunks.get_mut(key) {
            chunk.theirs = Some(hashes);
            self.compare(key);
        }
    }

    /// Sends the blocks whose hashes differ; the others are clean.
    fn compare(&mut self, key: u64) {
        let Some(chunk) = self.reign.as_mut().and_then(|r| r.chunks.get_mut(key)) else { return };
        let (Some(mine), Some(theirs)) = (&chunk.mine, &chunk.theirs) else { return };
        let (at, range) = (chunk.peer, chunk.range);
        let equal = |block: u64| {
            let n = usize::try_from(block).expect("a chunk is small");
            mine.get(n).is_some() && mine.get(n) == theirs.get(n)
        };
        let mut runs: Vec<(bool, BlockRange)> = Vec::new();
        for block in 0..range.count {
            let same = equal(block);
            match runs.last_mut() {
                Some((last, run)) if *last == same => run.count += 1,
                _ => runs.push((same, BlockRange { first: range.first + block, count: 1, ..range })),
            }
        }
        chunk.question = 0;
        chunk.parts = runs.iter().filter(|(same, _)| !same).count();
        let done = chunk.parts == 0;
        for (same, run) in runs {
            if same {
                // Equal, but perhaps not durable there yet: it stays in the window until the next flush is confirmed (rule R1).
                let due = self.now.after(super::flush::FLUSH_EVERY);
                let Some(reign) = &mut self.reign else { return };
                reign.flush_due.get_or_insert(due);
                let seq = reign.flights.skip();
                if !mutated(Mutant::EqualNotInWindow) {
                    self.unsettled.note(seq, run);
                }
                self.peers[at].dirty.clear(run);
            } else {
                self.read_part(key, run);
            }
        }
        if done {
            self.end_chunk(key);
        }
    }

    /// A part of a chunk is on the replica.
    pub(super) fn chunk_part_written(&mut self, key: u64) {
        let Some(chunk) = self.reign.as_mut().and_then(|r| r.chunks.get_mut(key)) else { return };
        chunk.parts -= 1;
        if chunk.parts == 0 {
            self.end_chunk(key);
        }
    }

    fn end_chunk(&mut self, key: u64) {
        let Some(chunk) = self.reign.as_mut().and_then(|r| r.chunks.remove(key)) else { return };
        self.out.extend(chunk.buffer.map(Command::Release));
        if let Some(sync) = self.peers[chunk.peer].sync.as_mut().filter(|_| !chunk.aborted) {
            sync.chunks -= 1;
        }
        self.leave(order_key(key));
    }

    /// The replica is gone, or this node's disk is: nothing more is given to it; bits that are set stay so.
    ///
    /// What was sent is still to land there, and nothing else may be written to these blocks before: the replica applies what arrives in any
    /// order (rule W4). A session that is lost has nothing on its way any more, for the next one begins when the replica's disk is idle.
    pub(super) fn abort_sync(&mut self, at: usize) {
        self.peers[at].sync = None;
        let Some(reign) = &mut self.reign else { return };
        let of = |key: &u64| reign.chunks.get(*key).is_some_and(|c| c.peer == at && !c.aborted);
        for key in reign.chunks.keys().filter(of).collect::<Vec<_>>() {
            let Some(reign) = &mut self.reign else { return };
            let parts = reign.flights.parts_of(key);
            let Some(chunk) = reign.chunks.get_mut(key) else { continue };
            (chunk.aborted, chunk.question, chunk.parts) = (true, 0, parts);
            self.out.extend(chunk.buffer.take().map(Command::Release));
            if parts == 0 || mutated(Mutant::AbortedChunksLeave) {
                self.end_chunk(key);
            }
        }
    }

    /// The session is over: what a resync has sent is not sent again. Its blocks are dirty still, and are looked at anew.
    pub(super) fn forget_sync_flights(&mut self, at: usize) {
        let given = |flight: &Flight| matches!(flight.cause, Cause::Sync { peer, .. } if peer == at);
        if !mutated(Mutant::AbortedChunksLeave) {
            self.need_nobody_for(given, Some(at));
        }
    }

    /// A volume goes: its chunks are dropped.
    pub(super) fn drop_chunks_in(&mut self, volume: VolumeId) {
        let Some(reign) = &mut self.reign else { return };
        let keys: Vec<u64> = reign.chunks.iter().filter(|(_, c)| c.range.volume == volume).map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.end_chunk(key));
    }

    /// Bytes done and in all of a resync.
    pub(super) fn sync_progress(&self, at: usize) -> Option<(u64, u64)> {
        let peer = &self.peers[at];
        let sync = peer.sync.as_ref()?;
        let left = peer.dirty.count();
        let total = sync.total.max(left);
        Some(((total - left) * BLOCK, total * BLOCK))
    }
}
