//! Faults. A seed draws which kinds there are in its world, and then one after the other.

use blkrep::units::{Record, ReplicaId};

use super::node::{Failing, Life};
use super::rng::Rng;
use super::world::{Happening, MS, World};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill,
    KillAll,
    /// Every node in turn is killed or stopped, and comes back before the next one goes.
    Rolling,
    Stop,
    Sever,
    /// A node is cut off from all others and the authority.
    CutOff,
    /// Nothing arrives and nobody is told.
    Stall,
    /// The authority does not answer.
    NoAuthority,
    /// A disk refuses reads, writes, flushes or metadata from now on.
    DiskFails,
    /// A disk answers nothing for a while.
    DiskHangs,
    /// A process gets no time for a while.
    Pause,
    /// A machine comes back with an empty disk.
    DiskReplaced,
    /// A machine comes back with what its disk held at an earlier clean stop.
    DiskRestored,
}

const ALL: &[Fault] = &[
    Fault::Kill,
    Fault::KillAll,
    Fault::Rolling,
    Fault::Stop,
    Fault::Sever,
    Fault::CutOff,
    Fault::Stall,
    Fault::NoAuthority,
    Fault::DiskFails,
    Fault::DiskHangs,
    Fault::Pause,
    Fault::DiskReplaced,
    Fault::DiskRestored,
];

/// The kinds of a seed: a few, so that each meets the others in all combinations and none drowns the rest.
pub fn draw(rng: &mut Rng, network: bool) -> Vec<Fault> {
    let chance = rng.between(15, 70);
    let partition = |f: &Fault| matches!(f, Fault::Sever | Fault::CutOff | Fault::Stall | Fault::Pause);
    let mut kinds: Vec<Fault> = ALL.iter().copied().filter(|f| (network || !partition(f)) && rng.chance(chance)).collect();
    if kinds.is_empty() {
        kinds.push(Fault::Kill);
    }
    kinds
}

/// One fault, and when the next comes.
pub fn strike(world: &mut World, kinds: &[Fault]) {
    let most = if world.manners.brief { 150 } else { 600 };
    let next = world.rng.between(5, most) * MS;
    world.at(world.now + next, Happening::Chaos);
    if world.rng.chance(35) {
        heal(world);
        return;
    }
    let count = world.nodes.len();
    let victim = below(world, count);
    let other = (victim + 1 + below(world, count - 1)) % count;
    let fault = kinds[below(world, kinds.len())];
    world.say(|| format!("{fault:?}: n{victim}, n{other}"));
    match fault {
        Fault::Kill => kill(world, victim),
        Fault::KillAll => (0..count).for_each(|at| kill(world, at)),
        Fault::Rolling => roll(world),
        Fault::Stop => stop(world, victim, 0),
        Fault::Sever => world.sever(victim, other, None),
        Fault::CutOff => cut(world, victim),
        Fault::Stall => stall(world, victim, other),
        Fault::NoAuthority => world.register.reachable = !world.register.reachable,
        Fault::DiskFails => fail_disk(world, victim),
        Fault::DiskHangs => world.nodes[victim].hung_until = world.now + world.rng.between(10, 3_000) * MS,
        Fault::Pause => {
            let time = world.rng.between(50, 3_000) * MS;
            world.pause(victim, time);
        }
        Fault::DiskReplaced => another_disk(world, victim, false),
        Fault::DiskRestored => another_disk(world, victim, true),
    }
}

fn below(world: &mut World, n: usize) -> usize {
    usize::try_from(world.rng.below(n as u64)).unwrap()
}

fn kill(world: &mut World, victim: usize) {
    let power = world.rng.chance(50);
    world.at(world.now, Happening::Kill { at: victim, power });
    let back = world.rng.between(1, 1_500) * MS;
    world.at(world.now + back, Happening::Restart { at: victim });
}

fn stop(world: &mut World, victim: usize, later: u64) {
    world.at(world.now + later, Happening::Stop { at: victim });
    let back = later + world.rng.between(100, 8_000) * MS;
    world.at(world.now + back, Happening::Restart { at: victim });
}

fn roll(world: &mut World) {
    let clean = world.rng.chance(50);
    let each = world.rng.between(200, 2_500) * MS;
    for at in 0..world.nodes.len() {
        let later = at as u64 * each;
        if clean {
            world.at(world.now + later, Happening::Stop { at });
        } else {
            let power = world.rng.chance(50);
            world.at(world.now + later, Happening::Kill { at, power });
        }
        let back = world.rng.between(each / 4, each + each / 4);
        world.at(world.now + later + back, Happening::Restart { at });
    }
}

fn cut(world: &mut World, victim: usize) {
    world.partitioned[victim] = !world.partitioned[victim];
    let cut = world.partitioned[victim];
    for other in (0..world.nodes.len()).filter(|o| *o != victim) {
        if cut && world.rng.chance(50) {
            world.sever(victim, other, None);
        } else {
            stall(world, victim, other);
        }
    }
}

fn stall(world: &mut World, a: usize, b: usize) {
    if let Some(connection) = world.connections.get_mut(&(a.min(b), a.max(b))) {
        connection.stalled = true;
    }
}

/// Only where another member has everything: no replication survives the loss of all copies.
fn fail_disk(world: &mut World, victim: usize) {
    if world.nodes[victim].diskless || !world.may_lose_disk(victim) || world.nodes[victim].engine.is_none() {
        return;
    }
    let kind = world.rng.below(5);
    let all = kind == 4;
    let failing =
        Failing { reads: kind == 0 || all, writes: kind == 1 || all, flushes: kind == 2 || all, metadata: kind == 3 || all };
    world.say(|| format!("n{victim} {failing:?}"));
    world.nodes[victim].failing = failing;
    world.nodes[victim].lost = true;
    if world.rng.chance(60) {
        let later = world.now + world.rng.between(50, 4_000) * MS;
        let power = world.rng.chance(50);
        world.at(later, Happening::Kill { at: victim, power });
        world.at(later + 100 * MS, Happening::Restart { at: victim });
    }
}

fn another_disk(world: &mut World, victim: usize, restored: bool) {
    let image = world.nodes[victim].image.clone().filter(|_| restored);
    let known = image.as_ref().is_some_and(|image| is_recognised(world, victim, image.2));
    if world.nodes[victim].diskless || (restored && !known) || !world.may_lose_disk(victim) {
        return;
    }
    let power = world.rng.chance(50);
    if world.kill(victim, power).is_err() {
        return;
    }
    match image {
        Some(image) => world.nodes[victim].restore(*image),
        None => {
            world.replicas += 1;
            world.nodes[victim].replace_disk(ReplicaId(9_000 + world.replicas));
        }
    }
    world.nodes[victim].lost = true;
    world.check_total_loss();
    let back = world.rng.between(1, 1_500) * MS;
    world.at(world.now + back, Happening::Restart { at: victim });
}

/// An old image is known for one by the lives that a record has named since. One that was copied within the last of them is not, and
/// nobody may bring it back (rule M6).
fn is_recognised(world: &World, victim: usize, image: Life) -> bool {
    let id = world.nodes[victim].id;
    let later = |r: &Record| r.in_sync.get(&id).is_some_and(|i| *i != image.incarnation && *i != image.continues);
    let since = world.register.history.iter().rev().take_while(|r| r.in_sync.get(&id) != Some(&image.continues));
    since.clone().any(later) && world.register.history.iter().any(|r| r.in_sync.get(&id) == Some(&image.continues))
}

fn heal(world: &mut World) {
    world.register.reachable = true;
    let pairs: Vec<_> = world.connections.iter().filter(|(_, c)| c.stalled).map(|(pair, _)| *pair).collect();
    for (a, b) in pairs {
        if world.partitioned[a] == world.partitioned[b] {
            world.unstall(a, b);
        }
    }
    if world.rng.chance(40) {
        world.partitioned.fill(false);
    }
}

/// Faults end; everything that is down comes back, a disk that failed in another machine.
pub fn end(world: &mut World) -> Result<(), String> {
    world.say(|| "quiet".into());
    world.quiet = true;
    world.partitioned.fill(false);
    world.register.reachable = true;
    let pairs: Vec<_> = world.connections.keys().copied().collect();
    for (a, b) in pairs {
        world.unstall(a, b);
    }
    for client in &mut world.clients {
        client.working = false;
    }
    for at in 0..world.nodes.len() {
        if world.nodes[at].failing != Failing::default() {
            world.kill(at, false)?;
        }
        // A node that is still stopping is down a little later.
        for later in [10, 6_000, 12_000, 18_000] {
            world.at(world.now + later * MS, Happening::Restart { at });
        }
    }
    Ok(())
}
