//! What an operator has the replicas of a resource do.

use serde::{Deserialize, Serialize};

use crate::units::{Name, VolumeId};

/// Compares the replicas of a resource, block by block. Answered when it has begun; the status shows how far it is, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyResource {
    /// The resource.
    pub resource: Name,
    /// Whether differences are made equal, where it is decided whose copy is right.
    #[serde(default)]
    pub repair: bool,
    /// End the one that is under way, rather than begin one.
    #[serde(default)]
    pub stop: bool,
}

/// Sets when the replicas of a resource are compared by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleVerify {
    /// The resource.
    pub resource: Name,
    /// Seconds between the beginnings of two; absent: no more of them. The first one begins that long after this.
    #[serde(default)]
    pub every: Option<u64>,
    /// Whether differences are made equal, where it is decided whose copy is right.
    #[serde(default)]
    pub repair: bool,
}

/// When the replicas of a resource are compared by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifySchedule {
    /// Seconds between the beginnings of two.
    pub every: u64,
    /// Whether differences are made equal.
    pub repair: bool,
    /// When the last one began, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

/// Puts a new, empty replica in the place of one whose disk is lost. It is brought up to date by a resync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceDisk {
    /// The resource.
    pub resource: Name,
    /// The node.
    pub node: Name,
    /// The pool of the new replica, by name; absent: where the present one is.
    #[serde(default)]
    pub pool: Option<Name>,
    /// Also when clients are connected there, which are cut off, or the node cannot say whether it has what the others lack.
    #[serde(default)]
    pub force: bool,
}

/// Trusts a replica no further: its data is deleted, and it gets everything from the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invalidate {
    /// The resource.
    pub resource: Name,
    /// The node; the one that is asked when absent.
    #[serde(default)]
    pub node: Option<Name>,
}

/// Pauses resyncs of a resource, or lets them go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SteerResync {
    /// The resource.
    pub resource: Name,
    /// To and from the replica on this node; all when absent.
    #[serde(default)]
    pub node: Option<Name>,
    /// Pause them, rather than let them go on.
    pub pause: bool,
}

/// Makes a node primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// The resource.
    pub resource: Name,
    /// The node; the one that is asked when absent.
    #[serde(default)]
    pub node: Option<Name>,
    /// With what its replica has, though others had more that cannot be reached: that is lost.
    #[serde(default)]
    pub force: bool,
}

/// Has the primary give up the role, which nobody uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demote {
    /// The resource.
    pub resource: Name,
}

/// Keeps a node from talking to the others about a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disconnect {
    /// The resource.
    pub resource: Name,
    /// The node.
    pub node: Name,
    /// Also if clients wait then until it is connected again.
    #[serde(default)]
    pub force: bool,
}

/// Lets a node talk to the others again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// The resource.
    pub resource: Name,
    /// The node; all that were disconnected when absent.
    #[serde(default)]
    pub node: Option<Name>,
}

/// What the last verify has found of a replica, compared with that of the node that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verify {
    /// How far it is.
    pub state: VerifyState,
    /// The reign in which it was made: of two, the one of the higher is the later.
    pub reign: u64,
    /// How many bytes are to be compared.
    pub total: u64,
    /// How many were.
    pub done: u64,
    /// How many blocks of 4 KiB differed.
    pub different: u64,
    /// The volume of the first of them, and its offset there in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<(VolumeId, u64)>,
    /// Whether differences were to be repaired.
    pub repair: bool,
    /// How many of them are made equal; of the others it is not decided whose copy is right.
    pub repaired: u64,
    /// How many blocks of 4 KiB the replica could not read.
    pub unread: u64,
}

/// How far a verify is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyState {
    /// It is going on.
    Running,
    /// Every block was compared.
    Done,
    /// It has ended before that.
    Broken,
}
