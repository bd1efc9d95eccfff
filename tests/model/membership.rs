//! Who is needed, and how that changes: lost sessions, evictions, the authority and its answers (rules M1, M2, M3).

use crate::cluster::{Cluster, Step, Steps};
use crate::rules::Mutant;
use crate::state::{Answer, Node, Purpose, Record, Role, Session, State, bit, has};

impl Cluster {
    pub fn membership(&self, s: &State, p: usize, out: &mut Steps) {
        for member in 0..self.nodes {
            self.ask_evict(s, p, member, out);
        }
        self.decide(s, p, out);
        self.hear_answer(s, p, out);
    }

    /// A node asks for a change of the record. One change at a time.
    pub fn ask(&self, s: &mut State, node: usize, purpose: Purpose, record: Record) {
        s.nodes[node].purpose = purpose;
        s.asked[node] = record;
        s.answers[node] = Answer::Open;
    }

    fn ask_evict(&self, s: &State, p: usize, member: usize, out: &mut Steps) {
        let node = &s.nodes[p];
        let away = !s.open[p][member] || node.sessions[member] == Session::OtherLife;
        let free = node.purpose == Purpose::None && s.answers[p] == Answer::None;
        if node.role == Role::Secondary || member == p || !has(node.record.members, member) || !away || !free {
            return;
        }
        let mut s = *s;
        let mut record = node.record;
        record.members &= !bit(member);
        record.lives[member] = 0;
        if self.breaks(Mutant::BitsAtRequest) {
            self.mark(&mut s.nodes[p], member);
        }
        self.ask(&mut s, p, Purpose::Evict, record);
        out.push((Step::AskEvict { node: p, member }, s));
    }

    /// The authority decides: compare and swap. The request of a node that crashed since may still be on its way.
    fn decide(&self, s: &State, n: usize, out: &mut Steps) {
        if s.answers[n] != Answer::Open {
            return;
        }
        let mut s = *s;
        let granted = s.asked[n].number == s.register.number;
        if granted {
            s.register = Record { number: s.register.number + 1, ..s.asked[n] };
        }
        s.answers[n] = if granted { Answer::Granted } else { Answer::Refused };
        if s.nodes[n].purpose == Purpose::None {
            self.forget_asked(&mut s, n);
        }
        self.note_losses(&mut s);
        out.push((Step::Decide { node: n }, s));
    }

    pub fn forget_asked(&self, s: &mut State, n: usize) {
        s.nodes[n].purpose = Purpose::None;
        s.answers[n] = Answer::None;
        s.asked[n] = Record::default();
    }

    fn hear_answer(&self, s: &State, n: usize, out: &mut Steps) {
        let node = &s.nodes[n];
        let answer = s.answers[n];
        if node.purpose == Purpose::None || !matches!(answer, Answer::Granted | Answer::Refused) {
            return;
        }
        if self.breaks(Mutant::UnknownIsNo) {
            let mut s = *s;
            self.forget_asked(&mut s, n);
            self.recheck(&mut s, n);
            out.push((Step::Lose { node: n }, s));
        }
        let undrained = node.submitted != [0; 2] && node.purpose == Purpose::Reign;
        if undrained
            && !self.breaks(Mutant::PromoteUndrained)
            && !self.breaks(Mutant::PromoteDrainedOnce)
            && answer == Answer::Granted
        {
            return;
        }
        let mut s = *s;
        let purpose = node.purpose;
        let record = Record { number: s.asked[n].number + 1, ..s.asked[n] };
        self.forget_asked(&mut s, n);
        match (answer, purpose) {
            (Answer::Granted, Purpose::Reign) => self.begin_reign(&mut s, n, record),
            (Answer::Granted, _) => self.changed(&mut s, n, record),
            (_, Purpose::Reign) if self.breaks(Mutant::ReignRefused) => self.begin_reign(&mut s, n, record),
            _ if s.nodes[n].role > Role::Secondary => self.depose(&mut s, n),
            _ => {}
        }
        out.push((Step::Answer { node: n }, s));
    }

    /// The record has changed within a reign.
    fn changed(&self, s: &mut State, p: usize, record: Record) {
        let old = s.nodes[p].record;
        s.nodes[p].record = record;
        for r in 0..self.nodes {
            if has(old.members, r) && !has(record.members, r) {
                s.nodes[p].sessions[r] = Session::None;
                self.without(s, p, r);
                s.nodes[p].reported &= !bit(r);
            }
            if !has(old.members, r) && has(record.members, r) && s.nodes[p].sessions[r] >= Session::Target {
                s.nodes[p].chunks[r] = 0;
                if !self.counts(s, p, r) {
                    s.nodes[p].sessions[r] = Session::OtherLife;
                    continue;
                }
                s.nodes[p].sessions[r] = Session::Member;
                s.nodes[p].reported |= bit(r);
                s.send(p, r, crate::state::Kind::Admitted, record.reign, 0, 0);
            }
        }
        self.recheck(s, p);
    }

    /// The ack set may have become smaller: what waited may go on. Who left it has its bits.
    fn recheck(&self, s: &mut State, p: usize) {
        if s.nodes[p].role == Role::Secondary {
            return;
        }
        (0..self.blocks).for_each(|block| self.check_write(s, p, block));
        let ack = self.ack_set(s, p);
        s.nodes[p].unflushed &= ack;
        self.check_round(s, p);
    }

    /// One end of a connection is closed, and its owner knows.
    pub fn session_lost(&self, s: &mut State, n: usize, peer: usize) {
        let needed = self.needed(s, n);
        let node = &mut s.nodes[n];
        if usize::from(node.follows) == peer + 1 {
            node.follows = 0;
        }
        if node.role == Role::Secondary {
            return;
        }
        let stage = node.sessions[peer];
        node.sessions[peer] = Session::None;
        node.met[peer] = 0;
        node.chunks[peer] = 0;
        if !has(needed, peer) && stage >= Session::Target {
            self.without(s, n, peer);
        } else if self.breaks(Mutant::CompleteBeforeEvicted) {
            self.recheck(s, n);
        }
    }

    /// Goes on without a replica: what it may lack is dirty for it (rule M1).
    fn without(&self, s: &mut State, p: usize, r: usize) {
        if !self.breaks(Mutant::BitsAtRequest) {
            self.mark(&mut s.nodes[p], r);
        }
        s.nodes[p].window[r] = 0;
        for block in 0..self.blocks {
            s.nodes[p].missing[block] &= !bit(r);
        }
        self.recheck(s, p);
    }

    fn mark(&self, node: &mut Node, r: usize) {
        let forgotten = self.breaks(Mutant::WindowDropped) || self.breaks(Mutant::EvictWithoutWindow) && has(node.reported, r);
        if !forgotten {
            node.dirty[r] |= node.window[r];
        }
        for block in 0..self.blocks {
            if node.flight[block] != 0 && has(node.missing[block], r) {
                node.dirty[r] |= bit(block);
            }
        }
    }
}
