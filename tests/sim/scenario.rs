//! One seed's story: a cluster, a time of faults, a quiet time, and what must be true then.

use std::collections::BTreeMap;
use std::time::Duration;

use blkrep::engine::{Peer, Settings, Timeouts};
use blkrep::format::{NewReplica, PeerSlot};
use blkrep::units::{
    AfterSplitBrain, Authority, ClusterId, Incarnation, NodeId, Protocol, Record, RecordId, ReplicaId, ResourceId, Role, VolumeId,
};

use super::ambush::{Ambush, Deed, OCCASIONS};
use super::chaos;
use super::invariants::{forks, identical};
use super::node::{Clock, Node};
use super::rng::Rng;
use super::world::{Happening, MS, Manners, World};

/// Seeds that once found something.
pub const KEPT: &[u64] = &[
    209, 279, 372, 520, 528, 551, 679, 100_093, 100_325, 200_888, 201_144, 2_001_307, 2_006_008, 3_000_921, 3_000_954, 3_003_338,
];

const MIB: u64 = 1 << 20;

/// Runs a seed.
pub fn run(seed: u64, trace: bool) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let row = super::row::of(seed);
    let brief = row.brief;
    let majority = (rng.chance(70) || brief) && !row.forks;
    let count = match (majority, rng.below(10)) {
        (false, _) => 2,
        (true, n) if brief => 3 + n % 2,
        (true, 0) => 5,
        (true, n) => 2 + n % 3,
    };
    let chaos_until = 1_000 * MS + rng.between(2_000, 12_000) * MS;
    let mut world = build(rng, usize::try_from(count).unwrap(), diskless(seed), majority, trace);
    let network = world.majority || world.manners.forks;
    world.manners.brief = brief;
    world.manners.shares = row.shares;
    if row.errors && seed.is_multiple_of(2) {
        let patience = world.rng.between(1, 1_000);
        world.nodes.iter_mut().for_each(|node| node.settings.io_fails_after = Some(Duration::from_millis(patience)));
    }
    world.manners.forks |= row.forks;
    if brief {
        world.ambush = super::brief::ambush(&mut world.rng);
    }
    let kinds = if brief { super::brief::kinds(&mut world.rng) } else { chaos::draw(&mut world.rng, network) };
    world.say(|| {
        format!(
            "{count} nodes with replicas of {}, majority {majority}, {:?}, {kinds:?}, {:?}",
            world.nodes.len(),
            world.manners,
            world.ambush
        )
    });
    for at in 0..world.nodes.len() {
        world.start(at)?;
        world.clients[at].working = true;
        world.at(1_000 * MS, Happening::Client { at });
    }
    super::owner::plan(&mut world, seed, chaos_until);
    super::holds::plan(&mut world, seed, chaos_until);
    super::verify::plan(&mut world, seed, chaos_until);
    super::operator::plan(&mut world, seed, chaos_until);
    world.at(1_050 * MS, Happening::Chaos);
    world.at(1_010 * MS, Happening::Check);
    world.run(chaos_until, |world| chaos::strike(world, &kinds))?;
    chaos::end(&mut world)?;
    super::owner::hurry(&mut world)?;
    super::operator::resume(&mut world)?;
    if world.manners.forks && forks::is_forked(&world) {
        shown(&mut world)?;
        return resolved(&mut world, seed);
    }
    if converge(&mut world)? == Outcome::SplitBrain {
        return resolved(&mut world, seed);
    }
    world.settled = true;
    super::verify::rot(&mut world, seed)?;
    if converge(&mut world)? == Outcome::SplitBrain {
        return resolved(&mut world, seed);
    }
    identical::check(&world)?;
    read_all(&mut world)
}

/// How many nodes there are without a replica: half of the seeds have some.
fn diskless(seed: u64) -> usize {
    let mut rng = Rng::new(seed ^ 0x6469_736b_6c65_7373);
    match rng.below(10) {
        0..5 => 0,
        5..9 => 1,
        _ => 2,
    }
}

fn build(mut rng: Rng, count: usize, diskless: usize, majority: bool, trace: bool) -> World {
    let all: Vec<NodeId> = (0..count + diskless).map(|n| NodeId(u32::try_from(n).unwrap())).collect();
    let nodes = &all[..count];
    let authority = if majority { Authority::Majority } else { Authority::Off };
    let first = |n: &NodeId| (*n, Incarnation(1_000 + u64::from(n.0)));
    let record = Record::first(RecordId(77), nodes.iter().map(first).collect(), authority);
    // The second volume ends in the middle of an extent.
    let volumes: BTreeMap<_, _> = match rng.chance(30) {
        true => [(VolumeId(0), 12 * MIB), (VolumeId(1), 5 * MIB)].into(),
        false => [(VolumeId(0), 16 * MIB)].into(),
    };
    let manners = manners(&mut rng, majority);
    // A slow resync meets hand-overs, crashes and coolings on its way.
    let resync_max = if rng.chance(40) { rng.between(1, 16) * MIB } else { 0 };
    let mut make = |node: &NodeId| {
        let peers = all.iter().filter(|n| *n != node);
        let slots = nodes.iter().filter(|n| *n != node).map(|n| PeerSlot { node: *n, base: Some((1, record.id)) }).collect();
        let new = NewReplica {
            cluster: ClusterId(1),
            resource: ResourceId(1),
            node: *node,
            replica: ReplicaId(500 + u64::from(node.0)),
            incarnation: record.in_sync.get(node).copied().unwrap_or(Incarnation(999)),
            record: Some(record.clone()),
            synced: Some((1, record.id)),
            peers: slots,
            volumes: volumes.clone(),
            slots: 7,
        };
        let settings = Settings {
            peers: peers.map(|n| (*n, peer(*n, nodes.contains(n)))).collect(),
            volumes: volumes.clone(),
            protocol: manners.protocol,
            authority,
            io_fails_after: None,
            after_split_brain: AfterSplitBrain::default(),
            resync_max,
            timeouts: Timeouts::default(),
        };
        let mut made = Node::new(&new, settings, clock(&mut rng));
        made.diskless = !nodes.contains(node);
        made
    };
    let nodes = all.iter().map(&mut make).collect();
    let ambush = ambush(&mut rng);
    let mut world = World::new(rng, nodes, record, manners, trace);
    world.ambush = ambush;
    world
}

fn peer(node: NodeId, diskful: bool) -> Peer {
    Peer { name: format!("n{node}").parse().unwrap(), diskful, leaving: false, paused: false, apart: false }
}

fn manners(rng: &mut Rng, majority: bool) -> Manners {
    let slow = rng.chance(20);
    Manners {
        latency: (20_000, if slow { 20 * MS } else { rng.between(50_000, MS) }),
        disk: (20_000, if rng.chance(20) { 30 * MS } else { rng.between(50_000, 2 * MS) }),
        authority: (MS, if slow { 100 * MS } else { 5 * MS }),
        damaged: if majority && rng.chance(25) { rng.between(300, 5_000) } else { 0 },
        protocol: match rng.below(10) {
            0 => Protocol::A,
            1 => Protocol::B,
            _ => Protocol::C,
        },
        forks: !majority && rng.chance(40),
        brief: false,
        shares: false,
    }
}

/// Clocks show different times and differ in speed, two of them by 1 % at most.
fn clock(rng: &mut Rng) -> Clock {
    let drift = i64::try_from(rng.below(9_801)).unwrap() - 4_900;
    Clock { ahead: rng.below(1_000_000) * MS, drift: if rng.chance(50) { 0 } else { drift } }
}

fn ambush(rng: &mut Rng) -> Option<Ambush> {
    use Deed::{KillAll, KillBoth, KillHere, KillThere, OneAfterTheOther, Pause, Sever, Stop};
    let deeds = [KillHere, KillThere, KillBoth, KillAll, OneAfterTheOther, Sever, Stop, Pause];
    let deed = deeds[usize::try_from(rng.below(deeds.len() as u64)).unwrap()];
    let wanted = OCCASIONS[usize::try_from(rng.below(OCCASIONS.len() as u64)).unwrap()];
    let chance = [2, 10, 40, 100][usize::try_from(rng.below(4)).unwrap()];
    rng.chance(60).then_some(Ambush { wanted, chance, deed, ready: 0 })
}

/// A split brain is not resolved by itself; what it must be is seen.
fn shown(world: &mut World) -> Result<(), String> {
    for _ in 0..100 {
        let until = world.now + 200 * MS;
        world.run(until, |_| {})?;
        if forks::is_shown(world) {
            return Ok(());
        }
    }
    Err(format!("two sides have answered writes on their own, and nobody shows a split brain; {}", states(world)))
}

/// In the seeds of a row of its own an operator resolves it.
fn resolved(world: &mut World, seed: u64) -> Result<(), String> {
    if super::row::of(seed).forks { super::resolve::run(world, seed) } else { Ok(()) }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Whole,
    SplitBrain,
}

/// Within a bound every replica is in sync again, nothing is under way, and nobody is primary.
fn converge(world: &mut World) -> Result<Outcome, String> {
    for _ in 0..400 {
        let until = world.now + 200 * MS;
        world.run(until, |_| {})?;
        if unsettled(world).is_none() {
            return Ok(Outcome::Whole);
        }
        if world.manners.forks && forks::is_forked(world) {
            return shown(world).map(|()| Outcome::SplitBrain);
        }
        if world.manners.forks && forks::is_justified(world) {
            // It need not stay: the side that has written nothing gives way when both have told what they have.
            return Ok(Outcome::SplitBrain);
        }
    }
    Err(format!("did not converge: {}", unsettled(world).unwrap_or_default()))
}

/// What is not as it should be in the end.
fn unsettled(world: &mut World) -> Option<String> {
    let record = world.newest_record();
    if record.in_sync.len() != world.nodes.iter().filter(|n| !n.diskless).count() {
        return Some(format!("in sync: {:?}; {}", record.in_sync.keys(), states(world)));
    }
    for node in &world.nodes {
        let Some(engine) = &node.engine else { return Some(format!("n{} is down", node.id)) };
        let status = engine.status();
        let &(volume, _, sectors) = world.volumes.last()?;
        if engine.volume_bytes(volume) != Some(sectors * 512) {
            return Some(format!("n{} has {:?}, not {sectors} sectors", node.id, status.volumes));
        }
        let up = node.diskless || status.in_sync && status.disk == blkrep::units::DiskState::UpToDate;
        let idle = status.role == Role::Secondary && status.suspended.is_empty();
        if !up || !idle || status.record.as_ref().map(|r| r.id) != Some(record.id) || node.buffers.len() != 0 {
            return Some(format!("n{} ({} buffers): {status:?}", node.id, node.buffers.len()));
        }
    }
    None
}

pub fn states(world: &World) -> String {
    let state = |n: &Node| n.engine.as_ref().map(|e| format!("\n  n{}: {:?}", n.id, e.status()));
    world.nodes.iter().filter_map(state).collect()
}

/// Everything that was ever written is read once more, by a client at some node.
fn read_all(world: &mut World) -> Result<(), String> {
    let at = usize::try_from(world.rng.below(world.nodes.len() as u64)).unwrap();
    world.clients[at].to_read = world.oracle.sectors();
    for _ in 0..300 {
        let until = world.now + 200 * MS;
        world.run(until, |_| {})?;
        if world.clients[at].to_read.is_empty() && world.clients[at].is_idle() {
            return Ok(());
        }
    }
    Err(format!("{} sectors could not be read in the end; {}", world.clients[at].to_read.len(), states(world)))
}
