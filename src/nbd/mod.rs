//! The NBD protocol (pure).

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
