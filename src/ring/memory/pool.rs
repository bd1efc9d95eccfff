//! The pool: a shard's memory for data on its way.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

use super::arena::{Arena, HUGE_PAGE};
use super::buddy::{Buddy, MAX_ORDER};
use super::{Block, Buffer};

/// A page: the unit of the pool and the alignment of every buffer.
pub const PAGE: usize = 4096;

/// The longest buffer, in bytes: the largest payload that an NBD server must take.
pub const MAX_BUFFER: usize = PAGE << MAX_ORDER;

/// A bounded amount of page-aligned memory that belongs to one thread.
///
/// Buffers come in powers of two from 4 KiB to 32 MiB. What is not in use is not resident until it is touched for the first
/// time; [`release_unused`](Self::release_unused) gives it back. Clones are handles to the same pool; it lives until the last
/// handle and the last buffer are gone.
///
/// A payload that need not be contiguous is better cut into buffers of at most 1 MiB: a large block must wait until its
/// neighbours are free too.
#[derive(Clone)]
pub struct Pool {
    pub(super) shared: Rc<Shared>,
}

/// What the handles and the buffers share.
pub(super) struct Shared {
    arena: Arena,
    buddy: RefCell<Buddy>,
    /// For the first page of every block in use: how many handles hold it.
    holders: Box<[Cell<u32>]>,
    in_use: Cell<usize>,
    /// Pinned pages cannot be given back.
    pinned: Cell<usize>,
}

impl Pool {
    /// Reserves a pool of `bytes`, rounded up to 2 MiB.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to map that much (a limit on address space, RLIMIT_AS).
    pub fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1).checked_next_multiple_of(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = bytes / PAGE;
        let count = u32::try_from(pages).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let shared = Shared {
            arena: Arena::reserve(bytes)?,
            buddy: RefCell::new(Buddy::new(count)),
            holders: vec![Cell::new(0); pages].into_boxed_slice(),
            in_use: Cell::new(0),
            pinned: Cell::new(0),
        };
        Ok(Self { shared: Rc::new(shared) })
    }

    /// A buffer of `len` bytes, or `None` when there is no room for it now or `len` is more than [`MAX_BUFFER`].
    ///
    /// Its contents are whatever its last user left: fill it before showing it to anybody.
    pub fn try_allocate(&self, len: usize) -> Option<Buffer> {
        let order = order_of(len)?;
        let page = self.shared.buddy.borrow_mut().allocate(order)?;
        self.shared.in_use.set(self.shared.in_use.get() + (PAGE << order));
        Some(Buffer::new(Block::claim(Rc::clone(&self.shared), page, order), len))
    }

    /// How many bytes a buffer of `len` bytes takes of the pool.
    pub fn footprint(len: usize) -> Option<usize> {
        order_of(len).map(|order| PAGE << order)
    }

    /// The bytes that buffers hold now, in whole blocks.
    pub fn in_use(&self) -> usize {
        self.shared.in_use.get()
    }

    /// The size of the pool in bytes.
    pub fn capacity(&self) -> usize {
        self.shared.arena.bytes()
    }

    /// Gives free memory back to the system, in pieces of at least 2 MiB. For idle moments: it costs a system call a piece, and
    /// what is used again is zeroed by the kernel first. Memory that is registered with a ring stays.
    pub fn release_unused(&self) {
        let huge = HUGE_PAGE / PAGE;
        let order = u8::try_from(huge.trailing_zeros()).expect("a huge page has less than 2^256 pages");
        for (page, order) in self.shared.buddy.borrow_mut().free_blocks(order) {
            let (offset, bytes) = (page as usize * PAGE, PAGE << order);
            if offset >= self.shared.pinned.get() {
                // SAFETY: the block is free: no buffer, and so no reference and no operation, has any of it. The allocator is
                // borrowed, so that it cannot be handed out meanwhile.
                unsafe { self.shared.arena.release(offset, bytes) };
            }
        }
    }

    /// The first `bytes` of the pool's memory, in stretches of at most `stretch` bytes, for registration.
    pub(in crate::ring) fn stretches(&self, bytes: usize, stretch: usize) -> Vec<(NonNull<u8>, usize)> {
        let bytes = bytes.min(self.capacity());
        (0..bytes).step_by(stretch).map(|at| (self.shared.arena.at(at), stretch.min(bytes - at))).collect()
    }

    /// Remembers that the first `bytes` are pinned.
    pub(in crate::ring) fn pin(&self, bytes: usize) {
        self.shared.pinned.set(bytes);
    }
}

impl Shared {
    pub(super) fn at(&self, page: u32) -> NonNull<u8> {
        self.arena.at(page as usize * PAGE)
    }

    pub(super) fn holders(&self, page: u32) -> &Cell<u32> {
        &self.holders[page as usize]
    }

    /// Takes a block back whose last holder is gone.
    pub(super) fn give_back(&self, page: u32, order: u8) {
        self.in_use.set(self.in_use.get() - (PAGE << order));
        self.buddy.borrow_mut().free(page, order);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("in_use", &self.in_use()).field("capacity", &self.capacity()).finish()
    }
}

/// The order of the smallest block that holds `len` bytes.
fn order_of(len: usize) -> Option<u8> {
    let pages = len.div_ceil(PAGE).max(1).checked_next_power_of_two()?;
    u8::try_from(pages.trailing_zeros()).ok().filter(|&order| order <= MAX_ORDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_pool_says_so_and_recovers() {
        let pool = Pool::new(4 << 20).unwrap();
        let held: Vec<_> = std::iter::from_fn(|| pool.try_allocate(64 << 10)).collect();
        assert_eq!((held.len(), pool.in_use()), (64, pool.capacity()));
        assert!(pool.try_allocate(1).is_none());
        drop(held);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.try_allocate(4 << 20).unwrap().len(), 4 << 20);
    }

    #[test]
    fn lengths_are_kept_and_blocks_are_powers_of_two() {
        let pool = Pool::new(64 << 20).unwrap();
        for (len, block) in [(0, PAGE), (1, PAGE), (PAGE, PAGE), (PAGE + 1, 2 * PAGE), (MAX_BUFFER, MAX_BUFFER)] {
            let buffer = pool.try_allocate(len).unwrap();
            assert_eq!((buffer.len(), pool.in_use(), Pool::footprint(len)), (len, block, Some(block)));
            assert_eq!(buffer.as_ptr().addr() % PAGE, 0);
        }
        assert!(pool.try_allocate(MAX_BUFFER + 1).is_none());
        assert!(pool.try_allocate(usize::MAX).is_none());
    }

    #[test]
    fn memory_given_back_reads_as_zeroes() {
        let pool = Pool::new(8 << 20).unwrap();
        let mut buffer = pool.try_allocate(8 << 20).unwrap();
        buffer.fill(7);
        let kept = pool.clone();
        drop(buffer);
        kept.release_unused();
        assert!(pool.try_allocate(8 << 20).unwrap().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_buffer_outlives_its_pool() {
        let pool = Pool::new(1).unwrap();
        let mut buffer = pool.try_allocate(PAGE).unwrap();
        drop(pool);
        buffer.fill(3);
        assert_eq!(buffer.freeze()[PAGE - 1], 3);
    }
}
