//! What snapshots are called, and how a pool makes them.

use std::fmt;
use std::str::FromStr;

use crate::{Condition, PoolError, VolumeName};

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
