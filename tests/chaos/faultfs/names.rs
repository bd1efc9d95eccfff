//! Which inode number means which path below the backing folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fuser::INodeNo;

/// Numbers are never used twice; a renamed file keeps its own.
pub(crate) struct Names(Mutex<Known>);

struct Known {
    last: u64,
    paths: BTreeMap<u64, PathBuf>,
}

impl Names {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self(Mutex::new(Known { last: 1, paths: BTreeMap::from([(1, root)]) }))
    }

    /// The path of a number that is still there.
    pub(crate) fn path(&self, ino: INodeNo) -> std::io::Result<PathBuf> {
        self.lock().paths.get(&ino.0).cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    /// The number of a path, a new one if it has none.
    pub(crate) fn number(&self, path: &Path) -> INodeNo {
        let mut known = self.lock();
        if let Some((number, _)) = known.paths.iter().find(|(_, other)| *other == path) {
            return INodeNo(*number);
        }
        known.last += 1;
        let number = known.last;
        known.paths.insert(number, path.to_owned());
        INodeNo(number)
    }

    /// The path means nothing any more.
    pub(crate) fn forget(&self, path: &Path) {
        self.lock().paths.retain(|_, other| other != path);
    }

    /// What was at and below `from` is at and below `to`, in the place of what was there.
    pub(crate) fn rename(&self, from: &Path, to: &Path) {
        self.forget(to);
        for path in self.lock().paths.values_mut() {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
