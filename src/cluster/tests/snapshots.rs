//! Snapshots: of whom, where, and what is made of them.

use super::*;

fn take(cluster: &mut Cluster, snapshot: &str, nodes: &[&str], purpose: Purpose) -> Result<SnapshotId, Refusal> {
    let (resource, snapshot, taker) = (name("web"), name(snapshot), NodeId(0));
    let nodes = nodes.iter().map(|node| name(node)).collect();
    match cluster.apply(Command::AddSnapshot { resource, snapshot, nodes, purpose, taker, now: NOW })? {
        Applied::Snapshot(id) => Ok(id),
        other => panic!("{other:?}"),
    }
}

fn finish(cluster: &mut Cluster, snapshot: SnapshotId, nodes: &[u32]) -> Result<Applied, Refusal> {
    let resource = cluster.resource_named(&name("web")).unwrap().id;
    cluster.apply(Command::CompleteSnapshot { resource, snapshot, nodes: nodes.iter().copied().map(NodeId).collect() })
}

fn restore(cluster: &mut Cluster, new: &str, nodes: &[&str]) -> Result<Applied, Refusal> {
    let (resource, source, snapshot) = (name(new), name("web"), name("monday"));
    let nodes = nodes.iter().map(|node| name(node)).collect();
    cluster.apply(Command::RestoreSnapshot { resource, source, snapshot, nodes, seed: Seed(3), now: NOW })
}

fn roll_back(cluster: &mut Cluster) -> Result<Applied, Refusal> {
    cluster.apply(Command::RollBack { resource: name("web"), snapshot: name("monday"), seed: Seed(5) })
}

fn remove(cluster: &mut Cluster, node: Option<&str>) -> Result<Applied, Refusal> {
    let (resource, snapshot) = (name("web"), name("monday"));
    cluster.apply(Command::RemoveSnapshot { resource, snapshot, node: node.map(name) })
}

/// Three nodes whose pools share blocks, with `web` on all of them.
fn three() -> Cluster {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB, 10 * GIB], true);
    for node in cluster.nodes.values_mut() {
        node.pool.as_mut().unwrap().kind = PoolKind::FileThin;
    }
    cluster.apply(create("web", GIB, 3)).unwrap();
    confirm_all(&mut cluster, "web");
    cluster
}

fn leftovers(cluster: &Cluster, node: u32) -> Vec<Vec<String>> {
    let stored = |l: &Leftover| l.snapshots.iter().map(|one| one.stored.clone()).collect();
    cluster.leftovers_of(NodeId(node)).map(|(_, leftover)| stored(leftover)).collect()
}

#[test]
fn a_node_that_failed_has_no_part_and_deletes_what_it_may_have() {
    let mut cluster = three();
    let id = take(&mut cluster, "monday", &[], Purpose::Asked).unwrap();
    let unfinished = Refusal::SnapshotUnfinished("web".into(), "monday".into());
    assert_eq!(remove(&mut cluster, None), Err(unfinished.clone()));
    assert_eq!(restore(&mut cluster, "copy", &[]), Err(unfinished));
    finish(&mut cluster, id, &[0, 2]).unwrap();
    assert_eq!(finish(&mut cluster, id, &[0, 1, 2]), Err(Refusal::Stale), "it is decided");
    let web = cluster.resource_named(&name("web")).unwrap();
    let parts: Vec<NodeId> = web.snapshots[&name("monday")].parts.keys().copied().collect();
    assert_eq!(parts, [NodeId(0), NodeId(2)]);
    assert_eq!(leftovers(&cluster, 1), [["monday.0"]]);
}

#[test]
fn a_snapshot_that_nobody_could_take_is_none() {
    let mut cluster = three();
    let id = take(&mut cluster, "monday", &["n1"], Purpose::Asked).unwrap();
    assert_eq!(finish(&mut cluster, id, &[]), Err(Refusal::Stale));
    let resource = cluster.resource_named(&name("web")).unwrap().id;
    assert_eq!(cluster.unfinished_by(NodeId(0)), [(resource, id)]);
    assert_eq!(cluster.unfinished_since(NOW), []);
    assert_eq!(cluster.unfinished_since(NOW + 1), [(resource, id)]);
    cluster.apply(Command::AbandonSnapshot { resource, snapshot: id }).unwrap();
    assert!(cluster.resource_named(&name("web")).unwrap().snapshots.is_empty());
    let again = take(&mut cluster, "monday", &["n1"], Purpose::Asked).unwrap();
    assert_ne!(again, id, "what is left of the first is not taken for the second");
}

#[test]
fn what_cannot_be_had_is_refused_by_name() {
    let mut cluster = three();
    let id = take(&mut cluster, "monday", &[], Purpose::Asked).unwrap();
    finish(&mut cluster, id, &[0, 1, 2]).unwrap();
    let exists = Refusal::SnapshotExists("web".into(), "monday".into());
    assert_eq!(take(&mut cluster, "monday", &[], Purpose::Asked), Err(exists));
    assert_eq!(take(&mut cluster, "x", &["n9"], Purpose::Asked), Err(Refusal::NoSuchNode("n9".into())));
    change(&mut cluster, "web", |record| record.in_sync.retain(|node, _| *node != NodeId(2))).unwrap();
    let behind = Refusal::NotUpToDate("web".into(), "n2".into());
    assert_eq!(take(&mut cluster, "x", &["n2"], Purpose::Asked), Err(behind));
    let others = take(&mut cluster, "x", &[], Purpose::Asked).unwrap();
    let web = cluster.resource_named(&name("web")).unwrap().clone();
    assert_eq!(web.snapshots[&name("x")].parts.len(), 2, "one that is behind is left out when nobody asks for it");
    cluster.apply(Command::AbandonSnapshot { resource: web.id, snapshot: others }).unwrap();
    assert_eq!(restore(&mut cluster, "web", &[]), Err(Refusal::ResourceExists("web".into())));
    cluster.apply(create("big", 9 * GIB + (512 << 20), 3)).unwrap();
    assert!(matches!(take(&mut cluster, "y", &[], Purpose::Asked), Err(Refusal::NoSpaceOn { .. })));
    assert!(matches!(restore(&mut cluster, "copy", &[]), Err(Refusal::NoSpaceOn { .. })));
    let volume = Command::RemoveVolume { resource: name("web"), volume: VolumeId(0), force: true };
    assert_eq!(cluster.apply(volume), Err(Refusal::HasSnapshots("web".into(), 1)));
}

#[test]
fn what_is_restored_is_in_sync_where_the_snapshot_was_and_needs_it_until_it_is_made() {
    let mut cluster = three();
    let id = take(&mut cluster, "monday", &["n0", "n2"], Purpose::Asked).unwrap();
    finish(&mut cluster, id, &[0, 2]).unwrap();
    let elsewhere = Refusal::SnapshotNotThere("web@monday".into(), "n1".into());
    assert_eq!(restore(&mut cluster, "copy", &["n1"]), Err(elsewhere));
    restore(&mut cluster, "copy", &[]).unwrap();
    let copy = cluster.resource_named(&name("copy")).unwrap().clone();
    let first = copy.record.as_ref().unwrap();
    assert_eq!((first.number, first.parent, first.in_sync.len()), (1, None, 2));
    for (node, assignment) in &copy.assignments {
        assert_eq!(first.in_sync.get(node), Some(&assignment.incarnation));
        assert_eq!(assignment.source.as_ref().unwrap().stored, "monday.0");
    }
    assert!(copy.snapshots.is_empty());
    let used = Err(Refusal::SnapshotInUse("web".into(), "monday".into(), "copy".into()));
    assert_eq!(remove(&mut cluster, None), used);
    assert_eq!(cluster.apply(Command::RemoveResource { resource: name("web"), force: true }), used);
    assert_eq!(cluster.apply(unassign("web", "n2", false)), used);
    confirm_all(&mut cluster, "copy");
    remove(&mut cluster, Some("n2")).unwrap();
    cluster.apply(Command::RemoveResource { resource: name("web"), force: true }).unwrap();
    assert_eq!(leftovers(&cluster, 0), [["monday.0"]], "the part goes with the replica");
    assert!(cluster.resource_named(&name("copy")).is_ok());
}

#[test]
fn a_clones_snapshot_goes_with_the_last_replica_that_was_made_of_it() {
    let mut cluster = three();
    let id = take(&mut cluster, "monday", &["n0", "n1"], Purpose::Copied).unwrap();
    finish(&mut cluster, id, &[0, 1]).unwrap();
    restore(&mut cluster, "copy", &[]).unwrap();
    let copy = cluster.resource_named(&name("copy")).unwrap().clone();
    for (&node, assignment) in &copy.assignments {
        assert_eq!(cluster.resource_named(&name("web")).unwrap().snapshots.len(), 1);
        let (replica, volumes) = (assignment.replica.unwrap(), copy.targets());
        cluster.apply(Command::ConfirmReplica { node, resource: copy.id, replica, volumes }).unwrap();
    }
    assert!(cluster.resource_named(&name("web")).unwrap().snapshots.is_empty());
}

#[test]
fn a_rollback_is_another_resource_under_the_same_name() {
    let mut cluster = three();
    let id = take(&mut cluster, "monday", &["n0", "n1"], Purpose::Asked).unwrap();
    finish(&mut cluster, id, &[0, 1]).unwrap();
    let before = cluster.resource_named(&name("web")).unwrap().clone();
    roll_back(&mut cluster).unwrap();
    let after = cluster.resource_named(&name("web")).unwrap().clone();
    assert_ne!(after.id, before.id, "replicas of before are strangers (rule M7)");
    assert!(!cluster.resources.contains_key(&before.id));
    let record = after.record.as_ref().unwrap();
    assert_eq!(record.in_sync.keys().copied().collect::<Vec<_>>(), [NodeId(0), NodeId(1)]);
    assert!(!after.assignments[&NodeId(2)].initially_in_sync && after.assignments[&NodeId(2)].source.is_none());
    assert_eq!(after.snapshots, before.snapshots, "the snapshot stays");
    for node in 0..3 {
        let (_, left) = cluster.leftovers_of(NodeId(node)).next().expect("the old replica goes");
        assert!(left.metadata && left.resource == before.id && left.snapshots.is_empty());
        assert_ne!(Some(left.replica), after.assignments[&NodeId(node)].replica);
    }
    let behind = Refusal::NotUpToDate("web".into(), "n0".into());
    assert_eq!(roll_back(&mut cluster), Err(behind), "not before the last one is done");
}

#[test]
fn a_rollback_needs_the_same_volumes_and_snapshots_that_stand_alone() {
    let mut cluster = three();
    let id = take(&mut cluster, "monday", &[], Purpose::Asked).unwrap();
    finish(&mut cluster, id, &[0, 1, 2]).unwrap();
    let mut thick = cluster.clone();
    thick.nodes.get_mut(&NodeId(1)).unwrap().pool.as_mut().unwrap().kind = PoolKind::Lvm;
    assert_eq!(roll_back(&mut thick), Err(Refusal::NeedsItsVolume("web@monday".into(), "n1".into())));
    cluster.apply(Command::AddVolume { resource: name("web"), volume: None, bytes: GIB, pool: None }).unwrap();
    assert_eq!(roll_back(&mut cluster), Err(Refusal::VolumeIsNewer("web".into(), VolumeId(1), "monday".into())));
}

#[test]
fn a_schedule_is_neither_hasty_nor_greedy() {
    let mut cluster = three();
    let schedule =
        |every, keep| Command::ScheduleSnapshots { resource: name("web"), schedule: Some(Schedule { every, keep, since: NOW }) };
    for bad in [schedule(59, 1), schedule(60, 0), schedule(60, 100_000)] {
        assert!(matches!(cluster.apply(bad), Err(Refusal::BadSchedule { .. })));
    }
    cluster.apply(schedule(3600, 24)).unwrap();
    let set = cluster.resource_named(&name("web")).unwrap().schedule.unwrap();
    assert_eq!(
        (set.last_due(NOW + 3599), set.last_due(NOW + 3600), set.last_due(NOW + 9000)),
        (None, Some(NOW + 3600), Some(NOW + 7200))
    );
    let again = |every, keep| Command::ScheduleSnapshots {
        resource: name("web"),
        schedule: Some(Schedule { every, keep, since: NOW + 3000 }),
    };
    for (every, keep, since) in [(3600, 9, NOW), (7200, 9, NOW + 3000)] {
        cluster.apply(again(every, keep)).unwrap();
        let schedule = cluster.resource_named(&name("web")).unwrap().schedule;
        assert_eq!(schedule, Some(Schedule { every, keep, since }), "the same interval goes on");
    }
}

/// A verify that was missed is made up for once, by whoever leads; what was noted for a schedule that is gone is nothing.
#[test]
fn verifies_that_begin_by_themselves() {
    let mut cluster = three();
    let set = |every| {
        let schedule = VerifySchedule { every, repair: true, since: NOW, last: None };
        Command::ScheduleVerify { resource: name("web"), schedule: Some(schedule) }
    };
    let due = |cluster: &Cluster, now| cluster.resource_named(&name("web")).unwrap().verifies.unwrap().is_due(now);
    let id = cluster.resource_named(&name("web")).unwrap().id;
    assert_eq!(cluster.apply(set(59)), Err(Refusal::VerifyTooOften { shortest: 60 }));
    cluster.apply(set(3600)).unwrap();
    assert!(!due(&cluster, NOW + 3599) && due(&cluster, NOW + 3600));
    cluster.apply(Command::NoteVerify { resource: id, now: NOW + 3601 }).unwrap();
    assert!(!due(&cluster, NOW + 7199) && due(&cluster, NOW + 7200));
    let away = NOW + 50 * 3600 + 10;
    cluster.apply(Command::NoteVerify { resource: id, now: away }).unwrap();
    assert!(!due(&cluster, away + 5), "one, not forty-nine");
    assert_eq!(Cluster::decode(&cluster.encode()).unwrap(), cluster);
    let again = |every, repair| {
        let schedule = VerifySchedule { every, repair, since: away + 10, last: None };
        Command::ScheduleVerify { resource: name("web"), schedule: Some(schedule) }
    };
    for (every, since, last) in [(3600, NOW, Some(away)), (7200, away + 10, None)] {
        cluster.apply(again(every, false)).unwrap();
        let schedule = cluster.resource_named(&name("web")).unwrap().verifies;
        assert_eq!(schedule, Some(VerifySchedule { every, repair: false, since, last }), "the same interval goes on");
    }
    cluster.apply(Command::ScheduleVerify { resource: name("web"), schedule: None }).unwrap();
    cluster.apply(Command::NoteVerify { resource: id, now: away }).unwrap();
    assert_eq!(cluster.resource_named(&name("web")).unwrap().verifies, None);
}
