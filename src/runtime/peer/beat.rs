//! Heartbeats: they ask for leases, and find peers that are silent.

use std::time::Duration;

use crate::engine::Event;
use crate::units::NodeId;
use crate::wire::LinkMessage;

use crate::runtime::shard::Shard;
use crate::runtime::slab::Key;

/// Heartbeats that are due within this time go out together: a shard that is woken once need not be woken again.
const TOGETHER: Duration = Duration::from_millis(10);

impl Shard {
    /// Sends the heartbeats that are due and closes connections to silent peers.
    pub(in crate::runtime) fn beat(&mut self) {
        let now = self.io.now;
        let soon = now.after(TOGETHER);
        for key in self.peers.keys() {
            let Some((connection, link)) = self.peers.link(key) else { continue };
            if link.is_silent(now, &connection.timeouts) {
                let silence = connection.timeouts.peer_silent;
                tracing::warn!(peer = %connection.peer, "has not said anything for {silence:?}");
                self.close_link(key, &"the peer is silent", true);
            } else if link.next_ping().is_some_and(|at| at <= soon) {
                self.ping(key);
            }
        }
        self.plan_beat();
    }

    /// A read waits for a lease: asks for it now.
    pub(in crate::runtime) fn ask_lease(&mut self, resource: Key, peer: NodeId) {
        let Some(lane) = self.resources.get(resource).map(|resource| resource.lane) else { return };
        let Some(key) = self.peers.connection(lane, peer) else { return };
        self.peers.ask(lane, peer, resource);
        // Several reads that find out in the same turn share one ping.
        if self.peers.get(key).is_some_and(|connection| connection.pinged != Some(self.io.now)) {
            self.ping(key);
        }
    }

    pub(super) fn ping_arrived(&mut self, key: Key, seq: u64) {
        let now = self.io.now;
        if let Some((_, link)) = self.peers.link(key) {
            link.granted(now);
            self.say_on_link(key, LinkMessage::Pong { seq });
        }
    }

    pub(super) fn pong_arrived(&mut self, key: Key, seq: u64) {
        let Some((connection, link)) = self.peers.link(key) else { return };
        if link.ponged(seq) {
            let (lane, peer) = (connection.lane, connection.peer);
            for resource in self.peers.take_asking(lane, peer) {
                self.feed(resource, Event::LeaseRenewed);
            }
        }
    }

    fn ping(&mut self, key: Key) {
        let now = self.io.now;
        let Some((connection, link)) = self.peers.link(key) else { return };
        let seq = link.ping(now, &connection.timeouts);
        connection.pinged = Some(now);
        self.say_on_link(key, LinkMessage::Ping { seq, sent_at: now.0 });
    }

    fn plan_beat(&mut self) {
        let mut next = None;
        for key in self.peers.keys() {
            if let Some((connection, link)) = self.peers.link(key) {
                let due = [link.next_ping(), link.silent_at(&connection.timeouts)].into_iter().flatten().min();
                next = [next, due].into_iter().flatten().min();
            }
        }
        self.peers.set_next_beat(next);
    }
}
