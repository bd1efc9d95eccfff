//! What a shard is asked by other threads.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::{Answer, ClientId, Held, HoldId, Identity, Operation, ResourceStatus, Settings, Ticket};
use crate::format::Loaded;
use crate::ring::{OpenDisk, Waker};
use crate::units::{Name, ResourceId, Sharing, VolumeId};

use super::plane::{ClientSocket, Clients, OpenExport, PeerLink, PlaneError};
use super::slab::Key;

/// Where an answer goes. Nobody may be waiting for it any more.
pub(super) type ReplyTo<T> = oneshot::Sender<Result<T, PlaneError>>;

/// What a shard is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// Start a resource.
    Open(Box<Opening>, ReplyTo<()>),
    /// Change a resource.
    Configure { resource: ResourceId, settings: Box<Settings>, disks: Option<OpenDisks>, reply: ReplyTo<()> },
    /// Handles to a resource's open files, to be reopened with a longer backing.
    Duplicate { resource: ResourceId, reply: ReplyTo<Option<OpenDisks>> },
    /// Stop a resource.
    Close { resource: ResourceId, force: bool, reply: ReplyTo<()> },
    /// Prepare for a client.
    Attach { resource: ResourceId, volume: VolumeId, read_only: bool, sharing: Sharing, reply: ReplyTo<OpenExport> },
    /// A client that was prepared for will not come.
    Detach { resource: Key, client: ClientId },
    /// The client has come.
    Serve { resource: Key, client: ClientId, volume: VolumeId, bytes: u64, socket: Box<ClientSocket> },
    /// Hold writes.
    Hold { resource: ResourceId, id: HoldId, lease: Duration, reply: ReplyTo<Held> },
    /// Hold them for longer.
    RenewHold { resource: ResourceId, id: HoldId, lease: Duration },
    /// Hold them no more.
    ReleaseHold { resource: ResourceId, id: HoldId, reply: ReplyTo<bool> },
    /// What an operator wants.
    Operate { resource: ResourceId, operation: Operation, reply: ReplyTo<()> },
    /// How a resource is at this moment.
    Look { resource: ResourceId, reply: ReplyTo<ResourceStatus> },
    /// Count the clients of every resource that has any.
    Clients(ReplyTo<Clients>),
    /// A connection to a peer.
    Link(Box<PeerLink>),
    /// The authority's answer.
    Answer { resource: ResourceId, ticket: Ticket, answer: Answer },
    /// End when every resource is stopped.
    Shutdown(ReplyTo<()>),
    /// End at once, as a crash would.
    Abandon,
}

/// A resource whose storage is open and read.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) name: Name,
    pub(super) identity: Identity,
    pub(super) settings: Settings,
    pub(super) replica: Option<(Loaded, OpenDisks)>,
}

/// The storage of a replica, open and locked.
#[derive(Debug)]
pub(super) struct OpenDisks {
    pub(super) metadata: OpenDisk,
    pub(super) volumes: BTreeMap<VolumeId, OpenDisk>,
}

/// A shard's letter box.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    queue: mpsc::Sender<Request>,
    waker: Waker,
}

impl Mailbox {
    /// To the shard that has the other end of the queue and waits with the waker's ring.
    pub(super) fn new(queue: mpsc::Sender<Request>, waker: Waker) -> Self {
        Self { queue, waker }
    }

    /// Delivers a request. One to a shard that has ended is dropped, and with it the ends that wait for a reply.
    pub(super) fn post(&self, request: Request) {
        if self.queue.send(request).is_ok() {
            self.waker.wake();
        }
    }
}
