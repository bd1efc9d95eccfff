//! What a primary owns: requests, writes in flight, flushes, resyncs.

use std::collections::VecDeque;

use crate::units::{Instant, Slab};
use crate::wire::Origin;

use super::event::{ClientId, Request, RequestId};
use super::flights::Flights;
use super::flush::Flushes;
use super::guests::Guests;
use super::order::Order;
use super::peerset::PeerSet;
use super::prefix::Prefix;
use super::resync::Chunk;

/// A node's time as primary.
#[derive(Debug)]
pub(super) struct Reign {
    /// The record's reign.
    pub(super) number: u64,
    pub(super) phase: Phase,
    pub(super) since: Instant,
    pub(super) requests: Slab<Pending>,
    pub(super) order: Order,
    pub(super) flights: Flights,
    /// Local writes: up to where all are on disk, and up to where they are durable.
    pub(super) local: Prefix,
    pub(super) local_durable: u64,
    pub(super) flushes: Flushes,
    pub(super) chunks: Slab<Chunk>,
    /// The replicas whose acknowledgements and leases are needed now (the ack set), this node's own not counted.
    pub(super) ack: PeerSet,
    /// Requests for blocks that are not equal on every member yet (rule P3).
    pub(super) held: Vec<u64>,
    /// Writes that wait for their extents to be hot.
    pub(super) heating: VecDeque<u64>,
    /// Writes that wait until the record says durably that writing has begun (rule Q3).
    pub(super) latched: VecDeque<u64>,
    pub(super) latching: bool,
    /// Reads that a peer does for this node, by the question's number.
    pub(super) remote: std::collections::BTreeMap<u64, super::remote::RemoteRead>,
    /// ... and those that no peer is there for.
    pub(super) unread: Vec<super::remote::RemoteRead>,
    /// Reads that are done but for a lease.
    pub(super) unleased: Vec<u64>,
    /// What older reigns left is equal and durable on all members.
    pub(super) equal: bool,
    /// Everything up to here is durable on every member.
    pub(super) settled: u64,
    /// A round of flushes after which members that were made equal are so durably.
    pub(super) equal_from: Option<u64>,
    /// Bitmaps with what members reported that are being stored.
    pub(super) uniting: usize,
    /// Other nodes whose clients' requests are taken.
    pub(super) guests: Guests,
    /// Another node wants the role.
    pub(super) yield_role: bool,
    /// When stepping down: the rounds of flushes that had ended.
    pub(super) step_down_from: u64,
    /// ... and the replicas were told.
    pub(super) settled_told: u64,
    /// When the periodic flush is due (rule P4).
    pub(super) flush_due: Option<Instant>,
    /// What was settled when extents to be cooled were last looked for.
    pub(super) cooling_tried: u64,
    /// Cooling under way.
    pub(super) cooling: Option<super::cooling::Cooling>,
    /// Admission under way.
    pub(super) admission: Option<super::admission::Admission>,
    /// Since when nobody needs this node to be primary.
    pub(super) idle_since: Option<Instant>,
    /// The last name that was given: the reign in the upper half, so that no two reigns share one.
    pub(super) next_name: u64,
    /// Something was completed in this reign.
    pub(super) completed: bool,
    /// When the last write was numbered.
    pub(super) last_write: Instant,
}

/// How far a reign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The members report or are evicted, older leases run out (rules P2, F3).
    TakingOver,
    /// Requests are served.
    Serving,
    /// All is being made durable and cold, then the record names no primary.
    SteppingDown,
}

/// A client's request that is not answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) asker: Asker,
    /// Which request it is when it was forwarded, or was to be.
    pub(super) origin: Option<Origin>,
    /// It was done under an older primary, and has only to be answered (rule W7).
    pub(super) done: bool,
    pub(super) request: Request,
    pub(super) state: State,
    /// It holds its extents hot.
    pub(super) holds: bool,
}

/// Who waits for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client of this node.
    Client { id: RequestId, client: ClientId },
    /// Another node, for a client of its own.
    Guest { peer: usize },
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was not started: it waits for its turn, or for its blocks to become equal.
    Waiting,
    /// So many edges of an unaligned write are being read.
    Edges(u8),
    /// Its extents are being made hot, or the record is being stored.
    Heating,
    /// It is in flight.
    Flying,
    /// It is being read.
    Reading,
    /// It waits for a flush.
    Flushing,
}

impl Reign {
    pub(super) fn new(number: u64, now: Instant) -> Self {
        Self {
            number,
            phase: Phase::TakingOver,
            since: now,
            requests: Slab::default(),
            order: Order::default(),
            flights: Flights::default(),
            local: Prefix::default(),
            local_durable: 0,
            flushes: Flushes::default(),
            chunks: Slab::default(),
            ack: PeerSet::default(),
            held: Vec::new(),
            heating: VecDeque::new(),
            latched: VecDeque::new(),
            latching: false,
            remote: std::collections::BTreeMap::new(),
            unread: Vec::new(),
            unleased: Vec::new(),
            equal: false,
            settled: 0,
            equal_from: None,
            uniting: 0,
            guests: Guests::default(),
            yield_role: false,
            step_down_from: 0,
            settled_told: 0,
            flush_due: None,
            cooling_tried: 0,
            cooling: None,
            admission: None,
            idle_since: None,
            next_name: number << 32,
            completed: false,
            last_write: now,
        }
    }

    /// Begins to give the role up: after one whole round of flushes from here on.
    pub(super) fn step_down(&mut self) {
        self.phase = Phase::SteppingDown;
        // The next primary goes on with it. While one is handed over here nothing is cooled, and the role would be kept for ever.
        self.admission = self.admission.take().filter(super::admission::Admission::is_proposed);
        self.flushes.wanted = true;
        self.step_down_from = self.flushes.ended;
    }

    /// A name for a question. No other reign of this node has it: an answer that comes late, or a store that hung, names what it belongs to.
    pub(super) fn name(&mut self) -> u64 {
        self.next_name += 1;
        self.next_name
    }

    /// Whether no client's write was completed in this reign.
    pub(super) fn wrote_nothing(&self) -> bool {
        !self.completed
    }
}
