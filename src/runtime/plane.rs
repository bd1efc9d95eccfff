//! The border between control plane and data plane.
//!
//! The control plane decides what is there and hands over sockets that are ready; the data plane moves bytes. It asks back
//! through [`PlaneEvent`]s, and only for what a change of membership needs: while membership is unchanged no write waits for
//! anything in this file.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::time::Duration;

pub use crate::engine::{Answer, Held, HoldId, Operation, Peer, Settings as ResourceSettings, Ticket, Timeouts};
pub use crate::ring::{Backing, Segment};

use crate::engine::ResourceStatus;
use crate::units::{ClusterId, Name, NodeId, Record, RecordId, ResourceId, Sharing, VolumeId};

/// How many lanes two nodes share. Fixed for the cluster, so that nodes with different numbers of shards agree on which
/// connection a resource's session is carried by.
pub const LANES: u16 = 8;

/// One of the connections between two nodes: it carries the sessions of every resource of that lane, and the heartbeats that
/// grant leases for all of them at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lane(pub u16);

/// The lane of a resource.
pub fn lane_of(resource: ResourceId) -> Lane {
    Lane(u16::try_from(resource.0 % u64::from(LANES)).expect("a remainder of a u16 is one"))
}

/// A future that the data plane answers.
pub type Reply<T> = Pin<Box<dyn Future<Output = Result<T, PlaneError>> + Send>>;

/// What the control plane asks of the data plane. All calls may be made from any thread.
pub trait DataPlane: Send + Sync + 'static {
    /// Brings a resource up: opens and locks its storage, reads its metadata, starts its engine. Answers when the replica is
    /// readable or refused; connecting to peers goes on behind it.
    fn open(&self, spec: ResourceSpec) -> Reply<()>;

    /// Changes peers, volumes or options of an open resource. New volumes bring their storage along.
    fn configure(&self, resource: ResourceId, settings: ResourceSettings, storage: Option<ReplicaStorage>) -> Reply<()>;

    /// Takes a resource down cleanly: drains, flushes, gives up the primary role, marks the metadata clean, unlocks. Refused
    /// with [`PlaneError::InUse`] while clients are connected, unless `force`, which disconnects them first.
    fn close(&self, resource: ResourceId, force: bool) -> Reply<()>;

    /// Lets a client in that is about to come, or says why not, within the resource's time-outs. It is let in beside
    /// whom it shares with.
    fn attach(&self, resource: ResourceId, volume: VolumeId, read_only: bool, sharing: Sharing) -> Reply<OpenExport>;

    /// Hands over an NBD client whose negotiation is done. The data plane serves it until it disconnects; its attachment ends
    /// with it.
    fn serve(&self, export: OpenExport, client: ClientSocket);

    /// Hands over a connection to a peer, mutually authenticated. It replaces the one of the same peer and lane, which is
    /// closed first.
    fn link(&self, link: PeerLink);

    /// Answers a [`PlaneEvent::Propose`] or [`PlaneEvent::ReadRecord`]. An answer to a ticket that is no longer waited for is
    /// ignored.
    fn answer(&self, resource: ResourceId, ticket: Ticket, answer: Answer);

    /// Lets no write of a resource begin, for a snapshot, and answers when every replica in sync has exactly the same, durably. It
    /// ends by itself after `lease` unless it is renewed.
    fn hold(&self, resource: ResourceId, id: HoldId, lease: Duration) -> Reply<Held>;

    /// A hold is to last as long as this from now on; nothing when it is over.
    fn renew_hold(&self, resource: ResourceId, id: HoldId, lease: Duration);

    /// Ends a hold; answers whether it has lasted until now.
    fn release_hold(&self, resource: ResourceId, id: HoldId) -> Reply<bool>;

    /// Does what an operator wants of a resource; answers when it has begun. [`PlaneError::Busy`] names the primary, when it is its part.
    fn operate(&self, resource: ResourceId, operation: Operation) -> Reply<()>;

    /// A resource as it is now: unlike [`status`](Self::status) this asks its shard.
    fn look(&self, resource: ResourceId) -> Reply<ResourceStatus>;

    /// Every open resource as it was a moment ago (at most 100 ms). Never waits for a shard.
    fn status(&self) -> Vec<ResourceStatus>;

    /// How many clients each volume has now that has any: those that are served, and those that were granted an attachment or
    /// wait for one. Unlike [`status`](Self::status) this asks the shards: an attachment that was asked for before is counted.
    fn clients(&self) -> Reply<Clients>;

    /// Closes every resource as [`close`](Self::close) with `force`, then every connection, and ends the shards.
    fn shutdown(&self) -> Reply<()>;
}

/// How many clients volumes have.
pub type Clients = BTreeMap<(ResourceId, VolumeId), usize>;

/// What the data plane asks of the control plane.
#[derive(Debug)]
pub enum PlaneEvent {
    /// Replace the record `expect` of a resource with `record` at the cluster's authority (Raft), answer by
    /// [`DataPlane::answer`].
    Propose {
        /// The resource.
        resource: ResourceId,
        /// Names the answer.
        ticket: Ticket,
        /// The id the present record must have.
        expect: RecordId,
        /// The new record.
        record: Record,
    },
    /// Read a resource's record, linearizably, from the cluster's authority.
    ReadRecord {
        /// The resource.
        resource: ResourceId,
        /// Names the answer.
        ticket: Ticket,
    },
    /// A connection to a peer is missing: dial it when this node has the smaller id of the two, at once and then with back-off,
    /// until a link was handed over or the peer is no longer a node.
    WantLink {
        /// The peer.
        peer: NodeId,
        /// The lane.
        lane: Lane,
    },
    /// Something in [`DataPlane::status`] changed that an operator would want to see (role, disk, connection, suspension).
    Changed {
        /// The resource.
        resource: ResourceId,
    },
}

/// Everything a resource's engine needs.
#[derive(Debug)]
pub struct ResourceSpec {
    /// The cluster.
    pub cluster: ClusterId,
    /// The resource.
    pub resource: ResourceId,
    /// Its name, for messages and logs.
    pub name: Name,
    /// This node.
    pub me: NodeId,
    /// What can change while it is open.
    pub settings: ResourceSettings,
    /// This node's replica; `None` on a node that has none.
    pub storage: Option<ReplicaStorage>,
}

/// The storage of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStorage {
    /// The metadata area; see [`crate::format`].
    pub metadata: Backing,
    /// The data, byte for byte the user's.
    pub volumes: BTreeMap<VolumeId, Backing>,
}

/// An attachment that was granted and waits for its client.
#[derive(Debug)]
pub struct OpenExport {
    /// The resource.
    pub resource: ResourceId,
    /// The volume.
    pub volume: VolumeId,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether it may be written.
    pub read_only: bool,
    /// Names the attachment; dropping it without [`DataPlane::serve`] ends the attachment.
    pub attachment: Box<dyn std::any::Any + Send>,
}

/// A connected stream socket, non-blocking, and the TLS session on it when there is one.
#[derive(Debug)]
pub struct Socket {
    /// The socket: TCP or unix.
    pub fd: OwnedFd,
    /// The TLS session, its handshake finished; it may hold decrypted bytes that were not read yet.
    pub tls: Option<Box<rustls::Connection>>,
    /// Bytes that were read beyond the negotiation, in plain text, to be served before anything from the socket.
    pub early: Vec<u8>,
}

/// An NBD client after its negotiation.
#[derive(Debug)]
pub struct ClientSocket {
    /// The socket.
    pub socket: Socket,
    /// What was negotiated.
    pub mode: crate::nbd::Mode,
    /// Who it is, for status and logs (an address or `unix`).
    pub name: String,
    /// Whether it connects again and asks again for what was not answered, and takes every answer for final, as this node's
    /// attachments do: that the export ends is no answer to such a one.
    pub asks_again: bool,
}

/// A connection to a peer after its handshake.
#[derive(Debug)]
pub struct PeerLink {
    /// The peer, proved by its certificate.
    pub peer: NodeId,
    /// The lane.
    pub lane: Lane,
    /// The socket; the hellos are exchanged.
    pub socket: Socket,
    /// The protocol version that they agreed upon ([`Hello::agree`](crate::wire::Hello::agree)).
    pub version: u8,
    /// Whether both ends are processes of this machine (rule F3: a process known dead has no lease).
    pub same_host: bool,
}

/// Why the data plane refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaneError {
    /// The resource is not open here.
    #[error("resource {0} is not open on this node")]
    NotOpen(ResourceId),
    /// The resource is primary on another node, which has clients.
    #[error("the resource is in use on node {0}; disconnect its clients there first")]
    Busy(NodeId),
    /// Clients are connected here.
    #[error("{0} client(s) are connected; disconnect them first")]
    InUse(usize),
    /// This node cannot have the newest data, or cannot know that it has.
    #[error("no up-to-date data is reachable: {0}")]
    NoData(String),
    /// No authority answered in time.
    #[error("no quorum: {0}")]
    NoQuorum(String),
    /// Its writes cannot be held.
    #[error("{0}")]
    NotHeld(String),
    /// What an operator wants makes no sense as things are.
    #[error("{0}")]
    Refused(String),
    /// The storage cannot be used; nothing was changed.
    #[error("storage: {0}")]
    Storage(String),
    /// The metadata belongs to something else, or is damaged beyond use.
    #[error("metadata: {0}")]
    Metadata(String),
    /// The data plane is shutting down.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}
