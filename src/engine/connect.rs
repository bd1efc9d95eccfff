//! Meeting a peer: introductions, whose record is newer, and what follows from it (rules F1, M5 to M7, P6, Q1, Q2).

use crate::units::{Authority, Record, RecordId};
use crate::wire::{Introduction, Message, Standing};

use super::core::Engine;
use super::link::Links;
use super::mutant::{Mutant, mutated};
use super::peer::Session;
use super::status::Connection;

/// How a peer's record relates to this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The same.
    Same,
    /// This node's descends from the peer's, or the peer has none.
    Newer,
    /// The peer's descends from this node's.
    Older,
    /// Neither descends from the other (rule Q2).
    Fork,
}

impl Engine {
    pub(super) fn link_up(&mut self, node: crate::units::NodeId) {
        let Some(at) = self.peer_at(node) else { return };
        if self.peers[at].link {
            self.session_lost(at, false);
        }
        let token = self.ids.draw();
        let peer = &mut self.peers[at];
        peer.reset_session();
        peer.link = true;
        peer.token = token;
        self.introduce(at);
    }

    pub(super) fn link_down(&mut self, node: crate::units::NodeId, silent: bool) {
        let Some(at) = self.peer_at(node) else { return };
        self.session_lost(at, silent);
        self.peers[at].link = false;
    }

    /// The session with a peer has ended, whether or not the connection has.
    fn session_lost(&mut self, at: usize, hopeless: bool) {
        let now = self.now;
        let peer = &mut self.peers[at];
        peer.lost.get_or_insert(now);
        peer.hopeless |= hopeless;
        peer.reset_session();
        self.follow_lost(at);
        self.server_lost(at);
        if !hopeless {
            self.guest_lost(at);
        }
        self.guest_gone(at);
        self.reign_lost_peer(at);
        self.change_lost_peer(at);
        self.discard_lost_peer(at);
    }

    fn introduce(&mut self, at: usize) {
        self.private = false;
        let (standing, gist) = (self.standing(), self.gist());
        let peer = &mut self.peers[at];
        peer.told = Some(gist);
        let introduction = Introduction {
            cluster: self.id.cluster,
            resource: self.id.resource,
            token: peer.token,
            answers: peer.their_token,
            standing,
        };
        self.send(at, Message::Hello(Box::new(introduction)));
    }

    pub(super) fn hello(&mut self, links: &Links, at: usize, hello: Introduction) {
        let ours = hello.cluster == self.id.cluster && hello.resource == self.id.resource;
        if !(ours || mutated(Mutant::BelieveStrangers)) {
            // Another cluster's or resource's (rule M7).
            self.peers[at].connection = Connection::Refused;
            return;
        }
        if self.peers[at].their_token != hello.token {
            if self.peers[at].their_token != 0 {
                // The peer's engine began anew behind the same connection.
                self.session_lost(at, false);
            }
            self.somebody_has_come();
            self.peers[at].their_token = hello.token;
            self.peers[at].hopeless = false;
        }
        if hello.answers != self.peers[at].token {
            self.introduce(at);
        }
        self.stands(links, at, hello.standing);
    }

    /// A peer says where it stands.
    pub(super) fn stands(&mut self, links: &Links, at: usize, standing: Standing) {
        if self.peers[at].their_token == 0 {
            return;
        }
        let peer = &mut self.peers[at];
        peer.volumes = standing.volumes.iter().copied().collect();
        peer.standing = Some(standing);
        peer.seen = true;
        peer.lost = None;
        self.forgo_volumes_without(at);
        self.meet(links, at);
    }

    /// Compares records with a peer that has introduced itself and draws the consequences.
    pub(super) fn meet(&mut self, links: &Links, at: usize) {
        let Some(theirs) = self.peers[at].standing.clone() else { return };
        if let (Some(change), Some(record)) = (&self.change, &theirs.record)
            && change.record.id == record.id
        {
            // The peer has stored this node's own proposal already; it is the record when this node hears that it was granted.
            self.peers[at].connection = Connection::Connected;
            return;
        }
        let relation = relate(self.record.as_ref(), &self.lineage, theirs.record.as_ref(), &theirs.lineage);
        self.peers[at].connection = if relation == Relation::Fork { Connection::SplitBrain } else { Connection::Connected };
        match relation {
            Relation::Same => self.joined(at),
            Relation::Newer => {}
            Relation::Older => {
                let record = theirs.record.expect("a peer without a record is never ahead");
                self.learn(links, record, theirs.lineage);
            }
            Relation::Fork => self.meet_fork(links, at, &theirs),
        }
    }

    /// Two sides of a fork meet. One that has written nothing since withdraws by itself (rule Q3); else both keep what they have, and an
    /// operator decides.
    fn meet_fork(&mut self, links: &Links, at: usize, theirs: &Standing) {
        let (Some(mine), Some(record)) = (&self.record, &theirs.record) else { return };
        let node = self.peers[at].node;
        let withdraw = match (mine.unwritten, record.unwritten) {
            (true, false) => true,
            (true, true) => node < self.id.node,
            _ => false,
        };
        // A replica that its own record does not have in sync has followed somebody else's proposal, which may never have become the record:
        // nothing was completed here that a member of the other side has not.
        let bystander = !mine.in_sync.contains_key(&self.id.node) && self.reign.is_none() && !mutated(Mutant::BystanderStays);
        // Without a replica it has only clients here, who are on their side of the fork for as long as they stay.
        let bystander = bystander && (self.store.is_some() || self.clients.is_empty());
        if bystander && record.in_sync.contains_key(&node) {
            self.peers[at].connection = Connection::Connected;
            self.learn(links, record.clone(), theirs.lineage.clone());
            return;
        }
        let common = mine.parent.is_some_and(|parent| theirs.lineage.contains(&parent));
        if withdraw && common && self.may_withdraw() {
            self.peers[at].connection = Connection::Connected;
            self.learn(links, record.clone(), theirs.lineage.clone());
            return;
        }
        if !matches!(self.peers[at].session, Session::None) {
            self.close_session(at);
        }
        self.tell_side(at);
    }

    /// Whether nothing was completed under this node's record that another one lacks.
    fn may_withdraw(&self) -> bool {
        self.reign.as_ref().is_none_or(|reign| reign.flights.is_empty() && reign.wrote_nothing())
    }

    /// A newer record than this node's: go by it. A primary whose reign it ends is deposed.
    pub(super) fn learn(&mut self, links: &Links, record: Record, lineage: Vec<RecordId>) {
        let ended = self.record.as_ref().is_none_or(|mine| mine.reign != record.reign || mine.primary != record.primary);
        self.before = None;
        self.note_next_reign(&record);
        if ended {
            self.depose();
            self.fence(links, &record);
        }
        let old = self.record.replace(record);
        self.lineage = lineage;
        self.change = None;
        if let Some(store) = &mut self.store {
            store.superblock.parted = None;
        }
        self.admitted_by_record(old.as_ref());
        self.store_record(super::store::Then::Nothing);
        for at in 0..self.peers.len() {
            self.reassess(at);
        }
    }

    /// Tells a primary that this node followed that its reign is over for this node: before the next pong, so that no lease that is asked
    /// for later covers it (rule F2).
    pub(super) fn fence(&mut self, links: &Links, record: &Record) {
        self.note_old_lease(links, record.primary);
        let Some(old) = self.record.as_ref().and_then(|r| r.primary) else { return };
        if record.primary == Some(old) {
            return;
        }
        if let Some(at) = self.peer_at(old) {
            self.send(at, Message::Fenced { record: record.clone() });
        }
        self.stop_following();
    }

    /// Compares again, after this node's record has changed.
    fn reassess(&mut self, at: usize) {
        let Some(theirs) = &self.peers[at].standing else { return };
        let relation = relate(self.record.as_ref(), &self.lineage, theirs.record.as_ref(), &theirs.lineage);
        if relation != Relation::Fork && self.peers[at].connection == Connection::SplitBrain {
            self.peers[at].connection = Connection::Connected;
        }
    }
}

/// How two records relate.
pub(super) fn relate(mine: Option<&Record>, my_line: &[RecordId], theirs: Option<&Record>, their_line: &[RecordId]) -> Relation {
    match (mine, theirs) {
        (_, None) => {
            if mine.is_none() {
                Relation::Same
            } else {
                Relation::Newer
            }
        }
        (None, Some(_)) => Relation::Older,
        (Some(mine), Some(theirs)) if mine.id == theirs.id => Relation::Same,
        (Some(mine), Some(theirs)) if mine.authority == Authority::Majority && theirs.authority == Authority::Majority => {
            // One log decides: the greater number is the later change, and equal numbers are the same record.
            if mine.number < theirs.number { Relation::Older } else { Relation::Newer }
        }
        (Some(mine), Some(theirs)) => {
            if my_line.contains(&theirs.id) {
                Relation::Newer
            } else if their_line.contains(&mine.id) {
                Relation::Older
            } else if mutated(Mutant::ForkByNumber) {
                if mine.number < theirs.number { Relation::Older } else { Relation::Newer }
            } else {
                Relation::Fork
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Membership;

    fn record(number: u64, id: u64, authority: Authority) -> Record {
        Record { number, ..Record::first(RecordId(id), Membership::new(), authority) }
    }

    #[test]
    fn with_a_majority_the_greater_number_is_newer() {
        let (old, new) = (record(3, 30, Authority::Majority), record(4, 40, Authority::Majority));
        assert_eq!(relate(Some(&old), &[], Some(&new), &[]), Relation::Older);
        assert_eq!(relate(Some(&new), &[], Some(&old), &[]), Relation::Newer);
    }

    #[test]
    fn without_one_only_descent_counts_and_a_fork_is_a_fork_whatever_the_numbers() {
        let (a, b) = (record(4, 40, Authority::Off), record(7, 70, Authority::Off));
        let (root, mid) = (RecordId(10), RecordId(20));
        assert_eq!(relate(Some(&a), &[root], Some(&b), &[mid, RecordId(40), root]), Relation::Older);
        assert_eq!(relate(Some(&a), &[root], Some(&b), &[mid, root]), Relation::Fork);
        assert_eq!(relate(Some(&a), &[root], None, &[]), Relation::Newer);
    }
}
