//! The volume as one file of a FUSE file system, for a loop device to stand on.
//!
//! Every read and write goes through: no page cache on this side, several at once. What the loop device does with its file is what a
//! block device's users want: fsync is a flush, a punched hole is a trim that reads as zeroes, a zeroed range keeps its space.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, WriteFlags,
};

use super::link::Link;
use crate::nbd;

/// The file's name.
pub const NAME: &str = "volume";

/// A file system with one file.
pub struct VolumeFile {
    link: Link,
    read_only: bool,
}

impl VolumeFile {
    /// The volume at the end of `link`.
    pub fn new(link: Link, read_only: bool) -> Self {
        Self { link, read_only }
    }

    fn attributes(&self, number: INodeNo) -> FileAttr {
        let directory = number == INodeNo::ROOT;
        let size = if directory { 0 } else { self.link.bytes() };
        FileAttr {
            ino: number,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: match (directory, self.read_only) {
                (true, _) => 0o500,
                (false, true) => 0o400,
                (false, false) => 0o600,
            },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        }
    }

    /// Zeroes a range, in pieces that a request can say.
    fn zero(&self, offset: u64, length: u64, no_hole: bool, reply: ReplyEmpty) {
        let pieces: Vec<(u64, u64)> =
            (0..length.div_ceil(PIECE)).map(|n| (offset + n * PIECE, PIECE.min(length - n * PIECE))).collect();
        let all = Pieces { left: AtomicUsize::new(pieces.len()), reply: std::sync::Mutex::new(Some(reply)) };
        let all = Arc::new(all);
        if pieces.is_empty() {
            return all.done(Ok(()));
        }
        for (offset, length) in pieces {
            let all = all.clone();
            let request = nbd::Request::WriteZeroes { offset, length, fua: false, no_hole, fast: false };
            self.link.ask(request, &[], move |answer| all.done(answer.map(drop)));
        }
    }
}

/// A request that was made in pieces: answered with the first error, or when all are done.
struct Pieces {
    left: AtomicUsize,
    reply: std::sync::Mutex<Option<ReplyEmpty>>,
}

impl Pieces {
    fn done(&self, answer: Result<(), nbd::Errno>) {
        let last = self.left.fetch_sub(1, Ordering::AcqRel) <= 1;
        let mut reply = self.reply.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match answer {
            Err(error) => drop(reply.take().map(|reply| reply.error(errno(error)))),
            Ok(()) if last => drop(reply.take().map(ReplyEmpty::ok)),
            Ok(()) => {}
        }
    }
}

impl Filesystem for VolumeFile {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Kernels that cannot do it at once do it one after the other.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(IN_FLIGHT);
        let _ = config.set_congestion_threshold(IN_FLIGHT);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match parent == INodeNo::ROOT && name == NAME {
            true => reply.entry(&FOREVER, &self.attributes(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(number));
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = [
            (INodeNo::ROOT, FileType::Directory, "."),
            (INodeNo::ROOT, FileType::Directory, ".."),
            (FILE, FileType::RegularFile, NAME),
        ];
        for (at, (number, kind, name)) in (1u64..).zip(entries).filter(|(at, _)| *at > offset) {
            if reply.add(number, at, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // The block's size is what the loop device takes for the unit of its discards.
        reply.statfs(self.link.bytes() / u64::from(BLOCK), 0, 0, 1, 0, BLOCK, 255, BLOCK);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        // The kernel does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES | FopenFlags::FOPEN_NOFLUSH;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.link.bytes().saturating_sub(offset);
        let length = u32::try_from(left).map_or(size, |left| size.min(left));
        if length == 0 {
            return reply.data(&[]);
        }
        self.link.ask(nbd::Request::Read { offset, length, dont_fragment: false }, &[], move |answer| match answer {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let within = offset.checked_add(data.len() as u64).is_some_and(|end| end <= self.link.bytes());
        let (true, Ok(length)) = (within && !self.read_only, u32::try_from(data.len())) else {
            return reply.error(if self.read_only { Errno::EROFS } else { Errno::ENOSPC });
        };
        self.link.ask(nbd::Request::Write { offset, length, fua: false }, data, move |answer| match answer {
            Ok(_) => reply.written(length),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.link.ask(nbd::Request::Flush, &[], move |answer| match answer {
            Ok(_) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        if self.read_only {
            return reply.error(Errno::EROFS);
        }
        let end = offset.saturating_add(length).min(self.link.bytes());
        let length = end.saturating_sub(offset);
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            libc::FALLOC_FL_PUNCH_HOLE => self.zero(offset, length, false, reply),
            libc::FALLOC_FL_ZERO_RANGE => self.zero(offset, length, true, reply),
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }
}

/// The protocol's numbers are Linux's.
fn errno(error: nbd::Errno) -> Errno {
    Errno::from_i32(i32::try_from(error.code()).unwrap_or(libc::EIO))
}

/// The file's number.
pub const FILE: INodeNo = INodeNo(2);
const BLOCK: u32 = 4096;
/// Nothing of it changes while it is mounted.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
const MAX_WRITE: u32 = 1 << 20;
const IN_FLIGHT: u16 = 256;
/// The longest range of one request to zero.
const PIECE: u64 = 1 << 30;
