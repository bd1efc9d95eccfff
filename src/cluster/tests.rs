//! The model's tests: stories first, then random commands against the invariants.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::units::{Authority, ClusterId, Name, NodeId, Record, RecordId, ReplicaId, ResourceId, VolumeId};

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

#[test]
fn three_members_decide_by_majority_though_the_third_does_not_vote_yet() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.note_voters([NodeId(0)].into());
    cluster.apply(create("web", GIB, 2)).unwrap();
    let resource = cluster.resource_named(&name("web")).unwrap();
    assert_eq!(resource.record.as_ref().unwrap().authority, Authority::Majority);
}

#[test]
fn a_volume_is_deployed_where_the_most_space_is_and_is_in_sync_from_the_start_when_pools_give_zeroes() {
    let mut cluster = cluster_with(&[10 * GIB, 30 * GIB, 20 * GIB], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    let resource = cluster.resource_named(&name("web")).unwrap();
    assert_eq!(resource.replicas().collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
    let record = resource.record.as_ref().unwrap();
    assert_eq!(record.in_sync.keys().copied().collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
    assert_eq!(record.in_sync[&NodeId(1)], resource.assignments[&NodeId(1)].incarnation);
    assert_eq!(record.authority, Authority::Majority, "three voters decide by majority");
}

#[test]
fn nodes_that_do_not_answer_are_chosen_last() {
    let mut cluster = cluster_with(&[10 * GIB, 30 * GIB, 20 * GIB], true);
    let silent = |resource: &str, count| {
        let (placement, avoid) = (Placement::Count(DeployCount::Total(count)), BTreeSet::from([NodeId(1)]));
        let Command::All(mut commands) = create(resource, GIB, 1) else { unreachable!() };
        commands[2] =
            Command::Deploy { resource: name(resource), placement, avoid, keep: BTreeSet::new(), seed: Seed(4), pool: None };
        Command::All(commands)
    };
    cluster.apply(silent("two", 2)).unwrap();
    let replicas =
        |cluster: &Cluster, resource: &str| cluster.resource_named(&name(resource)).unwrap().replicas().collect::<Vec<_>>();
    assert_eq!(replicas(&cluster, "two"), [NodeId(0), NodeId(2)], "though it has the most space");
    cluster.apply(silent("all", 3)).expect("it is better than nothing");
}

#[test]
fn replicas_with_clients_stay_when_there_are_to_be_fewer() {
    let mut cluster = cluster_with(&[10 * GIB, 30 * GIB, 20 * GIB], true);
    cluster.apply(create("web", GIB, 3)).unwrap();
    confirm_all(&mut cluster, "web");
    let fewer = |keep: &[u32], count| Command::Deploy {
        resource: name("web"),
        placement: Placement::Count(DeployCount::Total(count)),
        avoid: BTreeSet::new(),
        keep: keep.iter().copied().map(NodeId).collect(),
        seed: Seed(5),
        pool: None,
    };
    let before = cluster.clone();
    assert_eq!(cluster.apply(fewer(&[0, 2], 1)), Err(Refusal::InUse("web".into(), "n0".into())));
    assert_eq!(cluster, before);
    assert_eq!(cluster.apply(fewer(&[0], 1)), Ok(Applied::Deployed(vec![NodeId(0)])), "though it has the least space");
}

#[test]
fn a_removal_is_taken_in_the_round_it_was_decided_in_and_in_no_other() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB], true);
    cluster.apply(create("web", GIB, 1)).unwrap();
    let web = cluster.resource_named(&name("web")).unwrap().clone();
    let end = Command::EndRound { resource: web.id, round: web.round };
    let decided = Command::All(vec![end.clone(), Command::RemoveResource { resource: name("web"), force: true }]);
    let overtaken = Err(Refusal::Overtaken("web".into()));
    // It was made void by itself, by a node that comes to use it, by another removal.
    let user = cluster.nodes.values().find(|node| !web.assignments.contains_key(&node.id)).unwrap().name.clone();
    let came = Command::Assign { resource: name("web"), node: user.clone(), diskless: true, seed: Seed(6), pool: None };
    let other =
        Command::All(vec![end.clone(), Command::RemoveVolume { resource: name("web"), volume: VolumeId(0), force: true }]);
    for meanwhile in [end, came, other] {
        let mut cluster = cluster.clone();
        cluster.apply(meanwhile).unwrap();
        assert_eq!(cluster.apply(decided.clone()), overtaken);
    }
    let leave = |only| Command::RemoveNode { name: user.clone(), force: false, only, seed: Seed(7) };
    let mut with_user = cluster.clone();
    with_user
        .apply(Command::Assign { resource: name("web"), node: user.clone(), diskless: true, seed: Seed(6), pool: None })
        .unwrap();
    assert_eq!(with_user.apply(leave(Some(BTreeSet::new()))), overtaken, "it holds something that was not looked at");
    with_user.apply(leave(Some(BTreeSet::from([web.id])))).unwrap();
    cluster.apply(decided).unwrap();
    assert!(cluster.resources.is_empty());
}

#[test]
fn without_zeroes_only_the_first_replica_is_in_sync() {
    let mut cluster = cluster_with(&[10 * GIB, 30 * GIB], false);
    cluster.apply(create("web", GIB, 2)).unwrap();
    let resource = cluster.resource_named(&name("web")).unwrap();
    assert_eq!(resource.record.as_ref().unwrap().in_sync.keys().copied().collect::<Vec<_>>(), [NodeId(1)]);
    assert!(!resource.assignments[&NodeId(0)].initially_in_sync);
    assert_eq!(resource.record.as_ref().unwrap().authority, Authority::Off, "two nodes decide for themselves");
}

#[test]
fn what_is_promised_is_not_promised_again() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB], false);
    cluster.apply(create("a", 6 * GIB, 2)).unwrap();
    let refusal = cluster.apply(create("b", 6 * GIB, 2)).unwrap_err();
    assert!(matches!(refusal, Refusal::NoSpace { fitting: 0, .. }), "{refusal}");
    assert!(cluster.resource_named(&name("b")).is_err(), "nothing is left of a refused creation");
    let most = largest_volume(&cluster, 2).unwrap();
    cluster.clone().apply(create("b", most, 2)).expect("what is said to fit, fits");
    assert!(cluster.apply(create("b", most + 4096 * 16, 2)).is_err(), "and hardly more");
}

#[test]
fn a_later_replica_waits_for_a_full_sync() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB, 10 * GIB], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    let before = record(&cluster, "web");
    cluster.apply(deploy("web", DeployCount::More(1), 2)).unwrap();
    assert_eq!(record(&cluster, "web"), before);
    let resource = cluster.resource_named(&name("web")).unwrap();
    assert!(!resource.assignments[&NodeId(2)].initially_in_sync);
}

#[test]
fn deleting_waits_for_nobody_and_frees_the_name() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    let old = cluster.resource_named(&name("web")).unwrap().id;
    cluster.apply(Command::RemoveResource { resource: name("web"), force: false }).unwrap();
    cluster.apply(create("web", GIB, 2)).unwrap();
    assert_ne!(cluster.resource_named(&name("web")).unwrap().id, old);
    let leftovers: Vec<LeftoverId> = cluster.leftovers_of(NodeId(1)).map(|(id, _)| id).collect();
    assert_eq!(leftovers.len(), 1, "the node that slept deletes the old one when it returns");
    cluster.apply(Command::ConfirmLeftover { node: NodeId(1), leftover: leftovers[0] }).unwrap();
    let again = cluster.apply(Command::ConfirmLeftover { node: NodeId(1), leftover: leftovers[0] });
    assert_eq!(again, Err(Refusal::Stale));
}

#[test]
fn a_resource_in_use_is_not_removed_unless_forced() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    change(&mut cluster, "web", |next| (next.primary, next.reign) = (Some(NodeId(0)), next.number)).unwrap();
    let remove = |force| Command::RemoveResource { resource: name("web"), force };
    assert_eq!(cluster.apply(remove(false)), Err(Refusal::InUse("web".into(), "n0".into())));
    cluster.apply(remove(true)).unwrap();
}

#[test]
fn the_last_up_to_date_replica_stays() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    confirm_all(&mut cluster, "web");
    change(&mut cluster, "web", |next| {
        next.in_sync.remove(&NodeId(1));
    })
    .unwrap();
    let last = Refusal::LastUpToDate("web".into(), "n0".into());
    assert_eq!(cluster.apply(unassign("web", "n0", false)), Err(last.clone()));
    let remove = Command::RemoveNode { name: name("n0"), force: false, only: None, seed: Seed(3) };
    assert_eq!(cluster.apply(remove), Err(last));
    cluster.apply(unassign("web", "n1", false)).unwrap();
    assert_eq!(cluster.apply(unassign("web", "n0", false)), Err(Refusal::LastReplica("web".into(), "n0".into())));
}

#[test]
fn a_replica_in_sync_leaves_once_the_primary_has_dropped_it() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.apply(create("web", GIB, 3)).unwrap();
    confirm_all(&mut cluster, "web");
    change(&mut cluster, "web", |next| (next.primary, next.reign) = (Some(NodeId(0)), next.number)).unwrap();
    cluster.apply(unassign("web", "n2", false)).unwrap();
    assert!(cluster.resource_named(&name("web")).unwrap().assignments[&NodeId(2)].leaving);
    assert!(cluster.leftovers.is_empty());
    change(&mut cluster, "web", |next| {
        next.in_sync.remove(&NodeId(2));
    })
    .unwrap();
    assert!(!cluster.resource_named(&name("web")).unwrap().assignments.contains_key(&NodeId(2)));
    assert_eq!(cluster.leftovers_of(NodeId(2)).count(), 1);
}

#[test]
fn without_a_primary_the_model_drops_a_leaving_replica_from_the_record_itself() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    confirm_all(&mut cluster, "web");
    let before = record(&cluster, "web");
    cluster.apply(unassign("web", "n1", false)).unwrap();
    let after = record(&cluster, "web");
    assert_eq!((after.number, after.parent), (before.number + 1, Some(before.id)));
    assert!(!after.in_sync.contains_key(&NodeId(1)));
}

#[test]
fn a_node_leaves_when_it_has_given_up_what_it_held_and_at_once_when_forced() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.apply(create("web", GIB, 3)).unwrap();
    confirm_all(&mut cluster, "web");
    let remove = |node: &str, force| Command::RemoveNode { name: name(node), force, only: None, seed: Seed(5) };
    cluster.apply(remove("n2", false)).unwrap();
    assert_eq!(cluster.nodes[&NodeId(2)].state, NodeState::Leaving);
    let leftover = cluster.leftovers_of(NodeId(2)).next().unwrap().0;
    cluster.apply(Command::ConfirmLeftover { node: NodeId(2), leftover }).unwrap();
    assert!(!cluster.nodes.contains_key(&NodeId(2)));
    cluster.apply(remove("n1", true)).unwrap();
    assert!(cluster.leftovers.is_empty(), "nobody is left to delete for a node that is out");
    assert_eq!(cluster.apply(remove("n0", true)), Err(Refusal::LastNode("n0".into())));
}

#[test]
fn a_token_is_good_once_for_its_node_and_not_for_ever() {
    let mut cluster = cluster_with(&[10 * GIB], true);
    let kind = NodeKind::Storage;
    let invite = Command::InviteNode {
        name: name("n1"),
        address: address(1),
        ports: Ports::default(),
        kind,
        token: token(1),
        expires: NOW + 60,
    };
    cluster.apply(invite.clone()).unwrap();
    assert_eq!(cluster.apply(invite), Err(Refusal::NodeExists("n1".into())));
    assert_eq!(cluster.apply(redeem("n1", token(2), address(1), NOW)), Err(Refusal::WrongToken("n1".into())));
    assert_eq!(cluster.apply(redeem("n1", token(1), address(1), NOW + 60)), Err(Refusal::TokenExpired("n1".into())));
    let elsewhere = cluster.apply(redeem("n1", token(1), address(9), NOW)).unwrap_err();
    assert!(matches!(elsewhere, Refusal::WrongAddress { .. }));
    let renew = Command::RenewInvitation { name: name("n1"), token: token(3), expires: NOW + 90 };
    cluster.apply(renew).unwrap();
    assert_eq!(cluster.apply(redeem("n1", token(1), address(1), NOW)), Err(Refusal::WrongToken("n1".into())));
    cluster.apply(redeem("n1", token(3), address(1), NOW)).unwrap();
    assert_eq!(cluster.apply(redeem("n1", token(3), address(1), NOW)), Err(Refusal::TokenUsed("n1".into())));
}

#[test]
fn nodes_with_a_taken_name_or_address_are_refused() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB], true);
    let invite = |node: &str, address| Command::InviteNode {
        name: name(node),
        address,
        ports: Ports::default(),
        kind: NodeKind::Witness,
        token: token(1),
        expires: NOW,
    };
    assert_eq!(cluster.apply(invite("n1", address(7))), Err(Refusal::NodeExists("n1".into())));
    let taken = Refusal::AddressInUse(address(1).to_string(), "n1".into());
    assert_eq!(cluster.apply(invite("n7", address(1))), Err(taken));
    let anywhere = cluster.apply(invite("n7", IpAddr::V4(Ipv4Addr::UNSPECIFIED))).unwrap_err();
    assert!(matches!(anywhere, Refusal::BadAddress(_)));
}

#[test]
fn a_volume_has_its_new_size_once_every_replica_has_grown() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    confirm_all(&mut cluster, "web");
    let resize = |bytes| Command::ResizeVolume { resource: name("web"), volume: VolumeId(0), bytes };
    cluster.apply(resize(2 * GIB)).unwrap();
    let volume = |cluster: &Cluster| cluster.resource_named(&name("web")).unwrap().volumes[&VolumeId(0)];
    assert_eq!(volume(&cluster), Volume { bytes: GIB, target: 2 * GIB });
    confirm_all(&mut cluster, "web");
    assert_eq!(volume(&cluster), Volume { bytes: 2 * GIB, target: 2 * GIB });
    assert!(matches!(cluster.apply(resize(GIB)), Err(Refusal::Shrinks { .. })));
    for wrong in [0, 4097] {
        assert_eq!(cluster.apply(resize(wrong)), Err(Refusal::BadSize(wrong)));
    }
    assert!(matches!(cluster.apply(resize(Limits::VOLUME_BYTES + 4096)), Err(Refusal::TooLarge { .. })));
}

#[test]
fn a_record_that_does_not_follow_is_refused() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    let old = record(&cluster, "web");
    assert!(matches!(change(&mut cluster, "web", |next| next.number += 1), Err(Refusal::BadRecord(_))));
    assert!(matches!(change(&mut cluster, "web", |next| next.in_sync.clear()), Err(Refusal::BadRecord(_))));
    assert!(matches!(change(&mut cluster, "web", |next| next.primary = Some(NodeId(0))), Err(Refusal::BadRecord(_))));
    let stranger = change(&mut cluster, "web", |next| {
        next.in_sync.insert(NodeId(2), crate::units::Incarnation(1));
    });
    assert!(matches!(stranger, Err(Refusal::BadRecord(_))), "{stranger:?}");
    assert_eq!(record(&cluster, "web"), old);
    change(&mut cluster, "web", |_| ()).unwrap();
    let resource = cluster.resource_named(&name("web")).unwrap().id;
    let late = Command::ChangeRecord { resource, expect: old.id, record: old.next(RecordId(1)) };
    assert_eq!(cluster.apply(late), Err(Refusal::RecordIs(Box::new(record(&cluster, "web")))));
}

#[test]
fn who_decides_is_settled_when_the_first_replicas_are_made() {
    let mut cluster = cluster_with(&[10 * GIB; 2], true);
    let set = |quorum: &str| Command::SetOptions {
        resource: Some(name("web")),
        options: [("quorum".to_owned(), Some(quorum.to_owned()))].into(),
    };
    cluster.apply(create("web", GIB, 2)).unwrap();
    assert_eq!(record(&cluster, "web").authority, Authority::Off, "two nodes decide each for itself");
    assert_eq!(cluster.apply(set("majority")), Err(Refusal::QuorumIsSettled("web".to_owned())));
    cluster.apply(set("off")).unwrap();
}

#[test]
fn a_backup_of_a_newer_program_or_of_something_else_is_refused_by_name() {
    assert!(matches!(Cluster::decode(b"{}"), Err(SnapshotError::NotAModel)));
    assert!(matches!(Cluster::decode(b"blkrep-model 2\n{}"), Err(SnapshotError::TooNew(2))));
    assert!(matches!(Cluster::decode(b"blkrep-model 1\n{"), Err(SnapshotError::Damaged(_))));
}

/// Commands over few names, so that they meet.
fn any_command() -> impl Strategy<Value = Command> {
    let resource = || (0..4u8).prop_map(|n| name(&format!("r{n}")));
    let node = || (0..5u8).prop_map(|n| name(&format!("n{n}")));
    let seed = || any::<u128>().prop_map(Seed);
    let bytes = || prop_oneof![Just(0), Just(4097), Just(GIB), Just(3 * GIB), Just(1 << 51)];
    let volume = || (0..3u16).prop_map(VolumeId);
    prop_oneof![
        (node(), 0..5u8).prop_map(|(name, n)| Command::InviteNode {
            name,
            address: address(n),
            ports: Ports::default(),
            kind: if n == 4 { NodeKind::Witness } else { NodeKind::Storage },
            token: token(n),
            expires: NOW + 1
        }),
        (node(), 0..5u8, 0..3u64).prop_map(|(node, n, late)| redeem(node.as_str(), token(n), address(n), NOW + late)),
        (0..8u32, any::<bool>(), 0..20u64).prop_map(|(id, zeroed, free)| Command::Announce {
            node: NodeId(id),
            version: String::new(),
            pool: pool(free * GIB, zeroed),
            pools: pool(free * GIB, !zeroed).map(|report| (name("ssd"), report)).into_iter().collect(),
        }),
        (0..8u32, any::<bool>()).prop_map(|(id, zeroed)| Command::AddPool {
            node: NodeId(id),
            name: name("ssd"),
            pool: NodePool { spec: "lvm:ssd".into(), report: pool(9 * GIB, zeroed) },
        }),
        (0..8u32, any::<bool>()).prop_map(|(id, add)| match add {
            true => Command::SetDefaultPool { node: NodeId(id), name: name("ssd") },
            false => Command::RemovePool { node: NodeId(id), name: name("ssd") },
        }),
        (resource(), ssd()).prop_map(|(resource, pool)| Command::SetMetadataPool { resource, pool }),
        (node(), any::<bool>(), seed()).prop_map(|(name, force, seed)| Command::RemoveNode { name, force, only: None, seed }),
        (resource(), 1..3usize).prop_map(|(r, n)| create(r.as_str(), GIB, n)),
        (resource(), any::<bool>()).prop_map(|(resource, force)| Command::RemoveResource { resource, force }),
        (resource(), proptest::option::of(volume()), bytes(), ssd())
            .prop_map(|(resource, volume, bytes, pool)| Command::AddVolume { resource, volume, bytes, pool }),
        (resource(), volume(), bytes()).prop_map(|(resource, volume, bytes)| Command::ResizeVolume { resource, volume, bytes }),
        (resource(), volume(), any::<bool>()).prop_map(|(resource, volume, force)| Command::RemoveVolume {
            resource,
            volume,
            force
        }),
        (resource(), 0..4usize, seed(), ssd()).prop_map(|(resource, n, seed, pool)| Command::Deploy {
            resource,
            placement: Placement::Count(DeployCount::Total(n)),
            avoid: BTreeSet::new(),
            keep: BTreeSet::new(),
            seed,
            pool
        }),
        (resource(), node(), any::<bool>(), seed(), ssd()).prop_map(|(resource, node, diskless, seed, pool)| Command::Assign {
            resource,
            node,
            diskless,
            seed,
            pool
        }),
        (resource(), node(), any::<bool>(), seed()).prop_map(|(resource, node, force, seed)| Command::Unassign {
            resource,
            node,
            force,
            seed
        }),
        (resource(), any::<bool>()).prop_map(|(resource, force)| Command::Undeploy { resource, force }),
    ]
}

/// What nodes and engines say: made up from the present model, so that it is mostly accepted.
#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    ConfirmReplica(usize),
    ConfirmLeftover(usize),
    ChangeRecord { pick: usize, stale: bool, drop: Option<usize>, primary: Option<usize> },
}

fn any_step() -> impl Strategy<Value = Step> {
    let change = (any::<usize>(), any::<bool>(), any::<Option<usize>>(), any::<Option<usize>>());
    prop_oneof![
        4 => any_command().prop_map(Step::Command),
        1 => any::<usize>().prop_map(Step::ConfirmReplica),
        1 => any::<usize>().prop_map(Step::ConfirmLeftover),
        2 => change.prop_map(|(pick, stale, drop, primary)| Step::ChangeRecord { pick, stale, drop, primary }),
    ]
}

fn command_of(step: Step, cluster: &Cluster) -> Option<Command> {
    let pick_of = |pick: usize, len: usize| (len > 0).then(|| pick % len);
    match step {
        Step::Command(command) => Some(command),
        Step::ConfirmReplica(pick) => {
            let all: Vec<(ResourceId, NodeId, ReplicaId)> = cluster
                .resources
                .values()
                .flat_map(|r| r.assignments.iter().filter_map(|(&n, a)| Some((r.id, n, a.replica?))))
                .collect();
            let (resource, node, replica) = all[pick_of(pick, all.len())?];
            let volumes = cluster.resources[&resource].volumes.iter().map(|(&id, v)| (id, v.target)).collect();
            Some(Command::ConfirmReplica { node, resource, replica, volumes })
        }
        Step::ConfirmLeftover(pick) => {
            let (&leftover, present) = cluster.leftovers.iter().nth(pick_of(pick, cluster.leftovers.len())?)?;
            Some(Command::ConfirmLeftover { node: present.node, leftover })
        }
        Step::ChangeRecord { pick, stale, drop, primary } => {
            let resource = cluster.resources.values().nth(pick_of(pick, cluster.resources.len())?)?;
            let present = resource.record.as_ref()?;
            let mut next = present.next(RecordId(0));
            if let Some(node) = drop.and_then(|pick| next.in_sync.keys().nth(pick % next.in_sync.len().max(1)).copied()) {
                next.in_sync.remove(&node);
            }
            if let Some(node) = primary.and_then(|pick| resource.assignments.keys().nth(pick % resource.assignments.len().max(1)))
            {
                (next.primary, next.reign) = (Some(*node), next.number);
            }
            let expect = if stale { RecordId(!present.id.0) } else { present.id };
            Some(Command::ChangeRecord { resource: resource.id, expect, record: next })
        }
    }
}

/// Gives a command a seed that no other has, as the random ones are in real life, even after a failing case was shrunk.
fn draw_anew(command: &mut Command, at: u128) {
    match command {
        Command::All(commands) => commands.iter_mut().for_each(|command| draw_anew(command, at)),
        Command::RemoveNode { seed, .. }
        | Command::Deploy { seed, .. }
        | Command::Assign { seed, .. }
        | Command::Unassign { seed, .. } => *seed = Seed(at),
        Command::ChangeRecord { record, .. } => record.id = RecordId(u64::try_from(at).unwrap()),
        _ => {}
    }
}

/// A pool that only some nodes have, or none.
fn ssd() -> impl Strategy<Value = Option<Name>> {
    proptest::option::weighted(0.2, Just(()).prop_map(|()| name("ssd")))
}

/// Everything that was ever given out.
#[derive(Default)]
struct Seen {
    nodes: BTreeMap<NodeId, Name>,
    resources: BTreeMap<ResourceId, Name>,
    replicas: BTreeMap<ReplicaId, (ResourceId, NodeId)>,
    leftovers: BTreeMap<LeftoverId, ReplicaId>,
    records: BTreeMap<ResourceId, Vec<RecordId>>,
}

impl Seen {
    fn check(&mut self, cluster: &Cluster) {
        for (id, node) in &cluster.nodes {
            assert_eq!(self.nodes.entry(*id).or_insert_with(|| node.name.clone()), &node.name, "a node's id was used again");
        }
        for (id, resource) in &cluster.resources {
            assert_eq!(self.resources.entry(*id).or_insert_with(|| resource.name.clone()), &resource.name);
            assert_eq!(cluster.names.get(&resource.name), Some(id));
            self.check_resource(cluster, resource);
        }
        assert_eq!(cluster.names.len(), cluster.resources.len());
        for (id, leftover) in &cluster.leftovers {
            assert_eq!(*self.leftovers.entry(*id).or_insert(leftover.replica), leftover.replica);
            let node = cluster.nodes.get(&leftover.node).expect("a leftover waits for a node that is gone");
            let mut pools = leftover.places.pools(leftover.volumes.iter(), leftover.metadata);
            assert!(pools.all(|pool| node.has_pool(pool)), "a leftover is in a pool that is gone");
        }
        let addresses: BTreeSet<_> = cluster.nodes.values().map(Node::control).collect();
        assert_eq!(addresses.len(), cluster.nodes.len(), "two nodes have one address");
    }

    fn check_resource(&mut self, cluster: &Cluster, resource: &Resource) {
        for (&node, assignment) in &resource.assignments {
            assert!(cluster.nodes.contains_key(&node), "a resource is assigned to a node that is gone");
            if let Some(replica) = assignment.replica {
                let place = (resource.id, node);
                assert_eq!(*self.replicas.entry(replica).or_insert(place), place, "a replica's id was used again");
                let mut pools = assignment.places.pools(resource.volumes.keys(), true);
                assert!(pools.all(|pool| cluster.nodes[&node].has_pool(pool)), "a replica is in a pool that is gone");
                let strangers = assignment.places.volumes.keys().find(|volume| !resource.volumes.contains_key(volume));
                assert_eq!(strangers, None, "a volume that is not there has a place");
            }
        }
        assert_eq!(resource.record.is_some(), resource.replicas().next().is_some(), "a record and replicas come together");
        if let Some(record) = &resource.record {
            let lineage = self.records.entry(resource.id).or_default();
            if lineage.last() != Some(&record.id) {
                assert!(!lineage.contains(&record.id), "a record's id was used again");
                lineage.push(record.id);
            }
            if record.authority == Authority::Majority {
                for node in record.in_sync.keys() {
                    assert!(resource.assignments.get(node).is_some_and(|a| a.replica.is_some()), "in sync without a replica");
                }
            }
        }
        for volume in resource.volumes.values() {
            assert!(volume.bytes <= volume.target && volume.target > 0);
        }
    }
}

/// Volumes go to the pool that was named, else to each node's usual one; each pool's room is its own.
#[test]
fn volumes_and_metadata_lie_in_pools_of_their_own() {
    let mut cluster = cluster_with(&[20 * GIB; 2], false);
    let add = |cluster: &mut Cluster, node, free| {
        let added = NodePool { spec: "lvm:fast".into(), report: pool(free, true) };
        cluster.apply(Command::AddPool { node: NodeId(node), name: name("ssd"), pool: added })
    };
    let volume = |volume, bytes, pool: Option<&str>| Command::AddVolume {
        resource: name("web"),
        volume: Some(VolumeId(volume)),
        bytes,
        pool: pool.map(name),
    };
    let create = Command::CreateResource { name: name("web"), options: BTreeMap::new(), properties: BTreeMap::new(), now: NOW };
    cluster.apply(create).unwrap();
    cluster.apply(volume(0, GIB, Some("ssd"))).unwrap();
    cluster.apply(volume(1, 10 * GIB, None)).unwrap();
    assert!(matches!(cluster.apply(deploy("web", DeployCount::Total(2), 1)), Err(Refusal::TooFewNodes { available: 0, .. })));
    add(&mut cluster, 0, 4 * GIB).unwrap();
    assert!(matches!(add(&mut cluster, 0, GIB), Err(Refusal::PoolExists(..))));
    add(&mut cluster, 1, GIB / 2).unwrap();
    assert!(matches!(cluster.apply(deploy("web", DeployCount::Total(2), 1)), Err(Refusal::NoSpace { fitting: 1, .. })));
    let announce = |free| Command::Announce {
        node: NodeId(1),
        version: "1".into(),
        pool: pool(20 * GIB, false),
        pools: pool(free, true).map(|report| (name("ssd"), report)).into_iter().collect(),
    };
    cluster.apply(announce(4 * GIB)).unwrap();
    cluster.apply(deploy("web", DeployCount::Total(2), 1)).unwrap();
    let places = |cluster: &Cluster| cluster.resource_named(&name("web")).unwrap().assignments[&NodeId(0)].places.clone();
    let found = places(&cluster);
    assert_eq!((found.of(VolumeId(0)), found.of(VolumeId(1)), found.metadata()), (&name("ssd"), &*FIRST_POOL, &name("ssd")));
    let left = |pool: &Name| room(&cluster, &cluster.nodes[&NodeId(0)], pool);
    assert!(left(&name("ssd")) < 3 * GIB && left(&FIRST_POOL) == 10 * GIB);
    // Not every pool reads as zeros: only one replica has all data from the start.
    let record = cluster.resource_named(&name("web")).unwrap().record.clone().unwrap();
    assert_eq!(record.in_sync.len(), 1);

    assert!(matches!(cluster.apply(volume(2, 3 * GIB, Some("ssd"))), Err(Refusal::NoSpaceOn { .. })));
    assert!(matches!(cluster.apply(volume(2, GIB, Some("hdd"))), Err(Refusal::NoSuchPool(..))));
    cluster.apply(Command::SetDefaultPool { node: NodeId(0), name: name("ssd") }).unwrap();
    cluster.apply(volume(2, GIB, None)).unwrap();
    assert_eq!(places(&cluster).of(VolumeId(2)), &name("ssd"), "the node's usual pool by now");

    let remove = Command::RemovePool { node: NodeId(0), name: name("ssd") };
    assert!(matches!(cluster.apply(remove.clone()), Err(Refusal::PoolInUse { resource, .. }) if resource == "web"));
    cluster.apply(Command::RemoveResource { resource: name("web"), force: true }).unwrap();
    assert!(matches!(cluster.apply(remove.clone()), Err(Refusal::PoolInUse { .. })), "until the node has removed it");
    let left: Vec<(LeftoverId, Leftover)> = cluster.leftovers_of(NodeId(0)).map(|(id, l)| (id, l.clone())).collect();
    assert_eq!(left[0].1.places.of(VolumeId(2)), &name("ssd"));
    cluster.apply(Command::ConfirmLeftover { node: NodeId(0), leftover: left[0].0 }).unwrap();
    cluster.apply(remove).unwrap();
    assert_eq!(cluster.nodes[&NodeId(0)].usual_pool(), &*FIRST_POOL);
    let first = Command::RemovePool { node: NodeId(0), name: FIRST_POOL.clone() };
    assert!(matches!(cluster.apply(first), Err(Refusal::FirstPool(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_commands_keep_the_invariants(steps in proptest::collection::vec(any_step(), 1..120), many in any::<bool>()) {
        let mut cluster = cluster_with(if many { &[20 * GIB; 3] } else { &[20 * GIB; 2] }, true);
        let mut seen = Seen::default();
        seen.check(&cluster);
        for (at, step) in (1u128..).zip(steps) {
            let Some(mut command) = command_of(step, &cluster) else { continue };
            draw_anew(&mut command, at);
            let before = cluster.clone();
            let expected = match &command {
                Command::ChangeRecord { resource, expect, .. } => Some((*resource, *expect)),
                _ => None,
            };
            match cluster.apply(command) {
                Ok(_) => {
                    prop_assert_eq!(cluster.revision, before.revision + 1);
                    if let Some((resource, expect)) = expected {
                        let present = before.resources[&resource].record.as_ref().unwrap();
                        prop_assert!(present.id == expect, "a record was replaced that was not expected");
                    }
                }
                Err(refusal) => {
                    prop_assert_eq!(&cluster, &before, "a refusal changed the model: {}", refusal);
                    prop_assert!(!refusal.to_string().is_empty());
                }
            }
            seen.check(&cluster);
        }
        prop_assert_eq!(Cluster::decode(&cluster.encode()).unwrap(), cluster);
    }
}
