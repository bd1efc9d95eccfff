//! NBD clients: listening, negotiating, and handing over to the data plane.
//!
//! Exports are `RESOURCE` (its volume 0) and `RESOURCE/VOLUME`, and of snapshots, read-only, `RESOURCE@SNAPSHOT` and
//! `RESOURCE/VOLUME@SNAPSHOT`; this node's attachments add which of them they are. What a client is *told* comes from the model alone; only when it goes
//! on to use an export is that attached. Clients come over the node's unix socket or a loopback address, where TLS is offered; on
//! any other address it is required, with a certificate of the cluster's authority.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::attachments::{uses, visits};
use super::net::{Stranger, Strangers};
use super::node::Node;
use super::snapshots::reader;
use super::tls::TlsError;
use crate::cluster::Resource;
use crate::nbd::{Action, BlockSizes, Export, Listed, Negotiation, Purpose, Refusal, TlsPolicy};
use crate::runtime::{ClientSocket, OpenExport, PlaneError, Socket};
use crate::units::{Name, ResourceId, Sharing, VolumeId};

/// Serves clients of this machine at a unix socket, until it is dropped.
pub async fn serve_unix(listener: UnixListener, node: Arc<Node>) -> Result<(), TlsError> {
    let door = Arc::new(Door::new(node, TlsPolicy::Off, false)?);
    let mut guests = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let stranger = door.strangers.admit(Ipv4Addr::LOCALHOST.into());
                drop(guests.spawn(door.clone().host(stream, "unix".to_owned(), stranger)));
            }
            Err(error) => pause_after(&error).await,
        }
        while guests.try_join_next().is_some() {}
    }
}

/// Serves clients over TCP, until it is dropped.
pub async fn serve_tcp(listener: TcpListener, node: Arc<Node>) -> Result<(), TlsError> {
    let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let policy = if loopback { TlsPolicy::Offered } else { TlsPolicy::Required };
    let door = Arc::new(Door::new(node, policy, !loopback)?);
    let mut guests = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let stranger = door.strangers.admit(from.ip());
                drop(guests.spawn(door.clone().host_tcp(stream, from, stranger)));
            }
            Err(error) => pause_after(&error).await,
        }
        while guests.try_join_next().is_some() {}
    }
}

/// Binds the unix socket for this node's owner; what a former daemon has left there goes.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The directory is the owner's alone, so nobody gets at the socket before its mode is set.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

struct Door {
    node: Arc<Node>,
    /// Clients that read snapshots.
    readers: Mutex<JoinSet<()>>,
    policy: TlsPolicy,
    acceptor: TlsAcceptor,
    strangers: Arc<Strangers>,
}

/// A client's stream: a socket that can be handed over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn hand_over(self) -> io::Result<OwnedFd>;
}

impl Wire for UnixStream {
    fn hand_over(self) -> io::Result<OwnedFd> {
        Ok(self.into_std()?.into())
    }
}

impl Wire for TcpStream {
    fn hand_over(self) -> io::Result<OwnedFd> {
        Ok(self.into_std()?.into())
    }
}

/// A stream before and after STARTTLS.
pub(super) enum Stream<S> {
    Plain(S),
    Secured(Box<TlsStream<S>>),
}

impl<S: Wire> Stream<S> {
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Secured(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Secured(stream) => stream.read(buffer).await,
        }
    }

    fn into_socket(self, early: Vec<u8>) -> io::Result<Socket> {
        match self {
            Self::Plain(stream) => Ok(Socket { fd: stream.hand_over()?, tls: None, early }),
            Self::Secured(stream) => {
                let (stream, session) = stream.into_inner();
                Ok(Socket { fd: stream.hand_over()?, tls: Some(Box::new(rustls::Connection::Server(session))), early })
            }
        }
    }
}

impl Door {
    fn new(node: Arc<Node>, policy: TlsPolicy, with_certificate: bool) -> Result<Self, TlsError> {
        let tls = node.gate.tls.nbd_server(with_certificate)?;
        let (readers, acceptor, strangers) = (Mutex::default(), TlsAcceptor::from(tls), Strangers::new(HANDSHAKES));
        Ok(Self { node, readers, policy, acceptor, strangers })
    }

    async fn host_tcp(self: Arc<Self>, stream: TcpStream, from: SocketAddr, stranger: Stranger) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%from, %error, "an NBD client is gone already");
            return;
        }
        self.host(stream, from.to_string(), stranger).await;
    }

    async fn host<S: Wire>(self: Arc<Self>, stream: S, client: String, stranger: Stranger) {
        let negotiated = tokio::select! {
            negotiated = timeout(NEGOTIATION, self.negotiate(stream, &client, &stranger)) => negotiated,
            () = stranger.sent_away() => return tracing::debug!(%client, "an NBD client said too little for too long"),
        };
        match negotiated {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%client, %error, "an NBD client was not served"),
            Err(_) => tracing::info!(%client, "an NBD client took too long to say what it wants"),
        }
    }

    async fn negotiate<S: Wire>(&self, stream: S, client: &str, stranger: &Stranger) -> io::Result<()> {
        let mut talk = Negotiation::new(self.policy);
        let mut stream = Stream::Plain(stream);
        let mut buffer = vec![0; 4096];
        let mut attached: Option<OpenExport> = None;
        let mut reading: Option<reader::Open> = None;
        loop {
            match talk.poll() {
                Action::Send(bytes) => stream.send(&bytes).await?,
                Action::Receive => match stream.receive(&mut buffer).await? {
                    0 => return Ok(()),
                    count => talk.feed(&buffer[..count]),
                },
                Action::List => talk.listed(Ok(&self.list())),
                Action::Open { name, purpose } => {
                    let snapshot = reader::Wanted::of(&name);
                    if let Purpose::Serve = purpose {
                        stranger.is_known();
                    }
                    let answer = match purpose {
                        Purpose::Inspect if let Some(wanted) = &snapshot => {
                            wanted.bytes(&self.node, &self.node.model()).map(|bytes| export(&name, bytes, true))
                        }
                        Purpose::Serve if let Some(wanted) = snapshot => wanted.open(&self.node).await.map(|open| {
                            let export = export(&name, open.bytes, true);
                            reading = Some(open);
                            export
                        }),
                        Purpose::Inspect => {
                            self.find(&name).await.map(|(_, _, bytes)| export(&name, bytes, false)).map_err(Refusal::from)
                        }
                        Purpose::Serve => self.attach(&name).await.map(|open| {
                            let export = export(&name, open.bytes, open.read_only);
                            attached = Some(open);
                            export
                        }),
                    };
                    if let Err(refusal) = &answer {
                        tracing::info!(%client, export = %name, refusal = refusal.text(), "an NBD client was refused");
                    }
                    talk.opened(answer);
                }
                Action::StartTls => {
                    let Stream::Plain(plain) = stream else { return Err(io::ErrorKind::InvalidData.into()) };
                    stream = Stream::Secured(Box::new(self.acceptor.accept(plain).await?));
                    talk.secured();
                }
                Action::Done { mode, name, early } => {
                    if let Some(open) = reading.take() {
                        tracing::info!(%client, export = %name, "an NBD client reads a snapshot");
                        self.read(stream, mode, early, open);
                        return Ok(());
                    }
                    let Some(open) = attached.take() else { return Err(io::Error::other("nothing was attached")) };
                    tracing::info!(%client, export = %name, "an NBD client is served");
                    let socket = stream.into_socket(early)?;
                    self.node.plane.serve(
                        open,
                        ClientSocket { socket, mode, name: client.to_owned(), asks_again: name.contains(ATTACHMENT) },
                    );
                    return Ok(());
                }
                Action::Close(reason) => {
                    tracing::debug!(%client, %reason, "an NBD negotiation ended");
                    return Ok(());
                }
            }
        }
    }

    /// Serves a client that reads a snapshot, as long as this door is there.
    fn read<S: Wire>(&self, stream: Stream<S>, mode: crate::nbd::Mode, early: Vec<u8>, open: reader::Open) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        while readers.try_join_next().is_some() {}
        readers.spawn(async move {
            if let Err(error) = reader::serve(stream, mode, early, open).await {
                tracing::debug!(%error, "a reader of a snapshot broke off");
            }
        });
    }

    fn list(&self) -> Vec<Listed> {
        let model = self.node.model();
        let snapshots = reader::exports(&self.node, &model).into_iter();
        let snapshots = snapshots.map(|name| Listed { name, description: "a snapshot, read-only".to_owned() });
        let exports = model.resources.values().flat_map(|resource| {
            resource.volumes.iter().filter(|(_, volume)| volume.bytes > 0).map(|(id, _)| {
                let name = if id.0 == 0 { resource.name.to_string() } else { format!("{}/{id}", resource.name) };
                Listed { name, description: String::new() }
            })
        });
        exports.chain(snapshots).collect()
    }

    /// The volume of an export's name, and its size. What this node has not heard of yet, or not again since it started, it asks
    /// the cluster for.
    async fn find(&self, name: &str) -> Result<(Arc<Resource>, VolumeId, u64), Missing> {
        match find(&self.node.model(), name) {
            Ok(found) => Ok(found),
            Err(missing) => match self.node.consensus.read(ASK).await {
                Ok(model) => find(&model, name),
                Err(_) => Err(Missing { gone: false, ..missing }),
            },
        }
    }

    /// Attaches an export, on a node that does not have the resource yet as a diskless user of it.
    async fn attach(&self, name: &str) -> Result<OpenExport, Refusal> {
        let (name, token) = match name.split_once(ATTACHMENT) {
            Some((name, token)) => (name, Some(token)),
            None => (name, None),
        };
        let (resource, volume, _) = match self.find(name).await {
            // It does not come back: whoever waits for it is told, and what is mounted can be unmounted.
            Err(missing) if missing.gone && token.is_some() => {
                return Err(Refusal::policy(format!("volume '{name}' was removed; unmount and detach what was attached of it")));
            }
            found => found?,
        };
        // Before the data plane is asked; whether it is an attachment that may come is seen after that.
        let sharing = token.map(|_| uses::sharing(&self.node, &resource.name, volume)).unwrap_or_default();
        let open = self.attach_volume(name, &resource, volume, sharing).await?;
        match token {
            Some(token) => uses::admit(&self.node, resource.id, volume, token).await?,
            None => uses::note(&self.node, resource.id).await?,
        }
        Ok(open)
    }

    async fn attach_volume(
        &self,
        name: &str,
        resource: &Arc<Resource>,
        volume: VolumeId,
        sharing: Sharing,
    ) -> Result<OpenExport, Refusal> {
        if !resource.assignments.contains_key(&self.node.me) {
            visits::begin(&self.node, resource).await?;
        }
        let deadline = tokio::time::Instant::now() + ATTACH;
        // Uses of mounts that only read are not counted: nothing that they might send is to change the volume.
        let reads = sharing == Sharing::Readers;
        loop {
            let late = tokio::time::Instant::now() >= deadline;
            match self.node.holds.enter(resource.id, volume, &self.node.model()) {
                Some(_entering) => match self.node.plane.attach(resource.id, volume, reads, sharing).await {
                    Ok(open) => return Ok(open),
                    // Just assigned, or the daemon has just started: it comes up in a moment.
                    Err(PlaneError::NotOpen(_)) if !late => {}
                    Err(PlaneError::ShuttingDown) => return Err(Refusal::shutdown("the daemon is shutting down")),
                    Err(error) => return Err(Refusal::unknown(self.explain(&error, resource.id))),
                },
                None if late => return Err(Refusal::unknown(format!("whether '{name}' is removed is being decided"))),
                None => {}
            }
            sleep(Duration::from_millis(20)).await;
            if self.find(name).await?.0.id != resource.id {
                return Err(Refusal::unknown(format!("'{name}' was removed, and is another one now")));
            }
        }
    }

    /// The error, with what is known of its cause.
    fn explain(&self, error: &PlaneError, resource: ResourceId) -> String {
        let failure = self.node.board.failures().remove(&resource);
        match (error, failure) {
            (PlaneError::Busy(node), _) => {
                let name = self.node.model().node_name(*node).to_string();
                format!("in use on node '{name}', where `blkrep list-attachments` tells by what: end that first; {ALONE}")
            }
            (_, Some(failure)) => format!("{error}: {failure}"),
            (_, None) => error.to_string(),
        }
    }
}

/// Why a volume is not found.
struct Missing {
    refusal: Refusal,
    /// There is none of that name, by the model that was looked at; else it is still being made.
    gone: bool,
}

impl From<Missing> for Refusal {
    fn from(missing: Missing) -> Self {
        missing.refusal
    }
}

fn find(model: &crate::cluster::Cluster, name: &str) -> Result<(Arc<Resource>, VolumeId, u64), Missing> {
    let unknown = || Missing { refusal: Refusal::unknown(format!("there is no volume '{name}'")), gone: true };
    let (resource, volume) = match name.split_once('/') {
        Some((resource, volume)) => (resource, volume.parse().map(VolumeId).map_err(|_| unknown())?),
        None => (name, VolumeId(0)),
    };
    let resource = resource.parse().ok().and_then(|name: Name| model.resource_named(&name).ok()).ok_or_else(unknown)?;
    match resource.volumes.get(&volume) {
        Some(present) if present.bytes > 0 => Ok((resource.clone(), volume, present.bytes)),
        Some(_) => Err(Missing { refusal: Refusal::unknown(format!("volume '{name}' is still being made")), gone: false }),
        None => Err(unknown()),
    }
}

fn export(name: &str, size: u64, read_only: bool) -> Export {
    Export { name: name.to_owned(), description: String::new(), size, read_only, blocks: BlockSizes::default() }
}

async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept an NBD client");
    sleep(Duration::from_millis(100)).await;
}

/// Who shares with whom.
const ALONE: &str = "what is mounted, or attached with --exclusive, is shared with no other node; but mounts that are read-only share with each other";
/// What follows an export's name when one of this node's attachments opens it; no name has such a sign.
const ATTACHMENT: &str = ";attachment=";
/// Clients that have not said yet what they want to use.
const HANDSHAKES: usize = 256;
const NEGOTIATION: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_secs(5);
const ATTACH: Duration = Duration::from_secs(15);
