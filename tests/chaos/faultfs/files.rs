//! The folder, as the kernel asks for it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, SeekFrom};

use crate::faults::{Faults, Kind, Passage};
use crate::names::Names;
use crate::volatile::Cache;

/// The kernel remembers nothing: what it is told may change behind its back.
const TTL: Duration = Duration::ZERO;

/// A folder shown somewhere else.
pub(crate) struct Mirror {
    names: Names,
    faults: Arc<Faults>,
    cache: Arc<Cache>,
    open: Mutex<BTreeMap<u64, Opened>>,
    next: AtomicU64,
}

#[derive(Clone)]
struct Opened {
    file: Arc<File>,
    path: PathBuf,
}

impl Mirror {
    pub(crate) fn new(backing: PathBuf, faults: Arc<Faults>, cache: Arc<Cache>) -> Self {
        Self { names: Names::new(backing), faults, cache, open: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.names.path(parent)?.join(name))
    }

    fn attributes(&self, ino: INodeNo, fh: Option<FileHandle>) -> io::Result<FileAttr> {
        match fh.and_then(|fh| self.opened(fh).ok()) {
            Some(opened) => Ok(attributes(ino, &opened.file.metadata()?)),
            None => Ok(attributes(ino, &fs::symlink_metadata(self.names.path(ino)?)?)),
        }
    }

    fn entry(&self, path: io::Result<PathBuf>) -> io::Result<FileAttr> {
        let path = path?;
        let found = fs::symlink_metadata(&path)?;
        Ok(attributes(self.names.number(&path), &found))
    }

    /// Backing files are always open for both, through the page cache: what the cache remembers must be readable.
    fn admit(&self, path: PathBuf, create: Option<u32>, truncate: bool) -> io::Result<FileHandle> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if let Some(mode) = create {
            options.create(true).mode(mode);
        }
        let file = Arc::new(options.open(&path)?);
        if truncate {
            self.resize(&file, 0)?;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles().insert(number, Opened { file, path });
        Ok(FileHandle(number))
    }

    fn resize(&self, file: &Arc<File>, size: u64) -> io::Result<()> {
        let now = file.metadata()?.len();
        self.cache.change(file, size.min(now), now.saturating_sub(size), || file.set_len(size))
    }

    fn opened(&self, fh: FileHandle) -> io::Result<Opened> {
        self.handles().get(&fh.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// An open file, unless the operation is to fail. The passage lives as long as the operation.
    fn passed(&self, fh: FileHandle, kind: Kind) -> io::Result<(Arc<File>, Passage)> {
        let opened = self.opened(fh)?;
        let passage = self.faults.pass(kind, &opened.path)?;
        Ok((opened.file, passage))
    }

    /// Changes what a name means.
    fn name<R>(&self, parent: INodeNo, name: &OsStr, change: impl FnOnce(&Path) -> io::Result<R>) -> io::Result<R> {
        let path = self.child(parent, name)?;
        let _passage = self.faults.pass(Kind::Name, &path)?;
        change(&path)
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_some(&self, fh: FileHandle, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let (file, _passage) = self.passed(fh, Kind::Read)?;
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            match file.read_at(&mut data[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        data.truncate(filled);
        Ok(data)
    }

    fn change_attributes(&self, ino: INodeNo, mode: Option<u32>, size: Option<u64>) -> io::Result<FileAttr> {
        let path = self.names.path(ino)?;
        if let Some(mode) = mode {
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        if let Some(size) = size {
            let _passage = self.faults.pass(Kind::Write, &path)?;
            self.resize(&Arc::new(OpenOptions::new().read(true).write(true).open(&path)?), size)?;
        }
        self.attributes(ino, None)
    }

    fn allocate(&self, fh: FileHandle, offset: u64, length: u64, mode: i32) -> io::Result<()> {
        let (file, _passage) = self.passed(fh, Kind::Write)?;
        let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        // Only within the file is there something to lose.
        let inside = length.min(file.metadata()?.len().saturating_sub(offset));
        self.cache.change(&file, offset, inside, || Ok(rustix::fs::fallocate(&*file, flags, offset, length)?))
    }

    fn list(&self, ino: INodeNo) -> io::Result<Vec<(INodeNo, FileType, std::ffi::OsString)>> {
        let path = self.names.path(ino)?;
        let mut found = vec![(ino, FileType::Directory, ".".into()), (ino, FileType::Directory, "..".into())];
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            found.push((self.names.number(&entry.path()), kind(entry.file_type()?), entry.file_name()));
        }
        Ok(found)
    }
}

/// Answers with what `result` has, or its error.
macro_rules! reply {
    ($result:expr, $reply:ident, |$value:pat_param| $good:expr) => {
        match $result {
            Ok($value) => $good,
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for Mirror {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply!(self.entry(self.child(parent, name)), reply, |found| reply.entry(&TTL, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        reply!(self.attributes(ino, fh), reply, |found| reply.attr(&TTL, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply!(self.change_attributes(ino, mode, size), reply, |changed| reply.attr(&TTL, &changed));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|path| DirBuilder::new().mode(mode).create(&path).map(|()| path));
        reply!(self.entry(made), reply, |made| reply.entry(&TTL, &made, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.name(parent, name, |path| fs::remove_file(path).map(|()| self.names.forget(path)));
        reply!(removed, reply, |()| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.name(parent, name, |path| fs::remove_dir(path).map(|()| self.names.forget(path)));
        reply!(removed, reply, |()| reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.name(new_parent, new_name, |to| {
            let from = self.child(parent, name)?;
            let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
            rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, to, flags)?;
            self.names.rename(&from, to);
            Ok(())
        });
        reply!(renamed, reply, |()| reply.ok());
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let truncate = flags.0 & libc::O_TRUNC != 0;
        let opened = self.names.path(ino).and_then(|path| self.admit(path, None, truncate));
        reply!(opened, reply, |handle| reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        let created = self.name(parent, name, |path| {
            let handle = self.admit(path.to_owned(), Some(mode), flags & libc::O_TRUNC != 0)?;
            Ok((self.entry(Ok(path.to_owned()))?, handle))
        });
        reply!(created, reply, |(found, handle)| {
            reply.created(&TTL, &found, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply!(self.read_some(fh, offset, size), reply, |data| reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.passed(fh, Kind::Write).and_then(|(file, _passage)| {
            self.cache.change(&file, offset, data.len() as u64, || file.write_all_at(data, offset))?;
            if flags.0 & (libc::O_DSYNC | libc::O_SYNC) != 0 {
                self.cache.synced(&file)?;
            }
            u32::try_from(data.len()).map_err(io::Error::other)
        });
        reply!(written, reply, |length| reply.written(length));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, _: Option<LockOwner>, _: bool, reply: ReplyEmpty) {
        self.handles().remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.passed(fh, Kind::Sync).and_then(|(file, _passage)| self.cache.synced(&file));
        reply!(synced, reply, |()| reply.ok());
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        reply!(self.list(ino), reply, |found| {
            for (at, (number, kind, name)) in found.into_iter().enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
                if reply.add(number, at as u64 + 1, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let found = self.names.path(INodeNo::ROOT).and_then(|root| Ok(rustix::fs::statvfs(&root)?));
        reply!(found, reply, |s| {
            reply.statfs(s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, 4096, 255, 4096);
        });
    }

    fn fallocate(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        reply!(self.allocate(fh, offset, length, mode), reply, |()| reply.ok());
    }

    fn lseek(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let found = self.opened(fh).and_then(|opened| {
            let from = u64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
            let whence = match whence {
                libc::SEEK_DATA => SeekFrom::Data(from),
                libc::SEEK_HOLE => SeekFrom::Hole(from),
                _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
            };
            i64::try_from(rustix::fs::seek(&*opened.file, whence)?).map_err(io::Error::other)
        });
        reply!(found, reply, |offset| reply.offset(offset));
    }
}

fn attributes(ino: INodeNo, found: &fs::Metadata) -> FileAttr {
    FileAttr {
        ino,
        size: found.len(),
        blocks: found.blocks(),
        atime: found.accessed().unwrap_or(UNIX_EPOCH),
        mtime: found.modified().unwrap_or(UNIX_EPOCH),
        ctime: found.modified().unwrap_or(UNIX_EPOCH),
        crtime: UNIX_EPOCH,
        kind: kind(found.file_type()),
        perm: u16::try_from(found.mode() & 0o7777).unwrap_or(0o644),
        nlink: u32::try_from(found.nlink()).unwrap_or(1),
        uid: found.uid(),
        gid: found.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(found: fs::FileType) -> FileType {
    match found {
        found if found.is_dir() => FileType::Directory,
        found if found.is_symlink() => FileType::Symlink,
        found if found.is_socket() => FileType::Socket,
        _ => FileType::RegularFile,
    }
}
