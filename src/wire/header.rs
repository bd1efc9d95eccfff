//! The header that every frame begins with.
//!
//! | bytes | what |
//! |---|---|
//! | 0..2 | `bk` |
//! | 2 | protocol version; 0 in a hello |
//! | 3 | [`Kind`] |
//! | 4..6 | flags: 1, the payload has a checksum |
//! | 6..8 | zero |
//! | 8..16 | resource; zero in a frame of the connection |
//! | 16..24 | reign of the sender |
//! | 24..28 | length of the body |
//! | 28..32 | length of the payload, which follows the body |
//! | 32..36 | CRC-32 of the body |
//! | 36..40 | CRC-32 of the payload, or zero |
//! | 40..44 | zero |
//! | 44..48 | CRC-32 of bytes 0..44 |
//!
//! The header has a checksum of its own so that a damaged length is found at once, rather than after waiting for bytes that nobody
//! sent.

use super::{FrameError, Kind};
use crate::units::ResourceId;

/// A header's length in bytes.
pub const HEADER: usize = 48;

/// The longest body, in bytes: a staging buffer of `HEADER + BODY_MAX` holds any frame without its payload.
pub const BODY_MAX: u32 = 256 << 10;

/// The longest payload, in bytes.
pub const PAYLOAD_MAX: u32 = 32 << 20;

/// A header whose checksum, kind and lengths were found to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The protocol version it belongs to.
    pub version: u8,
    /// What the body is.
    pub kind: Kind,
    /// The resource.
    pub resource: ResourceId,
    /// The sender's reign.
    pub reign: u64,
    /// Bytes of the body.
    pub body_len: u32,
    /// Bytes of the payload.
    pub payload_len: u32,
    /// The body's CRC-32.
    pub body_checksum: u32,
    /// The payload's CRC-32, where the sender gave it one.
    pub payload_checksum: Option<u32>,
}

impl Header {
    /// Reads a header. Nothing in it is believed before its checksum is right.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Self, FrameError> {
        check_magic(bytes)?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let (stored, computed) = (u32_at(CHECKSUM), crc32fast::hash(&bytes[..CHECKSUM]));
        if stored != computed {
            return Err(FrameError::Damaged { part: "header", stored, computed });
        }
        let kind = Kind::of(bytes[3]).ok_or(FrameError::Kind(bytes[3]))?;
        let flags = u16::from_le_bytes([bytes[4], bytes[5]]);
        let has_checksum = flags == PAYLOAD_CHECKSUM;
        if flags & !PAYLOAD_CHECKSUM != 0 || bytes[6..8] != [0; 2] || bytes[40..CHECKSUM] != [0; 4] {
            return Err(FrameError::Malformed { kind, why: "reserved bits of the header are set" });
        }
        let header = Self {
            version: bytes[2],
            kind,
            resource: ResourceId(u64_at(8)),
            reign: u64_at(16),
            body_len: u32_at(24),
            payload_len: u32_at(28),
            body_checksum: u32_at(32),
            payload_checksum: has_checksum.then_some(u32_at(36)),
        };
        let payload_max = if kind.has_payload() { PAYLOAD_MAX } else { 0 };
        for (part, length, max) in [("body", header.body_len, BODY_MAX), ("payload", header.payload_len, payload_max)] {
            if length > max {
                return Err(FrameError::TooLong { kind, part, length, max });
            }
        }
        if !has_checksum && u32_at(36) != 0 {
            return Err(FrameError::Malformed { kind, why: "a checksum of the payload without its flag" });
        }
        Ok(header)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.version;
        bytes[3] = self.kind as u8;
        let flags = if self.payload_checksum.is_some() { PAYLOAD_CHECKSUM } else { 0 };
        bytes[4..6].copy_from_slice(&flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.resource.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.reign.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_checksum.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.payload_checksum.unwrap_or(0).to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Checks a payload that has arrived, all of it, against the sender's checksum; good where there is none.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), FrameError> {
        self.payload_checksum.map_or(Ok(()), |stored| check("payload", payload, stored))
    }

    pub(super) fn check_body(&self, body: &[u8]) -> Result<(), FrameError> {
        check("body", body, self.body_checksum)
    }
}

/// Whether these first bytes, however few, can begin a frame.
pub(super) fn check_magic(bytes: &[u8]) -> Result<(), FrameError> {
    let seen = &bytes[..bytes.len().min(MAGIC.len())];
    if MAGIC.starts_with(seen) { Ok(()) } else { Err(FrameError::Stranger { seen: bytes[..bytes.len().min(8)].to_vec() }) }
}

fn check(part: &'static str, bytes: &[u8], stored: u32) -> Result<(), FrameError> {
    let computed = crc32fast::hash(bytes);
    if stored == computed { Ok(()) } else { Err(FrameError::Damaged { part, stored, computed }) }
}

const MAGIC: [u8; 2] = *b"bk";
const PAYLOAD_CHECKSUM: u16 = 1;
const CHECKSUM: usize = 44;
