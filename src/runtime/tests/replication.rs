//! Two nodes keep one volume.

use std::net::{TcpListener, TcpStream};

use super::*;
use crate::engine::{Connection, VerifyState};
use crate::units::{DiskState, Role};
use crate::wire::VERSIONS;

const BYTES: u64 = 64 << 20;

/// Hands both ends of a plain connection to two nodes.
fn connect(one: &Node, other: &Node) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    for (node, peer, socket) in [(one, other, ours), (other, one, theirs)] {
        socket.set_nodelay(true).unwrap();
        node.plane.link(plain_link(peer.id, OwnedFd::from(socket)));
    }
}

fn plain_link(peer: NodeId, fd: OwnedFd) -> PeerLink {
    let socket = Socket { fd, tls: None, early: Vec::new() };
    PeerLink { peer, lane: lane_of(RESOURCE), socket, version: VERSIONS.newest, same_host: false }
}

fn is_settled(node: &Node) -> bool {
    let status = node.status();
    let peers = status.peers.iter().all(|peer| {
        peer.connection == Connection::Connected
            && peer.dirty == 0
            && peer.resync.is_none()
            && peer.disk == Some(DiskState::UpToDate)
    });
    status.disk == DiskState::UpToDate && status.in_sync && status.suspended.is_empty() && peers
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(seed * 2 + 1) >> 3) as u8 ^ seed as u8).collect()
}

fn connected_pair() -> [Node; 2] {
    let [one, other] = Node::pair(BYTES);
    connect(&one, &other);
    until("both are connected", || [&one, &other].iter().all(|node| is_settled(node)));
    [one, other]
}

fn contents(node: &Node) -> Vec<u8> {
    std::fs::read(node.data()).unwrap()
}

#[test]
fn what_is_written_on_one_node_is_on_both() {
    let [one, other] = connected_pair();
    let mut client = one.client(Mode::default());
    for (at, length) in [(0_u64, 4096), (5000, 100), (1 << 20, 3 << 20), (40 << 20, 65_536), (12_345, 700_001)] {
        client.write(at, &pattern(at, length));
    }
    let zeroes = Request::WriteZeroes { offset: 2 << 20, length: 99_999, fua: true, no_hole: false, fast: false };
    assert_eq!(client.ask(&zeroes, &[], 0), Ok(Vec::new()));
    client.flush();
    assert!(client.read(12_345, 700_001) == pattern(12_345, 700_001));
    assert!(contents(&one) == contents(&other), "the replicas differ");
    assert_eq!(&contents(&other)[40 << 20..][..65_536], pattern(40 << 20, 65_536));
    until("one is primary", || one.status().role == Role::Primary && other.status().primary == Some(one.id));
}

/// Tells a node that its peer is to be apart from it, or not any more.
fn part(node: &Node, peer: &Node, apart: bool) {
    let mut settings = node.spec_with_peers(RESOURCE, BYTES, &[peer.id]).settings;
    settings.peers.get_mut(&peer.id).unwrap().apart = apart;
    wait(node.plane.configure(RESOURCE, settings, None)).unwrap();
}

/// Whichever hears of it first: the other one learns of it from what it is answered.
#[test]
fn nodes_that_are_parted_have_no_session_until_both_are_to_have_one() {
    for first in [0, 1] {
        let nodes = connected_pair();
        let [one, other] = &nodes;
        let (early, late) = (&nodes[first], &nodes[1 - first]);
        let mut client = one.client(Mode::default());
        client.write(0, &pattern(1, 4096));
        part(early, late, true);
        let alone = |node: &Node| node.status().peers[0].connection == Connection::Connecting;
        until("neither has a session", || alone(one) && alone(other));
        client.write(0, &pattern(2, 4096));
        client.flush();
        part(late, early, true);
        assert!(contents(one) != contents(other), "it was written on one side only");
        // It asks, and is answered that nobody listens.
        part(late, early, false);
        client.write(8192, &pattern(3, 4096));
        assert!(alone(one) && alone(other));
        part(early, late, false);
        until("both are connected", || is_settled(one) && is_settled(other));
        client.flush();
        assert!(contents(one) == contents(other), "the replicas differ");
        let connected =
            |node: &Node| node.events.lock().unwrap().iter().filter(|e| matches!(e, PlaneEvent::WantLink { .. })).count();
        assert_eq!((connected(one), connected(other)), (1, 1), "the nodes' connection has outlived it");
    }
}

#[test]
fn a_queue_of_small_writes_reaches_both() {
    let [one, other] = connected_pair();
    let mut client = one.client(Mode::default());
    let blocks = 2000_u64;
    let mut answered = 0;
    for at in 0..blocks {
        let write = Request::Write { offset: at * 4096, length: 4096, fua: false };
        client.send(&write, &pattern(at, 4096));
        if at >= 32 {
            assert_eq!(client.receive(0).1, Ok(Vec::new()));
            answered += 1;
        }
    }
    while answered < blocks {
        assert_eq!(client.receive(0).1, Ok(Vec::new()));
        answered += 1;
    }
    client.flush();
    let copy = contents(&other);
    assert!((0..blocks).all(|at| copy[at as usize * 4096..][..4096] == pattern(at, 4096)));
    assert!(contents(&one) == copy);
}

#[test]
fn a_peer_that_is_gone_is_left_behind_and_caught_up() {
    let [one, other] = connected_pair();
    let mut client = one.client(Mode::default());
    client.write(0, &pattern(1, 1 << 20));
    // The connection ends, and nobody makes another one.
    let (ours, theirs) = UnixStream::pair().unwrap();
    one.plane.link(plain_link(other.id, OwnedFd::from(ours)));
    drop(theirs);
    client.write(4 << 20, &pattern(2, 1 << 20));
    client.flush();
    until("it is noted what the peer lacks", || one.status().peers[0].dirty >= 1 << 20);
    assert!(one.was_told(|event| matches!(event, PlaneEvent::WantLink { peer, .. } if *peer == other.id)));
    connect(&one, &other);
    until("the peer has caught up", || is_settled(&one) && is_settled(&other));
    client.flush();
    assert!(contents(&one) == contents(&other), "the replicas differ");
}

#[test]
fn a_peer_that_says_nothing_is_left_behind_after_its_time() {
    let [one, other] = connected_pair();
    let mut client = one.client(Mode::default());
    client.write(0, &pattern(1, 4096));
    let (ours, silent) = UnixStream::pair().unwrap();
    one.plane.link(plain_link(other.id, OwnedFd::from(ours)));
    let begun = Instant::now();
    client.write(4096, &pattern(2, 4096));
    let waited = begun.elapsed();
    assert!(waited < Duration::from_secs(4), "the write took {waited:?}");
    drop(silent);
}

#[test]
fn the_survivor_serves_what_was_written() {
    let [one, other] = connected_pair();
    let mut client = one.client(Mode::default());
    let bytes = pattern(3, 5 << 20);
    client.write(777, &bytes);
    // As a crash: nothing is closed.
    drop(one);
    let mut client = other.client(Mode::default());
    assert!(client.read(777, 5 << 20) == bytes);
    client.write(0, &pattern(4, 4096));
    client.flush();
    until("it is primary", || other.status().role == Role::Primary);
}

#[test]
fn a_resource_that_is_not_open_at_the_peer_waits_for_it() {
    let [one, other] = connected_pair();
    wait(other.plane.close(RESOURCE, false)).unwrap();
    let mut client = one.client(Mode::default());
    client.write(0, &pattern(6, 1 << 20));
    let spec = other.spec_with_peers(RESOURCE, BYTES, &[one.id]);
    wait(other.plane.open(spec)).unwrap();
    until("the peer has caught up", || is_settled(&one) && is_settled(&other));
    client.flush();
    assert!(contents(&one) == contents(&other), "the replicas differ");
}

#[test]
fn the_role_goes_where_the_resource_is_used() {
    let [one, other] = connected_pair();
    let bytes = pattern(8, 3 << 20);
    let mut client = one.client(Mode::default());
    client.write(1 << 20, &bytes);
    assert_eq!(wait(other.plane.attach(RESOURCE, VOLUME, false, Sharing::Alone)).err(), Some(PlaneError::Busy(one.id)));
    drop(client);
    until("it can be used on the other node", || match wait(other.plane.attach(RESOURCE, VOLUME, false, Sharing::Alone)) {
        Ok(_) => true,
        Err(error) => panic_unless_busy(&error, one.id),
    });
    let mut client = other.client(Mode::default());
    assert!(client.read(1 << 20, 3 << 20) == bytes);
    client.write(9, b"other");
    client.flush();
    assert!(contents(&one) == contents(&other), "the replicas differ");
}

#[test]
fn clients_of_both_nodes_write_to_one_volume() {
    let [one, other] = connected_pair();
    let (mut first, mut second) = (one.client(Mode::default()), other.client(Mode::default()));
    let (large, small) = (pattern(11, 3 << 20), pattern(12, 700));
    first.write(1 << 20, &large);
    assert!(second.read(1 << 20, 3 << 20) == large);
    second.write((2 << 20) + 300, &small);
    second.flush();
    assert!(first.read((2 << 20) + 300, 700) == small);
    assert!(contents(&one) == contents(&other), "the replicas differ");
    let begun = Instant::now();
    assert_eq!(
        wait(one.plane.attach(RESOURCE, VOLUME, false, Sharing::Alone)).err(),
        Some(PlaneError::Busy(one.id)),
        "it is not alone"
    );
    assert!(begun.elapsed() < Duration::from_secs(8));
    // The role follows the only client, which sees nothing of it.
    drop(first);
    let mut written = 0;
    until("the role has moved", || {
        written += 1;
        second.write(written * 4096, &pattern(13, 4096));
        other.status().role == Role::Primary
    });
    assert!(second.read(written * 4096, 4096) == pattern(13, 4096));
}

fn panic_unless_busy(error: &PlaneError, node: NodeId) -> bool {
    assert_eq!(*error, PlaneError::Busy(node));
    false
}

#[test]
fn what_a_disk_changes_by_itself_is_found_by_a_verify_and_repaired() {
    let [one, other] = connected_pair();
    let mut client = one.client(Mode::default());
    client.write(1 << 20, &pattern(7, 1 << 20));
    client.flush();
    let file = OpenOptions::new().write(true).open(other.data()).unwrap();
    for at in [(1 << 20) + 8192, 3 << 20] {
        file.write_all_at(b"changed behind everybody's back", at).unwrap();
    }
    file.sync_all().unwrap();
    let found = || one.status().peers[0].verify.filter(|found| found.state == VerifyState::Done);
    wait(one.plane.operate(RESOURCE, Operation::Verify { repair: false })).unwrap();
    until("all is compared", || found().is_some());
    let told = found().unwrap();
    assert_eq!((told.done, told.different, told.first), (BYTES, 2, Some((VOLUME, (1 << 20) + 8192))), "{told:?}");
    assert!(contents(&one) != contents(&other), "nobody has asked for a repair");
    let elsewhere = wait(other.plane.operate(RESOURCE, Operation::Verify { repair: true }));
    assert_eq!(elsewhere, Err(PlaneError::Busy(one.id)));
    wait(one.plane.operate(RESOURCE, Operation::Verify { repair: true })).unwrap();
    until("all is compared again", || found().is_some_and(|found| found.repair));
    until("it is repaired", || is_settled(&one) && contents(&one) == contents(&other));
    assert!(client.read(1 << 20, 1 << 20) == pattern(7, 1 << 20));
}
