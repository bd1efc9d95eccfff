//! Two nodes that decide alone: how a record is changed, and what follows when two of them meet (rules Q1, Q2, Q3, Q5, Q8, M3).

use crate::alone::{Alone, OVERWRITTEN, Record, Stage, State, Step};
use crate::rules::Mutant;
use crate::state::{bit, has, small};

impl Alone {
    /// A change of the record is asked for: of the own node, and of the other one if it is there.
    pub fn ask(&self, s: &State, n: usize, out: &mut Vec<(Step, State)>) {
        let (node, peer) = (&s.nodes[n], &s.nodes[1 - n]);
        if node.stage != Stage::Nothing || s.left.records == 0 {
            return;
        }
        let other = 1 - n;
        let follows = s.connected && node.record.id == peer.record.id;
        let record = node.record;
        let mut ask = |step: Step, stage: Stage, change: &dyn Fn(&mut Record)| {
            let mut s = *s;
            s.left.records -= 1;
            s.last_id += 1;
            let line = record.line | 1 << record.id;
            let mut next = Record { id: s.last_id, line, parent: record.id, ..record };
            change(&mut next);
            s.nodes[n].stage = stage;
            s.nodes[n].proposal = next;
            out.push((step, s));
        };
        if !node.primary && self.may_reign(s, n) {
            let life = node.life;
            ask(Step::AskReign(n), Stage::PeerFirst, &|r| {
                r.primary = Some(small(n));
                r.unwritten = true;
                r.lives[n] = life;
            });
        }
        if node.primary && has(record.members, other) && (!follows || record.lives[other] != peer.life) {
            ask(Step::AskEvict(n), Stage::PeerFirst, &|r| {
                r.members &= !bit(other);
            });
        }
        if node.primary && !has(record.members, other) && follows && s.target {
            let first = if self.breaks(Mutant::AdmittedKnowsFirst) { Stage::PeerFirst } else { Stage::OwnFirst };
            let life = peer.life;
            ask(Step::AskAdmit(n), first, &|r| {
                r.members |= bit(other);
                r.lives[other] = life;
            });
        }
        if node.primary {
            ask(Step::AskStepDown(n), Stage::PeerFirst, &|r| r.primary = None);
        }
    }

    /// It is in sync, in a good life, not outdated, and no primary is there; or all that are in sync have restarted and are here.
    fn may_reign(&self, s: &State, n: usize) -> bool {
        let (node, peer) = (&s.nodes[n], &s.nodes[1 - n]);
        if s.connected && (peer.primary || node.record.id != peer.record.id) || node.outdated {
            return false;
        }
        let other = 1 - n;
        let gone = |m: usize| !self.is_member(&s.nodes[m], m);
        let last = node.record.primary.is_none_or(|p| usize::from(p) == n || !has(node.record.members, usize::from(p)));
        let all = !has(node.record.members, other) || s.connected && gone(other) && last;
        self.is_member(node, n) || has(node.record.members, n) && all
    }

    pub fn store(&self, s: &State, n: usize, out: &mut Vec<(Step, State)>) {
        let (node, peer) = (&s.nodes[n], &s.nodes[1 - n]);
        let mut after = *s;
        match node.stage {
            Stage::Nothing => {}
            Stage::PeerFirst | Stage::PeerLast => {
                let before = if node.stage == Stage::PeerFirst { node.record.id } else { node.proposal.parent };
                if s.connected {
                    let lower = peer.stage != Stage::Nothing && n == 1;
                    if peer.record.id != before || peer.primary || lower {
                        // Refused, and nothing was completed under it.
                        if node.stage == Stage::PeerLast {
                            return;
                        }
                        after.nodes[n].stage = Stage::Nothing;
                        after.nodes[n].proposal = Record::default();
                        out.push((Step::Peer(n), after));
                        return;
                    }
                    self.adopt(&mut after, 1 - n, node.proposal);
                }
                if node.stage == Stage::PeerFirst {
                    after.nodes[n].stage = Stage::OwnLast;
                } else {
                    self.granted(&mut after, n);
                }
                out.push((Step::Peer(n), after));
            }
            Stage::OwnLast => {
                after.nodes[n].record = node.proposal;
                self.granted(&mut after, n);
                out.push((Step::Own(n), after));
            }
            Stage::OwnFirst => {
                after.nodes[n].record = node.proposal;
                after.nodes[n].stage = Stage::PeerLast;
                out.push((Step::Own(n), after));
            }
        }
    }

    fn granted(&self, s: &mut State, n: usize) {
        let node = &mut s.nodes[n];
        node.stage = Stage::Nothing;
        node.proposal = Record::default();
        node.primary = node.record.primary == Some(small(n));
        if has(node.record.members, 1 - n) {
            s.target = false;
        }
        // It says so to the other one, which may have connected meanwhile.
        if s.connected {
            self.meet(s);
        }
    }

    /// A node goes by another's record. What those do not have that it names is gone, then: that must be nothing that was answered.
    fn adopt(&self, s: &mut State, n: usize, record: Record) {
        let mine = s.nodes[n].writes & s.answered;
        if (0..2).any(|m| has(record.members, m) && mine & !s.nodes[m].writes != 0) {
            s.wrong = OVERWRITTEN;
        }
        let node = &mut s.nodes[n];
        node.record = record;
        node.primary = false;
        node.stage = Stage::Nothing;
        node.proposal = Record::default();
        // It has met the other one again.
        node.outdated = false;
    }

    /// Two nodes compare their records: the one whose record is the ancestor goes by the other's.
    pub fn meet(&self, s: &mut State) {
        let [a, b] = s.nodes.map(|n| n.record);
        let knows = |x: Record, y: Record| x.line >> y.id & 1 == 1;
        let proposed = |n: usize| s.nodes[n].stage != Stage::Nothing && s.nodes[n].proposal.id == s.nodes[1 - n].record.id;
        if a.id == b.id || proposed(0) || proposed(1) {
            s.nodes.iter_mut().for_each(|n| n.outdated = false);
        } else if knows(a, b) {
            self.adopt(s, 1, a);
        } else if knows(b, a) {
            self.adopt(s, 0, b);
        } else if self.breaks(Mutant::ForkByNumber) {
            let behind = usize::from(a.id > b.id);
            let record = s.nodes[1 - behind].record;
            self.adopt(s, behind, record);
        } else {
            self.meet_fork(s, a, b);
        }
    }

    /// A side that has written nothing since withdraws by itself (rule Q3); else both keep what they have, and say so (rule Q2).
    fn meet_fork(&self, s: &mut State, a: Record, b: Record) {
        let common = |mine: Record, theirs: Record| theirs.line >> mine.parent & 1 == 1;
        let withdraws = match (a.unwritten, b.unwritten) {
            (true, false) => Some(0),
            (false, true) | (true, true) => Some(1),
            (false, false) => None,
        };
        let bystander = (0..2).find(|&n| !has(s.nodes[n].record.members, n) && !s.nodes[n].primary);
        let bystander = bystander.filter(|&n| has(s.nodes[1 - n].record.members, 1 - n));
        let withdraws = withdraws.filter(|&n| if n == 0 { common(a, b) } else { common(b, a) });
        match bystander.or(withdraws) {
            Some(n) => {
                let record = s.nodes[1 - n].record;
                self.adopt(s, n, record);
            }
            None => {
                s.split = true;
                s.connected = false;
            }
        }
    }
}
