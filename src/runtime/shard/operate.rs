//! What an operator wants of a resource: asked of its engine, answered when that has begun.

use crate::engine::{AskId, Event, OperateError, Operation};
use crate::units::ResourceId;

use super::Shard;
use super::asked::answer;
use crate::runtime::inbox::ReplyTo;
use crate::runtime::plane::PlaneError;
use crate::runtime::slab::Key;

impl Shard {
    pub(super) fn operate(&mut self, id: ResourceId, operation: Operation, reply: ReplyTo<()>) {
        let key = match self.find(id) {
            Ok(key) => key,
            Err(error) => return answer(reply, Err(error)),
        };
        let Some(resource) = self.resources.get_mut(key) else { return };
        if !resource.closing.is_empty() {
            return answer(reply, Err(PlaneError::ShuttingDown));
        }
        let ask = AskId(resource.next_ask);
        resource.next_ask += 1;
        resource.operating.insert(ask, reply);
        self.feed(key, Event::Operate { id: ask, operation });
    }

    /// An engine has begun with it, or says why not.
    pub(super) fn operated(&mut self, key: Key, id: AskId, result: Result<(), OperateError>) {
        let Some(reply) = self.resources.get_mut(key).and_then(|resource| resource.operating.remove(&id)) else { return };
        // Whoever hears that it has begun looks at the status next, and must not find there what the one before it came to.
        self.publish_one(key);
        answer(reply, result.map_err(refusal));
    }
}

fn refusal(error: OperateError) -> PlaneError {
    match error {
        OperateError::Elsewhere(node) => PlaneError::Busy(node),
        OperateError::NoData(help) => PlaneError::NoData(help),
        OperateError::Refused(why) => PlaneError::Refused(why),
        OperateError::ShuttingDown => PlaneError::ShuttingDown,
    }
}
