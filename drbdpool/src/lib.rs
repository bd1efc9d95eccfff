//! Storage pools: where a node's volumes come from.
//!
//! A pool is an LVM volume group or a directory of files. [`open`] opens one for a cluster's node and answers a [`Pool`], which
//! creates, grows, removes and lists volumes, and says for each on which stretches of which devices its bytes are. What is done
//! with these bytes is not this crate's matter: it knows nothing of replication.
//!
//! Every change is durable when its call returns, and may be repeated after a crash at any point: creating a volume that is
//! there, or removing one that is not, succeeds. A pool belongs to one node of one cluster, says so on its storage, and refuses
//! everyone else; within it, what was not made here is never changed.
//!
//! All calls block, some for as long as a disk takes to be zeroed: an asynchronous caller puts them on threads of their own.
//!
//! ```no_run
//! use drbdpool::{Identity, VolumeName};
//!
//! let pool = drbdpool::open(&"file:/var/lib/blkrep/pool".parse()?, &Identity::new("4f1c", "0")?)?;
//! let volume = VolumeName::data("dockervolume", 0)?;
//! let device = pool.create(&volume, 100 << 20)?;
//! for segment in device.segments {
//!     println!("{} {} {}", segment.path.display(), segment.start, segment.length);
//! }
//! # Ok::<(), drbdpool::PoolError>(())
//! ```

mod detect;
mod error;
mod file;
mod identity;
mod lvm;
mod name;
mod patience;
mod pool;
mod spec;
mod zero;

pub use detect::{DEFAULT_VOLUME_GROUP, Detected, detect_default};
pub use error::{CommandFailure, Outcome, PoolError};
pub use file::FilePool;
pub use identity::Identity;
pub use lvm::{LvmOptions, LvmPool};
pub use name::{Part, VolumeName};
pub use pool::{Capacity, Condition, Device, DeviceKind, Pool, Progress, Segment, Volume};
pub use spec::PoolSpec;

/// Opens a pool for a node of a cluster and marks it as theirs.
///
/// A file pool's directory is created when it is missing; a volume group must exist.
///
/// # Errors
///
/// [`PoolError::OtherOwner`] when the pool is another cluster's or node's, [`PoolError::InUse`] when another process has it open,
/// [`PoolError::NoVolumeGroup`], [`PoolError::NotAPool`], and whatever the storage answers.
pub fn open(spec: &PoolSpec, identity: &Identity) -> Result<Box<dyn Pool>, PoolError> {
    Ok(match spec {
        PoolSpec::Lvm { volume_group } => Box::new(LvmPool::open(volume_group, identity, LvmOptions::default())?),
        PoolSpec::File { directory } => Box::new(FilePool::open(directory, identity)?),
    })
}

/// Takes a node's name off a pool, so that another cluster may have it. The pool must not be open.
///
/// # Errors
///
/// [`PoolError::NotEmpty`] while there are volumes, [`PoolError::InUse`] while it is open, and those of [`open`].
pub fn release(spec: &PoolSpec, identity: &Identity) -> Result<(), PoolError> {
    match spec {
        PoolSpec::Lvm { volume_group } => LvmPool::open(volume_group, identity, LvmOptions::default())?.release(),
        PoolSpec::File { directory } => FilePool::open(directory, identity)?.release(),
    }
}
