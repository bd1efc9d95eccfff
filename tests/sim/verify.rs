//! The operator who verifies: while faults happen, when no difference may be told, and in the end, when a disk has changed blocks and said
//! nothing, when just these must be told, and be equal after a repair.
//!
//! It draws from a row of its own, and only in [seeds](super::row) that say so.

use std::collections::BTreeSet;

use blkrep::engine::{AskId, Event, OperateError, Operation, VerifyState, VerifyStatus};
use blkrep::units::Role;

use super::disk::SECTORS_PER_BLOCK;
use super::invariants::identical;
use super::rng::Rng;
use super::world::{Happening, MS, World};

/// What is known of it.
#[derive(Debug, Default)]
pub struct Verify {
    rng: Option<Rng>,
    asked: u64,
    /// How the last question was answered.
    answer: Option<Result<(), OperateError>>,
    /// Sectors that a disk has changed by itself, and that nobody has written since as far as is known.
    pub rotten: BTreeSet<u64>,
}

impl Verify {
    fn rng(&mut self) -> &mut Rng {
        self.rng.as_mut().expect("a seed that verifies")
    }
}

fn verifies(seed: u64) -> bool {
    super::row::of(seed).verifies
}

/// Decides how often a run is verified, and when.
pub fn plan(world: &mut World, seed: u64, until: u64) {
    if !verifies(seed) {
        return;
    }
    let rng = Rng::new(seed ^ 0x7665_7269_6679);
    world.verify.rng = Some(world.strew(rng, (4, 40), until, || Happening::Verify));
}

/// Asks for a verify, or to stop one; mostly where the primary is.
pub fn ask(world: &mut World) -> Result<(), String> {
    no_difference(world)?;
    let primary = |w: &World| w.nodes.iter().position(|n| n.engine.as_ref().is_some_and(|e| e.status().role == Role::Primary));
    let count = world.nodes.len() as u64;
    let anywhere = usize::try_from(world.verify.rng().below(count)).expect("a few nodes");
    let at = if world.verify.rng().chance(80) { primary(world).unwrap_or(anywhere) } else { anywhere };
    let operation = match world.verify.rng().below(10) {
        0 => Operation::StopVerify,
        n => Operation::Verify { repair: n < 5 },
    };
    operate(world, at, operation)
}

fn operate(world: &mut World, at: usize, operation: Operation) -> Result<(), String> {
    if world.nodes[at].engine.is_none() {
        return Ok(());
    }
    world.say(|| format!("n{at} is asked for {operation:?}"));
    world.verify.asked += 1;
    world.verify.answer = None;
    world.hand(at, Event::Operate { id: AskId(world.verify.asked), operation })
}

/// An engine has begun, or says why not.
pub fn operated(world: &mut World, at: usize, id: AskId, result: Result<(), OperateError>) {
    world.say(|| format!("n{at} verifies: {result:?}"));
    if id.0 == world.verify.asked {
        world.verify.answer = Some(result);
    }
}

/// As long as no disk has lied, replicas in sync never differ at the moment at which they are compared.
pub fn no_difference(world: &World) -> Result<(), String> {
    if !world.verify.rotten.is_empty() {
        return Ok(());
    }
    for node in &world.nodes {
        let Some(engine) = &node.engine else { continue };
        for peer in engine.status().peers {
            if let Some(found) = peer.verify.filter(|found| found.different > 0) {
                return Err(format!("n{} tells that n{} differs, and no disk has lied: {found:?}", node.id, peer.node));
            }
        }
    }
    Ok(())
}

/// All replicas are the same and nobody uses them. A disk changes some blocks and says nothing; it is found and repaired.
pub fn rot(world: &mut World, seed: u64) -> Result<(), String> {
    if !verifies(seed) {
        return Ok(());
    }
    no_difference(world)?;
    identical::check(world)?;
    // Nodes without a replica come last.
    let replicas = world.nodes.iter().filter(|node| !node.diskless).count() as u64;
    let bad = world.verify.rng().below(replicas);
    let good = (bad + 1 + world.verify.rng().below(replicas - 1)) % replicas;
    let at = |replica| usize::try_from(replica).expect("a few nodes");
    let (bad, good) = (at(bad), at(good));
    let first_asked = if replicas > 2 && world.verify.rng().chance(40) { bad } else { good };
    // Once for nothing: a takeover makes equal what anybody remembers, and would hide what is changed there before.
    verified(world, first_asked, false)?;
    let (blocks, first) = change(world, bad);
    if first_asked == bad {
        outvoted(world, bad, blocks)?;
    } else {
        exactly(&verified(world, good, false)?, bad, blocks, first)?;
    }
    // With a client that overwrites what differs, or holds it up. One that comes for a moment would find the other disk's node primary, and read
    // what that has changed.
    world.clients[good].working = world.verify.rng().chance(60) && !world.manners.brief;
    let found = verified(world, good, true)?;
    world.clients[good].working = false;
    let told = found.iter().find(|(peer, _)| *peer == bad).map(|(_, found)| *found).unwrap_or_default();
    if told.different > blocks || told.repaired != told.different {
        return Err(format!("of {blocks} blocks that n{bad} has changed: {told:?}"));
    }
    Ok(())
}

/// Changes some blocks of a replica: how many, and the first one's place.
fn change(world: &mut World, at: usize) -> (u64, (blkrep::units::VolumeId, u64)) {
    let written = world.oracle.sectors();
    let mut blocks = BTreeSet::new();
    for _ in 0..world.verify.rng().between(1, 12) {
        let n = usize::try_from(world.verify.rng().next() % written.len().max(1) as u64).expect("below a length");
        let sector = written.get(n).copied().unwrap_or(0);
        let value = world.verify.rng().next() | 1 << 63;
        world.nodes[at].disk.rot(sector, value);
        world.verify.rotten.insert(sector);
        let (volume, first, _) =
            world.volumes.iter().rev().find(|(_, first, _)| *first <= sector).expect("a sector is in a volume");
        blocks.insert((*volume, (sector - first) / SECTORS_PER_BLOCK));
    }
    world.say(|| format!("the disk of n{at} changes {blocks:?}"));
    let (volume, block) = *blocks.first().expect("one at least");
    (blocks.len() as u64, (volume, block * 4096))
}

type Found = Vec<(usize, VerifyStatus)>;

/// Has a node compare everything: what it finds. It is not primary at once when another node still is.
fn verified(world: &mut World, at: usize, repair: bool) -> Result<Found, String> {
    let replicas = world.nodes.iter().filter(|node| !node.diskless).count();
    for _ in 0..300 {
        operate(world, at, Operation::Verify { repair })?;
        // The slowest resync reads a MiB in a second.
        for _ in 0..1_600 {
            let until = world.now + 50 * MS;
            world.run(until, |_| {})?;
            if world.verify.answer.as_ref().is_some_and(Result::is_err) {
                break;
            }
            let found = found(world, at);
            let ended = !found.is_empty() && found.iter().all(|(_, found)| found.state != VerifyState::Running);
            if world.verify.answer.is_some() && ended {
                // A replica that was not in sync for a moment was not compared.
                let all = found.len() == replicas - 1;
                if all && found.iter().all(|(_, found)| found.state == VerifyState::Done && found.done == found.total) {
                    return Ok(found);
                }
                break;
            }
        }
    }
    Err(format!("n{at} has not verified: {:?}, {:?}", world.verify.answer, found(world, at)))
}

fn found(world: &World, at: usize) -> Found {
    let status = world.nodes[at].engine.as_ref().map(|engine| engine.status());
    let peers = status.map(|status| status.peers).unwrap_or_default();
    peers.iter().filter_map(|peer| Some((peer.node.0 as usize, peer.verify?))).collect()
}

/// Nothing but what was changed is told, and all of it.
fn exactly(found: &Found, bad: usize, blocks: u64, first: (blkrep::units::VolumeId, u64)) -> Result<(), String> {
    for (peer, found) in found {
        let expected = if *peer == bad { (blocks, Some(first)) } else { (0, None) };
        if (found.different, found.first) != expected {
            return Err(format!("n{bad} has changed {blocks} blocks from {first:?} on, and of n{peer} is told {found:?}"));
        }
    }
    Ok(())
}

/// The node whose disk has lied is primary and is told to repair: all others have something else, and keep it.
fn outvoted(world: &mut World, bad: usize, blocks: u64) -> Result<(), String> {
    let before: Vec<Vec<u64>> = world.nodes.iter().map(|node| node.disk.sectors().to_vec()).collect();
    for (peer, found) in verified(world, bad, true)? {
        if (found.different, found.repaired) != (blocks, 0) {
            return Err(format!("n{bad} alone has {blocks} changed blocks, and tells of n{peer}: {found:?}"));
        }
    }
    let same = world.nodes.iter().zip(&before).all(|(node, before)| node.disk.sectors() == before);
    if same { Ok(()) } else { Err(format!("the changed blocks of n{bad} were given to others, who agree on something else")) }
}
