//! The whole truth about a cluster, as one node can tell it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::nodes::Node;
use super::operate::{Verify, VerifySchedule};
use super::options::EffectiveOptions;
use crate::units::{DiskState, Name, NodeId, ResourceId, Role, VolumeId};

/// Asks for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskStatus {
    /// Of this resource only; of all when absent. The nodes are always told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's id, in hexadecimal.
    pub cluster: String,
    /// The node that answers.
    pub node: Name,
    /// The node that leads the control plane; `None` when this node knows of none: then the model cannot be changed now.
    pub leader: Option<Name>,
    /// Every node.
    pub nodes: Vec<Node>,
    /// The resources that were asked for.
    pub resources: Vec<ResourceStatus>,
}

/// A resource on all of its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Its name.
    pub name: Name,
    /// Its id.
    pub id: ResourceId,
    /// The port that its nodes replicate over.
    pub port: u16,
    /// The options that count.
    pub options: EffectiveOptions,
    /// Whether a majority decides about its record, now.
    pub majority: bool,
    /// The node that is primary.
    pub primary: Option<Name>,
    /// Whether it is being removed.
    pub removing: bool,
    /// When its replicas are compared by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifies: Option<VerifySchedule>,
    /// Its volumes.
    pub volumes: Vec<VolumeInfo>,
    /// Every node that has, gets or loses a replica, or uses it without one.
    pub replicas: Vec<ReplicaStatus>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Its number within the resource.
    pub volume: VolumeId,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it is still being made: nobody can use it yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub making: bool,
    /// What it is growing to, while not all replicas have grown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// The minor number of the local block device that it is attached as, on the node that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<u32>,
}

/// A volume that grows has its old size until every replica has the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// The new size in bytes.
    pub bytes: u64,
    /// The nodes whose replicas have not grown yet.
    pub awaits: Vec<Name>,
}

/// A resource on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The node.
    pub node: Name,
    /// The node's id.
    pub node_id: NodeId,
    /// Whether the node uses the resource without a replica.
    pub diskless: bool,
    /// What is still to be done there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Why it could not be done, the last time it was tried; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Whether the node answers. What follows is not known when it does not.
    pub online: bool,
    /// Its role.
    pub role: Option<Role>,
    /// The state of its replica.
    pub disk: Option<DiskState>,
    /// Clients that are connected to it.
    pub clients: usize,
    /// Why I/O waits there, the most important first; empty while it flows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspended: Vec<Suspension>,
    /// An operator has paused resyncs to and from its replica.
    #[serde(default)]
    pub resync_paused: bool,
    /// An operator keeps the node from talking to the others about it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disconnected: bool,
    /// The other nodes, as it sees them.
    pub peers: Vec<PeerView>,
}

/// What is still to be done on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pending {
    /// To make and start its replica.
    Deploy,
    /// To stop and remove it.
    Remove,
}

/// A peer of a resource, as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// The peer.
    pub node: Name,
    /// The connection to it.
    pub connection: Connection,
    /// The peer's replica, as far as this node knows.
    pub disk: Option<DiskState>,
    /// How many bytes of the peer's replica are not in sync.
    pub out_of_sync: u64,
    /// The resync that is going on between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<Resync>,
    /// How that node has found the peer's replica the last time it has compared it, since its daemon was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
}

/// The connection between two nodes, for a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// There is none; one is tried for.
    Connecting,
    /// There is one.
    Connected,
    /// The two have diverged, and an operator must decide.
    SplitBrain,
    /// One of the two does not accept the other: its replica belongs to something else.
    Refused,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connecting => "Connecting",
            Self::Connected => "Connected",
            Self::SplitBrain => "SplitBrain",
            Self::Refused => "Refused",
        })
    }
}

/// How far a resync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    /// Whether the node that tells is the source.
    pub source: bool,
    /// How many bytes it is about: out of sync when it began, or since.
    pub total: u64,
    /// How many of them are done.
    pub done: u64,
}

/// Why I/O waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Suspension {
    /// A replica does not answer; it is dropped when its time is up.
    Waiting {
        /// The replica's node.
        node: Name,
    },
    /// Who decides about the record has not answered: no quorum.
    Authority,
    /// The old primary might still serve reads.
    Lease {
        /// For so many milliseconds more.
        milliseconds: u64,
    },
    /// No replica with the newest data is reachable.
    NoData {
        /// The nodes of which one must come back.
        nodes: Vec<Name>,
    },
    /// The new primary makes its peers equal.
    TakingOver,
    /// Writes wait while a snapshot is taken.
    Snapshot,
    /// It does not wait any more, but fails: there is no quorum, and `on-no-quorum` is io-error.
    Failing,
}

impl fmt::Display for Suspension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { node } => write!(f, "waiting for {node}, which does not answer"),
            Self::Authority => f.write_str("waiting for a quorum"),
            Self::Lease { milliseconds } => write!(f, "waiting {milliseconds} ms for the old primary's lease to end"),
            Self::NoData { nodes } if nodes.is_empty() => f.write_str("no up-to-date data is reachable"),
            Self::NoData { nodes } => {
                let names: Vec<&str> = nodes.iter().map(Name::as_str).collect();
                write!(f, "no up-to-date data is reachable; waiting for {}", names.join(" or "))
            }
            Self::TakingOver => f.write_str("taking over: making the peers equal"),
            Self::Snapshot => f.write_str("a snapshot is being taken"),
            Self::Failing => f.write_str("no quorum: I/O fails until there is one (on-no-quorum=io-error)"),
        }
    }
}

/// Asks whether anyone is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {}

/// Someone is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The version of its program.
    pub version: String,
    /// The node that it is.
    pub node: Name,
    /// The daemon's process.
    pub pid: u32,
    /// Where NBD clients reach it over TCP.
    #[serde(default)]
    pub nbd: Option<std::net::SocketAddr>,
}

/// Ends the daemon that is asked, cleanly: its resources are given up in order. The node stays a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// Also when clients are connected, which are cut off.
    #[serde(default)]
    pub force: bool,
}

/// A change was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What the one who asked should know: "beta is offline; its replica is removed when it returns".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspensions_say_in_words_whom_they_wait_for() {
        let nodes = vec!["alpha".parse().unwrap(), "beta".parse().unwrap()];
        let suspension = Suspension::NoData { nodes };
        assert_eq!(suspension.to_string(), "no up-to-date data is reachable; waiting for alpha or beta");
        let json = r#"{"reason":"no-data","nodes":["alpha","beta"]}"#;
        assert_eq!(serde_json::to_string(&suspension).unwrap(), json);
    }
}
