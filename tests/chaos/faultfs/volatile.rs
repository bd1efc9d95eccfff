//! A cache that a loss of power empties.
//!
//! The backing file always holds the newest content; what is remembered beside it is what each sector was when its file was synced
//! last.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECTOR: u64 = 512;
type Sector = [u8; 512];

/// By inode: what was written and not synced.
#[derive(Default)]
pub(crate) struct Cache {
    unsynced: Mutex<BTreeMap<u64, Unsynced>>,
}

struct Unsynced {
    file: Arc<File>,
    /// By number: each sector's content at the last sync.
    before: BTreeMap<u64, Sector>,
}

impl Cache {
    /// Changes `length` bytes of a file from `offset` by `change`, and remembers what they were.
    pub(crate) fn change<R>(
        &self,
        file: &Arc<File>,
        offset: u64,
        length: u64,
        change: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        let mut unsynced = self.lock();
        let inode = file.metadata()?.ino();
        let known = unsynced.entry(inode).or_insert_with(|| Unsynced { file: file.clone(), before: BTreeMap::new() });
        for sector in offset / SECTOR..(offset + length).div_ceil(SECTOR) {
            if let std::collections::btree_map::Entry::Vacant(vacant) = known.before.entry(sector) {
                vacant.insert(content(file, sector)?);
            }
        }
        change()
    }

    /// What was written to the file is durable now.
    pub(crate) fn synced(&self, file: &File) -> io::Result<()> {
        self.lock().remove(&file.metadata()?.ino());
        Ok(())
    }

    /// Loses power: each sector stays or goes back, by chance; without a seed all go back.
    pub(crate) fn lose(&self, seed: Option<u64>) -> io::Result<()> {
        let mut chance = seed.unwrap_or_default() | 1;
        for unsynced in std::mem::take(&mut *self.lock()).into_values() {
            // How much a disk keeps differs from loss to loss: nothing, all, or some.
            let kept = match (seed, random(&mut chance) % 4) {
                (None, _) | (_, 0) => 0,
                (_, 1) => 90,
                _ => 50,
            };
            let size = unsynced.file.metadata()?.len();
            for (sector, before) in unsynced.before {
                if random(&mut chance) % 100 >= kept && sector * SECTOR < size {
                    let end = (size - sector * SECTOR).min(SECTOR);
                    let end = usize::try_from(end).map_err(io::Error::other)?;
                    unsynced.file.write_all_at(&before[..end], sector * SECTOR)?;
                }
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Unsynced>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sector's content; what is behind the end of the file is zeroes.
fn content(file: &File, sector: u64) -> io::Result<Sector> {
    let mut found = [0; 512];
    let mut filled = 0;
    while filled < found.len() {
        match file.read_at(&mut found[filled..], sector * SECTOR + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(found)
}

/// xorshift: the same for the same seed, everywhere.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
