//! One page's worth of bits in its shortest form.

use crate::format::page::{PAGE_BIT_BYTES, PAGE_BITS};

const WORDS: usize = PAGE_BIT_BYTES / 8;

/// How many chunks without content a map keeps at hand.
const SPARE_MAX: usize = 4;

/// The bits of one page. `Mixed` has at least one bit set and one clear, except between a change and its
/// [`settle`](Self::settle).
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Chunk {
    /// No bit is set.
    Clear,
    /// Every bit up to the chunk's capacity is set.
    Full,
    /// The bits are in memory.
    Mixed(Box<Mixed>),
}

/// Chunks without content, kept for the next that is needed. They move between a map's table and here without being copied.
pub(super) type Spare = Vec<Box<Mixed>>;

/// Bits in memory. Those beyond the chunk's capacity are clear.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Mixed {
    count: u64,
    words: [u64; WORDS],
}

impl Chunk {
    /// Reads a page's bits and forgets those beyond the capacity.
    pub(super) fn load(capacity: u64, bytes: &[u8; PAGE_BIT_BYTES]) -> Self {
        let mut mixed = Box::new(Mixed { count: 0, words: [0; WORDS] });
        let (groups, _) = bytes.as_chunks::<8>();
        for (word, mask) in masks(0, index(capacity)) {
            mixed.words[word] = u64::from_le_bytes(groups[word]) & mask;
            mixed.count += u64::from(mixed.words[word].count_ones());
        }
        let mut chunk = Self::Mixed(mixed);
        chunk.settle(capacity, &mut Vec::new());
        chunk
    }

    /// Writes the bits as [`load`](Self::load) reads them.
    pub(super) fn store(&self, capacity: u64, out: &mut [u8; PAGE_BIT_BYTES]) {
        out.fill(0);
        let (groups, _) = out.as_chunks_mut::<8>();
        match self {
            Self::Clear => {}
            Self::Full => masks(0, index(capacity)).for_each(|(word, mask)| groups[word] = mask.to_le_bytes()),
            Self::Mixed(mixed) => {
                groups.iter_mut().zip(&mixed.words).for_each(|(group, word)| *group = word.to_le_bytes());
            }
        }
    }

    pub(super) fn count(&self, capacity: u64) -> u64 {
        match self {
            Self::Clear => 0,
            Self::Full => capacity,
            Self::Mixed(mixed) => mixed.count,
        }
    }

    pub(super) fn is_set(&self, bit: usize) -> bool {
        match self {
            Self::Clear => false,
            Self::Full => true,
            Self::Mixed(mixed) => mixed.words[bit / 64] >> (bit % 64) & 1 == 1,
        }
    }

    pub(super) fn count_in(&self, from: usize, to: usize) -> u64 {
        match self {
            Self::Clear => 0,
            Self::Full => (to - from) as u64,
            Self::Mixed(mixed) => masks(from, to).map(|(word, mask)| u64::from((mixed.words[word] & mask).count_ones())).sum(),
        }
    }

    /// The first set bit of `from .. to`.
    pub(super) fn next_set(&self, from: usize, to: usize) -> Option<usize> {
        match self {
            Self::Clear => None,
            Self::Full => Some(from),
            Self::Mixed(mixed) => first(masks(from, to).map(|(word, mask)| (word, mixed.words[word] & mask))),
        }
    }

    /// The first clear bit of `from .. to`.
    pub(super) fn next_clear(&self, from: usize, to: usize) -> Option<usize> {
        match self {
            Self::Clear => Some(from),
            Self::Full => None,
            Self::Mixed(mixed) => first(masks(from, to).map(|(word, mask)| (word, !mixed.words[word] & mask))),
        }
    }

    /// The bits in memory, to be changed; [`settle`](Self::settle) must follow.
    pub(super) fn mixed(&mut self, capacity: u64, spare: &mut Spare) -> &mut Mixed {
        if !matches!(self, Self::Mixed(_)) {
            let mut mixed = spare.pop().unwrap_or_else(|| Box::new(Mixed { count: 0, words: [0; WORDS] }));
            mixed.words.fill(0);
            mixed.count = 0;
            if matches!(self, Self::Full) {
                mixed.set(0, index(capacity));
            }
            *self = Self::Mixed(mixed);
        }
        match self {
            Self::Mixed(mixed) => mixed,
            Self::Clear | Self::Full => unreachable!("made mixed above"),
        }
    }

    /// Gives the chunk its shortest form.
    pub(super) fn settle(&mut self, capacity: u64, spare: &mut Spare) {
        let Self::Mixed(mixed) = self else { return };
        let uniform = match mixed.count {
            0 => Self::Clear,
            count if count == capacity => Self::Full,
            _ => return,
        };
        keep(spare, std::mem::replace(self, uniform));
    }
}

impl Mixed {
    /// Sets bits; returns how many were clear.
    pub(super) fn set(&mut self, from: usize, to: usize) -> u64 {
        let before = self.count;
        for (word, mask) in masks(from, to) {
            self.count += u64::from((mask & !self.words[word]).count_ones());
            self.words[word] |= mask;
        }
        self.count - before
    }

    /// Clears bits; returns how many were set.
    pub(super) fn clear(&mut self, from: usize, to: usize) -> u64 {
        let before = self.count;
        for (word, mask) in masks(from, to) {
            self.count -= u64::from((mask & self.words[word]).count_ones());
            self.words[word] &= !mask;
        }
        before - self.count
    }

    pub(super) fn unite(&mut self, other: &Self) {
        self.count = 0;
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine |= theirs;
            self.count += u64::from(mine.count_ones());
        }
    }
}

/// Keeps a chunk's memory for later, if it has any and not enough is kept.
pub(super) fn keep(spare: &mut Spare, chunk: Chunk) {
    if let Chunk::Mixed(mixed) = chunk
        && spare.len() < SPARE_MAX
    {
        spare.push(mixed);
    }
}

/// A number of bits or pages as an index.
pub(super) fn index(number: u64) -> usize {
    usize::try_from(number).expect("maps are smaller than the address space")
}

/// The words that hold `from .. to`, with the bits of each that are meant.
fn masks(from: usize, to: usize) -> impl Iterator<Item = (usize, u64)> {
    (from / 64..to.div_ceil(64)).map(move |word| {
        let low = from.saturating_sub(word * 64);
        let high = (to - word * 64).min(64);
        (word, u64::MAX << low & u64::MAX >> (64 - high))
    })
}

/// The first bit that is set in words that come with their numbers.
fn first(mut words: impl Iterator<Item = (usize, u64)>) -> Option<usize> {
    words.find(|&(_, bits)| bits != 0).map(|(word, bits)| word * 64 + bits.trailing_zeros() as usize)
}

const _: () = assert!(WORDS as u64 * 64 == PAGE_BITS, "a page is a whole number of words");
