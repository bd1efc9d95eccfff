//! Replication links: connections between nodes, proved and handed to the data plane.
//!
//! Of two nodes the one with the smaller id dials. After the TLS handshake both say hello; each then knows whether both are willing to go
//! on in plain text (`peer-tls=off` on everything that the lane carries). If so, the dialler says one byte in plain text, the other one
//! answers with one, and the TLS session is dropped: each side had received the other's last TLS record before it read the first
//! plain byte, so none of them can have been swallowed.

mod hello;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::hello::GreetError;
use super::net::{Strangers, dial};
use super::node::Node;
use super::tls::{Purpose, TlsError};
use crate::cluster::Cluster;
use crate::runtime::{LANES, Lane, PeerLink, Socket, lane_of};
use crate::units::NodeId;
use crate::wire::Features;

/// A link that is being dialled.
struct Dialling {
    task: AbortHandle,
    /// It was handed to the data plane; the task ends any moment.
    handed: Arc<AtomicBool>,
    /// The data plane missed it again after it was handed over.
    again: bool,
}

/// Dials the links that the data plane misses.
pub struct Dialler {
    node: Arc<Node>,
    config: Arc<rustls::ClientConfig>,
    dialling: BTreeMap<(NodeId, Lane), Dialling>,
    /// Links that were handed over in plain text.
    plain: BTreeMap<(NodeId, Lane), bool>,
    tasks: JoinSet<((NodeId, Lane), bool)>,
}

impl Dialler {
    /// A dialler with nothing to dial yet.
    pub fn new(node: Arc<Node>) -> Result<Self, TlsError> {
        let config = node.gate.tls.client(Purpose::Replication)?;
        Ok(Self { node, config, dialling: BTreeMap::new(), plain: BTreeMap::new(), tasks: JoinSet::new() })
    }

    /// The data plane misses a link: dials it, if that is for this node to do, until it is there.
    pub fn want(&mut self, peer: NodeId, lane: Lane) {
        let key = (peer, lane);
        if peer <= self.node.me {
            return;
        }
        if let Some(dialling) = self.dialling.get_mut(&key) {
            dialling.again = dialling.handed.load(Ordering::Acquire);
            return;
        }
        let (node, config, handed) = (self.node.clone(), self.config.clone(), Arc::new(AtomicBool::new(false)));
        let seen = handed.clone();
        let task = self.tasks.spawn(async move { (key, dial_until_linked(&node, &config, peer, lane, &seen).await) });
        self.dialling.insert(key, Dialling { task, handed, again: false });
    }

    /// Waits until a dialling has ended, and dials anew what was missed again meanwhile. To be called again and again; may be
    /// dropped at any time.
    pub async fn turn(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok(((peer, lane), plain))) => {
                self.plain.insert((peer, lane), plain);
                if self.dialling.remove(&(peer, lane)).is_some_and(|ended| ended.again) {
                    self.want(peer, lane);
                }
            }
            Some(Err(error)) => {
                tracing::error!(%error, "dialling a link failed");
                self.dialling.retain(|_, dialling| !dialling.task.is_finished());
            }
            None => std::future::pending().await,
        }
    }

    /// The model has changed: links that are plain and should not be any more, or the other way round, are made anew.
    pub fn reconsider(&mut self) {
        let model = self.node.model();
        let changed: Vec<(NodeId, Lane)> = self
            .plain
            .iter()
            .filter(|((peer, lane), plain)| {
                model.nodes.contains_key(peer) && willing(&model, self.node.me, *peer, *lane) != **plain
            })
            .map(|(key, _)| *key)
            .collect();
        for (peer, lane) in changed {
            self.plain.remove(&(peer, lane));
            self.want(peer, lane);
        }
    }
}

/// Takes links from nodes with smaller ids, until it is dropped.
pub async fn serve(listener: TcpListener, node: Arc<Node>) -> Result<(), TlsError> {
    let acceptor = TlsAcceptor::from(node.gate.tls.server(&[Purpose::Replication])?);
    let strangers = Strangers::new(HANDSHAKES);
    let mut guests = JoinSet::new();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the replication port");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while guests.try_join_next().is_some() {}
        let (acceptor, node) = (acceptor.clone(), node.clone());
        let stranger = strangers.admit(from.ip());
        guests.spawn(async move {
            let accepted = tokio::select! {
                accepted = timeout(HANDSHAKE, accept(&node, acceptor, stream)) => accepted,
                () = stranger.sent_away() => return,
            };
            drop(stranger);
            match accepted {
                Ok(Ok(link)) => {
                    tracing::info!(peer = %link.peer, lane = link.lane.0, plain = link.socket.tls.is_none(), "a replication link is up");
                    node.plane.link(link);
                }
                Ok(Err(error)) if error.needs_an_operator() => {
                    tracing::warn!(%from, %error, "a node is refused on the replication port");
                }
                Ok(Err(error)) => tracing::debug!(%from, %error, "a connection on the replication port was refused"),
                Err(_) => tracing::debug!(%from, "a handshake on the replication port took too long"),
            }
        });
    }
}

/// Dials, at once and then with back-off, until a link was handed over or the peer is no node any more. Answers whether it is plain.
async fn dial_until_linked(
    node: &Node,
    config: &Arc<rustls::ClientConfig>,
    peer: NodeId,
    lane: Lane,
    handed: &AtomicBool,
) -> bool {
    let (mut pause, mut told) = (FIRST_PAUSE, None);
    loop {
        let model = node.model();
        let Some(address) = model.nodes.get(&peer).map(crate::cluster::Node::replication) else { return false };
        let plain = willing(&model, node.me, peer, lane);
        match timeout(HANDSHAKE, connect(node, config.clone(), peer, address, lane, plain)).await {
            Ok(Ok(link)) => {
                let plain = link.socket.tls.is_none();
                tracing::info!(%peer, lane = lane.0, plain, "a replication link is up");
                // From here on the data plane may miss it again.
                handed.store(true, Ordering::Release);
                node.plane.link(link);
                return plain;
            }
            // Once, and not again every second.
            Ok(Err(error)) if error.needs_an_operator() && told.as_ref() != Some(&error.to_string()) => {
                tracing::warn!(%peer, %address, %error, "no link can be made");
                told = Some(error.to_string());
            }
            Ok(Err(error)) => tracing::debug!(%peer, %address, %error, "a link could not be made"),
            Err(_) => tracing::debug!(%peer, %address, "a link took too long to be made"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn connect(
    node: &Node,
    config: Arc<rustls::ClientConfig>,
    peer: NodeId,
    address: SocketAddr,
    lane: Lane,
    plain: bool,
) -> Result<PeerLink, GreetError> {
    let mut stream = dial(node.config.address, address, config, node.gate.tls.server_name(peer)).await?;
    let (_, session) = stream.get_ref();
    node.gate.admit(session.peer_certificates()).map_err(io::Error::other)?;
    let mine = hello::ours(node.cluster, node.me, lane, plain);
    hello::say(&mut stream, &mine).await?;
    let theirs = hello::hear(&mut stream).await?;
    let agreed = hello::agree(&mine, &theirs, peer)?;
    let plain = agreed.features.has(Features::PLAIN);
    let (mut socket, session) = stream.into_inner();
    if plain {
        socket.write_all(&[PLAIN]).await?;
        expect_plain(&mut socket).await?;
    }
    let tls = (!plain).then(|| Box::new(rustls::Connection::Client(session)));
    let same_host = theirs.boot == mine.boot;
    Ok(PeerLink { peer, lane, socket: handed(socket, tls)?, version: agreed.version, same_host })
}

async fn accept(node: &Node, acceptor: TlsAcceptor, stream: TcpStream) -> Result<PeerLink, GreetError> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let (_, session) = stream.get_ref();
    let visitor = node.gate.admit(session.peer_certificates()).map_err(io::Error::other)?;
    let theirs = hello::hear(&mut stream).await?;
    let (peer, lane) = (visitor.node, Lane(theirs.lane));
    if lane.0 >= LANES {
        return Err(GreetError::NoSuchLane(lane.0));
    }
    let plain = agreed_to(node, peer, lane, theirs.features.has(Features::PLAIN)).await;
    let mine = hello::ours(node.cluster, node.me, lane, plain);
    // Said also to one that will be refused: it shall know why.
    hello::say(&mut stream, &mine).await?;
    let agreed = hello::agree(&mine, &theirs, peer)?;
    let plain = agreed.features.has(Features::PLAIN);
    let (mut socket, session) = stream.into_inner();
    if plain {
        expect_plain(&mut socket).await?;
        socket.write_all(&[PLAIN]).await?;
    }
    let tls = (!plain).then(|| Box::new(rustls::Connection::Server(session)));
    let same_host = theirs.boot == mine.boot;
    Ok(PeerLink { peer, lane, socket: handed(socket, tls)?, version: agreed.version, same_host })
}

/// Whether this node is willing, too. It may not have heard yet of the change of options that makes the peer so.
async fn agreed_to(node: &Node, peer: NodeId, lane: Lane, plain: bool) -> bool {
    let mut model = node.consensus.watch();
    let agrees = model.wait_for(|model| willing(model, node.me, peer, lane));
    // One that is not willing decides for both.
    plain && timeout(CATCH_UP, agrees).await.is_ok_and(|agreed| agreed.is_ok())
}

/// Whether a lane to a peer may be plain: it carries something, and nothing of it wants TLS.
fn willing(model: &Cluster, me: NodeId, peer: NodeId, lane: Lane) -> bool {
    let carried = model.resources.values().filter(|resource| {
        lane_of(resource.id) == lane && resource.assignments.contains_key(&me) && resource.assignments.contains_key(&peer)
    });
    let mut any = false;
    for resource in carried {
        if model.options(resource).peer_tls {
            return false;
        }
        any = true;
    }
    any
}

fn handed(socket: TcpStream, tls: Option<Box<rustls::Connection>>) -> io::Result<Socket> {
    Ok(Socket { fd: OwnedFd::from(socket.into_std()?), tls, early: Vec::new() })
}

async fn expect_plain(socket: &mut TcpStream) -> io::Result<()> {
    match socket.read_u8().await? {
        PLAIN => Ok(()),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:#x} instead of plain text"))),
    }
}

const PLAIN: u8 = 0x50;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);
const HANDSHAKE: Duration = Duration::from_secs(5);
const CATCH_UP: Duration = Duration::from_secs(1);
const HANDSHAKES: usize = 256;
