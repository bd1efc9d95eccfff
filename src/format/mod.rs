//! On-disk metadata (pure).

mod bitmap;
mod page;
mod superblock;

pub use bitmap::{Bitmap, Runs};
pub use page::{PAGE, PAGE_BITS};
pub use superblock::{LINEAGE_MAX, PeerSlot, Region, Superblock};
