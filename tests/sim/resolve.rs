//! The operator who ends a split brain: he chooses the side that loses, sometimes tells both at the same moment, and nodes die and connections
//! break meanwhile. In the end both replicas are what the side that kept its data had, byte for byte.
//!
//! It draws from a row of its own, so that what led to the split brain goes as it always did.

use blkrep::engine::{AskId, Event, Operation};
use blkrep::units::{AfterSb0, Role};

use super::invariants::{forks, identical};
use super::rng::Rng;
use super::world::{Happening, MS, World};

/// His questions are numbered from here.
pub const ASKS: u64 = 1 << 32;

/// Ends the split brain that is shown.
pub fn run(world: &mut World, seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed ^ 0x0072_6573_6f6c_7665);
    if !calm(world)? {
        return Ok(());
    }
    let sides: Vec<usize> = (0..world.nodes.len()).filter(|&at| !world.nodes[at].diskless).collect();
    let loser = sides[usize::try_from(rng.below(2)).expect("two")];
    let policies = policies(world, &mut rng, &sides)?;
    let both = rng.chance(25) || policies;
    let before: Vec<Vec<u64>> = sides.iter().map(|&at| world.nodes[at].disk.sectors().to_vec()).collect();
    let mut asked = ASKS;
    for round in 0..200 {
        // Where the policies leave it to him, he decides at last.
        if forks::is_shown(world) && (!policies || round > 12) {
            for &at in sides.iter().filter(|&&at| at == loser || both) {
                asked += 1;
                world.say(|| format!("the operator has n{at} discard its data"));
                world.hand(at, Event::Operate { id: AskId(asked), operation: Operation::DiscardMyData })?;
            }
        }
        if policies && round < 12 && round % 4 == 0 {
            world.sever(sides[0], sides[1], None);
        }
        if round < 6 {
            disturb(world, &mut rng, &sides)?;
        }
        let until = world.now + 500 * MS;
        world.run(until, |_| {})?;
        if is_whole(world, &sides) {
            identical::check(world)?;
            let now = world.nodes[sides[0]].disk.sectors();
            let kept: Vec<usize> = (0..2).filter(|&side| before[side] == now).map(|side| sides[side]).collect();
            let right = if both { !kept.is_empty() } else { kept.iter().any(|at| *at != loser) };
            let what = || format!("n{loser} was to discard its data (both: {both}), and the data of {kept:?} was kept");
            return if right { Ok(()) } else { Err(what()) };
        }
    }
    Err(format!("a split brain that was resolved does not end; {}", super::scenario::states(world)))
}

/// Waits until everybody is up, nobody uses the resource, and the two sides see each other; false when there is no split brain any more, for
/// what was seen was one side's that had nothing to itself.
fn calm(world: &mut World) -> Result<bool, String> {
    let sides: Vec<usize> = (0..world.nodes.len()).filter(|&at| !world.nodes[at].diskless).collect();
    for _ in 0..150 {
        let until = world.now + 200 * MS;
        world.run(until, |_| {})?;
        let idle = |n: &super::node::Node| {
            n.engine.as_ref().is_some_and(|e| e.status().role == Role::Secondary && e.status().clients == 0)
        };
        if world.nodes.iter().all(idle) && forks::is_shown(world) {
            return Ok(true);
        }
        if is_whole(world, &sides) && !forks::is_forked(world) {
            return identical::check(world).map(|()| false);
        }
    }
    Err(format!("the sides of a split brain do not come to rest; {}", super::scenario::states(world)))
}

/// In some of the seeds the two decide by themselves, when they meet anew.
fn policies(world: &mut World, rng: &mut Rng, sides: &[usize]) -> Result<bool, String> {
    let zero = AfterSb0::ALL[usize::try_from(rng.below(AfterSb0::ALL.len() as u64)).expect("a few")];
    if !rng.chance(50) || zero == AfterSb0::Disconnect {
        return Ok(false);
    }
    world.say(|| format!("the policy is {zero}"));
    for &at in sides {
        world.nodes[at].settings.after_split_brain.zero = zero;
        super::owner::configure(world, at)?;
    }
    Ok(true)
}

fn is_whole(world: &World, sides: &[usize]) -> bool {
    let record = |at: usize| world.nodes[at].engine.as_ref().and_then(|e| e.status().record).map(|r| r.id);
    let whole = |at: usize| {
        world.nodes[at].engine.as_ref().is_some_and(|e| {
            let status = e.status();
            status.in_sync && status.disk == blkrep::units::DiskState::UpToDate && status.role == Role::Secondary
        })
    };
    sides.iter().all(|&at| whole(at)) && record(sides[0]) == record(sides[1])
}

/// Now and then a process dies or a connection breaks.
fn disturb(world: &mut World, rng: &mut Rng, sides: &[usize]) -> Result<(), String> {
    let until = world.now + rng.between(0, 60) * MS;
    world.run(until, |_| {})?;
    let at = sides[usize::try_from(rng.below(2)).expect("two")];
    match rng.below(10) {
        0 | 1 => {
            world.kill(at, false)?;
            world.at(world.now + rng.between(1, 300) * MS, Happening::Restart { at });
        }
        2 | 3 => world.sever(sides[0], sides[1], None),
        4 => world.pause(at, rng.between(50, 900) * MS),
        _ => {}
    }
    Ok(())
}
