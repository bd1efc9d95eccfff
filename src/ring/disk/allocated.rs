//! Which parts of a disk hold data.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::layout::{Layout, Piece};
use super::{Disk, OpenDisk};
use crate::ring::PAGE;

/// A part of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Its first byte.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// Whether it may hold data. If not it is a hole: it reads as zeroes.
    pub allocated: bool,
}

impl Disk {
    /// The extents of `length` bytes from `offset`, in order, alternating, without gaps; at most `most`, and then they end before
    /// the range does. In whole blocks of 4096 bytes; block devices count as allocated throughout.
    ///
    /// It asks the file system and may wait for its metadata to be read: for long ranges use [`duplicate`](Self::duplicate) and
    /// another thread.
    ///
    /// # Errors
    ///
    /// Those of lseek.
    pub fn extents(&self, offset: u64, length: u64, most: usize) -> io::Result<Vec<Extent>> {
        let file = |index: usize| (self.files[index].fd.as_fd(), self.files[index].device);
        survey(&self.layout, file, offset, length, most)
    }
}

impl OpenDisk {
    /// As [`Disk::extents`].
    ///
    /// # Errors
    ///
    /// Those of lseek.
    pub fn extents(&self, offset: u64, length: u64, most: usize) -> io::Result<Vec<Extent>> {
        let file = |index: usize| (self.files[index].file.as_fd(), self.files[index].device);
        survey(&self.layout, file, offset, length, most)
    }
}

fn survey<'a>(
    layout: &Layout,
    file: impl Fn(usize) -> (BorrowedFd<'a>, bool),
    offset: u64,
    length: u64,
    most: usize,
) -> io::Result<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::new();
    for (disk, piece) in layout.pieces(offset, length) {
        let (fd, device) = file(piece.file);
        let mut done = 0;
        while done < piece.length {
            let (length, allocated) = if device { (piece.length, true) } else { run(fd, piece, done)? };
            let full = extents.len() == most;
            match extents.last_mut() {
                Some(last) if last.allocated == allocated => last.length += length,
                _ if full => return Ok(extents),
                _ => extents.push(Extent { offset: disk + done, length, allocated }),
            }
            done += length;
        }
    }
    Ok(extents)
}

/// How long the data or the hole is that begins `done` bytes into a piece of a file, and which it is.
fn run(fd: BorrowedFd<'_>, piece: Piece, done: u64) -> io::Result<(u64, bool)> {
    let block = PAGE as u64;
    let (from, end) = (piece.at + done, piece.at + piece.length);
    let find = |what| match seek(fd, what) {
        Ok(at) => Ok(at.min(end)),
        Err(Errno::NXIO) => Ok(end),
        Err(error) => Err(io::Error::from(error)),
    };
    // File systems with smaller blocks: a block of ours is a hole only if all of it is.
    let begin = |data: u64| if data == end { end } else { data / block * block };
    let data = begin(find(SeekFrom::Data(from))?);
    if data > from {
        return Ok((data - from, false));
    }
    let mut at = from;
    loop {
        let hole = find(SeekFrom::Hole(at))?.next_multiple_of(block).min(end);
        let data = if hole == end { end } else { find(SeekFrom::Data(hole))? };
        if begin(data) > hole || hole == end {
            return Ok((hole - from, true));
        }
        // There is data in the last block that the hole begins in.
        at = data;
    }
}
