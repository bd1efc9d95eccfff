//! A map of bits: dirty blocks, hot extents, windows.

mod chunk;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use self::chunk::{Chunk, Mixed, Spare, index, keep};
use super::page::{PAGE_BIT_BYTES, PAGE_BITS};

/// One bit per block or extent, in memory.
///
/// The map is cut into chunks of [`PAGE_BITS`] bits, so that a chunk is what one page on disk holds. A chunk that is all clear or all
/// set takes no memory beyond its place in the table, which is also what lets a scan step over it: an untouched map of a 1 TiB volume
/// is a table of 8,457 entries. Counting is free, and a bit that is set and cleared again and again does not allocate.
///
/// Every range must lie within the map; one that does not is a mistake of the caller and panics.
#[derive(Clone)]
pub struct Bitmap {
    bits: u64,
    count: u64,
    chunks: Vec<Chunk>,
    /// Chunks that became uniform, kept for the next one that stops being so.
    spare: Spare,
}

impl Bitmap {
    /// A map of `bits` bits, all clear.
    pub fn new(bits: u64) -> Self {
        let chunks = (0..bits.div_ceil(PAGE_BITS)).map(|_| Chunk::Clear).collect();
        Self { bits, count: 0, chunks, spare: Vec::new() }
    }

    /// How many bits the map has.
    pub const fn len(&self) -> u64 {
        self.bits
    }

    /// Whether the map has no bits at all, as that of an empty volume. See [`is_clear`](Self::is_clear) for "none is set".
    pub const fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// How many bits are set.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether no bit is set.
    pub const fn is_clear(&self) -> bool {
        self.count == 0
    }

    /// How many pages on disk hold the map.
    pub const fn pages(&self) -> u64 {
        self.bits.div_ceil(PAGE_BITS)
    }

    /// The bits that `page` holds; the last page may hold fewer than [`PAGE_BITS`].
    pub fn page_range(&self, page: u64) -> Range<u64> {
        page * PAGE_BITS..((page + 1) * PAGE_BITS).min(self.bits)
    }

    /// Whether the bit is set.
    pub fn is_set(&self, bit: u64) -> bool {
        self.check(&(bit..bit + 1));
        self.chunks[index(bit / PAGE_BITS)].is_set(index(bit % PAGE_BITS))
    }

    /// Whether a bit of the range is set.
    pub fn any_in(&self, range: Range<u64>) -> bool {
        self.check(&range);
        self.next_set(range.start, range.end).is_some()
    }

    /// How many bits of the range are set.
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        self.check(&range);
        parts(range).map(|part| self.chunks[part.chunk].count_in(part.from, part.to)).sum()
    }

    /// Sets the bits of the range; returns how many of them were clear.
    pub fn set(&mut self, range: Range<u64>) -> u64 {
        self.check(&range);
        let before = self.count;
        for part in parts(range) {
            let capacity = self.capacity(part.chunk);
            match &mut self.chunks[part.chunk] {
                Chunk::Full => {}
                chunk if part.bits() == capacity => {
                    self.count += capacity - chunk.count(capacity);
                    let old = std::mem::replace(chunk, Chunk::Full);
                    keep(&mut self.spare, old);
                }
                chunk => {
                    let mixed = chunk.mixed(capacity, &mut self.spare);
                    let added = mixed.set(part.from, part.to);
                    self.count += added;
                    chunk.settle(capacity, &mut self.spare);
                }
            }
        }
        self.count - before
    }

    /// Clears the bits of the range; returns how many of them were set.
    pub fn clear(&mut self, range: Range<u64>) -> u64 {
        self.check(&range);
        let before = self.count;
        for part in parts(range) {
            let capacity = self.capacity(part.chunk);
            match &mut self.chunks[part.chunk] {
                Chunk::Clear => {}
                chunk if part.bits() == capacity => {
                    self.count -= chunk.count(capacity);
                    let old = std::mem::replace(chunk, Chunk::Clear);
                    keep(&mut self.spare, old);
                }
                chunk => {
                    let mixed = chunk.mixed(capacity, &mut self.spare);
                    let removed = mixed.clear(part.from, part.to);
                    self.count -= removed;
                    chunk.settle(capacity, &mut self.spare);
                }
            }
        }
        before - self.count
    }

    /// Sets every bit.
    pub fn fill(&mut self) {
        self.set(0..self.bits);
    }

    /// Clears every bit.
    pub fn wipe(&mut self) {
        self.clear(0..self.bits);
    }

    /// The first run of set bits at or after `from`, cut off after `max_len` bits; `None` when none follows. A scan goes on from the
    /// run's end.
    pub fn next_set_run(&self, from: u64, max_len: u64) -> Option<Range<u64>> {
        if from >= self.bits || max_len == 0 {
            return None;
        }
        let start = self.next_set(from, self.bits)?;
        let end = self.next_clear(start, start.saturating_add(max_len).min(self.bits));
        Some(start..end)
    }

    /// The runs of set bits within the range, in ascending order, each as long as it can be there.
    pub fn runs(&self, range: Range<u64>) -> Runs<'_> {
        self.check(&range);
        Runs { map: self, at: range.start, end: range.end }
    }

    /// Sets every bit that is set in `other`, a map of the same length.
    pub fn union(&mut self, other: &Self) {
        assert_eq!(self.bits, other.bits, "only maps of one length can be united");
        for number in 0..self.chunks.len() {
            let capacity = self.capacity(number);
            let chunk = &mut self.chunks[number];
            let before = chunk.count(capacity);
            match &other.chunks[number] {
                Chunk::Clear => continue,
                Chunk::Full => {
                    let old = std::mem::replace(chunk, Chunk::Full);
                    keep(&mut self.spare, old);
                }
                Chunk::Mixed(_) if matches!(chunk, Chunk::Full) => continue,
                Chunk::Mixed(theirs) => {
                    chunk.mixed(capacity, &mut self.spare).unite(theirs);
                    chunk.settle(capacity, &mut self.spare);
                }
            }
            self.count += chunk.count(capacity) - before;
        }
    }

    /// Makes the map `bits` bits long. Bits beyond the new end are forgotten; new ones are set or clear as `set` says.
    pub fn resize(&mut self, bits: u64, set: bool) {
        let old = self.bits;
        if bits < old {
            self.clear(bits..old);
        }
        // The last chunk's capacity changes, and so may what "all set" means for it.
        if let Some(last) = self.chunks.len().checked_sub(1) {
            let capacity = self.capacity(last);
            if matches!(self.chunks[last], Chunk::Full) {
                self.chunks[last].mixed(capacity, &mut self.spare);
            }
        }
        self.chunks.resize(index(bits.div_ceil(PAGE_BITS)), Chunk::Clear);
        self.bits = bits;
        for last in [index(old.saturating_sub(1) / PAGE_BITS), self.chunks.len().saturating_sub(1)] {
            if last < self.chunks.len() {
                let capacity = self.capacity(last);
                self.chunks[last].settle(capacity, &mut self.spare);
            }
        }
        if set && bits > old {
            self.set(old..bits);
        }
    }

    /// About how much memory the map takes, in bytes.
    pub fn memory(&self) -> usize {
        let mixed = self.chunks.iter().filter(|chunk| matches!(chunk, Chunk::Mixed(_))).count() + self.spare.len();
        self.chunks.capacity() * size_of::<Chunk>() + mixed * size_of::<Mixed>()
    }

    /// Writes a page's bits, bit 0 being the lowest bit of the first byte. Bits beyond the map's end are written clear.
    pub(super) fn store_page(&self, page: u64, out: &mut [u8; PAGE_BIT_BYTES]) {
        let number = index(page);
        self.chunks[number].store(self.capacity(number), out);
    }

    /// As [`store_page`](Self::store_page), with more bits set than the map has; those of other pages are passed over.
    pub(super) fn store_page_with(&self, page: u64, more: impl Iterator<Item = Range<u64>>, out: &mut [u8; PAGE_BIT_BYTES]) {
        let number = index(page);
        let capacity = self.capacity(number);
        let here = self.page_range(page);
        let mut chunk = None;
        for range in more {
            let (from, to) = (range.start.max(here.start), range.end.min(here.end));
            if from < to {
                let chunk = chunk.get_or_insert_with(|| self.chunks[number].clone());
                chunk.mixed(capacity, &mut Vec::new()).set(index(from - here.start), index(to - here.start));
            }
        }
        chunk.as_ref().unwrap_or(&self.chunks[number]).store(capacity, out);
    }

    /// Replaces a page's bits. Bits beyond the map's end are ignored.
    pub(super) fn load_page(&mut self, page: u64, bytes: &[u8; PAGE_BIT_BYTES]) {
        let number = index(page);
        let capacity = self.capacity(number);
        self.count -= self.chunks[number].count(capacity);
        let old = std::mem::replace(&mut self.chunks[number], Chunk::load(capacity, bytes));
        keep(&mut self.spare, old);
        self.count += self.chunks[number].count(capacity);
    }

    /// The first set bit of `from .. end`.
    fn next_set(&self, from: u64, end: u64) -> Option<u64> {
        for part in parts(from..end) {
            if let Some(found) = self.chunks[part.chunk].next_set(part.from, part.to) {
                return Some(part.base() + found as u64);
            }
        }
        None
    }

    /// The first clear bit of `from .. end`, or `end`.
    fn next_clear(&self, from: u64, end: u64) -> u64 {
        for part in parts(from..end) {
            if let Some(found) = self.chunks[part.chunk].next_clear(part.from, part.to) {
                return part.base() + found as u64;
            }
        }
        end
    }

    /// How many bits the chunk has.
    fn capacity(&self, chunk: usize) -> u64 {
        (self.bits - chunk as u64 * PAGE_BITS).min(PAGE_BITS)
    }

    fn check(&self, range: &Range<u64>) {
        assert!(range.start <= range.end && range.end <= self.bits, "bits {range:?} of a map of {} bits", self.bits);
    }
}

impl PartialEq for Bitmap {
    fn eq(&self, other: &Self) -> bool {
        // Chunks are kept in their shortest form, so that equal maps have equal chunks.
        self.bits == other.bits && self.count == other.count && self.chunks == other.chunks
    }
}

impl Eq for Bitmap {}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 16;
        write!(f, "Bitmap({} of {} set:", self.count, self.bits)?;
        for run in self.runs(0..self.bits).take(SHOWN) {
            write!(f, " {}+{}", run.start, run.end - run.start)?;
        }
        f.write_str(if self.runs(0..self.bits).nth(SHOWN).is_some() { " …)" } else { ")" })
    }
}

/// The runs of set bits in a range; see [`Bitmap::runs`].
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    map: &'a Bitmap,
    at: u64,
    end: u64,
}

impl Iterator for Runs<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let start = self.map.next_set(self.at, self.end)?;
        self.at = self.map.next_clear(start, self.end);
        Some(start..self.at)
    }
}

/// The part of a range that lies in one chunk.
#[derive(Clone, Copy)]
struct Part {
    chunk: usize,
    from: usize,
    to: usize,
}

impl Part {
    fn bits(self) -> u64 {
        (self.to - self.from) as u64
    }

    fn base(self) -> u64 {
        self.chunk as u64 * PAGE_BITS
    }
}

/// Cuts a range at the borders of the chunks.
fn parts(range: Range<u64>) -> impl Iterator<Item = Part> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let chunk = at / PAGE_BITS;
        let end = ((chunk + 1) * PAGE_BITS).min(range.end);
        let part = Part { chunk: index(chunk), from: index(at % PAGE_BITS), to: index(end - chunk * PAGE_BITS) };
        at = end;
        Some(part)
    })
}
