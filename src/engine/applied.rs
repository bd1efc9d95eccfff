//! Which requests of other nodes' clients have been done here (rule W7).
//!
//! A node that forwards its clients' requests sends again what was not answered when the primary changes. What the new primary's own disk
//! has, must not be done a second time: somebody may have read it and written over it since. So every replica remembers the forwarded
//! writes that it has applied, until their answers have arrived. The primary's memory counts, since its copy wins: of what a replica
//! remembers when it reports, only that remains which the primary remembers, too; when the two copies are equal, and when a replica is
//! admitted, it is given all, less what is still on its way there.

use std::collections::{BTreeMap, BTreeSet};

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
    /// One session a node: a node that forwards anew has given up what it forwarded before.
    sessions: BTreeMap<NodeId, Session>,
    /// What this node remembered when it heard of that reign.
    before: BTreeMap<NodeId, Session>,
}

#[derive(Debug, Default)]
struct Session {
    name: u64,
    done: BTreeSet<u64>,
}

impl Applied {
    pub(super) fn note(&mut self, origin: &Origin) {
        let session = self.sessions.entry(origin.node).or_default();
        if session.name != origin.session {
            *session = Session { name: origin.session, done: BTreeSet::new() };
        }
        session.done.insert(origin.seq);
        // What was answered is never sent again.
        session.done = session.done.split_off(&(origin.answered + 1));
    }

    pub(super) fn knows(&self, origin: &Origin) -> bool {
        self.sessions.get(&origin.node).is_some_and(|s| s.name == origin.session && s.done.contains(&origin.seq))
    }
}

impl Engine {
    /// A reign begins: this node's memory counts from now on.
    pub(super) fn begin_applied(&mut self, reign: u64) {
        if mutated(Mutant::AppliedForgotten) {
            self.applied.sessions.clear();
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
        // That there is a memory counts, though nothing be in it.
        let mut told = vec![Message::Applied { memory, node: self.id.node, session: 0, done: Vec::new(), equal }];
        for (&node, Session { name: session, done }) in &self.applied.sessions {
            let there = done.iter().copied().filter(|seq| !flying.contains(&(node, *session, *seq)));
            told.push(Message::Applied { memory, node, session: *session, done: there.collect(), equal });
        }
        told.into_iter().for_each(|message| self.send(at, message));
    }

    /// Replica: what the primary that it follows says. Of another reign than the last one said, it replaces what this node remembers:
    /// where the two differ, the primary's copy is about to. Until they are equal, what only the primary remembers is not here yet, and
    /// what only this node remembers may be gone at any moment: it was never answered, and is done again.
    pub(super) fn learn_applied(&mut self, memory: u64, node: NodeId, (name, mut done): (u64, Vec<u64>), equal: bool) {
        let reign = self.record.as_ref().map_or(0, |r| r.reign);
        if self.applied.reign != reign || self.applied.memory != memory {
            let known = self.applied.memory == memory;
            let before = std::mem::take(&mut self.applied.sessions);
            let before = if known { before } else { BTreeMap::new() };
            self.applied = Applied { memory, reign, sessions: BTreeMap::new(), before };
        }
        if equal {
            self.applied.before.remove(&node);
        } else {
            let before = self.applied.before.get(&node).filter(|s| s.name == name);
            done.retain(|seq| before.is_some_and(|s| s.done.contains(seq)));
        }
        if name != 0 {
            let session = self.applied.sessions.entry(node).or_default();
            if session.name != name {
                *session = Session { name, done: BTreeSet::new() };
            }
            session.done.extend(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(session: u64, seq: u64, answered: u64) -> Origin {
        Origin { node: NodeId(3), session, seq, answered }
    }

    #[test]
    fn what_was_answered_and_what_another_session_did_is_forgotten() {
        let mut applied = Applied::default();
        (1..=3).for_each(|seq| applied.note(&origin(7, seq, 0)));
        applied.note(&origin(7, 4, 2));
        let known =
            |applied: &Applied, session| (1..=5).filter(|&seq| applied.knows(&origin(session, seq, 0))).collect::<Vec<_>>();
        assert_eq!(known(&applied, 7), [3, 4]);
        assert!(known(&applied, 8).is_empty());
        applied.note(&origin(8, 1, 0));
        assert_eq!((known(&applied, 7), known(&applied, 8)), (vec![], vec![1]));
    }
}
