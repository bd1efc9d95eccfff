//! What nodes still have to delete.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Places, StoredSnapshot};
use crate::units::{Name, NodeId, ReplicaId, ResourceId, VolumeId};

/// Names a [`Leftover`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeftoverId(pub u64);

/// Storage that a node has to delete. While one with a resource's name is open, the node creates no storage of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The node.
    pub node: NodeId,
    /// The resource it belonged to.
    pub resource: ResourceId,
    /// That resource's name, which the storage is named after.
    pub name: Name,
    /// The replica it belonged to.
    pub replica: ReplicaId,
    /// The volumes.
    pub volumes: BTreeSet<VolumeId>,
    /// Whether the metadata goes, too: always, but when single volumes of a resource were removed.
    pub metadata: bool,
    /// Where they are.
    #[serde(default)]
    pub places: Places,
    /// The parts of snapshots, which go first.
    #[serde(default)]
    pub snapshots: Vec<StoredSnapshot>,
    /// Of the volumes, those that are not deleted but given back as what they were, because no replica was made of them yet.
    #[serde(default)]
    pub adopts: BTreeMap<VolumeId, String>,
}
