//! What two nodes say to each other below all resources.

use super::body::Body;
use super::error::Fault;
use super::{Header, Hello, Kind};
use crate::units::ResourceId;

/// A message of the connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMessage {
    /// The first message in each direction.
    Hello(Hello),
    /// A heartbeat; asks for a lease on every session of the connection that is open (rule F2).
    Ping {
        /// Names the answer.
        seq: u64,
        /// When it was sent, by the sender's clock, which means nothing to the receiver; for its log.
        sent_at: u64,
    },
    /// The answer: grants the lease.
    Pong {
        /// The ping.
        seq: u64,
    },
    /// The answer to a message for a resource that is not open at the sender of this. Its session is over.
    NotOpen {
        /// The resource.
        resource: ResourceId,
    },
}

impl LinkMessage {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Ping { .. } => Kind::Ping,
            Self::Pong { .. } => Kind::Pong,
            Self::NotOpen { .. } => Kind::NotOpen,
        }
    }

    /// The resource that the header names.
    pub(super) const fn resource(&self) -> ResourceId {
        match self {
            Self::NotOpen { resource } => *resource,
            Self::Hello(_) | Self::Ping { .. } | Self::Pong { .. } => ResourceId(0),
        }
    }

    /// A ping is two integers, its number and its time; a pong is its number; "not open" is all in the header.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => hello.encode(out),
            Self::Ping { seq, sent_at } => {
                out.extend_from_slice(&seq.to_le_bytes());
                out.extend_from_slice(&sent_at.to_le_bytes());
            }
            Self::Pong { seq } => out.extend_from_slice(&seq.to_le_bytes()),
            Self::NotOpen { .. } => {}
        }
    }

    /// `header` must be of a kind that belongs to the connection.
    pub(super) fn decode(header: &Header, body: &[u8]) -> Result<Self, Fault> {
        if header.reign != 0 || (header.kind != Kind::NotOpen && header.resource != ResourceId(0)) {
            return Err("it names a resource or a reign, and belongs to none");
        }
        let mut body = Body(body);
        let message = match header.kind {
            Kind::Hello => return Hello::decode(body.0).map(Self::Hello),
            Kind::Ping => Self::Ping { seq: body.u64()?, sent_at: body.u64()? },
            Kind::Pong => Self::Pong { seq: body.u64()? },
            _ => Self::NotOpen { resource: header.resource },
        };
        body.end().map(|()| message)
    }
}
