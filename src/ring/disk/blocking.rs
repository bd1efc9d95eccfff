//! Reading and writing a disk without a ring, on a thread that may block: before and after the time in which it is served.

use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::Errno;

use super::OpenDisk;
use crate::ring::{Buffer, PAGE, Pool, os};

impl OpenDisk {
    /// Fills a buffer from `offset` on. Offset and length are multiples of 4096.
    ///
    /// # Errors
    ///
    /// Those of pread; `UnexpectedEof` when the file has become shorter.
    ///
    /// # Panics
    ///
    /// If that is not on the disk.
    pub fn read(&self, offset: u64, into: &mut Buffer) -> io::Result<()> {
        let length = into.len() as u64;
        for (at, piece) in self.layout.pieces(offset, length) {
            let bytes = &mut into[range(at - offset, piece.length)];
            self.files[piece.file].file.read_exact_at(bytes, piece.at)?;
        }
        Ok(())
    }

    /// Writes a buffer to `offset` on; not durable before [`sync`](Self::sync). Offset and length are multiples of 4096.
    ///
    /// # Errors
    ///
    /// Those of pwrite.
    ///
    /// # Panics
    ///
    /// If that is not on the disk.
    pub fn write(&self, offset: u64, from: &Buffer) -> io::Result<()> {
        for (at, piece) in self.layout.pieces(offset, from.len() as u64) {
            self.files[piece.file].file.write_all_at(&from[range(at - offset, piece.length)], piece.at)?;
        }
        Ok(())
    }

    /// Makes `length` bytes from `offset` on read as zeroes, keeping their space where there is one; not durable before
    /// [`sync`](Self::sync). Both are multiples of 4096.
    ///
    /// # Errors
    ///
    /// Those of fallocate, pwrite and BLKZEROOUT.
    ///
    /// # Panics
    ///
    /// If that is not on the disk.
    pub fn zero(&self, offset: u64, length: u64) -> io::Result<()> {
        for (_, piece) in self.layout.pieces(offset, length) {
            let of = &self.files[piece.file];
            if of.device {
                os::zero_out(&of.file, piece.at, piece.length)?;
                continue;
            }
            let how = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            match fallocate(&of.file, how, piece.at, piece.length) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeroes(&of.file, piece.at, piece.length)?,
                result => result?,
            }
        }
        Ok(())
    }

    /// Makes everything that was written durable.
    ///
    /// # Errors
    ///
    /// Those of fdatasync: then nothing is known of what was written.
    pub fn sync(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| Ok(fdatasync(&file.file)?))
    }
}

/// For files that can be zeroed by nothing but writing.
fn write_zeroes(file: &std::fs::File, at: u64, length: u64) -> io::Result<()> {
    const AT_ONCE: usize = 256 * PAGE;
    let pool = Pool::new(AT_ONCE)?;
    let mut zeroes = pool.try_allocate(AT_ONCE).ok_or(io::ErrorKind::OutOfMemory)?;
    zeroes.fill(0);
    let mut done = 0;
    while done < length {
        let count = (length - done).min(AT_ONCE as u64);
        file.write_all_at(&zeroes[range(0, count)], at + done)?;
        done += count;
    }
    Ok(())
}

fn range(start: u64, length: u64) -> std::ops::Range<usize> {
    let whole = |n| usize::try_from(n).expect("within a buffer");
    whole(start)..whole(start + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Backing, DiskOptions, Segment};
    use std::time::Duration;

    #[test]
    fn what_is_written_across_segments_is_read_back_and_zeroed() {
        let folder = tempfile::tempdir().unwrap();
        let segment = |name: &str| {
            let path = folder.path().join(name);
            std::fs::File::create(&path).unwrap().set_len(3 * PAGE as u64).unwrap();
            Segment { path, start: PAGE as u64, length: 2 * PAGE as u64, exclusive: true }
        };
        let backing = Backing { segments: vec![segment("a"), segment("b")] };
        let options = DiskOptions { bytes: 4 * PAGE as u64, read_only: false, wait: Duration::ZERO };
        let disk = OpenDisk::open(&backing, &options).unwrap();
        let pool = Pool::new(1 << 21).unwrap();
        let mut buffer = pool.try_allocate(3 * PAGE).unwrap();
        buffer.fill(9);
        disk.write(PAGE as u64, &buffer).unwrap();
        disk.zero(2 * PAGE as u64, PAGE as u64).unwrap();
        disk.sync().unwrap();
        disk.read(PAGE as u64, &mut buffer).unwrap();
        let pages: Vec<_> = buffer.chunks(PAGE).map(|page| (page[0], page[PAGE - 1])).collect();
        assert_eq!(pages, [(9, 9), (0, 0), (9, 9)]);
        disk.read(0, &mut buffer).unwrap();
        assert!(buffer[..PAGE].iter().all(|&byte| byte == 0), "the first page was never written");
    }
}
