//! What leaves on a connection.

use std::collections::VecDeque;

use crate::ring::{Completion, Fd, Gather, Op, Slice};
use crate::units::Instant;

use super::End;

/// Up to about this much goes out with one send, so that a send that takes long means a receiver that does not read.
const SEND: usize = 1 << 20;

/// Gathers that are kept for later.
const SPARE: usize = 2;

/// The sending half of a stream: what the socket takes is sent at once; everything that becomes ready while the rest of it is in
/// flight goes out with the next.
#[derive(Debug, Default)]
pub(super) struct Outflow {
    /// What waits, each of at most [`SEND`] bytes and a payload; the last one is being filled.
    waiting: VecDeque<Box<Gather>>,
    #[expect(clippy::vec_box, reason = "operations lend them by pointer, so they come in boxes")]
    spare: Vec<Box<Gather>>,
    /// When the send in flight was begun, and how much it sends.
    sending: Option<(Instant, usize)>,
    /// Bytes that wait, without those in flight.
    queued: usize,
}

impl Outflow {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.queued += bytes.len();
        self.open().bytes(bytes);
    }

    pub(super) fn put_payload(&mut self, payload: Slice) {
        self.queued += payload.len();
        self.open().payload(payload);
    }

    pub(super) fn len(&self) -> usize {
        self.queued + self.sending.map_or(0, |(_, bytes)| bytes)
    }

    pub(super) fn sending_since(&self) -> Option<Instant> {
        self.sending.map(|(since, _)| since)
    }

    /// Sends what the socket takes at once; the operation that sends more, when it did not take everything.
    pub(super) fn send(&mut self, socket: &Fd, now: Instant) -> Result<Option<Op>, End> {
        while self.sending.is_none() {
            let Some(gather) = self.waiting.front_mut().filter(|gather| !gather.is_empty()) else { break };
            self.queued -= gather.send_now(socket)?;
            let Some(gather) = self.waiting.pop_front() else { break };
            if gather.is_empty() {
                self.keep(gather);
                continue;
            }
            self.queued -= gather.len();
            self.sending = Some((now, gather.len()));
            return Ok(Some(Op::Send { socket: socket.clone(), gather }));
        }
        Ok(None)
    }

    pub(super) fn sent<T>(&mut self, completion: Completion<T>) -> Result<(), End> {
        let Completion { op: Op::Send { mut gather, .. }, result, .. } = completion else {
            panic!("a stream sends by sends");
        };
        self.sending = None;
        gather.advance(result? as usize);
        if !gather.is_empty() {
            self.queued += gather.len();
            self.waiting.push_front(gather);
        } else {
            self.keep(gather);
        }
        Ok(())
    }

    fn keep(&mut self, gather: Box<Gather>) {
        if self.spare.len() < SPARE {
            self.spare.push(gather);
        }
    }

    /// The gather that takes more.
    fn open(&mut self) -> &mut Gather {
        if self.waiting.back().is_none_or(|gather| gather.len() >= SEND) {
            self.waiting.push_back(self.spare.pop().unwrap_or_else(Gather::new));
        }
        self.waiting.back_mut().expect("one was just added")
    }
}
