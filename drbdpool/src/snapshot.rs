//! What snapshots are called, and how a pool makes them.

use std::fmt;
use std::str::FromStr;

use crate::{Condition, Device, PoolError, Progress, VolumeName};

/// A snapshot of a volume, `<volume>@<name>`. Names follow the grammar of resources' names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotName {
    volume: VolumeName,
    name: String,
}

impl SnapshotName {
    /// The snapshot `name` of `volume`.
    ///
    /// # Errors
    ///
    /// [`PoolError::BadName`].
    pub fn new(volume: VolumeName, name: &str) -> Result<Self, PoolError> {
        // The same grammar, and so the same check.
        VolumeName::data(name, 0)?;
        Ok(Self { volume, name: name.to_owned() })
    }

    /// The volume that it is of.
    pub fn volume(&self) -> &VolumeName {
        &self.volume
    }

    /// Its name among the volume's snapshots.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.volume, self.name)
    }
}

impl FromStr for SnapshotName {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let why = "a snapshot is called <volume>@<name>";
        let bad = || PoolError::BadName { name: text.chars().take(110).collect(), why };
        let (volume, name) = text.split_once('@').ok_or_else(bad)?;
        Self::new(volume.parse()?, name)
    }
}

/// A snapshot and whether it can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// Its size in bytes: that of its volume when it was taken.
    pub size: u64,
    /// Whether it can be read.
    pub condition: Condition,
}

/// How a pool makes snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotMethod {
    /// At once: volume and snapshot share what neither has changed.
    Shared,
    /// At once, in space that is set aside for what the volume changes later. When that is used up the snapshot is lost, not the volume.
    SetAside,
    /// By copying all of the volume, which takes its time and its size.
    Copy,
}

/// The snapshots of a pool's volumes.
pub trait Snapshots {
    /// How this pool makes snapshots.
    ///
    /// # Errors
    ///
    /// [`PoolError::NoSnapshots`] when it cannot.
    fn snapshot_method(&self) -> Result<SnapshotMethod, PoolError>;

    /// Takes a snapshot of a volume as it is at this moment, and makes it ready to be read. One of that name is answered as it is. Whoever
    /// writes to the volume has stopped and flushed it: what is on its way may be in the snapshot or not, in part.
    ///
    /// `room` is how many bytes of the volume are meant, of which all may be changed later: with [`SnapshotMethod::SetAside`] so many are set
    /// aside, and a file pool cuts its file there; the snapshot of a logical volume always has all of it. `progress` is told of a copy only,
    /// every time that a part of it is done.
    ///
    /// # Errors
    ///
    /// [`PoolError::NoSnapshots`], [`PoolError::NotFound`] without the volume, [`PoolError::NoSpace`]; [`PoolError::Interrupted`] when
    /// `progress` broke it off, and there is none.
    fn snapshot(&self, snapshot: &SnapshotName, room: u64, progress: &mut Progress<'_>) -> Result<Device, PoolError>;

    /// Every snapshot of the pool in order of names.
    fn snapshots(&self) -> Result<Vec<Snapshot>, PoolError>;

    /// Removes a snapshot. Nothing when there is none.
    ///
    /// # Errors
    ///
    /// [`PoolError::InUse`] when it is open.
    fn remove_snapshot(&self, snapshot: &SnapshotName) -> Result<(), PoolError>;

    /// Makes a new volume that has what the snapshot has, ready for use. It does not need the snapshot afterwards. When the process dies
    /// on the way, the volume is not usable until the same is asked for again.
    ///
    /// # Errors
    ///
    /// [`PoolError::NotFound`] without the snapshot, [`PoolError::Exists`] when there is such a volume of another size,
    /// [`PoolError::NoSpace`], [`PoolError::Foreign`].
    fn restore(&self, snapshot: &SnapshotName, volume: &VolumeName) -> Result<Device, PoolError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_after_its_volume() {
        let name: SnapshotName = "web_00@before.upgrade-2".parse().unwrap();
        assert_eq!((name.volume().to_string().as_str(), name.name()), ("web_00", "before.upgrade-2"));
        assert_eq!(name.to_string(), "web_00@before.upgrade-2");
        for bad in ["web_00", "web_00@", "web@x", "@x", "web_00@-x", "web_00@a@b", "web_00@a/b", "web_00@.x"] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad:?} was taken");
        }
    }
}
