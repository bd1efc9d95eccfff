//! The replication state machine (pure): who may write, what is sent where, and when a client is answered.
//!
//! One [`Engine`] is one resource on one node. It decides and does nothing: it has no clock, socket, disk, thread or randomness, and
//! it never waits. The runtime carries its decisions out on real disks and connections, the simulator on imagined ones.
//!
//! # How events flow
//!
//! ```text
//!   clients ─────────┐                                       ┌──▶ answers to clients
//!   peers' messages ─┤    Engine::handle(now, links, event)  ├──▶ messages to peers
//!   disk, metadata ──┼──▶  1. one method for the event       ├──▶ disk operations, metadata writes
//!   authority ───────┤     2. consider: whatever is due now  ├──▶ questions to the authority
//!   the clock ───────┘                                       └──▶ Engine::timeout: wake me then
//!                             Engine::take_commands
//! ```
//!
//! 1. An event changes what it is about and nothing else: an acknowledgement is counted, a report is noted.
//! 2. Then `consider` looks at the whole and does what is due, until nothing is: begins a resync, evicts a member, serves what was held.
//!    It runs after every event and finds nothing to do after most, so that no event has to know what else it has made possible.
//! 3. What has to wait for metadata to be durable is a value, `Then`, beside the write that it waits for. When the write has ended,
//!    `Engine::then` goes on. What waits for a disk operation is a value, too: `Op`.
//! 4. Acknowledgements are gathered until the commands are taken: a batch of events costs a peer one message.
//!
//! # Roles
//!
//! ```text
//!                     a client attaches, or a replica needs a resync,
//!                     and this node is a member (P1, M3, M8, Q7)
//!      ┌───────────┐                                      ┌───────────┐
//!  ┌──▶│ secondary │─────────────────────────────────────▶│ candidate │
//!  │   │           │◀─────────────────────────────────────│           │
//!  │   └───────────┘        another record is there       └─────┬─────┘
//!  │        ▲  ▲                                                 │ the record names this node:
//!  │        │  │                                                 │ a new reign
//!  │        │  │            a newer reign (F1, P6)         ┌─────▼───────┐
//!  │        │  └────────────────────────────────────◀──────│ taking over │
//!  │        │               fails what is not answered     │             │
//!  │        │                                              └─────┬───────┘
//!  │        │                                                    │ every member has reported or was evicted (P2),
//!  │        │                                                    │ older leases have ended (F3)
//!  │        │               a newer reign (F1, P6)         ┌─────▼───────┐
//!  │        └───────────────────────────────────────◀──────│   serving   │◀─┐
//!  │                                                       │             │  │ a client attaches
//!  │                                                       └─────┬───────┘  │
//!  │                                                             │ nobody attached for a second,
//!  │                                                             │ another node asks, or the end
//!  │   the record names no primary                         ┌─────▼───────┐  │
//!  └───────────────────────────────────────────────────────│  stepping   │──┘
//!      all is equal, durable and cold (P4, W5)             │  down       │
//!                                                          └─────────────┘
//! ```
//!
//! A secondary has no `Reign`; what it does for a primary is in `Follow`. A candidate is a secondary with a `Change` under way. The
//! other three are the `Phase` of a `Reign`, which owns what a primary has under way and is dropped with the role.
//!
//! # Code map
//!
//! | theme | file | what it is |
//! |---|---|---|
//! | the engine | `core` | what it owns; how an event finds its way; what it knows of itself |
//! | | `due` | what is due after an event |
//! | | `event` | events and commands: the whole border |
//! | | `settings`, `configure` | what it is told; peers and volumes, at the start and when they change |
//! | | `reshape` | volumes that come, go or grow under an open engine |
//! | | `status`, `look` | what it shows, and when it wants to be woken |
//! | meeting | `connect` | introductions; whose record is newer; forks |
//! | | `discard` | the end of a split brain
//! | | `after_sb` | whose data is discarded when nobody is asked
//! | | `standing` | what peers are told of this node |
//! | | `peer`, `peerset` | a peer and its session; sets of peers |
//! | | `link` | heartbeats and leases of a connection; shared by all its resources |
//! | the record | `court` | changing it, at either authority |
//! | | `change` | the one change that is under way |
//! | | `latch` | noting that writing has begun |
//! | becoming primary, and ceasing | `promotion` | who may, when, and why not |
//! | | `promote` | at an operator's word, by force, too |
//! | | `takeover` | a reign from its first moment to its last |
//! | | `reign` | what a primary owns |
//! | | `stop` | a clean end |
//! | being primary | `requests` | a client's request from arrival to answer |
//! | | `order` | who may touch which blocks now |
//! | | `flights` | writes between their numbering and their last acknowledgement |
//! | | `flush` | rounds of flushes, and what they settle |
//! | | `no_quorum` | failing what waits for a quorum, where that is asked for |
//! | | `cooling` | making extents cold, at the primary and at a replica |
//! | | `hold` | a moment without writes, for snapshots |
//! | | `remote` | reads that a peer does when the own disk has failed |
//! | clients elsewhere | `forward` | requests of this node's clients, done by the primary |
//! | | `server` | who that primary is |
//! | | `guests` | requests of other nodes' clients, done here |
//! | | `entry` | letting a client in, here or there |
//! | | `applied` | which of them were done: none is done twice |
//! | who counts | `membership` | the ack set; losing a peer; going on without it |
//! | | `resync` | bringing a target up to date, making a member equal |
//! | | `verify` | whether the members are the same |
//! | | `admission` | taking a target into the in-sync set |
//! | being a replica | `follow` | following a primary: reports, flushes |
//! | | `arrivals` | its writes, from their arrival to the disk |
//! | | `reader` | what is read and hashed for the primary |
//! | an operator's verbs | `operate` | asked and answered |
//! | what is remembered | `store` | the replica's metadata on its way to disk, and what waits for it |
//! | | `activity` | hot extents |
//! | | `dirty` | what each peer lacks |
//! | | `unsettled` | writes that may not be everywhere |
//! | small tools | `ops` | operations under way |
//! | | `prefix`, `ids` | up to where all is done; ids that are never drawn twice |
//! | a test of the tests | `mutant` | the rules that can be broken on purpose, one at a time |
//!
//! **Invariant:** what another node relies on to be stored here is said when it is. That is why `Accepted`, `SyncReady`, `Cooled` and
//! `AdmitStored` are sent by `Engine::then` and nowhere else.
//!
//! **Invariant:** the engine never looks into a buffer. Data passes by as a [`BufferId`].
//!
#![doc = include_str!("../docs/durability.md")]

mod activity;
mod admission;
mod after_sb;
mod applied;
mod arrivals;
mod change;
mod configure;
mod connect;
mod cooling;
mod core;
mod court;
mod dirty;
mod discard;
mod due;
mod entry;
mod event;
mod flights;
mod flush;
mod follow;
mod forward;
mod guests;
mod hold;
mod ids;
mod latch;
mod link;
mod look;
mod membership;
mod mutant;
mod no_quorum;
mod operate;
mod ops;
mod order;
mod peer;
mod peerset;
mod prefix;
mod promote;
mod promotion;
mod reader;
mod reign;
mod remote;
mod requests;
mod reshape;
mod resync;
mod server;
mod settings;
mod standing;
mod status;
mod stop;
mod store;
mod takeover;
#[cfg(test)]
mod tests;
mod unsettled;
mod verify;

pub use self::core::Engine;
pub use entry::ORPHANS_MAX;
pub use event::{
    Answer, AttachError, BufferId, ClientId, Command, DiskIo, DiskOutcome, Event, Failure, Held, HoldError, HoldId, OpId,
    Request, RequestId, Ticket,
};
pub use link::{Link, Links};
pub use mutant::Mutant;
#[cfg(feature = "mutants")]
pub use mutant::choose;
pub use operate::{AskId, OperateError, Operation};
pub use settings::{Identity, Peer, Settings, Timeouts};
pub use status::{Connection, PeerStatus, ResourceStatus, ResyncStatus, Suspension, VerifyState, VerifyStatus, VolumeStatus};
