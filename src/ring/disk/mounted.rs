//! A disk on the thread that uses it.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::OpenDisk;
use super::layout::{Layout, Piece};
use super::open::OpenFile;
use super::zero::Means;
use crate::ring::{Buffer, Fd, Op, Slice, Span};

/// A disk whose operations are made here and run on the thread's [`Ring`](crate::ring::Ring).
///
/// A read or write is made with [`read`](Self::read) or [`write`](Self::write); when it completes, [`resume`](Self::resume) says
/// whether that was all. It is not when the range spans segments or the kernel did only a part; both are rare.
#[derive(Debug)]
pub struct Disk {
    pub(super) layout: Layout,
    pub(super) files: Vec<MountedFile>,
}

#[derive(Debug)]
pub(super) struct MountedFile {
    pub(super) fd: Fd,
    path: PathBuf,
    pub(super) device: bool,
    direct: bool,
    reserved: bool,
    /// The best way to make zeroes that did not turn out to be missing.
    pub(super) means: Cell<Means>,
}

/// How far a read or write is.
#[derive(Debug)]
pub enum Progress {
    /// All of it is done; the operation, for what it owns.
    Done(Op),
    /// This is to be pushed for the rest.
    More(Op),
    /// The file ended: somebody has truncated it. As bad as EIO.
    Truncated(Op),
}

impl From<OpenDisk> for Disk {
    fn from(open: OpenDisk) -> Self {
        let mount = |OpenFile { file, path, device, direct, reserved, .. }: OpenFile| MountedFile {
            fd: Fd::from(OwnedFd::from(file)),
            path,
            device,
            direct,
            reserved,
            // Space that was promised is never given back.
            means: Cell::new(if reserved { Means::Allocate } else { Means::Punch }),
        };
        Self { layout: open.layout, files: open.files.into_iter().map(mount).collect() }
    }
}

impl Disk {
    /// The bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// Its files and devices: what is to be [synced](Op::Sync), and what is drained.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Fd> {
        self.files.iter().map(|file| &file.fd)
    }

    /// Reads a whole buffer from `offset` on. Both are multiples of 4096.
    ///
    /// # Panics
    ///
    /// If that is not on the disk, or the buffer is empty.
    pub fn read(&self, offset: u64, into: Buffer) -> Op {
        self.read_from(offset, into, 0)
    }

    /// Writes a whole slice to `offset` on; with `durable` it completes when the data is durable. Both are multiples of 4096.
    ///
    /// # Panics
    ///
    /// If that is not on the disk, or the slice is empty.
    pub fn write(&self, offset: u64, from: Slice, durable: bool) -> Op {
        self.write_from(offset, from, 0, durable)
    }

    /// Takes the operation of a read or write that began at `offset` and has just completed with `count` bytes.
    ///
    /// # Panics
    ///
    /// If it is another kind of operation.
    pub fn resume(&self, offset: u64, op: Op, count: u32) -> Progress {
        let (span, len) = match &op {
            Op::Read { into, span, .. } => (*span, into.len()),
            Op::Write { from, span, .. } => (*span, from.len()),
            other => panic!("only reads and writes are resumed, not {other:?}"),
        };
        let done = span.start as usize + count as usize;
        match op {
            op if count == 0 => Progress::Truncated(op),
            op if done >= len => Progress::Done(op),
            Op::Read { into, .. } => Progress::More(self.read_from(offset, into, done)),
            Op::Write { from, durable, .. } => Progress::More(self.write_from(offset, from, done, durable)),
            other => Progress::Done(other),
        }
    }

    /// A handle to the same open files that can travel: to look at what is allocated on a thread that may block, or to be
    /// [reopened](OpenDisk::reopen) with a longer backing and replace this. The locks are shared.
    ///
    /// # Errors
    ///
    /// EMFILE.
    pub fn duplicate(&self) -> io::Result<OpenDisk> {
        let copy = |f: &MountedFile| OpenFile::duplicate(f.fd.as_fd(), f.path.clone(), f.device, f.direct, f.reserved);
        Ok(OpenDisk { layout: self.layout.clone(), files: self.files.iter().map(copy).collect::<io::Result<_>>()? })
    }

    fn read_from(&self, offset: u64, into: Buffer, done: usize) -> Op {
        let (file, at, span) = self.locate(offset, into.len(), done);
        Op::Read { file, offset: at, into, span }
    }

    fn write_from(&self, offset: u64, from: Slice, done: usize, durable: bool) -> Op {
        let (file, at, span) = self.locate(offset, from.len(), done);
        Op::Write { file, offset: at, from, span, durable }
    }

    /// Where byte `done` and what follows it in one piece are.
    fn locate(&self, offset: u64, len: usize, done: usize) -> (Fd, u64, Span) {
        let Piece { file, at, length } = self.layout.piece(offset + done as u64, (len - done) as u64);
        let piece = usize::try_from(length).expect("at most the length of the buffer");
        (self.files[file].fd.clone(), at, Span::new(done, done + piece))
    }
}
