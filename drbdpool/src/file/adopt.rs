//! Files that others made, as volumes of the pool.
//!
//! A file becomes the pool's by one rename within the file system: before it the file is where and what it was, after it it is a volume.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, RenameFlags, StatxFlags, flock, makedev, renameat_with, statx};

use super::FilePool;
use crate::pool::BLOCK;
use crate::{Adoptable, Adoption, Device, PoolError, VolumeName};

impl Adoption for FilePool {
    fn adoptable(&self, source: &Adoptable, volume: &VolumeName) -> Result<u64, PoolError> {
        let (path, found) = self.candidate(source, volume)?;
        locked(source, path)?;
        self.check_holes(&found)?;
        Ok(found.len())
    }

    fn adopt(&self, source: &Adoptable, volume: &VolumeName) -> Result<Device, PoolError> {
        let _changing = self.changing();
        let target = self.path(volume);
        if self.size(volume)?.is_none() {
            let (path, found) = self.candidate(source, volume)?;
            // Until it has its name, whoever wants it as a volume waits for this lock.
            let file = locked(source, path)?;
            if !self.spec.is_thin() {
                self.check_holes(&found)?;
                self.reserve(&file, path, 0, found.len())?;
            }
            file.sync_all().map_err(PoolError::io("flush", path))?;
            rename(path, &target)?;
            sync_directory_of(path)?;
        }
        self.sync()?;
        fs::set_permissions(&target, Permissions::from_mode(0o600)).map_err(PoolError::io("change the mode of", &target))?;
        Ok(self.device_of(volume, self.existing_size(volume)?))
    }

    fn disown(&self, volume: &VolumeName, source: &Adoptable) -> Result<(), PoolError> {
        let _changing = self.changing();
        let Adoptable::File(path) = source else { return Ok(()) };
        if self.size(volume)?.is_none() {
            return Ok(());
        }
        rename(&self.path(volume), path)?;
        sync_directory_of(path)?;
        self.sync()
    }
}

impl FilePool {
    /// The file, if it can become `volume` as it is.
    fn candidate<'a>(&self, source: &'a Adoptable, volume: &VolumeName) -> Result<(&'a Path, Metadata), PoolError> {
        let Adoptable::File(path) = source else {
            return Err(source.refused(format!("{} takes files; name the pool that its volume group is", self.spec)));
        };
        let found = fs::symlink_metadata(path).map_err(PoolError::io("examine", path))?;
        let here = path.parent().and_then(|parent| fs::metadata(parent).ok()).map(|parent| (parent.dev(), parent.ino()));
        let pool = self.handle.metadata().map_err(PoolError::io("examine", &self.directory))?;
        let own = || path.file_name().and_then(|name| name.to_str()?.parse::<VolumeName>().ok());
        match own().filter(|_| here == Some((pool.dev(), pool.ino()))) {
            // What has the name of a volume and its form is one, whoever made it.
            Some(own) if self.size(&own).is_ok_and(|size| size.is_some()) => {
                return Err(source.refused(format!("it is volume '{own}' of this node already")));
            }
            _ => {}
        }
        match unfit(path, &found, pool.dev(), &self.directory) {
            Some(why) => Err(source.refused(why)),
            None if fs::symlink_metadata(self.path(volume)).is_ok() => {
                let taken = self.path(volume);
                Err(source.refused(format!("{} has the name that it would get; choose another resource name", taken.display())))
            }
            None => Ok((path, found)),
        }
    }

    /// Whether there is space for what a file has as holes.
    fn check_holes(&self, file: &Metadata) -> Result<(), PoolError> {
        match file.len().saturating_sub(file.blocks() * 512) {
            holes if holes > 0 && !self.spec.is_thin() => self.check_free(holes),
            _ => Ok(()),
        }
    }
}

/// Why a file cannot be a volume of a pool in `directory`, on the file system `device`, if it cannot.
fn unfit(path: &Path, found: &Metadata, device: u64, directory: &Path) -> Option<String> {
    let shown = path.display();
    if !found.is_file() {
        return Some("it is no regular file; give the file itself, not a link or directory".to_owned());
    }
    if found.nlink() > 1 {
        return Some("it has other names (hard links), by which it could be changed; copy it".to_owned());
    }
    if found.dev() != device {
        return Some(format!("it is on another file system than the pool; move it first: 'mv {shown} {}/'", directory.display()));
    }
    if found.len() == 0 {
        return Some("it is empty".to_owned());
    }
    if !found.len().is_multiple_of(BLOCK) {
        let (bytes, whole) = (found.len(), found.len().next_multiple_of(BLOCK));
        return Some(format!(
            "its {bytes} bytes are no whole blocks of {BLOCK}; lengthen it with zeros first: 'truncate --size {whole} {shown}'"
        ));
    }
    user(found).map(|user| format!("it is in use by {user}; close it first"))
}

/// The file, open and locked.
fn locked(source: &Adoptable, path: &Path) -> Result<File, PoolError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(PoolError::io("open", path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(source.refused("it is in use by a process that has locked it; close it first")),
        Err(error) => Err(PoolError::io("lock", path)(error)),
    }
}

/// Who has a file open: a loop device, swap space, or a process, as far as the kernel tells. By whatever path: files are told apart by their
/// numbers, which a bind mount does not change.
fn user(file: &Metadata) -> Option<String> {
    let entries = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
    let backs = |device: &fs::DirEntry| {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        is_same(Path::new(backing.trim_end()), file)
    };
    if let Some(device) = entries("/sys/block").find(backs) {
        return Some(format!("/dev/{}", device.file_name().to_string_lossy()));
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().any(|line| line.split_whitespace().next().is_some_and(|swap| is_same(Path::new(swap), file))) {
        return Some("the kernel, as swap space".to_owned());
    }
    let numbers = entries("/proc").filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let opens = |process: &u32| entries(&format!("/proc/{process}/fd")).any(|fd| is_same(&fd.path(), file));
    numbers.into_iter().find(opens).map(|process| format!("process {process}"))
}

/// Whether a path leads to a file. Other machines and dead processes that serve a file system are not asked.
fn is_same(path: &Path, file: &Metadata) -> bool {
    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
    found.is_ok_and(|found| (makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino) == (file.dev(), file.ino()))
}

/// Gives a file another name, which nobody has.
fn rename(from: &Path, to: &Path) -> Result<(), PoolError> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(PoolError::io("give its new name to", from))
}

fn sync_directory_of(path: &Path) -> Result<(), PoolError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(PoolError::io("flush", parent))
}
