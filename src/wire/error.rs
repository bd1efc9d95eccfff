//! What can be wrong with a frame, and who is to blame.

use super::{Kind, RANGES_MAX};

/// Why bytes from a peer are no frame. The connection cannot go on after any of them: where the next frame begins is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes are not this protocol at all.
    #[error(
        "the peer does not speak blkrep's replication protocol (it began with {seen:02x?}): check that the address and port are \
         those of a blkrep node"
    )]
    Stranger {
        /// How it began.
        seen: Vec<u8>,
    },
    /// A frame of another version than the one agreed upon.
    #[error(
        "the peer sent a frame of protocol version {seen} where version {expected} was agreed upon: a fault of the peer's program; \
         upgrade it"
    )]
    Version {
        /// The frame's.
        seen: u8,
        /// The connection's; 0 before the peer's hello.
        expected: u8,
    },
    /// A kind of frame that the agreed version does not have.
    #[error("the peer sent a frame of the unknown kind {0}: a fault of the peer's program; upgrade it")]
    Kind(u8),
    /// A length beyond its bound.
    #[error("the peer sent a {kind:?} with {length} bytes of {part}, more than {max}: a fault of the peer's program; upgrade it")]
    TooLong {
        /// What kind of frame.
        kind: Kind,
        /// Body or payload.
        part: &'static str,
        /// How long it would be.
        length: u32,
        /// How long it may be.
        max: u32,
    },
    /// The content of a whole frame makes no sense.
    #[error("the peer sent a {kind:?} that cannot be ({why}): a fault of the peer's program; upgrade it")]
    Malformed {
        /// What kind of frame.
        kind: Kind,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A checksum is wrong.
    #[error(
        "the {part} of a frame was damaged on the way ({stored:08x} was sent, {computed:08x} arrived): the connection is made anew and \
         the frame sent again; if it comes back, check the network cards and switches between the nodes, or set peer-tls=on"
    )]
    Damaged {
        /// Header, body or payload.
        part: &'static str,
        /// The checksum in the frame.
        stored: u32,
        /// That of the bytes that arrived.
        computed: u32,
    },
}

/// Who made a frame wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The other end is not a blkrep node; dialling again at once is pointless.
    Stranger,
    /// The peer's program is at fault, or of another version; dialling again will meet the same.
    Peer,
    /// The network; a new connection may well be good.
    Network,
}

impl FrameError {
    /// Who is at fault.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Stranger { .. } => Blame::Stranger,
            Self::Version { .. } | Self::Kind(_) | Self::TooLong { .. } | Self::Malformed { .. } => Blame::Peer,
            Self::Damaged { .. } => Blame::Network,
        }
    }
}

/// A message breaks a bound of the protocol, and no peer would take it: a mistake of whoever made it. Nothing was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {kind:?} cannot be sent ({why}); lists have at most {RANGES_MAX} entries")]
pub struct Unsendable {
    /// What kind of frame.
    pub kind: Kind,
    /// What is wrong with it.
    pub why: &'static str,
}

/// What is wrong with a frame's content; becomes [`FrameError::Malformed`] or [`Unsendable`].
pub(super) type Fault = &'static str;
