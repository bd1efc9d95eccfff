//! Two nodes that decide alone (`quorum=off`), each the authority of its own record (rules Q1, Q2, Q3, Q7, Q8, M3).
//!
//! What is written is not looked at block by block here: a node has a write or it has not. What is looked at is who may go on without
//! whom, and whether two sides that did find out.

use std::fmt;

use crate::rules::Mutant;
use crate::search::Model;
use crate::state::{Mask, bit, has, small};

/// Two nodes, and what may happen to them.
#[derive(Clone, Copy, Debug)]
pub struct Alone {
    pub name: &'static str,
    pub budget: Budget,
    pub broken: Option<Mutant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    pub writes: u8,
    pub crashes: u8,
    pub breaks: u8,
    pub stops: u8,
    /// Records that may be made: fewer than 16.
    pub records: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    pub id: u8,
    /// The ids of its ancestors, as a mask.
    pub line: u16,
    pub parent: u8,
    pub members: Mask,
    pub lives: [u8; 2],
    /// Nobody has written under it.
    pub unwritten: bool,
    pub primary: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stage {
    #[default]
    Nothing,
    /// The peer, if there is one, is to store the proposal.
    PeerFirst,
    /// The peer has stored it, or is gone.
    OwnLast,
    /// An admission: this node stores it first.
    OwnFirst,
    /// And the peer last.
    PeerLast,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    pub down: bool,
    pub life: u8,
    pub primary: bool,
    /// It stopped while the other one went on.
    pub outdated: bool,
    pub record: Record,
    pub writes: Mask,
    pub stage: Stage,
    pub proposal: Record,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub nodes: [Node; 2],
    pub connected: bool,
    /// A replica that is not in sync has everything and gets everything.
    pub target: bool,
    /// The fork was found; it is an operator's now.
    pub split: bool,
    /// Writes that were answered.
    pub answered: Mask,
    pub last_write: u8,
    pub last_id: u8,
    pub cut: bool,
    pub wrong: u8,
    pub left: Budget,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    AskReign(usize),
    AskEvict(usize),
    AskAdmit(usize),
    AskStepDown(usize),
    Peer(usize),
    Own(usize),
    Write(usize),
    Resync(usize),
    Crash(usize),
    Stop(usize),
    Start(usize),
    Connect,
    Break,
}

/// What a step has done wrong.
pub const OVERWRITTEN: u8 = 1;

impl Model for Alone {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        let record = Record { id: 0, members: 0b11, unwritten: true, ..Record::default() };
        let node = Node { record, ..Node::default() };
        State { nodes: [node; 2], connected: true, left: self.budget, ..State::default() }
    }

    /// Ids are numbered anew: what counts is which record descends from which.
    fn representative(&self, state: &State) -> State {
        let mut s = *state;
        let records = |s: &State| s.nodes.map(|n| [Some(n.record), (n.stage != Stage::Nothing).then_some(n.proposal)]);
        let known = records(&s).iter().flatten().flatten().fold(0, |all, r| all | 1_u16 << r.id | 1 << r.parent);
        let number = |id: u8| small((known & ((1 << id) - 1)).count_ones() as usize);
        let renumber = |r: &mut Record| {
            let line = (0..16).filter(|&id| (r.line & known) >> id & 1 == 1);
            r.line = line.fold(0, |all, id| all | 1 << number(id));
            (r.id, r.parent) = (number(r.id), number(r.parent));
        };
        for node in &mut s.nodes {
            renumber(&mut node.record);
            if node.stage != Stage::Nothing {
                renumber(&mut node.proposal);
            }
        }
        s.last_id = small(known.count_ones() as usize - 1);
        s
    }

    fn orders(&self, state: &State) -> Vec<State> {
        vec![*state]
    }

    fn steps(&self, s: &State, out: &mut Vec<(Step, State)>) {
        for n in 0..2 {
            self.faults(s, n, out);
            if !s.nodes[n].down {
                self.ask(s, n, out);
                self.store(s, n, out);
                self.work(s, n, out);
            }
        }
        self.connections(s, out);
    }

    fn violation(&self, s: &State) -> Option<&'static str> {
        if s.wrong == OVERWRITTEN {
            return Some("a side of a fork is overwritten and nobody is told");
        }
        if s.connected && s.nodes.iter().all(|n| n.primary) {
            return Some("two connected primaries");
        }
        let lacks = |n: &Node| n.primary && s.answered & !n.writes != 0;
        (!s.cut && s.nodes.iter().any(lacks)).then_some("without a partition a primary lacks what was answered")
    }

    fn show(&self, s: &State) -> String {
        let node = |n: usize| {
            let Node { down, primary, outdated, record, writes, stage, .. } = s.nodes[n];
            let role = if down {
                "off"
            } else if primary {
                "primary"
            } else {
                ""
            };
            let outdated = if outdated { " outdated" } else { "" };
            let latch = if record.unwritten { " unwritten" } else { "" };
            format!(
                "{} {role}{outdated} record {}{latch} in sync {:02b} has {writes:b} {stage:?}",
                name(n),
                record.id,
                record.members
            )
        };
        let link = if s.connected { "connected" } else { "apart" };
        format!("{link} | {} | {}", node(0), node(1))
    }
}

impl Alone {
    pub fn breaks(&self, mutant: Mutant) -> bool {
        self.broken == Some(mutant)
    }

    pub fn is_member(&self, node: &Node, n: usize) -> bool {
        has(node.record.members, n) && node.record.lives[n] == node.life
    }

    fn work(&self, s: &State, n: usize, out: &mut Vec<(Step, State)>) {
        let (node, peer) = (&s.nodes[n], &s.nodes[1 - n]);
        let other = 1 - n;
        if !node.primary {
            return;
        }
        let there = s.connected && peer.record.id == node.record.id && !peer.primary;
        let proposed = node.stage != Stage::Nothing && has(node.proposal.members, other);
        let needed = has(node.record.members, other) || proposed || s.target;
        let member = has(node.record.members, other) && node.record.lives[other] == peer.life;
        if s.left.writes > 0 && node.stage == Stage::Nothing && (!needed || there && (member || s.target)) {
            let mut s = *s;
            s.left.writes -= 1;
            let write = bit(usize::from(s.last_write));
            s.last_write += 1;
            s.answered |= write;
            for m in (0..2).filter(|&m| m == n || needed) {
                s.nodes[m].writes |= write;
                if !self.breaks(Mutant::NeverLatched) {
                    s.nodes[m].record.unwritten = false;
                }
            }
            out.push((Step::Write(n), s));
        }
        if there && !has(node.record.members, other) && !s.target {
            let mut s = *s;
            let (mine, theirs) = (s.nodes[n].writes, s.nodes[other].writes);
            if s.answered & theirs & !mine != 0 {
                s.wrong = OVERWRITTEN;
            }
            s.nodes[other].writes = mine;
            s.target = true;
            out.push((Step::Resync(n), s));
        }
    }

    fn connections(&self, s: &State, out: &mut Vec<(Step, State)>) {
        if s.split || s.nodes.iter().any(|n| n.down) {
            return;
        }
        let mut after = *s;
        if !s.connected {
            after.connected = true;
            self.meet(&mut after);
            out.push((Step::Connect, after));
        } else if s.left.breaks > 0 {
            after.left.breaks -= 1;
            after.connected = false;
            after.target = false;
            after.cut = true;
            out.push((Step::Break, after));
        }
    }

    fn faults(&self, s: &State, n: usize, out: &mut Vec<(Step, State)>) {
        let node = &s.nodes[n];
        let mut after = *s;
        if node.down {
            after.nodes[n].down = false;
            // A record that names it primary is not a reign (rule Q1).
            after.nodes[n].primary = self.breaks(Mutant::OldReignGoesOn) && node.record.primary == Some(small(n));
            out.push((Step::Start(n), after));
            return;
        }
        after.connected = false;
        after.target = false;
        let off = Node { down: true, primary: false, stage: Stage::Nothing, proposal: Record::default(), ..*node };
        if s.left.crashes > 0 {
            let mut s = after;
            s.left.crashes -= 1;
            s.nodes[n] = Node { life: node.life + u8::from(!self.breaks(Mutant::AnyLifeCounts)), ..off };
            out.push((Step::Crash(n), s));
        }
        if s.left.stops > 0 && !node.primary && node.stage == Stage::Nothing {
            let mut s = after;
            s.left.stops -= 1;
            let other_goes_on = !s.nodes[1 - n].down;
            s.nodes[n] = Node { outdated: node.outdated || other_goes_on && !self.breaks(Mutant::StopStaysUpToDate), ..off };
            out.push((Step::Stop(n), s));
        }
    }
}

fn name(n: usize) -> char {
    char::from(b'A' + small(n))
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskReign(n) => write!(f, "{} proposes to be primary", name(*n)),
            Self::AskEvict(n) => write!(f, "{} proposes to go on alone", name(*n)),
            Self::AskAdmit(n) => write!(f, "{} proposes to admit the other", name(*n)),
            Self::AskStepDown(n) => write!(f, "{} proposes to step down", name(*n)),
            Self::Peer(n) => write!(f, "{}'s proposal goes to the other, if it is there", name(*n)),
            Self::Own(n) => write!(f, "{} stores its proposal", name(*n)),
            Self::Write(n) => write!(f, "{} completes a write", name(*n)),
            Self::Resync(n) => write!(f, "{} resyncs the other", name(*n)),
            Self::Crash(n) => write!(f, "{} crashes", name(*n)),
            Self::Stop(n) => write!(f, "{} stops cleanly", name(*n)),
            Self::Start(n) => write!(f, "{} starts", name(*n)),
            Self::Connect => write!(f, "they connect"),
            Self::Break => write!(f, "the connection breaks"),
        }
    }
}
