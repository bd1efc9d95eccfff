//! What a replica's metadata says, to people who look at it while its node is stopped.

use std::path::PathBuf;

use serde::Serialize;

use super::setup::Root;
use crate::units::{DiskState, Name};

/// Which metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataOf {
    /// That of this node's replica of a resource. The node is stopped.
    Replica(Name),
    /// What is in a file or on a device. Nobody uses it.
    File(PathBuf),
}

/// Brings metadata back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreMetadata {
    /// The node's root.
    pub root: Root,
    /// Where to.
    pub of: MetadataOf,
    /// The document that [`Setup::metadata_dump`](super::setup::Setup::metadata_dump) made.
    pub dump: String,
    /// Nothing has used the replica since the dump was made: what it says is still true.
    pub exact: bool,
    /// Also over what is somebody else's.
    pub force: bool,
}

/// What an area says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetadataReport {
    /// The file or device it is in.
    pub area: String,
    /// The cluster's id.
    pub cluster: String,
    /// The resource: its name where the node knows it, else its number.
    pub resource: String,
    /// The node it belongs to.
    pub node: String,
    /// The replica's id.
    pub replica: String,
    /// Its last life, and the one that this continues.
    pub incarnation: String,
    /// The life that [`incarnation`](Self::incarnation) cleanly continues; the same when it is a new one.
    pub continues: String,
    /// Whether that life has ended cleanly.
    pub clean: bool,
    /// The data's state.
    pub disk: DiskState,
    /// The last record that had it in sync: number and id.
    pub synced: Option<(u64, String)>,
    /// The record as the replica knows it.
    pub record: Option<RecordReport>,
    /// The record's ancestors, newest first.
    pub lineage: Vec<String>,
    /// Its volumes.
    pub volumes: Vec<VolumeReport>,
    /// What all that means, in sentences.
    pub meaning: Vec<String>,
    /// What is wrong with it, in sentences; empty when all is well.
    pub problems: Vec<String>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordReport {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// The id of the one before.
    pub parent: Option<String>,
    /// Who has all completed writes: node and incarnation.
    pub in_sync: Vec<(String, String)>,
    /// Who was primary.
    pub primary: Option<String>,
    /// The record with which that began.
    pub reign: u64,
    /// Who decides: `majority`, `off`.
    pub quorum: String,
}

/// The maps of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeReport {
    /// Its number.
    pub volume: u16,
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes of hot extents: where replicas may differ after a crash.
    pub hot_bytes: u64,
    /// What peers may lack.
    pub peers: Vec<DirtyReport>,
}

/// What a peer may lack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirtyReport {
    /// The peer.
    pub node: String,
    /// Bytes of dirty blocks.
    pub dirty_bytes: u64,
    /// Since which record; `None` for a peer that was never in sync with this replica.
    pub since: Option<(u64, String)>,
}
