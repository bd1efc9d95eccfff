//! The model's tests: stories first, then random commands against the invariants.

mod adoption;
mod nodes;
mod placement;
mod random;
mod removal;
mod replace;
mod snapshots;

use core::net::{IpAddr, Ipv4Addr};
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::units::{Authority, ClusterId, Name, NodeId, PoolKind, Record, RecordId, ReplicaId, ResourceId, VolumeId};

const GIB: u64 = 1 << 30;
const NOW: u64 = 1_000_000;

fn name(text: &str) -> Name {
    text.parse().expect("test names are names")
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 43, 100, last))
}

fn certificate(serial: u64) -> Certificate {
    Certificate { serial: format!("{serial:x}"), fingerprint: format!("{serial:064x}") }
}

fn token(n: u8) -> TokenHash {
    TokenHash::of(&[n])
}

fn pool(free: u64, zeroed: bool) -> Option<PoolReport> {
    Some(PoolReport { name: "drbdpool".into(), kind: PoolKind::Lvm, total: 100 * GIB, free, zeroed, fill: None })
}

/// A cluster of storage nodes `n0`, `n1`, … whose pools have `free` bytes each.
fn cluster_with(free: &[u64], zeroed: bool) -> Cluster {
    let mut cluster = Cluster::default();
    let (kind, ports) = (NodeKind::Storage, Ports::default());
    let init =
        Command::Init { cluster: ClusterId(7), name: name("n0"), address: address(0), ports, kind, certificate: certificate(0) };
    cluster.apply(init).unwrap();
    for (at, &free) in (0u8..).zip(free) {
        let node = name(&format!("n{at}"));
        if at > 0 {
            let expires = NOW + 60;
            let invite = Command::InviteNode { name: node.clone(), address: address(at), ports, kind, token: token(at), expires };
            cluster.apply(invite).unwrap();
            cluster.apply(redeem(&format!("n{at}"), token(at), address(at), NOW)).unwrap();
        }
        let announce =
            Command::Announce { node: NodeId(at.into()), version: "1".into(), pool: pool(free, zeroed), pools: BTreeMap::new() };
        cluster.apply(announce).unwrap();
    }
    let voters = if free.len() >= 3 { 3 } else { 1 };
    cluster.note_voters((0..voters).map(NodeId).collect());
    cluster
}

fn redeem(node: &str, token: TokenHash, address: IpAddr, now: u64) -> Command {
    Command::RedeemInvitation { name: name(node), token, address, ports: Ports::default(), certificate: certificate(9), now }
}

fn create(resource: &str, bytes: u64, replicas: usize) -> Command {
    Command::All(vec![
        Command::CreateResource { name: name(resource), options: BTreeMap::new(), properties: BTreeMap::new(), now: NOW },
        Command::AddVolume { resource: name(resource), volume: None, bytes, pool: None },
        deploy(resource, DeployCount::Total(replicas), 1),
    ])
}

fn deploy(resource: &str, count: DeployCount, seed: u128) -> Command {
    Command::Deploy {
        resource: name(resource),
        placement: Placement::Count(count),
        avoid: BTreeSet::new(),
        keep: BTreeSet::new(),
        seed: Seed(seed),
        pool: None,
    }
}

fn unassign(resource: &str, node: &str, force: bool) -> Command {
    Command::Unassign { resource: name(resource), node: name(node), force, seed: Seed(99) }
}

fn confirm_all(cluster: &mut Cluster, resource: &str) {
    let resource = cluster.resource_named(&name(resource)).unwrap().clone();
    for (&node, assignment) in &resource.assignments {
        let Some(replica) = assignment.replica else { continue };
        let volumes = resource.volumes.iter().map(|(&id, volume)| (id, volume.target)).collect();
        cluster.apply(Command::ConfirmReplica { node, resource: resource.id, replica, volumes }).unwrap();
    }
}

fn record(cluster: &Cluster, resource: &str) -> Record {
    cluster.resource_named(&name(resource)).unwrap().record.clone().expect("it has replicas")
}

fn change(cluster: &mut Cluster, resource: &str, edit: impl FnOnce(&mut Record)) -> Result<Applied, Refusal> {
    let id = cluster.resource_named(&name(resource)).unwrap().id;
    let present = record(cluster, resource);
    let mut next = present.next(RecordId(present.id.0 ^ 0x5555));
    edit(&mut next);
    cluster.apply(Command::ChangeRecord { resource: id, expect: present.id, record: next })
}
