//! The model as bytes: snapshots of the Raft log, and backups.
//!
//! A snapshot is a line of text naming format and version, then JSON. JSON, because a field that is added later can have a
//! default and an operator can read a backup; snapshots are rare and their size does not matter.

use super::Cluster;

/// The version that this program writes. It reads every version up to this one.
pub const SNAPSHOT_VERSION: u32 = 1;

const MAGIC: &str = "blkrep-model";

/// Why bytes are no model.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They are something else.
    #[error("this is no backup or snapshot of a blkrep model")]
    NotAModel,
    /// A newer program wrote them.
    #[error("the model has format {0} and this program reads up to {SNAPSHOT_VERSION}; install the version that wrote it")]
    TooNew(u32),
    /// They are damaged.
    #[error("the model is damaged: {0}")]
    Damaged(String),
}

impl Cluster {
    /// The model as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = format!("{MAGIC} {SNAPSHOT_VERSION}\n").into_bytes();
        serde_json::to_writer(&mut bytes, self).expect("the model holds nothing that JSON cannot say");
        bytes
    }

    /// The model from [`encode`](Self::encode)'s bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let line_end = bytes.iter().take(64).position(|&b| b == b'\n').ok_or(SnapshotError::NotAModel)?;
        let line = std::str::from_utf8(&bytes[..line_end]).map_err(|_| SnapshotError::NotAModel)?;
        let version =
            line.strip_prefix(MAGIC).and_then(|rest| rest.trim().parse::<u32>().ok()).ok_or(SnapshotError::NotAModel)?;
        if version > SNAPSHOT_VERSION {
            return Err(SnapshotError::TooNew(version));
        }
        serde_json::from_slice(&bytes[line_end + 1..]).map_err(|error| SnapshotError::Damaged(error.to_string()))
    }
}
