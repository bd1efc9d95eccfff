//! Opening an export at the daemon's socket, waiting for each step.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::nbd::client::{Agreed, Handshake, HandshakeError, Step, Wish};
use crate::nbd::option::reply;

/// Why an export was not opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// It may be opened later: the daemon is not there, or cannot serve the volume now.
    #[error("{0}")]
    NotNow(String),
    /// It may not be opened any more under this name.
    #[error("{0}")]
    Never(String),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::NotNow(error.to_string())
    }
}

/// An open export.
#[derive(Debug)]
pub struct Open {
    /// The socket. Reading and writing wait without limit.
    pub stream: UnixStream,
    /// What was agreed on.
    pub agreed: Agreed,
}

/// Opens `export` at `socket`. The daemon may take `patience` for each of its answers.
pub fn dial(socket: &Path, export: &str, patience: Duration) -> Result<Open, DialError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut handshake = Handshake::new(Wish { export: export.to_owned(), ..Wish::default() });
    let mut buffer = [0; 4096];
    let agreed = loop {
        match handshake.poll() {
            Step::Send(bytes) => stream.write_all(&bytes)?,
            Step::Receive => match stream.read(&mut buffer)? {
                0 => return Err(DialError::NotNow("the daemon closed the connection".into())),
                read => handshake.feed(&buffer[..read]),
            },
            Step::StartTls => return Err(DialError::Never("TLS was not asked for".into())),
            Step::Done(agreed) => break agreed,
            Step::Failed(HandshakeError::Refused { code, text, .. }) if code == reply::ERR_POLICY => {
                return Err(DialError::Never(text));
            }
            Step::Failed(HandshakeError::Refused { text, .. }) => return Err(DialError::NotNow(text)),
            Step::Failed(error) => return Err(DialError::NotNow(error.to_string())),
        }
    };
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    Ok(Open { stream, agreed })
}
