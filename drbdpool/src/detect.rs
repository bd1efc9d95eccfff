//! Which pool a node has when nobody says.

use std::path::Path;

use crate::{LvmPool, Outcome, PoolError, PoolSpec};

/// The volume group that is a node's pool by default, as in drbdmanage.
pub const DEFAULT_VOLUME_GROUP: &str = "drbdpool";

/// A node's default pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Detected {
    /// The pool.
    pub spec: PoolSpec,
    /// Why this one, as a sentence for the user.
    pub reason: String,
}

/// Finds a node's default pool: the volume group `drbdpool` where there is one, otherwise files in `directory`. Nothing is changed.
///
/// # Errors
///
/// [`PoolError::Command`] when LVM does not answer at all: then nothing speaks against a volume group.
pub fn detect_default(directory: &Path) -> Result<Detected, PoolError> {
    let lvm = PoolSpec::Lvm { volume_group: DEFAULT_VOLUME_GROUP.to_owned() };
    let files = |why: String| {
        let reason = format!("{why}, so volumes are files in {}", directory.display());
        Ok(Detected { spec: PoolSpec::File { directory: directory.to_owned() }, reason })
    };
    match LvmPool::exists(DEFAULT_VOLUME_GROUP) {
        Ok(true) => Ok(Detected { spec: lvm, reason: format!("there is a volume group '{DEFAULT_VOLUME_GROUP}'") }),
        Ok(false) => files(format!("there is no volume group '{DEFAULT_VOLUME_GROUP}'")),
        Err(PoolError::LvmMissing) => files("lvm2 is not installed".to_owned()),
        Err(PoolError::Command(failure)) if matches!(failure.outcome, Outcome::TimedOut { .. }) => {
            Err(PoolError::Command(failure))
        }
        Err(error) => files(format!("LVM cannot be asked for volume group '{DEFAULT_VOLUME_GROUP}' ({error})")),
    }
}
