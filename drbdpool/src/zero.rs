//! Making a stretch of a device read as zeros.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, retry_on_intr};

use crate::Progress;

/// A stretch of an open file or block device.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) file: File,
    pub(crate) start: u64,
    pub(crate) length: u64,
}

/// Makes stretches read as zeros, durably. `Break` when `progress` broke it off.
///
/// The kernel does the work where it can: a disk that knows how writes zeros without being sent any. What is allocated stays so,
/// because space that was promised must not be given back to whatever is below.
pub(crate) fn zero(stretches: &[Stretch], progress: &mut Progress<'_>) -> io::Result<ControlFlow<()>> {
    let total = stretches.iter().map(|stretch| stretch.length).sum();
    let mut done = 0;
    for stretch in stretches {
        let mut at = stretch.start;
        let end = stretch.start + stretch.length;
        while at < end {
            let length = STEP.min(end - at);
            zero_range(&stretch.file, at, length)?;
            at += length;
            done += length;
            if progress(done, total).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    for stretch in stretches {
        stretch.file.sync_all()?;
    }
    Ok(ControlFlow::Continue(()))
}

/// How much is zeroed between two looks at whether to go on: a second or so of a slow disk.
const STEP: u64 = 64 << 20;

fn zero_range(file: &File, start: u64, length: u64) -> io::Result<()> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    match retry_on_intr(|| rustix::fs::fallocate(file, flags, start, length)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => write_zeros(file, start, length),
        answer => Ok(answer?),
    }
}

fn write_zeros(file: &File, start: u64, length: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = start;
    while at < start + length {
        let piece = usize::try_from(start + length - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways must leave the same bytes, so that no file system's or disk's limits show.
    #[test]
    fn only_the_stretches_become_zero() {
        for by_hand in [false, true] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&vec![0xaa; 5 << 20], 0).unwrap();
            if by_hand {
                write_zeros(&file, 4096, (3 << 20) + 4096).unwrap();
            } else {
                let stretch = |start, length| Stretch { file: file.try_clone().unwrap(), start, length };
                let stretches = [stretch(4096, 1 << 20), stretch(4096 + (1 << 20), (2 << 20) + 4096)];
                let mut seen = Vec::new();
                let answer = zero(&stretches, &mut |done, total| {
                    seen.push((done, total));
                    ControlFlow::Continue(())
                });
                assert!(answer.unwrap().is_continue());
                let total = (3 << 20) + 4096;
                assert_eq!(seen, [(1 << 20, total), (total, total)]);
            }
            let mut bytes = vec![0; 5 << 20];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let end = 4096 + (3 << 20) + 4096;
            assert!(bytes[..4096].iter().chain(&bytes[end..]).all(|&byte| byte == 0xaa));
            assert!(bytes[4096..end].iter().all(|&byte| byte == 0));
            assert_eq!(file.metadata().unwrap().len(), 5 << 20);
        }
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * STEP).unwrap();
        let mut steps = 0;
        let answer = zero(&[Stretch { file, start: 0, length: 3 * STEP }], &mut |_, _| {
            steps += 1;
            if steps == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(answer.unwrap().is_break());
        assert_eq!(steps, 2);
    }
}
