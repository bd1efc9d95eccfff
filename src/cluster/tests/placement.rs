//! Where replicas are placed, in which pools, and who of them is in sync.

use super::*;

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

/// How a thin pool's limit comes about: what it has promised, and what of it is still being made, is told in numbers that add up.
#[test]
fn a_refusal_tells_how_a_thin_pool_is_limited() {
    let mut cluster = cluster_with(&[100 * GIB; 2], true);
    let announce = |cluster: &mut Cluster, node, total, made| {
        let promises = Some(PoolPromises { times: 3, made });
        let fill = Some(PoolFill { data: 100, metadata: None, promises });
        let pool = pool(3 * total - made, true).map(|report| PoolReport { kind: PoolKind::LvmThin, total, fill, ..report });
        cluster.apply(Command::Announce { node: NodeId(node), version: "1".into(), pool, pools: BTreeMap::new() }).unwrap();
    };
    for node in 0..2 {
        announce(&mut cluster, node, 10 * GIB, 4 * GIB);
    }
    cluster.apply(create("web", 6 * GIB, 2)).unwrap();
    let promised = 10 * GIB + metadata_reserve(6 * GIB);
    let limited = ThinLimit { size: 10 * GIB, times: 3, promised };
    let grown = cluster.apply(Command::ResizeVolume { resource: name("web"), volume: VolumeId(0), bytes: 60 * GIB }).unwrap_err();
    assert!(
        matches!(grown, Refusal::NoSpaceOn { room, limit: Some(limit), .. } if limit == limited && room == 30 * GIB - promised),
        "{grown}"
    );
    // Of several nodes it is told of the one that has most room.
    announce(&mut cluster, 1, 20 * GIB, 5 * GIB);
    let refused = cluster.apply(create("b", 90 * GIB, 2)).unwrap_err();
    let limited = ThinLimit { size: 20 * GIB, promised: promised + GIB, ..limited };
    assert!(matches!(refused, Refusal::NoSpace { fitting: 0, limit: Some(limit), .. } if limit == limited), "{refused}");
    assert!(refused.to_string().contains("may promise 3 times that, which is 60 GiB"), "{refused}");

    let before: PoolFill = serde_json::from_str(r#"{"data":100,"metadata":7}"#).unwrap();
    assert_eq!(before, PoolFill { data: 100, metadata: Some(7), promises: None }, "as earlier versions wrote it");
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
