//! Asking other nodes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Gate;
use super::frame::{self, Service};
use crate::control::consensus::{Carried, CarryError, Transport};
use crate::control::tls::{Fingerprint, Purpose, TlsError, pinned};
use crate::units::NodeId;

/// The ways to all other nodes. Connections are made when they are needed and kept for a while.
pub struct Peers {
    gate: Gate,
    from: IpAddr,
    config: Arc<rustls::ClientConfig>,
    idle: Mutex<HashMap<NodeId, Vec<Idle>>>,
}

struct Idle {
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    since: Instant,
}

impl Peers {
    /// Speaks from the address `from`, this node's own.
    pub fn new(gate: Gate, from: IpAddr) -> Result<Self, TlsError> {
        let config = gate.tls.client(Purpose::Control)?;
        Ok(Self { gate, from, config, idle: Mutex::default() })
    }

    /// Asks `service` of node `to`.
    pub async fn ask(
        &self,
        to: NodeId,
        address: SocketAddr,
        service: Service,
        request: &[u8],
        patience: Duration,
    ) -> Result<Vec<u8>, CarryError> {
        let deadline = Instant::now() + patience;
        let mut stream = match self.take_idle(to, address) {
            Some(stream) => stream,
            None => {
                let dial = dial(self.from, address, self.config.clone(), self.gate.tls.server_name(to));
                let dialed = timeout(patience.min(CONNECT), dial).await.map_err(|_| timed_out()).flatten();
                let stream = dialed.map_err(|error| CarryError::Unreachable(to, error.to_string()))?;
                // The name was checked by TLS; whether it is the node's present certificate, only the model knows.
                let (_, session) = stream.get_ref();
                self.gate.admit(session.peer_certificates()).map_err(|error| CarryError::Unreachable(to, error.to_string()))?;
                stream
            }
        };
        let exchange = exchange(&mut stream, service, request);
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, exchange).await.map_err(|_| timed_out()).flatten() {
            Ok((frame::ANSWERED, answer)) => {
                self.put_idle(to, address, stream);
                Ok(answer)
            }
            Ok((_, message)) => Err(CarryError::NoAnswer(to, String::from_utf8_lossy(&message).into_owned())),
            Err(error) => Err(CarryError::NoAnswer(to, error.to_string())),
        }
    }

    /// Whether anything accepts connections at a node's address, be it only a process that is stopped.
    pub async fn is_there(&self, address: SocketAddr) -> bool {
        matches!(timeout(CONNECT, connect(self.from, address)).await, Ok(Ok(_)))
    }

    /// A kept connection that is still good: with nothing to read, not even its end.
    fn take_idle(&self, to: NodeId, address: SocketAddr) -> Option<TlsStream<TcpStream>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&to)?;
        while let Some(Idle { stream, address: where_to, since }) = kept.pop() {
            let (socket, _) = stream.get_ref();
            let quiet = matches!(socket.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if quiet && where_to == address && since.elapsed() < KEPT {
                return Some(stream);
            }
        }
        None
    }

    fn put_idle(&self, to: NodeId, address: SocketAddr, stream: TlsStream<TcpStream>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(to).or_default();
        kept.retain(|idle| idle.since.elapsed() < KEPT);
        if kept.len() < KEPT_PER_NODE {
            kept.push(Idle { stream, address, since: Instant::now() });
        }
    }
}

impl Transport for Peers {
    fn call(&self, to: NodeId, address: SocketAddr, request: Vec<u8>, patience: Duration) -> Carried<'_> {
        Box::pin(async move { self.ask(to, address, Service::Consensus, &request, patience).await })
    }
}

/// Asks a member, of which only the authority's fingerprint is known, on behalf of a node that is none yet.
pub async fn ask_to_join(
    from: Option<IpAddr>,
    contact: SocketAddr,
    fingerprint: Fingerprint,
    request: &[u8],
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let ask = async {
        let config = pinned(fingerprint).map_err(io::Error::other)?;
        let name = ServerName::from(contact.ip());
        let mut stream = dial(from.unwrap_or_else(|| unspecified(contact)), contact, config, name).await?;
        match exchange(&mut stream, Service::Node, request).await? {
            (frame::ANSWERED, answer) => Ok(answer),
            (_, message) => Err(io::Error::other(String::from_utf8_lossy(&message).into_owned())),
        }
    };
    timeout(patience, ask).await.map_err(|_| timed_out()).flatten()
}

/// Connects and does the TLS handshake.
pub(in super::super) async fn dial(
    from: IpAddr,
    to: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = connect(from, to).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await
}

async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

async fn exchange(stream: &mut TlsStream<TcpStream>, service: Service, request: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    frame::write(stream, frame::service_code(service), request).await?;
    frame::read(stream, frame::LARGEST).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn unspecified(peer: SocketAddr) -> IpAddr {
    if peer.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an unused connection is kept; less than the server's patience with it.
const KEPT: Duration = Duration::from_secs(20);
const KEPT_PER_NODE: usize = 8;
