//! Statuses, for other threads.

use std::mem::discriminant;
use std::time::Duration;

use crate::engine::ResourceStatus;

use super::Shard;
use crate::runtime::plane::PlaneEvent;
use crate::runtime::resource::Gist;
use crate::runtime::slab::Key;

/// How old a published status may be when something has happened since.
const AGE: Duration = Duration::from_millis(100);

impl Shard {
    pub(super) fn arm_publishing(&mut self) {
        if self.publish_at.is_none() {
            self.publish_at = Some(self.io.now.after(AGE));
        }
    }

    /// Publishes the status of every resource that was touched since the last time.
    pub(super) fn publish(&mut self) {
        self.publish_at = None;
        let mut keys = std::mem::take(&mut self.unpublished);
        for key in keys.drain(..) {
            self.publish_one(key);
        }
        self.unpublished = keys;
        self.board.count(self.io.counters);
    }

    /// Publishes one status, and tells the control plane when it would interest an operator.
    pub(super) fn publish_one(&mut self, key: Key) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        resource.unpublished = false;
        let status = resource.engine.status();
        let gist = Gist::of(&status);
        let changed = resource.gist.as_ref() != Some(&gist);
        resource.gist = Some(gist);
        let resource = resource.id;
        self.board.put(status);
        if changed {
            (self.events)(PlaneEvent::Changed { resource });
        }
    }
}

impl Gist {
    fn of(status: &ResourceStatus) -> Self {
        Self {
            role: status.role,
            primary: status.primary,
            disk: status.disk,
            peers: status.peers.iter().map(|peer| (peer.node, peer.connection, peer.disk)).collect(),
            suspended: status.suspended.iter().map(discriminant).collect(),
        }
    }
}
