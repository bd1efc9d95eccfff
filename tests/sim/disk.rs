//! Disks with volatile caches, and metadata areas.
//!
//! A data disk is a row of 512-byte sectors, each a number that stands for its bytes. What was written is visible when its operation
//! ends, and durable after a flush that *began* later. When the power goes, each sector keeps any one of the values it has had since it
//! was last flushed, and a write that was under way happens, does not happen, or happens in part, sector by sector.

use std::collections::BTreeMap;

use super::rng::Rng;

pub const SECTOR: u64 = 512;
pub const SECTORS_PER_BLOCK: u64 = 8;

/// A data disk.
#[derive(Debug, Clone)]
pub struct Disk {
    visible: Vec<u64>,
    durable: Vec<u64>,
    /// Sectors written since they were last flushed, with what they have held and when, oldest first.
    cached: BTreeMap<usize, Vec<(u64, u64)>>,
    /// Writes under way: the first sector and what it and those behind it will be.
    under_way: BTreeMap<u64, (u64, Vec<u64>)>,
    /// Flushes under way, and what had been written when they began.
    flushes: BTreeMap<u64, u64>,
    /// Counts the writes that have ended.
    ended: u64,
}

impl Disk {
    pub fn new(sectors: u64) -> Self {
        let sectors = usize::try_from(sectors).unwrap();
        Self {
            visible: vec![0; sectors],
            durable: vec![0; sectors],
            cached: BTreeMap::new(),
            under_way: BTreeMap::new(),
            flushes: BTreeMap::new(),
            ended: 0,
        }
    }

    pub fn begin_write(&mut self, op: u64, first: u64, sectors: Vec<u64>) {
        self.under_way.insert(op, (first, sectors));
    }

    /// A write ends well. One with `fua` is durable then.
    pub fn end_write(&mut self, op: u64, fua: bool) {
        let Some((first, sectors)) = self.under_way.remove(&op) else { return };
        self.ended += 1;
        for (at, &value) in (usize::try_from(first).unwrap()..).zip(&sectors) {
            self.put(at, value);
            if fua {
                self.durable[at] = value;
                self.cached.remove(&at);
            }
        }
    }

    /// An operation ends badly: of a write any part may be there, and what a flush was to make durable may be lost.
    pub fn fail(&mut self, op: u64, rng: &mut Rng) {
        self.flushes.remove(&op);
        if let Some((first, sectors)) = self.under_way.remove(&op) {
            self.put_part(first, &sectors, rng);
        }
    }

    fn put(&mut self, at: usize, value: u64) {
        self.visible[at] = value;
        self.cached.entry(at).or_default().push((self.ended, value));
    }

    fn put_part(&mut self, first: u64, sectors: &[u64], rng: &mut Rng) {
        let chance = [0, 50, 100][usize::try_from(rng.below(3)).unwrap()];
        for (at, &value) in (usize::try_from(first).unwrap()..).zip(sectors) {
            if rng.chance(chance) {
                self.put(at, value);
            }
        }
    }

    /// The disk changes a sector by itself, for good, and says nothing.
    pub fn rot(&mut self, sector: u64, value: u64) {
        let at = usize::try_from(sector).unwrap();
        self.visible[at] = value;
        self.durable[at] = value;
        self.cached.remove(&at);
    }

    pub fn read(&self, sector: u64) -> u64 {
        self.visible[usize::try_from(sector).unwrap()]
    }

    /// What the sector is sure to hold when the power goes, if nothing else was written there since.
    pub fn durable(&self, sector: u64) -> u64 {
        self.durable[usize::try_from(sector).unwrap()]
    }

    pub fn begin_flush(&mut self, op: u64) {
        self.flushes.insert(op, self.ended);
    }

    /// Makes durable what had been written when the flush began.
    pub fn end_flush(&mut self, op: u64) {
        let Some(upto) = self.flushes.remove(&op) else { return };
        for (&at, values) in &mut self.cached {
            let covered = values.partition_point(|(ended, _)| *ended <= upto);
            if covered > 0 {
                self.durable[at] = values[covered - 1].1;
                values.drain(..covered);
            }
        }
        self.cached.retain(|_, values| !values.is_empty());
    }

    /// The process dies: what was under way happens, does not, or happens in part.
    pub fn lose_process(&mut self, rng: &mut Rng) {
        self.flushes.clear();
        for (first, sectors) in std::mem::take(&mut self.under_way).into_values() {
            self.put_part(first, &sectors, rng);
        }
    }

    /// The power goes.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        self.lose_process(rng);
        let mode = rng.below(3);
        for (at, values) in std::mem::take(&mut self.cached) {
            let all = values.len() as u64;
            let kept = match mode {
                0 => 0,
                1 => all,
                _ => rng.below(all + 1),
            };
            if kept > 0 {
                self.durable[at] = values[usize::try_from(kept).unwrap() - 1].1;
            }
        }
        self.visible.clone_from(&self.durable);
    }

    /// The disk is longer, with zeroes.
    pub fn grow(&mut self, sectors: u64) {
        let sectors = usize::try_from(sectors).unwrap();
        self.visible.resize(sectors, 0);
        self.durable.resize(sectors, 0);
    }

    pub fn sectors(&self) -> &[u64] {
        &self.visible
    }
}

/// A metadata area: what is written is durable when the write has ended; one that has not may be there in part.
#[derive(Debug, Clone)]
pub struct Meta {
    pub bytes: Vec<u8>,
    /// Counts the changes of the superblocks.
    pub superblocks: u64,
    pending: Vec<(u64, u64, Box<[u8]>)>,
}

impl Meta {
    pub fn new(len: u64) -> Self {
        Self { bytes: vec![0; usize::try_from(len).unwrap()], superblocks: 0, pending: Vec::new() }
    }

    /// The area is longer; what is new holds anything.
    pub fn grow(&mut self, bytes: u64) {
        let len = self.bytes.len() + usize::try_from(bytes).unwrap();
        self.bytes.resize(len, 0xa5);
    }

    pub fn begin(&mut self, op: u64, at: u64, bytes: Box<[u8]>) {
        self.pending.push((op, at, bytes));
    }

    pub fn end(&mut self, op: u64) {
        if let Some(n) = self.pending.iter().position(|p| p.0 == op) {
            let (_, at, bytes) = self.pending.remove(n);
            self.put(at, &bytes);
        }
    }

    /// A write ends badly: it happened in part, or not at all.
    pub fn fail(&mut self, op: u64, rng: &mut Rng) {
        if let Some(n) = self.pending.iter().position(|p| p.0 == op) {
            let (_, at, bytes) = self.pending.remove(n);
            if rng.chance(50) {
                self.put_part(at, &bytes, rng);
            }
        }
    }

    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        self.superblocks += u64::from(at < 2 * blkrep::format::SUPERBLOCK);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_part(&mut self, at: u64, bytes: &[u8], rng: &mut Rng) {
        for (n, sector) in bytes.chunks(512).enumerate() {
            if rng.chance(50) {
                self.put(at + n as u64 * 512, sector);
            }
        }
    }

    /// The process or the machine dies: writes under way happen, do not happen, or happen in part.
    pub fn crash(&mut self, rng: &mut Rng, power: bool) {
        for (_, at, bytes) in std::mem::take(&mut self.pending) {
            match rng.below(3) {
                0 => {}
                1 => self.put(at, &bytes),
                _ if power => self.put_part(at, &bytes, rng),
                _ => {}
            }
        }
    }
}
