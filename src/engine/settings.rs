//! What an engine is told about its resource.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::units::{AfterSplitBrain, Authority, ClusterId, Name, NodeId, Protocol, ResourceId, VolumeId};

/// What never changes for an engine.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The resource.
    pub resource: ResourceId,
    /// This node.
    pub node: NodeId,
    /// A seed for the ids that the engine draws. It must come from the system's randomness: ids are never to be used again.
    pub seed: [u64; 2],
}

/// The part of a resource that can change while it is open.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Every other node that has a replica or uses the resource; at most 31.
    pub peers: BTreeMap<NodeId, Peer>,
    /// Volume sizes in bytes.
    pub volumes: BTreeMap<VolumeId, u64>,
    /// When a write is answered.
    pub protocol: Protocol,
    /// Who decides on records.
    pub authority: Authority,
    /// When I/O fails that no quorum allows: after it has waited for so long. `None`: it waits (DRBD: on-no-quorum).
    pub io_fails_after: Option<Duration>,
    /// What happens by itself after a split brain.
    pub after_split_brain: AfterSplitBrain,
    /// Resync bandwidth cap in bytes per second, 0 for none.
    pub resync_max: u64,
    /// Times.
    pub timeouts: Timeouts,
}

/// A peer of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node's name, for messages.
    pub name: Name,
    /// Whether it has (or will have) a replica.
    pub diskful: bool,
    /// Its replica is to go. A primary drops it from the record; until then it is what the record says, and may be the one that has
    /// everything (rule M3).
    pub leaving: bool,
    /// An operator has paused the resync of its replica from here, and of this node's from there.
    pub paused: bool,
    /// An operator wants the two to have no session. Whoever runs the engine keeps what the peer says from it, and tells it that there is no
    /// connection.
    pub apart: bool,
}

/// The engine's times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// A read lease, from when it was asked for.
    pub lease: Duration,
    /// How long a closed connection is retried before the peer is evicted.
    pub reconnect: Duration,
    /// How long a peer may be silent before it counts as gone.
    pub peer_silent: Duration,
}

impl Timeouts {
    /// How long a lease may last by the granter's clock: drift of 1 % allowed for.
    pub fn lease_with_drift(&self) -> Duration {
        self.lease + self.lease / 100
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            lease: Duration::from_millis(500),
            reconnect: Duration::from_millis(50),
            peer_silent: Duration::from_secs(2),
        }
    }
}
