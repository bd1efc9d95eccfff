//! Assignments: which node has a replica of what.

use serde::{Deserialize, Serialize};

use super::state::AssignmentState;
use super::status::VolumeInfo;
use crate::units::{Name, NodeId};

/// A resource on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The node.
    pub node: Name,
    /// The node's id.
    pub node_id: NodeId,
    /// The resource.
    pub resource: Name,
    /// Whether the node uses the resource without a replica.
    pub diskless: bool,
    /// What is there.
    pub current: Replicas,
    /// What shall be there.
    pub target: Replicas,
    /// How it is.
    pub state: AssignmentState,
    /// Why it is so, in words; empty when `ok`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The resource's volumes.
    pub volumes: Vec<VolumeInfo>,
}

/// Whether a node has (or shall have) a replica, and is connected to its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// The resource is up on the node.
    pub deployed: bool,
    /// With every peer.
    pub connected: bool,
}

/// Asks for assignments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAssignments {
    /// Those of this resource only; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
    /// Those of this node only; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
}

/// Puts a replica of a resource on a node, or lets the node use it without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignResource {
    /// The resource.
    pub resource: Name,
    /// The node.
    pub node: Name,
    /// Whether without a replica.
    #[serde(default)]
    pub diskless: bool,
    /// The pool of the replica, by name; absent: where the volumes want to be.
    #[serde(default)]
    pub pool: Option<Name>,
}

/// Takes a resource's replica, or use, from a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnassignResource {
    /// The resource.
    pub resource: Name,
    /// The node.
    pub node: Name,
    /// Also when clients are connected there, or it is the last replica with the newest data.
    #[serde(default)]
    pub force: bool,
}

/// Sets how many replicas a resource has; nodes are chosen by their free space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployResource {
    /// The resource.
    pub resource: Name,
    /// How many.
    pub count: u32,
    /// Whether so many more or fewer than now; in all when absent.
    #[serde(default)]
    pub relative: Option<Relative>,
    /// Whether every other node shall be able to use it without a replica.
    #[serde(default)]
    pub with_clients: bool,
    /// The pool of new replicas, by name; absent: where the volumes want to be.
    #[serde(default)]
    pub pool: Option<Name>,
}

/// More or fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relative {
    /// So many more.
    More,
    /// So many fewer.
    Fewer,
}

/// Takes every replica of a resource away and keeps its definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndeployResource {
    /// The resource.
    pub resource: Name,
    /// Also when clients are connected, which are cut off.
    #[serde(default)]
    pub force: bool,
}

/// Where replicas are, or are going to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The nodes with a replica.
    pub nodes: Vec<Name>,
    /// What the one who asked should know: "node 'beta' is offline; its replica is made when it returns".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}
