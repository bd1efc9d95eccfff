//! io_uring, the memory it works on, disks, and the few raw system calls that others need.
//!
//! This is the only room with `unsafe`; all that it offers is safe. Everything here belongs to one thread, that of the
//! [`Ring`], but for [`Waker`] and [`OpenDisk`], which travel.
//!
//! - [`Pool`]: bounded, page-aligned memory. A [`Buffer`] has one owner and can be changed; frozen, it is a [`Slice`], which can
//!   be in flight to a disk and to several sockets at once.
//! - [`Ring`]: operations in, completions out, one system call a turn. An [`Op`] in flight belongs to the kernel.
//! - [`Disk`]: a volume's bytes on files and block devices, opened directly, locked.
//! - [`inherited_listeners`]: sockets that this process was started with.
//! - [`os`]: clocks, limits, sockets, devices.
//! - [`loopback`]: a file as a block device.
//!
//! Architecture Invariant: the room knows nothing of replication, of NBD, or of who owns a buffer and why.

#![allow(unsafe_code)]

mod disk;
mod fd;
mod gather;
mod inherited;
pub mod loopback;
mod memory;
mod op;
pub mod os;
mod scatter;
mod setup;
mod slots;
mod uring;
mod wake;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Once;

pub use disk::{Backing, Disk, DiskError, DiskOptions, Extent, OpenDisk, Progress, Segment, Zeroing};
pub use fd::Fd;
pub use gather::Gather;
pub use inherited::{Listener, inherited_listeners};
use memory::Place;
pub use memory::{Buffer, MAX_BUFFER, PAGE, Pool, Slice};
pub use op::{Op, PollFor, Span, ZeroBy};
pub use scatter::Scatter;
pub use setup::RingError;
pub use slots::Handle;
pub use uring::{Completion, DROP_PATIENCE, Full, Ring, RingOptions, Turn};
pub use wake::Waker;

/// Says once that memory is used unregistered.
fn note_unregistered(error: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::info!(
            %error,
            "buffers are not registered with io_uring; raise RLIMIT_MEMLOCK (LimitMEMLOCK= in the unit) to spare some CPU per I/O"
        );
    });
}
