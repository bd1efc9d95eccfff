//! What arrives on a connection.

use crate::ring::{Buffer, Completion, Fd, Op, Span};

use super::End;

/// A payload of which this much is still missing is received straight into its buffer; of less, along with what follows it.
const DIRECT: usize = 8 << 10;

/// The receiving half of a stream: bytes go to a staging buffer, many messages with one receive, or straight into the buffer of a
/// payload.
#[derive(Debug)]
pub(super) struct Inflow {
    /// `None` while the kernel fills it.
    staging: Option<Buffer>,
    /// What of it was received and not used.
    start: usize,
    end: usize,
    /// How much a receive into it asks for.
    expected: usize,
    payload: Option<Payload>,
    /// Whether the socket was empty after the last receive.
    idle: bool,
    receiving: bool,
}

/// A payload on its way to a buffer of its own.
#[derive(Debug)]
struct Payload {
    /// `None` while the kernel fills it.
    buffer: Option<Buffer>,
    at: usize,
    end: usize,
}

impl Inflow {
    /// With bytes that were received before.
    ///
    /// # Panics
    ///
    /// If those are more than the staging buffer holds.
    pub(super) fn new(mut staging: Buffer, early: &[u8]) -> Self {
        staging.resize(staging.capacity());
        staging[..early.len()].copy_from_slice(early);
        let expected = staging.len();
        Self { staging: Some(staging), start: 0, end: early.len(), expected, payload: None, idle: true, receiving: false }
    }

    /// See [`Stream::staged`](super::Stream::staged).
    pub(super) fn staged(&self) -> &[u8] {
        self.staging.as_ref().map_or(&[], |staging| &staging[self.start..self.end])
    }

    pub(super) fn skip(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "{count} bytes are skipped of {}", self.end - self.start);
        self.start += count;
    }

    pub(super) fn expect(&mut self, bytes: usize) {
        self.expected = bytes;
    }

    pub(super) fn fill(&mut self, buffer: Buffer, from: usize, to: usize) {
        debug_assert!(self.payload.is_none() && from <= to && to <= buffer.len(), "one payload after the other");
        self.payload = Some(Payload { buffer: Some(buffer), at: from, end: to });
        self.pour();
    }

    pub(super) fn filled(&mut self) -> Option<Buffer> {
        let full = self.payload.as_ref().is_some_and(|payload| payload.at == payload.end && payload.buffer.is_some());
        if full { self.payload.take().and_then(|payload| payload.buffer) } else { None }
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.receiving
    }

    /// The next receive: of a payload that misses much, exactly; else of what is there.
    pub(super) fn receive(&mut self, socket: &Fd) -> Option<Op> {
        if self.receiving {
            return None;
        }
        let (into, span, exact) = match &mut self.payload {
            Some(payload) if payload.end - payload.at >= DIRECT => {
                (payload.buffer.take()?, Span::new(payload.at, payload.end), true)
            }
            _ => {
                self.compact();
                let staging = self.staging.take()?;
                let missing = self.payload.as_ref().map_or(0, |payload| payload.end - payload.at);
                let end = staging.len().min(self.end + missing + self.expected);
                (staging, Span::new(self.end, end), false)
            }
        };
        debug_assert!(!span.is_empty(), "a message is shorter than the staging buffer");
        self.receiving = true;
        Some(Op::Receive { socket: socket.clone(), into, span, exact, idle: self.idle })
    }

    pub(super) fn received<T>(&mut self, completion: Completion<T>) -> Result<(), End> {
        let Completion { op: Op::Receive { into, exact, .. }, result, more, .. } = completion else {
            panic!("a stream receives by receives");
        };
        self.receiving = false;
        self.idle = !more;
        let count = match &mut self.payload {
            Some(payload) if exact => {
                payload.buffer = Some(into);
                &mut payload.at
            }
            _ => {
                self.staging = Some(into);
                &mut self.end
            }
        };
        match result? {
            0 => return Err(End::Closed),
            received => *count += received as usize,
        }
        self.pour();
        Ok(())
    }

    /// Takes bytes from elsewhere than the socket, to where they are wanted. `read` says how many it has put there.
    pub(super) fn take_from(&mut self, mut read: impl FnMut(&mut [u8]) -> Result<usize, End>) -> Result<bool, End> {
        let payload = self.payload.as_mut().filter(|payload| payload.at < payload.end);
        if let Some(Payload { buffer: Some(buffer), at, end }) = payload
            && self.start == self.end
        {
            let count = read(&mut buffer[*at..*end])?;
            *at += count;
            return Ok(count > 0);
        }
        self.compact();
        let Some(staging) = &mut self.staging else { return Ok(false) };
        if self.end == staging.len() {
            return Ok(false);
        }
        let count = read(&mut staging[self.end..])?;
        self.end += count;
        self.pour();
        Ok(count > 0)
    }

    /// Moves staged bytes into the payload that waits for them.
    fn pour(&mut self) {
        let (Some(staging), Some(payload)) = (&self.staging, &mut self.payload) else { return };
        let Some(buffer) = &mut payload.buffer else { return };
        let count = (payload.end - payload.at).min(self.end - self.start);
        buffer[payload.at..payload.at + count].copy_from_slice(&staging[self.start..self.start + count]);
        payload.at += count;
        self.start += count;
    }

    /// Moves what is left to the front, so that all the room is behind it.
    fn compact(&mut self) {
        let Some(staging) = &mut self.staging else { return };
        if self.start > 0 {
            staging.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Pool;

    /// An inflow that is fed by hand, as a TLS session feeds it.
    fn feed(inflow: &mut Inflow, mut bytes: &[u8]) {
        let mut read = |into: &mut [u8]| {
            let count = into.len().min(bytes.len());
            into[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            Ok(count)
        };
        while inflow.take_from(&mut read).unwrap() {}
        assert!(bytes.is_empty(), "{} bytes found no place", bytes.len());
    }

    #[test]
    fn a_payload_gets_its_bytes_and_the_next_header_stays_staged() {
        let pool = Pool::new(1 << 21).unwrap();
        let mut inflow = Inflow::new(pool.try_allocate(4096).unwrap(), b"HEADab");
        inflow.skip(4);
        inflow.fill(pool.try_allocate(10).unwrap(), 3, 9);
        assert!(inflow.filled().is_none(), "four bytes are missing");
        feed(&mut inflow, b"cdefNEXT");
        let payload = inflow.filled().expect("all of it has arrived");
        assert_eq!(&payload[3..9], b"abcdef");
        assert_eq!(inflow.staged(), b"NEXT");
        assert!(inflow.filled().is_none(), "a payload is taken once");
    }

    #[test]
    fn a_full_staging_buffer_takes_no_more_until_something_was_used() {
        let pool = Pool::new(1 << 21).unwrap();
        let mut inflow = Inflow::new(pool.try_allocate(4096).unwrap(), &[7; 4096]);
        assert!(!inflow.take_from(|_| panic!("there is no room")).unwrap());
        inflow.skip(96);
        feed(&mut inflow, &[8; 96]);
        assert_eq!((inflow.staged().len(), inflow.staged()[4095]), (4096, 8));
    }
}
