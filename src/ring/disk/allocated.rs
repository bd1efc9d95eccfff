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
            let ask = |what| match seek(fd, what) {
                Ok(at) => Ok(Some(at)),
                Err(Errno::NXIO) => Ok(None),
                Err(error) => Err(io::Error::from(error)),
            };
            let (length, allocated) = if device { (piece.length, true) } else { run(ask, piece, done)? };
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

/// How long the data or the hole is that begins `done` bytes into a piece of a file, and which it is. `ask` finds the next data
/// or hole in the file, as lseek does; `None` when there is none.
fn run(ask: impl Fn(SeekFrom) -> io::Result<Option<u64>>, piece: Piece, done: u64) -> io::Result<(u64, bool)> {
    let block = PAGE as u64;
    let (from, end) = (piece.at + done, piece.at + piece.length);
    let find = |what| ask(what).map(|at| at.map_or(end, |at| at.min(end)));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECTOR: u64 = 1024;

    proptest! {
        /// On a file system with blocks of 1 KiB: a block of 4 KiB counts as data if any part of it is data, and the extents
        /// alternate and leave no gap.
        #[test]
        fn blocks_are_holes_only_if_all_of_them_is(
            data in prop::collection::vec(prop::bool::weighted(0.3), 1..64),
            start in 0_u64..8,
            cut in 0_u64..8,
        ) {
            let sectors = data.len() as u64;
            let is_data = |sector: u64| sector < sectors && data[usize::try_from(sector).unwrap()];
            let ask = |what| Ok(match what {
                SeekFrom::Data(at) => (at / SECTOR..sectors).find(|&s| is_data(s)).map(|s| at.max(s * SECTOR)),
                SeekFrom::Hole(at) => (at / SECTOR..=sectors).find(|&s| !is_data(s)).map(|s| at.max(s * SECTOR)),
                other => panic!("{other:?} is not asked"),
            });
            let at = start * 4096;
            let length = (sectors * SECTOR).saturating_sub(at + cut * 100);
            prop_assume!(length > 0);
            let piece = Piece { file: 0, at, length };
            let (mut done, mut before) = (0, None);
            while done < length {
                let (run, allocated) = run(ask, piece, done).unwrap();
                prop_assert!(run > 0 && before != Some(allocated), "a run of {} after {:?}", run, before);
                for block in (at + done..at + done + run).step_by(4096) {
                    let end = (at + length).min(block / 4096 * 4096 + 4096);
                    let any = (block / SECTOR..end.div_ceil(SECTOR)).any(is_data);
                    prop_assert_eq!(any, allocated, "block at {}", block);
                }
                done += run;
                before = Some(allocated);
            }
            prop_assert_eq!(done, length);
        }
    }
}
