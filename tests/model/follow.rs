//! Messages: what a replica does for the primary that it follows (rules F1, F4, W2, M5), and what a primary makes of the answers.

use crate::cluster::{Cluster, Step, Steps};
use crate::rules::Mutant;
use crate::state::{Kind, Message, Purpose, Role, Session, State, bit, has, small};

impl Cluster {
    pub fn deliveries(&self, s: &State, out: &mut Steps) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let Some(message) = s.queues[from][to].first() else { continue };
                let mut after = *s;
                after.queues[from][to].pop();
                let heard = match message.kind {
                    _ if message.kind.is_answer() => {
                        self.hear(&mut after, to, from, message);
                        true
                    }
                    Kind::Follow => self.follow(&mut after, to, from, message),
                    _ => self.obey(&mut after, to, from, message),
                };
                if heard {
                    out.push((Step::Deliver { from, to, message }, after));
                }
            }
            for block in 0..self.blocks {
                self.land(s, from, block, out);
            }
        }
    }

    /// A primary wants to be followed. Before the report the disk is idle (rule F4); an older reign is refused (rule F1).
    pub fn follow(&self, s: &mut State, r: usize, p: usize, message: Message) -> bool {
        if message.reign < s.nodes[r].seen {
            return true;
        }
        if s.nodes[r].submitted != [0; 2] && !self.breaks(Mutant::ReportUndrained) {
            return false;
        }
        if s.nodes[r].role > Role::Secondary {
            self.depose(s, r);
        }
        let node = &mut s.nodes[r];
        if message.reign > node.seen {
            // What it has asked for itself comes too late.
            node.purpose = Purpose::None;
        }
        node.seen = message.reign;
        node.follows = small(p) + 1;
        // Until it hears that it is a member, it may have been evicted.
        node.member = false;
        node.granted |= bit(usize::from(message.reign));
        let (memory, life) = (node.memory, node.life);
        self.answer(s, (r, p), Kind::Report, message.reign, (memory, life));
        true
    }

    /// A message that only the primary may send that this replica follows. Whether it could be dealt with now.
    fn obey(&self, s: &mut State, r: usize, p: usize, message: Message) -> bool {
        let node = &s.nodes[r];
        let mine = usize::from(node.follows) == p + 1 && message.reign == node.seen;
        if !mine && !self.breaks(Mutant::ObeyAnybody) {
            return true;
        }
        match message.kind {
            Kind::Write | Kind::Resync => return self.submit(s, r, p, message),
            Kind::Flush => {
                if node.submitted != [0; 2] {
                    return false;
                }
                s.nodes[r].disk = node.cache;
                self.answer(s, (r, p), Kind::Flushed, message.reign, (0, 0));
            }
            Kind::Settled if node.member || self.breaks(Mutant::TargetForgets) => s.nodes[r].memory &= !message.a,
            Kind::Cool => {
                let node = &mut s.nodes[r];
                if let (Some(third), 1) = (self.third(r, p), message.b) {
                    node.dirty[third] |= bit(usize::from(message.a));
                    node.stored[third] |= node.dirty[third];
                }
                if node.member {
                    node.hot &= !bit(usize::from(message.a));
                }
            }
            Kind::Admit => {
                let node = &mut s.nodes[r];
                node.hot |= message.a;
                if let Some(third) = self.third(r, p) {
                    node.dirty[third] |= message.b;
                    node.stored[third] |= node.dirty[third];
                }
                self.answer(s, (r, p), Kind::AdmitStored, message.reign, (0, 0));
            }
            Kind::Admitted => s.nodes[r].member = true,
            _ => {}
        }
        true
    }

    /// A block goes to the replica's disk: hot before (rule W2), in the order of arrival.
    fn submit(&self, s: &mut State, r: usize, p: usize, message: Message) -> bool {
        let block = usize::from(message.a);
        let node = &mut s.nodes[r];
        if node.submitted[block] != 0 {
            return false;
        }
        // A target needs no mark for what it is only given: the source keeps its bits (rule R1).
        let given = message.kind == Kind::Resync && !node.member;
        if !given && !self.breaks(Mutant::ReplicaCold) {
            node.hot |= bit(block);
        }
        node.memory |= bit(block);
        node.submitted[block] = message.b + 1;
        node.submitter = small(p) + 1;
        if !self.slow {
            self.landed(s, r, block);
        }
        true
    }

    fn land(&self, s: &State, r: usize, block: usize, out: &mut Steps) {
        if s.nodes[r].submitted[block] != 0 {
            let mut s = *s;
            self.landed(&mut s, r, block);
            out.push((Step::Land { node: r, block }, s));
        }
    }

    fn landed(&self, s: &mut State, r: usize, block: usize) {
        let node = &mut s.nodes[r];
        let value = node.submitted[block] - 1;
        let p = usize::from(node.submitter) - 1;
        node.submitted[block] = 0;
        node.cache[block] = value;
        if node.submitted == [0; 2] {
            node.submitter = 0;
        }
        if usize::from(node.follows) == p + 1 || self.breaks(Mutant::ObeyAnybody) {
            let reign = if self.breaks(Mutant::ObeyAnybody) { s.nodes[p].record.reign } else { node.seen };
            self.answer(s, (r, p), Kind::Written, reign, (small(block), value));
        }
    }

    /// A replica answers its primary.
    fn answer(&self, s: &mut State, (r, p): (usize, usize), kind: Kind, reign: u8, (a, b): (u8, u8)) {
        if self.slow {
            s.send(r, p, kind, reign, a, b);
        } else if s.connected(r, p) {
            self.hear(s, p, r, Message { kind, reign, a, b });
        }
    }

    /// An answer to a primary, in the reign that it was asked in.
    fn hear(&self, s: &mut State, p: usize, r: usize, message: Message) {
        let node = &s.nodes[p];
        if node.role == Role::Secondary || node.record.reign != message.reign {
            return;
        }
        match message.kind {
            Kind::Report => self.reported(s, p, r, message),
            _ if node.sessions[r] < Session::Member => {}
            Kind::Written => self.written(s, p, r, usize::from(message.a), message.b),
            Kind::Flushed if node.round => {
                let node = &mut s.nodes[p];
                node.unflushed &= !bit(r);
                node.window[r] &= !node.covered;
                self.check_round(s, p);
            }
            Kind::AdmitStored if node.sessions[r] == Session::Storing => s.nodes[p].sessions[r] = Session::Stored,
            _ => {}
        }
    }

    fn written(&self, s: &mut State, p: usize, r: usize, block: usize, value: u8) {
        let node = &mut s.nodes[p];
        if has(node.chunks[r], block) {
            node.chunks[r] &= !bit(block);
            node.dirty[r] &= !bit(block);
        } else if node.flight[block] == value {
            node.missing[block] &= !bit(r);
            if node.sessions[r] >= Session::Target {
                node.dirty[r] &= !bit(block);
            }
            self.check_write(s, p, block);
        }
    }

    /// A replica follows and has said where it may differ (rules M5, P2).
    fn reported(&self, s: &mut State, p: usize, r: usize, message: Message) {
        if s.nodes[p].sessions[r] != Session::Opening {
            return;
        }
        let memory = message.a;
        let ignored = self.breaks(Mutant::ReportsIgnored);
        s.nodes[p].met[r] = message.b;
        let counts = self.counts(s, p, r);
        let node = &mut s.nodes[p];
        if counts {
            if !has(node.reported, r) && !self.breaks(Mutant::SurvivorsIgnored) {
                node.memory |= memory;
                (0..self.nodes).filter(|&x| x != p).for_each(|x| node.dirty[x] |= memory);
            }
            node.reported |= bit(r);
            node.sessions[r] = Session::Member;
            let reign = node.record.reign;
            s.send(p, r, Kind::Admitted, reign, 0, 0);
        } else {
            node.dirty[r] |= if ignored { 0 } else { memory };
            let named = has(node.record.members, r) || self.is_proposed_in_another_life(s, p, r);
            s.nodes[p].sessions[r] = if named { Session::OtherLife } else { Session::Target };
        }
        if s.nodes[p].sessions[r] >= Session::Member {
            self.resume(s, p, r);
        }
    }

    /// What a proposal names is one life of a replica. Another one's acknowledgements do not count, and it waits for the answer.
    fn is_proposed_in_another_life(&self, s: &State, p: usize, r: usize) -> bool {
        let proposed = s.nodes[p].purpose != Purpose::None && has(s.asked[p].members, r);
        proposed && !s.asked[p].names(r, s.nodes[p].met[r]) && !self.breaks(Mutant::OtherLifeAnswers)
    }

    /// What was not acknowledged is sent once more, in order, before anything new (rule W6); a round that runs includes it (rule W1).
    fn resume(&self, s: &mut State, p: usize, r: usize) {
        let reign = s.nodes[p].record.reign;
        for block in 0..self.blocks {
            let node = &mut s.nodes[p];
            if node.flight[block] == 0 || !has(node.missing[block], r) {
                continue;
            }
            if self.breaks(Mutant::NotSentAgain) {
                node.missing[block] &= !bit(r);
                self.check_write(s, p, block);
            } else {
                let value = node.flight[block];
                s.send(p, r, Kind::Write, reign, small(block), value);
            }
        }
        let joins = s.nodes[p].sessions[r] == Session::Target && has(self.ack_set(s, p), r);
        let node = &mut s.nodes[p];
        if node.round && joins && !self.breaks(Mutant::FlushMembersOnly) && !self.breaks(Mutant::FlushHereOnly) {
            node.unflushed |= bit(r);
        }
        if node.round && has(node.unflushed, r) {
            s.send(p, r, Kind::Flush, reign, 0, 0);
        }
    }
}
