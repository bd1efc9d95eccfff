//! What a client is told about an export, or why it is told nothing.

use super::MAX_PAYLOAD;
use super::option::reply;

/// An export as its clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The export's own name; clients may know it by others (such as the empty name of a default export).
    pub name: String,
    /// A text for people; empty for none.
    pub description: String,
    /// In bytes.
    pub size: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// What requests should be made of.
    pub blocks: BlockSizes,
}

/// What requests should be made of, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths must be multiples of it. A power of two up to 65536.
    pub minimum: u32,
    /// Offsets and lengths that are multiples of it are served best. A power of two, at least 512 and the minimum.
    pub preferred: u32,
    /// The longest payload of a request.
    pub payload: u32,
}

impl Default for BlockSizes {
    /// Any offset and length, best in blocks of 4096, up to 32 MiB: what clients that ask for no sizes may assume.
    fn default() -> Self {
        Self { minimum: 1, preferred: 4096, payload: MAX_PAYLOAD }
    }
}

/// Why a client is refused during the handshake. The text reaches its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(super) code: u32,
    pub(super) text: String,
}

impl Refusal {
    /// There is no such export, or it cannot be had now.
    pub fn unknown(text: impl Into<String>) -> Self {
        Self { code: reply::ERR_UNKNOWN, text: text.into() }
    }

    /// There is, and this client may not have it.
    pub fn policy(text: impl Into<String>) -> Self {
        Self { code: reply::ERR_POLICY, text: text.into() }
    }

    /// Not without TLS. Told to clients as [`policy`](Self::policy) where the protocol forbids to ask for TLS: when the
    /// connection has it already, and in answers to options that open no export.
    pub fn tls_required(text: impl Into<String>) -> Self {
        Self { code: reply::ERR_TLS_REQD, text: text.into() }
    }

    /// The server is ending.
    pub fn shutdown(text: impl Into<String>) -> Self {
        Self { code: reply::ERR_SHUTDOWN, text: text.into() }
    }

    /// What the client's user will read.
    pub fn text(&self) -> &str {
        &self.text
    }
}
