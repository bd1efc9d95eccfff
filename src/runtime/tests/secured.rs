//! Connections within TLS.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::*;
use crate::units::DiskState;
use crate::wire::VERSIONS;

/// Both ends of a session, their handshake done on the sockets.
fn secure(ours: &mut UnixStream, theirs: &mut UnixStream) -> (ClientConnection, ServerConnection) {
    let certified = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
    let certificate = CertificateDer::from(certified.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("node").unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while client.is_handshaking() {
                client.complete_io(ours).unwrap();
            }
        });
        scope.spawn(|| {
            while server.is_handshaking() {
                server.complete_io(theirs).unwrap();
            }
        });
    });
    (client, server)
}

#[test]
fn a_client_within_tls_is_served_as_any_other() {
    let node = Node::serving(64 << 20);
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let (client, server) = secure(&mut ours, &mut theirs);
    let export = wait(node.plane.attach(RESOURCE, VOLUME, false, Sharing::Shared)).unwrap();
    let tls = Some(Box::new(rustls::Connection::Server(server)));
    let socket = Socket { fd: OwnedFd::from(theirs), tls, early: Vec::new() };
    let mode = Mode { structured: true, ..Mode::default() };
    node.plane.serve(export, ClientSocket { socket, mode: mode.clone(), name: "secured".to_owned(), asks_again: false });
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut talk = rustls::StreamOwned::new(client, ours);
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|at| (at % 241) as u8).collect();
    for (cookie, offset) in [(1, 5_u64), (2, 8 << 20)] {
        let length = u32::try_from(bytes.len()).unwrap();
        talk.write_all(&request(&mode, cookie, &Request::Write { offset, length, fua: false })).unwrap();
        talk.write_all(&bytes).unwrap();
        assert_eq!(simple_reply(&mut talk), (0, cookie));
        let read = Request::Read { offset, length, dont_fragment: true };
        talk.write_all(&request(&mode, cookie + 10, &read)).unwrap();
        let mut head = [0; 28];
        talk.read_exact(&mut head).unwrap();
        assert_eq!(u64::from_be_bytes(head[8..16].try_into().unwrap()), cookie + 10);
        let mut read = vec![0; bytes.len()];
        talk.read_exact(&mut read).unwrap();
        assert!(read == bytes);
    }
    let many = 200_u64;
    for cookie in 0..many {
        let write = Request::Write { offset: cookie * 4096, length: 4096, fua: false };
        talk.write_all(&request(&mode, cookie, &write)).unwrap();
        talk.write_all(&bytes[..4096]).unwrap();
    }
    let mut answered: Vec<u64> = (0..many).map(|_| simple_reply(&mut talk).1).collect();
    answered.sort_unstable();
    assert!(answered.into_iter().eq(0..many));
}

fn simple_reply(talk: &mut impl Read) -> (u32, u64) {
    let mut reply = [0; 16];
    talk.read_exact(&mut reply).unwrap();
    (u32::from_be_bytes(reply[4..8].try_into().unwrap()), u64::from_be_bytes(reply[8..].try_into().unwrap()))
}

#[test]
fn replicas_are_kept_equal_over_tls() {
    let [one, other] = Node::pair(64 << 20);
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let (client, server) = secure(&mut ours, &mut theirs);
    let sessions = [
        (&one, other.id, rustls::Connection::Client(client), OwnedFd::from(ours)),
        (&other, one.id, rustls::Connection::Server(server), OwnedFd::from(theirs)),
    ];
    for (node, peer, session, fd) in sessions {
        let socket = Socket { fd, tls: Some(Box::new(session)), early: Vec::new() };
        node.plane.link(PeerLink { peer, lane: lane_of(RESOURCE), socket, version: VERSIONS.newest, same_host: false });
    }
    until("both are up to date", || {
        [&one, &other].iter().all(|node| {
            let status = node.status();
            status.disk == DiskState::UpToDate && status.in_sync && status.suspended.is_empty()
        })
    });
    let mut client = one.client(Mode::default());
    let bytes: Vec<u8> = (0..7_u32 << 20).map(|at| (at % 239) as u8).collect();
    client.write(1234, &bytes);
    client.write(0, &bytes[..100]);
    client.flush();
    assert!(client.read(1234, 7 << 20) == bytes);
    assert!(std::fs::read(one.data()).unwrap() == std::fs::read(other.data()).unwrap(), "the replicas differ");
}
