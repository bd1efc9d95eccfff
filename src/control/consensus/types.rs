//! openraft's types as this program fills them in, and what nodes say to each other.

use openraft::error::{ClientWriteError, Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{BasicNode, SnapshotMeta, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Epoch;
use crate::cluster::{Applied, Command, Refusal};
use crate::units::NodeId;

openraft::declare_raft_types!(
    /// The Raft group's types.
    pub(super) Types: D = Command, R = Outcome, NodeId = u64, Node = BasicNode, SnapshotData = Vec<u8>,
);

/// What became of a log entry; `None` for those that are no command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Outcome(pub(super) Option<Result<Applied, Refusal>>);

/// A request with the sender's epoch.
#[derive(Serialize, Deserialize)]
pub(super) struct Envelope<T> {
    pub(super) epoch: Epoch,
    pub(super) body: T,
}

/// What a node asks another.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) enum Ask {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot { vote: Vote<u64>, meta: SnapshotMeta<u64, BasicNode>, model: String },
    Propose(Command),
    ReadIndex,
}

/// What it answers.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) enum Reply {
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    Snapshot(Result<SnapshotResponse<u64>, Fatal<u64>>),
    Proposed(Outcome),
    ReadIndex(u64),
    NotLeader,
    WrongEpoch(Epoch),
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("every message can be written as JSON")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("what came cannot be read: {error}"))
}

pub(super) fn raft_id(node: NodeId) -> u64 {
    u64::from(node.0)
}

/// The node of a Raft id, all of which come from [`raft_id`].
pub(super) fn node_id(raft: u64) -> NodeId {
    NodeId(u32::try_from(raft).expect("Raft ids are node ids"))
}

/// Whether a write was refused because another node leads, or none.
pub(super) fn not_leader(error: &RaftError<u64, ClientWriteError<u64, BasicNode>>) -> bool {
    matches!(error, RaftError::APIError(ClientWriteError::ForwardToLeader(_)))
}
