//! A running node: everything put together, started in order, and ended in order.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::attachments::Book;
use super::config::{Config, Membership, consensus_file, tls_directory, unusable};
use super::consensus::{Consensus, Setup};
use super::holds::{self, Holds};
use super::join::Doorkeeper;
use super::links::{self, Dialler};
use super::net::{self, Answering, Answers, Gate, Peers};
use super::node::{Board, Node};
use super::replica::ReplicaMaker;
use super::service::Operations;
use super::setup::no_member;
use super::snapshots::part::{self, Taking};
use super::status::{Question, Report};
use super::tls::{Credentials, Tls};
use super::{attachments, authority, docker, local, nbd, operate, reconciler, snapshots, verifies};
use crate::api::setup::{Listener, Root};
use crate::api::{ApiError, Code, routes, serve_connection};
use crate::cluster::Cluster;
use crate::runtime::{DataPlane, PlaneEvent};
use crate::units::{ClusterId, NodeId};

/// What a data plane is made for.
pub struct PlaneSetup {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub me: NodeId,
    /// Where its events go; from any thread.
    pub events: mpsc::UnboundedSender<PlaneEvent>,
}

/// A data plane and what makes replicas for it.
pub struct Plane {
    /// The data plane.
    pub plane: Arc<dyn DataPlane>,
    /// Makes metadata.
    pub maker: Arc<dyn ReplicaMaker>,
}

/// Makes the data plane of a daemon.
pub type PlaneFactory = Arc<dyn Fn(PlaneSetup) -> Result<Plane, ApiError> + Send + Sync>;

/// Runs the node below `root` until it is told to end, by SIGTERM, SIGINT or the API.
pub async fn run(root: Root, factory: PlaneFactory) -> Result<(), ApiError> {
    let daemon = Daemon::start(root, &factory).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| ApiError::new(Code::Io, error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| ApiError::new(Code::Io, error))?;
    notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
        _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
        () = daemon.stopped() => tracing::info!("asked to end"),
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    daemon.end().await;
    Ok(())
}

/// A node that runs.
pub struct Daemon {
    /// What its parts share.
    pub node: Arc<Node>,
    stop: watch::Sender<bool>,
    /// Those that bring work in; they end first.
    doors: JoinSet<()>,
    /// Those that the end itself needs: requests between nodes, and the API.
    servants: JoinSet<()>,
    /// Files that go at the end; not the socket that somebody else listens on when this does not.
    own_files: Vec<PathBuf>,
    _held: local::Held,
}

impl Daemon {
    /// Starts a node. When this returns, its API answers.
    pub async fn start(root: Root, factory: &PlaneFactory) -> Result<Self, ApiError> {
        let Membership { cluster, node: me, told } = Membership::load(&root)?.ok_or_else(no_member)?;
        let config = Config::load(&root)?;
        local::make_directories(&root)?;
        let held = local::hold(&root)?;
        let keys = tls_directory(&root);
        let credentials = Credentials::load(&keys).map_err(|error| unusable(&keys, &error))?;
        let sockets = Sockets::bind(&root, &config, local::inherited_listeners()?)?;
        let (seen, model) = watch::channel(Arc::new(Cluster::default()));
        let store = consensus_file(&root);
        let logged = Consensus::logged(&store).map_err(|error| ApiError::new(Code::Io, error))?;
        let gate = Gate::new(Arc::new(Tls::new(cluster, &credentials)?), model, told, logged);
        let peers = Arc::new(Peers::new(gate.clone(), config.address)?);
        let setup = Setup { me, file: store, transport: peers.clone() };
        let control = SocketAddr::new(config.address, config.ports.control);
        let consensus = Consensus::open(setup, control).await?;
        let (events, inbox) = mpsc::unbounded_channel();
        local::serve_own_machine();
        let Plane { plane, maker } = factory(PlaneSetup { cluster, me, events })?;
        let (pools, board, holds, attachments) = (Mutex::default(), Board::default(), Holds::default(), Book::new(&root));
        let taking = Taking::default();
        let node =
            Node { root, config, cluster, me, consensus, gate, peers, plane, pools, maker, board, holds, attachments, taking };
        let node = Arc::new(node);
        let doorkeeper = Arc::new(Doorkeeper::new(node.consensus.clone(), cluster, credentials, control));
        let (stop, _) = watch::channel(false);
        let own_files = sockets.own_files.clone();
        let mut daemon = Self { node, stop, doors: JoinSet::new(), servants: JoinSet::new(), own_files, _held: held };
        daemon.serve(sockets, seen, inbox, doorkeeper)?;
        tracing::info!(node = %daemon.node.config.name, id = %me, %cluster, "running");
        Ok(daemon)
    }

    /// Waits until the API was asked to end the daemon.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as this.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Ends the node cleanly: no new work, resources given up in order, the vote handed over, everything durable.
    pub async fn end(mut self) {
        self.doors.shutdown().await;
        match timeout(PLANE_END, self.node.plane.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the data plane did not end cleanly"),
            Err(_) => tracing::warn!("the data plane did not end in time"),
        }
        if let Some(heir) = self.node.consensus.hand_over(HAND_OVER).await {
            tracing::info!(node = %heir, "the control plane's vote was handed over");
        }
        self.servants.shutdown().await;
        for path in &self.own_files {
            // What is not there need not go.
            let _ = fs::remove_file(path);
        }
        let consensus = self.node.consensus.clone();
        // Whoever waits for the store to be free must not keep it by this.
        drop(self.node);
        consensus.close().await;
        tracing::info!("ended");
    }

    fn serve(
        &mut self,
        sockets: Sockets,
        seen: watch::Sender<Arc<Cluster>>,
        inbox: mpsc::UnboundedReceiver<PlaneEvent>,
        doorkeeper: Arc<Doorkeeper>,
    ) -> Result<(), ApiError> {
        let node = &self.node;
        let mut model = node.consensus.watch();
        self.servants.spawn(async move {
            // What the gate sees is the consensus' model; it was needed before there was a consensus.
            loop {
                seen.send_replace(model.borrow_and_update().clone());
                if model.changed().await.is_err() {
                    return;
                }
            }
        });
        let answers = Arc::new(PeersAnswers { node: node.clone(), doorkeeper: doorkeeper.clone() });
        let control = net::serve(sockets.control, node.gate.clone(), answers);
        self.servants.spawn(async move { ended("the control port", control.await) });
        let operations = Arc::new(Operations::new(node.clone(), doorkeeper, self.stop.clone()));
        if let Some(path) = &node.config.docker {
            self.doors.spawn(docker::serve(path.clone(), node.clone(), operations.clone()));
        }
        self.servants.spawn(serve_router(sockets.api, routes(operations)));
        let replication = links::serve(sockets.replication, node.clone());
        self.servants.spawn(async move { ended("the replication port", replication.await) });
        self.servants.spawn(answer_plane(node.clone(), Dialler::new(node.clone())?, inbox));
        for listener in sockets.nbd_unix {
            let unix = nbd::serve_unix(listener, node.clone());
            self.doors.spawn(async move { ended("the NBD socket", unix.await) });
        }
        for listener in sockets.nbd_tcp {
            let tcp = nbd::serve_tcp(listener, node.clone());
            self.doors.spawn(async move { ended("the NBD port", tcp.await) });
        }
        self.doors.spawn(reconciler::run(node.clone()));
        self.doors.spawn(attachments::keep(node.clone()));
        self.doors.spawn(attachments::visits::keep(node.clone()));
        self.doors.spawn(snapshots::keep::keep(node.clone()));
        self.doors.spawn(verifies::keep(node.clone()));
        Ok(())
    }
}

/// Everything that a node listens on, bound before anything else is started.
struct Sockets {
    control: tokio::net::TcpListener,
    replication: tokio::net::TcpListener,
    nbd_tcp: Vec<tokio::net::TcpListener>,
    nbd_unix: Vec<UnixListener>,
    api: UnixListener,
    /// What is left behind of them, and shall not be.
    own_files: Vec<PathBuf>,
}

impl Sockets {
    /// Listens at the node's own places, and takes those that were `inherited` for NBD clients: besides its own, or instead of the one
    /// at the same place.
    fn bind(root: &Root, config: &Config, inherited: Vec<Listener>) -> Result<Self, ApiError> {
        let (mut nbd_unix, mut nbd_tcp) = (Vec::new(), Vec::new());
        for listener in inherited {
            match listener {
                Listener::Unix(listener) => {
                    nbd_unix.push(asynchronous(listener).map_err(|error| ApiError::new(Code::Io, error))?)
                }
                Listener::Tcp(listener) => {
                    nbd_tcp.push(asynchronous_tcp(listener).map_err(|error| ApiError::new(Code::Io, error))?)
                }
            }
        }
        let path = root.nbd_socket();
        let is_there = |listener: &UnixListener| listener.local_addr().is_ok_and(|at| at.as_pathname() == Some(path.as_path()));
        let has_unix = nbd_unix.iter().any(is_there);
        let has_tcp = nbd_tcp.iter().any(|listener: &tokio::net::TcpListener| listener.local_addr().ok() == config.nbd);
        let tcp = |socket: SocketAddr| net::bind(socket).map_err(|error| local::cannot_listen(socket, &error));
        let unix = |path: PathBuf| nbd::bind_unix(&path).map_err(|error| unusable(&path, &error));
        let (control, replication) = (config.ports.control, config.ports.replication);
        let (control, replication) =
            (tcp(SocketAddr::new(config.address, control))?, tcp(SocketAddr::new(config.address, replication))?);
        nbd_tcp.extend(config.nbd.filter(|_| !has_tcp).map(tcp).transpose()?);
        let mut own_files = vec![root.api_socket(), root.pid_file()];
        if !has_unix {
            nbd_unix.push(unix(path.clone())?);
            own_files.push(path);
        }
        let sockets = Self { control, replication, nbd_tcp, nbd_unix, api: unix(root.api_socket())?, own_files };
        let pid = root.pid_file();
        let text = format!("{}\n", std::process::id());
        // For everyone to read and nobody else to write, whatever the mask says.
        let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).clone();
        let written = options.open(&pid).and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.write_all(text.as_bytes())
        });
        written.map_err(|error| unusable(&pid, &error))?;
        Ok(sockets)
    }
}

fn asynchronous(listener: std::os::unix::net::UnixListener) -> std::io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn asynchronous_tcp(listener: std::net::TcpListener) -> std::io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// What other nodes ask this one.
struct PeersAnswers {
    node: Arc<Node>,
    doorkeeper: Arc<Doorkeeper>,
}

impl Answers for PeersAnswers {
    fn answer(&self, from: NodeId, service: net::Service, request: Vec<u8>) -> Answering<'_> {
        Box::pin(async move {
            match service {
                net::Service::Consensus => self.node.consensus.answer(from, &request).await,
                net::Service::Node => {
                    let question: Question = serde_json::from_slice(&request).map_err(|error| error.to_string())?;
                    serde_json::to_vec(&Report::of(&self.node, &question)).map_err(|error| error.to_string())
                }
                net::Service::Holds => {
                    let request = serde_json::from_slice(&request).map_err(|error| error.to_string())?;
                    let clients = holds::answer(&self.node, request).await?;
                    serde_json::to_vec(&clients).map_err(|error| error.to_string())
                }
                net::Service::Snapshots => part::run_errand(&self.node, &request).await,
                net::Service::Operations => operate::run_errand(&self.node, &request).await,
                net::Service::Attachments => attachments::run_errand(&self.node, &request).await,
            }
        })
    }

    fn join(&self, from: SocketAddr, request: Vec<u8>) -> Answering<'_> {
        Box::pin(async move {
            tracing::info!(%from, "a node asks to join");
            Ok(self.doorkeeper.answer(&request).await)
        })
    }
}

async fn answer_plane(node: Arc<Node>, mut dialler: Dialler, mut inbox: mpsc::UnboundedReceiver<PlaneEvent>) {
    let mut model = node.consensus.watch();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            event = inbox.recv() => match event {
                Some(PlaneEvent::Propose { resource, ticket, expect, record }) => {
                    authority::propose(&node, resource, ticket, expect, record);
                }
                Some(PlaneEvent::ReadRecord { resource, ticket }) => authority::read(&node, resource, ticket),
                Some(PlaneEvent::WantLink { peer, lane }) => dialler.want(peer, lane),
                Some(PlaneEvent::Changed { resource }) => tracing::trace!(%resource, "changed"),
                None => return,
            },
            () = dialler.turn() => {}
            _ = look.tick() => if model.has_changed().unwrap_or(false) {
                model.mark_unchanged();
                dialler.reconsider();
            },
        }
    }
}

/// Answers whoever connects, until it is dropped.
pub(super) async fn serve_router(listener: UnixListener, router: axum::Router) {
    let mut guests = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                guests.spawn(async move {
                    if let Err(error) = serve_connection(router, stream).await {
                        tracing::debug!(%error, "an API client broke off");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an API client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while guests.try_join_next().is_some() {}
    }
}

fn ended(what: &str, result: Result<(), super::tls::TlsError>) {
    if let Err(error) = result {
        tracing::error!(%error, "{what} is not served any more");
    }
}

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

const LOOK: Duration = Duration::from_millis(200);
const PLANE_END: Duration = Duration::from_secs(30);
const HAND_OVER: Duration = Duration::from_secs(3);
