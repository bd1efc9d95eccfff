//! A snapshot is of one moment (rule H1): all replicas' parts of it are the same, every write that was answered before the hold is in it, and
//! none that began later. And no hold outlives its time, whoever is dead.

use blkrep::engine::Suspension;

use super::super::holds::Copy;
use super::super::world::{MS, World};

/// What was copied of each replica while writes were held since `since`.
pub fn check(world: &World, copies: &[Copy], since: u64) -> Result<(), String> {
    let Some((first, others)) = copies.split_first() else { return Ok(()) };
    for other in others {
        let differs = first.sectors.iter().zip(&other.sectors).position(|(one, other)| one != other);
        if let Some(sector) = differs {
            return Err(format!(
                "the snapshot of n{} has {} in sector {sector}, that of n{} has {}",
                first.node, first.sectors[sector], other.node, other.sectors[sector]
            ));
        }
    }
    if world.manners.forks {
        // Two sides that have gone on without each other have two histories, and clients of both are in one book.
        return Ok(());
    }
    for sector in world.oracle.sectors() {
        let Some(&value) = usize::try_from(sector).ok().and_then(|at| first.sectors.get(at)) else { continue };
        let judged = world.oracle.judge(since, since, sector, value);
        judged.map_err(|why| format!("the snapshot of n{} is of no moment: {why}", first.node))?;
    }
    Ok(())
}

/// Writes are not held for longer than anybody has asked for.
pub fn ends(world: &World) -> Result<(), String> {
    for node in &world.nodes {
        let Some(engine) = node.engine.as_ref().filter(|_| world.now > world.holds.ends.max(node.paused_until) + 500 * MS) else {
            continue;
        };
        if engine.status().suspended.contains(&Suspension::Snapshot) {
            return Err(format!("n{} still holds writes; that was to end at {}", node.id, world.holds.ends));
        }
    }
    Ok(())
}
