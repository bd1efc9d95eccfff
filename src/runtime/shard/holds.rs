//! Writes that are held for a snapshot: asked of the engine, answered when it has.

use std::time::Duration;

use crate::engine::{Event, Held, HoldError, HoldId, ResourceStatus};
use crate::units::ResourceId;

use super::Shard;
use super::asked::answer;
use crate::runtime::inbox::ReplyTo;
use crate::runtime::plane::PlaneError;
use crate::runtime::slab::Key;

impl Shard {
    pub(super) fn hold(&mut self, id: ResourceId, hold: HoldId, lease: Duration, reply: ReplyTo<Held>) {
        let key = match self.find(id) {
            Ok(key) => key,
            Err(error) => return answer(reply, Err(error)),
        };
        let Some(resource) = self.resources.get_mut(key) else { return };
        if !resource.closing.is_empty() {
            return answer(reply, Err(PlaneError::ShuttingDown));
        }
        resource.holding.insert(hold, reply);
        self.feed(key, Event::Hold { id: hold, lease });
    }

    pub(super) fn renew_hold(&mut self, id: ResourceId, hold: HoldId, lease: Duration) {
        if let Ok(key) = self.find(id) {
            self.feed(key, Event::RenewHold { id: hold, lease });
        }
    }

    pub(super) fn release_hold(&mut self, id: ResourceId, hold: HoldId, reply: ReplyTo<bool>) {
        let key = match self.find(id) {
            Ok(key) => key,
            Err(error) => return answer(reply, Err(error)),
        };
        let Some(resource) = self.resources.get_mut(key) else { return };
        // Whoever gives up before it is held hears no more of it.
        resource.holding.remove(&hold);
        resource.releasing.insert(hold, reply);
        self.feed(key, Event::ReleaseHold(hold));
    }

    /// How a resource is at this moment.
    pub(super) fn look(&mut self, id: ResourceId) -> Result<ResourceStatus, PlaneError> {
        let key = self.find(id)?;
        self.resources.get(key).map(|resource| resource.engine.status()).ok_or(PlaneError::NotOpen(id))
    }

    /// An engine holds writes, or says why not.
    pub(super) fn held(&mut self, key: Key, id: HoldId, result: Result<Held, HoldError>) {
        let Some(reply) = self.resources.get_mut(key).and_then(|resource| resource.holding.remove(&id)) else { return };
        answer(reply, result.map_err(refusal));
    }

    /// A hold is over.
    pub(super) fn released(&mut self, key: Key, id: HoldId, whole: bool) {
        let Some(reply) = self.resources.get_mut(key).and_then(|resource| resource.releasing.remove(&id)) else { return };
        answer(reply, Ok(whole));
    }
}

fn refusal(error: HoldError) -> PlaneError {
    match error {
        HoldError::Elsewhere(node) => PlaneError::Busy(node),
        HoldError::NoData(help) => PlaneError::NoData(help),
        HoldError::Busy => PlaneError::NotHeld("another snapshot of the resource is being taken".to_owned()),
        HoldError::Slow => PlaneError::NotHeld("what was being written did not end in time".to_owned()),
        HoldError::Ended => PlaneError::NotHeld("the primary changed meanwhile".to_owned()),
    }
}
