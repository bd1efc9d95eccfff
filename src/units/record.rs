//! The record: who has a resource's newest data, and who may write.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Incarnation, NodeId, RecordId};

/// Who decides whether a record may follow another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Authority {
    /// The cluster's Raft log (`quorum=majority`): a compare-and-swap there; split brain is impossible.
    Majority,
    /// The node itself, with every replica it reaches (`quorum=off`): as in DRBD; a fork is detected, never merged silently.
    Off,
}

/// A replica's membership in the in-sync set: of that replica *in one incarnation* (rule M3).
pub type Membership = BTreeMap<NodeId, Incarnation>;

/// A resource's generation. It is changed only by compare-and-swap on [`id`](Self::id) at its [`Authority`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Counts the record's changes, from 1. Two records of a fork may share a number; their ids differ.
    pub number: u64,
    /// This version's identity, chosen by its proposer.
    pub id: RecordId,
    /// The record that this one replaced; `None` in a resource's first.
    pub parent: Option<RecordId>,
    /// The replicas that have every completed write.
    pub in_sync: Membership,
    /// The node that orders writes now.
    pub primary: Option<NodeId>,
    /// The [`number`](Self::number) at which the present primary took over. Evicting and admitting keep it.
    pub reign: u64,
    /// Who may change the record.
    pub authority: Authority,
    /// With [`Authority::Off`]: nothing has been written in this reign yet (rule Q3), so that one side of a fork can withdraw.
    pub unwritten: bool,
}

impl Record {
    /// The first record of a resource whose replicas all hold nothing but zeroes, or of one replica with data.
    pub fn first(id: RecordId, in_sync: Membership, authority: Authority) -> Self {
        Self { number: 1, id, parent: None, in_sync, primary: None, reign: 0, authority, unwritten: true }
    }

    /// The record that follows this one, the same in everything but number and identity.
    #[must_use]
    pub fn next(&self, id: RecordId) -> Self {
        Self { number: self.number + 1, id, parent: Some(self.id), ..self.clone() }
    }

    /// Whether `node` in `incarnation` has every completed write.
    pub fn has(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.in_sync.get(&node) == Some(&incarnation)
    }
}
