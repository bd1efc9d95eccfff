//! Descriptors that operations in flight keep open.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// A shared descriptor. Every operation holds a clone until it completes, so that the number cannot come to mean another file
/// between an operation's making and its submission. It is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Fd(Rc<OwnedFd>);

impl Fd {
    /// Takes over a stream socket. It becomes blocking: on a non-blocking descriptor the kernel answers EAGAIN instead of
    /// waiting until there is something to receive or room to send. (The ring never blocks on it either way.)
    ///
    /// # Errors
    ///
    /// Those of fcntl.
    pub fn socket(socket: OwnedFd) -> io::Result<Self> {
        let flags = fcntl_getfl(&socket)?;
        fcntl_setfl(&socket, flags - OFlags::NONBLOCK)?;
        Ok(Self(Rc::new(socket)))
    }

    /// The descriptor back, when no operation and no other handle has it.
    ///
    /// # Errors
    ///
    /// The handle itself, when it is not the only one.
    pub fn try_into_owned(self) -> Result<OwnedFd, Self> {
        Rc::try_unwrap(self.0).map_err(Self)
    }

    pub(super) fn raw(&self) -> io_uring::types::Fd {
        io_uring::types::Fd(self.0.as_raw_fd())
    }
}

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Self {
        Self(Rc::new(fd))
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
