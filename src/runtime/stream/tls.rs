//! A TLS session between a socket and plain text.

use std::io::{self, ErrorKind, Read, Write};

use crate::ring::{Buffer, Completion, Fd, Op, Pool, Span};

use super::End;
use super::outflow::Outflow;

/// Room for two of the longest records and what belongs to them.
const CIPHER_TEXT: usize = 40 << 10;

/// A TLS session whose handshake is done, and what was received of it and not decrypted.
#[derive(Debug)]
pub(super) struct Tls {
    session: rustls::Connection,
    /// `None` while the kernel fills it.
    cipher: Option<Buffer>,
    start: usize,
    end: usize,
    idle: bool,
}

impl Tls {
    pub(super) fn new(mut session: rustls::Connection, pool: &Pool) -> io::Result<Self> {
        // What may wait to be sent is bounded by the stream's owner.
        session.set_buffer_limit(None);
        let cipher = pool.try_allocate(CIPHER_TEXT).ok_or(ErrorKind::OutOfMemory)?;
        Ok(Self { session, cipher: Some(cipher), start: 0, end: 0, idle: true })
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.cipher.is_none()
    }

    /// Decrypts into `into` what has arrived; 0 when that is all used.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, End> {
        loop {
            match self.session.reader().read(into) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Closed),
            }
            let Some(cipher) = self.cipher.as_ref().filter(|_| self.start < self.end) else { return Ok(0) };
            let mut left = &cipher[self.start..self.end];
            // It takes what it has room for; there is room, because all plain text was just read.
            let taken = self.session.read_tls(&mut left).map_err(|error| rustls::Error::General(error.to_string()))?;
            self.start += taken;
            self.session.process_new_packets()?;
        }
    }

    pub(super) fn receive(&mut self, socket: &Fd) -> Option<Op> {
        let into = self.cipher.take()?;
        debug_assert!(self.start == self.end, "what was received is decrypted before more is received");
        (self.start, self.end) = (0, 0);
        let span = Span::all(into.len());
        Some(Op::Receive { socket: socket.clone(), into, span, exact: false, idle: self.idle })
    }

    pub(super) fn received<T>(&mut self, completion: Completion<T>) -> Result<(), End> {
        let Completion { op: Op::Receive { into, .. }, result, more, .. } = completion else {
            panic!("a stream receives by receives");
        };
        self.cipher = Some(into);
        self.idle = !more;
        match result? {
            0 => Err(End::Closed),
            count => {
                self.end = count as usize;
                Ok(())
            }
        }
    }

    /// Encrypts.
    pub(super) fn write(&mut self, bytes: &[u8], out: &mut Outflow) {
        let written = self.session.writer().write_all(bytes);
        written.expect("the session's buffer has no limit");
        self.flush(out);
    }

    /// Moves what the session has to say, of its own accord or encrypted, to what is sent.
    pub(super) fn flush(&mut self, out: &mut Outflow) {
        while self.session.wants_write() {
            let moved = self.session.write_tls(&mut Sink(out));
            moved.expect("a sink takes everything");
        }
    }
}

/// An outflow as what a session writes to.
struct Sink<'a>(&'a mut Outflow);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
