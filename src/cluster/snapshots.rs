//! Snapshots in the model: what they are, which nodes have a part of them, and when they are taken by themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Cluster, Places, Refusal, Resource};
use crate::units::{Name, NodeId, ResourceId, VolumeId};

/// Names a [`Snapshot`]; never used again, so that nothing that is left of one passes for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub u64);

/// All volumes of a resource as they were at one moment, on some of its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its identity.
    pub id: SnapshotId,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// Whether it can be used.
    pub state: SnapshotState,
    /// The volumes with their sizes in bytes.
    pub volumes: BTreeMap<VolumeId, u64>,
    /// The nodes that have a part of it, or are to have one while it is taken: where the volumes are there. All parts are the same.
    pub parts: BTreeMap<NodeId, Places>,
    /// What it is for.
    pub purpose: Purpose,
    /// The node that takes it: when its daemon starts anew, what it had not finished comes to nothing.
    pub taker: NodeId,
}

/// Where a snapshot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// It is being taken.
    Taking,
    /// It was taken.
    Ready,
}

/// What a snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Somebody asked for it, and it stays until somebody removes it.
    #[default]
    Asked,
    /// A schedule wanted it, and removes it.
    Scheduled,
    /// Something is made of it, and it goes when that is done.
    Copied,
}

/// When snapshots of a resource are taken by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Seconds between two.
    pub every: u64,
    /// How many stay.
    pub keep: u32,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

impl Schedule {
    /// The shortest interval, in seconds.
    pub const SHORTEST: u64 = 60;

    /// The moment of the last one that was due by `now`, if any was; those before it are not made up for.
    pub fn last_due(&self, now: u64) -> Option<u64> {
        Self::last_moment(self.since, self.every, now)
    }

    /// The last of the moments, `every` seconds apart after `since`, that is not after `now`.
    pub(super) fn last_moment(since: u64, every: u64, now: u64) -> Option<u64> {
        let times = now.checked_sub(since)? / every.max(1);
        (times > 0).then(|| since + times * every)
    }
}

/// What a replica is made of, until it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The name of the resource that the snapshot is of: its volumes are named after it.
    pub of: Name,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What it is called in the pools.
    pub stored: String,
}

/// A part of a snapshot that a node has to delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSnapshot {
    /// What it is called in the pools.
    pub stored: String,
    /// The volumes.
    pub volumes: BTreeSet<VolumeId>,
    /// Where they are.
    pub places: Places,
}

impl Snapshot {
    /// What it is called in the pools: its name, and its number, for a name may be used again.
    pub fn stored(&self, name: &Name) -> String {
        let short: String = name.as_str().chars().take(STORED_NAME).collect();
        format!("{short}.{}", self.id.0)
    }

    /// Its size in bytes, of one part.
    pub fn bytes(&self) -> u64 {
        self.volumes.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// A part as something to delete.
    pub(super) fn part(&self, name: &Name, node: NodeId) -> Option<StoredSnapshot> {
        let places = self.parts.get(&node)?.clone();
        Some(StoredSnapshot { stored: self.stored(name), volumes: self.volumes.keys().copied().collect(), places })
    }
}

impl Resource {
    /// A snapshot that can be used.
    pub fn snapshot(&self, name: &Name) -> Result<&Snapshot, Refusal> {
        let missing = || Refusal::NoSuchSnapshot(self.name.to_string(), name.to_string());
        let snapshot = self.snapshots.get(name).ok_or_else(missing)?;
        match snapshot.state {
            SnapshotState::Ready => Ok(snapshot),
            SnapshotState::Taking => Err(Refusal::SnapshotUnfinished(self.name.to_string(), name.to_string())),
        }
    }
}

impl Cluster {
    /// A resource, other than `except`, that is still being made of a snapshot, on the node `on` or on any.
    pub(super) fn user_of(&self, snapshot: SnapshotId, on: Option<NodeId>, except: Option<ResourceId>) -> Option<&Name> {
        let uses = |resource: &Resource| {
            resource.assignments.iter().any(|(node, assignment)| {
                let made_of_it = assignment.source.as_ref().is_some_and(|source| source.snapshot == snapshot);
                made_of_it && on.is_none_or(|on| on == *node)
            })
        };
        self.resources.values().find(|resource| Some(resource.id) != except && uses(resource)).map(|resource| &resource.name)
    }

    /// The snapshots that a node has not finished, with their resources.
    pub fn unfinished_by(&self, taker: NodeId) -> Vec<(ResourceId, SnapshotId)> {
        self.unfinished(|snapshot| snapshot.taker == taker)
    }

    /// The snapshots that were begun before then and are not finished, with their resources; in seconds since 1970.
    pub fn unfinished_since(&self, then: u64) -> Vec<(ResourceId, SnapshotId)> {
        self.unfinished(|snapshot| snapshot.created < then)
    }

    fn unfinished(&self, wanted: impl Fn(&Snapshot) -> bool) -> Vec<(ResourceId, SnapshotId)> {
        let of = |resource: &Resource| {
            let open = resource.snapshots.values().filter(|one| one.state == SnapshotState::Taking && wanted(one));
            open.map(|snapshot| (resource.id, snapshot.id)).collect::<Vec<_>>()
        };
        self.resources.values().flat_map(|resource| of(resource)).collect()
    }
}

/// So many characters of a snapshot's name are part of what it is called in a pool.
const STORED_NAME: usize = 70;
