//! The engines' operations on disks and metadata.
//!
//! | file | what it is |
//! |---|---|
//! | [`job`] | one operation, from the engine's command to its answer |
//! | [`hash`] | hashing, in small portions |

mod hash;
mod job;

use crate::engine::{DiskIo, DiskOutcome, Event, OpId};
use crate::ring::Buffer;
use crate::units::BlockRange;

use super::shard::Shard;
use super::slab::Key;

pub(super) use job::DiskJob;
use job::{Place, Work, index, length};

/// What waits for memory.
#[derive(Debug)]
pub(super) enum Starved {
    /// A client's next request.
    Client(Key),
    /// A peer's next message.
    Peer(Key),
    /// An engine's read.
    Disk { resource: Key, op: OpId, io: DiskIo },
    /// A write of metadata.
    Meta { resource: Key, op: OpId, at: u64, bytes: Box<[u8]> },
}

/// How many are tried again in a turn.
const TRIES: usize = 16;

impl Shard {
    /// Starts an engine's operation on a disk.
    pub(super) fn start_disk(&mut self, resource: Key, op: OpId, io: DiskIo) {
        self.io.counters.disk += 1;
        match io {
            DiskIo::Read { range, buffer, detect_zeroes } => {
                let memory = match buffer {
                    Some(id) => Some(self.io.memory.lend(id)),
                    None => self.engine_memory(range),
                };
                let Some(into) = memory else { return self.starve_disk(resource, op, io) };
                self.start_read(resource, op, range, into, Work::Read { buffer, detect_zeroes });
            }
            DiskIo::ReadEdge { range, buffer, block_in_buffer, from, len } => {
                // The engine may give the buffer up meanwhile, with a client that is gone: it must not be another's before this is done.
                self.io.memory.hold(buffer);
                // A client waits for it, and it is gone in a moment: it may use what is kept for peers.
                let Some(into) = self.io.memory.pool().try_allocate(length(range)) else {
                    return self.starve_disk(resource, op, io);
                };
                let work = Work::Edge { buffer, block: index(block_in_buffer), from: index(from), len: index(len) };
                self.start_read(resource, op, range, into, work);
            }
            DiskIo::Write { range, buffer, fua } => {
                let from = self.io.memory.share(buffer).slice(..length(range));
                let Some(disk) = self.disk(resource, Place::Volume(range.volume)) else {
                    return self.answer_disk(resource, op, DiskOutcome::Failed);
                };
                let first = disk.write(range.offset(), from, fua);
                self.start_job(DiskJob::new(resource, op, range, Work::Write), first);
            }
            DiskIo::Zero { range, unmap, fua } => self.start_zero(resource, op, range, unmap, fua),
            DiskIo::Flush => self.start_flush(resource, op),
            DiskIo::Hash { range } => {
                let Some(into) = self.engine_memory(hash::portion(range)) else { return self.starve_disk(resource, op, io) };
                self.start_read(resource, op, hash::portion(range), into, Work::hash(range));
            }
        }
    }

    /// Starts a write of metadata.
    pub(super) fn start_meta(&mut self, resource: Key, op: OpId, at: u64, bytes: Box<[u8]>) {
        self.io.counters.disk += 1;
        let Some(mut buffer) = self.io.memory.pool().try_allocate(bytes.len()) else {
            return self.starved.push_back(Starved::Meta { resource, op, at, bytes });
        };
        buffer.copy_from_slice(&bytes);
        let Some(disk) = self.disk(resource, Place::Metadata) else {
            return self.feed(resource, Event::MetaDone { op, ok: false });
        };
        let first = disk.write(at, buffer.freeze(), true);
        self.start_job(DiskJob::meta(resource, op, at), first);
    }

    /// Tries again some of what waited for memory, in the order in which it came; what still has none goes to the end.
    pub(super) fn feed_starved(&mut self) {
        for _ in 0..self.starved.len().min(TRIES) {
            match self.starved.pop_front() {
                Some(Starved::Client(key)) => self.serve_starved_client(key),
                Some(Starved::Peer(key)) => self.hear_starved_peer(key),
                Some(Starved::Disk { resource, op, io }) => {
                    let held = if let DiskIo::ReadEdge { buffer, .. } = io { Some(buffer) } else { None };
                    self.start_disk(resource, op, io);
                    held.into_iter().for_each(|buffer| self.io.memory.release(buffer));
                }
                Some(Starved::Meta { resource, op, at, bytes }) => self.start_meta(resource, op, at, bytes),
                None => return,
            }
        }
    }

    fn starve_disk(&mut self, resource: Key, op: OpId, io: DiskIo) {
        self.starved.push_back(Starved::Disk { resource, op, io });
    }

    fn engine_memory(&mut self, range: BlockRange) -> Option<Buffer> {
        self.io.memory.allocate_for_engine(length(range))
    }

    fn start_read(&mut self, resource: Key, op: OpId, range: BlockRange, into: Buffer, work: Work) {
        let Some(disk) = self.disk(resource, Place::Volume(range.volume)) else {
            work.give_back(into, &mut self.io.memory);
            work.let_go(&mut self.io.memory);
            return self.answer_disk(resource, op, DiskOutcome::Failed);
        };
        let first = disk.read(range.offset(), into);
        self.start_job(DiskJob::new(resource, op, range, work), first);
    }
}
