//! Snapshots: all volumes of a resource as they were at one moment.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::VolumeInfo;
use crate::units::Name;

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The resource that it is of.
    pub resource: Name,
    /// Its name among the resource's snapshots.
    pub name: Name,
    /// When it was taken, in seconds since 1970.
    pub created: u64,
    /// Whether it can be used.
    pub state: SnapshotState,
    /// Whether a schedule took it, and will remove it.
    pub scheduled: bool,
    /// The nodes that have a part of it; each has all volumes.
    pub nodes: Vec<Name>,
    /// The volumes, as they were.
    pub volumes: Vec<VolumeInfo>,
}

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// It is being taken.
    Taking,
    /// It can be used.
    Ok,
}

impl fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Taking => "being taken",
            Self::Ok => "ok",
        })
    }
}

/// Asks for the snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListSnapshots {
    /// Of this resource only; of all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
}

/// Takes a snapshot of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddSnapshot {
    /// The resource.
    pub resource: Name,
    /// What the snapshot shall be called.
    pub snapshot: Name,
    /// Where; on every node with an up-to-date replica when empty.
    #[serde(default)]
    pub nodes: Vec<Name>,
}

/// A snapshot that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenSnapshot {
    /// The nodes that have a part of it.
    pub nodes: Vec<Name>,
    /// For how many milliseconds writes waited.
    pub held: u64,
    /// What the one who asked should know.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Removes a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveSnapshot {
    /// The resource.
    pub resource: Name,
    /// The snapshot.
    pub snapshot: Name,
    /// The part on this node only; all when absent.
    #[serde(default)]
    pub node: Option<Name>,
}

/// Makes a resource of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreSnapshot {
    /// What the new resource shall be called.
    pub resource: Name,
    /// The resource that the snapshot is of.
    pub source: Name,
    /// The snapshot.
    pub snapshot: Name,
    /// Where; on every node with a part of it when empty.
    #[serde(default)]
    pub nodes: Vec<Name>,
}

/// Puts what a snapshot has in the place of its resource's data. Nobody may use that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackSnapshot {
    /// The resource.
    pub resource: Name,
    /// The snapshot.
    pub snapshot: Name,
}

/// Makes a resource that has what another has at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneResource {
    /// The resource to be copied.
    pub source: Name,
    /// What the new one shall be called.
    pub resource: Name,
    /// Where; on every node with an up-to-date replica when empty.
    #[serde(default)]
    pub nodes: Vec<Name>,
}

/// Has snapshots of a resource taken by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSnapshots {
    /// The resource.
    pub resource: Name,
    /// Seconds between two; absent: no more.
    #[serde(default)]
    pub every: Option<u64>,
    /// How many stay.
    #[serde(default)]
    pub keep: Option<u32>,
}

/// Asks for the schedules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListSchedules {}

/// When snapshots of a resource are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSchedule {
    /// The resource.
    pub resource: Name,
    /// Seconds between two.
    pub every: u64,
    /// How many stay.
    pub keep: u32,
    /// When the last one was taken, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// When the next one is due, in seconds since 1970.
    pub next: u64,
}
