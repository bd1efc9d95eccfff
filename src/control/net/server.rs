//! Answering other nodes on the control port.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Gate;
use super::frame::{self, Service};
use super::strangers::{Stranger, Strangers};
use crate::control::tls::{Purpose, TlsError};
use crate::units::NodeId;

/// Knows the answers.
pub trait Answers: Send + Sync + 'static {
    /// Answers a member. An error is for its log; the connection is closed.
    fn answer(&self, from: NodeId, service: Service, request: Vec<u8>) -> Answering<'_>;

    /// Answers a node that wants to become one.
    fn join(&self, from: SocketAddr, request: Vec<u8>) -> Answering<'_>;
}

/// An answer that is on its way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;

/// Listens, so that a restarted node can do so at once again.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Serves whoever connects, until it is dropped.
pub async fn serve(listener: TcpListener, gate: Gate, answers: Arc<dyn Answers>) -> Result<(), TlsError> {
    let acceptor = TlsAcceptor::from(gate.tls.server(&[Purpose::Control, Purpose::Join])?);
    let strangers = Strangers::new(HANDSHAKES);
    let mut guests = tokio::task::JoinSet::new();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the control port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while guests.try_join_next().is_some() {}
        let (acceptor, gate, answers) = (acceptor.clone(), gate.clone(), answers.clone());
        let stranger = strangers.admit(from.ip());
        guests.spawn(async move {
            let served = tokio::select! {
                served = receive(stream, from, acceptor, gate, answers, &stranger) => served,
                () = stranger.sent_away() => Err("others wanted its place".to_owned()),
            };
            if let Err(error) = served {
                tracing::debug!(%from, %error, "a connection on the control port ended");
            }
        });
    }
}

async fn receive(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: TlsAcceptor,
    gate: Gate,
    answers: Arc<dyn Answers>,
    stranger: &Stranger,
) -> Result<(), String> {
    match timeout(HANDSHAKE, accept(acceptor, stream)).await {
        Ok(Ok(stream)) => host(stream, from, gate, answers, stranger).await,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its handshake took too long".to_owned()),
    }
}

async fn accept(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

async fn host(
    mut stream: TlsStream<TcpStream>,
    from: SocketAddr,
    gate: Gate,
    answers: Arc<dyn Answers>,
    stranger: &Stranger,
) -> Result<(), String> {
    let (_, session) = stream.get_ref();
    match session.alpn_protocol().and_then(Purpose::of_alpn) {
        Some(Purpose::Control) => {
            let visitor = gate.admit(session.peer_certificates()).map_err(|error| error.to_string())?;
            stranger.is_known();
            tokio::select! {
                served = serve_member(&mut stream, visitor.node, answers) => served.map_err(|error| error.to_string()),
                error = gate.expelled(&visitor) => Err(error.to_string()),
            }
        }
        Some(Purpose::Join) => {
            let ask = timeout(HANDSHAKE, frame::read(&mut stream, frame::LARGEST_OF_STRANGERS)).await;
            let request = ask.map_err(|_| "it asked nothing")?.map_err(|error| error.to_string())?;
            let Some((_, request)) = request else { return Ok(()) };
            stranger.is_known();
            let answer = answers.join(from, request).await;
            tell(&mut stream, answer).await.map_err(|error| error.to_string())
        }
        _ => Err("it did not say what it wants".to_owned()),
    }
}

async fn serve_member(stream: &mut TlsStream<TcpStream>, from: NodeId, answers: Arc<dyn Answers>) -> io::Result<()> {
    loop {
        let Ok(request) = timeout(IDLE, frame::read(stream, frame::LARGEST)).await else { return Ok(()) };
        let Some((code, request)) = request? else { return Ok(()) };
        let answer = match Service::of_code(code) {
            Some(service) => answers.answer(from, service, request).await,
            None => Err(format!("service {code} is not known here; is this node of an older version?")),
        };
        tell(stream, answer).await?;
    }
}

async fn tell(stream: &mut TlsStream<TcpStream>, answer: Result<Vec<u8>, String>) -> io::Result<()> {
    match answer {
        Ok(answer) => frame::write(stream, frame::ANSWERED, &answer).await,
        Err(message) => frame::write(stream, frame::REFUSED, message.as_bytes()).await,
    }
}

/// Connections whose peer has not proved anything yet.
const HANDSHAKES: usize = 128;
const HANDSHAKE: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);
