//! Heartbeats and leases of the connections to other nodes (rules F2 and F3).
//!
//! One exchange of heartbeats per connection grants for every session it carries, so that a thousand idle resources cost what
//! one costs. A ping asks, a pong grants: the lease runs from when the *asker sent* the ping, by its own clock, and ends for the
//! granter at the latest one lease and its drift after the pong was sent. A refusal ([`Message::Fenced`](crate::wire::Message))
//! travels on the same connection before the next pong, so that a grant never covers a session that was fenced before it.
//!
//! Drive a [`Link`] like this: call [`ping`](Link::ping) when [`next_ping`](Link::next_ping) has come and send what it returns;
//! answer every ping with a pong and call [`granted`](Link::granted) *before* it is sent; call [`ponged`](Link::ponged) for every pong and
//! [`heard`](Link::heard) for whatever arrives; close the connection when [`is_silent`](Link::is_silent).

use std::collections::{BTreeMap, VecDeque};

use crate::units::{Instant, NodeId};

use super::mutant::{Mutant, mutated};
use super::settings::Timeouts;

/// The heartbeats of one connection, and what is known of the leases on it.
#[derive(Debug)]
pub struct Link {
    up: bool,
    next_number: u64,
    /// Pings not yet answered: number and when sent.
    asked: VecDeque<(u64, Instant)>,
    next_ping: Instant,
    heard: Instant,
    /// When the ping was sent that the latest pong answers; of this connection only.
    lease_from: Option<Instant>,
    /// When this node last granted, on this connection or the ones before.
    granted: Option<Instant>,
}

impl Link {
    /// A peer to which there has been no connection yet.
    pub fn new(now: Instant) -> Self {
        Self { up: false, next_number: 1, asked: VecDeque::new(), next_ping: now, heard: now, lease_from: None, granted: None }
    }

    /// There is a connection.
    pub fn connected(&mut self, now: Instant) {
        self.up = true;
        self.asked.clear();
        self.lease_from = None;
        self.next_ping = now;
        self.heard = now;
    }

    /// The connection is gone, and with it every lease that was held by it. What was granted stays granted.
    pub fn disconnected(&mut self) {
        self.up = false;
        self.asked.clear();
        self.lease_from = None;
        if mutated(Mutant::CloseEndsLease) {
            self.granted = Some(Instant(0));
        }
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// When the next ping is due.
    pub fn next_ping(&self) -> Option<Instant> {
        self.up.then_some(self.next_ping)
    }

    /// The number of a ping that the caller sends now.
    pub fn ping(&mut self, now: Instant, timeouts: &Timeouts) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.asked.push_back((number, now));
        self.next_ping = now.after(timeouts.heartbeat);
        number
    }

    /// The pong to ping `number` has arrived. Returns whether it renewed the lease.
    pub fn ponged(&mut self, number: u64) -> bool {
        let mut renewed = false;
        while let Some(&(asked, at)) = self.asked.front() {
            if asked > number {
                break;
            }
            self.asked.pop_front();
            if asked == number {
                self.lease_from = Some(if mutated(Mutant::LeaseFromPong) { self.heard } else { at });
                renewed = true;
            }
        }
        renewed
    }

    /// A pong is about to be sent.
    pub fn granted(&mut self, now: Instant) {
        self.granted = Some(now);
    }

    /// Something has arrived.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether the peer has been silent for so long that the connection is to be closed.
    pub fn is_silent(&self, now: Instant, timeouts: &Timeouts) -> bool {
        self.up && now.since(self.heard) >= timeouts.peer_silent
    }

    /// When [`is_silent`](Self::is_silent) becomes true unless something arrives.
    pub fn silent_at(&self, timeouts: &Timeouts) -> Option<Instant> {
        self.up.then(|| self.heard.after(timeouts.peer_silent))
    }

    /// When the last answered ping was sent, over this connection.
    pub fn lease_from(&self) -> Option<Instant> {
        self.lease_from
    }

    /// When this node last granted a lease to the peer, over any connection.
    pub fn last_grant(&self) -> Option<Instant> {
        self.granted
    }
}

/// The connections of one lane, by peer. A link stays after its connection is gone: a grant outlives it.
pub type Links = BTreeMap<NodeId, Link>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    #[test]
    fn a_lease_runs_from_when_the_ping_was_sent_not_when_the_pong_came() {
        let times = Timeouts::default();
        let mut link = Link::new(at(0));
        link.connected(at(0));
        let first = link.ping(at(10), &times);
        let second = link.ping(at(20), &times);
        assert!(link.ponged(first));
        assert_eq!(link.lease_from(), Some(at(10)));
        assert!(link.ponged(second));
        assert_eq!(link.lease_from(), Some(at(20)));
        assert!(!link.ponged(first), "a pong that was answered before grants nothing");
        assert_eq!(link.lease_from(), Some(at(20)));
    }

    #[test]
    fn a_pong_of_the_connection_before_grants_nothing() {
        let times = Timeouts::default();
        let mut link = Link::new(at(0));
        link.connected(at(0));
        let old = link.ping(at(1), &times);
        link.disconnected();
        assert_eq!(link.lease_from(), None);
        link.connected(at(2));
        assert!(!link.ponged(old));
    }

    #[test]
    fn a_peer_is_silent_only_after_the_whole_time() {
        let times = Timeouts { peer_silent: Duration::from_secs(2), ..Timeouts::default() };
        let mut link = Link::new(at(0));
        link.connected(at(0));
        link.heard(at(500));
        assert!(!link.is_silent(at(2_499), &times));
        assert!(link.is_silent(at(2_500), &times));
    }
}
