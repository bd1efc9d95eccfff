//! What a replica reads and hashes for its primary: blocks that the primary cannot read itself, and those that a resync compares.

use crate::units::BlockRange;
use crate::wire::Message;

use super::core::Engine;
use super::event::{DiskIo, DiskOutcome};
use super::ops::Op;

impl Engine {
    pub(super) fn read_for(&mut self, peer: usize, id: u64, range: BlockRange) {
        if self.has_disk() && self.am_member() {
            let io = DiskIo::Read { range, buffer: None, detect_zeroes: false };
            self.ops.disk(&mut self.out, Op::PeerRead { peer, id }, io);
        } else {
            self.send(peer, Message::ReadReply { id, ok: false });
        }
    }

    pub(super) fn peer_read_done(&mut self, peer: usize, id: u64, outcome: &DiskOutcome) {
        let buffer = if let DiskOutcome::Done(buffer) = outcome { *buffer } else { None };
        if self.follow.primary == Some(peer) {
            self.send_with(peer, Message::ReadReply { id, ok: buffer.is_some() }, buffer);
        }
        self.out.extend(buffer.map(super::Command::Release));
    }

    pub(super) fn hash_for(&mut self, peer: usize, id: u64, range: BlockRange) {
        if self.has_disk() {
            self.ops.disk(&mut self.out, Op::PeerHash { peer, id }, DiskIo::Hash { range });
        } else {
            self.send(peer, Message::Hashes { id, hashes: Vec::new() });
        }
    }

    pub(super) fn peer_hash_done(&mut self, peer: usize, id: u64, outcome: DiskOutcome) {
        let hashes = if let DiskOutcome::Hashed(hashes) = outcome { hashes } else { Vec::new() };
        if self.follow.primary == Some(peer) {
            self.send(peer, Message::Hashes { id, hashes });
        }
    }
}
