//! The model of a cluster with `quorum=majority`: which steps there are, in which order the nodes stand, what is asked of a state.

use std::fmt;

use crate::rules::Mutant;
use crate::search::Model;
use crate::state::{BLOCKS, Budget, Kind, Mask, Message, NODES, Node, Purpose, Record, Role, Session, State, bit, has, small};

/// A configuration: how many nodes, what they begin with, what may happen to them.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    pub name: &'static str,
    pub nodes: usize,
    pub blocks: usize,
    /// The last node was evicted, and has missed a write.
    pub away: bool,
    /// Answers take their time, and writes between a replica's queue and its disk. Else all that a message causes happens with it.
    pub slow: bool,
    pub budget: Budget,
    /// Whether a difference that nobody knows of is a violation, before anything is lost by it.
    pub strict: bool,
    pub broken: Option<Mutant>,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Write { node: usize, block: usize, value: u8 },
    Read { node: usize, block: usize },
    FlushRound { node: usize },
    Cool { node: usize, block: usize },
    Deliver { from: usize, to: usize, message: Message },
    Land { node: usize, block: usize },
    Resync { from: usize, to: usize, block: usize },
    SendHeld { from: usize, to: usize, block: usize },
    BeginAdmission { node: usize, target: usize },
    AskReign { node: usize },
    AskEvict { node: usize, member: usize },
    AskAdmit { node: usize, target: usize },
    Decide { node: usize },
    Lose { node: usize },
    Answer { node: usize },
    Serve { node: usize },
    Grant { from: usize, to: usize },
    Crash { node: usize, kept: [u8; BLOCKS] },
    Stop { node: usize },
    Break { node: usize, peer: usize },
    SeeBreak { node: usize, peer: usize },
    Connect { a: usize, b: usize },
}

/// Steps and the states that they lead to.
pub type Steps = Vec<(Step, State)>;

impl Cluster {
    pub fn breaks(&self, mutant: Mutant) -> bool {
        self.broken == Some(mutant)
    }

    pub fn all(&self) -> Mask {
        bit(self.nodes) - 1
    }

    pub fn all_blocks(&self) -> Mask {
        bit(self.blocks) - 1
    }

    pub fn nodes_in(&self, mask: Mask) -> impl Iterator<Item = usize> + use<> {
        (0..self.nodes).filter(move |&n| has(mask, n))
    }

    /// Whose writes, flushes and leases a primary needs besides its own (rules W1, M1, M2, M4).
    pub fn ack_set(&self, s: &State, p: usize) -> Mask {
        let node = &s.nodes[p];
        let mut set = node.record.members;
        if self.breaks(Mutant::CompleteBeforeEvicted) {
            set = self.nodes_in(set).filter(|&m| node.sessions[m] == Session::Member).map(bit).sum();
        }
        if node.purpose != Purpose::None && !self.breaks(Mutant::ProposedNotAwaited) {
            set |= s.asked[p].members;
        }
        if !self.breaks(Mutant::TargetNotAwaited) {
            set |= self.targets(node);
        }
        set & !bit(p)
    }

    pub fn targets(&self, node: &Node) -> Mask {
        (0..self.nodes).filter(|&r| node.sessions[r] >= Session::Target).map(bit).sum()
    }

    /// Who is named by the record or by what is asked for: nobody goes on without them.
    pub fn needed(&self, s: &State, p: usize) -> Mask {
        let node = &s.nodes[p];
        let asked = node.purpose != Purpose::None && !self.breaks(Mutant::ProposedNotAwaited);
        node.record.members | if asked { s.asked[p].members } else { 0 }
    }

    /// Members whose copies of a block may differ from the primary's.
    pub fn is_unequal(&self, node: &Node, block: usize) -> bool {
        (0..self.nodes).any(|m| has(node.record.members, m) && has(node.dirty[m], block))
    }

    /// Whether the primary counts a replica as the member that its record names.
    pub fn counts(&self, s: &State, p: usize, replica: usize) -> bool {
        let record = &s.nodes[p].record;
        record.names(replica, s.nodes[p].met[replica]) || self.breaks(Mutant::AnyLifeCounts) && has(record.members, replica)
    }

    /// Asks every replica to follow that a primary is connected with and that does not: it does so at once.
    pub fn open_sessions(&self, s: &mut State) {
        for p in 0..self.nodes {
            for r in 0..self.nodes {
                let node = &s.nodes[p];
                if node.role > Role::Secondary && p != r && node.sessions[r] == Session::None && s.connected(p, r) {
                    let reign = node.record.reign;
                    s.nodes[p].sessions[r] = Session::Opening;
                    if self.slow || s.queues[p][r].first().is_some() {
                        s.send(p, r, Kind::Follow, reign, 0, 0);
                    } else {
                        self.follow(s, r, p, Message { kind: Kind::Follow, reign, a: 0, b: 0 });
                    }
                }
            }
        }
    }
}

impl Model for Cluster {
    type State = State;
    type Step = Step;

    fn initial(&self) -> State {
        let mut s = State { count: self.nodes, left: self.budget, ..State::default() };
        let members = if self.away { self.all() & !bit(self.nodes - 1) } else { self.all() };
        let number = if self.away { 2 } else { 1 };
        s.register = Record { number, members, primary: 0, reign: 1, lives: [0; NODES] };
        for n in 0..self.nodes {
            let node = &mut s.nodes[n];
            if has(members, n) {
                node.seen = 1;
                node.member = true;
            }
            if has(members, n) && n > 0 {
                node.follows = 1;
                node.granted = bit(1);
                s.nodes[0].sessions[n] = Session::Member;
                s.nodes[0].reported |= bit(n);
                for other in 0..n {
                    s.open[n][other] = true;
                    s.open[other][n] = true;
                }
            }
        }
        s.nodes[0].role = Role::Serving;
        s.nodes[0].record = s.register;
        for block in 0..self.blocks {
            s.promise.allowed[block] = bit(0);
            s.promise.durable[block] = bit(0);
        }
        if self.away {
            s.promise.last_write = 1;
            s.promise.allowed[0] = bit(1);
            s.promise.durable[0] = bit(1);
            s.nodes[0].dirty[self.nodes - 1] = bit(0);
            for n in self.nodes_in(members) {
                let node = &mut s.nodes[n];
                node.hot = bit(0);
                node.cache[0] = 1;
                node.disk[0] = 1;
            }
        }
        s.promise.served = 1;
        s
    }

    fn representative(&self, state: &State) -> State {
        let mut order = [0, 1, 2];
        order[..self.nodes].sort_by_key(|&n| std::cmp::Reverse(crate::symmetry::key(&state.nodes[n])));
        if order == [0, 1, 2] { *state } else { crate::symmetry::reordered(state, order) }
    }

    fn orders(&self, state: &State) -> Vec<State> {
        let orders: &[[usize; NODES]] = match self.nodes {
            2 => &[[0, 1, 2], [1, 0, 2]],
            _ => &[[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]],
        };
        orders.iter().map(|order| crate::symmetry::reordered(state, *order)).collect()
    }

    fn steps(&self, s: &State, out: &mut Steps) {
        self.faults(s, out);
        self.deliveries(s, out);
        for p in 0..self.nodes {
            self.writing(s, p, out);
            self.resync(s, p, out);
            self.membership(s, p, out);
            self.promotion(s, p, out);
        }
        for (_, after) in out.iter_mut() {
            self.settle(after);
        }
    }

    fn violation(&self, state: &State) -> Option<&'static str> {
        self.broken_promise(state)
    }

    fn show(&self, state: &State) -> String {
        crate::show::state(self, state)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |n: &usize| char::from(b'A' + small(*n));
        match self {
            Self::Write { node, block, value } => write!(f, "{} begins write {value} of block {block}", name(node)),
            Self::Read { node, block } => write!(f, "{} answers a read of block {block}", name(node)),
            Self::FlushRound { node } => write!(f, "{} begins a round of flushes", name(node)),
            Self::Cool { node, block } => write!(f, "{} cools block {block}", name(node)),
            Self::Deliver { from, to, message } => {
                write!(f, "{} hears {}: {}", name(to), name(from), crate::show::message(message))
            }
            Self::Land { node, block } => write!(f, "{}'s disk writes block {block}", name(node)),
            Self::Resync { from, to, block } => write!(f, "{} resyncs block {block} of {}", name(from), name(to)),
            Self::SendHeld { from, to, block } => write!(f, "{} sends {} block {block} as it was", name(from), name(to)),
            Self::BeginAdmission { node, target } => write!(f, "{} begins to admit {}", name(node), name(target)),
            Self::AskReign { node } => write!(f, "{} asks for a reign", name(node)),
            Self::AskEvict { node, member } => write!(f, "{} asks to evict {}", name(node), name(member)),
            Self::AskAdmit { node, target } => write!(f, "{} asks to admit {}", name(node), name(target)),
            Self::Decide { node } => write!(f, "the authority decides what {} asked", name(node)),
            Self::Lose { node } => write!(f, "the answer to {} is lost", name(node)),
            Self::Answer { node } => write!(f, "{} is answered", name(node)),
            Self::Serve { node } => write!(f, "{} begins to serve", name(node)),
            Self::Grant { from, to } => write!(f, "{} grants {} a lease", name(from), name(to)),
            Self::Crash { node, kept } => write!(f, "{} loses power and starts; its disk has {kept:?}", name(node)),
            Self::Stop { node } => write!(f, "{} stops cleanly and starts", name(node)),
            Self::Break { node, peer } => write!(f, "{} closes its connection to {}", name(node), name(peer)),
            Self::SeeBreak { node, peer } => write!(f, "{} sees its connection to {} closed", name(node), name(peer)),
            Self::Connect { a, b } => write!(f, "{} and {} connect", name(a), name(b)),
        }
    }
}
