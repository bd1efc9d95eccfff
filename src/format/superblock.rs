//! The superblock: who a replica is, what it goes by, and where the rest of its metadata lies.

mod codec;
mod error;
mod slots;
#[cfg(test)]
pub(super) mod strategies;

pub use error::{SlotsError, SuperblockError, TooLarge};
pub use slots::{Present, choose, superblock_at};

use serde::{Deserialize, Serialize};

use crate::units::{ClusterId, DiskState, Incarnation, NodeId, Record, RecordId, ReplicaId, ResourceId, VolumeId};

/// Everything about a replica that is not a bit of a map. Two copies of it lie in two slots and are written in turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Superblock {
    /// Counts the writes of the superblock; the greater of two valid slots is the present one.
    pub version: u64,
    /// The cluster.
    pub cluster: ClusterId,
    /// The resource.
    pub resource: ResourceId,
    /// The node the replica belongs to.
    pub node: NodeId,
    /// The replica.
    pub replica: ReplicaId,
    /// The present or last life.
    pub incarnation: Incarnation,
    /// The incarnation that it continues cleanly.
    pub continues: Incarnation,
    /// That life has ended cleanly: drained, flushed, maps durable. False from a start until the next clean stop.
    pub clean: bool,
    /// A resync has begun and not been followed by an admission.
    pub inconsistent: bool,
    /// Others may have gone on without this replica (rule Q7, or an operator's `outdate`).
    pub outdated: bool,
    /// The last record that had the replica in sync: number and id.
    pub synced: Option<(u64, RecordId)>,
    /// The record.
    pub record: Option<Record>,
    /// Where this replica's line left that of the other replica: a node that decides alone has changed the record without it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parted: Option<Parted>,
    /// Ancestors of the record, newest first, at most [`LINEAGE_MAX`].
    pub lineage: Vec<RecordId>,
    /// The peers that have a dirty bitmap here; the position is the bitmap's slot.
    pub peers: Vec<PeerSlot>,
    /// The volumes' maps.
    pub regions: Vec<Region>,
}

impl Superblock {
    /// How far the data can be trusted, as this replica alone knows.
    pub fn disk(&self) -> DiskState {
        if self.inconsistent || self.synced.is_none() {
            DiskState::Inconsistent
        } else if self.outdated {
            DiskState::Outdated
        } else {
            DiskState::UpToDate
        }
    }
}

/// A superblock's slot, in bytes.
pub const SUPERBLOCK: usize = 16 << 10;

/// The most replicas in a record's in-sync set.
pub const MEMBERS_MAX: usize = 32;

/// How many ancestors a superblock remembers. An older ancestor is taken for unknown, which costs a decision, never data.
pub const LINEAGE_MAX: usize = 64;

/// The last record that two replicas that decide alone are known to have had in common (rule Q4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parted {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub id: RecordId,
    /// It had this node as primary.
    pub primary: bool,
    /// Something may have been written since.
    pub written: bool,
}

/// A peer that has a dirty bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSlot {
    /// The peer.
    pub node: NodeId,
    /// The record at which it was last admitted, number and id: the bitmap serves a peer at any record since (rule M6). `None`
    /// when it was never in sync with this replica's line.
    pub base: Option<(u64, RecordId)>,
}

/// Where a volume's activity map and bitmaps lie in the metadata area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// The volume.
    pub volume: VolumeId,
    /// Its size in bytes.
    pub bytes: u64,
    /// The first byte of the region, a multiple of 4096.
    pub at: u64,
    /// How many bitmaps the region has room for.
    pub slots: u16,
}
