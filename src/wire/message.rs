//! What two engines of one resource say to each other.
//!
//! A message travels in a [`Frame`](super::Frame) that names the resource and the sender's reign. Messages of one resource between two
//! nodes arrive in the order they were sent, or not at all: a connection that loses one ends.

use serde::{Deserialize, Serialize};

use super::diverged::Diverged;
use crate::units::{
    BlockRange, ClusterId, DiskState, Extent, Incarnation, NodeId, Record, RecordId, ReplicaId, ResourceId, Role, Sharing,
    VolumeId,
};

/// The largest number of ranges in one message; longer lists are sent in parts.
pub const RANGES_MAX: usize = 4096;

/// A message between the engines of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Who I am and where I stand: the first message of a session, and the answer to one whose token is new.
    Hello(Box<Introduction>),
    /// My standing has changed: another record, disk state or role.
    Standing(Box<Standing>),
    /// Primary to replica: follow me under this record. The replica drains, stores the record, and answers by a report.
    Open {
        /// Names the session; a report for another one is of the past.
        session: u64,
        /// The primary's record.
        record: Record,
    },
    /// Part of a report: blocks in which the sender may differ from others (rules M5, P2, R5).
    ReportRanges {
        /// The session.
        session: u64,
        /// At most [`RANGES_MAX`] ranges.
        ranges: Vec<BlockRange>,
    },
    /// Replica to primary: the report is complete; the session is open.
    Report(Report),
    /// The sender refuses the receiver's reign: it goes by this newer record (rule F1).
    Fenced {
        /// The record that fences.
        record: Record,
    },
    /// The sender stops cleanly: it need not be waited for.
    Leaving,

    /// Write the payload. The blocks do not overlap any other write in flight.
    Write(Write),
    /// Make these blocks read as zeroes (TRIM and WRITE_ZEROES; the same bytes on every replica).
    Zero(Zero),
    /// Replica to primary: these writes are on disk (and durable, where that was asked for).
    Written {
        /// Sequence numbers, in the order of completion.
        seqs: Vec<u64>,
    },
    /// Replica to primary, protocol B: these writes have arrived.
    Received {
        /// Sequence numbers.
        seqs: Vec<u64>,
    },
    /// Make everything written so far durable.
    Flush {
        /// Names the answer.
        id: u64,
    },
    /// Everything that was acknowledged before the flush arrived is durable.
    Flushed {
        /// The flush.
        id: u64,
        /// Every write up to this sequence number is durable.
        durable: u64,
    },
    /// Primary to replica: every write up to here is durable on every member (rule P4).
    Settled {
        /// The sequence number.
        seq: u64,
        /// Everything that was remembered from older reigns is equal everywhere as well.
        older: bool,
    },
    /// Read blocks for a primary that cannot read them itself.
    Read {
        /// Names the answer.
        id: u64,
        /// The blocks.
        range: BlockRange,
    },
    /// The blocks are the payload; no payload when they could not be read.
    ReadReply {
        /// The read.
        id: u64,
        /// Whether the payload is there.
        ok: bool,
    },

    /// Primary to target: a resync begins; be durably Inconsistent first (rule R4).
    SyncBegin,
    /// The target is durably Inconsistent.
    SyncReady,
    /// Send the hashes of these blocks, one each.
    Hash {
        /// Names the answer.
        id: u64,
        /// The blocks.
        range: BlockRange,
    },
    /// The hashes; none when the blocks could not be read.
    Hashes {
        /// The question.
        id: u64,
        /// One a block.
        hashes: Vec<BlockHash>,
    },

    /// Make these extents cold, after storing what is dirty in them for absent replicas (rule W5).
    Cool {
        /// Names the answer.
        id: u64,
        /// The extents.
        extents: Vec<Extent>,
        /// For each absent replica the dirty blocks in these extents.
        dirty: Vec<(NodeId, Vec<BlockRange>)>,
    },
    /// The extents are cold.
    Cooled {
        /// The question.
        id: u64,
    },
    /// Part of an admission: extents that are hot at the primary, blocks that are dirty for an absent replica (rule M4).
    AdmitPart {
        /// Hot extents.
        hot: Vec<Extent>,
        /// Dirty blocks of absent replicas.
        dirty: Vec<(NodeId, Vec<BlockRange>)>,
    },
    /// The admission is complete: store it durably and say so.
    Admit {
        /// Names the answer.
        id: u64,
        /// For each absent replica the record at which it was last in sync, as the primary knows (rule M6).
        bases: Vec<(NodeId, RecordPoint)>,
    },
    /// All of the admission is durable.
    AdmitStored {
        /// The question.
        id: u64,
    },
    /// Primary to replica: the record has changed under the same reign, or the primary has stepped down.
    Record {
        /// The new record.
        record: Record,
    },

    /// `quorum=off`: store this record if yours is `expect` (the node is its own authority).
    Propose {
        /// The id that the receiver's record must have.
        expect: RecordId,
        /// The new record.
        record: Record,
    },
    /// The proposal is stored durably.
    Accepted {
        /// The proposal's id.
        id: RecordId,
    },
    /// The proposal was refused.
    Rejected {
        /// The proposal's id.
        id: RecordId,
        /// The receiver's own record.
        record: Option<Record>,
    },
    /// A proposal that was refused elsewhere; nothing was completed under it.
    Withdraw {
        /// The proposal's id.
        id: RecordId,
    },

    /// Give up the primary role if nobody uses the resource there.
    StepDown,
    /// The resource is in use here.
    InUse,

    /// Take requests for the sender's clients; become primary for them if nobody is (rule W7).
    Serve {
        /// Names the sender's requests, together with their numbers.
        session: u64,
        /// The last client that wants to be let in there: they are numbered.
        entry: u64,
        /// Whether such a client waits: what has a session already is no reason to take the role from a primary that is only out of sight.
        waits: bool,
        /// With whom the sender's clients share.
        sharing: Sharing,
    },
    /// The receiver's requests are taken.
    Serving {
        /// The session.
        session: u64,
        /// Names the primary's memory of what was done; requests may be sent again to the same one only.
        memory: u64,
        /// Clients up to this one may be let in.
        entry: u64,
        /// With whom they share.
        sharing: Sharing,
    },
    /// The receiver's clients are not let in: they do not share with that node's.
    Barred {
        /// The session.
        session: u64,
        /// Whose clients they are.
        by: NodeId,
    },
    /// Answer with [`Met`](Self::Met): what the receiver has forwarded before has arrived then.
    Meet {
        /// The question's number.
        round: u64,
    },
    /// The answer.
    Met {
        /// The question's number.
        round: u64,
    },
    /// The receiver's requests are not taken, or no longer.
    NotServing {
        /// The session.
        session: u64,
        /// Why, for the client; empty when another node will take them.
        why: String,
    },
    /// The sender needs nothing more.
    Unserve {
        /// The session.
        session: u64,
    },
    /// A client's request. The payload of a write are the whole blocks that it touches, its bytes at their place.
    Forward {
        /// The session.
        session: u64,
        /// The request's number; they ascend.
        seq: u64,
        /// Every request up to here was answered.
        answered: u64,
        /// What is asked.
        what: Forwarded,
    },
    /// What became of a forwarded request. Of a read that was done, the payload are the whole blocks that it touches.
    Answer {
        /// The session.
        session: u64,
        /// The request's number.
        seq: u64,
        /// Done, or why not.
        result: Result<(), Failure>,
    },
    /// There was no memory for a forwarded write: send it again in a moment.
    Busy {
        /// The session.
        session: u64,
        /// The request's number.
        seq: u64,
    },
    /// Primary to replica: the write `seq`, which follows, is this request.
    Origin {
        /// The write's number in the reign.
        seq: u64,
        /// The request.
        origin: Origin,
    },
    /// Primary to replica: the forwarded writes that are on the primary's disk, and on the receiver's when the two are equal. A list of them
    /// is one such message for every session, and one of session 0, which closes it.
    Applied {
        /// Names the memory that the primary has of them.
        memory: u64,
        /// The node that forwarded them; the sender where the list is closed.
        node: NodeId,
        /// Its session; 0 closes the list.
        session: u64,
        /// Their numbers, at most [`FORWARDED_MAX`].
        done: Vec<u64>,
        /// The receiver's disk has all of them. If not, it may yet have to be made equal: what both know counts.
        equal: bool,
    },
    /// Between the two sides of a split brain (rule Q4).
    Diverged(Diverged),
}

/// The most requests between the first of a session that is not answered and the last that was sent.
pub const FORWARDED_MAX: u64 = 2048;

/// A request of another node's client. Offsets and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarded {
    /// Read.
    Read {
        /// The volume.
        volume: VolumeId,
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Write the payload.
    Write {
        /// The volume.
        volume: VolumeId,
        /// The first byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Answer when durable.
        fua: bool,
    },
    /// Make whole blocks read as zeroes.
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

impl Forwarded {
    /// The blocks of the payload, or of the answer's; `None` when there are none.
    pub fn blocks(&self) -> Option<BlockRange> {
        match *self {
            Self::Read { volume, offset, len } | Self::Write { volume, offset, len, .. } => {
                Some(BlockRange::covering(volume, offset, len))
            }
            Self::Zero { .. } | Self::Flush => None,
        }
    }
}

/// Which forwarded request a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The node that forwards.
    pub node: NodeId,
    /// Its session.
    pub session: u64,
    /// The request's number.
    pub seq: u64,
    /// Every request up to here was answered.
    pub answered: u64,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// No replica could do it.
    Io,
    /// The pool is full.
    NoSpace,
    /// The resource stops here.
    ShuttingDown,
}

/// A point in a resource's line of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordPoint {
    /// The record's number.
    pub number: u64,
    /// The record's id.
    pub id: RecordId,
}

/// A strong hash of one block, truncated: equal hashes are taken for equal blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockHash(pub [u8; 16]);

/// What never changes within a session, and the standing at its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The cluster; another one's engine is refused by name (rule M7).
    pub cluster: ClusterId,
    /// The resource.
    pub resource: ResourceId,
    /// Names this session on the sender's side; a new one with every session.
    pub token: u64,
    /// The receiver's token as far as the sender knows it, 0 when not yet.
    pub answers: u64,
    /// The sender's standing.
    pub standing: Standing,
}

/// Where a node stands with a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The replica; `None` on a node without one.
    pub replica: Option<ReplicaStanding>,
    /// The record the node goes by.
    pub record: Option<Record>,
    /// Ancestors of the record, newest first; as many as the node remembers. Empty under [`Authority::Majority`](crate::units::Authority).
    pub lineage: Vec<RecordId>,
    /// Whether the node is primary in the record's reign, by its own promotion in this life.
    pub role: Role,
    /// Whether clients use the resource there.
    pub in_use: bool,
    /// With whom they share; `None` without any.
    pub sharing: Option<Sharing>,
    /// The volumes that the sender can take writes for, with their sizes in bytes (rule V1).
    pub volumes: Vec<(VolumeId, u64)>,
}

/// Where a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStanding {
    /// Its identity.
    pub replica: ReplicaId,
    /// This life.
    pub incarnation: Incarnation,
    /// The incarnation that this life continues cleanly; itself after an unclean start (rule M3).
    pub continues: Incarnation,
    /// Its disk.
    pub disk: DiskState,
    /// The last record that had it in sync; `None` when it was never UpToDate (rule M6).
    pub synced: Option<RecordPoint>,
}

/// The end of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The session that is open now.
    pub session: u64,
    /// The record that the replica has stored and follows.
    pub record: RecordId,
    /// The newest write of this reign that the replica has seen in this incarnation, 0 for none: with the primary's own memory it
    /// tells what to send again (rule W6).
    pub seen: u64,
    /// For how many more nanoseconds an older primary may hold a lease that this replica granted (rule F3).
    pub lease_left: u64,
}

/// A write on its way to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Counts the reign's writes from 1.
    pub seq: u64,
    /// The blocks; the payload has exactly their bytes.
    pub range: BlockRange,
    /// Acknowledge when durable.
    pub fua: bool,
    /// Part of a resync rather than a client's write.
    pub sync: bool,
    /// Every write up to here is durable on every member.
    pub settled: u64,
}

/// A range to be zeroed on a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zero {
    /// As in [`Write`].
    pub seq: u64,
    /// The blocks.
    pub range: BlockRange,
    /// Give the space back where the pool can; else keep it allocated.
    pub unmap: bool,
    /// Acknowledge when durable.
    pub fua: bool,
    /// Part of a resync rather than a client's request.
    pub sync: bool,
    /// As in [`Write`].
    pub settled: u64,
}
