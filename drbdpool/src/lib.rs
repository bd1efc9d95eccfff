//! Storage pools: where a node's volumes come from.
//!
//! A pool is an LVM volume group, a thin pool in one, or a directory of files, thick or sparse. [`claim`] makes one a cluster's node's, [`open`] opens it after that;
//! both answer a [`Pool`], which creates, grows, removes and lists volumes, and says for each on which stretches of which devices
//! its bytes are. What is done with these bytes is not this crate's matter: it knows nothing of replication.
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
//! let pool = drbdpool::claim(&"file:/var/lib/blkrep/pool".parse()?, &Identity::new("4f1c", "0")?)?;
//! let volume = VolumeName::data("dockervolume", 0)?;
//! let device = pool.create(&volume, 100 << 20)?;
//! for segment in device.segments {
//!     println!("{} {} {}", segment.path.display(), segment.start, segment.length);
//! }
//! # Ok::<(), drbdpool::PoolError>(())
//! ```

mod adoptable;
mod copy;
mod detect;
mod device;
mod error;
mod file;
mod identity;
mod lvm;
mod name;
mod patience;
mod pool;
/// The words for sizes are the whole program's.
#[path = "../../src/units/size.rs"]
mod size;
mod snapshot;
mod spec;
mod zero;

pub use adoptable::{Adoptable, Adoption};
pub use detect::{DEFAULT_VOLUME_GROUP, Detected, detect_default};
pub use error::{CommandFailure, Outcome, PoolError};
pub use file::FilePool;
pub use identity::Identity;
pub use lvm::{LvmOptions, LvmPool};
pub use name::{Part, VolumeName};
pub use pool::{Capacity, Condition, Device, DeviceKind, Fill, OVERSUBSCRIPTION, Pool, Progress, Promises, Segment, Volume};
pub use size::{human, human_up};
pub use snapshot::{Snapshot, SnapshotMethod, SnapshotName, Snapshots};
pub use spec::PoolSpec;

/// Makes a pool a node's, if it is nobody's, and opens it: when a node joins a cluster or is given a new pool.
///
/// A file pool's directory is created when it is missing; a volume group must exist.
///
/// # Errors
///
/// [`PoolError::NotAPool`] for a directory with something else in it, and those of [`open`].
pub fn claim(spec: &PoolSpec, identity: &Identity) -> Result<Box<dyn Pool>, PoolError> {
    claim_with(spec, identity, OVERSUBSCRIPTION)
}

/// Makes a volume group, or one with a thin pool, of devices that hold nothing. It is nobody's pool yet: see [`claim`].
///
/// # Errors
///
/// [`PoolError::DeviceInUse`] names what a device holds; [`PoolError::NoDevice`], [`PoolError::BadVolumeGroup`] when there is one of
/// that name, or no device-mapper for a thin pool; [`PoolError::LvmMissing`], [`PoolError::Command`]. Nothing was changed then.
pub fn create_pool(spec: &PoolSpec, devices: &[std::path::PathBuf]) -> Result<(), PoolError> {
    LvmPool::make(spec, devices, LvmOptions::default())
}

/// As [`claim`], with how many times its size a thin pool may promise to volumes; others promise what they have. The pool keeps it.
///
/// # Errors
///
/// Those of [`claim`].
pub fn claim_with(spec: &PoolSpec, identity: &Identity, oversubscription: u32) -> Result<Box<dyn Pool>, PoolError> {
    open_or_claim(spec, identity, Unclaimed::Claim { oversubscription: oversubscription.max(1) })
}

/// Opens a pool that was claimed: at every start.
///
/// A start never claims: where a pool's file system was not mounted there is an empty directory, and volumes made there would fill
/// another file system and stand in for those that have the data.
///
/// # Errors
///
/// [`PoolError::Unclaimed`], [`PoolError::OtherOwner`] when it is another cluster's or node's, [`PoolError::InUse`] when another
/// process has it open, or one that was killed is not quite gone (try again), [`PoolError::NoVolumeGroup`],
/// [`PoolError::BadVolumeGroup`], [`PoolError::LvmMissing`], and whatever the storage answers.
pub fn open(spec: &PoolSpec, identity: &Identity) -> Result<Box<dyn Pool>, PoolError> {
    open_or_claim(spec, identity, Unclaimed::Refuse)
}

fn open_or_claim(spec: &PoolSpec, identity: &Identity, unclaimed: Unclaimed) -> Result<Box<dyn Pool>, PoolError> {
    Ok(match spec {
        PoolSpec::Lvm { .. } | PoolSpec::LvmThin { .. } => {
            Box::new(LvmPool::open(spec, identity, unclaimed, LvmOptions::default())?)
        }
        PoolSpec::File { .. } | PoolSpec::FileThin { .. } => Box::new(FilePool::open(spec, identity, unclaimed)?),
    })
}

/// What to do with a pool that is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unclaimed {
    /// Make it the node's.
    Claim {
        /// How many times its size it may promise, if it is thin.
        oversubscription: u32,
    },
    /// Refuse it.
    Refuse,
}

/// Takes a node's name off a pool, so that another cluster may have it. The pool must not be open.
///
/// # Errors
///
/// [`PoolError::NotEmpty`] while there are volumes, [`PoolError::InUse`] while it is open, and those of [`open`].
pub fn release(spec: &PoolSpec, identity: &Identity) -> Result<(), PoolError> {
    match spec {
        PoolSpec::Lvm { .. } | PoolSpec::LvmThin { .. } => {
            LvmPool::open(spec, identity, Unclaimed::Refuse, LvmOptions::default())?.release()
        }
        PoolSpec::File { .. } | PoolSpec::FileThin { .. } => FilePool::open(spec, identity, Unclaimed::Refuse)?.release(),
    }
}
