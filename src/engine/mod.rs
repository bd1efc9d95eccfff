//! The replication state machine (pure).

mod status;

pub use status::{Connection, PeerStatus, ResourceStatus, ResyncStatus, Suspension, VolumeStatus};
