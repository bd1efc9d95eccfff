//! The data plane's shell: shard threads, each with one ring, that run the engines' commands.
//!
//! | part | what it is |
//! |---|---|
//! | [`plane`] | the border to the control plane |
//! | [`host`] | a data plane from outside: which shard has what |
//! | [`storage`] | opening and reading a replica's storage, on threads that may block |
//! | [`shard`] | the loop, and what belongs to a resource rather than to a connection |
//! | [`client`] | NBD clients: requests in, replies out |
//! | [`peer`] | connections to peers: messages and heartbeats |
//! | [`disk`] | the engines' operations on disks |
//! | [`stream`] | a connection's bytes, plain or TLS |
//! | [`memory`], [`buffers`], [`shares`] | a shard's memory, and who may have how much of it |
//! | [`io`], [`alarm`], [`slab`], [`board`], [`inbox`], [`counters`] | what all of these use |
//!
//! Architecture Invariant: everything here is a matter of how, never of whether: what is written where, who may be answered and
//! when is decided by [`crate::engine`] alone. A shard has no lock and shares nothing but its inbox and its board.

mod alarm;
mod board;
mod buffers;
mod client;
mod counters;
mod disk;
mod host;
mod inbox;
mod io;
mod memory;
mod peer;
mod plane;
mod resource;
mod shard;
mod shares;
mod slab;
mod storage;
mod stream;

pub use counters::Counters;
pub use host::{Plane, PlaneOptions, PlaneStartError};
pub use plane::{
    Answer, Backing, ClientSocket, Clients, DataPlane, Held, HoldId, LANES, Lane, OpenExport, Operation, Peer, PeerLink,
    PlaneError, PlaneEvent, ReplicaStorage, Reply, ResourceSettings, ResourceSpec, Segment, Socket, Ticket, Timeouts, lane_of,
};

use crate::engine::Engine;

#[cfg(test)]
mod tests;
