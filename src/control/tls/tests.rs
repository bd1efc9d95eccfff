//! Who gets through a handshake, and past the gate.

use std::net::IpAddr;

use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::cluster::{Command, NodeKind, Ports};
use crate::units::Name;

const CLUSTER: ClusterId = ClusterId(0xc1);

/// A cluster's authority and a node's side of TLS.
fn node(authority: &Authority, cluster: ClusterId, id: u32) -> (Tls, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let (name, address): (Name, IpAddr) = ("n".parse().unwrap(), "127.0.0.1".parse().unwrap());
    let issued = authority.issue(cluster, NodeId(id), &name, address, &key.public_key_pem(), 7).unwrap();
    let (ca, ca_key) = (authority.certificate.clone(), authority.key_pem());
    let credentials = Credentials { ca, ca_key, certificate: issued.pem, key: key.serialize_pem() };
    (Tls::new(cluster, &credentials).unwrap(), issued.certificate.fingerprint)
}

type Client = std::io::Result<client::TlsStream<DuplexStream>>;
type Server = std::io::Result<server::TlsStream<DuplexStream>>;

/// A handshake, and a byte each way: with TLS 1.3 a client hears only then that its certificate was refused.
async fn meet(
    client: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
    server: Arc<rustls::ServerConfig>,
) -> (Client, Server) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let dial = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_exact(&mut [0]).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    tokio::join!(dial, accept)
}

#[tokio::test]
async fn nodes_of_a_cluster_prove_themselves_to_each_other() {
    let authority = Authority::create(CLUSTER).unwrap();
    let ((one, one_print), (two, two_print)) = (node(&authority, CLUSTER, 1), node(&authority, CLUSTER, 2));
    for purpose in [Purpose::Control, Purpose::Replication] {
        let (client, server) = (one.client(purpose).unwrap(), two.server(&[purpose]).unwrap());
        let (client, server) = meet(client, one.server_name(NodeId(2)), server).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(one.peer(client.get_ref().1.peer_certificates()).unwrap(), (NodeId(2), two_print.clone()));
        assert_eq!(two.peer(server.get_ref().1.peer_certificates()).unwrap(), (NodeId(1), one_print.clone()));
        assert_eq!(server.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(server.get_ref().1.alpn_protocol().and_then(Purpose::of_alpn), Some(purpose));
    }
}

#[tokio::test]
async fn another_node_than_the_one_that_was_dialled_is_refused() {
    let authority = Authority::create(CLUSTER).unwrap();
    let ((one, _), (two, _)) = (node(&authority, CLUSTER, 1), node(&authority, CLUSTER, 2));
    let (client, server) = (one.client(Purpose::Control).unwrap(), two.server(&[Purpose::Control]).unwrap());
    let (client, _) = meet(client, one.server_name(NodeId(3)), server).await;
    assert!(client.unwrap_err().to_string().contains("not valid for name"));
}

#[tokio::test]
async fn another_clusters_nodes_are_refused_by_both_sides() {
    let (ours, theirs) = (Authority::create(CLUSTER).unwrap(), Authority::create(CLUSTER).unwrap());
    let ((one, _), (stranger, _)) = (node(&ours, CLUSTER, 1), node(&theirs, CLUSTER, 2));
    let (client, server) = (one.client(Purpose::Control).unwrap(), stranger.server(&[Purpose::Control]).unwrap());
    let (client, _) = meet(client, one.server_name(NodeId(2)), server).await;
    assert!(client.is_err(), "the stranger as a server");
    let (client, server) = (stranger.client(Purpose::Replication).unwrap(), one.server(&[Purpose::Replication]).unwrap());
    let (_, server) = meet(client, stranger.server_name(NodeId(1)), server).await;
    assert!(server.is_err(), "the stranger as a client");
}

#[tokio::test]
async fn without_a_certificate_there_is_joining_and_nothing_else() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (one, _) = node(&authority, CLUSTER, 1);
    let fingerprint = Fingerprint::of_pem(&authority.certificate).unwrap();
    let name = || ServerName::try_from("127.0.0.1").unwrap();
    let server = one.server(&[Purpose::Control, Purpose::Join]).unwrap();
    let (client, server) = meet(pinned(fingerprint).unwrap(), name(), server).await;
    client.unwrap();
    assert_eq!(server.unwrap().get_ref().1.alpn_protocol().and_then(Purpose::of_alpn), Some(Purpose::Join));
    let (client, server) = meet(pinned(fingerprint).unwrap(), name(), one.server(&[Purpose::Replication]).unwrap()).await;
    assert!(client.is_err() && server.is_err(), "replication is not for strangers");
}

#[tokio::test]
async fn a_token_of_another_cluster_does_not_open_this_one() {
    let (ours, theirs) = (Authority::create(CLUSTER).unwrap(), Authority::create(CLUSTER).unwrap());
    let (one, _) = node(&ours, CLUSTER, 1);
    let wrong = pinned(Fingerprint::of_pem(&theirs.certificate).unwrap()).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let (client, _) = meet(wrong, name, one.server(&[Purpose::Join]).unwrap()).await;
    assert!(client.unwrap_err().to_string().contains("UnknownIssuer"));
}

#[test]
fn the_model_decides_who_still_is_a_node() {
    let authority = Authority::create(CLUSTER).unwrap();
    let ((tls, fingerprint), (_, other)) = (node(&authority, CLUSTER, 0), node(&authority, CLUSTER, 0));
    let empty = Cluster::default();
    let told = [(NodeId(0), fingerprint.clone())];
    assert!(tls.verdict(&empty, &told, NodeId(0), &fingerprint).is_ok(), "before there is a model, who was told of");
    assert!(tls.verdict(&empty, &told, NodeId(0), &other).is_err());
    assert!(tls.verdict(&empty, &[], NodeId(0), &fingerprint).is_err());
    let mut model = Cluster::default();
    let (name, address) = ("n0".parse().unwrap(), "127.0.0.1".parse().unwrap());
    let certificate = crate::cluster::Certificate { serial: "7".into(), fingerprint: fingerprint.clone() };
    let (ports, kind) = (Ports::default(), NodeKind::Storage);
    model.apply(Command::Init { cluster: CLUSTER, name, address, ports, kind, certificate }).unwrap();
    assert!(tls.verdict(&model, &[], NodeId(0), &fingerprint).is_ok());
    assert!(matches!(tls.verdict(&model, &told, NodeId(0), &other), Err(TlsError::Removed(_))), "a former certificate");
    assert!(matches!(tls.verdict(&model, &told, NodeId(1), &fingerprint), Err(TlsError::Removed(_))), "not in the model");
}

#[test]
fn a_certificate_of_another_cluster_is_told_by_its_name() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (tls, _) = node(&authority, CLUSTER, 0);
    let other = authority.issue(
        ClusterId(0xc2),
        NodeId(0),
        &"n".parse().unwrap(),
        "127.0.0.1".parse().unwrap(),
        &rcgen::KeyPair::generate().unwrap().public_key_pem(),
        1,
    );
    let der = CertificateDer::from_pem_slice(other.unwrap().pem.as_bytes()).unwrap();
    assert!(matches!(tls.peer(Some(&[der])), Err(TlsError::Stranger(_))));
    assert!(matches!(tls.peer(None), Err(TlsError::Stranger(_))));
}

#[test]
fn keys_are_readable_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("tls");
    let text = |text: &str| text.to_owned();
    let credentials = Credentials { ca: text("a"), ca_key: text("b"), certificate: text("c"), key: text("d") };
    credentials.store(&keys).unwrap();
    assert_eq!(Credentials::load(&keys).unwrap(), credentials);
    for file in std::fs::read_dir(&keys).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o700);
}
