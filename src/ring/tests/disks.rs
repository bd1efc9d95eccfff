//! Disks on files and block devices.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;

const BLOCK: u64 = 4096;

fn file(folder: &Path, name: &str, blocks: u64) -> PathBuf {
    let path = folder.join(name);
    File::create(&path).unwrap().set_len(blocks * BLOCK).unwrap();
    path
}

fn segment(path: &Path, start: u64, blocks: u64, exclusive: bool) -> Segment {
    Segment { path: path.to_owned(), start: start * BLOCK, length: blocks * BLOCK, exclusive, reserved: false }
}

fn options(blocks: u64) -> DiskOptions {
    DiskOptions { bytes: blocks * BLOCK, read_only: false, wait: Duration::ZERO }
}

impl Bench {
    fn write(&mut self, disk: &Disk, offset: u64, data: &[u8]) {
        let from = self.buffer(data).freeze();
        let mut op = disk.write(offset, from, false);
        loop {
            let done = self.run(op);
            match disk.resume(offset, done.op, done.result.unwrap()) {
                Progress::Done(_) => return,
                Progress::More(rest) => op = rest,
                Progress::Truncated(_) => panic!("a write of nothing"),
            }
        }
    }

    fn read(&mut self, disk: &Disk, offset: u64, len: usize) -> Vec<u8> {
        let mut op = disk.read(offset, self.pool.try_allocate(len).unwrap());
        loop {
            let done = self.run(op);
            match disk.resume(offset, done.op, done.result.unwrap()) {
                Progress::Done(Op::Read { into, .. }) => return into.to_vec(),
                Progress::More(rest) => op = rest,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Makes zeroes; the kinds of operations that it took.
    fn zero(&mut self, disk: &Disk, mut zeroing: Zeroing) -> Vec<Result<ZeroBy, u32>> {
        let zeroes = self.buffer(&[0; 16_384]).freeze();
        let mut ways = Vec::new();
        while let Some(op) = zeroing.next(disk, &zeroes) {
            ways.push(match &op {
                Op::Zero { how, .. } => Ok(*how),
                Op::Write { span, .. } => Err(span.end),
                other => panic!("{other:?} makes no zeroes"),
            });
            let done = self.run(op);
            zeroing.completed(disk, &done.op, done.result).unwrap();
        }
        ways
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A disk of four segments in two files, one of them twice and out of order, is one range of bytes.
    #[test]
    fn segments_are_one_disk(steps in prop::collection::vec((0_u64..40, 1_u64..24, any::<u64>(), 0_u8..4), 1..30)) {
        let folder = TempDir::new().unwrap();
        let (one, two) = (file(folder.path(), "one", 32), file(folder.path(), "two", 16));
        let segments = vec![
            segment(&one, 20, 9, false),
            segment(&two, 3, 11, true),
            segment(&one, 0, 13, false),
            segment(&one, 13, 7, false),
        ];
        let disk = Disk::from(OpenDisk::open(&Backing { segments }, &options(40)).unwrap());
        prop_assert_eq!((disk.bytes(), disk.files().len()), (40 * BLOCK, 2));
        let mut model = vec![0; 40 * 4096];
        let mut bench = Bench::new();
        for (block, blocks, seed, what) in steps {
            let (offset, length) = (block * BLOCK, blocks.min(40 - block) * BLOCK);
            let range = usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap();
            match what {
                0 => {
                    bench.zero(&disk, Zeroing::new(offset, length, seed % 2 == 0));
                    model[range].fill(0);
                }
                1 => prop_assert!(bench.read(&disk, offset, range.len()) == model[range]),
                _ => {
                    let data = pattern(seed, range.len());
                    bench.write(&disk, offset, &data);
                    model[range].copy_from_slice(&data);
                }
            }
        }
        prop_assert!(bench.read(&disk, 0, model.len()) == model);
        // What is between and around the segments is not touched.
        let (one, two) = (fs::read(one).unwrap(), fs::read(two).unwrap());
        prop_assert!(one[..20 * 4096] == model[20 * 4096..]);
        prop_assert!(one[29 * 4096..].iter().chain(&two[..3 * 4096]).chain(&two[14 * 4096..]).all(|&byte| byte == 0));
    }
}

#[test]
fn a_locked_file_is_refused_by_name_of_its_holder() {
    let folder = TempDir::new().unwrap();
    let path = file(folder.path(), "volume", 4);
    let backing = Backing::whole(&path, 4 * BLOCK);
    let first = Disk::from(OpenDisk::open(&backing, &options(4)).unwrap());
    let refused = OpenDisk::open(&backing, &options(4)).unwrap_err();
    assert!(matches!(refused, DiskError::InUse { .. }), "{refused}");
    let holder = format!("volume is in use by process {} (", std::process::id());
    assert!(refused.to_string().contains(&holder), "{refused}");
    let reader = DiskOptions { read_only: true, ..options(4) };
    assert!(matches!(OpenDisk::open(&backing, &reader), Err(DiskError::InUse { .. })));
    // A copy of the descriptor shares the lock and keeps it.
    let copy = first.duplicate().unwrap();
    drop(first);
    assert!(matches!(OpenDisk::open(&backing, &options(4)), Err(DiskError::InUse { .. })));
    drop(copy);
    let (one, two) = (OpenDisk::open(&backing, &reader).unwrap(), OpenDisk::open(&backing, &reader).unwrap());
    assert_eq!((one.bytes(), two.bytes()), (4 * BLOCK, 4 * BLOCK), "readers share it");
}

#[test]
fn a_lock_that_is_about_to_go_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let backing = Backing::whole(file(folder.path(), "volume", 4), 4 * BLOCK);
    let first = OpenDisk::open(&backing, &options(4)).unwrap();
    let (release, released) = mpsc::channel::<()>();
    let holder = thread::spawn(move || {
        released.recv().unwrap();
        drop(first);
    });
    let patient = DiskOptions { wait: Duration::from_secs(20), ..options(4) };
    let waiting = thread::spawn(move || OpenDisk::open(&backing, &patient).map(|disk| disk.bytes()));
    assert!(!waiting.is_finished());
    release.send(()).unwrap();
    holder.join().unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), 4 * BLOCK);
}

#[test]
fn stretches_of_one_file_are_locked_apart() {
    let folder = TempDir::new().unwrap();
    let path = file(folder.path(), "disk", 16);
    let open =
        |start, blocks| OpenDisk::open(&Backing { segments: vec![segment(&path, start, blocks, false)] }, &options(blocks));
    let low = open(0, 8).unwrap();
    let _high = open(8, 8).unwrap();
    assert!(matches!(open(7, 2), Err(DiskError::InUse { .. })));
    drop(low);
    open(0, 8).unwrap();
}

#[test]
fn a_disk_grows_under_its_lock() {
    let folder = TempDir::new().unwrap();
    let (path, more) = (file(folder.path(), "volume", 4), file(folder.path(), "more", 4));
    let disk = Disk::from(OpenDisk::open(&Backing::whole(&path, 4 * BLOCK), &options(4)).unwrap());
    let mut bench = Bench::new();
    bench.write(&disk, 0, &pattern(1, 16_384));
    let longer = Backing { segments: vec![segment(&path, 0, 6, true), segment(&more, 0, 4, true)] };
    let refused = disk.duplicate().unwrap().reopen(&longer, &options(10)).unwrap_err();
    assert!(matches!(refused, DiskError::TooShort { bytes: 16_384, needed: 24_576, .. }), "{refused}");
    File::options().write(true).open(&path).unwrap().set_len(6 * BLOCK).unwrap();
    let disk = Disk::from(disk.duplicate().unwrap().reopen(&longer, &options(10)).unwrap());
    assert_eq!(disk.bytes(), 10 * BLOCK);
    assert_eq!(bench.read(&disk, 0, 16_384), pattern(1, 16_384));
    bench.write(&disk, 5 * BLOCK, &pattern(2, 8192));
    assert_eq!(fs::read(more).unwrap()[..4096], pattern(2, 8192)[4096..]);
    assert!(matches!(OpenDisk::open(&Backing::whole(&path, BLOCK), &options(1)), Err(DiskError::InUse { .. })));
}

#[test]
fn what_cannot_be_a_disk_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = file(folder.path(), "volume", 4);
    let refused = |segment, blocks| OpenDisk::open(&Backing { segments: vec![segment] }, &options(blocks)).unwrap_err();
    let says = |error: DiskError, what: &str| assert!(error.to_string().contains(what), "{error}");
    says(refused(segment(&path, 0, 4, true), 5), "has 16 KiB, but the volume has 20 KiB; extend it");
    says(refused(segment(&path, 1, 4, true), 4), "has 16 KiB, but 20 KiB are needed");
    says(refused(Segment { start: 512, ..segment(&path, 0, 1, true) }, 1), "are not whole blocks");
    says(refused(Segment { start: u64::MAX - 4095, ..segment(&path, 0, 2, true) }, 1), "are not whole blocks");
    says(refused(segment(&folder.path().join("none"), 0, 1, true), 1), "No such file");
    says(refused(segment(folder.path(), 0, 1, true), 1), "neither a file nor a block device");
    let twice = Backing { segments: vec![segment(&path, 0, 3, true), segment(&path, 2, 2, true)] };
    says(OpenDisk::open(&twice, &options(1)).unwrap_err(), "bytes 8192+8192 of");
    says(refused(segment(Path::new("/dev/null"), 0, 1, true), 1), "neither a file nor a block device");
    let nothing = OpenDisk::open(&Backing { segments: Vec::new() }, &options(1)).unwrap_err();
    says(nothing, "has 0 B");
}

#[test]
fn a_truncated_file_is_noticed() {
    let folder = TempDir::new().unwrap();
    let path = file(folder.path(), "volume", 4);
    let disk = Disk::from(OpenDisk::open(&Backing::whole(&path, 4 * BLOCK), &options(4)).unwrap());
    File::options().write(true).open(&path).unwrap().set_len(BLOCK).unwrap();
    let mut bench = Bench::new();
    let done = bench.run(disk.read(0, bench.pool.try_allocate(8192).unwrap()));
    assert_eq!(done.result, Ok(4096));
    let Progress::More(rest) = disk.resume(0, done.op, 4096) else { panic!("half was read") };
    let done = bench.run(rest);
    assert_eq!(done.result, Ok(0));
    assert!(matches!(disk.resume(0, done.op, 0), Progress::Truncated(_)));
}

#[test]
fn holes_are_reported_as_holes() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (file(folder.path(), "one", 64), file(folder.path(), "two", 64));
    let segments = vec![segment(&one, 0, 64, true), segment(&two, 0, 64, true)];
    let disk = Disk::from(OpenDisk::open(&Backing { segments }, &options(128)).unwrap());
    let mut bench = Bench::new();
    bench.write(&disk, 16 * BLOCK, &pattern(1, 16 * 4096));
    bench.write(&disk, 60 * BLOCK, &pattern(2, 8 * 4096));
    let expected = [(0, 16, false), (16, 16, true), (32, 28, false), (60, 8, true), (68, 60, false)];
    let expected = expected.map(|(at, blocks, allocated)| Extent { offset: at * BLOCK, length: blocks * BLOCK, allocated });
    assert_eq!(disk.extents(0, 128 * BLOCK, 100).unwrap(), expected);
    assert_eq!(disk.extents(0, 128 * BLOCK, 2).unwrap(), expected[..2]);
    let inside = Extent { offset: 17 * BLOCK, length: 3 * BLOCK, allocated: true };
    assert_eq!(disk.duplicate().unwrap().extents(17 * BLOCK, 3 * BLOCK, 100).unwrap(), [inside]);
    bench.zero(&disk, Zeroing::new(16 * BLOCK, 112 * BLOCK, false));
    let hole = Extent { offset: 0, length: 128 * BLOCK, allocated: false };
    assert_eq!(disk.extents(0, 128 * BLOCK, 100).unwrap(), [hole]);
}

/// What TRIM zeroes of a file whose space was promised stays the file's: nobody else can take it, and the next write finds it.
#[test]
fn a_promise_of_space_outlives_trim() {
    use std::os::unix::fs::MetadataExt;

    let folder = TempDir::new().unwrap();
    let path = file(folder.path(), "volume", 64);
    let handle = File::options().write(true).open(&path).unwrap();
    if rustix::fs::fallocate(&handle, rustix::fs::FallocateFlags::empty(), 0, 64 * BLOCK).is_err() {
        return eprintln!("not tested: this file system cannot reserve space");
    }
    let promised = fs::metadata(&path).unwrap().blocks();
    let whole = Segment { reserved: true, ..segment(&path, 0, 64, true) };
    let disk = Disk::from(OpenDisk::open(&Backing { segments: vec![whole] }, &options(64)).unwrap());
    let mut bench = Bench::new();
    bench.write(&disk, 0, &pattern(1, 64 * 4096));
    // Also through what is left when the disk was reopened.
    let disk = Disk::from(disk.duplicate().unwrap());
    assert!(!bench.zero(&disk, Zeroing::new(8 * BLOCK, 40 * BLOCK, false)).contains(&Ok(ZeroBy::Punch)));
    assert!(fs::metadata(&path).unwrap().blocks() >= promised, "space was given back");
    let mut expected = pattern(1, 64 * 4096);
    expected[8 * 4096..48 * 4096].fill(0);
    assert!(bench.read(&disk, 0, 64 * 4096) == expected);
}

/// tmpfs knows holes but not zeroed extents: the means is found out once, and then zeroes are written.
#[test]
fn zeroes_are_written_where_there_is_no_other_way() {
    let folder = TempDir::new_in("/dev/shm").unwrap();
    let path = file(folder.path(), "volume", 16);
    let disk = Disk::from(OpenDisk::open(&Backing::whole(&path, 16 * BLOCK), &options(16)).unwrap());
    let mut bench = Bench::new();
    bench.write(&disk, 0, &pattern(1, 16 * 4096));
    assert_eq!(bench.zero(&disk, Zeroing::new(0, 4 * BLOCK, false)), [Ok(ZeroBy::Punch)]);
    assert!(disk.zeroes_fast());
    let ways = bench.zero(&disk, Zeroing::new(8 * BLOCK, 6 * BLOCK, true));
    assert_eq!(ways, [Ok(ZeroBy::Allocate), Err(16_384), Err(8192)]);
    assert!(!disk.zeroes_fast());
    assert_eq!(bench.zero(&disk, Zeroing::new(7 * BLOCK, BLOCK, false)), [Err(4096)]);
    let mut expected = pattern(1, 16 * 4096);
    expected[..4 * 4096].fill(0);
    expected[7 * 4096..14 * 4096].fill(0);
    assert!(bench.read(&disk, 0, 16 * 4096) == expected);
}

#[test]
fn a_failing_disk_does_not_count_as_zeroed() {
    let folder = TempDir::new().unwrap();
    let path = file(folder.path(), "volume", 4);
    let disk = Disk::from(OpenDisk::open(&Backing::whole(&path, 4 * BLOCK), &options(4)).unwrap());
    let bench = Bench::new();
    let zeroes = bench.buffer(&[0; 4096]).freeze();
    let mut zeroing = Zeroing::new(0, BLOCK, false);
    let op = zeroing.next(&disk, &zeroes).unwrap();
    assert_eq!(zeroing.completed(&disk, &op, Err(Errno::IO)), Err(Errno::IO));
    // A range that the device does not like is written; others are still punched.
    zeroing.completed(&disk, &op, Err(Errno::INVAL)).unwrap();
    let op = zeroing.next(&disk, &zeroes).unwrap();
    assert!(matches!(op, Op::Zero { how: ZeroBy::Allocate, .. }));
    zeroing.completed(&disk, &op, Err(Errno::INVAL)).unwrap();
    let op = zeroing.next(&disk, &zeroes).unwrap();
    assert!(matches!(op, Op::Write { .. }));
    assert_eq!(zeroing.completed(&disk, &op, Ok(0)), Err(Errno::IO));
    assert!(disk.zeroes_fast());
}

/// A loop device over a file; `None` without the right to make one.
struct Loop {
    path: PathBuf,
    _folder: TempDir,
}

impl Loop {
    fn new(blocks: u64) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let file = file(folder.path(), "backing", blocks);
        let made = Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(file).output().ok()?;
        if !made.status.success() {
            eprintln!("not tested: {}", String::from_utf8_lossy(&made.stderr).trim());
            return None;
        }
        Some(Self { path: String::from_utf8(made.stdout).unwrap().trim().into(), _folder: folder })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.path).status();
        assert!(detached.is_ok_and(|status| status.success()) || thread::panicking(), "{:?} stays", self.path);
    }
}

#[test]
fn a_block_device_is_claimed_read_written_and_zeroed() {
    let Some(device) = Loop::new(256) else { return };
    let backing = Backing::whole(&device.path, 256 * BLOCK);
    let disk = Disk::from(OpenDisk::open(&backing, &options(256)).unwrap());
    let fd = disk.files().next().unwrap();
    assert_eq!(os::device_bytes(fd.as_fd()).unwrap(), 256 * BLOCK);
    assert_eq!(os::sector_bytes(fd.as_fd()).unwrap(), 512);
    assert!(disk.duplicate().unwrap().is_direct());
    let refused = OpenDisk::open(&backing, &options(256)).unwrap_err();
    assert!(matches!(refused, DiskError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("process {} (", std::process::id())), "{refused}");
    let longer = OpenDisk::open(&Backing { segments: vec![segment(&device.path, 0, 257, false)] }, &options(257));
    assert!(matches!(longer, Err(DiskError::TooShort { .. })));

    let mut bench = Bench::new();
    let mut expected = pattern(1, 256 * 4096);
    bench.write(&disk, 0, &expected);
    for (keep, blocks, how) in [(false, 10..20, ZeroBy::Punch), (true, 30..40, ZeroBy::Allocate)] {
        let (offset, length) = (blocks.start * BLOCK, (blocks.end - blocks.start) * BLOCK);
        assert_eq!(bench.zero(&disk, Zeroing::new(offset, length, keep)), [Ok(how)]);
        expected[usize::try_from(offset).unwrap()..][..usize::try_from(length).unwrap()].fill(0);
    }
    os::zero_out(fd.as_fd(), 50 * BLOCK, BLOCK).unwrap();
    expected[50 * 4096..51 * 4096].fill(0);
    assert_eq!(bench.run(Op::Sync { file: fd.clone() }).result, Ok(0));
    assert!(bench.read(&disk, 0, 256 * 4096) == expected);
    let all = Extent { offset: 0, length: 256 * BLOCK, allocated: true };
    assert_eq!(disk.extents(0, 256 * BLOCK, 10).unwrap(), [all]);
    os::discard(fd.as_fd(), 0, 256 * BLOCK).unwrap();
}

#[test]
fn a_mounted_device_is_refused_by_its_mount_point() {
    let Some(device) = Loop::new(2048) else { return };
    let folder = TempDir::new().unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&device.path).status();
    let mounted = Command::new("mount").arg(&device.path).arg(folder.path()).status();
    if !(made.is_ok_and(|status| status.success()) && mounted.is_ok_and(|status| status.success())) {
        return eprintln!("not tested: no ext4 or no right to mount");
    }
    let refused = OpenDisk::open(&Backing::whole(&device.path, BLOCK), &options(1)).map(|_| ());
    let unmounted = Command::new("umount").arg(folder.path()).status().unwrap();
    assert!(unmounted.success());
    let says = refused.unwrap_err().to_string();
    assert!(says.contains(&format!("in use by the file system mounted at {}", folder.path().display())), "{says}");
}
