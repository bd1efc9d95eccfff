//! Whole nodes in one process: certificates, sockets, Raft and file pools are real; only the data plane is not.

use std::time::Duration;

use super::testing::{TestNode, cluster, eventually, nobody};
use crate::api::state::{AssignmentState, ResourceState};
use crate::api::{
    AddVolume, AskStatus, AssignResource, Code, HowtoJoin, ListAssignments, ListNodes, ListResources, Membership, OptionValues,
    Ping, RemoveNode, RemoveResource, RemoveVolume, Service, SetOptions, UnassignResource,
};
use crate::units::{Name, VolumeId};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn volume(resource: &str, bytes: u64, deploy: u32) -> AddVolume {
    AddVolume {
        resource: name(resource),
        volume: None,
        bytes,
        deploy: Some(deploy),
        options: OptionValues::default(),
        pool: None,
        metadata_pool: None,
    }
}

async fn state(node: &TestNode, resource: &str) -> Option<ResourceState> {
    let listed = node.client().list_resources(ListResources { resource: Some(name(resource)) }).await.ok()?;
    Some(listed[0].state)
}

async fn until_ok(node: &TestNode, resource: &str) {
    eventually("it is ok", async || state(node, resource).await == Some(ResourceState::Ok)).await;
}

fn pool_has(node: &TestNode, volume: &str) -> bool {
    node.root.path().join("pool").join(volume).exists()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walk() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(dir.path(), 2).await;
    let added = nodes[1].client().add_volume(volume("web", 10_000_000, 2)).await.unwrap();
    assert_eq!(added.bytes, 10_002_432, "rounded up to whole blocks");
    assert_eq!(added.nodes, [name("n1"), name("n2")]);
    for node in &nodes {
        until_ok(node, "web").await;
        assert!(pool_has(node, "web_00") && pool_has(node, "web_meta"));
        let storage = node.plane().storage("web").unwrap();
        assert_eq!(storage.volumes[&VolumeId(0)].segments[0].length, 10_002_432);
        assert_eq!(node.plane().settings("web").unwrap().peers.len(), 1);
    }
    let again = nodes[0].client().add_volume(volume("web", 4096, 2)).await.unwrap();
    assert_eq!(again.volume, VolumeId(1));
    eventually("both have the second volume", async || {
        nodes.iter().all(|node| node.plane().settings("web").is_some_and(|settings| settings.volumes.len() == 2))
    })
    .await;
    nodes[0].client().remove_volume(RemoveVolume { resource: name("web"), volume: VolumeId(1), force: false }).await.unwrap();
    eventually("it is gone again", async || nodes.iter().all(|node| !pool_has(node, "web_01"))).await;
    nodes[1].client().remove_resource(RemoveResource { resource: name("web"), force: false }).await.unwrap();
    eventually("all is gone", async || nodes.iter().all(|n| !pool_has(n, "web_00") && !pool_has(n, "web_meta"))).await;
    assert!(nodes.iter().all(|node| node.plane().settings("web").is_none()));
    for mut node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_deletes_what_was_removed_and_makes_what_came_under_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3).await;
    nodes[0].client().add_volume(volume("web", 1 << 20, 3)).await.unwrap();
    until_ok(&nodes[0], "web").await;
    nodes[2].stop().await;
    let old = nodes[0].client().list_resources(ListResources { resource: None }).await.unwrap()[0].id;
    nodes[0].client().remove_resource(RemoveResource { resource: name("web"), force: false }).await.unwrap();
    eventually("the others have deleted it", async || !pool_has(&nodes[0], "web_00") && !pool_has(&nodes[1], "web_00")).await;
    nodes[0].client().add_volume(volume("web", 2 << 20, 3)).await.unwrap();
    eventually("the new one waits for the sleeper", async || state(&nodes[0], "web").await == Some(ResourceState::Degraded))
        .await;
    nodes[2].start().await.unwrap();
    until_ok(&nodes[0], "web").await;
    let new = nodes[0].client().list_resources(ListResources { resource: None }).await.unwrap()[0].id;
    assert_ne!(old, new);
    let length = std::fs::metadata(nodes[2].root.path().join("pool/web_00")).unwrap().len();
    assert_eq!(length, 2 << 20, "the sleeper has the new one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_vanished_is_told_and_not_made_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 1).await;
    nodes[0].client().add_volume(volume("web", 1 << 20, 1)).await.unwrap();
    until_ok(&nodes[0], "web").await;
    nodes[0].stop().await;
    std::fs::remove_file(nodes[0].root.path().join("pool/web_00")).unwrap();
    nodes[0].start().await.unwrap();
    let assignment = async || {
        let all = nodes[0].client().list_assignments(ListAssignments::default()).await.unwrap_or_default();
        all.into_iter().next()
    };
    eventually("it is told", async || assignment().await.is_some_and(|a| a.state == AssignmentState::Failing)).await;
    let told = assignment().await.unwrap().detail;
    assert!(told.contains("vanished") && told.contains("unassign-resource"), "{told}");
    assert!(!pool_has(&nodes[0], "web_00"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_told_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(dir.path(), 1).await;
    nodes[0].plane().refuse_open(Some("the disk is on fire"));
    nodes[0].client().add_volume(volume("web", 1 << 20, 1)).await.unwrap();
    eventually("it is told", async || {
        let all = nodes[0].client().list_assignments(ListAssignments::default()).await.unwrap_or_default();
        all.iter().any(|a| a.state == AssignmentState::Failing && a.detail.contains("on fire"))
    })
    .await;
    nodes[0].plane().refuse_open(None);
    until_ok(&nodes[0], "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_and_join_refuse_what_cannot_be_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two, three) = (TestNode::new(dir.path(), 1), TestNode::new(dir.path(), 2), TestNode::new(dir.path(), 3));

    let taken = std::net::TcpListener::bind((one.address, one.port)).unwrap();
    let refused = one.init().await.unwrap_err();
    assert!(refused.message.contains(&one.port.to_string()), "{refused}");
    assert_eq!(one.tree(), Vec::<String>::new(), "a busy port leaves nothing behind");
    drop(taken);
    let elsewhere = std::mem::replace(&mut one.address, "203.0.113.7".parse().unwrap());
    let refused = one.init().await.unwrap_err();
    assert!(refused.message.contains("203.0.113.7"), "{refused}");
    one.address = elsewhere;
    one.init().await.unwrap();

    let again = one.init().await.unwrap_err();
    assert_eq!(again.code, Code::AlreadyInitialized);
    one.client().ping(Ping {}).await.expect("it still runs");

    let ticket = one.ticket(&two).await.unwrap();
    let cases = [
        ("half of it", ticket.token[..40].to_owned(), ticket.contact, Code::Denied),
        ("another secret", altered(&ticket.token, 50), ticket.contact, Code::Denied),
        ("another cluster", altered(&ticket.token, 12), ticket.contact, Code::Denied),
        ("nobody there", ticket.token.clone(), nobody(), Code::Unreachable),
    ];
    for (what, token, contact, code) in cases {
        let wrong = crate::api::JoinTicket { token: token.clone(), contact, ..ticket.clone() };
        let refused = two.join(&wrong).await.unwrap_err();
        assert_eq!(refused.code, code, "{what}: {refused}");
        assert!(!refused.message.contains(&token), "{what}: the token is in the message");
        assert_eq!(two.tree(), Vec::<String>::new(), "{what}: nothing is left behind");
    }
    let short = one.client().howto_join(HowtoJoin { node: name("n2"), valid_for: Some(1) }).await.unwrap();
    assert_eq!(short.expires_in, 1);
    let over = super::local::now() + 1;
    eventually("its time is over", async || super::local::now() > over).await;
    let expired = two.join(&short).await.unwrap_err();
    assert!(expired.code == Code::Denied && expired.message.contains("expired"), "{expired}");
    assert!(expired.hint.contains("howto-join n2"), "{expired:?}");
    assert_eq!(two.tree(), Vec::<String>::new(), "nothing is left behind");
    for wrong in [0, 31 * 24 * 3600, u64::MAX] {
        let asked = HowtoJoin { node: name("n2"), valid_for: Some(wrong) };
        assert_eq!(one.client().howto_join(asked).await.unwrap_err().code, Code::BadRequest);
    }
    let renewed = one.client().howto_join(HowtoJoin { node: name("n2"), valid_for: None }).await.unwrap();
    assert_eq!(two.join(&ticket).await.unwrap_err().code, Code::Denied, "the former token is void");
    two.join(&renewed).await.unwrap();
    assert_eq!(two.join(&renewed).await.unwrap_err().code, Code::AlreadyInitialized);
    let mut late = TestNode { daemon: None, ..three };
    let used = late.join(&renewed).await.unwrap_err();
    assert_eq!(used.code, Code::Denied, "{used}");
    assert!(used.message.contains("used"), "{used}");
    assert_eq!(late.tree(), Vec::<String>::new());
}

/// The token with one hexadecimal digit changed.
fn altered(token: &str, at: usize) -> String {
    let other = if &token[at..=at] == "0" { "1" } else { "0" };
    format!("{}{other}{}", &token[..at], &token[at + 1..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_volume_is_opened_when_the_last_replica_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3).await;
    nodes[0].client().add_volume(volume("web", 1 << 20, 3)).await.unwrap();
    until_ok(&nodes[0], "web").await;
    nodes[2].stop().await;
    nodes[0].client().add_volume(volume("web", 1 << 20, 3)).await.unwrap();
    eventually("the others have made it", async || pool_has(&nodes[0], "web_01") && pool_has(&nodes[1], "web_01")).await;
    // Something else that has them look at the resource again.
    let quiet = OptionValues { resync_max: Some(1 << 20), ..OptionValues::default() };
    nodes[0].client().set_options(SetOptions { resource: Some(name("web")), set: quiet, unset: Vec::new() }).await.unwrap();
    eventually("that is in force", async || nodes[1].plane().settings("web").is_some_and(|now| now.resync_max == 1 << 20)).await;
    nodes[2].start().await.unwrap();
    for node in &nodes {
        let served = async || node.plane().settings("web").is_some_and(|now| now.volumes.len() == 2);
        eventually("the volume is served everywhere", served).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(dir.path(), 3).await;
    let out = RemoveNode { node: name("n3"), force: true };
    nodes[0].client().remove_node(out).await.unwrap();
    eventually("the others do not answer it any more", async || {
        let seen = nodes[2].client().list_nodes(ListNodes {}).await.unwrap();
        seen.iter().all(|node| node.online == (node.name == name("n3")))
    })
    .await;
    let seen = nodes[1].client().list_nodes(ListNodes {}).await.unwrap();
    assert_eq!(seen.len(), 2);
    nodes[1].client().add_volume(volume("web", 1 << 20, 2)).await.expect("the rest goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_leaves_in_order_and_takes_its_replicas_away() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(dir.path(), 3).await;
    nodes[0].client().add_volume(volume("web", 1 << 20, 3)).await.unwrap();
    until_ok(&nodes[0], "web").await;
    nodes[0].client().remove_node(RemoveNode { node: name("n3"), force: false }).await.unwrap();
    eventually("it is gone", async || nodes[0].client().list_nodes(ListNodes {}).await.is_ok_and(|nodes| nodes.len() == 2)).await;
    assert!(!pool_has(&nodes[2], "web_00"), "its storage was deleted before it left");
    until_ok(&nodes[0], "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_works_without_a_leader_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = cluster(dir.path(), 3).await;
    nodes[0].client().add_volume(volume("web", 1 << 20, 2)).await.unwrap();
    until_ok(&nodes[2], "web").await;
    eventually("all three vote, one of them leading", async || {
        let seen = nodes[2].client().list_nodes(ListNodes {}).await.unwrap();
        let count = |membership| seen.iter().filter(|node| node.membership == membership).count();
        count(Membership::Leader) == 1 && count(Membership::Voter) == 2
    })
    .await;
    nodes[0].stop().await;
    nodes[1].stop().await;
    eventually("it notices", async || {
        let status = nodes[2].client().status(AskStatus::default()).await.unwrap();
        status.leader.is_none() && status.resources.len() == 1 && status.nodes.iter().filter(|node| node.online).count() == 1
    })
    .await;
    let client = nodes[2].client().patience(Duration::from_secs(40));
    let refused = client.add_volume(volume("late", 1 << 20, 1)).await.unwrap_err();
    assert_eq!(refused.code, Code::NoQuorum, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_move_and_options_reach_the_data_plane() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = cluster(dir.path(), 3).await;
    nodes[0].client().add_volume(volume("web", 1 << 20, 2)).await.unwrap();
    until_ok(&nodes[0], "web").await;
    let assigned = nodes[0].client().list_assignments(ListAssignments::default()).await.unwrap();
    let spare = ["n1", "n2", "n3"].into_iter().find(|n| assigned.iter().all(|a| a.node != name(n))).unwrap();
    let client = nodes[1].client();
    client
        .assign_resource(AssignResource { resource: name("web"), node: name(spare), diskless: true, pool: None })
        .await
        .unwrap();
    let spare_node = nodes.iter().find(|node| node.name == spare).unwrap();
    eventually("it is used without a replica", async || {
        spare_node.plane().settings("web").is_some() && spare_node.plane().storage("web").is_none()
    })
    .await;
    client
        .assign_resource(AssignResource { resource: name("web"), node: name(spare), diskless: false, pool: None })
        .await
        .unwrap();
    eventually("now it has one", async || spare_node.plane().storage("web").is_some()).await;
    let set = OptionValues { resync_max: Some(1 << 20), ..OptionValues::default() };
    client.set_options(SetOptions { resource: Some(name("web")), set, unset: Vec::new() }).await.unwrap();
    eventually("the option is there", async || spare_node.plane().settings("web").unwrap().resync_max == 1 << 20).await;
    let gone = assigned[0].node.clone();
    let unassign = UnassignResource { resource: name("web"), node: gone.clone(), force: false };
    client.unassign_resource(unassign).await.unwrap();
    let old = nodes.iter().find(|node| node.name == gone.as_str()).unwrap();
    eventually("its storage is gone", async || !pool_has(old, "web_00") && old.plane().settings("web").is_none()).await;
}
