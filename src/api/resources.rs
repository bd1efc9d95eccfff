//! Resources and their volumes: what is there, and how it comes and goes.

use serde::{Deserialize, Serialize};

use super::options::OptionValues;
use super::state::ResourceState;
use super::status::VolumeInfo;
use crate::units::{Name, ResourceId, VolumeId};

/// A resource in one line; [`ResourceStatus`](super::ResourceStatus) is the long form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name.
    pub name: Name,
    /// Its id, never used again.
    pub id: ResourceId,
    /// The port that its nodes replicate over.
    pub port: u16,
    /// How it is.
    pub state: ResourceState,
    /// Why it is so, in words; empty when `ok`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Its volumes.
    pub volumes: Vec<VolumeInfo>,
}

/// A volume with what its resource says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Its resource.
    pub resource: Name,
    /// The resource's port.
    pub port: u16,
    /// The resource's state.
    pub resource_state: ResourceState,
    /// Its number, size and device.
    #[serde(flatten)]
    pub volume: VolumeInfo,
    /// The volume's state.
    pub state: ResourceState,
    /// Why it is so, in words; empty when `ok`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Asks for resources.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListResources {
    /// This one only; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
}

/// Asks for volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListVolumes {
    /// Those of this resource only; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
}

/// Defines a resource without volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddResource {
    /// Its name.
    pub name: Name,
    /// Options that differ from the cluster's.
    #[serde(default)]
    pub options: OptionValues,
}

/// Removes a resource with all its volumes and replicas. It is gone from the lists when the last of its nodes has removed its
/// replica; a node that is away does so when it returns, and does not hold up the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveResource {
    /// The resource.
    pub resource: Name,
    /// Also when clients are connected, which are cut off.
    #[serde(default)]
    pub force: bool,
}

/// Adds a volume, and its resource when there is none of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddVolume {
    /// The resource.
    pub resource: Name,
    /// The volume's number; the lowest free one when absent.
    #[serde(default)]
    pub volume: Option<VolumeId>,
    /// Its size in bytes; rounded up to whole blocks.
    pub bytes: u64,
    /// How many replicas the resource shall have, placed where space is; absent: as it is now (none for a new one).
    #[serde(default)]
    pub deploy: Option<u32>,
    /// Options of the resource, when this creates it.
    #[serde(default)]
    pub options: OptionValues,
    /// The pool that it goes to on every node, by name; each node's usual one when absent.
    #[serde(default)]
    pub pool: Option<Name>,
    /// The pool that the metadata of the resource's future replicas goes to; that of its first volume when absent.
    #[serde(default)]
    pub metadata_pool: Option<Name>,
}

/// Makes a logical volume or file of the node that is asked the first replica of a new resource, with all that is on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptVolume {
    /// The resource; it has no volumes yet, or is made.
    pub resource: Name,
    /// `GROUP/VOLUME`, or the full path of a file.
    pub source: String,
    /// How many replicas the resource shall have; absent: this one.
    #[serde(default)]
    pub deploy: Option<u32>,
    /// Options of the resource, when this creates it.
    #[serde(default)]
    pub options: OptionValues,
    /// The node's pool that takes it; the one that it is in when absent.
    #[serde(default)]
    pub pool: Option<Name>,
}

/// What [`AddVolume`] or [`AdoptVolume`] has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedVolume {
    /// The volume's number.
    pub volume: VolumeId,
    /// Its size in bytes.
    pub bytes: u64,
    /// The nodes that have, or are now getting, a replica.
    pub nodes: Vec<Name>,
}

/// Grows a volume, while it is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// The resource.
    pub resource: Name,
    /// The volume's number.
    pub volume: VolumeId,
    /// Its new size in bytes, or by how much it grows; rounded up to whole blocks.
    pub bytes: u64,
    /// Whether `bytes` is added to the present size.
    #[serde(default)]
    pub by: bool,
}

/// What [`ResizeVolume`] has asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizedVolume {
    /// The size in bytes that the volume will have when every replica has grown.
    pub bytes: u64,
    /// What keeps it from growing now, and the way out: nodes that do not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Removes one volume from every replica of its resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveVolume {
    /// The resource.
    pub resource: Name,
    /// The volume's number.
    pub volume: VolumeId,
    /// Also when clients are connected, which are cut off.
    #[serde(default)]
    pub force: bool,
}

/// Asks how large a volume could be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFreeSpace {
    /// With how many replicas.
    pub redundancy: u32,
}

/// How large a volume could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeSpace {
    /// The largest volume at that redundancy, in bytes.
    pub largest: u64,
    /// The size of all pools together, in bytes.
    pub total: u64,
}
