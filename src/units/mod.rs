//! The words of the house: newtypes for ids, blocks and time, and the record that engine and cluster share.
//!
//! Everything here is a plain value. The room knows nothing of sockets, files, clocks or threads; every other room may use it.

mod after_sb;
mod blocks;
mod ids;
mod pool;
mod record;
mod size;
mod slab;
mod state;
#[cfg(test)]
pub(crate) mod strategies;
mod time;

pub use after_sb::{AfterSb0, AfterSb1, AfterSb2, AfterSplitBrain};
pub use blocks::{BLOCK, BLOCKS_PER_EXTENT, BlockRange, EXTENT, Extent, blocks_of, extents_of};
pub use ids::{ClusterId, Incarnation, Name, NameError, NodeId, RecordId, ReplicaId, ResourceId, VolumeId};
pub use pool::PoolKind;
pub use record::{Authority, Membership, Record};
pub use size::{human, human_up};
pub use slab::Slab;
pub use state::{DiskState, OnNoQuorum, Protocol, Role, Sharing};
pub use time::Instant;
