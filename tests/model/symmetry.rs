//! Nodes differ in what happens to them, not in their names: of all states that are the same but for names one is visited.

use std::hash::{Hash, Hasher};

use crate::state::{Mask, NODES, Node, Record, State, bit, has, small};

/// What nodes are put in order by: anything of their own that names no node. Nodes of the same key stay as they are; then the same
/// state may be visited in two orders, which costs time and nothing else.
pub fn key(node: &Node) -> u64 {
    let mut hasher = Own(0);
    let flags = [node.member, node.round];
    let masks = [node.hot, node.memory, node.granted, node.late, node.covered];
    (flags, node.life, node.cache, node.disk, node.submitted, masks).hash(&mut hasher);
    (node.seen, node.role, node.record.number, node.purpose, node.flight, node.held, node.promise).hash(&mut hasher);
    hasher.finish()
}

/// The same state with the node that was `order[n]` as node `n`.
pub fn reordered(s: &State, order: [usize; NODES]) -> State {
    let mut to = [0; NODES];
    order.iter().enumerate().for_each(|(new, &old)| to[old] = new);
    let mask = |m: Mask| -> Mask { (0..NODES).filter(|&old| has(m, old)).map(|old| bit(to[old])).sum() };
    let node = |n: u8| small(to[usize::from(n)]);
    let one_more = |n: u8| if n == 0 { 0 } else { node(n - 1) + 1 };
    let record = |r: &Record| match r.number {
        0 => *r,
        _ => Record { members: mask(r.members), lives: moved(&r.lives, order), primary: node(r.primary), ..*r },
    };
    let mut new = *s;
    for (at, &old) in order.iter().enumerate() {
        let was = &s.nodes[old];
        new.nodes[at] = Node {
            submitter: one_more(was.submitter),
            dirty: moved(&was.dirty, order),
            stored: moved(&was.stored, order),
            window: moved(&was.window, order),
            follows: one_more(was.follows),
            record: record(&was.record),
            missing: was.missing.map(mask),
            sessions: moved(&was.sessions, order),
            met: moved(&was.met, order),
            reported: mask(was.reported),
            chunks: moved(&was.chunks, order),
            unflushed: mask(was.unflushed),
            ..*was
        };
        new.open[at] = moved(&s.open[old], order);
        new.queues[at] = moved(&s.queues[old], order);
        new.asked[at] = record(&s.asked[old]);
        new.answers[at] = s.answers[old];
    }
    new.register = record(&s.register);
    new
}

fn moved<T: Copy>(array: &[T; NODES], order: [usize; NODES]) -> [T; NODES] {
    order.map(|old| array[old])
}

struct Own(u64);

impl Hasher for Own {
    fn write_u8(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(5);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
