//! What an engine tells about itself: plain values for `status`, tables and logs.

use serde::{Deserialize, Serialize};

use crate::units::{DiskState, NodeId, Record, ResourceId, Role, VolumeId};

/// One resource as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// The resource.
    pub resource: ResourceId,
    /// This node's role.
    pub role: Role,
    /// Who holds the primary role, as far as this node knows.
    pub primary: Option<NodeId>,
    /// The state of this node's replica; `Diskless` without one.
    pub disk: DiskState,
    /// Whether this replica is in the in-sync set in its present life: only then is its state more than its own opinion.
    pub in_sync: bool,
    /// The record this node goes by; `None` in a replica that was never in sync with any.
    pub record: Option<Record>,
    /// Every other replica and user of the resource.
    pub peers: Vec<PeerStatus>,
    /// Why I/O waits, in order of importance; empty while it flows.
    pub suspended: Vec<Suspension>,
    /// Sessions of clients on this node.
    pub clients: usize,
    /// Another one whenever all sessions on this node were ended at once, or the resource was opened anew: what was attached before is not, or
    /// came anew.
    #[serde(default)]
    pub dropped: u64,
    /// The volumes, with what this node's replica lacks or has over.
    pub volumes: Vec<VolumeStatus>,
}

/// One volume as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// The volume.
    pub volume: VolumeId,
    /// Its size in bytes, as far as all replicas have it that the primary needs.
    pub bytes: u64,
}

/// A peer as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// The connection to it.
    pub connection: Connection,
    /// The peer's disk, as far as this node knows.
    pub disk: Option<DiskState>,
    /// Bytes that are dirty for this peer.
    pub dirty: u64,
    /// The resync that brings this peer up to date from here, or this node from there.
    pub resync: Option<ResyncStatus>,
    /// How the last verify has found this peer's replica, that this node has made in its present life.
    #[serde(default)]
    pub verify: Option<VerifyStatus>,
}

/// The state of a connection, in DRBD's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Connection {
    /// There is no connection; one is tried for.
    Connecting,
    /// There is a session.
    Connected,
    /// The two have diverged: neither record descends from the other. Needs an operator's decision.
    SplitBrain,
    /// The peer's replica belongs to something else, or is not what the record says; named in the log.
    Refused,
}

/// How far a resync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncStatus {
    /// Whether this node is the source.
    pub source: bool,
    /// Bytes dirty when it began, and what became dirty since.
    pub total: u64,
    /// Bytes done, copied or found equal.
    pub done: u64,
}

/// What a verify has found of a peer's replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// How far it is.
    pub state: VerifyState,
    /// The reign in which it was made.
    pub reign: u64,
    /// Bytes to be compared.
    pub total: u64,
    /// Bytes compared.
    pub done: u64,
    /// Blocks that differed.
    pub different: u64,
    /// The first of them: its volume, and its first byte there.
    pub first: Option<(VolumeId, u64)>,
    /// Whether differences were to be repaired.
    pub repair: bool,
    /// How many of them were given to the resync; for the others it is not decided whose copy is right (rule R8).
    pub repaired: u64,
    /// Blocks that the peer could not read, or that are not there yet.
    pub unread: u64,
}

/// How far a verify is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerifyState {
    /// It is going on.
    #[default]
    Running,
    /// Every block was compared.
    Done,
    /// It has ended before: the peer was lost, the role has moved, or an operator has stopped it.
    Broken,
}

/// Why I/O waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Suspension {
    /// A member of the ack set does not answer; its eviction follows.
    Waiting(NodeId),
    /// The authority has not granted a change of the record.
    Authority,
    /// The old primary's lease has not ended, for so many milliseconds more.
    Lease(u64),
    /// No replica with the newest data is reachable; those that would help.
    NoData(Vec<NodeId>),
    /// A new primary is making its peers equal.
    TakingOver,
    /// Writes wait while a snapshot is taken.
    Snapshot,
    /// It does not wait any more: it fails, for there is no quorum and the resource is to fail I/O then.
    Failing,
}
