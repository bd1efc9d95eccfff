//! Changing the record (rules M1, M2, Q1, Q5): at the cluster's authority, or by this node and every replica it reaches.

use crate::format::LINEAGE_MAX;
use crate::units::{Authority, Record, RecordId};
use crate::wire::Message;

use super::change::{Change, Court, Purpose};
use super::core::Engine;
use super::event::{Answer, Command, Ticket};
use super::link::Links;
use super::membership::ASK_AGAIN;
use super::mutant::{Mutant, mutated};
use super::peerset::PeerSet;
use super::store::Then;

impl Engine {
    /// Asks for a change. Until it is answered the ack set is the union of the old and the new one (rule M2).
    pub(super) fn propose(&mut self, record: Record, purpose: Purpose) {
        debug_assert!(self.change.is_none(), "one change at a time");
        self.asked_somebody = false;
        let at = match record.authority {
            Authority::Majority => {
                let ticket = Ticket(self.ids.draw());
                let expect = record.parent.expect("a record that follows another names it");
                self.out.push(Command::Propose { ticket, expect, record: record.clone() });
                Court::Cluster { ticket }
            }
            Authority::Off => {
                // A replica that is admitted may take over from the moment on in which it has stored the record. If this node did not know
                // of that after a crash, it would take itself for the only one that has everything, and serve old data.
                let own_first = matches!(purpose, Purpose::Admit(_) | Purpose::Renew(_)) && !mutated(Mutant::AdmittedKnowsFirst);
                let asked = if own_first { PeerSet::default() } else { self.ask_peers(&record) };
                Court::Own { asked, accepted: PeerSet::default(), storing: false, own_first }
            }
        };
        self.change = Some(Change { record, purpose, at, again: None, unanswered: false, draining: false });
        self.refresh_ack_set();
        self.consider_own_court();
    }

    /// Asks every replica that is connected to store the record first.
    fn ask_peers(&mut self, record: &Record) -> PeerSet {
        let expect = record.parent.expect("a record that follows another names it");
        let mine = self.record.as_ref().map(|r| r.id);
        let knows = |p: &super::peer::Peer| {
            let theirs = p.standing.as_ref().and_then(|s| s.record.as_ref()).map(|r| r.id);
            p.is_connected() && p.disk().is_some_and(|d| d > crate::units::DiskState::Failed) && theirs == mine
        };
        let asked = self.peers_that(knows);
        // Whoever was asked may have stored it, whether or not the answer arrives.
        self.asked_somebody |= !asked.is_empty();
        for peer in asked.iter() {
            self.send(peer, Message::Propose { expect, record: record.clone() });
        }
        asked
    }

    /// Stores the record here once every replica that was asked has, or is gone; then it is the record.
    fn consider_own_court(&mut self) {
        let Some(Change { record, at: Court::Own { asked, accepted, storing, own_first }, .. }) = &mut self.change else {
            return;
        };
        if !asked.is_empty() {
            return;
        }
        if *storing {
            if *own_first && self.own_stored == Some(record.id) {
                self.own_grant_due = Some(record.id);
            }
            return;
        }
        *storing = true;
        let (id, unwritten, accepted) = (record.id, record.unwritten, *accepted);
        let parted = self.parted_by(accepted, unwritten);
        let lineage = if self.private { self.lineage.clone() } else { self.next_lineage() };
        let Some(store) = self.store.as_mut().filter(|s| !s.failed) else {
            self.own_grant_due = Some(id);
            return;
        };
        let Some(Change { record, .. }) = &self.change else { return };
        store.note_admissions(self.record.as_ref(), record);
        store.superblock.record = Some(record.clone());
        store.superblock.lineage = lineage;
        store.superblock.parted = parted;
        store.store_superblock(Then::Grant { id }, &mut self.ops, &mut self.out);
    }

    pub(super) fn own_grant(&mut self, links: &Links, id: RecordId) {
        let Some(change) = self.change.as_ref().filter(|c| c.record.id == id) else { return };
        let ask = matches!(change.at, Court::Own { own_first: true, .. }) && self.own_stored != Some(id);
        if !ask {
            self.own_stored = None;
            self.granted(links);
            return;
        }
        self.own_stored = Some(id);
        let record = change.record.clone();
        let peers = self.ask_peers(&record);
        if let Some(Change { at: Court::Own { asked, .. }, .. }) = &mut self.change {
            *asked = peers;
        }
        self.consider_own_court();
    }

    pub(super) fn accepted(&mut self, peer: usize, id: RecordId) {
        if let Some(change) = self.change.as_mut().filter(|c| c.record.id == id)
            && let Court::Own { asked, accepted, .. } = &mut change.at
        {
            asked.remove(peer);
            accepted.insert(peer);
            self.consider_own_court();
        }
    }

    pub(super) fn rejected(&mut self, links: &Links, peer: usize, id: RecordId, record: Option<Record>) {
        let Some(change) = self.change.as_ref().filter(|c| c.record.id == id) else { return };
        if let Court::Own { accepted, storing, own_first, .. } = change.at
            && (!storing || own_first)
        {
            self.change = None;
            self.own_stored = None;
            self.store_record(Then::Nothing);
            for other in accepted.iter() {
                self.send(other, Message::Withdraw { id });
            }
            self.refresh_ack_set();
            if let (Some(theirs), Some(standing)) = (record, &mut self.peers[peer].standing) {
                standing.record = Some(theirs);
                self.meet(links, peer);
            }
        }
    }

    pub(super) fn change_lost_peer(&mut self, peer: usize) {
        if let Some(Change { at: Court::Own { asked, .. }, .. }) = &mut self.change {
            asked.remove(peer);
            self.consider_own_court();
        }
    }

    /// A peer proposes. It is refused by a node that goes by another record, that is primary itself, or that proposes at the same
    /// moment and has the lower id (rule Q5).
    pub(super) fn proposed(&mut self, links: &Links, peer: usize, expect: RecordId, record: Record) {
        let mine = self.record.as_ref();
        if mine.is_some_and(|r| r.id == record.id) && self.has_disk() && !mutated(Mutant::RefuseKnown) {
            // Another peer, that was asked as well and has stored it, was quicker to say so.
            self.store_record(Then::Accept { peer, id: record.id });
            return;
        }
        let same = mine.is_some_and(|r| r.id == expect && r.authority == Authority::Off);
        let own = self.change.as_ref().is_some_and(|_| self.id.node < self.peers[peer].node) && !mutated(Mutant::GrantEachOther);
        let reigning = self.reign.is_some();
        if !same || own || reigning || !self.has_disk() {
            let (id, record) = (record.id, self.record.clone());
            self.send(peer, Message::Rejected { id, record });
            return;
        }
        let before = self.record.clone().map(|r| (r, self.lineage.clone()));
        let lineage = lineage_of(self.record.as_ref(), &self.lineage);
        let id = record.id;
        self.learn(links, record, lineage);
        self.before = before;
        self.store_record(Then::Accept { peer, id });
    }

    /// A proposal that this node has stored was refused by another one: nothing was completed under it.
    pub(super) fn withdrawn(&mut self, id: RecordId) {
        let mine = self.record.as_ref().is_some_and(|r| r.id == id) && !mutated(Mutant::NeverWithdrawn);
        if let Some((record, lineage)) = self.before.take().filter(|_| mine) {
            self.record = Some(record);
            self.lineage = lineage;
            self.store_record(Then::Nothing);
        }
    }

    /// The cluster's authority has answered.
    pub(super) fn answer(&mut self, links: &Links, ticket: Ticket, answer: Answer) {
        let change = self.change.as_ref().filter(|c| matches!(c.at, Court::Cluster { ticket: t } if t == ticket));
        let Some(change) = change else {
            self.record_was_read(links, answer);
            return;
        };
        let id = change.record.id;
        match answer {
            Answer::Granted => self.granted(links),
            Answer::Is(record) if record.id == id => self.granted(links),
            Answer::Is(record) => {
                self.change = None;
                self.refresh_ack_set();
                self.learn_from_authority(links, record);
            }
            Answer::Unknown if mutated(Mutant::UnknownIsNo) => {
                self.change = None;
                self.refresh_ack_set();
            }
            Answer::Unknown => {
                let again = self.now.after(ASK_AGAIN);
                let change = self.change.as_mut().expect("checked");
                change.again = Some(again);
                change.unanswered = true;
            }
            Answer::Gone => {
                self.change = None;
                self.refresh_ack_set();
            }
        }
    }

    /// Asks again for what was not answered: whether the change was made is settled by reading the record (rule M2).
    pub(super) fn consider_change(&mut self, links: &Links) {
        self.consider_own_court();
        if let Some(id) = self.own_grant_due.take() {
            self.own_grant(links, id);
        }
        if self.change.as_ref().is_some_and(|c| c.draining) {
            self.granted(links);
        }
        let now = self.now;
        if self.read_again.is_some_and(|again| again <= now) {
            self.read_again = None;
            self.read_record();
        }
        let Some(change) = self.change.as_mut().filter(|c| c.again.is_some_and(|again| again <= now)) else { return };
        change.again = None;
        let ticket = Ticket(self.ids.draw());
        change.at = Court::Cluster { ticket };
        let expect = change.record.parent.expect("a record that follows another names it");
        // The same proposal once more: its id was never used for anything else, so it is granted once at most, and the answer names
        // the record as it is if it was granted before.
        let record = change.record.clone();
        self.out.push(Command::Propose { ticket, expect, record });
    }

    /// The change is made.
    fn granted(&mut self, links: &Links) {
        if self.drains_first() {
            return;
        }
        let Some(change) = self.change.take() else { return };
        // A record that nobody else has heard of is left out of the line, which would otherwise grow by two with every attach and detach of
        // a node that is alone, and push out the ancestors that others go by.
        let lineage = match self.private {
            true => self.lineage.clone(),
            false => self.next_lineage(),
        };
        if let Court::Own { accepted, .. } = change.at
            && !accepted.is_empty()
        {
            let parted = self.parted_by(accepted, change.record.unwritten);
            if let Some(store) = &mut self.store {
                store.superblock.parted = parted;
            }
        }
        self.private = matches!(change.at, Court::Own { .. }) && !self.asked_somebody;
        let old = self.record.replace(change.record);
        self.lineage = lineage;
        self.before = None;
        self.admitted_by_record(old.as_ref());
        match change.purpose {
            Purpose::Reign => self.begin_reign(links, old.as_ref()),
            Purpose::Evict(peers) => self.evicted(peers),
            Purpose::DropSelf | Purpose::Renew(_) => {}
            Purpose::Admit(peer) => self.admitted(peer),
            Purpose::StepDown => {
                self.tell_record();
                self.stepped_down();
                self.store_record(Then::Nothing);
                return;
            }
        }
        self.store_record(Then::Nothing);
        self.refresh_ack_set();
        self.tell_record();
        if let Purpose::Renew(peer) = change.purpose {
            self.resume_named(peer);
        }
        self.recheck_all();
    }

    /// A reign begins when nothing of an older one is under way to the disk (rule F4): the old primary may have connected again, and been
    /// followed, since this one was asked for.
    fn drains_first(&mut self) -> bool {
        let idle = self.ops.disk_is_idle() || mutated(Mutant::BeginUndrained);
        let Some(change) = self.change.as_mut().filter(|c| c.purpose == Purpose::Reign && !idle) else { return false };
        change.draining = true;
        change.again = None;
        self.stop_following();
        true
    }

    /// Tells every replica that follows.
    fn tell_record(&mut self) {
        let Some(record) = self.record.clone() else { return };
        for peer in 0..self.peers.len() {
            if self.peers[peer].is_ready() {
                self.send(peer, Message::Record { record: record.clone() });
            }
        }
    }

    /// At the start: what does the cluster say? A node alone is its own authority.
    pub(super) fn read_record(&mut self) {
        if self.is_off() {
            self.record_read = true;
        } else {
            let ticket = Ticket(self.ids.draw());
            self.out.push(Command::ReadRecord { ticket });
        }
    }

    fn record_was_read(&mut self, links: &Links, answer: Answer) {
        match answer {
            Answer::Is(record) => {
                self.record_read = true;
                self.learn_from_authority(links, record);
            }
            Answer::Unknown if !self.record_read => self.read_again = Some(self.now.after(ASK_AGAIN)),
            Answer::Unknown | Answer::Granted | Answer::Gone => {}
        }
    }

    fn learn_from_authority(&mut self, links: &Links, record: Record) {
        let newer = self.record.as_ref().is_none_or(|mine| mine.number < record.number);
        if newer {
            let lineage = lineage_of(self.record.as_ref(), &self.lineage);
            self.learn(links, record, lineage);
        }
    }
}

/// The line of a record that follows `record`.
pub(super) fn lineage_of(record: Option<&Record>, lineage: &[RecordId]) -> Vec<RecordId> {
    record.map(|r| r.id).into_iter().chain(lineage.iter().copied()).take(LINEAGE_MAX).collect()
}
