//! The board on which a shard publishes what others may read without asking it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::ResourceStatus;
use crate::units::ResourceId;

use super::counters::Counters;

/// A shard's board. The shard writes to it at most every 100 ms for each resource.
#[derive(Debug, Default)]
pub(super) struct Board {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    statuses: BTreeMap<ResourceId, ResourceStatus>,
    counters: Counters,
}

impl Board {
    pub(super) fn put(&self, status: ResourceStatus) {
        self.lock().statuses.insert(status.resource, status);
    }

    pub(super) fn remove(&self, resource: ResourceId) {
        self.lock().statuses.remove(&resource);
    }

    pub(super) fn count(&self, counters: Counters) {
        self.lock().counters = counters;
    }

    pub(super) fn statuses(&self, into: &mut Vec<ResourceStatus>) {
        into.extend(self.lock().statuses.values().cloned());
    }

    pub(super) fn counters(&self) -> Counters {
        self.lock().counters
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // A shard that died while it wrote has left a status that is old, no worse.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
