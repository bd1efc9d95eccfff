//! The model's nouns.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Leftover, LeftoverId, NodePool, OptionSet, Options, Places, Refusal, Schedule, Snapshot, Source, VerifySchedule};
use crate::units::{Authority, ClusterId, Incarnation, Name, NodeId, PoolKind, Record, ReplicaId, ResourceId, VolumeId};

/// The whole model. Readers hold it behind an `Arc`; resources are behind one of their own, so that a change copies pointers
/// and not ten thousand resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's identity; `None` until the first command, [`Command::Init`](super::Command::Init).
    pub id: Option<ClusterId>,
    /// Counts the commands that were taken. A reader that sees the same revision twice has seen the same model.
    pub revision: u64,
    /// The id that the next node gets.
    pub next_node: u32,
    /// The id that the next resource gets.
    pub next_resource: u64,
    /// The id that the next snapshot gets.
    #[serde(default)]
    pub next_snapshot: u64,
    /// The id that the next leftover gets.
    pub next_leftover: u64,
    /// Every node that was invited and not removed.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The voters of the Raft group, as of the last change of its membership.
    pub voters: BTreeSet<NodeId>,
    /// Options for all resources that do not set their own.
    pub common: OptionSet,
    /// Every resource that was created and not removed.
    pub resources: BTreeMap<ResourceId, Arc<Resource>>,
    /// The resources by name.
    pub names: Arc<BTreeMap<Name, ResourceId>>,
    /// What nodes still have to delete. Nothing else waits for it.
    pub leftovers: BTreeMap<LeftoverId, Leftover>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Its name, unique among the nodes.
    pub name: Name,
    /// The address its peers reach it at.
    pub address: IpAddr,
    /// The ports it listens on at that address.
    pub ports: Ports,
    /// What it is for.
    pub kind: NodeKind,
    /// Where it is in its life.
    pub state: NodeState,
    /// The outstanding join token.
    pub invitation: Option<Invitation>,
    /// The certificate it was issued last; `None` until it joined.
    pub certificate: Option<Certificate>,
    /// The pool that it was made with, as it announced it last.
    pub pool: Option<PoolReport>,
    /// The pools that were added to it.
    #[serde(default)]
    pub pools: BTreeMap<Name, NodePool>,
    /// The one of them that volumes go to when nobody says; `None`: the one that it was made with.
    #[serde(default)]
    pub default_pool: Option<Name>,
    /// The version of its program, as announced.
    pub version: String,
}

impl Node {
    /// Where it takes Raft, forwarded commands and joins.
    pub fn control(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.control)
    }

    /// Where it takes replication links.
    pub fn replication(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ports.replication)
    }

    /// Whether it can take replicas now.
    pub fn takes_replicas(&self) -> bool {
        self.state == NodeState::Member && self.kind == NodeKind::Storage && self.pool_reports().next().is_some()
    }
}

/// The ports of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// Raft, forwarded commands, joins; drbdmanage's control port.
    pub control: u16,
    /// Replication links of all resources.
    pub replication: u16,
    /// NBD clients.
    pub nbd: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { control: 6999, replication: 7000, nbd: 10809 }
    }
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// It has a pool and takes replicas.
    #[default]
    Storage,
    /// It uses resources of others and has no pool.
    Diskless,
    /// It votes and nothing else.
    Witness,
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Storage => "storage",
            Self::Diskless => "diskless",
            Self::Witness => "witness",
        })
    }
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Invited, or holding a certificate but not yet heard of.
    Joining,
    /// It has announced itself.
    Member,
    /// It gives up what it holds and is dropped when that is done.
    Leaving,
}

/// An outstanding join token. Only its hash is known to the model: a copy of the Raft log lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The hash of the token's secret.
    pub token: TokenHash,
    /// When it ceases to be good, in seconds since 1970.
    pub expires: u64,
}

/// The BLAKE3 hash of a join token's secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The hash of a secret.
    pub fn of(secret: &[u8]) -> Self {
        Self(*blake3::hash(secret).as_bytes())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// What tells a node's present certificate from its former ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The BLAKE3 hash of its DER form, in hexadecimal.
    pub fingerprint: String,
}

/// A node's pool as it announced it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// Its name: the volume group's, or the directory's.
    pub name: String,
    /// How it stores.
    pub kind: PoolKind,
    /// Its size in bytes.
    pub total: u64,
    /// What is free of it, in bytes.
    pub free: u64,
    /// Whether a new volume reads as zeroes throughout.
    pub zeroed: bool,
    /// How full it is, where volumes take space when they are written: `free` is what it would promise, then.
    #[serde(default)]
    pub fill: Option<PoolFill>,
}

/// How full a thin pool is, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolFill {
    /// Of its space for data.
    pub data: u16,
    /// Of its space for metadata, where that is limited.
    pub metadata: Option<u16>,
    /// What it has promised; `None` when its node is of a version that does not say.
    #[serde(default)]
    pub promises: Option<PoolPromises>,
}

/// What a thin pool has promised, and may promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPromises {
    /// How many times its size it may promise.
    pub times: u32,
    /// What it has promised, in bytes.
    pub made: u64,
}

/// A resource: volumes that are replicated together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Its identity.
    pub id: ResourceId,
    /// Its name, unique among the resources.
    pub name: Name,
    /// Its volumes.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// The options that it sets itself.
    pub options: OptionSet,
    /// The nodes that have or use it.
    pub assignments: BTreeMap<NodeId, Assignment>,
    /// Who has its data; `None` before the first replica. With `quorum=off` the replicas change it among themselves, and this
    /// is the first one, which the first replicas are created with.
    pub record: Option<Record>,
    /// The round of removals. What is taken away from a resource without force is taken in the round in which its users were
    /// asked for; that ends the round, and so does a node that comes to the resource ([`Command::EndRound`](super::Command::EndRound)).
    #[serde(default)]
    pub round: u64,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Notes of others, such as the Docker plugin's file system.
    pub properties: BTreeMap<String, String>,
    /// The pools that its volumes go to, where that was said.
    #[serde(default)]
    pub pools: BTreeMap<VolumeId, Name>,
    /// The pool that metadata goes to, where that was said.
    #[serde(default)]
    pub metadata_pool: Option<Name>,
    /// Its snapshots.
    #[serde(default)]
    pub snapshots: BTreeMap<Name, Snapshot>,
    /// When snapshots of it are taken by themselves.
    #[serde(default)]
    pub schedule: Option<Schedule>,
    /// When its replicas are compared by themselves.
    #[serde(default)]
    pub verifies: Option<VerifySchedule>,
    /// Whose resyncs an operator has paused.
    #[serde(default)]
    pub paused: Paused,
    /// The nodes that an operator has disconnected from all others, as far as this resource goes.
    #[serde(default)]
    pub disconnected: BTreeSet<NodeId>,
}

/// Resyncs that an operator has paused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// All of the resource.
    pub all: bool,
    /// Those to and from the replicas on these nodes.
    pub nodes: BTreeSet<NodeId>,
}

impl Paused {
    /// Whether those to and from a node's replica are.
    pub fn holds(&self, node: NodeId) -> bool {
        self.all || self.nodes.contains(&node)
    }
}

impl Resource {
    /// Whether two nodes do not talk to each other about it, as an operator wants it.
    pub fn are_apart(&self, one: NodeId, other: NodeId) -> bool {
        self.disconnected.contains(&one) || self.disconnected.contains(&other)
    }

    /// The nodes with a replica that stays.
    pub fn replicas(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.assignments.iter().filter(|(_, a)| a.replica.is_some() && !a.leaving).map(|(&node, _)| node)
    }

    /// Its volumes with their sizes in bytes, as they are meant to be.
    pub fn targets(&self) -> BTreeMap<VolumeId, u64> {
        self.volumes.iter().map(|(&id, volume)| (id, volume.target)).collect()
    }

    /// The bytes of all its volumes, as they are meant to be.
    pub fn bytes(&self) -> u64 {
        self.volumes.values().fold(0, |sum, volume| sum.saturating_add(volume.target))
    }

    /// The primary, where the model knows it: with `quorum=off` it does not.
    pub fn known_primary(&self) -> Option<NodeId> {
        self.record.as_ref().filter(|record| record.authority == Authority::Majority).and_then(|record| record.primary)
    }
}

/// A volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The size that is exported, in bytes; 0 until every replica has the volume.
    pub bytes: u64,
    /// The size it grows to once every replica has grown, in bytes.
    pub target: u64,
}

/// A resource on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The replica; `None` on a node that uses the resource without one.
    pub replica: Option<ReplicaId>,
    /// The incarnation that the replica is created with.
    pub incarnation: Incarnation,
    /// Whether it is created as one that has all data (it is named by the first record), or as one that waits for a full sync.
    pub initially_in_sync: bool,
    /// Whether the node has confirmed that the replica exists. From then on it is never created again.
    pub created: bool,
    /// The volumes the replica has, with their sizes in bytes, as confirmed; before that, those that it adopts.
    pub volumes: BTreeMap<VolumeId, u64>,
    /// It is to go, and waits to be dropped from the record by the primary.
    pub leaving: bool,
    /// Where the parts of the replica are.
    #[serde(default)]
    pub places: Places,
    /// The snapshot that the replica is made of, until it is.
    #[serde(default)]
    pub source: Option<Source>,
    /// What the node has already and makes volumes of, until it has.
    #[serde(default)]
    pub adopts: BTreeMap<VolumeId, String>,
    /// The replica that takes the place of this one, which is leaving, as soon as the record does not name it.
    #[serde(default)]
    pub successor: Option<Successor>,
}

/// A replica that is to be made where another one leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// The replica.
    pub replica: ReplicaId,
    /// The incarnation that it is created with.
    pub incarnation: Incarnation,
    /// The pool of all of it; `None`: where the one that leaves is.
    pub pool: Option<Name>,
}

impl Assignment {
    /// Whether the resource is used here without a replica.
    pub fn is_diskless(&self) -> bool {
        self.replica.is_none()
    }
}

/// The limits that commands are held to.
#[derive(Debug)]
pub struct Limits;

impl Limits {
    /// The largest volume, in bytes: 1 PiB, as DRBD's.
    pub const VOLUME_BYTES: u64 = 1 << 50;
    /// Replicas of a resource that decide alone. Of three, two can propose at once and each be stored by another: a fork with no fault in
    /// the network, which nothing but a majority can rule out.
    pub const ALONE: usize = 2;
    /// Replicas of one resource: the metadata has room for 31 peers.
    pub const REPLICAS: usize = 32;
    /// Volumes of one resource.
    pub const VOLUMES: usize = 256;
    /// Snapshots of one resource.
    pub const SNAPSHOTS: usize = 512;
    /// Nodes of a cluster.
    pub const NODES: usize = 1024;
    /// Bytes of one property's key and value together.
    pub const PROPERTY_BYTES: usize = 4096;
    /// Properties of one resource.
    pub const PROPERTIES: usize = 64;
}

impl Cluster {
    /// A node by its name.
    pub fn node_named(&self, name: &Name) -> Result<&Node, Refusal> {
        self.nodes.values().find(|node| node.name == *name).ok_or_else(|| Refusal::NoSuchNode(name.to_string()))
    }

    /// A node by its id.
    pub fn node(&self, id: NodeId) -> Result<&Node, Refusal> {
        self.nodes.get(&id).ok_or_else(|| Refusal::NoSuchNode(format!("#{id}")))
    }

    /// A node's name, or its number when it is a node no more.
    pub fn node_name(&self, id: NodeId) -> String {
        self.nodes.get(&id).map_or_else(|| format!("#{id}"), |node| node.name.to_string())
    }

    /// A resource by its name.
    pub fn resource_named(&self, name: &Name) -> Result<&Arc<Resource>, Refusal> {
        let id = self.names.get(name).ok_or_else(|| Refusal::NoSuchResource(name.to_string()))?;
        Ok(&self.resources[id])
    }

    /// A resource by its id.
    pub fn resource(&self, id: ResourceId) -> Result<&Arc<Resource>, Refusal> {
        self.resources.get(&id).ok_or_else(|| Refusal::NoSuchResource(format!("#{id}")))
    }

    /// A resource's options: its own, else the common ones, else the defaults.
    pub fn options(&self, resource: &Resource) -> Options {
        resource.options.over(&self.common.over(&Options::default()))
    }

    /// What is left for `node` to delete.
    pub fn leftovers_of(&self, node: NodeId) -> impl Iterator<Item = (LeftoverId, &Leftover)> {
        self.leftovers.iter().filter(move |(_, leftover)| leftover.node == node).map(|(&id, leftover)| (id, leftover))
    }

    /// Takes note of the Raft group's voters; called by the Raft adapter when a change of membership is applied.
    pub fn note_voters(&mut self, voters: BTreeSet<NodeId>) {
        self.voters = voters;
        self.revision += 1;
    }
}
