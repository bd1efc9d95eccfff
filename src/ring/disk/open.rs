//! Opening and locking a disk. All of it may block: it is done on a thread that may.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, fcntl_getfl, fcntl_setfl, flock};

use super::layout::Layout;
use super::{Backing, Segment, holder};
use crate::ring::{PAGE, os};
use crate::units::{human, human_up};

/// How a disk is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskOptions {
    /// The bytes that it must have.
    pub bytes: u64,
    /// Refuse to write to it; others may read it, too.
    pub read_only: bool,
    /// How long to wait for another's lock: a daemon that was just killed holds its locks until its last I/O is done (rule F4).
    pub wait: Duration,
}

/// Why a disk was not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file cannot be opened or asked.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another program, or another resource, uses it.
    #[error("{path} is in use by {holder}; stop that first, or choose other storage")]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who, as far as it can be known.
        holder: String,
    },
    /// It is neither a file nor a block device.
    #[error("{0} is neither a file nor a block device")]
    NotStorage(PathBuf),
    /// A file is shorter than its segment.
    #[error("{path} has {}, but {} are needed; extend it", human(*bytes), human_up(*needed))]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The end of the segment.
        needed: u64,
    },
    /// The segments together are too small.
    #[error("the storage has {}, but the volume has {}; extend it", human(*bytes), human_up(*needed))]
    TooSmall {
        /// What the segments add up to.
        bytes: u64,
        /// What is needed.
        needed: u64,
    },
    /// A segment does not begin or end at a block.
    #[error("bytes {start}+{length} of {path} are not whole blocks of 4096 bytes")]
    Unaligned {
        /// The file.
        path: PathBuf,
        /// The segment's first byte.
        start: u64,
        /// Its length.
        length: u64,
    },
    /// Two segments are the same bytes.
    #[error("bytes {start}+{length} of {path} belong to two segments of one volume; repair the volume's definition")]
    Twice {
        /// The file.
        path: PathBuf,
        /// The second segment's first byte.
        start: u64,
        /// Its length.
        length: u64,
    },
    /// A device that cannot write a block of ours alone.
    #[error("{path} has sectors of {bytes} bytes; at most 4096 can be used")]
    Sectors {
        /// The device.
        path: PathBuf,
        /// Its logical sector.
        bytes: u32,
    },
}

impl DiskError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }
}

/// A disk that is open and locked and can be taken to the thread that will use it, as a [`Disk`](super::Disk).
///
/// It is opened for direct I/O where the file system can (else through the page cache, with a note in the log). A file or
/// device that is used alone is locked against everybody: files by flock, block devices by O_EXCL, which also refuses what is
/// mounted or part of a volume group in use. The locks belong to the open files: they end when the last descriptor is closed
/// *and* the last I/O that was submitted through it is done, also when the process was killed.
#[derive(Debug)]
pub struct OpenDisk {
    pub(super) layout: Layout,
    pub(super) files: Vec<OpenFile>,
}

/// One file or device of a disk.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) device: bool,
    pub(super) direct: bool,
    pub(super) reserved: bool,
    read_only: bool,
}

impl OpenDisk {
    /// Opens and locks all segments.
    ///
    /// # Errors
    ///
    /// What is wrong with which file, and who holds it.
    pub fn open(backing: &Backing, options: &DiskOptions) -> Result<Self, DiskError> {
        Self::assemble(Vec::new(), backing, options)
    }

    /// The same disk with a changed backing (longer, or with more segments). Files that it has already stay open and locked.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn reopen(self, backing: &Backing, options: &DiskOptions) -> Result<Self, DiskError> {
        Self::assemble(self.files, backing, options)
    }

    /// The bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// Whether all of it is read and written past the page cache.
    pub fn is_direct(&self) -> bool {
        self.files.iter().all(|file| file.direct)
    }

    fn assemble(mut files: Vec<OpenFile>, backing: &Backing, options: &DiskOptions) -> Result<Self, DiskError> {
        let deadline = Instant::now() + options.wait;
        let mut layout = Layout::default();
        let last = backing.segments.len().saturating_sub(1);
        for (index, segment) in backing.segments.iter().enumerate() {
            check_alignment(segment, index == last)?;
            check_apart(segment, &backing.segments[..index])?;
            let file = match files.iter().position(|file| file.path == segment.path) {
                Some(file) => file,
                None => {
                    files.push(OpenFile::open(segment, options, deadline)?);
                    files.len() - 1
                }
            };
            if !segment.exclusive {
                files[file].lock_stretch(segment, deadline)?;
            }
            files[file].check_length(segment)?;
            layout.append(file, segment.start, segment.length);
        }
        match layout.bytes() {
            bytes if bytes < options.bytes => Err(DiskError::TooSmall { bytes, needed: options.bytes }),
            _ => Ok(Self { layout, files }),
        }
    }
}

impl OpenFile {
    fn open(segment: &Segment, options: &DiskOptions, deadline: Instant) -> Result<Self, DiskError> {
        let path = &segment.path;
        let kind = fs::metadata(path).map_err(DiskError::io(path, "find"))?.file_type();
        let device = kind.is_block_device();
        if !device && !kind.is_file() {
            return Err(DiskError::NotStorage(path.clone()));
        }
        let claim = if device && segment.exclusive { libc::O_EXCL } else { 0 };
        let (file, direct) = patiently(path, deadline, || match open_direct(path, claim, options.read_only) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(None),
            result => result.map(Some).map_err(DiskError::io(path, "open")),
        })?;
        let reserved = segment.reserved && !device;
        let open = Self { file, path: path.clone(), device, direct, reserved, read_only: options.read_only };
        if segment.exclusive && !device {
            open.lock_file(deadline)?;
        }
        open.check_sectors()?;
        open.check_direct(segment.start)
    }

    /// A second descriptor of the same open file: the locks are shared.
    pub(super) fn duplicate(file: impl AsFd, path: PathBuf, device: bool, direct: bool, reserved: bool) -> io::Result<Self> {
        let read_only = !fcntl_getfl(&file)?.intersects(OFlags::RDWR);
        Ok(Self { file: File::from(file.as_fd().try_clone_to_owned()?), path, device, direct, reserved, read_only })
    }

    fn lock_file(&self, deadline: Instant) -> Result<(), DiskError> {
        let how = if self.read_only { FlockOperation::NonBlockingLockShared } else { FlockOperation::NonBlockingLockExclusive };
        patiently(&self.path, deadline, || match flock(&self.file, how) {
            Ok(()) => Ok(Some(())),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(DiskError::io(&self.path, "lock")(error.into())),
        })
    }

    fn lock_stretch(&self, segment: &Segment, deadline: Instant) -> Result<(), DiskError> {
        patiently(&self.path, deadline, || {
            let locked = os::lock_range(&self.file, segment.start, segment.length, self.read_only);
            locked.map(|locked| locked.then_some(())).map_err(DiskError::io(&self.path, "lock"))
        })
    }

    fn check_sectors(&self) -> Result<(), DiskError> {
        if !self.device {
            return Ok(());
        }
        match os::sector_bytes(&self.file).map_err(DiskError::io(&self.path, "ask for the sectors of"))? {
            bytes if bytes as usize > PAGE => Err(DiskError::Sectors { path: self.path.clone(), bytes }),
            _ => Ok(()),
        }
    }

    /// Some file systems take O_DIRECT and refuse the I/O. Then it is done through the page cache.
    fn check_direct(mut self, at: u64) -> Result<Self, DiskError> {
        #[repr(align(4096))]
        struct Aligned([u8; PAGE]);

        if self.direct {
            let mut page = Aligned([0; PAGE]);
            match self.file.read_at(&mut page.0, at) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    let flags = fcntl_getfl(&self.file).map_err(|e| DiskError::io(&self.path, "ask")(e.into()))?;
                    fcntl_setfl(&self.file, flags - OFlags::DIRECT)
                        .map_err(|e| DiskError::io(&self.path, "change the mode of")(e.into()))?;
                    self.direct = false;
                }
                Err(error) => return Err(DiskError::io(&self.path, "read")(error)),
            }
        }
        if !self.direct {
            tracing::warn!(path = %self.path.display(), "no direct I/O here: data goes through the page cache, and is slower");
        }
        Ok(self)
    }

    fn check_length(&mut self, segment: &Segment) -> Result<(), DiskError> {
        let bytes = if self.device { os::device_bytes(&self.file) } else { self.file.seek(SeekFrom::End(0)) };
        let bytes = bytes.map_err(DiskError::io(&self.path, "ask for the size of"))?;
        // Cannot overflow: checked with the alignment.
        match segment.start + segment.length {
            needed if needed > bytes => Err(DiskError::TooShort { path: self.path.clone(), bytes, needed }),
            _ => Ok(()),
        }
    }
}

/// Opens for direct I/O if the file system knows it; the file, and whether it does.
fn open_direct(path: &Path, flags: i32, read_only: bool) -> io::Result<(File, bool)> {
    let open = |flags| OpenOptions::new().read(true).write(!read_only).custom_flags(flags).open(path);
    match open(flags | libc::O_DIRECT) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((open(flags)?, false)),
        Err(error) => Err(error),
    }
}

/// Tries until it succeeds (`Some`) or the deadline has passed; then says who is in the way.
fn patiently<R>(
    path: &Path,
    deadline: Instant,
    mut attempt: impl FnMut() -> Result<Option<R>, DiskError>,
) -> Result<R, DiskError> {
    loop {
        if let Some(result) = attempt()? {
            return Ok(result);
        }
        if Instant::now() >= deadline {
            return Err(DiskError::InUse { path: path.to_owned(), holder: holder::describe(path) });
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn check_alignment(segment: &Segment, last: bool) -> Result<(), DiskError> {
    let block = PAGE as u64;
    let aligned = segment.start.is_multiple_of(block) && (last || segment.length.is_multiple_of(block));
    if aligned && segment.start.checked_add(segment.length).is_some() {
        return Ok(());
    }
    Err(DiskError::Unaligned { path: segment.path.clone(), start: segment.start, length: segment.length })
}

fn check_apart(segment: &Segment, others: &[Segment]) -> Result<(), DiskError> {
    let Segment { path, start, length, .. } = segment;
    let end = start + length;
    let meets = |other: &&Segment| other.path == *path && other.start < end && *start < other.start + other.length;
    match others.iter().find(meets) {
        Some(_) => Err(DiskError::Twice { path: path.clone(), start: *start, length: *length }),
        None => Ok(()),
    }
}
