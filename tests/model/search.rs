//! Breadth-first search of everything that can happen, from the first state to the last.
//!
//! Of a state that was visited 64 bits of hash are kept, and where it was reached from. Two different states of one hash would be
//! taken for one: with ten million states that happens once in 400,000 searches. Whole states are kept for the layer that is being
//! left and for the one that is being reached.

use std::hash::{Hash, Hasher};

/// What is searched.
pub trait Model: Sync {
    /// A state of everything. States that differ in names only have one representative.
    type State: Clone + Hash;
    /// A step, for people to read.
    type Step: Copy + std::fmt::Display;

    fn initial(&self) -> Self::State;

    /// The same state with its nodes in the order that stands for all orders.
    fn representative(&self, state: &Self::State) -> Self::State;

    /// The same state with its nodes in every order.
    fn orders(&self, state: &Self::State) -> Vec<Self::State>;

    /// Appends everything that can happen next.
    fn steps(&self, state: &Self::State, out: &mut Vec<(Self::Step, Self::State)>);

    /// What is wrong in a state.
    fn violation(&self, state: &Self::State) -> Option<&'static str>;

    /// What a state looks like after a step, in short.
    fn show(&self, state: &Self::State) -> String;
}

/// How a search ended.
pub struct Outcome {
    pub states: usize,
    pub transitions: u64,
    pub depth: usize,
    pub found: Option<Found>,
    /// There were more states than the limit.
    pub cut: bool,
}

/// A violation and the shortest way to it.
pub struct Found {
    pub violation: &'static str,
    pub trace: Vec<String>,
}

/// Visits every state, or `limit` of them, or those before the first violation.
pub fn search<M: Model>(model: &M, limit: usize) -> Outcome {
    let first = model.initial();
    let mut visited = Visited::default();
    visited.insert(fingerprint(&model.representative(&first)), 0);
    let mut layer = vec![(model.representative(&first), 0_u32)];
    let mut outcome = Outcome { states: 1, transitions: 0, depth: 0, found: None, cut: false };
    let mut steps = Vec::new();
    while !layer.is_empty() && outcome.found.is_none() && !outcome.cut {
        let mut next = Vec::new();
        for (state, at) in &layer {
            steps.clear();
            model.steps(state, &mut steps);
            outcome.transitions += steps.len() as u64;
            for (_, after) in &steps {
                let representative = model.representative(after);
                let Some(new) = visited.insert(fingerprint(&representative), *at) else { continue };
                if let Some(violation) = model.violation(&representative) {
                    outcome.found = Some(Found { violation, trace: trace(model, &visited, new) });
                    break;
                }
                next.push((representative, new));
            }
            outcome.cut = visited.len() > limit;
            if outcome.found.is_some() || outcome.cut {
                break;
            }
        }
        outcome.depth += 1;
        layer = next;
    }
    outcome.states = visited.len();
    outcome
}

/// The way to a visited state. Steps are not kept: at each state on the way the one is taken that leads to the next one's hash.
fn trace<M: Model>(model: &M, visited: &Visited, last: u32) -> Vec<String> {
    let mut way = vec![last];
    while let Some(&at) = way.last().filter(|&&at| at != 0) {
        way.push(visited.from[at as usize]);
    }
    let mut state = model.initial();
    let mut lines = vec![format!("{:48} {}", "at first", model.show(&state))];
    for at in way.into_iter().rev().skip(1) {
        let mut steps = Vec::new();
        model.steps(&state, &mut steps);
        let is_it = |state: &M::State| fingerprint(&model.representative(state)) == visited.hashes[at as usize];
        let leads = |after: &M::State| model.orders(after).iter().any(is_it);
        let (step, after) = steps.into_iter().find(|(_, after)| leads(after)).expect("the search took a step to there");
        lines.push(format!("{:48} {}", step.to_string(), model.show(&after)));
        state = after;
    }
    lines
}

/// The states that were visited: numbered in the order of their visit, found by their hash.
#[derive(Default)]
struct Visited {
    hashes: Vec<u64>,
    from: Vec<u32>,
    /// Open addressing; a number and one, zero where nothing is.
    table: Vec<u32>,
}

impl Visited {
    fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Its number, unless it was there.
    fn insert(&mut self, hash: u64, from: u32) -> Option<u32> {
        if (self.len() + 1) * 4 > self.table.len() * 3 {
            self.grow();
        }
        let place = self.place(hash);
        if self.table[place] != 0 {
            return None;
        }
        let number = u32::try_from(self.len()).expect("fewer states than four thousand million");
        self.table[place] = number + 1;
        self.hashes.push(hash);
        self.from.push(from);
        Some(number)
    }

    /// Where a hash is, or would be.
    fn place(&self, hash: u64) -> usize {
        let mask = self.table.len() - 1;
        let mut place = usize::try_from(hash >> 20).expect("64 bits") & mask;
        while self.table[place] != 0 && self.hashes[self.table[place] as usize - 1] != hash {
            place = (place + 1) & mask;
        }
        place
    }

    fn grow(&mut self) {
        self.table = vec![0; (self.table.len() * 2).max(1024)];
        for (number, at) in (0_u32..).zip(0..self.len()) {
            let place = self.place(self.hashes[at]);
            self.table[place] = number + 1;
        }
    }
}

fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = Mixer { hash: 0x243f_6a88_85a3_08d3, gathered: 0, bytes: 0 };
    state.hash(&mut hasher);
    hasher.finish()
}

/// Gathers small fields into words of eight bytes before it mixes them: the states are made of hundreds of single bytes.
struct Mixer {
    hash: u64,
    gathered: u64,
    bytes: u32,
}

impl Mixer {
    fn mix(&mut self, word: u64) {
        let wide = u128::from(self.hash ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64 ^ word.rotate_left(32) | 1);
        let (high, low) = ((wide >> 64) as u64, u64::try_from(wide & u128::from(u64::MAX)).expect("masked"));
        self.hash = (high ^ low).wrapping_add(self.hash.rotate_left(23)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.hash ^= self.hash >> 32;
    }
}

impl Hasher for Mixer {
    fn write_u8(&mut self, byte: u8) {
        self.gathered = self.gathered << 8 | u64::from(byte);
        self.bytes += 1;
        if self.bytes.is_multiple_of(8) {
            self.mix(self.gathered);
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(u64::from(word) | 1 << 40 | self.gathered << 41);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    /// The lengths of arrays: they never change.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        let mut last = Self { ..*self };
        last.mix(self.gathered);
        last.mix(u64::from(self.bytes));
        last.hash
    }
}
