//! Who is needed: the ack set, losing a peer, going on without it (rules M1, M2, M3).

use std::time::Duration;

use crate::units::{DiskState, Incarnation, Instant, NodeId, Record};

use super::change::Purpose;
use super::core::{Engine, volume_blocks};
use super::mutant::{Mutant, mutated};
use super::peer::{Peer, Session};
use super::peerset::PeerSet;
use super::resync::Sync;
use super::status::Connection;

impl Engine {
    /// Computes the ack set: the members by the record, by a change that is not answered (rule M2), and the replicas that are being
    /// resynced. Whoever is in it must have written, flushed and granted a lease before anything is answered.
    pub(super) fn refresh_ack_set(&mut self) {
        let Some(record) = &self.record else { return };
        let proposed = self.change.as_ref().map(|c| &c.record.in_sync);
        let proposed = proposed.filter(|_| !mutated(Mutant::ProposedNotAwaited));
        let recorded = |p: &Peer| record.in_sync.contains_key(&p.node) && (p.data || !mutated(Mutant::CompleteBeforeEvicted));
        let named = |p: &Peer| recorded(p) || proposed.is_some_and(|m| m.contains_key(&p.node));
        let synced = |p: &Peer| p.data && p.sync.as_ref().is_some_and(Sync::is_running);
        let ack = self.peers_that(|p| named(p) || synced(p));
        let Some(reign) = &mut self.reign else { return };
        let before = std::mem::replace(&mut reign.ack, ack);
        if before == ack {
            return;
        }
        for joined in ack.iter().filter(|&at| !before.contains(at)) {
            self.extend_round(joined);
        }
        if before.iter().any(|at| !ack.contains(at)) {
            self.recheck_all();
        }
    }

    /// Somebody is not needed any more: what waited for it may go on.
    pub(super) fn recheck_all(&mut self) {
        let Some(reign) = &mut self.reign else { return };
        for seq in reign.flights.seqs() {
            self.check_flight(seq);
        }
        self.check_round();
    }

    /// The session with a peer has ended.
    pub(super) fn reign_lost_peer(&mut self, at: usize) {
        if self.reign.is_none() {
            return;
        }
        self.abort_sync(at);
        self.forget_sync_flights(at);
        self.abort_admission(at);
        self.reread_from_others(at);
        if !self.is_needed_member(at) {
            self.cooling_lost_peer(at);
            self.without(at);
        }
    }

    /// Whether the record, or a change of it that is not answered, has the peer in sync.
    pub(super) fn is_needed_member(&self, at: usize) -> bool {
        let node = self.peers[at].node;
        let named = |record: &Record| record.in_sync.contains_key(&node);
        self.record.as_ref().is_some_and(named) || self.change.as_ref().is_some_and(|c| named(&c.record))
    }

    /// Goes on without a peer: what it may lack is dirty for it from now on, all that was not confirmed durable there included (rule
    /// M1), and nothing waits for it.
    pub(super) fn without(&mut self, at: usize) {
        if !mutated(Mutant::BitsAtRequest) {
            self.mark_window(at);
        }
        self.peers[at].data = false;
        let Some(reign) = &mut self.reign else { return };
        for seq in reign.flights.seqs() {
            let Some(flight) = reign.flights.get_mut(seq) else { continue };
            if flight.unwritten.contains(at) {
                flight.unwritten.remove(at);
                flight.unreceived.remove(at);
            }
        }
        self.refresh_ack_set();
        self.recheck_all();
    }

    /// Everything that was not confirmed durable on a peer is dirty for it, whether it was acknowledged or not.
    fn mark_window(&mut self, at: usize) {
        let upto = if mutated(Mutant::ForgetWindow) {
            self.reign.as_ref().map_or(0, |r| r.flights.all_ended())
        } else {
            self.peers[at].durable
        };
        let peer = &mut self.peers[at];
        self.unsettled.since(upto).for_each(|range| peer.dirty.set(range));
    }

    /// The record does not name them any more.
    ///
    /// Everybody's window becomes bits before anything is done without the first: what is settled as soon as nobody waits for that one is
    /// forgotten, and would be missing from the window of the next (rule M1).
    pub(super) fn evicted(&mut self, gone: PeerSet) {
        if !mutated(Mutant::BitsAtRequest) && !mutated(Mutant::EvictOneByOne) {
            gone.iter().for_each(|at| self.mark_window(at));
        }
        gone.iter().for_each(|at| self.begin_anew_without(at));
    }

    /// The session with a peer begins anew, as that of a replica that lacks something.
    fn begin_anew_without(&mut self, at: usize) {
        self.abort_sync(at);
        self.cooling_lost_peer(at);
        self.without(at);
        // Its answer would not be heard any more.
        self.reread_from_others(at);
        let peer = &mut self.peers[at];
        peer.session = Session::None;
        peer.reported = false;
    }

    /// A replica refuses this node's reign because it goes by a newer record (rule F1): its lease is gone at once. Its standing, which
    /// follows, says whose reign it is.
    ///
    /// Or it has heard of this node's own next record before this node's opening under the last one came: it is asked again.
    pub(super) fn fenced(&mut self, at: usize, record: &Record) {
        if self.record.as_ref().is_none_or(|mine| mine.id != record.id && mine.number <= record.number) {
            self.close_session(at);
        } else if matches!(self.peers[at].session, Session::Opening { .. }) && !mutated(Mutant::RefusedForGood) {
            self.peers[at].session = Session::None;
        }
    }

    /// The session with a connected peer ends. What it was given and has not confirmed durable is dirty for it, as when the connection
    /// breaks: the bits that were cleared are written out without its window from now on (rule R1).
    pub(super) fn close_session(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        peer.session = Session::None;
        peer.data = false;
        if !mutated(Mutant::FencedWithoutWindow) {
            self.reign_lost_peer(at);
        }
    }

    /// Members that the primary has to go on without, now.
    pub(super) fn overdue_members(&self, record: &Record) -> PeerSet {
        self.peers_that(|p| record.in_sync.contains_key(&p.node) && self.is_overdue(p, record))
    }

    fn is_overdue(&self, peer: &Peer, record: &Record) -> bool {
        if peer.settings.leaving {
            return true;
        }
        if peer.is_connected() {
            // It is there, but in another life than the record's (rule M3), or without its disk, or on its way out.
            let lacks = self.narrow_until(peer).is_some_and(|until| until <= self.now);
            return lacks || !peer.is_member_of(record) || peer.hopeless || peer.disk().is_none_or(|d| d <= DiskState::Failed);
        }
        peer.hopeless || peer.connection == Connection::SplitBrain || self.overdue_at(peer) <= self.now
    }

    /// Until when a connected peer that cannot take all volumes yet is waited for (rule V1).
    pub(super) fn narrow_until(&self, peer: &Peer) -> Option<Instant> {
        Some(peer.narrow?.after(self.settings.timeouts.peer_silent))
    }

    /// When the primary goes on without a peer that is away. One that this node has not met in this life is given as long as a silent
    /// one: after a restart of all nodes it may need that to come up.
    pub(super) fn overdue_at(&self, peer: &Peer) -> Instant {
        let since = self.reign.as_ref().map_or(self.now, |r| r.since).max(peer.lost.unwrap_or_default());
        let grace = if peer.seen { self.settings.timeouts.reconnect } else { self.settings.timeouts.peer_silent };
        since.after(grace)
    }

    /// Proposes what the membership needs next. One change at a time.
    pub(super) fn consider_membership(&mut self) {
        if self.change.is_some() {
            return;
        }
        let Some(record) = &self.record else { return };
        let lost_disk = !self.has_disk() && !mutated(Mutant::KeepSelf) && record.in_sync.contains_key(&self.id.node);
        let overdue = self.overdue_members(record);
        let renewed = self.peers.iter().position(|p| p.is_ready() && self.recorded_before(p, record).is_some());
        let stranger = record.in_sync.keys().any(|node| *node != self.id.node && self.peer_at(*node).is_none());
        if !lost_disk && overdue.is_empty() && renewed.is_none() && !stranger {
            return;
        }
        let record = record.clone();
        if lost_disk {
            self.drop_self(&record);
            return;
        }
        if !overdue.is_empty() || stranger {
            let mut next = record.next(self.ids.record());
            let stays = |node: NodeId| node == self.id.node || self.peer_at(node).is_some_and(|at| !overdue.contains(at));
            next.in_sync.retain(|node, _| stays(*node));
            if !next.in_sync.is_empty() {
                if mutated(Mutant::BitsAtRequest) {
                    overdue.iter().for_each(|at| self.mark_window(at));
                }
                self.propose(next, Purpose::Evict(overdue));
            }
            return;
        }
        if let Some(at) = renewed {
            let incarnation = self.recorded_before(&self.peers[at], &record).expect("just found");
            let mut next = record.next(self.ids.record());
            next.in_sync.insert(self.peers[at].node, incarnation);
            self.propose(next, Purpose::Renew(at));
        }
    }

    /// The incarnation of a member that was cleanly restarted since the record was made. Before it counts, the record has to name the
    /// life that counts: else an old image of its disk, brought back, would pass for a member.
    fn recorded_before(&self, peer: &Peer, record: &Record) -> Option<Incarnation> {
        let incarnation = peer.incarnation()?;
        let recorded = record.in_sync.get(&peer.node)?;
        (peer.is_member_of(record) && *recorded != incarnation).then_some(incarnation)
    }

    /// This node's disk has failed: go on with the others', if they have everything.
    fn drop_self(&mut self, record: &Record) {
        let mut next = record.next(self.ids.record());
        next.in_sync.remove(&self.id.node);
        let others = self.peers.iter().any(|p| p.data && next.in_sync.contains_key(&p.node));
        if others {
            self.propose(next, Purpose::DropSelf);
        } else if next.in_sync.is_empty() {
            self.fail_everything();
        }
        // Else the others are away, for a moment perhaps: only they can say what is there.
    }

    /// A disk that failed is not asked again; others see it in this node's standing.
    pub(super) fn disk_failed(&mut self) {
        let Some(store) = self.store.as_mut().filter(|s| !s.failed) else { return };
        store.failed = true;
        let left = store.abandon();
        self.ready.extend(left);
        (0..self.peers.len()).for_each(|at| self.abort_sync(at));
        let Some(reign) = &mut self.reign else { return };
        for seq in reign.flights.seqs() {
            if let Some(flight) = reign.flights.get_mut(seq) {
                flight.local = false;
            }
        }
        self.activity_written();
    }

    /// The record names a replica since this moment: it is resumed if it waits for that, and it is this very life that is named (rule M3).
    /// Returns whether it was.
    pub(super) fn resume_named(&mut self, at: usize) -> bool {
        let peer = &self.peers[at];
        let named = self.record.as_ref().and_then(|record| record.in_sync.get(&peer.node)).copied();
        let waits = peer.is_ready() && !peer.data && peer.incarnation() == named;
        if waits {
            self.resume(at);
        }
        waits
    }

    /// A peer has opened its session, and its place in the record is clear: it gets everything it has not acknowledged, in order, before
    /// anything new (rule W6).
    pub(super) fn resume(&mut self, at: usize) {
        let peer = &mut self.peers[at];
        peer.data = true;
        // The replica has drained: what it acknowledged before is written, and it counts anew what this session sends.
        peer.sent = 0;
        peer.flush_asked = super::flush::FlushAsked::default();
        self.refresh_ack_set();
        let Some(reign) = &mut self.reign else { return };
        let owed: Vec<u64> = {
            let flights = &mut reign.flights;
            flights.seqs().into_iter().filter(|&s| flights.get_mut(s).is_some_and(|f| f.unwritten.contains(at))).collect()
        };
        if mutated(Mutant::NotSentAgain) {
            self.written_by(at, &owed);
            return;
        }
        for seq in owed {
            self.send_flight(at, seq);
        }
        self.resend_flush(at);
        self.resend_cool(at);
        self.tell_equal(at);
    }

    /// Blocks of a report, within the volumes.
    pub(super) fn within_volumes(&self, ranges: &[crate::units::BlockRange]) -> Vec<crate::units::BlockRange> {
        let blocks = |r: &crate::units::BlockRange| volume_blocks(&self.settings, r.volume);
        let whole = |r: &crate::units::BlockRange| crate::units::BlockRange { volume: r.volume, first: 0, count: blocks(r) };
        ranges.iter().filter_map(|r| r.intersection(&whole(r))).collect()
    }

    /// Peers that are no longer in the settings: nothing waits for them. Their sessions are over, for nobody tells of their connections any
    /// more: not for an answer, nor for a word that a record was stored.
    pub(super) fn drop_removed_peers(&mut self) {
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            if self.settings.peers.contains_key(&peer.node) {
                continue;
            }
            peer.hopeless = true;
            peer.settings.diskful = false;
            let node = peer.node;
            if peer.link {
                self.link_down(node, true);
            }
        }
    }
}

/// The least time between two tries at an authority that does not answer.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(200);
