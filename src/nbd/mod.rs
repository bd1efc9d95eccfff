//! The NBD protocol, both ends of it, as pure values: bytes in, values out, values in, bytes out.
//!
//! | file | what it is |
//! |---|---|
//! | [`negotiation`] | the server's side of the handshake, a state machine |
//! | [`request`] | a client's request, decoded and checked once |
//! | [`reply`] | the headers of replies, encoded |
//! | [`export`] | what a client is told about an export |
//! | [`option`] | the numbers of the handshake |
//! | [`flags`], [`errno`] | the flags and error numbers of the transmission phase |
//! | [`client`] | the client's side: handshake, requests, replies |
//!
//! The clauses that comments name are those of the protocol's own document, `proto.md` with the extended headers.
//!
//! The room knows nothing of sockets, clocks, TLS or what an export is stored on. Whoever drives it moves the bytes, and
//! sets limits of time: a client that says nothing is no error here.

pub mod client;
mod cursor;
pub mod errno;
pub mod export;
pub mod flags;
mod head;
mod inbox;
pub mod negotiation;
pub mod option;
pub mod reply;
pub mod request;

pub use errno::Errno;
pub use export::{BlockSizes, Export, Refusal};
pub use flags::TransmissionFlags;
pub use head::Head;
pub use negotiation::{Action, CloseReason, Listed, Negotiation, Purpose, TlsPolicy};
pub use request::{Request, Tag};

/// The longest string of the protocol, in bytes (names, descriptions, error texts).
pub const MAX_STRING: usize = 4096;

/// The largest payload that is served, in bytes; what every client may assume when it asks for no block sizes.
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// What an NBD client and this server have agreed on for the transmission phase.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mode {
    /// READ and BLOCK_STATUS are answered by structured chunks.
    pub structured: bool,
    /// 32-byte request headers with 64-bit lengths, and extended replies.
    pub extended: bool,
    /// The context id under which `base:allocation` was selected for this export.
    pub allocation: Option<u32>,
    /// The export may not be written.
    pub read_only: bool,
}

impl Mode {
    /// The transmission flags that a client in this mode is told, and so the features that its requests may use.
    pub fn flags(&self) -> TransmissionFlags {
        use TransmissionFlags as F;
        let mut flags = F::HAS_FLAGS | F::SEND_FLUSH | F::CAN_MULTI_CONN | F::SEND_CACHE;
        flags |= match self.read_only {
            true => F::READ_ONLY,
            false => F::SEND_FUA | F::SEND_TRIM | F::SEND_WRITE_ZEROES | F::SEND_FAST_ZERO,
        };
        if self.has_chunks() {
            flags |= F::SEND_DF;
        }
        if self.extended && self.allocation.is_some() {
            flags |= F::BLOCK_STATUS_PAYLOAD;
        }
        flags
    }

    /// Whether replies are made of chunks, structured or extended ones.
    pub fn has_chunks(&self) -> bool {
        self.structured || self.extended
    }
}

/// The bytes of a string, at most [`MAX_STRING`] of them, cut between characters.
fn clip(text: &str) -> &[u8] {
    let mut end = text.len().min(MAX_STRING);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_depend_on_an_agreement_are_not_shown_without_it() {
        let plain = Mode::default().flags();
        assert!(!plain.has(TransmissionFlags::SEND_DF));
        assert!(!plain.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD));
        let structured = Mode { structured: true, allocation: Some(1), ..Mode::default() }.flags();
        assert!(structured.has(TransmissionFlags::SEND_DF));
        assert!(!structured.has(TransmissionFlags::BLOCK_STATUS_PAYLOAD));
        let extended = Mode { structured: true, extended: true, allocation: Some(1), ..Mode::default() }.flags();
        assert!(extended.has(TransmissionFlags::SEND_DF | TransmissionFlags::BLOCK_STATUS_PAYLOAD));
    }

    #[test]
    fn a_read_only_export_shows_no_way_to_write() {
        let flags = Mode { read_only: true, ..Mode::default() }.flags();
        assert!(flags.has(TransmissionFlags::READ_ONLY | TransmissionFlags::HAS_FLAGS));
        for write in [TransmissionFlags::SEND_TRIM, TransmissionFlags::SEND_WRITE_ZEROES, TransmissionFlags::SEND_FAST_ZERO] {
            assert!(!flags.has(write));
        }
    }
}
