//! What the model can be asked to do, and what it answers.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Certificate, LeftoverId, NodeKind, PoolReport, Ports, Purpose, Schedule, Seed, SnapshotId, TokenHash, VerifySchedule,
};
use crate::units::{ClusterId, Name, NodeId, Record, RecordId, ReplicaId, ResourceId, VolumeId};

/// A change of the model. Users' commands name things by their names, machines' by ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of a command are what its name says; units and odd cases are documented")]
pub enum Command {
    /// The first command: the cluster and its first node.
    Init { cluster: ClusterId, name: Name, address: IpAddr, ports: Ports, kind: NodeKind, certificate: Certificate },
    /// All of these or none.
    All(Vec<Self>),
    /// Replaces the whole model by a former one; what `recover --force` and an import begin with.
    Restore(Box<super::Cluster>),

    /// Adds a node that may join with the token until `expires` (seconds since 1970).
    InviteNode { name: Name, address: IpAddr, ports: Ports, kind: NodeKind, token: TokenHash, expires: u64 },
    /// Gives a node that has not joined yet another token. The former one is void.
    RenewInvitation { name: Name, token: TokenHash, expires: u64 },
    /// A node joins: its token is used up, its certificate recorded. `now` in seconds since 1970.
    RedeemInvitation { name: Name, token: TokenHash, address: IpAddr, ports: Ports, certificate: Certificate, now: u64 },
    /// A node tells of itself: at its start and when its pool's figures have changed.
    Announce {
        node: NodeId,
        version: String,
        pool: Option<PoolReport>,
        /// Of the pools that were added to it, those that can be used.
        #[serde(default)]
        pools: BTreeMap<Name, PoolReport>,
    },
    /// Adds a pool, which the node has claimed, to a node.
    AddPool { node: NodeId, name: Name, pool: super::NodePool },
    /// Takes a pool that nothing is in from a node.
    RemovePool { node: NodeId, name: Name },
    /// Chooses the pool that volumes go to on a node when nobody says.
    SetDefaultPool { node: NodeId, name: Name },
    /// Changes a node's address.
    ModifyNode { name: Name, address: IpAddr },
    /// Takes a node out: it gives up what it holds first or, with `force`, is out at once and keeps what it holds. Refused when it
    /// has come to more than `only`, the resources that were looked at when this was decided.
    RemoveNode { name: Name, force: bool, only: Option<BTreeSet<ResourceId>>, seed: Seed },

    /// Creates a resource without volumes. `now` in seconds since 1970.
    CreateResource { name: Name, options: BTreeMap<String, Option<String>>, properties: BTreeMap<String, String>, now: u64 },
    /// Sets (or, with `None`, unsets) options of one resource, or of all that do not set their own.
    SetOptions { resource: Option<Name>, options: BTreeMap<String, Option<String>> },
    /// Sets (or, with `None`, removes) notes on a resource.
    SetProperties { resource: Name, properties: BTreeMap<String, Option<String>> },
    /// Removes a resource; its name is free at once. With `force` even while it is in use.
    RemoveResource { resource: Name, force: bool },
    /// Adds a volume of `bytes` (a multiple of 4096), with the lowest free number unless one is given, in a pool of that name.
    AddVolume {
        resource: Name,
        volume: Option<VolumeId>,
        bytes: u64,
        #[serde(default)]
        pool: Option<Name>,
    },
    /// Gives a resource without volumes its first one, of `bytes`, and its first replica: what the node has as `source`, in that pool.
    Adopt { resource: Name, node: NodeId, pool: Name, source: String, bytes: u64, seed: Seed },
    /// Chooses the pool that the metadata of a resource's future replicas goes to.
    SetMetadataPool { resource: Name, pool: Option<Name> },
    /// Grows a volume to `bytes` (a multiple of 4096).
    ResizeVolume { resource: Name, volume: VolumeId, bytes: u64 },
    /// Removes a volume.
    RemoveVolume { resource: Name, volume: VolumeId, force: bool },

    /// Puts replicas where the placement says; where that leaves a choice, on `avoid` (nodes that do not answer) last. Those on
    /// `keep` (nodes with clients) are not taken away.
    Deploy {
        resource: Name,
        placement: Placement,
        #[serde(default)]
        avoid: BTreeSet<NodeId>,
        #[serde(default)]
        keep: BTreeSet<NodeId>,
        seed: Seed,
        /// The pool of the new replicas, whatever their volumes want.
        #[serde(default)]
        pool: Option<Name>,
    },
    /// Gives a node a replica, or the use of the resource without one.
    Assign {
        resource: Name,
        node: Name,
        diskless: bool,
        seed: Seed,
        /// As for [`Deploy`](Self::Deploy).
        #[serde(default)]
        pool: Option<Name>,
    },
    /// Takes a resource from a node.
    Unassign { resource: Name, node: Name, force: bool, seed: Seed },
    /// Puts a new, empty replica in the place of the one that a node has, in that pool or where the present one is. Refused when the record
    /// is another one than `expect`, by which it was judged who has the data; a node without a majority does not know it.
    ReplaceDisk { resource: Name, node: Name, pool: Option<Name>, expect: Option<RecordId>, seed: Seed },
    /// Pauses the resyncs of a resource, all of them or those to and from a node's replica, or lets them go on.
    PauseResync { resource: Name, node: Option<Name>, pause: bool },
    /// Keeps a node from talking to the others about a resource.
    Disconnect { resource: Name, node: Name },
    /// Lets a node talk to the others again; all that were kept from it without one.
    Connect { resource: Name, node: Option<Name> },
    /// Takes a resource from all nodes; its definition stays, its data does not.
    Undeploy { resource: Name, force: bool },

    /// Begins a snapshot of a resource, on these nodes or, when there are none, on all that have a replica in sync. `now` in seconds since
    /// 1970.
    AddSnapshot { resource: Name, snapshot: Name, nodes: Vec<Name>, purpose: Purpose, taker: NodeId, now: u64 },
    /// A snapshot was taken: these nodes have a part of it.
    CompleteSnapshot { resource: ResourceId, snapshot: SnapshotId, nodes: BTreeSet<NodeId> },
    /// A snapshot that was begun comes to nothing.
    AbandonSnapshot { resource: ResourceId, snapshot: SnapshotId },
    /// Removes a snapshot, or the part of it that a node has.
    RemoveSnapshot { resource: Name, snapshot: Name, node: Option<Name> },
    /// Creates a resource that has what a snapshot has, on these nodes or, when there are none, on all that have a part of it.
    RestoreSnapshot { resource: Name, source: Name, snapshot: Name, nodes: Vec<Name>, seed: Seed, now: u64 },
    /// Puts what a snapshot has in the place of a resource's data, under another identity. Only together with
    /// [`EndRound`](Self::EndRound): nobody may use it.
    RollBack { resource: Name, snapshot: Name, seed: Seed },
    /// Has snapshots of a resource taken by themselves, or, with `None`, no more.
    ScheduleSnapshots { resource: Name, schedule: Option<Schedule> },
    /// Has the replicas of a resource compared by themselves, or, with `None`, no more.
    ScheduleVerify { resource: Name, schedule: Option<VerifySchedule> },
    /// A scheduled verify has begun. `now` in seconds since 1970.
    NoteVerify { resource: ResourceId, now: u64 },

    /// A node has what the model assigned it: its replica exists with volumes of these sizes in bytes.
    ConfirmReplica { node: NodeId, resource: ResourceId, replica: ReplicaId, volumes: BTreeMap<VolumeId, u64> },
    /// A node has deleted what was left over.
    ConfirmLeftover { node: NodeId, leftover: LeftoverId },
    /// Ends a resource's round of removals; refused when it is over. Together with what takes something away
    /// ([`All`](Self::All)), it has that refused when a client may have come since its users were asked for; by itself, it makes
    /// void what was decided in that round and never carried out.
    EndRound { resource: ResourceId, round: u64 },
    /// Compare-and-swap of a resource's record, by its id.
    ChangeRecord { resource: ResourceId, expect: RecordId, record: Record },
}

/// Where replicas go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Placement {
    /// So many, on the nodes with the most free space.
    Count(DeployCount),
    /// On these nodes, besides those that have one.
    Nodes(Vec<Name>),
}

/// How many replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeployCount {
    /// So many in all.
    Total(usize),
    /// So many more than now.
    More(usize),
    /// So many fewer than now.
    Fewer(usize),
}

/// What a command that was taken has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// What its name says.
    Done,
    /// Each of [`Command::All`].
    All(Vec<Self>),
    /// This node was added, or joined.
    Node(NodeId),
    /// This resource was created.
    Resource(ResourceId),
    /// This volume was added.
    Volume(VolumeId),
    /// This snapshot was begun.
    Snapshot(SnapshotId),
    /// The resource is on these nodes now, or will be once they have created it.
    Deployed(Vec<NodeId>),
}
