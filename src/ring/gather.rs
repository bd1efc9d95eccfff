//! What one send carries: headers and payloads from many places, in order.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use libc::{iovec, msghdr};
use rustix::io::Errno;

use super::scatter::message;
use super::{Fd, Slice};

/// The most pieces that one system call takes (UIO_MAXIOV).
const MAX_PIECES: usize = 1024;

/// Bytes to be sent on a stream, gathered from headers, which it copies, and payloads, which it shares.
///
/// Append with [`bytes`](Self::bytes) and [`payload`](Self::payload), give it to [`Op::Send`](super::Op::Send), and take it back
/// from the completion: [`advance`](Self::advance) by what was sent, and send it again unless it [`is_empty`](Self::is_empty).
/// A send asks the kernel for all of it, so that this is needed only after an error, a cancellation or more than 1024 pieces.
/// An empty one keeps its memory: two per connection, one in flight and one being filled, allocate nothing in the long run, and
/// everything that becomes ready during one send goes out with the next.
pub struct Gather {
    /// All headers, one after the other.
    headers: Vec<u8>,
    pieces: Vec<Piece>,
    /// The first piece that was not sent whole, and how much of it was sent.
    sent: (usize, usize),
    /// Bytes that were not sent yet.
    len: usize,
    /// What the kernel is shown; built when it is sent.
    vectors: Vec<iovec>,
    message: msghdr,
}

enum Piece {
    /// A range of the headers.
    Header {
        start: usize,
        len: usize,
    },
    Payload(Slice),
}

impl Gather {
    /// With nothing in it. Boxed, because operations lend it by pointer.
    pub fn new() -> Box<Self> {
        Box::new(Self { headers: Vec::new(), pieces: Vec::new(), sent: (0, 0), len: 0, vectors: Vec::new(), message: message() })
    }

    /// Appends a copy of `bytes`: for headers, and for payloads so small that sharing costs more.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        let start = self.headers.len();
        self.headers.extend_from_slice(bytes);
        match self.pieces.last_mut() {
            // Headers in a row (acknowledgements, replies to writes) are one piece.
            Some(Piece::Header { len, .. }) => *len += bytes.len(),
            _ => self.pieces.push(Piece::Header { start, len: bytes.len() }),
        }
    }

    /// Appends a payload; its memory is held until it was sent.
    pub fn payload(&mut self, payload: Slice) {
        if !payload.is_empty() {
            self.len += payload.len();
            self.pieces.push(Piece::Payload(payload));
        }
    }

    /// The bytes that were not sent yet.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everything was sent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops the first `sent` bytes. Payloads are given back when all has been sent.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn advance(&mut self, sent: usize) {
        assert!(sent <= self.len, "{sent} bytes were sent of {}", self.len);
        self.len -= sent;
        if self.len == 0 {
            self.clear();
            return;
        }
        self.sent.1 += sent;
        while self.sent.1 >= self.pieces[self.sent.0].len() {
            self.sent.1 -= self.pieces[self.sent.0].len();
            self.sent.0 += 1;
        }
    }

    /// Sends what the socket takes at once, without the ring and without waiting; how many bytes that was. They are
    /// [advanced](Self::advance) over. What is left is for [`Op::Send`](super::Op::Send), which waits.
    ///
    /// A send through the ring that the socket takes at once costs the same system call, and its completion ends the wait of
    /// the turn that submits it.
    ///
    /// # Errors
    ///
    /// Those of sendmsg but for EAGAIN, which is 0 bytes.
    pub fn send_now(&mut self, socket: &Fd) -> Result<usize, Errno> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let sent = match self.aim() {
            // SAFETY: it points to bytes of this gather, which is borrowed meanwhile.
            Aim::One(at, len) => unsafe { libc::send(fd, at.cast(), len as usize, flags) },
            // SAFETY: the message, its vectors and what they point to belong to this gather, which is borrowed meanwhile.
            Aim::Many(message) => unsafe { libc::sendmsg(fd, message, flags) },
        };
        match usize::try_from(sent) {
            Ok(sent) => {
                self.advance(sent);
                Ok(sent)
            }
            Err(_) => match io::Error::last_os_error().raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::AGAIN | Errno::INTR) => Ok(0),
                Some(error) => Err(error),
                None => Err(Errno::IO),
            },
        }
    }

    /// Drops everything, keeping the memory of the headers.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.pieces.clear();
        self.sent = (0, 0);
        self.len = 0;
    }

    /// Points the vectors at what is left, as much as one system call takes.
    pub(super) fn aim(&mut self) -> Aim {
        self.vectors.clear();
        let (first, skip) = self.sent;
        for (index, piece) in self.pieces[first..].iter().take(MAX_PIECES).enumerate() {
            let bytes = match piece {
                Piece::Header { start, len } => &self.headers[*start..start + len],
                Piece::Payload(slice) => slice,
            };
            let bytes = if index == 0 { &bytes[skip..] } else { bytes };
            self.vectors.push(iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        }
        if let [only] = self.vectors[..]
            && let Ok(len) = u32::try_from(only.iov_len)
        {
            return Aim::One(only.iov_base.cast_const().cast(), len);
        }
        self.message.msg_iov = self.vectors.as_mut_ptr();
        // The type of `msg_iovlen` differs between C libraries.
        self.message.msg_iovlen = self.vectors.len() as _;
        Aim::Many(&raw const self.message)
    }
}

/// What a send operation points to: valid while the gather lives and is not changed.
pub(super) enum Aim {
    /// One stretch of bytes: a plain send does, which is cheaper.
    One(*const u8, u32),
    /// A message with vectors.
    Many(*const msghdr),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Header { len, .. } => *len,
            Self::Payload(slice) => slice.len(),
        }
    }
}

impl fmt::Debug for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gather({} bytes in {} pieces)", self.len, self.pieces.len() - self.sent.0)
    }
}
