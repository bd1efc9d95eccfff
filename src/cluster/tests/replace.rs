//! A replica gets another disk.

use super::*;

fn replace(cluster: &mut Cluster, node: &str, pool: Option<&str>) -> Result<Applied, Refusal> {
    let expect = Some(record(cluster, "web").id);
    let (resource, node, pool) = (name("web"), name(node), pool.map(name));
    cluster.apply(Command::ReplaceDisk { resource, node, pool, expect, seed: Seed(42) })
}

fn at(cluster: &Cluster, node: u32) -> Assignment {
    cluster.resource_named(&name("web")).unwrap().assignments[&NodeId(node)].clone()
}

fn two() -> Cluster {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    confirm_all(&mut cluster, "web");
    cluster
}

#[test]
fn a_new_replica_takes_the_place_of_the_old_one_and_is_not_in_sync() {
    let mut cluster = two();
    let (old, before) = (at(&cluster, 1), record(&cluster, "web"));
    replace(&mut cluster, "n1", None).unwrap();
    let new = at(&cluster, 1);
    assert!(new.replica.is_some() && new.replica != old.replica && new.incarnation != old.incarnation, "{new:?}");
    assert!(!new.created && !new.initially_in_sync, "it is made, and waits for a full sync");
    let after = record(&cluster, "web");
    assert_eq!((after.number, after.parent), (before.number + 1, Some(before.id)));
    assert_eq!(after.in_sync.keys().copied().collect::<Vec<_>>(), [NodeId(0)], "nobody counts on the old one");
    let (_, leftover) = cluster.leftovers_of(NodeId(1)).next().unwrap();
    assert_eq!(Some(leftover.replica), old.replica, "its node deletes what is left of it");
}

#[test]
fn while_a_primary_counts_on_the_old_one_the_new_one_waits() {
    let mut cluster = two();
    let old = at(&cluster, 1);
    change(&mut cluster, "web", |next| (next.primary, next.reign) = (Some(NodeId(0)), next.number)).unwrap();
    replace(&mut cluster, "n1", None).unwrap();
    assert!(at(&cluster, 1).leaving && at(&cluster, 1).replica == old.replica, "rule M8");
    assert_eq!(replace(&mut cluster, "n1", None), Err(Refusal::ReplicaLeaves("web".into(), "n1".into())));
    change(&mut cluster, "web", |next| next.in_sync.retain(|node, _| *node != NodeId(1))).unwrap();
    let new = at(&cluster, 1);
    assert!(!new.leaving && !new.created && new.replica != old.replica, "{new:?}");
}

#[test]
fn a_replica_that_is_taken_away_meanwhile_has_no_successor() {
    let mut cluster = two();
    change(&mut cluster, "web", |next| (next.primary, next.reign) = (Some(NodeId(0)), next.number)).unwrap();
    replace(&mut cluster, "n1", None).unwrap();
    cluster.apply(unassign("web", "n1", false)).unwrap();
    change(&mut cluster, "web", |next| next.in_sync.retain(|node, _| *node != NodeId(1))).unwrap();
    assert!(!cluster.resource_named(&name("web")).unwrap().assignments.contains_key(&NodeId(1)));
}

#[test]
fn the_last_copy_the_primarys_and_what_was_not_looked_at_stay() {
    let mut cluster = two();
    let (resource, node) = (name("web"), name("n1"));
    let unseen = Command::ReplaceDisk { resource, node, pool: None, expect: Some(RecordId(1)), seed: Seed(1) };
    assert_eq!(cluster.apply(unseen), Err(Refusal::Overtaken("web".into())), "who has the data was another question");
    change(&mut cluster, "web", |next| next.in_sync.retain(|node, _| *node != NodeId(1))).unwrap();
    assert_eq!(replace(&mut cluster, "n0", None), Err(Refusal::LastUpToDate("web".into(), "n0".into())));
    change(&mut cluster, "web", |next| (next.primary, next.reign) = (Some(NodeId(1)), next.number)).unwrap();
    assert_eq!(replace(&mut cluster, "n1", None), Err(Refusal::InUse("web".into(), "n1".into())));
    assert_eq!(replace(&mut cluster, "n2", None), Err(Refusal::NotAssigned("web".into(), "n2".into())));
    let (resource, node) = (name("web"), name("n2"));
    cluster.apply(Command::Assign { resource, node, diskless: true, seed: Seed(6), pool: None }).unwrap();
    assert_eq!(replace(&mut cluster, "n2", None), Err(Refusal::Diskless("web".into(), "n2".into())));
}

#[test]
fn it_goes_to_the_pool_that_is_named() {
    let mut cluster = two();
    assert_eq!(replace(&mut cluster, "n1", Some("ssd")), Err(Refusal::NoSuchPool("n1".into(), "ssd".into())));
    let report = pool(9 * GIB, true);
    let added = Command::AddPool { node: NodeId(1), name: name("ssd"), pool: NodePool { spec: "lvm:ssd".into(), report } };
    cluster.apply(added).unwrap();
    change(&mut cluster, "web", |next| (next.primary, next.reign) = (Some(NodeId(0)), next.number)).unwrap();
    replace(&mut cluster, "n1", Some("ssd")).unwrap();
    let gone = Command::RemovePool { node: NodeId(1), name: name("ssd") };
    assert!(matches!(cluster.apply(gone), Err(Refusal::PoolInUse { .. })), "it is promised");
    change(&mut cluster, "web", |next| next.in_sync.retain(|node, _| *node != NodeId(1))).unwrap();
    assert_eq!(at(&cluster, 1).places.of(VolumeId(0)), &name("ssd"));
    assert_eq!(at(&cluster, 1).places.metadata(), &name("ssd"));
}

#[test]
fn where_it_was_there_is_room_and_a_pool_that_is_gone_is_named() {
    let mut cluster = two();
    let announce = |cluster: &mut Cluster, pool| {
        let announce = Command::Announce { node: NodeId(1), version: "1".into(), pool, pools: BTreeMap::new() };
        cluster.apply(announce).unwrap();
    };
    announce(&mut cluster, None);
    assert_eq!(replace(&mut cluster, "n1", None), Err(Refusal::NoPool("n1".into())));
    announce(&mut cluster, pool(0, true));
    replace(&mut cluster, "n1", None).unwrap();
}

#[test]
fn a_pause_is_of_all_or_of_replicas_by_name() {
    let mut cluster = two();
    let steer = |cluster: &mut Cluster, node: Option<&str>, pause| {
        cluster.apply(Command::PauseResync { resource: name("web"), node: node.map(name), pause })
    };
    let holds = |cluster: &Cluster, node| cluster.resource_named(&name("web")).unwrap().paused.holds(NodeId(node));
    assert_eq!(steer(&mut cluster, None, false), Err(Refusal::NotPaused("web".into())));
    assert_eq!(steer(&mut cluster, Some("n2"), true), Err(Refusal::NotAssigned("web".into(), "n2".into())));
    steer(&mut cluster, Some("n1"), true).unwrap();
    assert!(holds(&cluster, 1) && !holds(&cluster, 0));
    assert_eq!(steer(&mut cluster, Some("n0"), false), Err(Refusal::NotPaused("web".into())));
    steer(&mut cluster, None, true).unwrap();
    assert!(holds(&cluster, 0));
    assert_eq!(steer(&mut cluster, Some("n1"), false), Err(Refusal::AllPaused("web".into())));
    steer(&mut cluster, None, false).unwrap();
    assert!(!holds(&cluster, 0) && !holds(&cluster, 1));
    steer(&mut cluster, Some("n1"), true).unwrap();
    cluster.apply(unassign("web", "n1", false)).unwrap();
    assert!(!holds(&cluster, 1), "another replica there is another matter");
}

#[test]
fn a_node_is_disconnected_by_name_until_it_is_connected_or_gone() {
    let mut cluster = two();
    let disconnect = |node: &str| Command::Disconnect { resource: name("web"), node: name(node) };
    let connect = |node: Option<&str>| Command::Connect { resource: name("web"), node: node.map(name) };
    let apart = |cluster: &Cluster| cluster.resource_named(&name("web")).unwrap().are_apart(NodeId(0), NodeId(1));
    assert_eq!(cluster.apply(connect(None)), Err(Refusal::NotDisconnected("web".into())));
    assert_eq!(cluster.apply(disconnect("n2")), Err(Refusal::NotAssigned("web".into(), "n2".into())));
    cluster.apply(disconnect("n1")).unwrap();
    assert!(apart(&cluster));
    assert_eq!(cluster.apply(connect(Some("n0"))), Err(Refusal::NotDisconnected("web".into())));
    cluster.apply(connect(Some("n1"))).unwrap();
    assert!(!apart(&cluster));
    cluster.apply(disconnect("n0")).unwrap();
    cluster.apply(disconnect("n1")).unwrap();
    cluster.apply(connect(None)).unwrap();
    assert!(!apart(&cluster));
    cluster.apply(disconnect("n1")).unwrap();
    cluster.apply(unassign("web", "n1", false)).unwrap();
    assert!(!apart(&cluster), "another replica there is another matter");
}
