//! The attachments that come back after a restart of the machine, in a file.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::api::{ApiError, Attach};
use crate::control::config::unusable;
use crate::control::tls::write_private;
use crate::units::{Name, VolumeId};

/// What this node attaches when its machine has started, by resource and volume.
#[derive(Debug)]
pub(super) struct Persistent {
    file: PathBuf,
    /// Held while the file is read and written anew: volumes are attached side by side.
    changing: Mutex<()>,
}

impl Persistent {
    /// Those in `file`, which need not be there.
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, changing: Mutex::default() }
    }

    /// All of them; none when the file cannot be read, which is logged.
    pub(super) fn all(&self) -> BTreeMap<String, Attach> {
        self.read().unwrap_or_else(|error| {
            let file = self.file.display();
            tracing::warn!(%file, %error, "attachments that should come back are not known: attach them again with --persistent");
            BTreeMap::new()
        })
    }

    /// Whether one of them is of this volume.
    pub(super) fn has(&self, resource: &Name, volume: VolumeId) -> bool {
        self.all().contains_key(&key(resource, volume))
    }

    /// Notes durably how a volume is to be attached, or that it is not.
    ///
    /// # Errors
    ///
    /// The file cannot be written. One that cannot be read is put aside (`.damaged`) and begun anew: it must not keep anybody from attaching.
    pub(super) fn set(&self, resource: &Name, volume: VolumeId, attach: Option<Attach>) -> Result<(), ApiError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.read().unwrap_or_else(|error| {
            let aside = self.file.with_extension("damaged");
            let kept = std::fs::rename(&self.file, &aside);
            tracing::warn!(file = %aside.display(), %error, ?kept, "attachments that should come back were put aside");
            BTreeMap::new()
        });
        let key = key(resource, volume);
        let changed = match attach {
            Some(attach) => all.insert(key, attach.clone()) != Some(attach),
            None => all.remove(&key).is_some(),
        };
        if !changed {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(&all).map_err(|error| unusable(&self.file, &error.into()))?;
        write_private(&self.file, &bytes).map_err(|error| unusable(&self.file, &error))
    }

    fn read(&self) -> io::Result<BTreeMap<String, Attach>> {
        match std::fs::read(&self.file) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
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
        let persistent = Persistent::new(directory.path().join("attachments.json"));
        let names: Vec<Name> = (0..8).map(|number| format!("v{number}").parse().unwrap()).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| persistent.set(name, VolumeId(0), Some(attach(name))).unwrap());
            }
        });
        assert_eq!(persistent.all().len(), names.len());
        assert!(names.iter().all(|name| persistent.has(name, VolumeId(0))));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_keeps_nobody_from_attaching() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("attachments.json");
        std::fs::write(&file, "{\"web/0\":").unwrap();
        let persistent = Persistent::new(file);
        assert!(persistent.all().is_empty());
        let name: Name = "web".parse().unwrap();
        persistent.set(&name, VolumeId(0), Some(attach(&name))).unwrap();
        assert!(persistent.has(&name, VolumeId(0)));
        assert_eq!(std::fs::read(directory.path().join("attachments.damaged")).unwrap(), b"{\"web/0\":");
    }
}
