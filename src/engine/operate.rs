//! What an operator asks of a resource on this node: a verb goes in, whether it has begun comes out.
//!
//! A verb that takes long, as a verify does, is answered when it has begun. How far it is, and what it has found, is in
//! [`PeerStatus`](super::PeerStatus).

use crate::units::NodeId;

use super::core::Engine;
use super::event::{AttachError, Command};

/// Names an operator's question, chosen by whoever asks and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AskId(pub u64);

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Compare every replica in sync with this node's, block by block (rule R7). This node becomes primary for it when nobody is.
    Verify {
        /// Make differences equal (rule R8).
        repair: bool,
    },
    /// Discard what this node has had to itself since a split brain, and have the other side bring it up to date (rule Q4).
    DiscardMyData,
    /// Become primary, and keep the role for as long as somebody uses the resource; with `force` also with a replica that is not up to date,
    /// when none that is can be reached (rule M9).
    Promote {
        /// With whatever is here.
        force: bool,
    },
    /// Give up the role, which nobody uses.
    Demote,
    /// Compare no more. What was found until then stays in the status.
    StopVerify,
}

/// Why it is not done. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperateError {
    /// That node is primary: ask there.
    Elsewhere(NodeId),
    /// This node cannot be primary; what would help.
    NoData(String),
    /// It makes no sense as things are; why, and what would help.
    Refused(String),
    /// The resource stops here.
    ShuttingDown,
}

impl Engine {
    pub(super) fn operate(&mut self, id: AskId, operation: Operation) {
        match operation {
            Operation::Verify { repair } => self.verify(id, repair),
            Operation::DiscardMyData => self.discard_my_data(id),
            Operation::Promote { force } => self.promote(id, force),
            Operation::Demote => self.demote(id),
            Operation::StopVerify => self.stop_verify(id),
        }
    }

    pub(super) fn operated(&mut self, id: AskId, result: Result<(), OperateError>) {
        self.out.push(Command::Operated { id, result });
    }

    /// Why this node has not become primary for it in time.
    pub(super) fn why_not_primary(&self) -> OperateError {
        match self.promotable() {
            _ if self.reign.is_some() => OperateError::Refused(
                "its replicas are still being made equal; try again when `blkrep status` shows no resync".into(),
            ),
            Err(AttachError::InUse(node)) => OperateError::Elsewhere(node),
            Err(AttachError::NoData(why)) => OperateError::NoData(why),
            Err(AttachError::ShuttingDown) => OperateError::ShuttingDown,
            Err(AttachError::NoQuorum) | Ok(_) => OperateError::NoData("no authority answered in time".to_owned()),
        }
    }
}
