//! A new replica's metadata area.

use std::collections::BTreeMap;

use super::layout::{Span, plan};
use super::superblock::{PeerSlot, SUPERBLOCK, Superblock, TooLarge, superblock_at};
use crate::units::{ClusterId, Incarnation, NodeId, Record, RecordId, ReplicaId, ResourceId, VolumeId};

/// How many peers a new area has room for, unless asked otherwise: eight replicas, with room to grow.
pub const SLOTS_DEFAULT: u16 = 7;

/// What a replica begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReplica {
    /// The cluster.
    pub cluster: ClusterId,
    /// The resource.
    pub resource: ResourceId,
    /// The node.
    pub node: NodeId,
    /// The replica, newly drawn.
    pub replica: ReplicaId,
    /// Newly drawn; the replica counts as cleanly stopped in it, so that its first start continues it.
    pub incarnation: Incarnation,
    /// A new resource's first record; `None` for a replica that joins a resource that exists.
    pub record: Option<Record>,
    /// The record that has the replica in sync; `None` for one that joins.
    pub synced: Option<(u64, RecordId)>,
    /// The peers that get a bitmap at once.
    pub peers: Vec<PeerSlot>,
    /// Volume sizes in bytes.
    pub volumes: BTreeMap<VolumeId, u64>,
    /// How many peers there is room for; see [`SLOTS_DEFAULT`].
    pub slots: u16,
}

/// A step of making an area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make these bytes zero. Where all of a file is a hole already, as after creating it, there is nothing to do; the blocks of a volume
    /// have to be overwritten, for they hold what was there before.
    Zero(Span),
    /// Write these bytes.
    Write {
        /// The first byte.
        at: u64,
        /// What.
        bytes: Box<[u8]>,
    },
    /// Make all steps before this one durable before the next begins.
    Flush,
}

/// The steps that make a new area, to be taken in this order. The area is [`area_len`](super::area_len) bytes long. If they are
/// interrupted the area reads as empty or as what it becomes, never as what was there before.
pub fn create(new: &NewReplica) -> Result<Vec<Step>, TooLarge> {
    let regions = plan(&new.volumes, new.slots);
    let superblock = Superblock {
        version: 1,
        cluster: new.cluster,
        resource: new.resource,
        node: new.node,
        replica: new.replica,
        incarnation: new.incarnation,
        continues: new.incarnation,
        clean: true,
        inconsistent: false,
        outdated: false,
        synced: new.synced,
        record: new.record.clone(),
        parted: None,
        lineage: Vec::new(),
        peers: new.peers.clone(),
        regions,
    };
    let bytes = superblock.encode()?;
    let slots = Span { at: 0, len: 2 * SUPERBLOCK as u64 };
    let maps = superblock.regions.iter().map(|region| Step::Zero(region.span()));
    let mut steps = vec![Step::Zero(slots), Step::Flush];
    steps.extend(maps);
    steps.extend([Step::Flush, Step::Write { at: superblock_at(0), bytes }, Step::Flush]);
    Ok(steps)
}
