//! The replication state machine (pure).

mod event;
mod link;
mod order;
mod prefix;
mod settings;
mod status;
mod unsettled;

pub use event::{
    Answer, AttachError, BufferId, ClientId, Command, DiskIo, DiskOutcome, Event, Failure, OpId, Request, RequestId, Ticket,
};
pub use link::{Link, Links};
pub use settings::{Identity, OnNoQuorum, Peer, Settings, Timeouts};
pub use status::{Connection, PeerStatus, ResourceStatus, ResyncStatus, Suspension, VolumeStatus};

/// One resource on one node.
#[derive(Debug)]
pub struct Engine;
