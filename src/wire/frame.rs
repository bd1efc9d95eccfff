//! Frames: bytes to messages and back.

use super::body::Body;
use super::error::Fault;
use super::header::check_magic;
use super::hot::{Flushed, Read, ReadReply, Settled, decode_seqs, encode_seqs};
use super::{FrameError, HEADER, Header, Kind, LinkMessage, Message, PAYLOAD_MAX, Unsendable, Write, Zero, control};
use crate::units::ResourceId;

/// A message between the engines of one resource, with what it travels under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The resource.
    pub resource: ResourceId,
    /// The sender's reign.
    pub reign: u64,
    /// The message.
    pub message: Message,
}

/// What has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Of the connection.
    Link(LinkMessage),
    /// Of a resource.
    Engine(Frame),
}

/// How far the bytes at hand reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not far enough: there must be at least so many bytes, counted from the frame's first.
    More(usize),
    /// A whole header and body.
    Whole {
        /// The message.
        incoming: Incoming,
        /// Its header: says how many bytes of payload follow.
        header: Header,
        /// How many bytes header and body have.
        used: usize,
    },
}

/// How one connection writes and reads frames.
///
/// A connection begins with [`HELLO`](Self::HELLO) in both directions: each end sends its hello and reads the other's. From then on it
/// uses [`new`](Self::new) with the version that [`Hello::agree`](super::Hello::agree) found.
///
/// Sending: [`encode`](Self::encode) and [`encode_link`](Self::encode_link) append header and body to a buffer that may hold other frames; the payload
/// is sent after them from where it is. Receiving: [`parse`](Self::parse) what is in the staging buffer; take the payload's bytes from
/// behind the body, from the buffer or straight from the socket; then [`Header::check_payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    version: u8,
    checksum_payloads: bool,
}

impl Codec {
    /// For the hellos.
    pub const HELLO: Self = Self { version: 0, checksum_payloads: false };

    /// For everything after the hellos. `checksum_payloads` is for what is sent and each end's own choice: over TLS another checksum only
    /// costs.
    pub const fn new(version: u8, checksum_payloads: bool) -> Self {
        Self { version, checksum_payloads }
    }

    /// Appends header and body of a message to `out`; nothing when it cannot be sent. `payload` goes with it and is not copied.
    pub fn encode(&self, frame: &Frame, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unsendable> {
        let kind = kind_of(&frame.message);
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        let header = check_payload(kind, payload)
            .and_then(|payload_len| encode_body(&frame.message, payload.len(), out).map(|()| payload_len))
            .and_then(|payload_len| self.header(kind, frame, payload_len, payload, &out[start + HEADER..]));
        match header {
            Ok(header) => {
                out[start..start + HEADER].copy_from_slice(&header.encode());
                Ok(())
            }
            Err(why) => {
                out.truncate(start);
                Err(Unsendable { kind, why })
            }
        }
    }

    /// Appends a message of the connection to `out`.
    pub fn encode_link(&self, message: &LinkMessage, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        message.encode(out);
        let body = &out[start + HEADER..];
        let header = Header {
            version: self.version,
            kind: message.kind(),
            resource: message.resource(),
            reign: 0,
            body_len: u32::try_from(body.len()).expect("the connection's messages are short"),
            payload_len: 0,
            body_checksum: crc32fast::hash(body),
            payload_checksum: None,
        };
        out[start..start + HEADER].copy_from_slice(&header.encode());
    }

    /// Reads the frame that begins at the first of `bytes`, of which any number may be there. After an error the connection cannot be
    /// used any more.
    pub fn parse(&self, bytes: &[u8]) -> Result<Parsed, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return check_magic(bytes).map(|()| Parsed::More(HEADER));
        };
        let header = Header::decode(header)?;
        if header.version != self.version {
            return Err(FrameError::Version { seen: header.version, expected: self.version });
        }
        let kind = header.kind;
        if (kind == Kind::Hello) != (self.version == Self::HELLO.version) {
            return Err(FrameError::Malformed { kind, why: "a hello comes first, and once" });
        }
        let used = HEADER + header.body_len as usize;
        let Some(body) = rest.get(..used - HEADER) else { return Ok(Parsed::More(used)) };
        header.check_body(body)?;
        let incoming = decode(&header, body).map_err(|why| FrameError::Malformed { kind, why })?;
        Ok(Parsed::Whole { incoming, header, used })
    }

    fn header(&self, kind: Kind, frame: &Frame, payload_len: u32, payload: &[u8], body: &[u8]) -> Result<Header, Fault> {
        let body_len = u32::try_from(body.len()).ok().filter(|&len| len <= super::BODY_MAX).ok_or("its body is too long")?;
        let checksum = self.checksum_payloads && payload_len > 0;
        Ok(Header {
            version: self.version,
            kind,
            resource: frame.resource,
            reign: frame.reign,
            body_len,
            payload_len,
            body_checksum: crc32fast::hash(body),
            payload_checksum: checksum.then(|| crc32fast::hash(payload)),
        })
    }
}

const fn kind_of(message: &Message) -> Kind {
    match message {
        Message::Write(_) => Kind::Write,
        Message::Zero(_) => Kind::Zero,
        Message::Written { .. } => Kind::Written,
        Message::Received { .. } => Kind::Received,
        Message::Flush { .. } => Kind::Flush,
        Message::Flushed { .. } => Kind::Flushed,
        Message::Settled { .. } => Kind::Settled,
        Message::Read { .. } => Kind::Read,
        Message::ReadReply { .. } => Kind::ReadReply,
        Message::Forward { .. } | Message::Answer { .. } => Kind::Forward,
        _ => Kind::Control,
    }
}

fn check_payload(kind: Kind, payload: &[u8]) -> Result<u32, Fault> {
    let max = if kind.has_payload() { PAYLOAD_MAX } else { 0 };
    u32::try_from(payload.len()).ok().filter(|&len| len <= max).ok_or("its payload is too long")
}

fn encode_body(message: &Message, payload: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    match message {
        Message::Write(write) => write.encode(payload, out),
        Message::Zero(zero) => zero.encode(out),
        Message::Written { seqs } | Message::Received { seqs } => encode_seqs(seqs, out),
        Message::Flush { id } => {
            out.extend_from_slice(&id.to_le_bytes());
            Ok(())
        }
        &Message::Flushed { id, durable } => {
            Flushed { id, durable }.encode(out);
            Ok(())
        }
        &Message::Settled { seq, older } => {
            Settled { seq, older }.encode(out);
            Ok(())
        }
        &Message::Read { id, range } => Read { id, range }.encode(out),
        &Message::ReadReply { id, ok } => ReadReply { id, ok }.encode(payload, out),
        forward @ (Message::Forward { .. } | Message::Answer { .. }) => {
            control::check_payload(forward, payload as u64)?;
            control::encode(forward, out)
        }
        control => control::encode(control, out),
    }
}

fn decode(header: &Header, body: &[u8]) -> Result<Incoming, Fault> {
    if header.kind.is_link() {
        return LinkMessage::decode(header, body).map(Incoming::Link);
    }
    let message = decode_body(header, body)?;
    Ok(Incoming::Engine(Frame { resource: header.resource, reign: header.reign, message }))
}

fn decode_body(header: &Header, body: &[u8]) -> Result<Message, Fault> {
    Ok(match header.kind {
        Kind::Write => Message::Write(Write::decode(body, header.payload_len)?),
        Kind::Zero => Message::Zero(Zero::decode(body)?),
        Kind::Written => Message::Written { seqs: decode_seqs(body)? },
        Kind::Received => Message::Received { seqs: decode_seqs(body)? },
        Kind::Flush => {
            let mut body = Body(body);
            let id = body.u64()?;
            body.end()?;
            Message::Flush { id }
        }
        Kind::Flushed => {
            let Flushed { id, durable } = Flushed::decode(body)?;
            Message::Flushed { id, durable }
        }
        Kind::Settled => {
            let Settled { seq, older } = Settled::decode(body)?;
            Message::Settled { seq, older }
        }
        Kind::Read => {
            let Read { id, range } = Read::decode(body)?;
            Message::Read { id, range }
        }
        Kind::ReadReply => {
            let ReadReply { id, ok } = ReadReply::decode(body, header.payload_len)?;
            Message::ReadReply { id, ok }
        }
        Kind::Forward => {
            let message = control::decode(body)?;
            control::check_payload(&message, u64::from(header.payload_len))?;
            message
        }
        Kind::Control => {
            let message = control::decode(body)?;
            if kind_of(&message) != Kind::Control {
                return Err("it has a kind of its own");
            }
            message
        }
        Kind::Hello | Kind::Ping | Kind::Pong | Kind::NotOpen => return Err("it belongs to the connection"),
    })
}

#[cfg(test)]
mod tests;
