//! The attachments that come back after a restart of the machine, in a file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::{ApiError, Attach};
use crate::control::config::unusable;
use crate::control::tls::write_private;
use crate::units::{Name, VolumeId};

/// What this node attaches when its machine has started, by resource and volume.
#[derive(Debug)]
pub(super) struct Persistent {
    file: PathBuf,
    all: Mutex<BTreeMap<String, Attach>>,
}

impl Persistent {
    /// Those in `file`, which need not be there. One that cannot be understood is put aside (`.damaged`) and named in the log: it must not
    /// keep anybody from attaching.
    pub(super) fn load(file: PathBuf) -> Self {
        let all = read(&file).unwrap_or_else(|error| {
            let aside = file.with_extension("damaged");
            let kept = std::fs::rename(&file, &aside);
            tracing::warn!(
                file = %aside.display(), %error, ?kept,
                "which volumes were attached with --persistent is not known: attach them again"
            );
            BTreeMap::new()
        });
        Self { file, all: Mutex::new(all) }
    }

    /// All of them.
    pub(super) fn all(&self) -> BTreeMap<String, Attach> {
        self.known().clone()
    }

    /// Whether one of them is of this volume.
    pub(super) fn has(&self, resource: &Name, volume: VolumeId) -> bool {
        self.known().contains_key(&key(resource, volume))
    }

    /// Notes durably how a volume is to be attached, or that it is not.
    ///
    /// # Errors
    ///
    /// The file cannot be written; what was noted before still holds.
    pub(super) fn set(&self, resource: &Name, volume: VolumeId, attach: Option<Attach>) -> Result<(), ApiError> {
        let mut known = self.known();
        let mut all = known.clone();
        let key = key(resource, volume);
        match attach {
            Some(attach) => drop(all.insert(key, attach)),
            None => drop(all.remove(&key)),
        }
        if all == *known {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(&all).map_err(|error| unusable(&self.file, &error.into()))?;
        write_private(&self.file, &bytes).map_err(|error| unusable(&self.file, &error))?;
        *known = all;
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Attach>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<String, Attach>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

fn key(resource: &Name, volume: VolumeId) -> String {
    format!("{resource}/{volume}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attach(name: &Name) -> Attach {
        Attach {
            resource: name.clone(),
            volume: Some(VolumeId(0)),
            node: None,
            read_only: false,
            exclusive: false,
            persistent: true,
            via: None,
            sockets: None,
        }
    }

    #[test]
    fn volumes_that_are_attached_at_one_moment_all_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("attachments.json");
        let persistent = Persistent::load(file.clone());
        let names: Vec<Name> = (0..8).map(|number| format!("v{number}").parse().unwrap()).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| persistent.set(name, VolumeId(0), Some(attach(name))).unwrap());
            }
        });
        let persistent = Persistent::load(file);
        assert_eq!(persistent.all().len(), names.len());
        assert!(names.iter().all(|name| persistent.has(name, VolumeId(0))));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_keeps_nobody_from_attaching() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("attachments.json");
        std::fs::write(&file, "{\"web/0\":").unwrap();
        let persistent = Persistent::load(file.clone());
        assert!(persistent.all().is_empty());
        let name: Name = "web".parse().unwrap();
        persistent.set(&name, VolumeId(0), Some(attach(&name))).unwrap();
        assert!(Persistent::load(file).has(&name, VolumeId(0)));
        assert_eq!(std::fs::read(directory.path().join("attachments.damaged")).unwrap(), b"{\"web/0\":");
    }
}
