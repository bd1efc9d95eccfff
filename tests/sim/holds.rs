//! Whoever takes snapshots: asks a node to hold writes, has every replica in sync copied, and has the writes released; or dies on the way.
//!
//! As the control plane does it: a copy counts when its replica went by the same reign, and was in sync, before and after it was made, and
//! all of them count when the release says that the hold has lasted. It draws from a row of its own, and only in
//! [seeds](super::row) that say so.

use std::time::Duration;

use blkrep::engine::{Event, Held, HoldError, HoldId};
use blkrep::units::{NodeId, Role};

use super::invariants::cut;
use super::rng::Rng;
use super::world::{Happening, MS, World};

/// What is under way for a snapshot.
#[derive(Debug, Default)]
pub struct Holds {
    rng: Option<Rng>,
    count: u64,
    /// Who holds now, as far as whoever asked knows.
    pub now: Option<Taking>,
    /// Until when, on the world's clock, writes may be held.
    pub ends: u64,
    /// How many were whole, for the trace.
    pub whole: u64,
}

/// A snapshot that is being taken.
#[derive(Debug)]
pub struct Taking {
    id: HoldId,
    at: usize,
    lease: u64,
    /// What was held, and since when.
    held: Option<(Held, u64)>,
    copies: Vec<Copy>,
    released: bool,
}

/// A replica's part of a snapshot.
#[derive(Debug)]
pub struct Copy {
    pub node: usize,
    pub sectors: Vec<u64>,
}

impl Holds {
    fn rng(&mut self) -> &mut Rng {
        self.rng.as_mut().expect("a seed that takes snapshots")
    }
}

/// Decides how often a run is held, and when.
pub fn plan(world: &mut World, seed: u64, until: u64) {
    if !super::row::of(seed).holds {
        return;
    }
    let rng = Rng::new(seed ^ 0x686f_6c64_7321);
    world.holds.rng = Some(world.strew(rng, (3, 25), until, || Happening::Hold));
}

/// Asks for a hold; mostly where the primary is.
pub fn ask(world: &mut World) -> Result<(), String> {
    if world.holds.now.is_some() {
        return Ok(());
    }
    let primary = |w: &World| w.nodes.iter().position(|n| n.engine.as_ref().is_some_and(|e| e.status().role == Role::Primary));
    let count = world.nodes.len() as u64;
    let anywhere = usize::try_from(world.holds.rng().below(count)).expect("a few nodes");
    let at = if world.holds.rng().chance(80) { primary(world).unwrap_or(anywhere) } else { anywhere };
    if world.nodes[at].engine.is_none() {
        return Ok(());
    }
    let lease = world.holds.rng().between(20, 1_500) * MS;
    world.holds.count += 1;
    let id = HoldId(world.holds.count);
    world.say(|| format!("n{at} is asked to hold for {} ms", lease / MS));
    world.holds.now = Some(Taking { id, at, lease, held: None, copies: Vec::new(), released: false });
    // Clocks run faster or slower, and a process may stand still.
    world.holds.ends = world.holds.ends.max(world.now + lease + lease / 50 + 10 * MS);
    // Whoever hears nothing gives up.
    let patience = world.now + lease * 2 + 50 * MS;
    world.at(patience, Happening::Snap);
    world.hand(at, Event::Hold { id, lease: Duration::from_nanos(lease) })
}

/// Writes are held, or not.
pub fn held(world: &mut World, at: usize, id: HoldId, result: Result<Held, HoldError>) {
    world.say(|| format!("n{at} holds: {result:?}"));
    let now = world.now;
    let Some(taking) = world.holds.now.as_mut().filter(|taking| taking.id == id) else { return };
    match result {
        Ok(held) => {
            taking.held = Some((held, now));
            next(world);
        }
        Err(_) => world.holds.now = None,
    }
}

/// The next thing in a while, as long as a hold lasts or a little longer.
fn next(world: &mut World) {
    let lease = world.holds.now.as_ref().map_or(0, |taking| taking.lease);
    let after = world.holds.rng().between(1, lease / 3);
    world.at(world.now + after, Happening::Snap);
}

/// Copies a part of a replica, releases the hold, or dies.
pub fn step(world: &mut World) -> Result<(), String> {
    let Some(taking) = &world.holds.now else { return Ok(()) };
    let Some((held, _)) = taking.held.clone() else {
        world.holds.now = None;
        return Ok(());
    };
    if taking.released || world.holds.rng().chance(4) {
        world.say(|| "whoever took the snapshot is dead".into());
        world.holds.now = None;
        return Ok(());
    }
    if world.holds.rng().chance(15) {
        let taking = world.holds.now.as_ref().expect("just looked at");
        let (id, at, lease) = (taking.id, taking.at, taking.lease);
        if world.nodes[at].engine.is_some() {
            world.holds.ends = world.holds.ends.max(world.now + lease + lease / 50 + 10 * MS);
            world.hand(at, Event::RenewHold { id, lease: Duration::from_nanos(lease) })?;
        }
    }
    let Some(taking) = &world.holds.now else { return Ok(()) };
    let behind = held.in_sync.iter().copied().find(|&node| {
        let of = taking.copies.iter().find(|copy| copy.node == world.index(node));
        of.is_none_or(|copy| copy.sectors.len() < world.nodes[copy.node].disk.sectors().len())
    });
    match behind {
        Some(node) => copy(world, node, held.reign),
        None => return release(world),
    }
    next(world);
    Ok(())
}

/// Copies half a replica: what is written in between would be in the other half alone. A replica that does not go by the reign, or is not
/// in sync, has no part in the snapshot.
fn copy(world: &mut World, node: NodeId, reign: u64) {
    let at = world.index(node);
    let status = world.nodes[at].engine.as_ref().map(|engine| engine.status());
    let good = status.is_some_and(|s| s.in_sync && s.record.is_some_and(|record| record.reign == reign));
    let sectors = world.nodes[at].disk.sectors();
    let half = sectors.len() / 2;
    let all = sectors.to_vec();
    let Some(taking) = &mut world.holds.now else { return };
    match taking.copies.iter_mut().find(|copy| copy.node == at) {
        Some(copy) if good => copy.sectors.extend_from_slice(&all[copy.sectors.len()..]),
        None if good => taking.copies.push(Copy { node: at, sectors: all[..half].to_vec() }),
        _ => {
            taking.copies.retain(|copy| copy.node != at);
            if let Some((held, _)) = &mut taking.held {
                held.in_sync.remove(&node);
            }
        }
    }
}

fn release(world: &mut World) -> Result<(), String> {
    let Some(taking) = &mut world.holds.now else { return Ok(()) };
    let (id, at) = (taking.id, taking.at);
    taking.released = true;
    if world.nodes[at].engine.is_none() {
        world.holds.now = None;
        return Ok(());
    }
    let patience = world.now + 500 * MS;
    world.at(patience, Happening::Snap);
    world.hand(at, Event::ReleaseHold(id))
}

/// A hold is over: what was copied is believed when it was whole.
pub fn released(world: &mut World, id: HoldId, whole: bool) -> Result<(), String> {
    let Some(taking) = world.holds.now.take_if(|taking| taking.id == id) else { return Ok(()) };
    world.say(|| format!("released, whole: {whole}"));
    match taking.held {
        Some((_, since)) if whole => {
            world.holds.whole += 1;
            cut::check(world, &taking.copies, since)
        }
        _ => Ok(()),
    }
}
