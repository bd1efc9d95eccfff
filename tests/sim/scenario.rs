//! One seed's story: a cluster, a time of faults, a quiet time, and what must be true then.

use std::collections::BTreeMap;

use blkrep::engine::{OnNoQuorum, Peer, Settings, Timeouts};
use blkrep::format::{NewReplica, PeerSlot};
use blkrep::units::{
    Authority, ClusterId, Incarnation, NodeId, Protocol, Record, RecordId, ReplicaId, ResourceId, Role, VolumeId,
};

use super::node::Node;
use super::rng::Rng;
use super::world::{Happening, MS, Manners, World};

/// Seeds that once found something.
pub const KEPT: &[u64] = &[127, 334, 383, 782, 1096, 1123, 1144, 1647, 1851, 1932, 20029, 20041, 40006];

const EXTENTS: u64 = 4;
const BYTES: u64 = EXTENTS * (4 << 20);

/// Runs a seed.
pub fn run(seed: u64, trace: bool) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let majority = rng.chance(70);
    let count = if majority { rng.between(2, 4) } else { 2 };
    let chaos_until = 1_000 * MS + rng.between(2_000, 12_000) * MS;
    let mut world = build(rng, usize::try_from(count).unwrap(), majority, trace);
    world.say(|| format!("{count} nodes, majority {majority}, {:?}", world.manners));
    for at in 0..world.nodes.len() {
        world.start(at)?;
        world.clients[at].working = true;
        world.at(1_000 * MS, Happening::Client { at });
    }
    world.at(1_050 * MS, Happening::Chaos);
    world.run(chaos_until, chaos)?;
    quiet(&mut world)?;
    converge(&mut world)?;
    compare(&world)?;
    read_all(&mut world)
}

fn build(mut rng: Rng, count: usize, majority: bool, trace: bool) -> World {
    let nodes: Vec<NodeId> = (0..count).map(|n| NodeId(u32::try_from(n).unwrap())).collect();
    let authority = if majority { Authority::Majority } else { Authority::Off };
    let first = |n: &NodeId| (*n, Incarnation(1_000 + u64::from(n.0)));
    let record = Record::first(RecordId(77), nodes.iter().map(first).collect(), authority);
    let volumes: BTreeMap<_, _> = [(VolumeId(0), BYTES)].into();
    let protocol = Protocol::C;
    // A slow resync meets hand-overs, crashes and coolings on its way.
    let resync_max = if rng.chance(40) { rng.between(1, 16) << 20 } else { 0 };
    let make = |node: &NodeId| {
        let peers = nodes.iter().filter(|n| *n != node);
        let slots = peers.clone().map(|n| PeerSlot { node: *n, base: Some((1, record.id)) }).collect();
        let new = NewReplica {
            cluster: ClusterId(1),
            resource: ResourceId(1),
            node: *node,
            replica: ReplicaId(500 + u64::from(node.0)),
            incarnation: record.in_sync[node],
            record: Some(record.clone()),
            synced: Some((1, record.id)),
            peers: slots,
            volumes: volumes.clone(),
            slots: 7,
        };
        let settings = Settings {
            peers: peers.map(|n| (*n, Peer { name: format!("n{n}").parse().unwrap(), diskful: true })).collect(),
            volumes: volumes.clone(),
            protocol,
            authority,
            on_no_quorum: OnNoQuorum::SuspendIo,
            resync_max,
            timeouts: Timeouts::default(),
        };
        Node::new(*node, &new, settings, BYTES / 512)
    };
    let nodes = nodes.iter().map(make).collect();
    let slow = rng.chance(20);
    let manners = Manners {
        latency: (20_000, if slow { 20 * MS } else { rng.between(50_000, MS) }),
        disk: (20_000, if rng.chance(20) { 30 * MS } else { rng.between(50_000, 2 * MS) }),
        authority: (MS, if slow { 100 * MS } else { 5 * MS }),
    };
    World::new(rng, nodes, record, manners, majority, trace)
}

/// One fault, and when the next comes.
fn chaos(world: &mut World) {
    let next = world.rng.between(5, 400) * MS;
    world.at(world.now + next, Happening::Chaos);
    let count = world.nodes.len();
    let victim = usize::try_from(world.rng.below(count as u64)).unwrap();
    let other = (victim + 1 + usize::try_from(world.rng.below(count as u64 - 1)).unwrap()) % count;
    match world.rng.below(100) {
        0..16 => kill(world, victim),
        16..20 => (0..count).for_each(|at| kill(world, at)),
        20..26 => stop(world, victim),
        26..44 if world.majority => {
            world.say(|| format!("severed: n{victim} n{other}"));
            world.sever(victim, other, None);
        }
        44..54 if world.majority => cut(world, victim),
        54..64 if world.majority => stall(world, victim, other),
        64..70 => {
            world.register.reachable = !world.register.reachable;
            world.say(|| format!("authority reachable: {}", world.register.reachable));
        }
        _ => heal(world),
    }
}

fn kill(world: &mut World, victim: usize) {
    let power = world.rng.chance(50);
    world.say(|| format!("n{victim} is killed, power lost: {power}"));
    world.end(victim, power);
    let back = world.rng.between(1, 1_500) * MS;
    world.at(world.now + back, Happening::Restart { at: victim });
}

fn stop(world: &mut World, victim: usize) {
    world.say(|| format!("n{victim} is asked to stop"));
    let _ = world.hand(victim, blkrep::engine::Event::Stop);
    let back = world.rng.between(100, 8_000) * MS;
    world.at(world.now + back, Happening::Restart { at: victim });
}

fn cut(world: &mut World, victim: usize) {
    world.partitioned[victim] = !world.partitioned[victim];
    let cut = world.partitioned[victim];
    world.say(|| format!("n{victim} cut off: {cut}"));
    for other in (0..world.nodes.len()).filter(|o| *o != victim) {
        if cut && world.rng.chance(50) {
            world.sever(victim, other, None);
        } else {
            stall(world, victim, other);
        }
    }
}

fn stall(world: &mut World, a: usize, b: usize) {
    world.say(|| format!("stalled: n{a} n{b}"));
    if let Some(connection) = world.connections.get_mut(&(a.min(b), a.max(b))) {
        connection.stalled = true;
    }
}

fn heal(world: &mut World) {
    world.register.reachable = true;
    let pairs: Vec<_> = world.connections.iter().filter(|(_, c)| c.stalled).map(|(pair, _)| *pair).collect();
    for (a, b) in pairs {
        if world.partitioned[a] == world.partitioned[b] {
            let _ = world.unstall(a, b);
        }
    }
    if world.rng.chance(40) {
        world.partitioned.fill(false);
    }
}

/// Faults end; everything that is down comes back.
fn quiet(world: &mut World) -> Result<(), String> {
    world.say(|| "quiet".into());
    world.partitioned.fill(false);
    world.register.reachable = true;
    let pairs: Vec<_> = world.connections.keys().copied().collect();
    for (a, b) in pairs {
        world.unstall(a, b)?;
    }
    for client in &mut world.clients {
        client.working = false;
    }
    for at in 0..world.nodes.len() {
        let back = world.now + 10 * MS;
        world.at(back, Happening::Restart { at });
        world.at(back + 6_000 * MS, Happening::Restart { at });
    }
    Ok(())
}

/// Within a bound every replica is in sync again, nothing is under way, and nobody is primary.
fn converge(world: &mut World) -> Result<(), String> {
    for _ in 0..400 {
        let until = world.now + 200 * MS;
        world.run(until, |_| {})?;
        if unsettled(world).is_none() {
            return Ok(());
        }
    }
    Err(format!("did not converge: {}", unsettled(world).unwrap_or_default()))
}

/// What is not as it should be in the end.
fn unsettled(world: &mut World) -> Option<String> {
    let record = world.newest_record();
    if record.in_sync.len() != world.nodes.len() {
        return Some(format!("in sync: {:?}; {}", record.in_sync.keys(), states(world)));
    }
    for node in &world.nodes {
        let Some(engine) = &node.engine else { return Some(format!("n{} is down", node.id)) };
        let status = engine.status();
        let up = status.in_sync && status.disk == blkrep::units::DiskState::UpToDate;
        let idle = status.role == Role::Secondary && status.suspended.is_empty();
        if !up || !idle || status.record.as_ref().map(|r| r.id) != Some(record.id) || node.buffers.len() != 0 {
            return Some(format!("n{} ({} buffers): {status:?}", node.id, node.buffers.len()));
        }
    }
    None
}

fn states(world: &World) -> String {
    let state = |n: &Node| n.engine.as_ref().map(|e| format!("\n  n{}: {:?}", n.id, e.status()));
    world.nodes.iter().filter_map(state).collect()
}

/// Replicas at rest are the same, byte for byte.
fn compare(world: &World) -> Result<(), String> {
    let first = world.nodes[0].disk.sectors();
    for node in &world.nodes[1..] {
        let different = first.iter().zip(node.disk.sectors()).position(|(a, b)| a != b);
        if let Some(sector) = different {
            let values: Vec<u64> = world.nodes.iter().map(|n| n.disk.sectors()[sector]).collect();
            return Err(format!("replicas differ at rest in sector {sector}: {values:?}"));
        }
    }
    Ok(())
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
