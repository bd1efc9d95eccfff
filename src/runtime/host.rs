//! The data plane as the control plane sees it: a handle that knows which shard has what.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::ResourceStatus;
use crate::ring::{Ring, RingError, RingOptions, Waker};
use crate::units::{ResourceId, Sharing, VolumeId};

use super::board::Board;
use super::client::usher;
use super::counters::Counters;
use super::inbox::{Mailbox, Opening, ReplyTo, Request};
use super::io::Io;
use super::memory::{LEAST, Memory};
use super::plane::{
    Answer, ClientSocket, Clients, DataPlane, Held, HoldId, Lane, OpenExport, Operation, PeerLink, PlaneError, PlaneEvent,
    ReplicaStorage, Reply, ResourceSettings, ResourceSpec, Ticket, lane_of,
};
use super::shard::{Events, Granted, Shard};
use super::storage;

/// How a data plane is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlaneOptions {
    /// How many shards; at most [`LANES`](super::LANES).
    pub shards: usize,
    /// The memory for data on its way, in bytes and for each shard; at least 128 MiB. It becomes resident as it is used.
    pub memory: usize,
}

impl Default for PlaneOptions {
    /// A shard for each processor, at most eight.
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self { shards: processors.min(usize::from(super::LANES)), memory: 256 << 20 }
    }
}

/// Why a data plane could not be started.
#[derive(Debug, thiserror::Error)]
pub enum PlaneStartError {
    /// The kernel's rings cannot be used.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A thread or its memory could not be had.
    #[error("a shard cannot be started: {0}")]
    System(#[from] std::io::Error),
}

/// The data plane of this process. Dropping it ends its shards without closing resources, as a crash would: see
/// [`shutdown`](DataPlane::shutdown).
pub struct Plane {
    shards: Vec<Handle>,
}

/// A shard, from outside.
struct Handle {
    mailbox: Mailbox,
    board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

impl Plane {
    /// Starts the shards. `events` is called on their threads and must not block.
    ///
    /// # Errors
    ///
    /// What the kernel lacks or forbids, with the remedy.
    pub fn start(options: PlaneOptions, events: impl Fn(PlaneEvent) + Send + Sync + 'static) -> Result<Self, PlaneStartError> {
        let events: Events = Arc::new(events);
        let shards = options.shards.clamp(1, usize::from(super::LANES));
        let start = |number| Handle::start(number, options.memory, Arc::clone(&events));
        Ok(Self { shards: (0..shards).map(start).collect::<Result<_, _>>()? })
    }

    /// What all shards together have done, as of the last time they published.
    pub fn counters(&self) -> Counters {
        self.shards.iter().map(|shard| shard.board.counters()).fold(Counters::default(), Counters::plus)
    }

    fn of(&self, resource: ResourceId) -> &Handle {
        self.of_lane(lane_of(resource))
    }

    fn of_lane(&self, lane: Lane) -> &Handle {
        &self.shards[usize::from(lane.0) % self.shards.len()]
    }

    /// Asks a shard and gives the future of its answer.
    fn ask<T: Send + 'static>(&self, resource: ResourceId, request: impl FnOnce(ReplyTo<T>) -> Request) -> Reply<T> {
        ask(&self.of(resource).mailbox, request)
    }
}

/// Asks a shard and gives the future of its answer. A shard that has ended drops the question.
fn ask<T: Send + 'static>(mailbox: &Mailbox, request: impl FnOnce(ReplyTo<T>) -> Request) -> Reply<T> {
    let (reply, answer) = oneshot::channel();
    mailbox.post(request(reply));
    Box::pin(async move { answer.await.unwrap_or(Err(PlaneError::ShuttingDown)) })
}

/// Does on a thread of its own what may block, and gives the future of its result.
fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, PlaneError> + Send + 'static) -> Reply<T> {
    let (reply, answer) = oneshot::channel();
    let spawned = thread::Builder::new().name("storage".to_owned()).spawn(move || {
        let _unheard = reply.send(work());
    });
    Box::pin(async move {
        spawned.map_err(|error| PlaneError::Storage(format!("no thread for it: {error}")))?;
        answer.await.unwrap_or_else(|_| Err(PlaneError::Storage("opening it failed; see the log".to_owned())))
    })
}

impl DataPlane for Plane {
    fn open(&self, spec: ResourceSpec) -> Reply<()> {
        let mailbox = self.of(spec.resource).mailbox.clone();
        Box::pin(async move {
            let opening = aside(move || {
                let replica = spec.storage.as_ref().map(|storage| storage::open(&spec, storage)).transpose()?;
                let identity = storage::identity(&spec)?;
                Ok(Opening { name: spec.name, identity, settings: spec.settings, replica })
            });
            let opening = Box::new(opening.await?);
            ask(&mailbox, |reply| Request::Open(opening, reply)).await
        })
    }

    fn configure(&self, resource: ResourceId, settings: ResourceSettings, storage: Option<ReplicaStorage>) -> Reply<()> {
        let mailbox = self.of(resource).mailbox.clone();
        Box::pin(async move {
            let disks = match storage {
                None => None,
                Some(storage) => {
                    let before = ask(&mailbox, |reply| Request::Duplicate { resource, reply }).await?;
                    let sizes = settings.volumes.clone();
                    let before = before.ok_or_else(|| PlaneError::Storage("the resource has no replica here".to_owned()))?;
                    Some(aside(move || storage::reopen(before, &storage, &sizes)).await?)
                }
            };
            let settings = Box::new(settings);
            ask(&mailbox, |reply| Request::Configure { resource, settings, disks, reply }).await
        })
    }

    fn close(&self, resource: ResourceId, force: bool) -> Reply<()> {
        self.ask(resource, |reply| Request::Close { resource, force, reply })
    }

    fn attach(&self, resource: ResourceId, volume: VolumeId, read_only: bool, sharing: Sharing) -> Reply<OpenExport> {
        self.ask(resource, |reply| Request::Attach { resource, volume, read_only, sharing, reply })
    }

    fn serve(&self, export: OpenExport, client: ClientSocket) {
        let OpenExport { volume, bytes, attachment, .. } = export;
        let Ok(granted) = attachment.downcast::<Granted>() else {
            return tracing::error!("an attachment that this data plane did not make was handed to it");
        };
        if let Some((resource, id, mailbox)) = granted.redeem() {
            usher(&mailbox, resource, id, volume, bytes, client);
        }
    }

    fn link(&self, link: PeerLink) {
        self.of_lane(link.lane).mailbox.post(Request::Link(Box::new(link)));
    }

    fn answer(&self, resource: ResourceId, ticket: Ticket, answer: Answer) {
        self.of(resource).mailbox.post(Request::Answer { resource, ticket, answer });
    }

    fn hold(&self, resource: ResourceId, id: HoldId, lease: Duration) -> Reply<Held> {
        self.ask(resource, |reply| Request::Hold { resource, id, lease, reply })
    }

    fn renew_hold(&self, resource: ResourceId, id: HoldId, lease: Duration) {
        self.of(resource).mailbox.post(Request::RenewHold { resource, id, lease });
    }

    fn release_hold(&self, resource: ResourceId, id: HoldId) -> Reply<bool> {
        self.ask(resource, |reply| Request::ReleaseHold { resource, id, reply })
    }

    fn operate(&self, resource: ResourceId, operation: Operation) -> Reply<()> {
        self.ask(resource, |reply| Request::Operate { resource, operation, reply })
    }

    fn look(&self, resource: ResourceId) -> Reply<ResourceStatus> {
        self.ask(resource, |reply| Request::Look { resource, reply })
    }

    fn status(&self) -> Vec<ResourceStatus> {
        let mut all = Vec::new();
        self.shards.iter().for_each(|shard| shard.board.statuses(&mut all));
        all.sort_by_key(|status| status.resource);
        all
    }

    fn clients(&self) -> Reply<Clients> {
        let asked: Vec<_> = self.shards.iter().map(|shard| ask(&shard.mailbox, Request::Clients)).collect();
        Box::pin(async move {
            let mut all = Clients::new();
            for answer in asked {
                all.extend(answer.await?);
            }
            Ok(all)
        })
    }

    fn shutdown(&self) -> Reply<()> {
        let ends: Vec<_> = self.shards.iter().map(|shard| ask(&shard.mailbox, Request::Shutdown)).collect();
        Box::pin(async move {
            for end in ends {
                match end.await {
                    // One that has ended before has nothing to close.
                    Ok(()) | Err(PlaneError::ShuttingDown) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.mailbox.post(Request::Abandon);
        }
        for shard in &mut self.shards {
            if let Some(thread) = shard.thread.take() {
                // A shard that has panicked has said so.
                let _ended = thread.join();
            }
        }
    }
}

impl Handle {
    fn start(number: usize, memory: usize, events: Events) -> Result<Self, PlaneStartError> {
        let (queue, inbox) = mpsc::channel();
        let board = Arc::new(Board::default());
        let (ready, is_ready) = mpsc::channel::<Result<Waker, PlaneStartError>>();
        let (back, published) = (queue.clone(), Arc::clone(&board));
        // The ring and its memory belong to the thread, so they are made there.
        let thread = thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
            let io = match make_io(memory) {
                Ok(io) => io,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let waker = io.waker();
            let mailbox = Mailbox::new(back, waker.clone());
            let shard = match Shard::new(io, inbox, mailbox, events, published) {
                Ok(shard) => shard,
                Err(error) => return drop(ready.send(Err(error.into()))),
            };
            if ready.send(Ok(waker)).is_err() {
                return;
            }
            let alive = Alive(number);
            match shard.run() {
                Ok(()) => std::mem::forget(alive),
                Err(error) => tracing::error!(shard = number, %error, "a shard cannot go on"),
            }
        })?;
        let waker = is_ready.recv().map_err(|_| std::io::Error::other("it ended at once"))??;
        Ok(Self { mailbox: Mailbox::new(queue, waker), board, thread: Some(thread) })
    }
}

/// Dropped by a shard that ends for another reason than being told to. Its resources would be neither served here nor given up
/// to other nodes; a process that ends is taken over from at once and started anew.
struct Alive(usize);

impl Drop for Alive {
    fn drop(&mut self) {
        tracing::error!(shard = self.0, "a shard has ended, and with it this process");
        std::process::abort();
    }
}

fn make_io(memory: usize) -> Result<Io, PlaneStartError> {
    let mut ring = Ring::new(RingOptions::default())?;
    let memory = Memory::new(memory.max(LEAST))?;
    // A part of the memory is enough for what is usually in flight; all of it would be resident for ever.
    ring.register(memory.pool(), REGISTERED);
    Ok(Io::new(ring, memory))
}

/// How much of a shard's memory is registered with its ring.
const REGISTERED: usize = 16 << 20;

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plane({} shards)", self.shards.len())
    }
}
