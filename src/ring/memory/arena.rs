//! One stretch of page-backed memory.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// A transparent huge page.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// Anonymous memory, zeroed, aligned to a huge page, unmapped on drop. It is reserved at once and taken page by page as it is
/// touched.
#[derive(Debug)]
pub(super) struct Arena {
    /// Where the mapping begins.
    mapping: NonNull<c_void>,
    /// Its length, alignment included.
    mapped: usize,
    /// The first aligned byte.
    base: NonNull<u8>,
    bytes: usize,
}

impl Arena {
    /// Reserves `bytes`, a multiple of [`HUGE_PAGE`].
    pub(super) fn reserve(bytes: usize) -> io::Result<Self> {
        assert!(bytes > 0 && bytes.is_multiple_of(HUGE_PAGE), "an arena is made of whole huge pages, not of {bytes} bytes");
        let mapped = bytes.checked_add(HUGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice replaces nothing that exists.
        let mapping = unsafe {
            mm::mmap_anonymous(
                ptr::null_mut(),
                mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let mapping = NonNull::new(mapping).expect("the kernel maps nothing at address 0 unasked");
        let skip = mapping.as_ptr().cast::<u8>().align_offset(HUGE_PAGE);
        assert!(skip < HUGE_PAGE, "a byte pointer can be aligned");
        // SAFETY: `skip` is less than a huge page, and the mapping is a huge page longer than `bytes`: the result and the
        // `bytes` after it lie within the mapping.
        let base = unsafe { mapping.cast::<u8>().add(skip) };
        let arena = Self { mapping, mapped, base, bytes };
        arena.advise();
        Ok(arena)
    }

    /// Its size in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address `offset` bytes from the start.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.bytes, "byte {offset} of an arena of {} bytes", self.bytes);
        // SAFETY: `offset` is inside of the `bytes` that the mapping holds after `base`, checked above.
        unsafe { self.base.add(offset) }
    }

    /// Gives the pages of `offset .. offset + bytes` back to the kernel; they read as zeroes when they are touched again. Does
    /// nothing where the kernel refuses (pinned or locked pages).
    ///
    /// # Safety
    ///
    /// Nobody holds a reference to that memory, and no operation in flight points to it.
    pub(super) unsafe fn release(&self, offset: usize, bytes: usize) {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "the range is inside of the arena");
        let first = self.at(offset).as_ptr().cast();
        // SAFETY: the range is inside of this mapping; the caller promises that no reference sees its bytes change.
        let _refused = unsafe { mm::madvise(first, bytes, Advice::LinuxDontNeed) };
    }

    /// Says how the memory is used. All of it is advice: where the kernel does not know it, nothing is lost but speed.
    fn advise(&self) {
        let advices = [
            // Up to 45 % at 128 KiB: fewer pages to pin, fewer segments in a bio.
            Advice::LinuxHugepage,
            // A child process never sees clients' data, and fork does not copy tables of pages that the disk writes to.
            Advice::LinuxDontFork,
            // Nor does a core dump.
            Advice::LinuxDontDump,
        ];
        for advice in advices {
            // SAFETY: the range is this mapping's own, and these advices change no byte of it.
            let _unknown = unsafe { mm::madvise(self.base.as_ptr().cast(), self.bytes, advice) };
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and was made with these bounds. Every block handed out holds a reference to
        // the pool that owns the arena, so nothing points into it any more.
        let _cannot_fail = unsafe { mm::munmap(self.mapping.as_ptr(), self.mapped) };
    }
}
