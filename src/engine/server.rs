//! Who takes the requests of a node that is not primary: finding, asking and losing it (rules W7, W8, Q2).

use std::time::Duration;

use crate::units::{DiskState, Instant, NodeId, Record, Sharing};
use crate::wire::Message;

use super::core::{Engine, Stopping};
use super::entry::{Wanting, Wish};
use super::mutant::{Mutant, mutated};
use super::peerset::PeerSet;

/// How often a node is asked that has not answered.
const ASK_AGAIN: Duration = Duration::from_millis(200);

impl Engine {
    /// Looks for somebody who takes the requests of the clients here.
    pub(super) fn consider_forward(&mut self) {
        if self.reign.is_some() || self.stopping != Stopping::No {
            return;
        }
        let needed = !self.wanting.is_empty() || !self.clients.is_empty() || !self.forward.is_idle();
        if !needed {
            self.forward.reset_server(None);
            self.forward.barred = None;
            let session = self.forward.session;
            for at in std::mem::take(&mut self.forward.asked).iter() {
                self.send(at, Message::Unserve { session });
            }
            return;
        }
        if let Some(at) = self.forward.server
            && !(self.peers[at].is_connected() && self.peers[at].is_primary())
        {
            self.forward.reset_server(None);
        }
        if self.forward.busy_until.is_some_and(|until| until <= self.now) {
            self.forward.busy_until = None;
            self.send_forwarded();
        }
        self.refuse_barred_here();
        self.ask_anew();
        let asks = self.forward.server.is_none() || !self.wanting.is_empty();
        if !asks || self.forward.again.is_some_and(|again| again > self.now) {
            return;
        }
        let Some(at) = self.forward.server.or_else(|| self.server_to_ask()) else { return };
        if self.forward.session == 0 {
            self.forward.session = self.ids.draw();
        }
        self.forward.again = Some(self.now.after(ASK_AGAIN));
        self.forward.asked.insert(at);
        let (session, Wish { entry, waits, sharing }) = (self.forward.session, self.wish());
        self.forward.sharing = Some(sharing);
        self.send(at, Message::Serve { session, entry, waits, sharing });
    }

    /// Clients that share otherwise than those this node has asked for are asked for in another session. Of the questions of one session the
    /// server knows the last, and its answer to one before would let somebody in of whom it knows nothing any more.
    fn ask_anew(&mut self) {
        let asked = self.forward.sharing;
        let other = asked.is_some_and(|asked| asked != self.wish().sharing);
        if self.clients.is_empty() && other && !mutated(Mutant::AnswerBefore) {
            self.drop_forwarded();
        }
    }

    /// When something is to be asked or sent again.
    pub(super) fn forward_due(&self) -> Option<Instant> {
        let asks = self.forward.server.is_none() || !self.wanting.is_empty();
        let again = self.forward.again.filter(|_| asks);
        [again, self.forward.busy_until].into_iter().flatten().min().filter(|_| self.reign.is_none())
    }

    /// The primary, when this node cannot have the role itself; without one, a member that could take it.
    fn server_to_ask(&mut self) -> Option<usize> {
        let primary = self.peers.iter().position(|p| p.is_connected() && p.is_primary());
        if let Some(at) = primary {
            let used = self.peers[at].standing.as_ref().is_some_and(|s| s.in_use);
            return (used || !self.am_member() && !self.waits_for_the_role()).then_some(at);
        }
        if self.change.is_some() || self.promotable().is_ok() || self.primary_may_return() > Some(self.now) {
            return None;
        }
        if !self.am_member() && self.waits_for_the_role() {
            // Whoever could be asked becomes primary anyhow, for the resync, and then gives the role to this node.
            return None;
        }
        let able = self.able_servers();
        let left = able.iter().find(|&at| !self.forward.refused.contains(at));
        if left.is_none() {
            // All have refused, and each may do otherwise now: that the last primary does not come back is clear to one before it is to
            // another. None of them says when.
            self.forward.refused = PeerSet::default();
        }
        left.or_else(|| able.iter().next())
    }

    /// Whether a client here waits for this node's replica to be brought up to date rather than be served by a primary that nobody else uses.
    /// Where nodes decide alone it would wait for that very primary when it is lost, for it was let in under it (rule Q2); a moment later it
    /// is let in here, and the loss of the other node is nothing to it.
    fn waits_for_the_role(&self) -> bool {
        self.is_off() && self.has_disk() && !self.peers.iter().any(|p| p.settings.paused)
    }

    /// Who could be primary for the clients here.
    fn able_servers(&self) -> PeerSet {
        let Some(record) = &self.record else { return PeerSet::default() };
        self.peers_that(|p| p.is_connected() && p.is_member_of(record) && p.disk() == Some(DiskState::UpToDate))
    }

    /// Of which nodes one has to come back before the requests of the clients here are taken, when that is what they wait for: nobody
    /// who is there may take them, or only for clients that come anew (rule Q2).
    pub(super) fn awaited_servers(&self) -> Option<Vec<NodeId>> {
        let waits = !self.clients.is_empty() || !self.wanting.is_empty();
        let cared_for = self.reign.is_some() || self.change.is_some() || self.forward.server.is_some();
        let record = self.record.as_ref().filter(|_| waits && !cared_for)?;
        let there = |node: NodeId| self.peer_at(node).is_some_and(|at| self.peers[at].is_connected());
        if self.peers.iter().any(|p| p.is_connected() && p.is_primary()) || self.primary_may_return() > Some(self.now) {
            return None;
        }
        if self.wanting.is_empty() && !self.is_over() {
            return Some(record.primary.into_iter().collect());
        }
        let able = self.promotable().is_ok() || !self.able_servers().is_empty();
        let away = record.in_sync.keys().copied().filter(|node| *node != self.id.node && !there(*node));
        (!able).then(|| away.collect())
    }

    /// A node takes this node's requests from now on, and those of clients that have come by then.
    pub(super) fn served(&mut self, at: usize, reign: u64, session: u64, memory: u64, wish: Wish) {
        let stale = self.record.as_ref().is_some_and(|mine| mine.reign > reign);
        if self.forward.session != session || self.reign.is_some() || self.stopping != Stopping::No || stale {
            self.send(at, Message::Unserve { session });
            return;
        }
        if self.forward.server != Some(at) {
            if self.end_those_apart() || !self.may_send_again(memory) {
                return;
            }
            self.forward.reset_server(Some(at));
            self.forward.refused = PeerSet::default();
        }
        self.forward.barred = None;
        let came = |w: &Wanting| w.entry <= wish.entry && w.sharing == wish.sharing;
        for client in self.wanting.iter().filter(|(_, w)| came(w)).map(|(client, _)| *client).collect::<Vec<_>>() {
            if !self.is_barred_here(wish.sharing) {
                self.let_in(client);
            }
        }
        self.send_forwarded();
    }

    /// The server does not let this node's clients in. Those that were in do not share with whom is there now: they have lost what they
    /// were promised, or are in the way of somebody else's. Their sessions end.
    pub(super) fn forward_barred(&mut self, session: u64, by: NodeId) {
        if self.forward.session != session || self.reign.is_some() {
            return;
        }
        self.forward.barred = Some(by);
        if self.shares().is_some() {
            self.drop_clients();
        }
    }

    /// Tells clients that cannot be let in so: the server said it, or others of this node are in the way.
    fn refuse_barred_here(&mut self) {
        for (client, wanting) in self.wanting.iter().map(|(client, wanting)| (*client, *wanting)).collect::<Vec<_>>() {
            let here = self.is_barred_here(wanting.sharing);
            if let Some(by) = self.forward.barred.or_else(|| here.then_some(self.id.node)) {
                self.refuse_barred(client, by);
            }
        }
    }

    /// What this node wants: more of what its clients have, and when there are none first what shares most.
    fn wish(&self) -> Wish {
        let last = |sharing| self.wanting.values().filter(|w| w.sharing == sharing).map(|w| w.entry).max();
        let first = || [Sharing::Shared, Sharing::Readers, Sharing::Alone].into_iter().find(|sharing| last(*sharing).is_some());
        let sharing = self.shares().or_else(first).unwrap_or_default();
        Wish { entry: last(sharing).unwrap_or(0), waits: !self.wanting.is_empty(), sharing }
    }

    /// A node does not take requests, or not any more.
    pub(super) fn not_served(&mut self, at: usize, session: u64, why: String) {
        if self.forward.session != session {
            return;
        }
        if self.forward.server == Some(at) {
            self.forward.reset_server(None);
            self.forward.again = Some(self.now.after(ASK_AGAIN / 4));
        } else {
            self.forward.refused.insert(at);
            self.forward.why = why;
        }
    }

    pub(super) fn server_lost(&mut self, at: usize) {
        if self.forward.server == Some(at) {
            self.forward.reset_server(None);
            self.forward.apart = true;
        }
        self.forward.barred = None;
        self.forward.again = None;
    }

    /// Another reign has begun while a node took requests that does not know of it, or did not when this node heard of it, or while nobody
    /// did, as when this node was about to have the role: somebody may have been let in under it who could not see the clients here, and be
    /// gone when they are served again.
    pub(super) fn note_next_reign(&mut self, record: &Record) {
        let later = self.record.as_ref().is_some_and(|mine| mine.reign < record.reign);
        self.forward.apart |= later && (self.forward.server.is_some() || !self.clients.is_empty());
    }

    /// A node has come of which this one did not know what it was doing.
    pub(super) fn somebody_has_come(&mut self) {
        self.forward.apart |= self.reign.is_none() && self.forward.server.is_none();
    }
}
