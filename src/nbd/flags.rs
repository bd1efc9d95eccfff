//! The flags of handshake, export, request and reply.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// What a server says in its greeting: that it speaks fixed newstyle, and that the padding of EXPORT_NAME may be left out.
pub const HANDSHAKE_FIXED_NEWSTYLE: u16 = 1 << 0;
/// See [`HANDSHAKE_FIXED_NEWSTYLE`].
pub const HANDSHAKE_NO_ZEROES: u16 = 1 << 1;

/// What a client answers: it speaks fixed newstyle.
pub const CLIENT_FIXED_NEWSTYLE: u32 = 1 << 0;
/// It wants no padding after EXPORT_NAME.
pub const CLIENT_NO_ZEROES: u32 = 1 << 1;

/// What a client is told that an export can do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TransmissionFlags(pub u16);

impl TransmissionFlags {
    /// Always set.
    pub const HAS_FLAGS: Self = Self(1 << 0);
    /// Writes are refused.
    pub const READ_ONLY: Self = Self(1 << 1);
    /// FLUSH is served.
    pub const SEND_FLUSH: Self = Self(1 << 2);
    /// The FUA flag is honoured.
    pub const SEND_FUA: Self = Self(1 << 3);
    /// Seeks cost time.
    pub const ROTATIONAL: Self = Self(1 << 4);
    /// TRIM is served.
    pub const SEND_TRIM: Self = Self(1 << 5);
    /// WRITE_ZEROES is served.
    pub const SEND_WRITE_ZEROES: Self = Self(1 << 6);
    /// Reads can be asked for in one piece (DF). Only with structured or extended replies.
    pub const SEND_DF: Self = Self(1 << 7);
    /// A flush on one connection covers the writes of all.
    pub const CAN_MULTI_CONN: Self = Self(1 << 8);
    /// CACHE is served.
    pub const SEND_CACHE: Self = Self(1 << 10);
    /// WRITE_ZEROES can be asked to fail rather than be slow.
    pub const SEND_FAST_ZERO: Self = Self(1 << 11);
    /// BLOCK_STATUS may name the contexts it asks for. Only with extended headers and a context.
    pub const BLOCK_STATUS_PAYLOAD: Self = Self(1 << 12);

    /// Whether every flag of `flags` is set.
    pub fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl BitOr for TransmissionFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for TransmissionFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for TransmissionFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransmissionFlags({:#06x})", self.0)
    }
}

/// Request flag: answer when the data is durable.
pub const COMMAND_FUA: u16 = 1 << 0;
/// Request flag of WRITE_ZEROES: leave no hole.
pub const COMMAND_NO_HOLE: u16 = 1 << 1;
/// Request flag of READ: answer in one piece.
pub const COMMAND_DF: u16 = 1 << 2;
/// Request flag of BLOCK_STATUS: describe one extent.
pub const COMMAND_REQ_ONE: u16 = 1 << 3;
/// Request flag of WRITE_ZEROES: fail if it is no faster than a write.
pub const COMMAND_FAST_ZERO: u16 = 1 << 4;
/// Request flag with extended headers: the header's length is that of a payload.
pub const COMMAND_PAYLOAD_LEN: u16 = 1 << 5;

/// Flag of a structured or extended reply: no more chunks follow for this request.
pub const REPLY_DONE: u16 = 1 << 0;
