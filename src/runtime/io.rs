//! What every part of a shard works with: the ring, the memory, the clock.

use std::collections::VecDeque;

use crate::ring::{Completion, Op, Ring, RingError, Waker, os};
use crate::units::Instant;

use super::counters::Counters;
use super::memory::Memory;
use super::slab::Key;

/// Whose operation has completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Token {
    /// A receive of an NBD client.
    ClientReceive(Key),
    /// A send to an NBD client.
    ClientSend(Key),
    /// A client that is not being read from has hung up.
    ClientHangUp(Key),
    /// A receive of a connection to a peer.
    PeerReceive(Key),
    /// A send on a connection to a peer.
    PeerSend(Key),
    /// A part of a disk operation.
    Disk(Key),
}

/// The ring, the memory, the clock.
#[derive(Debug)]
pub(super) struct Io {
    ring: Ring<Token>,
    /// Operations that the ring had no room for.
    backlog: VecDeque<(Op, Token)>,
    /// The shard's memory.
    pub(super) memory: Memory,
    /// What the shard has done.
    pub(super) counters: Counters,
    /// The moment that is now: read after the last completions were taken from the kernel, so that it is never earlier than what
    /// they report (rule F2).
    pub(super) now: Instant,
}

impl Io {
    /// Puts them together.
    pub(super) fn new(ring: Ring<Token>, memory: Memory) -> Self {
        Self { ring, backlog: VecDeque::new(), memory, counters: Counters::default(), now: os::now() }
    }

    /// How other threads end this one's wait.
    pub(super) fn waker(&self) -> Waker {
        self.ring.waker()
    }

    /// Starts an operation with the next turn.
    pub(super) fn push(&mut self, op: Op, token: Token) {
        if let Err(full) = self.ring.push(op, token) {
            self.backlog.push_back((full.op, full.token));
        }
    }

    /// The next completion that was taken.
    pub(super) fn next(&mut self) -> Option<Completion<Token>> {
        self.ring.next()
    }

    /// Submits what was pushed and waits for something to happen, until `deadline`. Whether the waker was used.
    ///
    /// # Errors
    ///
    /// When the ring is broken.
    pub(super) fn turn(&mut self, deadline: Option<Instant>) -> Result<bool, RingError> {
        while let Some((op, token)) = self.backlog.pop_front() {
            if let Err(full) = self.ring.push(op, token) {
                self.backlog.push_front((full.op, full.token));
                break;
            }
        }
        let turn = self.ring.turn(deadline)?;
        self.now = os::now();
        self.counters.turns += 1;
        Ok(turn.woken)
    }
}
