//! What the parts of a running node share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drbdpool::Pool;
use tokio::sync::Notify;

use super::attachments::Book;
use super::config::Config;
use super::consensus::Consensus;
use super::holds::Holds;
use super::net::{Gate, Peers};
use super::replica::ReplicaMaker;
use super::snapshots::part::Taking;
use crate::api::setup::Root;
use crate::cluster::Cluster;
use crate::runtime::DataPlane;
use crate::units::{ClusterId, Name, NodeId, ResourceId};

/// A running node.
pub struct Node {
    /// Its directories.
    pub root: Root,
    /// Its own settings.
    pub config: Config,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub me: NodeId,
    /// The agreement on the model.
    pub consensus: Consensus,
    /// Who may come in.
    pub gate: Gate,
    /// The ways to the other nodes.
    pub peers: Arc<Peers>,
    /// The data plane.
    pub plane: Arc<dyn DataPlane>,
    /// Its pools that are open, by name.
    pub pools: Mutex<BTreeMap<Name, Arc<dyn Pool>>>,
    /// Makes metadata.
    pub maker: Arc<dyn ReplicaMaker>,
    /// What could not be done, the last time it was tried.
    pub board: Board,
    /// Resources that nobody is attached to while it is decided whether they go.
    pub holds: Holds,
    /// Volumes as block devices.
    pub attachments: Book,
    /// Parts of snapshots that are being taken.
    pub taking: Taking,
}

impl Node {
    /// The model as this node knows it.
    pub fn model(&self) -> Arc<Cluster> {
        self.consensus.model()
    }

    /// A pool, if it is open.
    pub fn pool(&self, name: &Name) -> Option<Arc<dyn Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Sets a pool that was opened, or forgets one.
    pub fn set_pool(&self, name: &Name, pool: Option<Arc<dyn Pool>>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        match pool {
            Some(pool) => pools.insert(name.clone(), pool),
            None => pools.remove(name),
        };
    }
}

/// What could not be done on this node, for its status; and the wish to have something tried soon.
#[derive(Default)]
pub struct Board {
    failures: Mutex<BTreeMap<ResourceId, String>>,
    pools: Mutex<BTreeMap<Name, String>>,
    /// Wakes the reconciler.
    pub kick: Notify,
}

impl Board {
    /// Notes why something of a resource could not be done, or that it was; whether that is news.
    pub fn note(&self, resource: ResourceId, failure: Option<String>) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) => failures.insert(resource, failure.clone()).is_none_or(|before| before != failure),
            None => failures.remove(&resource).is_some(),
        }
    }

    /// Everything that could not be done.
    pub fn failures(&self) -> BTreeMap<ResourceId, String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why a pool cannot be used, or that it can; whether that is news.
    pub fn note_pool(&self, name: &Name, failure: Option<String>) -> bool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) => pools.insert(name.clone(), failure.clone()).is_none_or(|before| before != failure),
            None => pools.remove(name).is_some(),
        }
    }

    /// Why pools cannot be used.
    pub fn pool_failures(&self) -> BTreeMap<Name, String> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How long a change of the model may take that nobody waits for.
pub const PATIENCE: Duration = Duration::from_secs(10);
