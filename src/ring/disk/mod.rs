//! Disks: a volume's bytes on files and block devices.

mod allocated;
mod backing;
mod blocking;
mod holder;
mod layout;
mod mounted;
mod open;
mod zero;

pub use allocated::Extent;
pub use backing::{Backing, Segment};
pub use mounted::{Disk, Progress};
pub use open::{DiskError, DiskOptions, OpenDisk};
pub use zero::Zeroing;
