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
    choose(directory, LvmPool::exists(DEFAULT_VOLUME_GROUP))
}

fn choose(directory: &Path, group_exists: Result<bool, PoolError>) -> Result<Detected, PoolError> {
    let lvm = PoolSpec::Lvm { volume_group: DEFAULT_VOLUME_GROUP.to_owned() };
    let files = |why: String| {
        let reason = format!("{why}, so volumes are files in {}", directory.display());
        Ok(Detected { spec: PoolSpec::File { directory: directory.to_owned() }, reason })
    };
    match group_exists {
        Ok(true) => Ok(Detected { spec: lvm, reason: format!("there is a volume group '{DEFAULT_VOLUME_GROUP}'") }),
        Ok(false) => files(format!("there is no volume group '{DEFAULT_VOLUME_GROUP}'")),
        Err(PoolError::LvmMissing) => files("lvm2 is not installed".to_owned()),
        Err(PoolError::Command(failure)) if matches!(failure.outcome, Outcome::TimedOut { .. }) => {
            Err(PoolError::Command(failure))
        }
        Err(error) => files(format!("LVM cannot be asked for volume group '{DEFAULT_VOLUME_GROUP}' ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::CommandFailure;

    fn failed(outcome: Outcome) -> Result<bool, PoolError> {
        Err(Box::new(CommandFailure { command: "lvm fullreport".to_owned(), outcome, stderr: "broken".to_owned() }).into())
    }

    #[test]
    fn the_volume_group_is_taken_where_there_is_one_and_files_otherwise() {
        let choose =
            |exists| choose(Path::new("/var/lib/blkrep/pool"), exists).map(|found| (found.spec.to_string(), found.reason));
        let files =
            |why: &str| ("file:/var/lib/blkrep/pool".to_owned(), format!("{why}, so volumes are files in /var/lib/blkrep/pool"));
        assert_eq!(choose(Ok(true)).unwrap(), ("lvm:drbdpool".to_owned(), "there is a volume group 'drbdpool'".to_owned()));
        assert_eq!(choose(Ok(false)).unwrap(), files("there is no volume group 'drbdpool'"));
        assert_eq!(choose(Err(PoolError::LvmMissing)).unwrap(), files("lvm2 is not installed"));
        let (spec, reason) = choose(failed(Outcome::Exited("exit status: 5".to_owned()))).unwrap();
        assert!(spec.starts_with("file:") && reason.contains("'lvm fullreport' failed (exit status: 5): broken"), "{reason}");
        assert!(choose(failed(Outcome::TimedOut { after: Duration::from_secs(60), gone: true })).is_err());
    }
}
