//! Handles to memory: one that writes, or many that read.

use std::fmt;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;

use super::pool::{PAGE, Pool, Shared};

/// Bytes of a [`Pool`] that only this handle can see, and so may change. Page-aligned.
///
/// An operation that fills it owns it until it completes; [`freeze`](Self::freeze) makes it a [`Slice`] that can be in many
/// places at once.
pub struct Buffer {
    block: Block,
    len: usize,
}

/// Bytes of a [`Pool`] that nobody changes. Clones and sub-slices share the memory; the last one gives it back.
///
/// The same slice can be in flight to a disk and to any number of sockets: each operation holds a clone.
#[derive(Clone)]
pub struct Slice {
    block: Block,
    start: u32,
    len: u32,
}

/// A reference to a block of the pool. Counted without atomics: the pool and all that is in it belong to one thread.
pub(super) struct Block {
    shared: Rc<Shared>,
    page: u32,
    order: u8,
}

impl Buffer {
    pub(super) fn new(block: Block, len: usize) -> Self {
        debug_assert!(len <= block.capacity(), "the block was chosen for the length");
        Self { block, len }
    }

    /// The length that it could have.
    pub fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// Changes the length. Bytes that come to light have their old contents.
    ///
    /// # Panics
    ///
    /// If `len` is more than the [`capacity`](Self::capacity).
    pub fn resize(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a buffer of {} bytes cannot become {len} long", self.capacity());
        self.len = len;
    }

    /// Gives up the right to change it for the right to share it.
    pub fn freeze(self) -> Slice {
        let len = u32::try_from(self.len).expect("a buffer is at most 32 MiB");
        Slice { block: self.block, start: 0, len }
    }

    pub(in crate::ring) fn place(&self) -> Place<'_> {
        Place { block: &self.block }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is at least `len` bytes of mapped, initialized memory that lives as long as the handle. This is
        // its only handle, and it is borrowed: nobody writes meanwhile.
        unsafe { slice::from_raw_parts(self.block.first().as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the handle is borrowed exclusively: nobody else sees these bytes.
        unsafe { slice::from_raw_parts_mut(self.block.first().as_ptr(), self.len) }
    }
}

impl Slice {
    /// A part of it, sharing the memory.
    ///
    /// # Panics
    ///
    /// If the range is not inside of the slice.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len as usize,
        };
        assert!(start <= end && end <= self.len as usize, "range {start}..{end} of a slice of {} bytes", self.len);
        let narrow = |n| u32::try_from(n).expect("at most the length, which is a u32");
        Self { block: self.block.clone(), start: self.start + narrow(start), len: narrow(end - start) }
    }

    /// The buffer again, when this is the only handle to its memory and begins where the buffer began; else the slice.
    pub fn try_into_buffer(self) -> Result<Buffer, Self> {
        if self.block.is_alone() && self.start == 0 {
            Ok(Buffer { len: self.len as usize, block: self.block })
        } else {
            Err(self)
        }
    }

    pub(in crate::ring) fn place(&self) -> Place<'_> {
        Place { block: &self.block }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start + len` is at most the length of the buffer it was, so inside of the block, which is mapped and
        // initialized and lives as long as the handle. Nobody writes to a block that slices hold: a `Buffer` exists only as
        // the single handle of its block.
        unsafe { slice::from_raw_parts(self.block.first().add(self.start as usize).as_ptr(), self.len as usize) }
    }
}

impl Block {
    /// The first reference to a block that was just taken from the allocator.
    pub(super) fn claim(shared: Rc<Shared>, page: u32, order: u8) -> Self {
        let before = shared.holders(page).replace(1);
        debug_assert_eq!(before, 0, "the block was free");
        Self { shared, page, order }
    }

    fn capacity(&self) -> usize {
        PAGE << self.order
    }

    fn first(&self) -> NonNull<u8> {
        self.shared.at(self.page)
    }

    fn is_alone(&self) -> bool {
        self.shared.holders(self.page).get() == 1
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        let holders = self.shared.holders(self.page);
        // A count that wrapped would free memory in use: slices that were forgotten must end in a panic first.
        holders.set(holders.get().checked_add(1).expect("a block has less than 2^32 holders"));
        Self { shared: Rc::clone(&self.shared), page: self.page, order: self.order }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let holders = self.shared.holders(self.page);
        holders.set(holders.get() - 1);
        if holders.get() == 0 {
            self.shared.give_back(self.page, self.order);
        }
    }
}

/// Where a handle's memory is in its pool, for operations on registered memory.
pub(in crate::ring) struct Place<'a> {
    block: &'a Block,
}

impl Place<'_> {
    /// The byte offset of the end of the block from the start of the pool's memory, if it is in `pool`.
    pub(in crate::ring) fn end_in(&self, pool: &Pool) -> Option<usize> {
        let inside = Rc::ptr_eq(&self.block.shared, &pool.shared);
        inside.then(|| self.block.page as usize * PAGE + self.block.capacity())
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len, self.capacity())
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::new(4 << 20).unwrap()
    }

    #[test]
    fn slices_share_and_the_last_one_frees() {
        let pool = pool();
        let mut buffer = pool.try_allocate(10_000).unwrap();
        buffer.iter_mut().zip(0_u8..=250).for_each(|(byte, n)| *byte = n);
        let whole = buffer.freeze();
        let part = whole.slice(10..20).slice(5..);
        assert_eq!(&*part, &[15, 16, 17, 18, 19]);
        drop(whole);
        assert_eq!(pool.in_use(), 4 * PAGE);
        drop(part);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn only_a_single_whole_handle_becomes_a_buffer_again() {
        let pool = pool();
        let slice = pool.try_allocate(100).unwrap().freeze();
        let clone = slice.clone();
        let slice = slice.try_into_buffer().expect_err("a clone could see the bytes change");
        drop(clone);
        let tail = slice.slice(1..);
        drop(slice);
        let tail = tail.try_into_buffer().expect_err("it begins at byte 1");
        let head = tail.slice(..0);
        drop(tail);
        assert!(head.try_into_buffer().is_err());
        assert_eq!(pool.try_allocate(100).unwrap().freeze().try_into_buffer().unwrap().len(), 100);
    }

    #[test]
    #[should_panic(expected = "range 3..12 of a slice of 10 bytes")]
    fn a_range_outside_of_a_slice_is_a_bug() {
        pool().try_allocate(10).unwrap().freeze().slice(3..12);
    }

    #[test]
    #[should_panic(expected = "cannot become 4097 long")]
    fn a_length_beyond_the_block_is_a_bug() {
        pool().try_allocate(10).unwrap().resize(4097);
    }
}
