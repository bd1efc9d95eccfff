use super::super::options::EffectiveOptions;
use super::super::status::PeerView;
use super::*;
use crate::units::{NodeId, ResourceId};

/// A resource with a replica on each of `nodes`, all well.
fn resource(nodes: &[&str]) -> ResourceStatus {
    let view = |peer: &&str| PeerView {
        node: peer.parse().unwrap(),
        connection: Connection::Connected,
        disk: Some(DiskState::UpToDate),
        out_of_sync: 0,
        resync: None,
        verify: None,
    };
    let replica = |(id, node): (u32, &&str)| ReplicaStatus {
        node: node.parse().unwrap(),
        node_id: NodeId(id),
        diskless: false,
        pending: None,
        failure: None,
        online: true,
        role: Some(if id == 0 { Role::Primary } else { Role::Secondary }),
        disk: Some(DiskState::UpToDate),
        clients: 0,
        suspended: Vec::new(),
        resync_paused: false,
        disconnected: false,
        peers: nodes.iter().filter(|peer| *peer != node).map(view).collect(),
    };
    ResourceStatus {
        name: "web".parse().unwrap(),
        id: ResourceId(1),
        port: 6999,
        options: EffectiveOptions::default(),
        majority: false,
        primary: Some(nodes[0].parse().unwrap()),
        removing: false,
        verifies: None,
        volumes: Vec::new(),
        replicas: (0..).zip(nodes).map(replica).collect(),
    }
}

fn told(status: &ResourceStatus) -> String {
    let (state, detail) = status.state();
    format!("{state}: {detail}")
}

#[test]
fn all_replicas_up_to_date_and_connected_is_ok() {
    assert_eq!(told(&resource(&["a", "b"])), "ok: ");
    assert_eq!(told(&resource(&["a"])), "ok: ");
}

#[test]
fn an_offline_replica_degrades() {
    let mut status = resource(&["a", "b"]);
    status.replicas[1] = ReplicaStatus { online: false, role: None, disk: None, peers: Vec::new(), ..status.replicas[1].clone() };
    status.replicas[0].peers[0].connection = Connection::Connecting;
    assert_eq!(told(&status), "degraded: b offline");
    // The survivor does not count as disconnected: its peer is away.
    assert_eq!(status.assignment(&status.replicas[0]).0, AssignmentState::Ok);
}

#[test]
fn two_online_replicas_without_a_connection_are_degraded() {
    let mut status = resource(&["a", "b"]);
    status.replicas[0].peers[0].connection = Connection::Connecting;
    assert_eq!(told(&status), "degraded: a disconnected");
    assert_eq!(status.assignment(&status.replicas[0]), (AssignmentState::Disconnected, "from b".to_owned()));
}

#[test]
fn a_resync_is_told_in_percent_from_either_side() {
    let mut status = resource(&["a", "b"]);
    status.replicas[1].disk = Some(DiskState::Inconsistent);
    assert_eq!(told(&status), "degraded: b outdated");
    status.replicas[0].peers[0].resync = Some(Resync { source: true, total: 1000, done: 999 });
    assert_eq!(told(&status), "syncing: 99.9%");
    status.replicas[1].peers[0].resync = Some(Resync { source: false, total: 1000, done: 500 });
    assert_eq!(told(&status), "syncing: 50.0%");
}

#[test]
fn a_loss_is_told_before_a_resync() {
    let mut status = resource(&["a", "b", "c"]);
    status.replicas[1].disk = Some(DiskState::Inconsistent);
    status.replicas[1].peers[0].resync = Some(Resync { source: false, total: 2, done: 1 });
    status.replicas[2].online = false;
    assert_eq!(told(&status), "degraded: c offline");
}

#[test]
fn waits_that_end_by_themselves_are_no_suspension() {
    let mut status = resource(&["a", "b"]);
    status.replicas[0].suspended = vec![Suspension::Lease { milliseconds: 200 }, Suspension::TakingOver];
    assert_eq!(told(&status), "ok: ");
    status.replicas[0].suspended.push(Suspension::Authority);
    assert_eq!(told(&status), "suspended: a: waiting for a quorum");
}

#[test]
fn a_secondarys_wait_does_not_count_while_a_primary_serves() {
    let mut status = resource(&["a", "b"]);
    status.replicas[1].suspended = vec![Suspension::NoData { nodes: Vec::new() }];
    assert_eq!(status.state().0, ResourceState::Degraded);
    status.replicas[0].role = Some(Role::Secondary);
    assert_eq!(status.state().0, ResourceState::Suspended);
}

#[test]
fn no_up_to_date_replica_is_no_data() {
    let mut status = resource(&["a", "b"]);
    status.replicas[0].online = false;
    status.replicas[0].disk = None;
    status.replicas[1].disk = Some(DiskState::Outdated);
    assert_eq!(told(&status), "no-data: a offline, b outdated");
}

#[test]
fn split_brain_is_told_before_everything_but_removal() {
    let mut status = resource(&["a", "b"]);
    status.replicas[1].peers[0].connection = Connection::SplitBrain;
    status.replicas[0].suspended.push(Suspension::Authority);
    assert_eq!(told(&status), "split-brain: between a and b");
    status.removing = true;
    assert_eq!(told(&status), "removing: ");
}

#[test]
fn deploying_until_the_first_replica_is_there() {
    let mut status = resource(&["a", "b"]);
    for replica in &mut status.replicas {
        *replica = ReplicaStatus { pending: Some(Pending::Deploy), disk: None, role: None, ..replica.clone() };
    }
    assert_eq!(told(&status), "deploying: a deploying, b deploying");
    status.replicas[1].failure = Some("pool 'drbdpool' is full".to_owned());
    assert_eq!(told(&status), "deploying: a deploying, b failing");
    status.replicas[0] = resource(&["a", "b"]).replicas[0].clone();
    assert_eq!(told(&status), "degraded: b failing");
    status.replicas[1].failure = None;
    assert_eq!(told(&status), "deploying: b deploying");
}

#[test]
fn a_resource_without_replicas_is_undeployed_even_with_clients() {
    let mut status = resource(&["a", "b"]);
    status.replicas.remove(1);
    status.replicas[0].diskless = true;
    assert_eq!(told(&status), "undeployed: ");
}

#[test]
fn words_are_the_same_in_tables_and_json() {
    for state in [ResourceState::Ok, ResourceState::NoData, ResourceState::SplitBrain, ResourceState::Undeployed] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    for state in [AssignmentState::Ok, AssignmentState::DiskFailed, AssignmentState::SplitBrain, AssignmentState::Client] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}
