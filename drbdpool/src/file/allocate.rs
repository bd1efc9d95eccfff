//! Reserving a file's space.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, IFlags};
use rustix::io::{Errno, retry_on_intr};

/// Whether a file's space is its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reserved {
    /// It is.
    Yes,
    /// The file system cannot reserve; the file has its size and holes.
    Unsupported,
}

/// Makes a file of `old` bytes one of `size` bytes, with its new space reserved and reading as zeros. Not yet durable.
///
/// On an error the file has its old size, but may keep blocks beyond it until it is truncated.
pub(super) fn reserve(file: &File, old: u64, size: u64) -> io::Result<Reserved> {
    // Space before size: a file system that reserves in pieces and runs out half way must not leave a longer file behind. No
    // emulation by writing where this fails (as in posix_fallocate): it would take hours and lose to a concurrent writer.
    let reserved = match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, old, size - old)) {
        Ok(()) => Reserved::Yes,
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Reserved::Unsupported,
        Err(error) => return Err(error.into()),
    };
    file.set_len(size)?;
    Ok(reserved)
}

/// Tells a file system that writes elsewhere (btrfs) to write this empty file in place. Otherwise every write would need new space
/// after all, reserved or not. Others do not know the flag, and need none.
pub(super) fn avoid_copy_on_write(file: &File) {
    let set = rustix::fs::ioctl_getflags(file).and_then(|flags| rustix::fs::ioctl_setflags(file, flags | IFlags::NOCOW));
    if let Err(error) = set {
        tracing::trace!(%error, "the file system knows no in-place files");
    }
}
