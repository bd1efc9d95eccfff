//! What was written, and so what must be read.
//!
//! Every block of a write is filled with a pattern that no other write, and no other block, has. So a block that is read tells
//! which write it is from, and the ledger tells whether it may be.

use crate::units::BLOCK;

/// A block, in bytes.
pub(super) const BYTES: usize = 4096;

const _: () = assert!(BYTES as u64 == BLOCK);

/// A write, named by its number. Numbers count up from 1; a block of number 0 was never written and is all zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    number: u64,
    first: usize,
    count: usize,
}

impl Write {
    /// The first byte.
    pub(super) fn offset(self) -> u64 {
        self.first as u64 * BLOCK
    }

    /// What to write.
    pub(super) fn data(self) -> Vec<u8> {
        (self.first..self.first + self.count).flat_map(|block| pattern(self.number, block)).collect()
    }
}

/// What is known of every block of a volume.
pub(super) struct Ledger {
    blocks: Vec<Block>,
    last: u64,
    acknowledged: u64,
}

#[derive(Clone, Default)]
struct Block {
    /// The last write that was acknowledged.
    acknowledged: u64,
    /// Writes begun since then, of which nobody knows whether they were done.
    open: Vec<u64>,
    /// Whether one of them is still in flight.
    busy: bool,
}

impl Ledger {
    /// A volume of zeroes.
    pub(super) fn new(bytes: u64) -> Self {
        let blocks = usize::try_from(bytes / BLOCK).expect("a demo's volume fits into memory");
        Self { blocks: vec![Block::default(); blocks], last: 0, acknowledged: 0 }
    }

    /// How many blocks the volume has.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// How many writes were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// How many blocks must hold what was acknowledged, and not zeroes.
    pub(super) fn promised(&self) -> usize {
        self.blocks.iter().filter(|block| block.acknowledged > 0).count()
    }

    /// Begins a write of `count` blocks; `None` when one of them is being written already, or is not there: the order of two
    /// writes at the same time would not be known.
    pub(super) fn begin(&mut self, first: usize, count: usize) -> Option<Write> {
        let blocks = self.blocks.get_mut(first..first + count)?;
        if blocks.iter().any(|block| block.busy) {
            return None;
        }
        self.last += 1;
        for block in blocks {
            block.open.push(self.last);
            block.busy = true;
        }
        Some(Write { number: self.last, first, count })
    }

    /// A write was acknowledged: from now on it must be read.
    pub(super) fn acknowledge(&mut self, write: Write) {
        self.acknowledged += 1;
        for block in &mut self.blocks[write.first..write.first + write.count] {
            *block = Block { acknowledged: write.number, ..Block::default() };
        }
    }

    /// A write has failed, or its connection ended: it may have been done, or not.
    pub(super) fn give_up(&mut self, write: Write) {
        for block in &mut self.blocks[write.first..write.first + write.count] {
            block.busy = false;
        }
    }

    /// Whether a block may be read as `data`. What is read once of the writes that nobody knows of, stays so.
    pub(super) fn check(&mut self, block: usize, data: &[u8]) -> Result<(), Wrong> {
        let known = &mut self.blocks[block];
        let may = std::iter::once(known.acknowledged).chain(known.open.iter().copied());
        let Some(found) = may.into_iter().find(|number| data == pattern(*number, block)) else {
            return Err(Wrong { block, acknowledged: known.acknowledged });
        };
        *known = Block { acknowledged: found, ..Block::default() };
        Ok(())
    }
}

/// A block that holds what it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {block} does not hold what write {acknowledged}, the last acknowledged one, has put there")]
pub(super) struct Wrong {
    block: usize,
    acknowledged: u64,
}

/// What write `number` puts into `block`.
fn pattern(number: u64, block: usize) -> Vec<u8> {
    if number == 0 {
        return vec![0; BYTES];
    }
    let mut random = Random::new(number.rotate_left(32) ^ block as u64);
    (0..BYTES / 8).flat_map(|_| random.draw().to_le_bytes()).collect()
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub(super) struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.draw() % limit as u64).expect("it is below a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_write_must_be_read() {
        let mut ledger = Ledger::new(8 * BLOCK);
        let write = ledger.begin(2, 2).unwrap();
        assert_eq!((write.offset(), write.data().len()), (8192, 8192));
        ledger.acknowledge(write);
        assert_eq!(ledger.check(2, &write.data()[..BYTES]), Ok(()));
        assert_eq!(ledger.check(3, &write.data()[BYTES..]), Ok(()));
        assert!(ledger.check(3, &write.data()[..BYTES]).is_err(), "another block's data was taken");
        assert!(ledger.check(2, &[0; BYTES]).is_err(), "a lost write was not noticed");
        assert_eq!((ledger.acknowledged(), ledger.promised()), (1, 2));
    }

    #[test]
    fn a_write_that_nobody_knows_of_is_there_or_not_and_then_stays_so() {
        for done in [false, true] {
            let mut ledger = Ledger::new(BLOCK);
            let first = ledger.begin(0, 1).unwrap();
            ledger.acknowledge(first);
            let second = ledger.begin(0, 1).unwrap();
            ledger.give_up(second);
            let (is, is_not) = if done { (second, first) } else { (first, second) };
            assert_eq!(ledger.check(0, &is.data()), Ok(()));
            assert!(ledger.check(0, &is_not.data()).is_err());
        }
    }

    #[test]
    fn blocks_that_are_being_written_are_left_alone() {
        let mut ledger = Ledger::new(4 * BLOCK);
        let write = ledger.begin(0, 2).unwrap();
        assert_eq!(ledger.begin(1, 2), None);
        assert_eq!(ledger.begin(3, 2), None);
        ledger.give_up(write);
        assert!(ledger.begin(1, 2).is_some());
    }
}
