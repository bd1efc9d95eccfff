//! Copying what a file or device holds.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::Progress;

/// How much is read and written at once.
const PIECE: u64 = 1 << 20;
/// How much is written before it is made durable. What is told of the progress is then what the disk has done, not what memory has taken;
/// and the end of a long copy is no long flush.
const LAP: u64 = 32 << 20;

/// Copies `length` bytes from one file's beginning to that of another, which reads as zeros there, and makes them durable. Holes and zeros
/// are left out. `Break` when `progress` broke it off.
pub(crate) fn copy(from: &File, to: &File, length: u64, progress: &mut Progress<'_>) -> io::Result<ControlFlow<()>> {
    let mut buffer = vec![0; usize::try_from(PIECE).expect("a piece fits into memory")];
    let (mut at, mut dirty) = (0, 0);
    while at < length {
        at = next_data(from, at)?;
        if at >= length {
            break;
        }
        let end = length.min((at / PIECE + 1) * PIECE);
        let piece = &mut buffer[..usize::try_from(end - at).expect("at most a piece")];
        from.read_exact_at(piece, at)?;
        if piece.iter().any(|&byte| byte != 0) {
            to.write_all_at(piece, at)?;
            dirty += end - at;
        }
        at = end;
        if dirty >= LAP {
            to.sync_data()?;
            dirty = 0;
        }
        if progress(at, length).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    to.sync_all()?;
    Ok(ControlFlow::Continue(()))
}

/// Where there may be data next; beyond every length when there is none.
fn next_data(from: &File, at: u64) -> io::Result<u64> {
    match seek(from, SeekFrom::Data(at)) {
        Ok(data) => Ok(data),
        Err(Errno::NXIO) => Ok(u64::MAX),
        // A block device knows no holes.
        Err(Errno::INVAL) => Ok(at),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn data_is_copied_and_holes_are_not() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let length = 5 * PIECE + 4096;
        for file in [&from, &to] {
            file.set_len(length).unwrap();
        }
        from.write_all_at(&[0x11; 8192], PIECE - 4096).unwrap();
        from.write_all_at(&[0x22; 4096], length - 4096).unwrap();
        from.write_all_at(&vec![0; 1 << 20], 3 * PIECE).unwrap();
        let mut told = Vec::new();
        let copied = copy(&from, &to, length, &mut |done, all| {
            told.push((done, all));
            ControlFlow::Continue(())
        });
        assert!(copied.unwrap().is_continue());
        assert!(told.is_sorted() && told.iter().all(|&(_, all)| all == length), "{told:?}");
        assert_eq!(told.last(), Some(&(length, length)));
        let read = |file: &File| {
            let mut all = vec![0; usize::try_from(length).unwrap()];
            file.read_exact_at(&mut all, 0).unwrap();
            all
        };
        assert!(read(&from) == read(&to));
        assert!(to.metadata().unwrap().blocks() * 512 < 4 * PIECE, "what is zero takes no space");
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let length = 3 * PIECE;
        from.write_all_at(&vec![0x11; usize::try_from(length).unwrap()], 0).unwrap();
        let copied = copy(&from, &to, length, &mut |done, _| {
            if done < 2 * PIECE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(copied.unwrap().is_break());
        assert_eq!(to.metadata().unwrap().len(), 2 * PIECE);
    }
}
