use super::*;
use crate::api::{Connection, EffectiveOptions, Growth, Membership, PeerView, Suspension};
use crate::units::{NodeId, ResourceId, Role, VolumeId};

fn node(name: &str, id: u32) -> Node {
    Node {
        name: name.parse().unwrap(),
        id: NodeId(id),
        address: "10.0.0.1".parse().unwrap(),
        port: 6999,
        membership: Membership::Voter,
        online: true,
        removing: false,
        pool: None,
        pools: std::collections::BTreeMap::new(),
        pool_failures: std::collections::BTreeMap::new(),
        version: None,
    }
}

fn replica(name: &str, id: u32, role: Role, disk: DiskState) -> ReplicaStatus {
    ReplicaStatus {
        node: name.parse().unwrap(),
        node_id: NodeId(id),
        diskless: disk == DiskState::Diskless,
        pending: None,
        failure: None,
        online: true,
        role: Some(role),
        disk: Some(disk),
        clients: 0,
        suspended: Vec::new(),
        resync_paused: false,
        disconnected: false,
        peers: Vec::new(),
    }
}

fn cluster() -> ClusterStatus {
    let mut primary = replica("alpha", 0, Role::Primary, DiskState::UpToDate);
    primary.clients = 2;
    ClusterStatus {
        cluster: "5f0c".to_owned(),
        node: "alpha".parse().unwrap(),
        leader: Some("alpha".parse().unwrap()),
        nodes: vec![node("alpha", 0), node("beta", 1), node("gamma", 2)],
        resources: vec![ResourceStatus {
            name: "web".parse().unwrap(),
            id: ResourceId(1),
            port: 6999,
            options: EffectiveOptions::default(),
            majority: true,
            primary: Some("alpha".parse().unwrap()),
            removing: false,
            verifies: None,
            volumes: vec![VolumeInfo { volume: VolumeId(0), bytes: 10 << 30, making: false, growth: None, minor: None }],
            replicas: vec![
                primary,
                replica("beta", 1, Role::Secondary, DiskState::UpToDate),
                replica("gamma", 2, Role::Secondary, DiskState::Diskless),
            ],
        }],
    }
}

#[test]
fn a_healthy_cluster() {
    let expected = "\
cluster 5f0c  3 of 3 nodes online, led by alpha

web  ok  10 GiB, protocol C, quorum majority (auto)
  alpha  Primary    UpToDate  2 clients
  beta   Secondary  UpToDate
  gamma  Secondary  client
";
    assert_eq!(status(&cluster(), &Pace::default(), false), expected);
}

#[test]
fn a_growth_names_whom_it_waits_for() {
    let mut cluster = cluster();
    let awaits = vec!["beta".parse().unwrap(), "gamma".parse().unwrap()];
    cluster.resources[0].volumes[0].growth = Some(Growth { bytes: 20 << 30, awaits });
    let text = status(&cluster, &Pace::default(), false);
    assert!(text.contains("\n  volume 0 grows to 20 GiB when it has grown on beta, gamma\n"), "{text}");
}

#[test]
fn a_resync_shows_its_progress_and_speed() {
    let mut cluster = cluster();
    let resource = &mut cluster.resources[0];
    resource.replicas[1].disk = Some(DiskState::Inconsistent);
    let resync = |done: u64| Some(Resync { source: true, total: 1 << 30, done });
    let view = PeerView {
        verify: None,
        node: "beta".parse().unwrap(),
        connection: Connection::Connected,
        disk: Some(DiskState::Inconsistent),
        out_of_sync: 1 << 30,
        resync: resync(128 << 20),
    };
    resource.replicas[0].peers.push(view);
    let (mut pace, now) = (Pace::default(), std::time::Instant::now());
    pace.look(&cluster, now);
    cluster.resources[0].replicas[0].peers[0].resync = resync(256 << 20);
    pace.look(&cluster, now + Duration::from_secs(1));
    let text = status(&cluster, &pace, false);
    assert!(text.contains("web  syncing (25.0%)  10 GiB"), "{text}");
    let line = "  beta   Secondary  Inconsistent  [=====>              ] 25.0% of 1 GiB, 128 MiB/s, 0:06 left\n";
    assert!(text.contains(line), "{text}");
}

/// What a verify does not repair is told with what can be done about it.
#[test]
fn a_verify_tells_what_it_has_left() {
    let found = |repaired| Verify {
        state: VerifyState::Done,
        reign: 4,
        total: 1 << 30,
        done: 1 << 30,
        different: 3,
        first: Some((VolumeId(0), 4096)),
        repair: true,
        repaired,
        unread: 0,
    };
    let text = verified(&found(3));
    assert_eq!(text, "verified: 3 blocks differed, the first at byte 4096 of volume 0; given to the resync");
    let text = verified(&found(1));
    assert!(text.contains("; 2 blocks left as they are, for no majority of the replicas has what the primary has"), "{text}");
    assert!(text.ends_with("verify again when all are in sync, or with another primary"), "{text}");
}

#[test]
fn trouble_is_told_where_it_is() {
    let mut cluster = cluster();
    cluster.nodes[1].online = false;
    cluster.leader = None;
    let resource = &mut cluster.resources[0];
    let lost = &resource.replicas[1];
    resource.replicas[1] = ReplicaStatus { online: false, role: None, disk: None, ..lost.clone() };
    resource.replicas[0].suspended = vec![Suspension::Authority];
    let expected = "\
cluster 5f0c  2 of 3 nodes online, no leader: nothing can be changed now
  beta: OFFLINE

web  suspended (alpha: waiting for a quorum)  10 GiB, protocol C, quorum majority (auto)
  alpha  Primary    UpToDate  suspended: waiting for a quorum, 2 clients
  beta   -          -         offline
  gamma  Secondary  client
";
    assert_eq!(status(&cluster, &Pace::default(), false), expected);
}

#[test]
fn a_pause_is_told_of_the_replica_that_it_holds_up() {
    let mut cluster = cluster();
    cluster.resources[0].replicas[1].disk = Some(DiskState::Outdated);
    cluster.resources[0].replicas[1].resync_paused = true;
    let shown = status(&cluster, &Pace::default(), false);
    assert!(shown.contains("  beta   Secondary  Outdated  resync paused by an operator\n"), "{shown}");
    cluster.resources[0].replicas[1].disconnected = true;
    let shown = status(&cluster, &Pace::default(), false);
    assert!(shown.contains("resync paused by an operator, disconnected by an operator\n"), "{shown}");
}

#[test]
fn a_pause_of_all_resyncs_is_no_remark_on_what_is_in_sync() {
    let mut cluster = cluster();
    for replica in &mut cluster.resources[0].replicas {
        replica.resync_paused = !replica.diskless;
    }
    let shown = status(&cluster, &Pace::default(), false);
    assert!(!shown.contains("paused by an operator"), "{shown}");
    assert!(shown.contains(", all resyncs paused"), "{shown}");
}

#[test]
fn bars_and_clocks() {
    let resync = |done| Resync { source: true, total: 1000, done };
    assert_eq!(bar(resync(0)), "[>                   ] 0.0%");
    assert_eq!(bar(resync(999)), "[===================>] 99.9%");
    assert_eq!(bar(resync(1000)), "[====================] 100.0%");
    assert_eq!(clock(Duration::from_secs(15)), "0:15");
    assert_eq!(clock(Duration::from_secs(7380)), "2:03:00");
}

#[test]
fn a_thin_pool_that_fills_up_is_told_before_it_is_full() {
    use crate::units::PoolKind;

    let mut status = cluster();
    let pool = |data, metadata| Pool {
        kind: PoolKind::LvmThin,
        location: "vg/tp".to_owned(),
        size: 1 << 30,
        free: 0,
        fill: Some(Fill { data, metadata: Some(metadata) }),
    };
    status.nodes[0].pool = Some(pool(100, 200));
    assert!(!super::status(&status, &Pace::default(), false).contains("vg/tp"));
    status.nodes[1].pools.insert("ssd".parse().unwrap(), pool(100, 912));
    let shown = super::status(&status, &Pace::default(), false);
    assert!(shown.contains("  beta: pool vg/tp is 10.0% full, its metadata 91.2%; writes fail when it is full\n"), "{shown}");
}

#[test]
fn a_pool_that_fails_is_told_though_nothing_is_in_it() {
    let mut status = cluster();
    status.nodes[1].pool_failures.insert("ssd".parse().unwrap(), "the program 'lvm' was not found; install lvm2".to_owned());
    let shown = super::status(&status, &Pace::default(), false);
    assert!(shown.contains("  beta: pool 'ssd' is failing: the program 'lvm' was not found; install lvm2\n"), "{shown}");
}

#[test]
fn verifies_by_themselves_are_told_of() {
    let mut cluster = cluster();
    let mut told = |repair, last| {
        cluster.resources[0].verifies = Some(VerifySchedule { every: 7 * 86400, repair, last });
        facts(&cluster.resources[0])
    };
    assert!(told(false, None).ends_with(", verified every 7d"));
    assert!(told(true, Some(86400)).ends_with(", verified and repaired every 7d (last 1970-01-02 00:00:00Z)"));
}

/// Who sees a split brain is told how it ends.
#[test]
fn a_split_brain_is_told_with_its_way_out() {
    let mut cluster = cluster();
    let peer = |connection| PeerView {
        node: "beta".parse().unwrap(),
        connection,
        disk: None,
        out_of_sync: 0,
        resync: None,
        verify: None,
    };
    cluster.resources[0].replicas[0].peers = vec![peer(Connection::SplitBrain)];
    let text = status(&cluster, &Pace::default(), false);
    assert!(text.contains("`blkrep discard-my-data web NODE`"), "{text}");
    cluster.resources[0].replicas[0].peers = vec![peer(Connection::Connected)];
    assert!(!status(&cluster, &Pace::default(), false).contains("discard-my-data"));
}

/// Whoever has an old replica only is told how the others come back, and how it goes on without them.
#[test]
fn lost_data_is_told_with_its_way_out() {
    let mut cluster = cluster();
    let replicas = &mut cluster.resources[0].replicas;
    (replicas[0].online, replicas[0].disk, replicas[0].role) = (false, None, None);
    replicas[1].disk = Some(DiskState::Outdated);
    let text = status(&cluster, &Pace::default(), false);
    assert!(text.contains("web  no-data") && text.contains("`blkrep promote web NODE --force`"), "{text}");
    cluster.resources[0].replicas[1].disk = Some(DiskState::UpToDate);
    assert!(!status(&cluster, &Pace::default(), false).contains("--force"));
}
