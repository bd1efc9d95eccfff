//! Sockets that are made here and used elsewhere: NBD clients and replication links, as the data plane gets them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::testing::{TestNode, cluster, eventually};
use crate::api::state::ResourceState;
use crate::api::{AddVolume, AssignResource, ListResources, OptionValues, Service, SetOptions};
use crate::cluster::Command;
use crate::nbd::client::{Agreed, Handshake, HandshakeError, Step, Wish};
use crate::runtime::{Answer, Lane, PeerLink, PlaneEvent, Socket, Ticket, lane_of};
use crate::units::{NodeId, Record, RecordId, ResourceId};

pub(super) async fn with_volume(dir: &std::path::Path, count: u8, replicas: u32) -> Vec<TestNode> {
    let nodes = cluster(dir, count).await;
    let resource = "web".parse().unwrap();
    let options = OptionValues::default();
    nodes[0]
        .client()
        .add_volume(AddVolume {
            resource,
            volume: None,
            bytes: 1 << 20,
            deploy: Some(replicas),
            options,
            pool: None,
            metadata_pool: None,
        })
        .await
        .unwrap();
    eventually("it is ok", async || {
        let listed = nodes[0].client().list_resources(ListResources { resource: None }).await.unwrap_or_default();
        listed.iter().all(|resource| resource.state == ResourceState::Ok)
    })
    .await;
    nodes
}

pub(super) fn wish(export: &str) -> Wish {
    Wish { export: export.into(), structured: true, ..Wish::default() }
}

/// A client's handshake on a blocking socket.
pub(super) fn negotiate(stream: &mut (impl Read + Write), mut talk: Handshake) -> Result<Agreed, HandshakeError> {
    let mut buffer = [0; 512];
    loop {
        match talk.poll() {
            Step::Send(bytes) => stream.write_all(&bytes).unwrap(),
            Step::Receive => match stream.read(&mut buffer).unwrap() {
                0 => return Err(HandshakeError::Violation("the server closed the connection")),
                count => talk.feed(&buffer[..count]),
            },
            Step::Done(agreed) => return Ok(agreed),
            Step::Failed(error) => return Err(error),
            Step::StartTls => panic!("TLS is for the caller"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nbd_client_is_negotiated_with_and_its_socket_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 1, 1).await;
    let path = nodes[0].root.nbd_socket();
    let (mut client, agreed) = tokio::task::spawn_blocking(move || {
        let mut client = UnixStream::connect(path).unwrap();
        let agreed = negotiate(&mut client, Handshake::new(wish("web"))).unwrap();
        (client, agreed)
    })
    .await
    .unwrap();
    assert_eq!(agreed.size, 1 << 20);
    let plane = nodes[0].plane();
    let mut served = Vec::new();
    eventually("the data plane has it", async || {
        served.extend(plane.take_clients());
        !served.is_empty()
    })
    .await;
    let handed = served.pop().unwrap();
    assert!(handed.mode.structured && handed.name == "unix" && handed.socket.tls.is_none());
    client.write_all(b"a request").unwrap();
    let mut server = UnixStream::from(handed.socket.fd);
    server.set_nonblocking(false).unwrap();
    let mut seen = [0; 9];
    server.read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"a request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_that_is_not_there_is_refused_and_a_node_without_a_replica_can_use_one() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 2, 1).await;
    let diskless = nodes.iter().find(|node| node.plane().settings("web").is_none()).unwrap();
    let path = diskless.root.nbd_socket();
    let wishes = ["nothing", "", "web/1", "web/x", "../web"];
    let refusals = tokio::task::spawn_blocking(move || {
        let ask = |export: &str| negotiate(&mut UnixStream::connect(&path).unwrap(), Handshake::new(wish(export)));
        let refusals: Vec<_> = wishes.iter().map(|export| ask(export).unwrap_err()).collect();
        assert_eq!(ask("web/0").unwrap().size, 1 << 20);
        refusals
    })
    .await
    .unwrap();
    for refusal in refusals {
        assert!(refusal.to_string().contains("there is no volume"), "{refusal}");
    }
    assert!(diskless.plane().settings("web").is_some(), "it was assigned when it was needed");
    assert!(diskless.plane().storage("web").is_none());
    // Its client has gone, and with it the use that was made for it; one that an operator wanted would stay.
    let node = diskless.daemon.as_ref().unwrap().node.clone();
    let mut idle = std::collections::BTreeMap::new();
    super::attachments::visits::look(&node, &mut idle, Duration::ZERO).await;
    assert!(diskless.plane().settings("web").is_some(), "it is used");
    diskless.plane().drop_clients(1).await;
    eventually("it is a user no more", async || {
        super::attachments::visits::look(&node, &mut idle, Duration::ZERO).await;
        diskless.plane().settings("web").is_none()
    })
    .await;
    let assign = AssignResource { resource: "web".parse().unwrap(), node: node.config.name.clone(), diskless: true, pool: None };
    diskless.client().assign_resource(assign).await.unwrap();
    eventually("it is one again", async || diskless.plane().settings("web").is_some()).await;
    super::attachments::visits::look(&node, &mut idle, Duration::ZERO).await;
    assert!(diskless.plane().settings("web").is_some());
}

/// Reads and writes a handed-over socket as the data plane does, TLS included.
enum Used {
    Plain(TcpStream),
    Client(rustls::StreamOwned<rustls::ClientConnection, TcpStream>),
    Server(rustls::StreamOwned<rustls::ServerConnection, TcpStream>),
}

impl Used {
    fn of(socket: Socket) -> Self {
        let stream = TcpStream::from(socket.fd);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        match socket.tls.map(|tls| *tls) {
            None => Self::Plain(stream),
            Some(rustls::Connection::Client(session)) => Self::Client(rustls::StreamOwned::new(session, stream)),
            Some(rustls::Connection::Server(session)) => Self::Server(rustls::StreamOwned::new(session, stream)),
        }
    }

    fn stream(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Plain(stream) => stream,
            Self::Client(stream) => stream,
            Self::Server(stream) => stream,
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Has the first node's data plane miss a link, and answers both ends of what is made.
async fn linked(nodes: &[TestNode], lane: Lane) -> (PeerLink, PeerLink) {
    nodes[1].plane().events.send(PlaneEvent::WantLink { peer: NodeId(0), lane }).unwrap();
    nodes[0].plane().events.send(PlaneEvent::WantLink { peer: NodeId(1), lane }).unwrap();
    both_ends(nodes, lane).await
}

async fn both_ends(nodes: &[TestNode], lane: Lane) -> (PeerLink, PeerLink) {
    let mut ends = [Vec::new(), Vec::new()];
    eventually("both have the link", async || {
        for (end, node) in ends.iter_mut().zip(nodes) {
            end.extend(node.plane().take_links().into_iter().filter(|link| link.lane == lane));
        }
        ends.iter().all(|end| !end.is_empty())
    })
    .await;
    assert!(ends.iter().all(|end| end.len() == 1), "one dials, the other accepts");
    let [mut one, mut two] = ends;
    (one.pop().unwrap(), two.pop().unwrap())
}

/// Both speak at once, as data planes do from the first moment.
fn check_talk(one: PeerLink, two: PeerLink, encrypted: bool) {
    assert_eq!((one.peer, two.peer), (NodeId(1), NodeId(0)));
    assert!(one.same_host && two.same_host, "both are processes of this machine");
    assert_eq!((one.socket.tls.is_some(), two.socket.tls.is_some()), (encrypted, encrypted));
    let (mut one, mut two) = (Used::of(one.socket), Used::of(two.socket));
    let large = vec![5; 40_000];
    one.stream().write_all(&large).unwrap();
    one.stream().flush().unwrap();
    two.stream().write_all(b"and back").unwrap();
    two.stream().flush().unwrap();
    let (mut there, mut back) = (vec![0; large.len()], [0; 8]);
    two.stream().read_exact(&mut there).unwrap();
    one.stream().read_exact(&mut back).unwrap();
    assert_eq!((there, &back), (large, b"and back"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_are_encrypted_unless_all_they_carry_may_be_plain() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 2, 2).await;
    let web = nodes[0].client().list_resources(ListResources { resource: None }).await.unwrap()[0].id;
    let lane = lane_of(web);
    let (one, two) = linked(&nodes, lane).await;
    check_talk(one, two, true);
    let plain = OptionValues { peer_tls: Some(false), ..OptionValues::default() };
    let set = SetOptions { resource: Some("web".parse().unwrap()), set: plain, unset: Vec::new() };
    nodes[0].client().set_options(set).await.unwrap();
    let (one, two) = both_ends(&nodes, lane).await;
    check_talk(one, two, false);
    let (one, two) = linked(&nodes, Lane((lane.0 + 1) % 8)).await;
    check_talk(one, two, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_do_not_get_onto_the_replication_port() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 1, 1).await;
    let port = nodes[0].daemon.as_ref().unwrap().node.config.ports.replication;
    let at = SocketAddr::new(nodes[0].address, port);
    let ended = tokio::task::spawn_blocking(move || {
        let mut plain = TcpStream::connect(at).unwrap();
        plain.write_all(b"BLKR let me in, please: I am surely one of you").unwrap();
        plain.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = Vec::new();
        // An alert, perhaps, and the end; a reset is as good.
        match plain.read_to_end(&mut answer) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    });
    assert!(ended.await.unwrap(), "plain text is answered by an end");
    let authority = super::tls::Authority::create(crate::units::ClusterId(1)).unwrap();
    let pin = super::tls::pinned(super::tls::Fingerprint::of_pem(&authority.certificate).unwrap()).unwrap();
    let refused = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        let name = ServerName::from(at.ip());
        let mut session = rustls::ClientConnection::new(Arc::clone(&pin), name).unwrap();
        session.complete_io(&mut stream).is_err()
    });
    assert!(refused.await.unwrap(), "the server is of another cluster, and the client of none");
    assert!(nodes[0].plane().take_links().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_grants_one_of_two_and_tells_the_other_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 2, 2).await;
    let daemon = nodes[0].daemon.as_ref().unwrap();
    let (web, present) = {
        let model = daemon.node.model();
        let resource = model.resource_named(&"web".parse().unwrap()).unwrap();
        (resource.id, resource.record.clone().unwrap())
    };
    let propose = |at: usize, ticket: u64, record: Record| {
        let (resource, expect) = (web, present.id);
        nodes[at].plane().events.send(PlaneEvent::Propose { resource, ticket: Ticket(ticket), expect, record }).unwrap();
    };
    let (first, second) = (present.next(RecordId(71)), present.next(RecordId(72)));
    propose(0, 1, first.clone());
    assert_eq!(answer(&nodes[0], web, 1).await, Answer::Granted);
    propose(1, 2, second);
    assert_eq!(answer(&nodes[1], web, 2).await, Answer::Is(first.clone()));
    propose(1, 3, first.clone());
    assert_eq!(answer(&nodes[1], web, 3).await, Answer::Granted, "the same once more, for its answer may have been lost");
    nodes[1].plane().events.send(PlaneEvent::ReadRecord { resource: web, ticket: Ticket(4) }).unwrap();
    assert_eq!(answer(&nodes[1], web, 4).await, Answer::Is(first));
    let nobody = ResourceId(999);
    nodes[1].plane().events.send(PlaneEvent::ReadRecord { resource: nobody, ticket: Ticket(5) }).unwrap();
    assert_eq!(answer(&nodes[1], nobody, 5).await, Answer::Gone);
}

async fn answer(node: &TestNode, resource: ResourceId, ticket: u64) -> Answer {
    let mut answers = Vec::new();
    eventually("it is answered", async || {
        answers.extend(node.plane().take_answers());
        !answers.is_empty()
    })
    .await;
    let (whose, which, answer) = answers.pop().unwrap();
    assert_eq!((whose, which), (resource, Ticket(ticket)));
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_plane_hears_of_peers_that_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = with_volume(dir.path(), 3, 2).await;
    let spare = nodes.iter().find(|node| node.plane().settings("web").is_none()).unwrap();
    let holder = nodes.iter().find(|node| node.plane().settings("web").is_some()).unwrap();
    let (resource, node): (crate::units::Name, crate::units::Name) = ("web".parse().unwrap(), spare.name.parse().unwrap());
    let assign = AssignResource { resource: resource.clone(), node: node.clone(), diskless: true, pool: None };
    holder.client().assign_resource(assign).await.unwrap();
    eventually("there are two peers, one of them diskless", async || {
        let peers = holder.plane().settings("web").unwrap().peers;
        peers.len() == 2 && peers.values().filter(|peer| !peer.diskful).count() == 1
    })
    .await;
    let consensus = holder.daemon.as_ref().unwrap().node.consensus.clone();
    let seed = super::local::random_seed();
    consensus.propose(Command::Unassign { resource, node, force: false, seed }, Duration::from_secs(10)).await.unwrap();
    eventually("there is one again", async || holder.plane().settings("web").unwrap().peers.len() == 1).await;
    eventually("and the other has closed it", async || spare.plane().settings("web").is_none()).await;
}
