//! Asking a daemon: over its unix socket, or over any other stream that leads to one.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::error::{ApiError, Code};
use super::setup::Root;

/// The largest answer, in bytes: the full status of 10,000 resources with three replicas has about 20 MiB.
const LARGEST_ANSWER: usize = 256 << 20;

/// How long a call may take unless [`Client::patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a daemon.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that is being made.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Where a [`Client`]'s connections come from.
pub trait Connector: Send + Sync + 'static {
    /// Connects, for one call.
    fn connect(&self) -> Connecting<'_>;

    /// What is at the other end, for messages: `the daemon at /run/blkrep/api.sock`.
    fn target(&self) -> String;

    /// What to do when it cannot be reached, for this reason.
    fn remedy(&self, why: &io::Error) -> String;
}

/// Asks a daemon. It is a [`Service`](super::Service): every operation is a method.
#[derive(Clone)]
pub struct Client {
    connector: Arc<dyn Connector>,
    patience: Duration,
}

impl Client {
    /// Asks whom `connector` leads to.
    pub fn new(connector: impl Connector) -> Self {
        Self { connector: Arc::new(connector), patience: PATIENCE }
    }

    /// Asks the daemon of this machine that listens at `socket`.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self::new(UnixSocket(socket.into()))
    }

    /// Gives every call so long, connecting included; 30 seconds unless set.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// One operation: `request` goes into the query of a `GET`, and into the body of anything else.
    pub(super) async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        request: &Q,
    ) -> Result<A, ApiError> {
        let request = encode(method, path, request)?;
        let (status, body) = tokio::time::timeout(self.patience, self.exchange(request)).await.map_err(|_| {
            let message = format!("{} did not answer within {} s", self.connector.target(), self.patience.as_secs());
            ApiError::new(Code::TimedOut, message).hint("what was asked for may still happen: look before asking again")
        })??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.babble(&error));
        }
        Err(serde_json::from_slice(&body).unwrap_or_else(|error| self.babble(&error)))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(hyper::StatusCode, Bytes), ApiError> {
        let stream = self.connector.connect().await.map_err(|error| self.unreachable(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        let talk = async {
            let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            let body = body.map_err(|error| ApiError::new(Code::Unreachable, format_args!("the answer was cut off: {error}")))?;
            Ok((head.status, body.to_bytes()))
        };
        tokio::pin!(talk);
        // The connection moves the bytes; its own end, even an early one, is told through `talk`.
        tokio::select! {
            answer = &mut talk => answer,
            _ = connection => talk.await,
        }
    }

    fn unreachable(&self, error: &io::Error) -> ApiError {
        ApiError::new(Code::Unreachable, format_args!("cannot reach {}: {error}", self.connector.target()))
            .hint(self.connector.remedy(error))
    }

    fn broken(&self, error: &hyper::Error) -> ApiError {
        ApiError::new(Code::Unreachable, format_args!("the connection to {} broke: {error}", self.connector.target()))
            .hint("what was asked for may have happened: look before asking again")
    }

    fn babble(&self, error: &serde_json::Error) -> ApiError {
        ApiError::new(Code::Internal, format_args!("the answer of {} cannot be read: {error}", self.connector.target()))
            .hint("it may be of another version; `blkrep server-version` tells the daemon's")
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.connector.target())
    }
}

/// The unix socket of a daemon of this machine.
struct UnixSocket(PathBuf);

impl Connector for UnixSocket {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let stream = UnixStream::connect(&self.0).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn target(&self) -> String {
        format!("the daemon at {}", self.0.display())
    }

    fn remedy(&self, why: &io::Error) -> String {
        if why.kind() == io::ErrorKind::PermissionDenied {
            return "only root may ask the daemon: try sudo".to_owned();
        }
        let own_root = Root::of_api_socket(&self.0).filter(|root| !root.is_default());
        let start = match own_root {
            Some(root) => format!("`blkrep daemon --root {}`", root.path().display()),
            None => "`systemctl start blkrep` or `blkrep daemon`".to_owned(),
        };
        format!("is it running? start it with {start}; a node without a cluster begins with `blkrep init` or `blkrep join`")
    }
}

fn encode<Q: Serialize>(method: Method, path: &str, request: &Q) -> Result<Request<Full<Bytes>>, ApiError> {
    let defect = |error: &dyn std::fmt::Display| ApiError::new(Code::Internal, format_args!("{path} cannot be asked: {error}"));
    let value = serde_json::to_value(request).map_err(|error| defect(&error))?;
    let (target, body) = match method {
        Method::GET => (format!("{path}{}", query(&value)), Bytes::new()),
        _ => (path.to_owned(), Bytes::from(value.to_string())),
    };
    let uri: Uri = target.parse().map_err(|error: axum::http::uri::InvalidUri| defect(&error))?;
    Request::builder()
        .method(method)
        .uri(uri)
        .header(header::HOST, "blkrep")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| defect(&error))
}

/// A flat JSON object as the query of a URI, with its question mark; empty without fields.
fn query(object: &serde_json::Value) -> String {
    let fields = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let pairs = fields.map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{}={}", percent_encode(name), percent_encode(&text))
    });
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// RFC 3986, section 2: everything but the unreserved characters becomes `%XX`.
fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_travels_in_the_query() {
        let object = serde_json::json!({ "node": "a b&c", "count": 2, "none": null, "force": true });
        assert_eq!(query(&object), "?count=2&force=true&node=a%20b%26c");
        assert_eq!(query(&serde_json::json!({})), "");
    }
}
