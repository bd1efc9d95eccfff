//! What clients were promised, and everything else that must always hold.

use crate::cluster::Cluster;
use crate::state::{BLOCKS, Kind, Mask, Role, Session, State, bit, has};

/// What a step may have broken: a number in the state.
const LOST_ANSWERED: u8 = 1;
const TWO_PRIMARIES: u8 = 2;
const WENT_BACK: u8 = 3;

impl Cluster {
    pub fn write_began(&self, s: &mut State, p: usize, block: usize, value: u8) {
        let value = bit(usize::from(value));
        s.promise.allowed[block] |= value;
        s.promise.durable[block] |= value;
        for node in &mut s.nodes {
            if node.round {
                node.promise[block] |= value;
            }
        }
        if s.promise.served > s.nodes[p].record.reign {
            s.nodes[p].late |= bit(block);
        }
    }

    /// A write was answered: from now on it is there, or what was written after it.
    pub fn write_answered(&self, s: &mut State, block: usize, value: u8, late: bool) {
        let value = bit(usize::from(value));
        if late {
            s.promise.broken = TWO_PRIMARIES;
        }
        if s.promise.excused & value != 0 {
            return;
        }
        if s.promise.never & value != 0 {
            s.promise.broken = LOST_ANSWERED;
        }
        // A deposed primary may answer a write whose acknowledgements it holds, after a later one was answered. That is harmless.
        if s.promise.allowed[block] & value != 0 {
            s.promise.allowed[block] = value;
        }
    }

    /// A read has shown which value is there: no other may be found from now on.
    pub fn was_read(&self, s: &mut State, p: usize, block: usize) {
        let value = bit(usize::from(s.nodes[p].cache[block]));
        if s.promise.allowed[block] & value == 0 {
            s.promise.broken = WENT_BACK;
        }
        // With a write in flight, which only a broken rule lets a read see, that one may still happen.
        let flight = s.nodes[p].flight[block];
        let open = if flight == 0 { 0 } else { bit(usize::from(flight)) };
        s.promise.never |= s.promise.allowed[block] & !value & !open;
        s.promise.allowed[block] = value | open;
    }

    /// Protocol C promises no more than what was flushed, once all that the record has in sync have lost their power.
    pub fn note_losses(&self, s: &mut State) {
        if (0..self.nodes).any(|n| s.is_good(n)) {
            return;
        }
        s.promise.lost = true;
    }

    /// A node begins to serve. If all had lost their power, it is from now on that what was not flushed may be gone: until now the old
    /// primary may have served it, under leases that had not ended.
    pub fn serves(&self, s: &mut State, p: usize) {
        s.promise.served = s.promise.served.max(s.nodes[p].record.reign);
        if !std::mem::take(&mut s.promise.lost) {
            return;
        }
        for block in 0..BLOCKS {
            s.promise.allowed[block] |= s.promise.durable[block];
            s.promise.never &= !s.promise.durable[block];
            s.promise.excused |= s.promise.durable[block] & !bit(0);
        }
    }

    /// What is wrong in this state.
    pub fn broken_promise(&self, s: &State) -> Option<&'static str> {
        let step = match s.promise.broken {
            LOST_ANSWERED => Some("a read had shown that it never happened, and it was answered"),
            TWO_PRIMARIES => Some("two primaries complete writes"),
            WENT_BACK => Some("a read returned what may not be there"),
            _ => None,
        };
        step.or_else(|| self.reads_are_right(s))
            .or_else(|| self.one_writer(s))
            .or_else(|| self.members_are_equal(s))
            .or_else(|| self.differences_are_known(s))
    }

    /// Every read that would be served returns what it may.
    fn reads_are_right(&self, s: &State) -> Option<&'static str> {
        for (p, node) in s.nodes.iter().enumerate().filter(|(_, node)| node.role == Role::Serving) {
            for block in 0..self.blocks {
                if !self.may_read(s, p, block) || has(s.promise.allowed[block], usize::from(node.cache[block])) {
                    continue;
                }
                let deposed = s.register.reign != node.record.reign;
                return Some(if deposed { "a stale read under a lease" } else { "what was promised is lost" });
            }
        }
        None
    }

    fn one_writer(&self, s: &State) -> Option<&'static str> {
        let reigns: Vec<u8> = s.nodes.iter().filter(|n| n.role > Role::Secondary).map(|n| n.record.reign).collect();
        let twice = reigns.iter().enumerate().any(|(at, reign)| reigns[..at].contains(reign));
        twice.then_some("two primaries in one reign")
    }

    /// At rest, what a serving primary takes for equal is equal.
    fn members_are_equal(&self, s: &State) -> Option<&'static str> {
        for (p, node) in s.nodes.iter().enumerate().filter(|(_, node)| node.role == Role::Serving) {
            for (m, member) in s.nodes.iter().enumerate() {
                let counts = m != p && node.sessions[m] == Session::Member && usize::from(member.follows) == p + 1;
                if !counts || member.seen != node.record.reign || s.register.reign != node.record.reign {
                    continue;
                }
                for block in 0..self.blocks {
                    let moving = node.flight[block] != 0 || has(node.dirty[m], block) || has(node.chunks[m], block);
                    let coming =
                        s.queues[p][m].iter().any(|x| matches!(x.kind, Kind::Write | Kind::Resync) && usize::from(x.a) == block);
                    if !moving && !coming && member.submitted[block] == 0 && member.cache[block] != node.cache[block] {
                        return Some("members differ at rest");
                    }
                }
            }
        }
        None
    }

    /// Whatever differs between a member and any other replica, or would after a loss of power, is hot or dirty on the disk of one.
    fn differences_are_known(&self, s: &State) -> Option<&'static str> {
        let members = s.nodes[..self.nodes].iter().enumerate().filter(|(m, _)| self.strict && s.is_good(*m));
        for (m, member) in members {
            for (r, replica) in s.nodes[..self.nodes].iter().enumerate().filter(|(r, _)| *r != m) {
                let known: Mask = member.hot | replica.hot | member.stored[r] | replica.stored[m];
                for block in (0..self.blocks).filter(|&b| !has(known, b)) {
                    let value = member.disk[block];
                    let differ = [member.cache[block], replica.cache[block], replica.disk[block]].iter().any(|v| *v != value);
                    if differ {
                        return Some("a difference that nobody knows of");
                    }
                }
            }
        }
        None
    }
}
