//! Giving a replica what it lacks, and taking it into the in-sync set (rules R1, R2, M4, P3).

use crate::cluster::{Cluster, Step, Steps};
use crate::rules::Mutant;
use crate::state::{Kind, Purpose, Role, Session, State, bit, has, small};

impl Cluster {
    pub fn resync(&self, s: &State, p: usize, out: &mut Steps) {
        if s.nodes[p].role == Role::Secondary {
            return;
        }
        for r in 0..self.nodes {
            for block in 0..self.blocks {
                self.send_block(s, p, r, block, out);
                self.send_held(s, p, r, block, out);
            }
            self.begin_admission(s, p, r, out);
            self.ask_admit(s, p, r, out);
        }
    }

    /// A dirty block goes to a target, or to a member that may differ. No write of it is in flight meanwhile (rule R2).
    fn send_block(&self, s: &State, p: usize, r: usize, block: usize, out: &mut Steps) {
        let node = &s.nodes[p];
        let dirty = has(node.dirty[r], block) && !has(node.chunks[r], block);
        // A member is made equal once all have reported: what one of them remembers the others may have to be given.
        let ready = node.sessions[r] >= Session::Member;
        if !dirty || !ready || node.flight[block] != 0 {
            return;
        }
        let mut s = *s;
        let node = &mut s.nodes[p];
        if self.breaks(Mutant::ChunksCross) {
            if node.held[block] == 0 {
                node.held[block] = node.cache[block] + 1;
                out.push((Step::Resync { from: p, to: r, block }, s));
            }
            return;
        }
        if self.breaks(Mutant::ClearWhenSent) {
            node.dirty[r] &= !bit(block);
        } else {
            node.chunks[r] |= bit(block);
        }
        let value = node.cache[block];
        self.give(&mut s, p, r, block, value);
        out.push((Step::Resync { from: p, to: r, block }, s));
    }

    fn give(&self, s: &mut State, p: usize, r: usize, block: usize, value: u8) {
        let node = &mut s.nodes[p];
        node.window[r] |= bit(block);
        if node.sessions[r] == Session::Member {
            node.memory |= bit(block);
        }
        node.covered &= !bit(block);
        let reign = node.record.reign;
        s.send(p, r, Kind::Resync, reign, small(block), value);
    }

    /// With rule R2 broken: a block was read some time ago, and is sent as it was then.
    fn send_held(&self, s: &State, p: usize, r: usize, block: usize, out: &mut Steps) {
        let node = &s.nodes[p];
        if node.held[block] != 0
            && node.sessions[r] >= Session::Member
            && has(node.dirty[r], block)
            && !has(node.chunks[r], block)
        {
            let mut s = *s;
            let value = node.held[block] - 1;
            s.nodes[p].held[block] = 0;
            s.nodes[p].chunks[r] |= bit(block);
            self.give(&mut s, p, r, block, value);
            out.push((Step::SendHeld { from: p, to: r, block }, s));
        }
    }

    fn is_synced(&self, s: &State, p: usize, r: usize) -> bool {
        let node = &s.nodes[p];
        (node.dirty[r] == 0 || self.breaks(Mutant::AdmitDirty)) && node.chunks[r] == 0
    }

    /// Nothing is dirty for a target: a flush that begins now confirms what it was given.
    fn begin_admission(&self, s: &State, p: usize, t: usize, out: &mut Steps) {
        let node = &s.nodes[p];
        let other = node.sessions.iter().any(|x| *x > Session::Target) || node.purpose == Purpose::Admit;
        if node.role != Role::Serving || node.sessions[t] != Session::Target || !self.is_synced(s, p, t) || node.round || other {
            return;
        }
        let mut s = *s;
        s.nodes[p].sessions[t] = Session::Flushing;
        if self.breaks(Mutant::AdmitUnflushed) {
            self.hand_over(&mut s, p, t);
        }
        out.push((Step::BeginAdmission { node: p, target: t }, s));
    }

    /// What its own promotion would need: the hot set, and the bits and windows of who is absent.
    pub fn hand_over(&self, s: &mut State, p: usize, t: usize) {
        if !self.is_synced(s, p, t) {
            s.nodes[p].sessions[t] = Session::Target;
            return;
        }
        let node = &mut s.nodes[p];
        node.sessions[t] = Session::Storing;
        let node = *node;
        let absent = self.third(p, t).filter(|&x| !has(node.record.members, x));
        let bits = absent.map_or(0, |x| node.dirty[x] | node.window[x]);
        let (hot, bits) = if self.breaks(Mutant::AdmitEmptyHanded) { (0, 0) } else { (node.hot, bits) };
        s.send(p, t, Kind::Admit, node.record.reign, hot, bits);
    }

    fn ask_admit(&self, s: &State, p: usize, t: usize, out: &mut Steps) {
        if s.nodes[p].sessions[t] != Session::Stored
            || s.nodes[p].purpose != Purpose::None
            || s.answers[p] != crate::state::Answer::None
        {
            return;
        }
        let mut s = *s;
        if self.is_synced(&s, p, t) {
            let mut record = s.nodes[p].record;
            record.members |= bit(t);
            record.lives[t] = s.nodes[p].met[t];
            self.ask(&mut s, p, Purpose::Admit, record);
        } else {
            s.nodes[p].sessions[t] = Session::Target;
        }
        out.push((Step::AskAdmit { node: p, target: t }, s));
    }
}
