//! Messages between peers (pure).

mod message;

pub use message::{BlockHash, Introduction, Message, RANGES_MAX, RecordPoint, ReplicaStanding, Report, Standing, Write, Zero};
