//! Failing I/O that no quorum allows, where that is asked for (`on-no-quorum=io-error`, rule Q11).
//!
//! A request that fails so is over for its client, and not undone: what was in flight keeps its place in the order, and what comes later waits
//! for it. It is on some disks or on none, as with every write that fails.

use crate::units::Instant;

use super::core::Engine;
use super::event::{Command, Failure};
use super::flights::Cause;
use super::mutant::{Mutant, mutated};
use super::reign::State;
use super::requests::{order_key, release_buffer};

impl Engine {
    /// Fails what waits, when it has waited for long enough.
    pub(super) fn consider_no_quorum(&mut self) {
        if !self.is_starved() {
            self.starved_since = None;
            return;
        }
        self.starved_since.get_or_insert(self.now);
        if self.fails_io() {
            self.fail_what_is_asked();
            self.fail_forwarded();
        }
    }

    /// Whether requests are failed now.
    pub(super) fn fails_io(&self) -> bool {
        self.io_fails_from().is_some_and(|from| from <= self.now)
    }

    /// From when on requests are failed, should nothing change.
    pub(super) fn io_fails_from(&self) -> Option<Instant> {
        Some(self.starved_since?.after(self.settings.io_fails_after?))
    }

    /// Whether this node's clients, or a primary's guests, wait for somebody who is away, and would get errors for it.
    fn is_starved(&self) -> bool {
        if self.settings.io_fails_after.is_none() || self.is_off() {
            return false;
        }
        let Some(reign) = &self.reign else {
            return !self.clients.is_empty() && self.forward.server.is_none();
        };
        let unanswered = self.change.as_ref().is_some_and(|change| change.unanswered);
        let away = reign.ack.iter().any(|at| !self.peers[at].data);
        away || unanswered && self.own_word_missing()
    }

    /// Fails every request that is not answered. The last goes first: what it waited for would let it begin.
    fn fail_what_is_asked(&mut self) {
        let Some(reign) = &mut self.reign else { return };
        reign.held.clear();
        let keys: Vec<u64> = reign.requests.keys().collect();
        for key in keys.into_iter().rev() {
            let pending = self.reign.as_ref().and_then(|reign| reign.requests.get(key));
            match pending.map(|pending| pending.state) {
                Some(State::Waiting | State::Reading | State::Flushing) => self.fail(key, Failure::Io),
                // These wait for this node's own disk, and are in flight then.
                Some(State::Edges(_) | State::Heating) => {}
                Some(State::Flying) | None => {}
            }
        }
        self.fail_flights();
    }

    /// Tells the clients of writes in flight that they have failed. The writes go on, as those that were answered early do.
    fn fail_flights(&mut self) {
        let Some(reign) = &mut self.reign else { return };
        for seq in reign.flights.seqs() {
            let Some(reign) = &mut self.reign else { return };
            let Some(flight) = reign.flights.get_mut(seq).filter(|flight| !flight.answered) else { continue };
            let Cause::Client(key) = flight.cause else { continue };
            flight.answered = true;
            if let Some((asker, origin)) = reign.requests.get(key).map(|pending| (pending.asker, pending.origin)) {
                self.tell(asker, origin, Err(Failure::Io), None);
            }
            if mutated(Mutant::FailedFlightsLeave) {
                self.leave(order_key(key));
            }
            self.check_flight(seq);
        }
    }

    /// Fails what this node's clients have asked for and nobody takes.
    fn fail_forwarded(&mut self) {
        for (id, request) in self.forward.give_up() {
            release_buffer(&mut self.out, &request);
            self.out.push(Command::Complete { id, result: Err(Failure::Io) });
        }
    }
}
