//! Reading a disk without a ring, on a thread that may block: before the time in which it is served.

use std::io;
use std::os::unix::fs::FileExt;

use super::OpenDisk;
use crate::ring::Buffer;

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
        let place = |n: u64| usize::try_from(n).expect("within a buffer");
        for (at, piece) in self.layout.pieces(offset, into.len() as u64) {
            let start = place(at - offset);
            self.files[piece.file].file.read_exact_at(&mut into[start..start + place(piece.length)], piece.at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Backing, DiskOptions, PAGE, Pool, Segment};
    use std::time::Duration;

    #[test]
    fn a_range_is_read_across_segments() {
        let folder = tempfile::tempdir().unwrap();
        let segment = |name: u8| {
            let path = folder.path().join(name.to_string());
            std::fs::write(&path, [[0; PAGE], [name; PAGE], [name + 1; PAGE]].concat()).unwrap();
            Segment { path, start: PAGE as u64, length: 2 * PAGE as u64, exclusive: true, reserved: false }
        };
        let backing = Backing { segments: vec![segment(1), segment(5)] };
        let options = DiskOptions { bytes: 4 * PAGE as u64, read_only: true, wait: Duration::ZERO };
        let disk = OpenDisk::open(&backing, &options).unwrap();
        let mut buffer = Pool::new(1 << 21).unwrap().try_allocate(3 * PAGE).unwrap();
        disk.read(PAGE as u64, &mut buffer).unwrap();
        let pages: Vec<_> = buffer.chunks(PAGE).map(|page| (page[0], page[PAGE - 1])).collect();
        assert_eq!(pages, [(2, 2), (5, 5), (6, 6)]);
    }
}
