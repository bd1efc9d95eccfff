//! The end of a split brain (rule Q4): one side discards what it has had to itself, and is brought up to date by the other.
//!
//! It asks the other side first. Whoever says that it keeps what it has discards nothing as long as that session lasts, so that never both
//! give way to each other. What is discarded is dirty for the other side here, and what was written there for this one: nothing else
//! travels.

use crate::format::{LINEAGE_MAX, Parted};
use crate::units::{DiskState, Record, RecordId};
use crate::wire::{Diverged, Message, Side};

use super::after_sb;
use super::core::{Engine, Stopping};
use super::link::Links;
use super::mutant::{Mutant, mutated};
use super::operate::{AskId, OperateError};
use super::peerset::PeerSet;
use super::status::Connection;
use super::store::Store;

/// This node is about to discard what it has.
#[derive(Debug)]
pub(super) struct Discarding {
    /// The operator who wants it; the policies want it when nobody.
    asked: Option<AskId>,
    /// Clients here are cut off for it.
    violently: bool,
    /// The other side.
    peer: usize,
    /// What is discarded.
    mine: RecordId,
    /// The other side has said that it keeps what it has.
    kept: bool,
}

/// What the two sides of a split brain have told each other in this session.
#[derive(Debug)]
pub(super) struct Sides {
    peer: usize,
    mine: Side,
    theirs: Option<Side>,
    /// Somebody has used this side since it said what it is.
    used: bool,
    /// Nothing has been said since it was decided by these.
    decided: bool,
    /// One of them has said something for a second time: its clients have gone.
    again: bool,
}

impl Engine {
    /// Tells the other side of a split brain what it is to decide by (rule Q10), when they meet.
    pub(super) fn tell_side(&mut self, peer: usize) {
        let Some(store) = self.store.as_ref().filter(|s| !s.failed && self.peers[peer].settings.diskful) else { return };
        if let Some(sides) = self.sides.as_mut().filter(|sides| sides.peer == peer) {
            // Where it stands has changed: it may have refused only because this side did not know of that.
            sides.decided = false;
            return;
        }
        let mine = self.side(store, peer);
        self.sides = Some(Sides { peer, used: mine.in_use, mine: mine.clone(), theirs: None, decided: false, again: false });
        self.send(peer, Message::Diverged(Diverged::Side(mine)));
    }

    /// What this node is to be judged by.
    fn side(&self, store: &Store, peer: usize) -> Side {
        let (parted, changed) = (store.superblock.parted, self.peers[peer].dirty.count());
        Side {
            node: self.id.node,
            in_use: self.is_in_use(),
            was_primary: parted.is_some_and(|parted| parted.primary),
            // Either says rather too much: what both say is so.
            written: changed > 0 && parted.is_none_or(|parted| parted.written),
            changed,
            policies: self.settings.after_split_brain,
        }
    }

    fn hear_side(&mut self, at: usize, side: Side) {
        if side.node == self.peers[at].node
            && let Some(sides) = self.sides.as_mut().filter(|sides| sides.peer == at)
        {
            sides.again |= sides.theirs.is_some();
            (sides.theirs, sides.decided) = (Some(side), false);
        }
    }

    /// Tells the other side that nobody uses this one any more. What was said is over with the split brain.
    fn tell_side_again(&mut self) {
        let in_use = self.is_in_use();
        let peers = &self.peers;
        self.sides.take_if(|sides| peers[sides.peer].connection != Connection::SplitBrain);
        let Some(sides) = &mut self.sides else { return };
        sides.used |= in_use;
        let (peer, gone) = (sides.peer, sides.used && !in_use);
        let Some(store) = self.store.as_ref().filter(|s| gone && !s.failed) else { return };
        let mine = self.side(store, peer);
        let told = |sides| Sides { mine: mine.clone(), used: false, decided: false, again: true, ..sides };
        self.sides = self.sides.take().map(told);
        self.send(peer, Message::Diverged(Diverged::Side(mine)));
    }

    /// Both have told what they are: the one that loses gives way. It is decided by what was told and not by what is so a moment later. When
    /// clients go after that, it is no policy's turn any more: then only a side gives way that has nothing to itself.
    fn consider_policies(&mut self) {
        self.tell_side_again();
        let Some(Sides { peer, mine, theirs: Some(theirs), decided: false, again, .. }) = &self.sides else { return };
        let peer = *peer;
        let loser = match again {
            _ if mutated(Mutant::EverybodyLoses) => Some(mine.node),
            false => after_sb::loser(mine, theirs),
            true => after_sb::idle_and_unwritten(mine, theirs),
        };
        let (violently, since) = (mine.in_use, mine.changed);
        // Whoever has come or written meanwhile was not asked about: this side keeps what it has, and an operator decides.
        let same = violently || !self.is_in_use() && self.peers[peer].dirty.count() == since;
        let free = self.discarding.is_none() && self.kept_for.is_none() && self.stopping == Stopping::No;
        self.sides.iter_mut().for_each(|sides| sides.decided = true);
        if loser == Some(self.id.node) && same && free {
            self.ask_to_discard(None, violently, peer);
        }
    }

    /// An operator has chosen this node's side to be the one that loses.
    pub(super) fn discard_my_data(&mut self, id: AskId) {
        match self.may_discard() {
            Ok(peer) => self.ask_to_discard(Some(id), false, peer),
            Err(why) => self.operated(id, Err(why)),
        }
    }

    /// The peer in favour of which this node may discard what it has; else why not.
    fn may_discard(&self) -> Result<usize, OperateError> {
        let refused = |why: String| Err(OperateError::Refused(why));
        if self.stopping != Stopping::No {
            return Err(OperateError::ShuttingDown);
        }
        let Some(peer) = self.peers.iter().position(|p| p.link && p.connection == Connection::SplitBrain) else {
            return refused(
                "this node sees no split brain; `blkrep status` shows which nodes do, and whether they are connected".into(),
            );
        };
        if self.discarding.is_some() {
            return refused("it is about to discard what it has; `blkrep status` shows how far it is".into());
        }
        let name =
            &self.settings.peers.get(&self.peers[peer].node).map_or_else(|| "the other node".into(), |p| p.name.to_string());
        if self.kept_for == Some(peer) {
            return refused(format!("node {name} is about to discard what it has for this one's"));
        }
        if !self.has_disk() {
            return refused("the disk here has failed; `blkrep replace-disk` makes the replica anew".into());
        }
        if self.is_in_use() {
            return refused(
                "the resource is in use here: detach its clients first, or keep this side and discard the other".into(),
            );
        }
        Ok(peer)
    }

    fn ask_to_discard(&mut self, asked: Option<AskId>, violently: bool, peer: usize) {
        let theirs = self.peers[peer].standing.as_ref().and_then(|s| s.record.as_ref()).map(|r| r.id);
        let (Some(mine), Some(yours)) = (self.record.as_ref().map(|r| r.id), theirs) else { return };
        self.discarding = Some(Discarding { asked, violently, peer, mine, kept: false });
        self.send(peer, Message::Diverged(Diverged::Discard { mine, yours }));
    }

    /// The other side of a split brain has something to say.
    pub(super) fn diverged(&mut self, at: usize, word: Diverged) {
        match word {
            Diverged::Side(side) => self.hear_side(at, side),
            Diverged::Discard { mine, yours } => self.asked_to_keep(at, mine, yours),
            Diverged::Kept { yours } => {
                if let Some(d) = self.discarding.as_mut().filter(|d| d.peer == at && d.mine == yours) {
                    d.kept = true;
                }
            }
            Diverged::NotNow { why } => {
                self.kept_for.take_if(|peer| *peer == at);
                self.give_up_discard(at, &why);
            }
        }
    }

    /// The other side wants to discard what it has for what this node has.
    fn asked_to_keep(&mut self, at: usize, theirs: RecordId, mine: RecordId) {
        match self.may_keep(at, mine) {
            Ok(()) => {
                self.give_up_discard(at, "the other node discards what it has for this one's");
                self.kept_for = Some(at);
                self.send(at, Message::Diverged(Diverged::Kept { yours: theirs }));
            }
            Err(why) => self.send(at, Message::Diverged(Diverged::NotNow { why: why.into() })),
        }
    }

    /// Whether what this node has can stand for both: it must not be given up itself, and it has to be there.
    fn may_keep(&self, at: usize, mine: RecordId) -> Result<(), &'static str> {
        let forked = self.peers[at].connection == Connection::SplitBrain;
        if !forked || self.record.as_ref().is_none_or(|r| r.id != mine) {
            return Err("the other node goes by another record since a moment; try again");
        }
        // Of two that ask each other at the same moment, the higher node's question goes unheard.
        let both = self.discarding.as_ref().is_some_and(|d| d.peer == at && (d.kept || self.id.node < self.peers[at].node));
        if both && !mutated(Mutant::BothDiscard) {
            return Err("the other node is about to discard what it has for this one's");
        }
        let named = self.record.as_ref().is_some_and(|r| r.in_sync.contains_key(&self.id.node));
        if !named || self.disk_state() < DiskState::Outdated {
            return Err("what the other node has is not whole: its disk has failed, or it is being brought up to date");
        }
        Ok(())
    }

    /// Nothing is discarded in favour of that peer.
    fn give_up_discard(&mut self, at: usize, why: &str) {
        if let Some(asked) = self.discarding.take_if(|d| d.peer == at).and_then(|d| d.asked) {
            self.operated(asked, Err(OperateError::Refused(why.to_owned())));
        }
    }

    /// The session is over, and what was said in it.
    pub(super) fn discard_lost_peer(&mut self, at: usize) {
        self.kept_for.take_if(|peer| *peer == at);
        self.sides.take_if(|sides| sides.peer == at);
        self.give_up_discard(at, "the connection to the other node broke; try again when `blkrep status` shows the split brain");
    }

    /// Whether nobody is to become primary here for the moment.
    pub(super) fn is_discarding(&self) -> bool {
        self.discarding.is_some()
    }

    /// Discards when the other side keeps, and nothing is under way here.
    pub(super) fn consider_discard(&mut self, links: &Links) {
        self.consider_policies();
        let Some(Discarding { peer, mine, kept: true, violently, .. }) = self.discarding else { return };
        let same = self.record.as_ref().is_some_and(|r| r.id == mine) && self.peers[peer].connection == Connection::SplitBrain;
        let why = if !self.has_disk() {
            "the disk here has failed"
        } else if self.is_in_use() && !violently {
            "a client has come, and the resource is in use here"
        } else if !same && self.change.is_none() {
            "the record here has changed since a moment; try again"
        } else {
            ""
        };
        if !why.is_empty() {
            self.send(peer, Message::Diverged(Diverged::NotNow { why: why.to_owned() }));
            self.give_up_discard(peer, why);
        } else if self.change.is_none() {
            self.discard(links, peer);
        }
    }

    /// This side leaves its line for the other one's (rule Q4).
    fn discard(&mut self, links: &Links, peer: usize) {
        let Some(Discarding { asked, .. }) = self.discarding.take() else { return };
        if !self.clients.is_empty() && self.reign.is_none() {
            self.drop_clients();
        }
        let theirs = self.peers[peer].standing.as_ref().and_then(|s| s.record.clone().map(|record| (record, s.lineage.clone())));
        let (Some((record, lineage)), Some(store)) = (theirs, &mut self.store) else { return };
        let superblock = &mut store.superblock;
        if !mutated(Mutant::DiscardedIsMember) {
            // No record names this life: whatever the other side's says of the one that wrote on its own, it is a stranger there (rule M3).
            superblock.incarnation = self.ids.incarnation();
            superblock.continues = superblock.incarnation;
        }
        // What both had is all that it has in common with that line (rule M6). Nothing that was said of peers on its own line counts.
        superblock.synced = superblock.parted.map(|parted| (parted.number, parted.id));
        superblock.peers.iter_mut().for_each(|slot| slot.base = None);
        superblock.outdated = true;
        // Its own writes are of a reign that the other line does not know, though it may have one of that number.
        self.follow.reign = 0;
        self.peers[peer].connection = Connection::Connected;
        self.learn(links, record, lineage);
        if let Some(asked) = asked {
            self.operated(asked, Ok(()));
        }
    }

    /// Where this line leaves the other replica's, if it does so by a record that follows the present one and that only `accepted` have
    /// stored.
    pub(super) fn parted_by(&self, accepted: PeerSet, unwritten: bool) -> Option<Parted> {
        if accepted.iter().any(|at| self.peers[at].settings.diskful) {
            return None;
        }
        let store = self.store.as_ref()?;
        let old = self.record.as_ref();
        let here =
            |old: &Record| Parted { number: old.number, id: old.id, primary: old.primary == Some(self.id.node), written: false };
        let parted = store.superblock.parted.or_else(|| old.map(here));
        parted.map(|parted| Parted { written: parted.written || !unwritten, ..parted })
    }

    /// The line of the record that follows the present one.
    pub(super) fn next_lineage(&self) -> Vec<RecordId> {
        let parted = self.store.as_ref().and_then(|s| s.superblock.parted);
        longer(self.record.as_ref(), &self.lineage, parted.map(|p| p.id))
    }

    /// The other replica goes by the same record: the lines are one.
    pub(super) fn joined(&mut self, at: usize) {
        if self.change.is_some() {
            // The next record may be on its way to the disk here, and never be heard of there.
            return;
        }
        if let Some(store) = self.store.as_mut().filter(|s| s.superblock.parted.is_some() && self.peers[at].settings.diskful) {
            store.superblock.parted = None;
            self.store_record(super::store::Then::Nothing);
        }
    }
}

/// How many records next to the place where the lines parted are kept: the two sides may each take another of them for it.
const NEAR: usize = 4;

/// A line with one more record. Where it becomes too long, what goes are the oldest; but not those at which the other replica has gone its own
/// way, as long as it does: what it lacks is known by them (rule M6).
fn longer(record: Option<&Record>, lineage: &[RecordId], parted: Option<RecordId>) -> Vec<RecordId> {
    let mut line: Vec<RecordId> = record.map(|r| r.id).into_iter().chain(lineage.iter().copied()).collect();
    while line.len() > LINEAGE_MAX {
        let oldest = line.len() - 1;
        let kept = parted.is_some() && line.last().copied() == parted;
        line.remove(if kept { oldest - NEAR } else { oldest });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Authority, Membership};

    #[test]
    fn where_the_lines_parted_is_remembered_however_long_one_of_them_goes_on() {
        let mut line: Vec<RecordId> = (0..20).rev().map(RecordId).collect();
        for id in 20..300 {
            let record = Record::first(RecordId(id), Membership::new(), Authority::Off);
            line = longer(Some(&record), &line, Some(RecordId(19)));
            assert!(line.contains(&RecordId(19)) && line[0] == RecordId(id) && line.len() <= LINEAGE_MAX, "{line:?}");
        }
        assert!(line.contains(&RecordId(20)), "and what came next, which the other one may take for it");
    }
}
