//! Which requests of other nodes' clients have been done here (rule W7).
//!
//! A node that forwards its clients' requests sends again what was not answered when the primary changes. What the new primary's own disk
//! has, must not be done a second time: somebody may have read it and written over it since. So every replica remembers the forwarded
//! writes that it has applied, until their answers have arrived. The primary's memory counts, since its copy wins: of what a replica
//! remembers when it reports, only that remains which the primary remembers, too; when the two copies are equal, and when a replica is
//! admitted, it is given all, less what is still on its way there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::units::NodeId;
use crate::wire::{Message, Origin};

use super::core::Engine;
use super::mutant::{Mutant, mutated};

/// The forwarded writes that this node's disk has.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Names the memory. A primary that has none begins another, and nobody may send anything again to it. 0 for none.
    pub(super) memory: u64,
    /// The reign whose primary gave it.
    reign: u64,
    sessions: Sessions,
    /// What this node remembered when it heard of that reign.
    before: Sessions,
    /// What has come of a list that is not whole yet.
    coming: Vec<Told>,
}

/// A part of a primary's list: what of a node's session is on its disk.
#[derive(Debug)]
struct Told {
    node: NodeId,
    session: u64,
    done: Vec<u64>,
}

/// Closes a list, as a session of no node: that there is a memory counts, though nothing be in it.
const CLOSES: u64 = 0;

/// How many sessions of a node are remembered. One that forwards anew has given up what it forwarded before, but that may still be under
/// way to a disk: what comes late must not take the place of what may be sent again.
const KEPT: usize = 4;

/// The sessions of each node, in the order in which they were first seen.
#[derive(Debug, Default)]
struct Sessions(BTreeMap<NodeId, VecDeque<Session>>);

#[derive(Debug)]
struct Session {
    name: u64,
    done: BTreeSet<u64>,
}

impl Sessions {
    fn done(&self, node: NodeId, name: u64) -> Option<&BTreeSet<u64>> {
        self.0.get(&node)?.iter().find(|session| session.name == name).map(|session| &session.done)
    }

    fn done_mut(&mut self, node: NodeId, name: u64) -> &mut BTreeSet<u64> {
        let sessions = self.0.entry(node).or_default();
        let at = sessions.iter().position(|session| session.name == name).unwrap_or_else(|| {
            if sessions.len() == KEPT {
                sessions.pop_front();
            }
            sessions.push_back(Session { name, done: BTreeSet::new() });
            sessions.len() - 1
        });
        &mut sessions[at].done
    }

    fn iter(&self) -> impl Iterator<Item = (NodeId, u64, &BTreeSet<u64>)> {
        self.0.iter().flat_map(|(&node, sessions)| sessions.iter().map(move |s| (node, s.name, &s.done)))
    }
}

impl Applied {
    pub(super) fn note(&mut self, origin: &Origin) {
        let done = self.sessions.done_mut(origin.node, origin.session);
        done.insert(origin.seq);
        // What was answered is never sent again.
        *done = done.split_off(&(origin.answered + 1));
    }

    pub(super) fn knows(&self, origin: &Origin) -> bool {
        self.sessions.done(origin.node, origin.session).is_some_and(|done| done.contains(&origin.seq))
    }
}

impl Engine {
    /// A reign begins: this node's memory counts from now on.
    pub(super) fn begin_applied(&mut self, reign: u64) {
        if mutated(Mutant::AppliedForgotten) {
            self.applied.sessions = Sessions::default();
        }
        if self.applied.memory == 0 {
            self.applied = Applied { memory: self.ids.draw(), ..Applied::default() };
        }
        self.applied.reign = reign;
    }

    /// Primary: tells a replica what of the forwarded writes is on this node's disk, and on the replica's when the two are `equal`.
    pub(super) fn tell_applied(&mut self, at: usize, equal: bool) {
        let Some(reign) = &mut self.reign else { return };
        let flights = &mut reign.flights;
        let mut flying: BTreeSet<(NodeId, u64, u64)> = BTreeSet::new();
        for seq in flights.seqs() {
            if let Some(flight) = flights.get_mut(seq).filter(|f| f.unwritten.contains(at))
                && let Some(origin) = flight.origin
            {
                flying.insert((origin.node, origin.session, origin.seq));
            }
        }
        let memory = self.applied.memory;
        let mut told = Vec::new();
        for (node, session, done) in self.applied.sessions.iter() {
            let there = done.iter().copied().filter(|seq| !flying.contains(&(node, session, *seq)));
            told.push(Message::Applied { memory, node, session, done: there.collect(), equal });
        }
        told.push(Message::Applied { memory, node: self.id.node, session: CLOSES, done: Vec::new(), equal });
        told.into_iter().for_each(|message| self.send(at, message));
    }

    /// Replica: a part of the list of the primary that it follows. Nothing of it counts before it is whole: it begins to replace what this
    /// node remembers, and should the connection break in the midst of it, this node must still know what it has when it is the next
    /// primary. Nothing that the primary sends overtakes its list, so that until then this node's disk is as it remembers it.
    pub(super) fn learn_applied(&mut self, memory: u64, node: NodeId, (session, done): (u64, Vec<u64>), equal: bool) {
        self.applied.coming.push(Told { node, session, done });
        if session == CLOSES || mutated(Mutant::PartOfListCounts) {
            self.learn_list(memory, equal);
        }
    }

    /// The session is over, and what has come of a list in it.
    pub(super) fn forget_list(&mut self) {
        self.applied.coming.clear();
    }

    /// Replica: what the primary that it follows says. Of another reign than the last one said, it replaces what this node remembers:
    /// where the two differ, the primary's copy is about to. Until they are equal, what only the primary remembers is not here yet, and
    /// what only this node remembers may be gone at any moment: it was never answered, and is done again.
    fn learn_list(&mut self, memory: u64, equal: bool) {
        let list = std::mem::take(&mut self.applied.coming);
        let reign = self.record.as_ref().map_or(0, |r| r.reign);
        if self.applied.reign != reign || self.applied.memory != memory {
            let known = self.applied.memory == memory;
            let before = std::mem::take(&mut self.applied.sessions);
            let before = if known { before } else { Sessions::default() };
            self.applied = Applied { memory, reign, before, ..Applied::default() };
        }
        let Applied { sessions, before, .. } = &mut self.applied;
        for Told { node, session, mut done } in list.into_iter().filter(|told| told.session != CLOSES) {
            if equal {
                before.0.remove(&node);
            } else {
                let before = before.done(node, session);
                done.retain(|seq| before.is_some_and(|before| before.contains(seq)));
            }
            sessions.done_mut(node, session).extend(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(session: u64, seq: u64, answered: u64) -> Origin {
        Origin { node: NodeId(3), session, seq, answered }
    }

    fn known(applied: &Applied, session: u64) -> Vec<u64> {
        (1..=5).filter(|&seq| applied.knows(&origin(session, seq, 0))).collect()
    }

    #[test]
    fn what_was_answered_is_forgotten() {
        let mut applied = Applied::default();
        (1..=3).for_each(|seq| applied.note(&origin(7, seq, 0)));
        applied.note(&origin(7, 4, 2));
        assert_eq!(known(&applied, 7), [3, 4]);
        assert!(known(&applied, 8).is_empty());
    }

    /// Else a write of the newer session would be done a second time when it is sent again.
    #[test]
    fn what_comes_late_of_an_older_session_takes_nobodys_place() {
        let mut applied = Applied::default();
        applied.note(&origin(8, 1, 0));
        applied.note(&origin(7, 2, 0));
        assert_eq!((known(&applied, 7), known(&applied, 8)), (vec![2], vec![1]));
        for session in 9..=10 {
            applied.note(&origin(session, 1, 0));
        }
        assert_eq!(known(&applied, 8), [1]);
        applied.note(&origin(11, 1, 0));
        assert!(known(&applied, 8).is_empty(), "only the latest are kept");
    }
}
