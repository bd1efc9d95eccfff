//! What the operations on the local disk and metadata area are for.

use crate::units::{BlockRange, Slab, VolumeId};

use super::event::{Command, DiskIo, OpId};

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// A client's read, by the request's key.
    Read { request: u64 },
    /// The edge of a client's write, by the request's key.
    Edge { request: u64 },
    /// A primary's write, in its reign.
    Write { reign: u64, seq: u64 },
    /// A primary's flush.
    Flush { reign: u64, round: u64 },
    /// A replica's write, with the extents that it holds hot.
    Apply { peer: usize, seq: u64, held: Option<BlockRange> },
    /// A replica's flush: everything up to `durable` was written when it was submitted.
    PeerFlush { peer: usize, id: u64, durable: u64 },
    /// A read for a primary.
    PeerRead { peer: usize, id: u64 },
    /// Hashes for a primary.
    PeerHash { peer: usize, id: u64 },
    /// The source of a resync chunk.
    SyncRead { chunk: u64, range: BlockRange },
    /// The source's hashes of a resync chunk.
    SyncHash { chunk: u64 },
    /// This node's hashes of blocks that are verified.
    VerifyHash { piece: u64 },
    /// A flush at the end of this engine's life.
    LastFlush,
    /// A superblock.
    Superblock,
    /// A page of the activity map.
    ActivityPage { volume: VolumeId, page: u64 },
    /// A page of a dirty bitmap.
    DirtyPage,
    /// A part of a change of the metadata's regions.
    Reshape,
}

/// The operations that are under way.
#[derive(Debug, Default)]
pub(super) struct Ops {
    slab: Slab<Op>,
    /// Operations on data, which a replica drains before it follows another reign (rule F4).
    data: usize,
}

impl Ops {
    /// Starts an operation on the disk.
    pub(super) fn disk(&mut self, out: &mut Vec<Command>, op: Op, io: DiskIo) {
        self.data += 1;
        let op = OpId(self.slab.insert(op));
        out.push(Command::Disk { op, io });
    }

    /// Starts a write of metadata.
    pub(super) fn meta(&mut self, out: &mut Vec<Command>, op: Op, at: u64, bytes: Box<[u8]>) {
        let op = OpId(self.slab.insert(op));
        out.push(Command::Meta { op, at, bytes });
    }

    /// An operation on the disk has ended.
    pub(super) fn disk_done(&mut self, op: OpId) -> Option<Op> {
        let op = self.slab.remove(op.0)?;
        self.data -= 1;
        Some(op)
    }

    /// A write of metadata has ended.
    pub(super) fn meta_done(&mut self, op: OpId) -> Option<Op> {
        self.slab.remove(op.0)
    }

    /// Whether nothing that touches data is under way.
    pub(super) fn disk_is_idle(&self) -> bool {
        self.data == 0
    }
}
