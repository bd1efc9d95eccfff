//! What the two sides of a split brain say to each other (rule Q4).

use serde::{Deserialize, Serialize};

use crate::units::{AfterSplitBrain, NodeId, RecordId};

/// A word between two replicas of which neither's record descends from the other's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Diverged {
    /// What the sender has been through, told once in a session: both sides decide by these two and nothing else.
    Side(Side),
    /// The sender wants to discard what it has had to itself under `mine`, and to go by the receiver's record `yours`.
    Discard {
        /// The sender's record.
        mine: RecordId,
        /// The receiver's, as the sender knows it.
        yours: RecordId,
    },
    /// The receiver may: the sender keeps what it has, and discards nothing as long as the session lasts.
    Kept {
        /// The receiver's record, under which it discards.
        yours: RecordId,
    },
    /// Nobody discards now: the answer to [`Discard`](Self::Discard), or the end of what one has said.
    NotNow {
        /// Why, for an operator.
        why: String,
    },
}

/// What one side of a split brain is, as it meets the other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The node.
    pub node: NodeId,
    /// Clients use the resource there.
    pub in_use: bool,
    /// It was primary when the two parted.
    pub was_primary: bool,
    /// Something may have been written there since.
    pub written: bool,
    /// How many blocks may have been: too many rather than too few.
    pub changed: u64,
    /// Its policies.
    pub policies: AfterSplitBrain,
}
