//! The operations.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, squeue::Entry, types};
use rustix::io::Errno;

use super::gather::Aim;
use super::{Buffer, Fd, Gather, Place, Pool, Scatter, Slice};
use crate::units::Instant;

/// A range of bytes inside of a buffer or slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// All of `len` bytes.
    ///
    /// # Panics
    ///
    /// If `len` is not a `u32`: no buffer is that long.
    pub fn all(len: usize) -> Self {
        Self::new(0, len)
    }

    /// From `start` to `end`.
    ///
    /// # Panics
    ///
    /// If they are not `u32`s: no buffer is that long.
    pub fn new(start: usize, end: usize) -> Self {
        let narrow = |n| u32::try_from(n).expect("buffers are at most 32 MiB");
        Self { start: narrow(start), end: narrow(end) }
    }

    /// How many bytes.
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether it is no byte at all.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether it is inside of `len` bytes.
    pub(super) fn fits(self, len: usize) -> bool {
        self.start <= self.end && self.end as usize <= len
    }

    pub(super) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// An operation. It owns what it works on until it completes; the completion gives it back whole.
///
/// Results are those of the system call of the same name. Reads, writes and receives may be short.
#[derive(Debug)]
pub enum Op {
    /// Does nothing; result 0.
    Nop,
    /// pread into a part of a buffer. With O_DIRECT, offset and span are multiples of the device's sectors.
    Read {
        /// The file or device.
        file: Fd,
        /// Where in the file.
        offset: u64,
        /// What is filled.
        into: Buffer,
        /// Which part of it.
        span: Span,
    },
    /// pwrite of a part of a slice.
    Write {
        /// The file or device.
        file: Fd,
        /// Where in the file.
        offset: u64,
        /// What is written.
        from: Slice,
        /// Which part of it.
        span: Span,
        /// Completes only when the data is durable (RWF_DSYNC: FUA where the device has it).
        durable: bool,
    },
    /// fdatasync: every write to the file that has completed before this is *submitted* is durable when this completes.
    Sync {
        /// The file or device.
        file: Fd,
    },
    /// fallocate: the range reads as zeroes afterwards. EOPNOTSUPP where the file or device cannot do it.
    Zero {
        /// The file or device.
        file: Fd,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
        /// What becomes of the space.
        how: ZeroBy,
    },
    /// recv. Result 0: the other side has sent all it will send.
    Receive {
        /// The socket, from [`Fd::socket`].
        socket: Fd,
        /// What is filled.
        into: Buffer,
        /// Which part of it.
        span: Span,
        /// Wait until the whole span is filled (MSG_WAITALL); short only at the end of the stream, after an error, or cancelled.
        exact: bool,
        /// Nothing is expected to be there yet: do not try before the socket is readable. A hint; see
        /// [`Completion::more`](super::Completion::more).
        idle: bool,
    },
    /// recvmsg into several buffers, one after the other: completes with what is there. Result 0: the end of the stream.
    ReceiveScattered {
        /// The socket, from [`Fd::socket`].
        socket: Fd,
        /// What is filled.
        into: Box<Scatter>,
        /// As in [`Receive`](Self::Receive).
        idle: bool,
    },
    /// send or sendmsg of all that the gather holds (MSG_WAITALL, MSG_NOSIGNAL). On completion [`Gather::advance`] it.
    Send {
        /// The socket, from [`Fd::socket`].
        socket: Fd,
        /// What is sent; not empty.
        gather: Box<Gather>,
    },
    /// shutdown: operations pending on the socket complete.
    Shutdown {
        /// The socket.
        socket: Fd,
        /// Which direction.
        how: std::net::Shutdown,
    },
    /// close, for descriptors whose closing may take long. When it completes the descriptor is gone.
    Close(Option<OwnedFd>),
    /// poll, once.
    Poll {
        /// What is waited on.
        fd: Fd,
        /// For what.
        until: PollFor,
    },
    /// Waits until a moment of CLOCK_BOOTTIME; result ETIME.
    Timeout {
        /// The moment.
        at: Instant,
    },
}

/// What [`Op::Poll`] waits for. Errors and the end of both directions end every wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PollFor {
    /// There is something to read.
    Readable,
    /// There is room to write.
    Writable,
    /// The other side of a stream socket has closed its end, whatever is still to be read.
    HangUp,
}

/// How [`Op::Zero`] makes zeroes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZeroBy {
    /// A hole: the space is given back (FALLOC_FL_PUNCH_HOLE). On block devices: zeroed with unmap.
    Punch,
    /// Zeroes that keep their space (FALLOC_FL_ZERO_RANGE). On block devices: zeroed without unmap.
    Allocate,
}

impl ZeroBy {
    fn mode(self) -> i32 {
        let mode = match self {
            Self::Punch => libc::FALLOC_FL_PUNCH_HOLE,
            Self::Allocate => libc::FALLOC_FL_ZERO_RANGE,
        };
        mode | libc::FALLOC_FL_KEEP_SIZE
    }
}

impl Op {
    /// Panics if a span is not inside of its buffer.
    pub(super) fn check(&self) {
        let (span, len) = match self {
            Self::Read { into, span, .. } | Self::Receive { into, span, .. } => (span, into.len()),
            Self::Write { from, span, .. } => (span, from.len()),
            _ => return,
        };
        assert!(span.fits(len), "{span:?} of a buffer of {len} bytes");
    }

    /// Whether a thread that waits for it waits for a disk.
    pub(super) fn is_disk(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Write { .. } | Self::Sync { .. } | Self::Zero { .. })
    }

    /// The moment of a time-out, as the kernel wants it.
    pub(super) fn timespec(&self) -> Option<types::Timespec> {
        let Self::Timeout { at: Instant(nanoseconds) } = self else { return None };
        Some(timespec(Duration::from_nanos(*nanoseconds)))
    }

    /// What the kernel is told. It points into what this operation owns, and to `timespec`.
    pub(super) fn entry(&mut self, timespec: *const types::Timespec, registered: &Registered) -> Entry {
        match self {
            Self::Nop => opcode::Nop::new().build(),
            Self::Read { file, offset, into, span } => {
                let index = registered.index(&into.place());
                let bytes = &mut into[span.range()];
                let (at, len) = (bytes.as_mut_ptr(), length(bytes));
                match index {
                    Some(index) => opcode::ReadFixed::new(file.raw(), at, len, index).offset(*offset).build(),
                    None => opcode::Read::new(file.raw(), at, len).offset(*offset).build(),
                }
            }
            Self::Write { file, offset, from, span, durable } => {
                let bytes = &from[span.range()];
                let (at, len) = (bytes.as_ptr(), length(bytes));
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                match registered.index(&from.place()) {
                    Some(index) => opcode::WriteFixed::new(file.raw(), at, len, index).offset(*offset).rw_flags(flags).build(),
                    None => opcode::Write::new(file.raw(), at, len).offset(*offset).rw_flags(flags).build(),
                }
            }
            Self::Sync { file } => opcode::Fsync::new(file.raw()).flags(types::FsyncFlags::DATASYNC).build(),
            Self::Zero { file, offset, length, how } => {
                opcode::Fallocate::new(file.raw(), *length).offset(*offset).mode(how.mode()).build()
            }
            Self::Receive { socket, into, span, exact, idle } => {
                let bytes = &mut into[span.range()];
                let (at, len) = (bytes.as_mut_ptr(), length(bytes));
                let flags = if *exact { libc::MSG_WAITALL } else { 0 };
                let priority = if *idle { POLL_FIRST } else { 0 };
                opcode::Recv::new(socket.raw(), at, len).flags(flags).ioprio(priority).build()
            }
            Self::ReceiveScattered { socket, into, idle } => {
                let priority = if *idle { POLL_FIRST } else { 0 };
                opcode::RecvMsg::new(socket.raw(), into.aim()).ioprio(priority).build()
            }
            Self::Send { socket, gather } => {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                match gather.aim() {
                    Aim::One(at, len) => opcode::Send::new(socket.raw(), at, len).flags(flags).build(),
                    Aim::Many(message) => opcode::SendMsg::new(socket.raw(), message).flags(flags.cast_unsigned()).build(),
                }
            }
            Self::Shutdown { socket, how } => opcode::Shutdown::new(socket.raw(), shutdown(*how)).build(),
            Self::Close(fd) => {
                let fd = fd.as_ref().expect("a descriptor is closed once");
                opcode::Close::new(types::Fd(fd.as_raw_fd())).build()
            }
            Self::Poll { fd, until } => {
                let events = match until {
                    PollFor::Readable => libc::POLLIN,
                    PollFor::Writable => libc::POLLOUT,
                    PollFor::HangUp => libc::POLLRDHUP,
                };
                opcode::PollAdd::new(fd.raw(), u32::from(events.cast_unsigned())).build()
            }
            Self::Timeout { .. } => {
                let flags = types::TimeoutFlags::ABS | types::TimeoutFlags::BOOTTIME;
                opcode::Timeout::new(timespec).flags(flags).build()
            }
        }
    }

    /// Called when it has completed: a descriptor that the kernel has closed is not closed again.
    pub(super) fn settle(&mut self, result: Result<u32, Errno>) {
        // close(2) frees the number even when it reports what became of the last writes; not when it was never tried.
        let closed = matches!(result, Ok(_) | Err(Errno::IO | Errno::NOSPC | Errno::DQUOT | Errno::INTR));
        if let Self::Close(fd) = self
            && closed
            && let Some(fd) = fd.take()
        {
            let _gone = fd.into_raw_fd();
        }
    }
}

/// IORING_RECVSEND_POLL_FIRST.
const POLL_FIRST: u16 = 1;

/// The part of a pool that is registered with the ring.
#[derive(Debug, Default)]
pub(super) struct Registered {
    pool: Option<(Pool, usize)>,
}

impl Registered {
    /// The kernel takes registered memory in stretches of at most 1 GiB; blocks do not straddle them.
    pub(super) const STRETCH: usize = 1 << 30;

    pub(super) fn new(pool: Pool, bytes: usize) -> Self {
        Self { pool: Some((pool, bytes)) }
    }

    fn index(&self, place: &Place<'_>) -> Option<u16> {
        let (pool, bytes) = self.pool.as_ref()?;
        let end = place.end_in(pool).filter(|end| end <= bytes)?;
        u16::try_from((end - 1) / Self::STRETCH).ok()
    }
}

/// A time as the kernel wants it.
pub(super) fn timespec(time: Duration) -> types::Timespec {
    types::Timespec::new().sec(time.as_secs()).nsec(time.subsec_nanos())
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("buffers are at most 32 MiB")
}

fn shutdown(how: std::net::Shutdown) -> i32 {
    match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    }
}
