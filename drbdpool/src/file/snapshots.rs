//! Snapshots of files: clones where the file system shares blocks between files, copies elsewhere.
//!
//! A snapshot is a file beside its volume's, called `<volume>@<name>`. In a thick pool a volume's space stays promised: after a clone
//! every block of the volume may have to be written elsewhere once, so a clone counts with all of its size; and a volume that is
//! restored there is a copy with space of its own.

use std::fs::{self, File, OpenOptions, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::io::Errno;

use super::{FilePool, UNFINISHED, allocate, lock};
use crate::copy::copy;
use crate::pool::{BLOCK, round_up};
use crate::{
    Condition, Device, DeviceKind, PoolError, Progress, Segment, Snapshot, SnapshotMethod, SnapshotName, Snapshots, VolumeName,
};

/// Which part of a file system a copy in a thin pool leaves free: the fiftieth.
const LEFT_AFTER_COPY: u64 = 50;

/// Whether the file system of a directory shares blocks between files: tried out.
pub(super) fn shares_blocks(directory: &Path) -> bool {
    let paths = ["probe-a", "probe-b"].map(|name| directory.join(format!("{UNFINISHED}{name}")));
    let make = |path: &Path| OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    let shares = || -> std::io::Result<()> {
        let (from, to) = (make(&paths[0])?, make(&paths[1])?);
        std::os::unix::fs::FileExt::write_all_at(&from, &[1; 4096], 0)?;
        Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
    };
    let answer = shares();
    for path in &paths {
        let _ = fs::remove_file(path);
    }
    answer.is_ok()
}

impl Snapshots for FilePool {
    fn snapshot_method(&self) -> Result<SnapshotMethod, PoolError> {
        Ok(if self.shares_blocks { SnapshotMethod::Shared } else { SnapshotMethod::Copy })
    }

    fn snapshot(&self, snapshot: &SnapshotName, room: u64, progress: &mut Progress<'_>) -> Result<Device, PoolError> {
        let _changing = self.changing();
        let size = self.existing_size(snapshot.volume())?;
        let path = self.directory.join(snapshot.to_string());
        if !self.is_taken(&path)? {
            let (size, from) = (size.min(round_up(room, BLOCK)?), self.path(snapshot.volume()));
            self.check_copy(&from, size, self.shares_blocks)?;
            self.duplicate(&from, &path, size, self.shares_blocks, progress)?;
        }
        self.sync()?;
        self.snapshot_device(&path)
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, PoolError> {
        let mut snapshots = Vec::new();
        for entry in self.entries()? {
            let path = entry?;
            let Some(name) = path.file_name().and_then(|name| name.to_str()?.parse::<SnapshotName>().ok()) else { continue };
            if self.is_taken(&path)? {
                let device = self.snapshot_device(&path)?;
                snapshots.push(Snapshot { name, size: device.size, condition: Condition::Ready(device) });
            }
        }
        snapshots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(snapshots)
    }

    fn remove_snapshot(&self, snapshot: &SnapshotName) -> Result<(), PoolError> {
        let _changing = self.changing();
        let path = self.directory.join(snapshot.to_string());
        if self.is_taken(&path)? {
            let file = File::open(&path).map_err(PoolError::io("open", &path))?;
            if !lock(&file, &path)? {
                return Err(PoolError::InUse { what: format!("snapshot '{snapshot}'"), by: String::new() });
            }
            fs::remove_file(&path).map_err(PoolError::io("remove", &path))?;
        }
        self.sync()
    }

    fn restore(&self, snapshot: &SnapshotName, volume: &VolumeName) -> Result<Device, PoolError> {
        let _changing = self.changing();
        let from = self.directory.join(snapshot.to_string());
        if !self.is_taken(&from)? {
            return Err(PoolError::NotFound { volume: snapshot.to_string(), pool: self.spec.to_string() });
        }
        let wanted = self.snapshot_device(&from)?.size;
        match self.size(volume)? {
            Some(size) if size == wanted => {}
            Some(size) => return Err(PoolError::Exists { volume: volume.to_string(), size, wanted }),
            None => {
                let clone = self.shares_blocks && self.spec.is_thin();
                self.check_copy(&from, wanted, clone)?;
                self.duplicate(&from, &self.path(volume), wanted, clone, &mut |_, _| ControlFlow::Continue(()))?;
            }
        }
        self.sync()?;
        Ok(self.device_of(volume, wanted))
    }
}

impl FilePool {
    /// What snapshots have been promised and do not have, in bytes: of a clone in a thick pool all, of a copy what it lacks.
    pub(super) fn owed_to_snapshots(&self) -> Result<u64, PoolError> {
        let mut owed = 0u64;
        for snapshot in self.snapshots()? {
            let path = self.directory.join(snapshot.name.to_string());
            let blocks = fs::metadata(&path).map_err(PoolError::io("examine", &path)).map(|file| blocks_of(&file))?;
            owed = owed.saturating_add(if self.shares_blocks { snapshot.size } else { snapshot.size.saturating_sub(blocks) });
        }
        Ok(owed)
    }

    /// Refuses what does not fit. A copy in a thin pool is written at once, so that it has to fit into what is free besides what may be
    /// promised; and where all was filled, the writes to others' volumes would fail.
    fn check_copy(&self, from: &Path, size: u64, clone: bool) -> Result<(), PoolError> {
        self.check_free(size)?;
        if clone || !self.spec.is_thin() {
            return Ok(());
        }
        let wanted = fs::metadata(from).map_err(PoolError::io("examine", from)).map(|file| blocks_of(&file))?.min(size);
        let space = rustix::fs::fstatvfs(&self.handle).map_err(PoolError::io("examine", &self.directory))?;
        let left = space.f_blocks / LEFT_AFTER_COPY;
        let free = space.f_bavail.saturating_sub(left).saturating_mul(space.f_frsize);
        if wanted > free { Err(self.no_space(wanted, free)) } else { Ok(()) }
    }

    /// Makes a file that has what another has, up to `size`; it has its name only when it is whole.
    fn duplicate(&self, from: &Path, to: &Path, size: u64, clone: bool, progress: &mut Progress<'_>) -> Result<(), PoolError> {
        let name = to.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unfinished = self.directory.join(format!("{UNFINISHED}{name}"));
        let made = self.fill(from, &unfinished, size, clone, progress);
        let made = made.and_then(|()| fs::rename(&unfinished, to).map_err(PoolError::io("create", to)));
        made.inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }

    fn fill(&self, from: &Path, to: &Path, size: u64, clone: bool, progress: &mut Progress<'_>) -> Result<(), PoolError> {
        let source = File::open(from).map_err(PoolError::io("open", from))?;
        if clone {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(to);
            let file = file.map_err(PoolError::io("create", to))?;
            file.set_permissions(Permissions::from_mode(0o600)).map_err(PoolError::io("protect", to))?;
            if !self.spec.is_thin() {
                // As the volume's own: the two kinds do not share blocks.
                allocate::avoid_copy_on_write(&file);
            }
            return match rustix::fs::ioctl_ficlone(&file, &source) {
                Ok(()) => file.set_len(size).and_then(|()| file.sync_all()).map_err(PoolError::io("flush", to)),
                Err(Errno::NOSPC | Errno::DQUOT) => Err(self.no_space(size, self.free()?)),
                Err(error) => Err(PoolError::io("clone into", to)(error)),
            };
        }
        self.create_unfinished(to, size)?;
        let file = OpenOptions::new().read(true).write(true).open(to).map_err(PoolError::io("open", to))?;
        match copy(&source, &file, size, progress).map_err(PoolError::io("copy into", to))? {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                Err(PoolError::Interrupted { volume: from.file_name().unwrap_or_default().to_string_lossy().into_owned() })
            }
        }
    }

    fn free(&self) -> Result<u64, PoolError> {
        crate::Pool::capacity(self).map(|capacity| capacity.free)
    }

    fn is_taken(&self, path: &Path) -> Result<bool, PoolError> {
        match fs::symlink_metadata(path) {
            Ok(file) if file.is_file() && file.len() > 0 && file.len().is_multiple_of(BLOCK) => Ok(true),
            Ok(_) => Err(PoolError::Foreign { what: path.display().to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(PoolError::io("examine", path)(error)),
        }
    }

    fn snapshot_device(&self, path: &Path) -> Result<Device, PoolError> {
        let size = fs::metadata(path).map_err(PoolError::io("examine", path))?.len();
        let segment = Segment { path: path.to_owned(), start: 0, length: size, exclusive: true, reserved: true };
        Ok(Device { segments: vec![segment], size, zeroed: true, kind: DeviceKind::File })
    }
}

fn blocks_of(file: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(file) * 512
}
