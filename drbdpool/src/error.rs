//! Why a pool refused or failed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::size::{human, human_up};

/// Why a pool refused or failed. After any error the pool is as before, or the same call may simply be made again.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The pool's specification cannot be read.
    #[error("'{spec}' is no storage pool: {why}")]
    BadSpec {
        /// The specification.
        spec: String,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// A name that no volume can have.
    #[error("'{name}' cannot name a volume's resource: {why}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An id that cannot be written on a pool.
    #[error("'{id}' cannot be the id of a cluster or node: ids are 1 to 64 letters, digits, '_', '.' and '-'")]
    BadIdentity {
        /// The id.
        id: String,
    },
    /// A size that no volume can have.
    #[error("a volume cannot have {bytes} bytes")]
    BadSize {
        /// The size.
        bytes: u64,
    },
    /// The volume group is not there.
    #[error(
        "there is no volume group '{volume_group}' on this node; if there was, look for its disks with 'pvs' and 'lsblk'; else create \
         it with 'vgcreate {volume_group} /dev/DEVICE', or use a \
         directory of files as pool (file:DIR)"
    )]
    NoVolumeGroup {
        /// Its name.
        volume_group: String,
    },
    /// The volume group is there but cannot be a pool.
    #[error("volume group '{volume_group}' cannot be a pool: {why}")]
    BadVolumeGroup {
        /// Its name.
        volume_group: String,
        /// Why, and what to do.
        why: String,
    },
    /// LVM's command line is not installed.
    #[error("the program 'lvm' was not found; install lvm2, or use a directory of files as pool (file:DIR)")]
    LvmMissing,
    /// What a pool was to be made of is no block device.
    #[error("'{}' is no block device; give the full path of one, such as /dev/sdb", device.display())]
    NoDevice {
        /// Its path.
        device: PathBuf,
    },
    /// A device that a pool was to be made of holds something.
    #[error(
        "{} holds {what}; give an empty device, or, if nobody needs that any more, remove it first ('wipefs --all' takes signatures away)",
        device.display()
    )]
    DeviceInUse {
        /// The device.
        device: PathBuf,
        /// What is on it.
        what: String,
    },
    /// The directory holds something else.
    #[error(
        "{} is not empty and is not a pool of blkrep's (it has no file {marker}); give an empty directory or a new one",
        directory.display()
    )]
    NotAPool {
        /// The directory.
        directory: PathBuf,
        /// The file that a pool would have.
        marker: &'static str,
    },
    /// The pool is nobody's.
    #[error("{pool} is no pool of {wanted} ({why}); if its storage was replaced, remove the pool from the node and add it again")]
    Unclaimed {
        /// The pool.
        pool: String,
        /// Who asked.
        wanted: String,
        /// What is missing, and how that may have come about.
        why: String,
    },
    /// The pool is another cluster's or node's.
    #[error("{pool} belongs to {owner}, not to {wanted}; if its owner is gone for good: {remedy}")]
    OtherOwner {
        /// The pool.
        pool: String,
        /// Whose it is.
        owner: String,
        /// Who asked.
        wanted: String,
        /// How it can be made nobody's.
        remedy: String,
    },
    /// There is no such volume.
    #[error("there is no volume '{volume}' in {pool}")]
    NotFound {
        /// The volume.
        volume: String,
        /// The pool.
        pool: String,
    },
    /// A volume of that name has another size.
    #[error("volume '{volume}' exists with {size} bytes, not {wanted}; resize it, or remove it first")]
    Exists {
        /// The volume.
        volume: String,
        /// Its size in bytes.
        size: u64,
        /// The size that was asked for, rounded up.
        wanted: u64,
    },
    /// Something of that name was not made by this pool.
    #[error("'{what}' was not made by blkrep for this cluster and node and is not touched; rename or remove it by hand")]
    Foreign {
        /// What it is.
        what: String,
    },
    /// A logical volume or file cannot become a volume as it is.
    #[error("{what} cannot be adopted: {why}")]
    NotAdoptable {
        /// What it is.
        what: String,
        /// Why not, and what to do.
        why: String,
    },
    /// A logical volume could become a volume of another pool: that of the same volume group, or of a thin pool in it.
    #[error("{what} cannot be adopted: {why}")]
    OtherPools {
        /// What it is.
        what: String,
        /// Of which pool.
        why: String,
    },
    /// The pool is too full.
    #[error("{pool} has {} free, {} are needed; remove volumes or add storage to it", human(*free), human_up(*wanted))]
    NoSpace {
        /// The pool.
        pool: String,
        /// What is needed, in bytes.
        wanted: u64,
        /// What is free, in bytes.
        free: u64,
    },
    /// The volume is larger already.
    #[error("volume '{volume}' has {} and cannot shrink to {}", human_up(*size), human(*wanted))]
    Shrink {
        /// The volume.
        volume: String,
        /// Its size in bytes.
        size: u64,
        /// The size that was asked for, rounded up.
        wanted: u64,
    },
    /// LVM has no room to write down more volumes.
    #[error(
        "volume group '{volume_group}' has no room left for the names and places of volumes, though it may have for their data; add a \
         disk that has more ('pvcreate --metadatasize 64m /dev/DEVICE', 'vgextend {volume_group} /dev/DEVICE'), and set \
         'pvchange --metadataignore y' on the others"
    )]
    MetadataFull {
        /// The volume group.
        volume_group: String,
    },
    /// Somebody has it open.
    #[error("{what} is in use{by}; close it first")]
    InUse {
        /// What.
        what: String,
        /// By whom, with a leading blank, if that is known.
        by: String,
    },
    /// The volume must be activated first.
    #[error("volume '{volume}' is not active; activate it first")]
    Inactive {
        /// The volume.
        volume: String,
    },
    /// The volume is there but cannot be used.
    #[error("volume '{volume}' cannot be used: {why}")]
    Unusable {
        /// The volume.
        volume: String,
        /// Why.
        why: String,
    },
    /// The pool makes no snapshots.
    #[error("{pool} makes no snapshots: {why}")]
    NoSnapshots {
        /// The pool.
        pool: String,
        /// Why not, and what would.
        why: String,
    },
    /// The volume cannot go before its snapshots.
    #[error("volume '{volume}' has snapshots that would go with it ({snapshots}); remove them first")]
    HasSnapshots {
        /// The volume.
        volume: String,
        /// Their names.
        snapshots: String,
    },
    /// The pool still has volumes.
    #[error("{pool} still has {volumes} volume(s); remove them first")]
    NotEmpty {
        /// The pool.
        pool: String,
        /// How many.
        volumes: usize,
    },
    /// The caller broke it off.
    #[error("what was done to volume '{volume}' was broken off; ask for it again")]
    Interrupted {
        /// The volume.
        volume: String,
    },
    /// One of LVM's commands failed.
    #[error(transparent)]
    Command(#[from] Box<CommandFailure>),
    /// A report of LVM's cannot be read.
    #[error("the answer of '{command}' cannot be understood: {why}; lvm2 2.02.158 or newer is needed")]
    Report {
        /// The command line.
        command: String,
        /// Why not.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

impl PoolError {
    /// An error of the operating system, for `map_err`.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

/// One of LVM's commands that failed, with all that is needed to try it by hand.
#[derive(Debug)]
pub struct CommandFailure {
    /// The command line, quoted for a shell.
    pub command: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it said on standard error, without LVM's routine warnings.
    pub stderr: String,
}

/// How a command ended.
#[derive(Debug)]
pub enum Outcome {
    /// With this status, in words.
    Exited(String),
    /// It was ended after this time.
    TimedOut {
        /// The time it was given.
        after: Duration,
        /// Whether it is gone. A process that waits for a device that does not answer cannot be ended.
        gone: bool,
    },
    /// It could not be started or waited for.
    NotRun(io::Error),
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' ", self.command)?;
        match &self.outcome {
            Outcome::Exited(status) => write!(f, "failed ({status})")?,
            Outcome::TimedOut { after, gone: true } => write!(f, "did not end within {after:?} and was stopped")?,
            Outcome::TimedOut { after, gone: false } => write!(
                f,
                "did not end within {after:?} and cannot be stopped: it waits for a device that does not answer; look for one with \
                 'dmesg' and 'lsblk'"
            )?,
            Outcome::NotRun(error) => write!(f, "could not be run: {error}")?,
        }
        if self.stderr.is_empty() { Ok(()) } else { write!(f, ": {}", self.stderr) }
    }
}

impl std::error::Error for CommandFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.outcome {
            Outcome::NotRun(error) => Some(error),
            _ => None,
        }
    }
}
