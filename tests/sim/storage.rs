//! What engines' commands do to disks and metadata, and how that fails.

use blkrep::engine::{BufferId, DiskIo, DiskOutcome, Event, OpId};
use blkrep::units::BlockRange;
use blkrep::wire::BlockHash;

use super::disk::SECTORS_PER_BLOCK;
use super::invariants;
use super::node::Node;
use super::world::{Happening, World};

impl World {
    pub fn submit(&mut self, at: usize, op: OpId, io: DiskIo) {
        let node = &mut self.nodes[at];
        match io {
            DiskIo::Write { range, buffer, .. } => {
                let (first, count) = place(node, range);
                let data = node.buffers.get(buffer).expect("a write of a live buffer")[..count].to_vec();
                node.disk.begin_write(op.0, first, data);
            }
            DiskIo::Zero { range, .. } => {
                let (first, count) = place(node, range);
                node.disk.begin_write(op.0, first, vec![0; count]);
            }
            DiskIo::Flush => node.disk.begin_flush(op.0),
            DiskIo::Read { .. } | DiskIo::ReadEdge { .. } | DiskIo::Hash { .. } => {}
        }
        let (when, life) = (self.disk_time(at), self.nodes[at].life);
        self.at(when, Happening::DiskDone { at, life, op, io });
    }

    pub fn submit_meta(&mut self, at: usize, op: OpId, place: u64, bytes: Box<[u8]>) {
        self.nodes[at].meta.begin(op.0, place, bytes);
        let (when, life) = (self.disk_time(at), self.nodes[at].life);
        self.at(when, Happening::MetaDone { at, life, op });
    }

    fn disk_time(&mut self, at: usize) -> u64 {
        let (low, high) = self.manners.disk;
        (self.now + self.rng.between(low, high)).max(self.nodes[at].hung_until)
    }

    pub fn disk_done(&mut self, at: usize, life: u32, op: OpId, io: DiskIo) -> Result<(), String> {
        if !self.alive(at, life) {
            return Ok(());
        }
        let failing = self.nodes[at].failing;
        let fails = match io {
            DiskIo::Read { .. } | DiskIo::ReadEdge { .. } | DiskIo::Hash { .. } => failing.reads,
            DiskIo::Write { .. } | DiskIo::Zero { .. } => failing.writes,
            DiskIo::Flush => failing.flushes,
        };
        let outcome = if fails {
            self.say(|| format!("n{at} its disk fails {io:?}"));
            self.nodes[at].disk.fail(op.0, &mut self.rng);
            DiskOutcome::Failed
        } else {
            perform(&mut self.nodes[at], op, io)
        };
        self.hand(at, Event::DiskDone { op, outcome })
    }

    pub fn meta_done(&mut self, at: usize, life: u32, op: OpId) -> Result<(), String> {
        if !self.alive(at, life) {
            return Ok(());
        }
        let ok = !self.nodes[at].failing.metadata;
        if ok {
            self.nodes[at].meta.end(op.0);
        } else {
            self.say(|| format!("n{at} its metadata fails"));
            self.nodes[at].meta.fail(op.0, &mut self.rng);
        }
        // Between two pages of different maps may be the moment at which neither tells of a difference.
        invariants::coverage::check_of(self, Some(at))?;
        self.hand(at, Event::MetaDone { op, ok })
    }
}

fn perform(node: &mut Node, op: OpId, io: DiskIo) -> DiskOutcome {
    match io {
        DiskIo::Write { fua, .. } | DiskIo::Zero { fua, .. } => {
            node.disk.end_write(op.0, fua);
            DiskOutcome::Done(None)
        }
        DiskIo::Flush => {
            node.disk.end_flush(op.0);
            DiskOutcome::Done(None)
        }
        DiskIo::Read { range, buffer, detect_zeroes } => {
            let sectors = sectors_of(node, range);
            if detect_zeroes && sectors.iter().all(|s| *s == 0) {
                return DiskOutcome::Zeroes;
            }
            DiskOutcome::Done(Some(fill(node, buffer, sectors)))
        }
        DiskIo::ReadEdge { range, buffer, block_in_buffer, from, len } => {
            let sectors = sectors_of(node, range);
            let (from, len) = (usize::try_from(from / 512).unwrap(), usize::try_from(len / 512).unwrap());
            let into_at = usize::try_from(block_in_buffer * SECTORS_PER_BLOCK).unwrap() + from;
            if let Some(into) = node.buffers.get_mut(buffer) {
                into[into_at..into_at + len].copy_from_slice(&sectors[from..from + len]);
            }
            DiskOutcome::Done(None)
        }
        DiskIo::Hash { range } => {
            let block = |n: u64| BlockRange { first: range.first + n, count: 1, ..range };
            DiskOutcome::Hashed((0..range.count).map(|n| hash(&sectors_of(node, block(n)))).collect())
        }
    }
}

fn fill(node: &mut Node, buffer: Option<BufferId>, sectors: Vec<u64>) -> BufferId {
    let Some(buffer) = buffer else { return node.buffers.insert(sectors) };
    if let Some(into) = node.buffers.get_mut(buffer) {
        into[..sectors.len()].copy_from_slice(&sectors);
    }
    buffer
}

/// The first sector of a range and how many it has.
fn place(node: &Node, range: BlockRange) -> (u64, usize) {
    let first = node.first_sector(range.volume) + range.first * SECTORS_PER_BLOCK;
    (first, usize::try_from(range.count * SECTORS_PER_BLOCK).unwrap())
}

fn sectors_of(node: &Node, range: BlockRange) -> Vec<u64> {
    let (first, count) = place(node, range);
    (first..first + count as u64).map(|sector| node.disk.read(sector)).collect()
}

fn hash(sectors: &[u64]) -> BlockHash {
    let mix = |seed: u64| sectors.iter().fold(seed, |h, s| (h ^ s).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(1).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(2).to_le_bytes());
    BlockHash(bytes)
}
