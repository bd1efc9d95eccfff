//! Which of Docker's mounts use a volume on this node. Written before Docker is answered, so that a daemon that is restarted knows
//! them again; what a restart of the machine has ended is forgotten when the volume is found unmounted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The uses of this node's Docker volumes: the ids of Docker's mounts, by volume.
#[derive(Debug)]
pub struct Counts {
    file: PathBuf,
    all: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Counts {
    /// Those that are written in `file`; none when there is no such file.
    pub fn load(file: PathBuf) -> io::Result<Self> {
        let all = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { file, all: Mutex::new(all) })
    }

    /// Who uses a volume.
    pub fn users(&self, volume: &str) -> usize {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(volume).map_or(0, BTreeSet::len)
    }

    /// One uses it more; none is counted twice. Durable when this returns.
    pub fn add(&self, volume: &str, user: &str) -> io::Result<()> {
        self.change(|all| all.entry(volume.to_owned()).or_default().insert(user.to_owned()))
    }

    /// One uses it no more; how many still do.
    pub fn remove(&self, volume: &str, user: &str) -> io::Result<usize> {
        self.change(|all| all.get_mut(volume).is_some_and(|users| users.remove(user)))?;
        Ok(self.users(volume))
    }

    /// Nobody uses it.
    pub fn forget(&self, volume: &str) -> io::Result<()> {
        self.change(|all| all.remove(volume).is_some())
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, BTreeSet<String>>) -> bool) -> io::Result<()> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = all.clone();
        if !change(&mut new) {
            return Ok(());
        }
        new.retain(|_, users| !users.is_empty());
        let beside = self.file.with_extension("new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&new)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.file)?;
        *all = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_known_again_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("docker.json");
        let counts = Counts::load(file.clone()).unwrap();
        counts.add("a", "1").unwrap();
        counts.add("a", "1").unwrap();
        counts.add("a", "2").unwrap();
        counts.add("b", "3").unwrap();
        assert_eq!(counts.remove("a", "1").unwrap(), 1);
        let again = Counts::load(file.clone()).unwrap();
        assert_eq!((again.users("a"), again.users("b"), again.users("c")), (1, 1, 0));
        again.forget("b").unwrap();
        assert_eq!(again.remove("a", "nobody").unwrap(), 1);
        assert_eq!(again.remove("a", "2").unwrap(), 0);
        assert_eq!(fs::read(file).unwrap(), b"{}");
    }
}
