//! What clients do at a primary: writes, reads and flushes (rules W1, W2, W4, W5, F2, P3, P4).

use crate::cluster::{Cluster, Step, Steps};
use crate::rules::Mutant;
use crate::state::{Kind, Mask, Role, Session, State, bit, has};

impl Cluster {
    pub fn writing(&self, s: &State, p: usize, out: &mut Steps) {
        if s.nodes[p].role != Role::Serving {
            return;
        }
        for block in 0..self.blocks {
            self.begin_write(s, p, block, out);
            self.read(s, p, block, out);
            self.cool(s, p, block, out);
        }
        self.begin_round(s, p, out);
    }

    /// A write is sent to everybody who counts, and to the own disk, in one step: its extent is hot before.
    fn begin_write(&self, s: &State, p: usize, block: usize, out: &mut Steps) {
        let node = &s.nodes[p];
        let chunks = (0..self.nodes).any(|r| has(node.chunks[r], block));
        let unequal = self.is_unequal(node, block) && !self.breaks(Mutant::ServeUnequal);
        // Writes take the blocks in turn, so that no order of writes is looked at twice.
        let turn = usize::from(s.promise.last_write) % self.blocks == block;
        if s.left.writes == 0 || !turn || node.flight[block] != 0 || chunks || unequal {
            return;
        }
        let mut s = *s;
        s.left.writes -= 1;
        s.promise.last_write += 1;
        let value = s.promise.last_write;
        self.write_began(&mut s, p, block, value);
        let ack = self.ack_set(&s, p);
        let sent = self.data(&s, p);
        let all = self.all();
        let node = &mut s.nodes[p];
        if !self.breaks(Mutant::PrimaryCold) {
            node.hot |= bit(block);
        }
        node.memory |= bit(block);
        node.covered &= !bit(block);
        node.cache[block] = value;
        node.flight[block] = value;
        node.missing[block] = if self.breaks(Mutant::AnswerWhenWrittenHere) { 0 } else { ack };
        let reign = node.record.reign;
        for r in 0..self.nodes {
            if r == p || !has(all, r) {
                continue;
            }
            if has(sent, r) || has(ack, r) {
                s.nodes[p].window[r] |= bit(block);
            } else {
                s.nodes[p].dirty[r] |= bit(block);
            }
            if has(sent, r) {
                s.send(p, r, Kind::Write, reign, crate::state::small(block), value);
            }
        }
        self.check_write(&mut s, p, block);
        out.push((Step::Write { node: p, block, value }, s));
    }

    /// Replicas that get clients' writes.
    pub fn data(&self, s: &State, p: usize) -> Mask {
        (0..self.nodes).filter(|&r| s.nodes[p].sessions[r] >= Session::Member).map(bit).sum()
    }

    /// A write is answered when all who count have written it (rule W1).
    pub fn check_write(&self, s: &mut State, p: usize, block: usize) {
        let ack = self.ack_set(s, p);
        let node = &mut s.nodes[p];
        let value = node.flight[block];
        if value == 0 || node.missing[block] & ack != 0 {
            return;
        }
        let late = has(node.late, block);
        // Who is not in the ack set any more has its bits: they were set when it left.
        node.flight[block] = 0;
        node.missing[block] = 0;
        node.late &= !bit(block);
        if self.breaks(Mutant::ForgetWritten) && (0..self.blocks).all(|b| node.flight[b] == 0) {
            node.memory &= !bit(block);
            self.tell_settled(s, p, bit(block));
        }
        self.write_answered(s, block, value, late);
    }

    /// Whether a read may be served here and now.
    pub fn may_read(&self, s: &State, p: usize, block: usize) -> bool {
        let node = &s.nodes[p];
        let leased = self.breaks(Mutant::NoLease) || {
            let mut ack = self.ack_set(s, p);
            if self.breaks(Mutant::NoLeaseOfTargets) {
                ack &= node.record.members;
            }
            self.nodes_in(ack).all(|g| has(s.nodes[g].granted, usize::from(node.record.reign)))
        };
        let flying = node.flight[block] != 0 && !self.breaks(Mutant::ReadInFlight);
        let unequal = self.is_unequal(node, block) && !self.breaks(Mutant::ServeUnequal);
        node.role == Role::Serving && leased && !flying && !unequal
    }

    /// A read that tells the client what it did not know. Others change nothing; that they return what they may is an invariant.
    fn read(&self, s: &State, p: usize, block: usize, out: &mut Steps) {
        if s.promise.allowed[block].count_ones() > 1 && self.may_read(s, p, block) {
            let mut s = *s;
            self.was_read(&mut s, p, block);
            out.push((Step::Read { node: p, block }, s));
        }
    }

    /// Every round of flushes is one that a client asked for, too: that is the most that it can promise.
    fn begin_round(&self, s: &State, p: usize, out: &mut Steps) {
        let node = &s.nodes[p];
        let unequal = (0..self.blocks).any(|b| self.is_unequal(node, b)) && !self.breaks(Mutant::FlushUnequal);
        let windows = node.window.iter().any(|w| *w != 0);
        let admission = node.sessions.contains(&Session::Flushing);
        // Some mutants would go on for ever.
        let crowded = self.broken.is_some() && s.queues[p].iter().any(|q| q.iter().count() > 3);
        if node.round || unequal || crowded || !(node.memory != 0 || windows || admission) {
            return;
        }
        let mut s = *s;
        self.start_round(&mut s, p);
        out.push((Step::FlushRound { node: p }, s));
    }

    pub fn start_round(&self, s: &mut State, p: usize) {
        let ack = self.ack_set(s, p);
        let mut asked = ack;
        if self.breaks(Mutant::FlushMembersOnly) {
            asked &= s.nodes[p].record.members;
        }
        if self.breaks(Mutant::FlushHereOnly) {
            asked = 0;
        }
        let data = self.data(s, p);
        let reign = s.nodes[p].record.reign;
        let allowed = s.promise.allowed;
        let node = &mut s.nodes[p];
        node.round = true;
        node.covered = self.all_blocks();
        for block in 0..self.blocks {
            // What is in flight was not answered, and is not covered.
            if node.flight[block] != 0 {
                node.covered &= !bit(block);
            }
        }
        node.promise = allowed;
        node.disk = node.cache;
        node.unflushed = asked;
        self.nodes_in(asked & data).for_each(|r| s.send(p, r, Kind::Flush, reign, 0, 0));
        self.check_round(s, p);
    }

    /// A round ends when all who count have flushed: what it covered is settled (rule P4).
    pub fn check_round(&self, s: &mut State, p: usize) {
        let node = &mut s.nodes[p];
        if !node.round || node.unflushed != 0 {
            return;
        }
        node.round = false;
        let (covered, promise) = (node.covered, node.promise);
        node.memory &= !covered;
        node.covered = 0;
        node.promise = [0; crate::state::BLOCKS];
        s.promise.durable = promise;
        self.tell_settled(s, p, covered);
        for target in 0..self.nodes {
            if s.nodes[p].sessions[target] == Session::Flushing {
                self.hand_over(s, p, target);
            }
        }
    }

    fn tell_settled(&self, s: &mut State, p: usize, covered: Mask) {
        let reign = s.nodes[p].record.reign;
        let data = self.data(s, p);
        if covered != 0 {
            self.nodes_in(data).for_each(|r| s.send(p, r, Kind::Settled, reign, covered, 0));
        }
    }

    /// What is settled is cooled: bits first, here and there (rule W5). Not between a hand-over and the record (rule M4).
    fn cool(&self, s: &State, p: usize, block: usize, out: &mut Steps) {
        let node = &s.nodes[p];
        let handed = node.sessions.iter().any(|x| matches!(x, Session::Storing | Session::Stored));
        let handed = handed || node.purpose == crate::state::Purpose::Admit;
        let settled = !has(node.memory, block) || self.breaks(Mutant::CoolUnflushed);
        let busy = node.flight[block] != 0 || (0..self.nodes).any(|r| has(node.chunks[r], block)) || self.is_unequal(node, block);
        if !has(node.hot, block) || !settled || busy || handed && !self.breaks(Mutant::CoolDuringAdmission) {
            return;
        }
        let mut s = *s;
        let node = &mut s.nodes[p];
        for r in 0..self.nodes {
            let window = if self.breaks(Mutant::StoredWithoutWindow) { 0 } else { node.window[r] };
            if !self.breaks(Mutant::CoolUnstored) {
                node.stored[r] = node.dirty[r] | window;
            }
        }
        node.hot &= !bit(block);
        let node = s.nodes[p];
        let reign = node.record.reign;
        for m in self.nodes_in(node.record.members).filter(|&m| node.sessions[m] == Session::Member) {
            let third = self.third(p, m).filter(|&t| !has(node.record.members, t));
            let window = |t: usize| if self.breaks(Mutant::CoolWithoutWindows) { 0 } else { node.window[t] };
            let bits = third.is_some_and(|t| has(node.dirty[t] | window(t), block)) && !self.breaks(Mutant::CoolWithoutBits);
            s.send(p, m, Kind::Cool, reign, crate::state::small(block), u8::from(bits));
        }
        out.push((Step::Cool { node: p, block }, s));
    }

    /// The node that is neither of two.
    pub fn third(&self, a: usize, b: usize) -> Option<usize> {
        (0..self.nodes).find(|&n| n != a && n != b)
    }
}
