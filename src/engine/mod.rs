//! The replication state machine (pure).

mod activity;
mod admission;
mod change;
mod connect;
mod cooling;
mod core;
mod court;
mod dirty;
mod event;
mod flights;
mod flush;
mod follow;
mod ids;
mod latch;
mod link;
mod look;
mod membership;
mod ops;
mod order;
mod peer;
mod peerset;
mod prefix;
mod promotion;
mod reign;
mod remote;
mod requests;
mod resync;
mod settings;
mod slab;
mod status;
mod stop;
mod store;
mod takeover;
mod unsettled;

pub use self::core::Engine;
pub use event::{
    Answer, AttachError, BufferId, ClientId, Command, DiskIo, DiskOutcome, Event, Failure, OpId, Request, RequestId, Ticket,
};
pub use link::{Link, Links};
pub use settings::{Identity, OnNoQuorum, Peer, Settings, Timeouts};
pub use status::{Connection, PeerStatus, ResourceStatus, ResyncStatus, Suspension, VolumeStatus};
