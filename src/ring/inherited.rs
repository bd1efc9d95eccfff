//! Listening sockets that whoever started this process has opened: systemd's socket activation, which libnbd's clients speak, too.

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{AddressFamily, SocketType, sockopt};

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// Of a path.
    Unix(UnixListener),
    /// Of an address and port.
    Tcp(TcpListener),
}

/// Takes the listening sockets that this process was started with, as `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` tell
/// (sd_listen_fds(3)). None when the variables are for another process, and none the second time. They are not handed on to programs
/// that this one starts.
///
/// # Errors
///
/// If the variables make no sense, or something is among the descriptors that is no listening stream socket: whoever handed it over
/// meant something else.
pub fn inherited_listeners() -> io::Result<Vec<Listener>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    sd_notify::listen_fds_with_names()?.map(|(fd, name)| take(fd, &name)).collect()
}

fn take(fd: i32, name: &str) -> io::Result<Listener> {
    let unfit = |what: String| {
        let text = format!("descriptor {fd} ('{name}'), which this process was started with, {what}");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    // SAFETY: it is open: `listen_fds_with_names` has just set a flag of it, and nobody closes what was handed to this process but
    // the one who takes it, once, below.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let listens = sockopt::socket_acceptconn(borrowed).unwrap_or(false);
    if !listens || sockopt::socket_type(borrowed)? != SocketType::STREAM {
        return Err(unfit("is no socket that listens for connections".to_owned()));
    }
    // SAFETY: LISTEN_PID is this process, so the descriptor was left open for it by the one who started it and belongs to no other
    // object here; `TAKEN` sees to it that only one is ever made of it. A descriptor of this process' own that got the number
    // because the variables lie is not a listening socket: it opens those after it has taken these.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    match sockopt::socket_domain(&owned)? {
        AddressFamily::UNIX => Ok(Listener::Unix(owned.into())),
        AddressFamily::INET | AddressFamily::INET6 => Ok(Listener::Tcp(owned.into())),
        other => Err(unfit(format!("is of address family {}", other.as_raw()))),
    }
}
