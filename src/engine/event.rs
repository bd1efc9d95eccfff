//! What goes into an engine and what comes out.
//!
//! Both are closed lists of plain values that can be printed and compared: a test feeds events and asserts commands, the
//! simulator does the same with a whole cluster, and the runtime does it with sockets and disks.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::units::{BlockRange, NodeId, Record, RecordId, Sharing, VolumeId};
pub use crate::wire::Failure;
use crate::wire::{BlockHash, Message};

use super::operate::{AskId, OperateError, Operation};
use super::settings::Settings;

/// Names a client session at this node, chosen by the caller and not used again within the engine's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u64);

/// Names a request, chosen by the caller; free for another request once it was completed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Names a buffer that the caller owns. An engine never looks into it.
///
/// An engine that was given a buffer by an event holds one reference, and gives it back by exactly one [`Command::Release`].
/// Commands that name a buffer keep it alive until they are done; that is the caller's part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BufferId(pub u32);

/// Names an operation on the local disk or metadata area, chosen by the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// Names a question to the authority, chosen by the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Names a hold of writes, chosen by whoever asks for it and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HoldId(pub u64);

/// Something that has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client wants to use the resource; answered by [`Command::Attached`].
    Attach(ClientId),
    /// As [`Attach`](Self::Attach), and until it has gone nobody is let in with whom it does not share.
    AttachAs(ClientId, Sharing),
    /// A client is gone. Its requests that were not started are dropped; those that were, run to their end unheard.
    Detach(ClientId),
    /// A client's request, checked against the volume's size; answered by [`Command::Complete`].
    Request {
        /// Names the request.
        id: RequestId,
        /// The client; attached.
        client: ClientId,
        /// What it wants.
        request: Request,
    },
    /// There is a connection to a peer. Comes before its first message, and after [`LinkDown`](Self::LinkDown) of the one before.
    LinkUp(NodeId),
    /// The connection to a peer is gone.
    LinkDown {
        /// The peer.
        peer: NodeId,
        /// It was given up because the peer did not answer, so that waiting for another one is pointless.
        silent: bool,
    },
    /// A message of a peer's engine for this resource.
    Message {
        /// The peer.
        from: NodeId,
        /// The reign under which the peer sent it.
        reign: u64,
        /// The message.
        message: Message,
        /// Its payload. A forwarded read comes with a buffer for what is read; a forwarded request that needs one and comes without is
        /// sent back: there is no memory for it now.
        payload: Option<BufferId>,
    },
    /// An operation on the local disk has ended.
    DiskDone {
        /// Which.
        op: OpId,
        /// How.
        outcome: DiskOutcome,
    },
    /// A write of metadata is durable, or has failed.
    MetaDone {
        /// Which.
        op: OpId,
        /// Whether it is durable.
        ok: bool,
    },
    /// The authority's answer.
    Answer {
        /// To which question.
        ticket: Ticket,
        /// What it says.
        answer: Answer,
    },
    /// Peers, volumes or options have changed; answered by [`Command::Configured`]. Every volume's storage has its new size already, its
    /// new part reads as zeroes, and the metadata area is as long as [`grow`](crate::format::grow) says.
    Configure(Settings),
    /// Let no write begin and those under way end, on every replica in sync, for a snapshot; answered by [`Command::Held`]. This node
    /// becomes primary for it when nobody is. It ends by itself after this time unless it is renewed.
    Hold {
        /// Names the hold.
        id: HoldId,
        /// How long it lasts, the time that it takes to come about included.
        lease: Duration,
    },
    /// A hold is to last as long as this from now on; nothing when it is over.
    RenewHold {
        /// Which.
        id: HoldId,
        /// How long.
        lease: Duration,
    },
    /// Let writes begin again; answered by [`Command::Released`].
    ReleaseHold(HoldId),
    /// Do what an operator wants; answered by [`Command::Operated`].
    Operate {
        /// Names the question.
        id: AskId,
        /// What he wants.
        operation: Operation,
    },
    /// End: give up the primary role, drain, flush, mark the metadata clean; answered by [`Command::Stopped`]. Clients that are
    /// still attached lose their sessions.
    Stop,
    /// The moment of [`Engine::timeout`](super::Engine::timeout) has come.
    Timeout,
    /// A lease was renewed on a connection after [`Command::AskLease`].
    LeaseRenewed,
}

/// A client's request. Offsets and lengths are in bytes and within the volume; lengths are not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read into the buffer, which covers whole blocks from the one that holds `offset`.
    Read {
        /// The volume.
        volume: VolumeId,
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Receives the blocks.
        buffer: BufferId,
    },
    /// Write from the buffer, which covers whole blocks from the one that holds `offset`, the bytes at their place in it.
    Write {
        /// The volume.
        volume: VolumeId,
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Holds the bytes.
        buffer: BufferId,
        /// Answer when durable.
        fua: bool,
    },
    /// Make whole blocks read as zeroes. The caller turns the partial blocks at the ends into writes.
    Zero {
        /// The blocks.
        range: BlockRange,
        /// Give the space back where the pool can.
        unmap: bool,
        /// Answer when durable.
        fua: bool,
    },
    /// Make everything that was answered before durable.
    Flush,
}

/// How a disk operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOutcome {
    /// Well. For reads the buffer that was given, or the one that was allocated.
    Done(Option<BufferId>),
    /// A read for a resync: the blocks hold nothing but zeroes, and no buffer is given.
    Zeroes,
    /// The hashes of the blocks.
    Hashed(Vec<BlockHash>),
    /// Badly: the disk cannot be trusted with it. A buffer that was given for a read comes back with the request.
    Failed,
}

/// The authority's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The proposal is the record now.
    Granted,
    /// It is not and will not be; this is the record (also the answer to a read).
    Is(Record),
    /// No authority could be reached in time; whether the proposal was taken is not known.
    Unknown,
    /// The resource is not in the model any more.
    Gone,
}

/// Something to be done. Commands are carried out in their order as far as one peer's messages are concerned; disk operations
/// may overtake each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answer a client's request.
    Complete {
        /// Which.
        id: RequestId,
        /// Done, or why not.
        result: Result<(), Failure>,
    },
    /// Answer an attach.
    Attached {
        /// The client.
        client: ClientId,
        /// Attached, or why not.
        result: Result<(), AttachError>,
    },
    /// End every client's session: what they have not been answered is unknown to them.
    DropClients,
    /// Send a message.
    Send {
        /// To whom.
        to: NodeId,
        /// The sender's reign.
        reign: u64,
        /// What.
        message: Message,
        /// Its payload: the first bytes of the buffer, as many as the message's range has.
        payload: Option<BufferId>,
    },
    /// An operation on the local disk; answered by [`Event::DiskDone`].
    Disk {
        /// Names the answer.
        op: OpId,
        /// What.
        io: DiskIo,
    },
    /// Write metadata durably; answered by [`Event::MetaDone`].
    Meta {
        /// Names the answer.
        op: OpId,
        /// Where in the metadata area, in bytes.
        at: u64,
        /// What.
        bytes: Box<[u8]>,
    },
    /// Copy bytes from one buffer to another, at once: what was read from a peer to where it is wanted.
    Copy {
        /// Where from.
        from: BufferId,
        /// The first byte there.
        from_at: u64,
        /// Where to.
        into: BufferId,
        /// The first byte there.
        into_at: u64,
        /// How many.
        len: u64,
    },
    /// The engine needs the buffer no longer.
    Release(BufferId),
    /// Ask the cluster's authority to replace a record; answered by [`Event::Answer`].
    Propose {
        /// Names the answer.
        ticket: Ticket,
        /// The id that the present record must have.
        expect: RecordId,
        /// The new record.
        record: Record,
    },
    /// Ask the cluster's authority for the record; answered by [`Event::Answer`].
    ReadRecord {
        /// Names the answer.
        ticket: Ticket,
    },
    /// A read waits for this peer's lease: send a heartbeat now rather than when it is due.
    AskLease(NodeId),
    /// Every replica in sync has exactly the writes that it names, durably, and gets no others until the hold is over; or why there is
    /// no hold.
    Held {
        /// Which.
        id: HoldId,
        /// Who has the same, or why not.
        result: Result<Held, HoldError>,
    },
    /// A hold is over.
    Released {
        /// Which.
        id: HoldId,
        /// Whether it has lasted from [`Held`](Self::Held) until now. Otherwise nothing that was read meanwhile is of one moment.
        whole: bool,
    },
    /// What an operator wanted has begun, or why not.
    Operated {
        /// Which question.
        id: AskId,
        /// Begun, or why not; nothing has changed then.
        result: Result<(), OperateError>,
    },
    /// All that was configured is in force: what was removed is not asked for any more.
    Configured,
    /// The engine has stopped; its metadata says so durably when `clean`.
    Stopped {
        /// Whether the next start continues this life.
        clean: bool,
    },
}

/// An operation on the local disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskIo {
    /// Read blocks; into the buffer when one is given, else into one that the caller allocates and hands over.
    Read {
        /// The blocks.
        range: BlockRange,
        /// Where to.
        buffer: Option<BufferId>,
        /// Say [`DiskOutcome::Zeroes`] when that is all there is.
        detect_zeroes: bool,
    },
    /// Read one block and copy `len` of its bytes from `from` to the same place of the block at `block_in_buffer` in the buffer.
    ReadEdge {
        /// The block.
        range: BlockRange,
        /// The buffer.
        buffer: BufferId,
        /// Which block of the buffer.
        block_in_buffer: u64,
        /// The first byte within the block.
        from: u64,
        /// How many.
        len: u64,
    },
    /// Write the first bytes of the buffer.
    Write {
        /// The blocks.
        range: BlockRange,
        /// The bytes.
        buffer: BufferId,
        /// Durably.
        fua: bool,
    },
    /// Make blocks read as zeroes.
    Zero {
        /// The blocks.
        range: BlockRange,
        /// Give the space back where the pool can.
        unmap: bool,
        /// Durably.
        fua: bool,
    },
    /// Make everything that has ended durable, on all volumes.
    Flush,
    /// Read blocks and hash each.
    Hash {
        /// The blocks.
        range: BlockRange,
    },
}

/// A moment at which several replicas have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The reign that holds. A replica that goes by it, before and after it was read, was not written to by another.
    pub reign: u64,
    /// The nodes whose replicas are in sync.
    pub in_sync: BTreeSet<NodeId>,
}

/// Why writes are not held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldError {
    /// Another hold is in force.
    Busy,
    /// That node is primary: ask there.
    Elsewhere(NodeId),
    /// This node cannot be primary; what would help.
    NoData(String),
    /// What was under way did not end in time.
    Slow,
    /// This node ceased to be primary meanwhile.
    Ended,
}

/// Why a client may not use the resource here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// It is in use on that node.
    InUse(NodeId),
    /// This node's data is not known to be the newest; what would help.
    NoData(String),
    /// The authority could not be reached.
    NoQuorum,
    /// The engine stops.
    ShuttingDown,
}
