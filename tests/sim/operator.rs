//! The operator who pauses resyncs, and replaces disks, as the control plane does it: only where another replica says, by the record that counts, that it has
//! everything. Without a primary the old replica is taken out of the record at once. A primary that counts on it hears that it is
//! to go, and drops it; then a new, empty replica takes its place.
//!
//! It draws from a row of its own, and only in [seeds](super::row) that say so.

use blkrep::units::{DiskState, NodeId, RecordId, ReplicaId};

use super::invariants;
use super::rng::Rng;
use super::world::{Happening, MS, World};

/// What he has under way.
#[derive(Debug, Default)]
pub struct Operator {
    rng: Option<Rng>,
    /// The replica that is leaving.
    leaving: Option<usize>,
    count: u64,
}

impl Operator {
    fn rng(&mut self) -> &mut Rng {
        self.rng.as_mut().expect("a seed with an operator")
    }
}

/// Decides how often he does something in a run, and when.
pub fn plan(world: &mut World, seed: u64, until: u64) {
    if !super::row::of(seed).operates {
        return;
    }
    let rng = Rng::new(seed ^ 0x6f70_6572_6174);
    world.operator.rng = Some(world.strew(rng, (2, 20), until, || Happening::Operate));
}

/// He does something, or goes on with it.
pub fn act(world: &mut World) -> Result<(), String> {
    if let Some(at) = world.operator.leaving {
        return go_on(world, at);
    }
    if world.quiet {
        return Ok(());
    }
    if world.operator.rng().chance(50) {
        steer(world);
        return Ok(());
    }
    let count = world.nodes.len() as u64;
    let at = usize::try_from(world.operator.rng().below(count)).expect("a few nodes");
    if world.nodes[at].diskless || !has_another(world, at) || !world.may_lose_disk(at) {
        return Ok(());
    }
    let (id, record) = (world.nodes[at].id, world.register.record.clone());
    if record.primary == Some(id) {
        // It is refused.
        return Ok(());
    }
    world.say(|| format!("the operator replaces the disk of n{at}"));
    if !record.in_sync.contains_key(&id) {
        return replace(world, at);
    }
    if record.primary.is_some() {
        world.operator.leaving = Some(at);
        tell(world, at, true);
        world.at(world.now + 20 * MS, Happening::Operate);
        return Ok(());
    }
    let mut next = record.next(RecordId(world.operator.rng().next()));
    next.in_sync.remove(&id);
    world.register.propose(record.id, next);
    invariants::writers::check(&world.register.history)?;
    replace(world, at)
}

/// Waits for the primary to drop a replica that is leaving, then replaces its disk.
fn go_on(world: &mut World, at: usize) -> Result<(), String> {
    let id = world.nodes[at].id;
    if world.register.record.in_sync.contains_key(&id) {
        world.at(world.now + 50 * MS, Happening::Operate);
        return Ok(());
    }
    world.operator.leaving = None;
    replace(world, at)?;
    tell(world, at, false);
    Ok(())
}

/// Pauses the resyncs to and from one replica, or lets them go on.
fn steer(world: &mut World) {
    let count = world.nodes.len() as u64;
    let at = usize::try_from(world.operator.rng().below(count)).expect("a few nodes");
    let paused = world.operator.rng().chance(60);
    world.say(|| format!("the operator has the resyncs of n{at} paused: {paused}"));
    let id = world.nodes[at].id;
    for node in 0..world.nodes.len() {
        let peers = world.nodes[node].settings.peers.iter_mut();
        peers.filter(|(peer, _)| node == at || **peer == id).for_each(|(_, peer)| peer.paused = paused);
        let life = world.nodes[node].life;
        let after = world.operator.rng().between(0, 800) * MS;
        world.at(world.now + after, Happening::Configure { at: node, life });
    }
}

/// In the end everything that is paused goes on.
pub fn resume(world: &mut World) -> Result<(), String> {
    for at in 0..world.nodes.len() {
        let peers = &mut world.nodes[at].settings.peers;
        if peers.values().any(|peer| peer.paused) {
            peers.values_mut().for_each(|peer| peer.paused = false);
            super::owner::configure(world, at)?;
        }
    }
    Ok(())
}

/// Whether another replica says of itself that it has everything, by the authority's record.
fn has_another(world: &World, at: usize) -> bool {
    let record = world.register.record.id;
    let others = world.nodes.iter().enumerate().filter(|(other, node)| *other != at && !node.diskless);
    let mut told = others.filter_map(|(_, node)| node.engine.as_ref()).map(blkrep::engine::Engine::status);
    told.any(|told| told.in_sync && told.disk == DiskState::UpToDate && told.record.is_some_and(|r| r.id == record))
}

/// The old replica's daemon closes it, and opens a new one in its place a little later.
fn replace(world: &mut World, at: usize) -> Result<(), String> {
    let power = world.operator.rng().chance(20);
    world.kill(at, power)?;
    world.operator.count += 1;
    let replica = ReplicaId(20_000 + world.operator.count);
    world.nodes[at].replace_disk(replica);
    world.nodes[at].lost = true;
    world.check_total_loss();
    let back = world.operator.rng().between(1, 1_500) * MS;
    world.at(world.now + back, Happening::Restart { at });
    Ok(())
}

/// The others hear, each at a moment of its own, that a node's replica is to go, or that there is a new one.
fn tell(world: &mut World, at: usize, leaving: bool) {
    let id: NodeId = world.nodes[at].id;
    for other in (0..world.nodes.len()).filter(|other| *other != at) {
        let node = &mut world.nodes[other];
        node.settings.peers.get_mut(&id).expect("every node is every other's peer").leaving = leaving;
        let life = node.life;
        let after = world.operator.rng().between(0, 800) * MS;
        world.at(world.now + after, Happening::Configure { at: other, life });
    }
}
