//! Hashing blocks, in small portions: a shard has other things to do.

use crate::engine::DiskOutcome;
use crate::ring::{Buffer, PAGE};
use crate::units::{BLOCK, BlockRange};
use crate::wire::BlockHash;

use super::job::{Work, length};
use crate::runtime::shard::Shard;

/// How many blocks are read at once.
const READ: u64 = (1 << 20) / BLOCK;

/// How many blocks are hashed in a turn: some tens of microseconds.
const TURN: usize = 32;

/// A range being hashed.
#[derive(Debug)]
pub(in crate::runtime) struct Hashing {
    /// What is not read yet; the portion that is being read or hashed is its beginning.
    left: BlockRange,
    hashes: Vec<BlockHash>,
    /// The portion that was read, and how much of it is hashed.
    portion: Option<Buffer>,
    done: usize,
}

/// The first part of a range, as much as is read at once.
pub(super) fn portion(range: BlockRange) -> BlockRange {
    BlockRange { count: range.count.min(READ), ..range }
}

impl Work {
    pub(super) fn hash(range: BlockRange) -> Self {
        let room = usize::try_from(range.count).unwrap_or(0);
        Self::Hash(Hashing { left: range, hashes: Vec::with_capacity(room), portion: None, done: 0 })
    }
}

impl Hashing {
    /// A portion was read.
    pub(super) fn read(&mut self, portion: Buffer) {
        self.portion = Some(portion);
        self.done = 0;
    }

    /// Hashes a few blocks; the portion's memory when it is done.
    fn go_on(&mut self) -> Option<Buffer> {
        let portion = self.portion.as_ref()?;
        let rest = &portion[self.done..];
        for block in rest.chunks(PAGE).take(TURN) {
            let hash = blake3::hash(block);
            let short = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
            self.hashes.push(BlockHash(*short));
            self.done += block.len();
        }
        if self.done < portion.len() {
            return None;
        }
        let count = portion.len() as u64 / BLOCK;
        self.left.first += count;
        self.left.count -= count;
        self.portion.take()
    }
}

impl Shard {
    /// Hashes a few blocks of whatever is to be hashed.
    pub(in crate::runtime) fn hash_some(&mut self) {
        let Some(key) = self.hashing.pop_front() else { return };
        let Some((hashing, resource)) = self.disk_jobs.get_mut(key).and_then(|job| job.hashing()) else { return };
        let Some(mut memory) = hashing.go_on() else { return self.hashing.push_back(key) };
        if hashing.left.count == 0 {
            let hashes = std::mem::take(&mut hashing.hashes);
            return self.end_job(key, DiskOutcome::Hashed(hashes));
        }
        let next = portion(hashing.left);
        memory.resize(length(next));
        self.read_on(key, resource, next, memory);
    }
}
