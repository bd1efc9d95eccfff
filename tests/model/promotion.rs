//! A reign from its first moment to its last (rules P1, P2, P5, P6, M3, F3, F4).

use crate::cluster::{Cluster, Step, Steps};
use crate::rules::Mutant;
use crate::state::{Answer, BLOCKS, Node, Purpose, Record, Role, Session, State, bit, has, small};

impl Cluster {
    pub fn promotion(&self, s: &State, n: usize, out: &mut Steps) {
        self.ask_reign(s, n, out);
        self.serve(s, n, out);
    }

    /// A node that follows nobody asks to be primary, if it may be (rules P1, M3).
    fn ask_reign(&self, s: &State, n: usize, out: &mut Steps) {
        let node = &s.nodes[n];
        let free = node.role == Role::Secondary && node.purpose == Purpose::None && s.answers[n] == Answer::None;
        let drained = node.submitted == [0; 2] || self.breaks(Mutant::PromoteUndrained);
        if !free || !drained || s.left.reigns == 0 || node.follows != 0 {
            return;
        }
        let Some(lives) = self.promotable(s, n) else { return };
        let mut s = *s;
        s.left.reigns -= 1;
        let mut record = s.register;
        record.lives = lives;
        record.members |= bit(n);
        record.primary = small(n);
        record.reign += 1;
        self.ask(&mut s, n, Purpose::Reign, record);
        out.push((Step::AskReign { node: n }, s));
    }

    /// Whether a node may become primary, and the lives that the record then names.
    fn promotable(&self, s: &State, n: usize) -> Option<[u8; 3]> {
        let record = &s.register;
        let mut lives = record.lives;
        let any = self.breaks(Mutant::AnyLifePromoted) && has(record.members, n);
        if record.names(n, s.nodes[n].life) {
            return Some(lives);
        }
        lives[n] = s.nodes[n].life;
        if any || self.breaks(Mutant::PromoteAnybody) {
            return Some(lives);
        }
        // All members have lost their power: all are reached, and the last primary has the newest.
        let restarted = |m: usize| !s.is_good(m);
        let all = self.nodes_in(record.members).all(restarted);
        let all = all || self.breaks(Mutant::LastWithoutTheOthers) && !s.is_good(n);
        let last = usize::from(record.primary);
        let first = n == last || !has(record.members, last) || self.breaks(Mutant::LastWithoutTheOthers);
        (has(record.members, n) && all && first).then_some(lives)
    }

    /// The record names this node. What it may have and others not, or the reverse, is dirty: its memory, and for absent ones its hot
    /// extents.
    pub fn begin_reign(&self, s: &mut State, n: usize, record: Record) {
        let node = &mut s.nodes[n];
        let memory = if self.breaks(Mutant::OwnMemoryIgnored) { 0 } else { node.memory };
        for r in (0..self.nodes).filter(|&r| r != n) {
            if has(record.members, r) {
                node.dirty[r] = memory;
            } else {
                node.dirty[r] |= memory | if self.breaks(Mutant::HotIsCleanAtStart) { 0 } else { node.hot };
            }
        }
        *node = Node { role: Role::TakingOver, record, seen: record.reign, follows: 0, member: true, ..*node };
    }

    /// Every member has reported or was evicted, and what the old primary was granted has ended (rule F3).
    fn serve(&self, s: &State, n: usize, out: &mut Steps) {
        let node = &s.nodes[n];
        let reported = |m: usize| m == n || node.sessions[m] == Session::Member;
        if node.role == Role::TakingOver && self.nodes_in(node.record.members).all(reported) {
            let mut s = *s;
            self.wait_for_leases(&mut s, n);
            s.nodes[n].role = Role::Serving;
            self.serves(&mut s, n);
            out.push((Step::Serve { node: n }, s));
        }
    }

    /// Nothing tells a lease that has ended from one that may still be believed before this moment, at which it must have ended.
    fn wait_for_leases(&self, s: &mut State, n: usize) {
        let older = bit(usize::from(s.nodes[n].record.reign)) - 1;
        let old = (0..self.nodes).find(|&p| p != n && s.nodes[p].role > Role::Secondary);
        for m in self.nodes_in(s.nodes[n].record.members) {
            let closed = old.is_some_and(|old| !s.open[m][old]) && self.breaks(Mutant::CloseEndsLease);
            let forgot = s.nodes[m].forgetful;
            if !(closed || forgot || self.breaks(Mutant::NoLeaseWait)) {
                s.nodes[m].granted &= !older;
            }
        }
    }

    /// Its reign is over. What was not confirmed durable on a replica stays dirty for it.
    pub fn depose(&self, s: &mut State, n: usize) {
        let node = &mut s.nodes[n];
        for r in 0..self.nodes {
            node.dirty[r] |= node.window[r];
        }
        // A request that is on its way may still be granted.
        if s.answers[n] != Answer::Open {
            s.answers[n] = Answer::None;
            s.asked[n] = Record::default();
        }
        s.nodes[n] = Node { member: false, follows: 0, ..without_reign(&s.nodes[n]) };
    }
}

/// A node that is not primary.
pub fn without_reign(node: &Node) -> Node {
    Node {
        role: Role::Secondary,
        record: Record::default(),
        purpose: Purpose::None,
        window: [0; 3],
        flight: [0; BLOCKS],
        missing: [0; BLOCKS],
        late: 0,
        sessions: [Session::None; 3],
        met: [0; 3],
        reported: 0,
        chunks: [0; 3],
        held: [0; BLOCKS],
        round: false,
        unflushed: 0,
        covered: 0,
        promise: [0; BLOCKS],
        ..*node
    }
}
