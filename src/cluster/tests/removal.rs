//! What may be taken away, when, and what becomes of it.

use super::*;

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
