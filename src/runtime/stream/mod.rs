//! A connection's bytes: plain or TLS, received into the right place, sent gathered.
//!
//! | file | what it is |
//! |---|---|
//! | [`inflow`] | what arrives: a staging buffer, and payloads that go straight to their own buffer |
//! | [`outflow`] | what leaves: gathered, one send in flight |
//! | [`tls`] | a TLS session between the two, driven by hand |
//!
//! A stream has at most one receive and one send in flight. Its owner makes the operations with [`Stream::receive`] and
//! [`Stream::send`], and gives their completions to [`Stream::received`] and [`Stream::sent`].

mod inflow;
mod outflow;
mod tls;

use std::io;
use std::os::fd::AsFd;

use crate::ring::{Buffer, Completion, Fd, Op, Pool, Slice};
use crate::units::Instant;

use inflow::Inflow;
use outflow::Outflow;
use tls::Tls;

use super::plane::Socket;

/// A connection's bytes.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Fd,
    tls: Option<Box<Tls>>,
    inflow: Inflow,
    outflow: Outflow,
}

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The other side has closed it.
    #[error("closed by the other side")]
    Closed,
    /// The kernel says so.
    #[error("{0}")]
    Io(#[from] rustix::io::Errno),
    /// The TLS session is broken.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Stream {
    /// Takes over a socket, with a staging buffer of its own.
    ///
    /// # Errors
    ///
    /// Those of fcntl.
    pub(super) fn new(socket: Socket, staging: Buffer, pool: &Pool) -> io::Result<Self> {
        let Socket { fd, tls, early } = socket;
        let tls = match tls {
            Some(session) => Some(Box::new(Tls::new(*session, pool)?)),
            None => None,
        };
        Ok(Self { socket: Fd::socket(fd)?, tls, inflow: Inflow::new(staging, &early), outflow: Outflow::default() })
    }

    /// Bytes that arrived and were not used yet. None while a receive is in flight.
    pub(super) fn staged(&self) -> &[u8] {
        self.inflow.staged()
    }

    /// Drops the first `count` staged bytes.
    pub(super) fn skip(&mut self, count: usize) {
        self.inflow.skip(count);
    }

    /// From now on what arrives goes to bytes `from..to` of the buffer, until it is full; staged bytes first.
    pub(super) fn fill(&mut self, buffer: Buffer, from: usize, to: usize) {
        self.inflow.fill(buffer, from, to);
    }

    /// The buffer that was given to [`fill`](Self::fill), when it is full.
    pub(super) fn filled(&mut self) -> Option<Buffer> {
        self.inflow.filled()
    }

    /// Says how much the next receive into the staging buffer asks for at most: little when a large payload is expected to
    /// follow, which would otherwise be copied.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.inflow.expect(bytes);
    }

    /// Decrypts more, if there is more to decrypt. Returns whether anything arrived.
    ///
    /// # Errors
    ///
    /// When the session has ended or is broken.
    pub(super) fn pump(&mut self) -> Result<bool, End> {
        match &mut self.tls {
            Some(tls) if !self.inflow.is_receiving() => self.inflow.take_from(|into| tls.read(into)),
            _ => Ok(false),
        }
    }

    /// The operation that receives more; `None` while one is in flight.
    pub(super) fn receive(&mut self) -> Option<Op> {
        match &mut self.tls {
            None => self.inflow.receive(&self.socket),
            Some(tls) => tls.receive(&self.socket),
        }
    }

    /// A receive has completed.
    ///
    /// # Errors
    ///
    /// When the stream is over.
    pub(super) fn received<T>(&mut self, completion: Completion<T>) -> Result<(), End> {
        match &mut self.tls {
            None => self.inflow.received(completion),
            Some(tls) => tls.received(completion),
        }
    }

    /// Whether a receive is in flight.
    pub(super) fn is_receiving(&self) -> bool {
        self.tls.as_ref().map_or_else(|| self.inflow.is_receiving(), |tls| tls.is_receiving())
    }

    /// Appends bytes to what is to be sent.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.outflow.put(bytes),
            Some(tls) => tls.write(bytes, &mut self.outflow),
        }
    }

    /// Appends a payload, sharing it where it need not be encrypted.
    pub(super) fn put_payload(&mut self, payload: Slice) {
        match &mut self.tls {
            None => self.outflow.put_payload(payload),
            Some(tls) => tls.write(&payload, &mut self.outflow),
        }
    }

    /// Sends what is ready, as far as the socket takes it at once; the operation for the rest. `None` when that was all, or a send
    /// is in flight.
    ///
    /// # Errors
    ///
    /// When the stream is over.
    pub(super) fn send(&mut self, now: Instant) -> Result<Option<Op>, End> {
        if let Some(tls) = &mut self.tls {
            tls.flush(&mut self.outflow);
        }
        self.outflow.send(&self.socket, now)
    }

    /// A send has completed.
    ///
    /// # Errors
    ///
    /// When the stream is over.
    pub(super) fn sent<T>(&mut self, completion: Completion<T>) -> Result<(), End> {
        self.outflow.sent(completion)
    }

    /// The bytes that wait to be sent, those in flight included.
    pub(super) fn unsent(&self) -> usize {
        self.outflow.len()
    }

    /// When the send in flight was begun.
    pub(super) fn sending_since(&self) -> Option<Instant> {
        self.outflow.sending_since()
    }

    /// Whether the other side has closed its end, though there may be bytes that were not received yet.
    pub(super) fn is_hung_up(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::RDHUP)];
        poll(&mut fds, Some(&rustix::time::Timespec::default())).is_ok_and(|found| found > 0)
    }

    /// The socket.
    pub(super) fn socket(&self) -> &Fd {
        &self.socket
    }

    /// Ends it: operations in flight complete, the other side notices. What was not sent is lost.
    pub(super) fn shut(&self) {
        // A socket that is not connected any more needs no shutdown.
        let _gone = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}
