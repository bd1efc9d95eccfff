//! The data plane's shell.

mod plane;

pub use plane::{
    Answer, Backing, ClientSocket, DataPlane, LANES, Lane, OnNoQuorum, OpenExport, Peer, PeerLink, PlaneError, PlaneEvent,
    ReplicaStorage, Reply, ResourceSettings, ResourceSpec, Segment, Socket, Ticket, Timeouts, lane_of,
};
