//! On-disk metadata (pure).

mod superblock;

pub use superblock::{LINEAGE_MAX, PeerSlot, Region, Superblock};
