//! A directory of files as a pool.
//!
//! A volume is a file of its name, and its space is reserved when it is created: like a thick logical volume it cannot run out of
//! space later. Reserved blocks read as zeros. Where the file system cannot reserve, files are sparse and only accounted for: a
//! promise that others who fill the same file system can break, which the log says.
//!
//! In a *thin* pool files are sparse on purpose. All of them together may be promised several times what there is, and nothing more is
//! promised when the file system is nearly full.
//!
//! The directory is one node's alone: a marker file says whose, and it stays locked (`flock`) while the pool is open. A volume's
//! user locks the volume's file in turn, so that it is not removed under him.

mod adopt;
mod allocate;
mod marker;
mod snapshots;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::patience::patiently;
use crate::pool::{BLOCK, round_up, thin_free};
use crate::{
    Capacity, Condition, Device, DeviceKind, Fill, Identity, Pool, PoolError, PoolSpec, Progress, Promises, Segment, Snapshots,
    Unclaimed, Volume, VolumeName,
};

/// A pool of files; see [`Pool`].
#[derive(Debug)]
pub struct FilePool {
    spec: PoolSpec,
    directory: PathBuf,
    /// The directory itself, locked.
    handle: File,
    /// How many times its size it promises, if it is thin.
    oversubscription: Option<u32>,
    /// Whether the file system shares blocks between files, so that a snapshot is a clone.
    shares_blocks: bool,
    /// Held by whoever changes the pool, so that space is not promised twice.
    changes: Mutex<()>,
}

/// A volume that is being created has this before its name, which no volume's name begins with.
const UNFINISHED: &str = ".new-";

impl FilePool {
    /// Opens the pool `spec`, of files, for `identity`, or makes one there if the directory is empty or missing and `unclaimed` says
    /// so. Volumes that were not created to the end are cleaned up.
    ///
    /// # Errors
    ///
    /// [`PoolError::Unclaimed`], [`PoolError::OtherOwner`], [`PoolError::NotAPool`], [`PoolError::InUse`] when it is open already, here
    /// or in another process; [`PoolError::BadSpec`] for a pool of another kind.
    pub fn open(spec: &PoolSpec, identity: &Identity, unclaimed: Unclaimed) -> Result<Self, PoolError> {
        let (PoolSpec::File { directory } | PoolSpec::FileThin { directory }) = spec else {
            return Err(PoolError::BadSpec { spec: spec.to_string(), why: "it is no directory".to_owned() });
        };
        if let Unclaimed::Claim { .. } = unclaimed {
            create_directory(directory)?;
        }
        let handle = File::open(directory).map_err(PoolError::io("open", directory))?;
        if !lock(&handle, directory)? {
            let what = format!("the directory {}", directory.display());
            return Err(PoolError::InUse { what, by: " by another process, which has the pool open".to_owned() });
        }
        let oversubscription = marker::check_or_claim(directory, &handle, identity, unclaimed)?;
        let oversubscription = spec.is_thin().then_some(oversubscription);
        let (spec, directory, changes) = (spec.clone(), directory.clone(), Mutex::new(()));
        let shares_blocks = snapshots::shares_blocks(&directory);
        let pool = Self { spec, directory, handle, oversubscription, shares_blocks, changes };
        pool.remove_unfinished()?;
        Ok(pool)
    }

    pub(crate) fn release(self) -> Result<(), PoolError> {
        let volumes = self.list()?.len();
        if volumes > 0 {
            return Err(PoolError::NotEmpty { pool: self.spec.to_string(), volumes });
        }
        marker::remove(&self.directory, &self.handle)
    }

    fn remove_unfinished(&self) -> Result<(), PoolError> {
        for entry in self.entries()? {
            let path = entry?;
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes())) {
                tracing::info!(path = %path.display(), "removing a volume that was not created to the end");
                fs::remove_file(&path).map_err(PoolError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<impl Iterator<Item = Result<PathBuf, PoolError>>, PoolError> {
        let entries = fs::read_dir(&self.directory).map_err(PoolError::io("list", &self.directory))?;
        Ok(entries.map(|entry| Ok(entry.map_err(PoolError::io("list", &self.directory))?.path())))
    }

    fn path(&self, volume: &VolumeName) -> PathBuf {
        self.directory.join(volume.to_string())
    }

    /// A volume's file, if there is one.
    fn examine(&self, volume: &VolumeName) -> Result<Option<Metadata>, PoolError> {
        let path = self.path(volume);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() && metadata.len() > 0 && metadata.len().is_multiple_of(BLOCK) => {
                Ok(Some(metadata))
            }
            Ok(_) => Err(PoolError::Foreign { what: path.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PoolError::io("examine", &path)(error)),
        }
    }

    /// All volumes' files.
    fn files(&self) -> Result<Vec<(VolumeName, Metadata)>, PoolError> {
        let mut files = Vec::new();
        for entry in self.entries()? {
            let path = entry?;
            let Some(name) = path.file_name().and_then(|name| name.to_str()?.parse::<VolumeName>().ok()) else { continue };
            match self.examine(&name) {
                Ok(Some(metadata)) => files.push((name, metadata)),
                Ok(None) | Err(PoolError::Foreign { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    fn size(&self, volume: &VolumeName) -> Result<Option<u64>, PoolError> {
        Ok(self.examine(volume)?.map(|file| file.len()))
    }

    fn existing_size(&self, volume: &VolumeName) -> Result<u64, PoolError> {
        let missing = || PoolError::NotFound { volume: volume.to_string(), pool: self.spec.to_string() };
        self.size(volume)?.ok_or_else(missing)
    }

    fn device_of(&self, volume: &VolumeName, size: u64) -> Device {
        let segment =
            Segment { path: self.path(volume), start: 0, length: size, exclusive: true, reserved: !self.spec.is_thin() };
        Device { segments: vec![segment], size, zeroed: true, kind: DeviceKind::File }
    }

    /// Makes the directory's entries durable, which a file's own fsync does not.
    fn sync(&self) -> Result<(), PoolError> {
        self.handle.sync_all().map_err(PoolError::io("flush", &self.directory))
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // The lock guards nothing but the order of changes: each leaves the pool whole wherever it ends.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what does not fit, before a file system that others use too is filled to the brim in the attempt.
    fn check_free(&self, wanted: u64) -> Result<(), PoolError> {
        let free = self.capacity()?.free;
        if wanted > free { Err(self.no_space(wanted, free)) } else { Ok(()) }
    }

    fn no_space(&self, wanted: u64, free: u64) -> PoolError {
        PoolError::NoSpace { pool: self.spec.to_string(), wanted, free }
    }

    /// Reserves `size` bytes from `old` on for a volume's file.
    fn reserve(&self, file: &File, path: &Path, old: u64, size: u64) -> Result<(), PoolError> {
        match allocate::reserve(file, old, size) {
            Ok(allocate::Reserved::Yes) => Ok(()),
            Ok(allocate::Reserved::Unsupported) => {
                tracing::warn!(
                    path = %path.display(),
                    "this file system cannot reserve space: the volume is sparse, and its writes fail if others fill the file system"
                );
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Err(self.no_space(size - old, self.capacity()?.free))
            }
            Err(error) => Err(PoolError::io("reserve space for", path)(error)),
        }
    }

    /// Creates the file under a name that no volume has; the caller gives it its own when it is whole.
    fn create_unfinished(&self, path: &Path, size: u64) -> Result<(), PoolError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.map_err(PoolError::io("create", path))?;
        if self.spec.is_thin() {
            file.set_len(size).map_err(PoolError::io("extend", path))?;
        } else {
            allocate::avoid_copy_on_write(&file);
            self.reserve(&file, path, 0, size)?;
        }
        file.sync_all().map_err(PoolError::io("flush", path))
    }
}

impl Pool for FilePool {
    fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    fn capacity(&self) -> Result<Capacity, PoolError> {
        let space = rustix::fs::fstatvfs(&self.handle).map_err(PoolError::io("examine", &self.directory))?;
        let files = self.files()?;
        // What a file has the file system has counted already.
        let (promised, used) = files.iter().fold((0u64, 0u64), |(promised, used), (_, file)| {
            (promised.saturating_add(file.len()), used.saturating_add(file.blocks() * 512))
        });
        let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
        let (total, available) = (bytes(space.f_blocks), bytes(space.f_bavail));
        let Some(oversubscription) = self.oversubscription else {
            let owed = self.owed_to_snapshots()?;
            let open: u64 = files.iter().map(|(_, file)| file.len().saturating_sub(file.blocks() * 512)).sum();
            let free = available.saturating_sub(open).saturating_sub(owed) / BLOCK * BLOCK;
            return Ok(Capacity { total, free, fill: None, promises: None, trouble: None });
        };
        let (promised, used) = self.snapshots()?.iter().fold((promised, used), |(promised, used), snapshot| {
            let own = fs::metadata(self.directory.join(snapshot.name.to_string())).map_or(0, |file| file.blocks() * 512);
            (promised.saturating_add(snapshot.size), used.saturating_add(own))
        });
        // Others' files on the same file system are no part of the pool.
        let size = available.saturating_add(used).min(total);
        let thousandths = (size - available.min(size)).saturating_mul(1000).checked_div(size).unwrap_or(1000);
        let fill = Fill { data: u16::try_from(thousandths).unwrap_or(1000), metadata: None };
        let promises = Promises { times: oversubscription, made: promised };
        let free = thin_free(size, promises, fill);
        Ok(Capacity { total: size, free, fill: Some(fill), promises: Some(promises), trouble: None })
    }

    fn create(&self, volume: &VolumeName, bytes: u64) -> Result<Device, PoolError> {
        let wanted = round_up(bytes, BLOCK)?;
        let _changing = self.changing();
        match self.size(volume)? {
            Some(size) if size == wanted => {}
            Some(size) => return Err(PoolError::Exists { volume: volume.to_string(), size, wanted }),
            None => {
                self.check_free(wanted)?;
                let unfinished = self.directory.join(format!("{UNFINISHED}{volume}"));
                let path = self.path(volume);
                let created = self
                    .create_unfinished(&unfinished, wanted)
                    .and_then(|()| fs::rename(&unfinished, &path).map_err(PoolError::io("create", &path)));
                if let Err(error) = created {
                    let _ = fs::remove_file(&unfinished);
                    return Err(error);
                }
            }
        }
        // Also for a file that was there: its creator may have died just before this.
        self.sync()?;
        Ok(self.device_of(volume, wanted))
    }

    /// Nothing to do: what was not written reads as zeros.
    fn zero(&self, volume: &VolumeName, _from: u64, _progress: &mut Progress<'_>) -> Result<Device, PoolError> {
        self.device(volume)
    }

    fn resize(&self, volume: &VolumeName, bytes: u64) -> Result<Device, PoolError> {
        let wanted = round_up(bytes, BLOCK)?;
        let _changing = self.changing();
        let size = self.existing_size(volume)?;
        if wanted < size {
            return Err(PoolError::Shrink { volume: volume.to_string(), size, wanted });
        }
        let path = self.path(volume);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(PoolError::io("open", &path))?;
        if wanted > size {
            self.check_free(wanted - size)?;
            if self.spec.is_thin() {
                file.set_len(wanted).map_err(PoolError::io("extend", &path))?;
            } else if let Err(error) = self.reserve(&file, &path, size, wanted) {
                // Gives back what was reserved beyond the end.
                file.set_len(size).map_err(PoolError::io("truncate", &path))?;
                return Err(error);
            }
        }
        file.sync_all().map_err(PoolError::io("flush", &path))?;
        Ok(self.device_of(volume, wanted))
    }

    fn remove(&self, volume: &VolumeName) -> Result<(), PoolError> {
        let _changing = self.changing();
        let path = self.path(volume);
        match self.size(volume) {
            Ok(Some(_)) => {
                let file = File::open(&path).map_err(PoolError::io("open", &path))?;
                if !lock(&file, &path)? {
                    return Err(PoolError::InUse { what: format!("volume '{volume}'"), by: String::new() });
                }
                fs::remove_file(&path).map_err(PoolError::io("remove", &path))?;
            }
            Ok(None) => {}
            Err(PoolError::Foreign { what }) => tracing::warn!(what, "not removed: it is no volume of this pool"),
            Err(error) => return Err(error),
        }
        self.sync()
    }

    fn list(&self) -> Result<Vec<Volume>, PoolError> {
        let volume = |(name, file): (VolumeName, Metadata)| {
            let condition = Condition::Ready(self.device_of(&name, file.len()));
            Volume { name, size: file.len(), condition }
        };
        let mut volumes: Vec<_> = self.files()?.into_iter().map(volume).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    fn device(&self, volume: &VolumeName) -> Result<Device, PoolError> {
        Ok(self.device_of(volume, self.existing_size(volume)?))
    }

    fn activate(&self, volume: &VolumeName) -> Result<Device, PoolError> {
        self.device(volume)
    }

    fn deactivate(&self, volume: &VolumeName) -> Result<(), PoolError> {
        self.existing_size(volume).map(drop)
    }
}

/// Locks a file or directory until it is closed; false when somebody else has it locked.
fn lock(file: &File, path: &Path) -> Result<bool, PoolError> {
    let busy = |error: &fs::TryLockError| matches!(error, fs::TryLockError::WouldBlock);
    match patiently(busy, || file.try_lock()) {
        Ok(()) => Ok(true),
        Err(fs::TryLockError::WouldBlock) => Ok(false),
        Err(fs::TryLockError::Error(error)) => Err(PoolError::io("lock", path)(error)),
    }
}

/// Creates a directory and what is missing above it, durably, for its owner's eyes only: volumes hold other people's data.
fn create_directory(directory: &Path) -> Result<(), PoolError> {
    let missing: Vec<_> = directory.ancestors().take_while(|above| !above.exists()).collect();
    for above in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(above) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(PoolError::io("create", above)(error)),
            _ => {}
        }
        if let Some(parent) = above.parent() {
            let parent_handle = File::open(parent).map_err(PoolError::io("open", parent))?;
            parent_handle.sync_all().map_err(PoolError::io("flush", parent))?;
        }
    }
    Ok(())
}
