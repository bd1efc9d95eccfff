//! Which pools a node has, and which parts of its replicas are in which.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{Node, PoolReport, Resource};
use crate::units::{Name, VolumeId};

/// The name of the pool that a node was made with.
pub static FIRST_POOL: LazyLock<Name> = LazyLock::new(|| "default".parse().expect("it is a name"));

/// A pool that was added to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodePool {
    /// What it is, as its node reads it: `lvm:GROUP` and so on.
    pub spec: String,
    /// How it is, as announced last; `None` while it cannot be used.
    pub report: Option<PoolReport>,
}

/// Where the parts of a replica are, by the names of its node's pools. Fixed when they are placed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The volumes that are not in [`FIRST_POOL`].
    pub volumes: BTreeMap<VolumeId, Name>,
    /// Where the metadata is, unless it is in [`FIRST_POOL`].
    pub metadata: Option<Name>,
}

impl Places {
    /// The pool that a volume is in.
    pub fn of(&self, volume: VolumeId) -> &Name {
        self.volumes.get(&volume).unwrap_or(&FIRST_POOL)
    }

    /// The pool that the metadata is in.
    pub fn metadata(&self) -> &Name {
        self.metadata.as_ref().unwrap_or(&FIRST_POOL)
    }

    /// Notes where a volume is.
    pub(super) fn put(&mut self, volume: VolumeId, pool: &Name) {
        if *pool == *FIRST_POOL {
            self.volumes.remove(&volume)
        } else {
            self.volumes.insert(volume, pool.clone())
        };
    }

    /// The pools that these volumes, and the metadata if it is asked for, are in.
    pub fn pools<'a>(&'a self, volumes: impl Iterator<Item = &'a VolumeId>, metadata: bool) -> impl Iterator<Item = &'a Name> {
        volumes.map(|volume| self.of(*volume)).chain(metadata.then(|| self.metadata()))
    }
}

impl Node {
    /// The pool that volumes go to when nobody says.
    pub fn usual_pool(&self) -> &Name {
        self.default_pool.as_ref().unwrap_or(&FIRST_POOL)
    }

    /// Whether the node has a pool of that name, be it usable or not.
    pub fn has_pool(&self, pool: &Name) -> bool {
        *pool == *FIRST_POOL || self.pools.contains_key(pool)
    }

    /// A pool as it was announced last; `None` while it cannot be used, and where there is none of that name.
    pub fn pool_report(&self, pool: &Name) -> Option<&PoolReport> {
        if *pool == *FIRST_POOL { self.pool.as_ref() } else { self.pools.get(pool)?.report.as_ref() }
    }

    /// Every pool that can be used.
    pub fn pool_reports(&self) -> impl Iterator<Item = (&Name, &PoolReport)> {
        let added = self.pools.iter().filter_map(|(name, pool)| Some((name, pool.report.as_ref()?)));
        self.pool.iter().map(|pool| (&*FIRST_POOL, pool)).chain(added)
    }
}

impl Resource {
    /// Where the parts of a new replica go on a node: to `pool`, if that is given, else where the resource wants them, else to the
    /// node's usual pool. Metadata goes with the first volume unless the resource wants it elsewhere.
    pub(super) fn places_on(&self, node: &Node, pool: Option<&Name>) -> Places {
        let mut places = Places::default();
        for &volume in self.volumes.keys() {
            places.put(volume, pool.or_else(|| self.pools.get(&volume)).unwrap_or_else(|| node.usual_pool()));
        }
        let first = self.volumes.keys().next().map_or_else(|| node.usual_pool(), |&first| places.of(first));
        let metadata = self.metadata_pool.as_ref().or(pool).unwrap_or(first).clone();
        places.metadata = Some(metadata).filter(|pool| *pool != *FIRST_POOL);
        places
    }
}
