//! Requests and answers as bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The agreement on the model.
    Consensus,
    /// The node itself: its status.
    Node,
    /// Clients that are let in or not.
    Holds,
    /// Volumes as block devices of that node.
    Attachments,
    /// Snapshots: what that node has to do for one.
    Snapshots,
    /// What an operator wants of a resource that is that node's to do.
    Operations,
}

impl Service {
    fn code(self) -> u8 {
        match self {
            Self::Consensus => 1,
            Self::Node => 2,
            Self::Holds => 3,
            Self::Attachments => 4,
            Self::Snapshots => 5,
            Self::Operations => 6,
        }
    }

    pub(super) fn of_code(code: u8) -> Option<Self> {
        [Self::Consensus, Self::Node, Self::Holds, Self::Attachments, Self::Snapshots, Self::Operations]
            .into_iter()
            .find(|service| service.code() == code)
    }
}

/// The largest request or answer between members, in bytes: a snapshot of ten thousand resources has about ten million.
pub(super) const LARGEST: usize = 256 << 20;

/// The largest of a node that is not a member yet.
pub(super) const LARGEST_OF_STRANGERS: usize = 64 << 10;

/// The first byte of an answer.
pub(super) const ANSWERED: u8 = 0;
/// The first byte of an answer that is a message for the log: the request could not be answered.
pub(super) const REFUSED: u8 = 1;

pub(super) fn service_code(service: Service) -> u8 {
    service.code()
}

/// Writes a length, a first byte and the rest.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), first: u8, rest: &[u8]) -> io::Result<()> {
    let length =
        u32::try_from(rest.len() + 1).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "too long for a frame"))?;
    let mut head = [0; 5];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = first;
    if rest.len() <= 16 << 10 {
        // One TLS record, one segment.
        let mut whole = Vec::with_capacity(head.len() + rest.len());
        whole.extend_from_slice(&head);
        whole.extend_from_slice(rest);
        stream.write_all(&whole).await?;
    } else {
        stream.write_all(&head).await?;
        stream.write_all(rest).await?;
    }
    stream.flush().await
}

/// Reads what [`write()`] has written; `None` when the other end has closed before a frame. Memory is taken as bytes come, not as
/// the length claims.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), largest: usize) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut head = [0; 4];
    match stream.read(&mut head[..1]).await? {
        0 => return Ok(None),
        _ => stream.read_exact(&mut head[1..]).await?,
    };
    let length = u32::from_be_bytes(head);
    let fits = usize::try_from(length).is_ok_and(|length| (1..=largest).contains(&length));
    if !fits {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let first = stream.read_u8().await?;
    let mut rest = Vec::new();
    let wanted = u64::from(length) - 1;
    stream.take(wanted).read_to_end(&mut rest).await?;
    if u64::try_from(rest.len()).is_ok_and(|len| len == wanted) {
        Ok(Some((first, rest)))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
