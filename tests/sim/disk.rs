//! Disks with volatile caches, and metadata areas.
//!
//! A data disk is a row of 512-byte sectors, each a number that stands for its bytes. What was written is visible at once and durable
//! after a flush that began later; when the power goes, each sector that was not flushed keeps any one of the values it has had since.

use std::collections::BTreeMap;

use super::rng::Rng;

pub const SECTOR: u64 = 512;
pub const SECTORS_PER_BLOCK: u64 = 8;

/// A data disk.
#[derive(Debug, Clone)]
pub struct Disk {
    visible: Vec<u64>,
    durable: Vec<u64>,
    /// Sectors written since they were last flushed, with what they have held, oldest first.
    cached: BTreeMap<usize, Vec<u64>>,
}

impl Disk {
    pub fn new(sectors: u64) -> Self {
        let sectors = usize::try_from(sectors).unwrap();
        Self { visible: vec![0; sectors], durable: vec![0; sectors], cached: BTreeMap::new() }
    }

    pub fn write(&mut self, sector: u64, value: u64) {
        let at = usize::try_from(sector).unwrap();
        self.visible[at] = value;
        self.cached.entry(at).or_default().push(value);
    }

    pub fn read(&self, sector: u64) -> u64 {
        self.visible[usize::try_from(sector).unwrap()]
    }

    /// Makes durable what is visible.
    pub fn flush(&mut self) {
        for &at in self.cached.keys() {
            self.durable[at] = self.visible[at];
        }
        self.cached.clear();
    }

    /// Makes some sectors durable.
    pub fn flush_sectors(&mut self, first: u64, count: u64) {
        for sector in first..first + count {
            let at = usize::try_from(sector).unwrap();
            self.durable[at] = self.visible[at];
            self.cached.remove(&at);
        }
    }

    /// The power goes.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        let mode = rng.below(3);
        for (at, values) in std::mem::take(&mut self.cached) {
            let all = values.len() as u64;
            let kept = match mode {
                0 => 0,
                1 => all,
                _ => rng.below(all + 1),
            };
            if kept > 0 {
                self.durable[at] = values[usize::try_from(kept).unwrap() - 1];
            }
        }
        self.visible.clone_from(&self.durable);
    }

    pub fn sectors(&self) -> &[u64] {
        &self.visible
    }
}

/// A metadata area: what is written is durable when the write has ended; one that has not may be there in part.
#[derive(Debug, Clone)]
pub struct Meta {
    pub bytes: Vec<u8>,
    pending: Vec<(u64, u64, Box<[u8]>)>,
}

impl Meta {
    pub fn new(len: u64) -> Self {
        Self { bytes: vec![0; usize::try_from(len).unwrap()], pending: Vec::new() }
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

    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The process or the machine dies: writes under way happen, do not happen, or happen in part.
    pub fn crash(&mut self, rng: &mut Rng, power: bool) {
        for (_, at, bytes) in std::mem::take(&mut self.pending) {
            match rng.below(3) {
                0 => {}
                1 => self.put(at, &bytes),
                _ if power => {
                    for (n, sector) in bytes.chunks(512).enumerate() {
                        if rng.chance(50) {
                            self.put(at + n as u64 * 512, sector);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}
