//! Where one receive puts what comes: several buffers in order.

use std::fmt;
use std::ptr;

use libc::{iovec, msghdr};

use super::{Buffer, Span};

/// Buffers that are filled one after the other by one receive: the rest of a large payload goes straight to where it is written
/// from, and what follows it, the next headers, into a staging buffer.
///
/// Fill it with [`push`](Self::push), give it to [`Op::ReceiveScattered`](super::Op::ReceiveScattered), and empty what comes back
/// with [`drain`](Self::drain). An empty one keeps its memory.
pub struct Scatter {
    parts: Vec<(Buffer, Span)>,
    vectors: Vec<iovec>,
    message: msghdr,
}

impl Scatter {
    /// With nothing in it. Boxed, because operations lend it by pointer.
    pub fn new() -> Box<Self> {
        Box::new(Self { parts: Vec::new(), vectors: Vec::new(), message: message() })
    }

    /// Appends a part of a buffer.
    ///
    /// # Panics
    ///
    /// If the span is not inside of the buffer.
    pub fn push(&mut self, buffer: Buffer, span: Span) {
        assert!(span.fits(buffer.len()), "{span:?} of a buffer of {} bytes", buffer.len());
        self.parts.push((buffer, span));
    }

    /// The bytes that it has room for.
    pub fn room(&self) -> usize {
        self.parts.iter().map(|(_, span)| span.len()).sum()
    }

    /// Takes all buffers out, each with the span that the first `count` bytes have filled of it.
    pub fn drain(&mut self, count: usize) -> impl Iterator<Item = (Buffer, Span)> {
        let mut left = count;
        self.parts.drain(..).map(move |(buffer, span)| {
            let filled = span.len().min(left);
            left -= filled;
            let start = span.start as usize;
            (buffer, Span::new(start, start + filled))
        })
    }

    /// Points the vectors at the buffers. The kernel writes to the message, too.
    pub(super) fn aim(&mut self) -> *mut msghdr {
        self.vectors.clear();
        for (buffer, span) in &mut self.parts {
            let bytes = &mut buffer[span.range()];
            self.vectors.push(iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        }
        self.message = message();
        self.message.msg_iov = self.vectors.as_mut_ptr();
        // The type of `msg_iovlen` differs between C libraries.
        self.message.msg_iovlen = self.vectors.len() as _;
        &raw mut self.message
    }
}

/// A message without a name, without control data and without vectors.
pub(super) fn message() -> msghdr {
    msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

impl fmt::Debug for Scatter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scatter({} bytes in {} buffers)", self.room(), self.parts.len())
    }
}
