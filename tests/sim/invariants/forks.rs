//! A split brain is always found, and never made up (rules Q2, Q3): with `quorum=majority` there is none; without, two nodes that both
//! answered writes on their own say so when they meet, and two of which one has certainly written nothing become one again by themselves.

use blkrep::engine::Connection;
use blkrep::units::RecordId;

use super::super::node::Node;
use super::super::world::World;

/// Notes what a node goes by, so that it is known what follows what.
pub fn note_record(world: &mut World, at: usize) {
    let record = world.nodes[at].engine.as_ref().and_then(|e| e.status().record);
    if let Some(record) = record.as_ref().filter(|r| !r.unwritten && !world.nodes[at].diskless) {
        world.written.insert(record.id);
    }
    if let Some(record) = record
        && world.parents.insert(record.id, record.parent).is_none()
        && record.reign == record.number
    {
        // The primary before may be cut off, and have answered early what this one will never hear of.
        world.early_answers_lost();
    }
}

/// Notes that a node has answered a client's write, and under which record.
pub fn note_answer(world: &mut World, at: usize) {
    if let Some(record) = world.nodes[at].engine.as_ref().and_then(|e| e.status().record) {
        world.answered.insert(record.id);
    }
}

/// Whether two sides have answered writes of which neither knew of the other.
pub fn is_forked(world: &World) -> bool {
    let all: Vec<RecordId> = world.answered.iter().copied().collect();
    let descends = |a: RecordId, b: RecordId| line(world, a).any(|id| id == b);
    all.iter().any(|a| all.iter().any(|b| !descends(*a, *b) && !descends(*b, *a)))
}

/// A record and those that it follows.
fn line(world: &World, from: RecordId) -> impl Iterator<Item = RecordId> {
    std::iter::successors(Some(from), |id| world.parents.get(id).copied().flatten())
}

/// Whether a split brain is shown for a reason: each side has gone by a record that the other one does not follow, and under which
/// something may have been written.
pub fn is_justified(world: &World) -> bool {
    let record = |n: &Node| n.engine.as_ref().and_then(|e| e.status().record).map(|r| r.id);
    let sides: Vec<Option<RecordId>> = world.nodes.iter().filter(|n| !n.diskless).map(record).collect();
    let has_own = |mine: RecordId, theirs: RecordId| {
        line(world, mine).any(|id| world.written.contains(&id) && !line(world, theirs).any(|other| other == id))
    };
    match sides[..] {
        [Some(one), Some(other)] => is_shown(world) && has_own(one, other) && has_own(other, one),
        _ => false,
    }
}

/// Whether some node shows a split brain.
pub fn is_shown(world: &World) -> bool {
    let split = |e: &blkrep::engine::Engine| e.status().peers.iter().any(|p| p.connection == Connection::SplitBrain);
    world.nodes.iter().any(|n| n.engine.as_ref().is_some_and(split))
}
