//! Nothing is taken from under a client: neither under one that the statuses do not show yet, nor under one that comes meanwhile.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::net::TcpListener;

use super::consensus::ProposeError;
use super::daemon_tests::volume;
use super::handover_tests::{negotiate, wish, with_volume};
use super::holds::{self, HoldRequest};
use super::testing::{TestNode, eventually};
use super::unused::{Part, Unused};
use crate::api::{
    AddVolume, ApiError, Code, DeployResource, Relative, RemoveNode, RemoveResource, RemoveVolume, Service, UnassignResource,
    UndeployResource,
};
use crate::attach::place::{Place, State};
use crate::cluster::{Command, Refusal, Resource};
use crate::nbd::client::{Handshake, HandshakeError};
use crate::units::{Name, VolumeId};

fn web() -> Name {
    "web".parse().unwrap()
}

/// A client of `web` on a node; it waits for its attachment.
fn attach(node: &TestNode) -> tokio::task::JoinHandle<Result<UnixStream, HandshakeError>> {
    let path = node.root.nbd_socket();
    tokio::task::spawn_blocking(move || {
        let mut client = UnixStream::connect(path).unwrap();
        negotiate(&mut client, Handshake::new(wish("web"))).map(|_| client)
    })
}

async fn remove(node: &TestNode, force: bool) -> Result<crate::api::Done, ApiError> {
    node.client().remove_resource(RemoveResource { resource: web(), force }).await
}

/// Makes sure that nobody uses `web`, as a removal on this node begins.
async fn verify(node: &TestNode) -> Unused {
    let node = &node.daemon.as_ref().unwrap().node;
    let model = node.consensus.read(Duration::from_secs(5)).await.unwrap();
    Unused::verify(node, &model, model.resource_named(&web()).unwrap(), Part::default()).await.unwrap()
}

async fn settle(node: &TestNode, unused: Unused) -> Result<(), ProposeError> {
    let node = &node.daemon.as_ref().unwrap().node;
    Unused::settle(&[unused], node, Command::RemoveResource { resource: web(), force: true }).await
}

fn resource(node: &TestNode) -> std::sync::Arc<Resource> {
    node.daemon.as_ref().unwrap().node.model().resource_named(&web()).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_no_status_shows_keeps_everything_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 2, 2).await;
    let client = attach(&nodes[1]).await.unwrap().unwrap();
    let shown = nodes[1].plane();
    assert!(crate::runtime::DataPlane::status(&*shown).iter().all(|status| status.clients == 0), "the status is behind");
    let api = nodes[0].client();
    let second = nodes[1].name.parse::<Name>().unwrap();
    let refusals = [
        remove(&nodes[0], false).await.unwrap_err(),
        api.remove_volume(RemoveVolume { resource: web(), volume: VolumeId(0), force: false }).await.unwrap_err(),
        api.undeploy_resource(UndeployResource { resource: web(), force: false }).await.unwrap_err(),
        api.unassign_resource(UnassignResource { resource: web(), node: second.clone(), force: false }).await.unwrap_err(),
        api.remove_node(RemoveNode { node: second, force: false }).await.unwrap_err(),
        nodes[1].client().shutdown(crate::api::Shutdown { force: false }).await.unwrap_err(),
    ];
    let (resource, force) = (web(), false);
    let other = AddVolume { volume: Some(VolumeId(1)), ..volume("web", 8 << 20, 2) };
    api.add_volume(other).await.unwrap();
    api.remove_volume(RemoveVolume { resource, volume: VolumeId(1), force }).await.expect("nobody uses that one");
    for refusal in refusals {
        assert_eq!(refusal.code, Code::InUse, "{refusal:?}");
        assert!(refusal.message.contains("client"), "{refusal:?}");
    }
    let fewer = DeployResource { resource: web(), count: 1, relative: Some(Relative::Fewer), with_clients: false, pool: None };
    assert_eq!(api.deploy_resource(fewer).await.unwrap().nodes, [nodes[1].name.parse().unwrap()], "the one with the client");
    let other = attach(&nodes[1]).await.unwrap().unwrap();
    shown.drop_clients(2).await;
    drop((client, other));
    remove(&nodes[0], false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_while_a_removal_is_decided_waits_for_the_decision() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 2, 2).await;
    let unused = verify(&nodes[0]).await;
    let client = attach(&nodes[1]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!client.is_finished(), "it waits");
    Unused::release_all(&[unused], &nodes[0].daemon.as_ref().unwrap().node).await;
    client.await.unwrap().unwrap();
    nodes[1].plane().drop_clients(1).await;

    let unused = verify(&nodes[0]).await;
    let client = attach(&nodes[1]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    settle(&nodes[0], unused).await.unwrap();
    let refusal = client.await.unwrap().unwrap_err();
    assert!(refusal.to_string().contains("there is no volume"), "{refusal}");
    assert!(nodes[1].plane().take_clients().len() == 1, "only the first was ever served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_nobody_ends_is_made_void_before_a_client_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 2, 2).await;
    let unused = verify(&nodes[0]).await;
    // Another one, of a node that died: the same round, and nobody will release it.
    let request = HoldRequest::Hold {
        resource: resource(&nodes[1]).id,
        round: resource(&nodes[1]).round,
        decision: 1,
        patience: Duration::ZERO,
        volume: None,
    };
    assert_eq!(holds::answer(&nodes[1].daemon.as_ref().unwrap().node, request).await, Ok(0));
    attach(&nodes[1]).await.unwrap().unwrap();
    let late = settle(&nodes[0], unused).await.unwrap_err();
    assert!(matches!(late, ProposeError::Refused(Refusal::Overtaken(_))), "{late}");
    assert_eq!(remove(&nodes[0], false).await.unwrap_err().code, Code::InUse);
}

/// An attachment has no connection while its daemon has just started: what is mounted must not go for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_that_is_attached_is_in_use_though_nobody_is_connected() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 2, 2).await;
    let node = nodes[1].daemon.as_ref().unwrap().node.clone();
    let place = Place::of(&node.root, &"web".parse().unwrap(), VolumeId(0));
    place.make().unwrap();
    place.store(&State::sample("web", resource(&nodes[1]).id, VolumeId(0))).unwrap();
    let helper = place.lock().unwrap().expect("nobody else has it");
    assert_eq!(remove(&nodes[0], false).await.unwrap_err().code, Code::InUse);
    drop(helper);
    remove(&nodes[0], false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_to_a_resource_makes_its_removal_void() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 2, 1).await;
    let (owner, other) = if nodes[0].plane().storage("web").is_some() { (0, 1) } else { (1, 0) };
    let unused = verify(&nodes[owner]).await;
    // Its door was not asked to hold: it had nothing to do with the resource.
    attach(&nodes[other]).await.unwrap().unwrap();
    let late = settle(&nodes[owner], unused).await.unwrap_err();
    assert!(matches!(late, ProposeError::Refused(Refusal::Overtaken(_))), "{late}");
    assert_eq!(remove(&nodes[owner], false).await.unwrap_err().code, Code::InUse);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_there_and_silent_keeps_a_resource_and_one_that_is_gone_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = with_volume(dir.path(), 2, 2).await;
    nodes[1].stop().await;
    let control = std::net::SocketAddr::new(nodes[1].address, nodes[1].port);
    let silent = TcpListener::bind(control).await.unwrap();
    let refusal = remove(&nodes[0], false).await.unwrap_err();
    assert_eq!(refusal.code, Code::Unreachable);
    assert!(refusal.message.contains(&nodes[1].name) && refusal.hint.contains("--force"), "{refusal:?}");
    drop(silent);
    let done = remove(&nodes[0], false).await.unwrap();
    assert!(done.notes.iter().any(|note| note.contains(&nodes[1].name)), "{done:?}");
    eventually("it is gone here", async || nodes[0].plane().settings("web").is_none()).await;
}
