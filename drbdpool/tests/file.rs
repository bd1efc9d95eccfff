//! The file pool, on this machine's file systems and on small ones of its own.

mod real;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use drbdpool::{Condition, DeviceKind, FilePool, Pool, PoolError, PoolSpec, Promises, SnapshotMethod, SnapshotName, VolumeName};
use real::{CLAIM, Mounted, can_run, identity, is_installed, on, volume};
use rustix::fs::FallocateFlags;

const MIB: u64 = 1 << 20;

fn spec(directory: &Path) -> PoolSpec {
    PoolSpec::File { directory: directory.to_owned() }
}

fn open(directory: &Path) -> Result<FilePool, PoolError> {
    FilePool::open(&spec(directory), &identity("0"), CLAIM)
}

/// A directory for a pool that does not exist yet.
fn fresh() -> (tempfile::TempDir, PathBuf) {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("var/pool");
    (above, directory)
}

#[test]
fn a_volume_is_created_once_found_again_grown_and_removed() {
    let (_above, directory) = fresh();
    let pool = open(&directory).unwrap();
    let device = pool.create(&volume("web"), MIB + 1).unwrap();
    assert_eq!((device.size, device.kind, device.zeroed), (MIB + 4096, DeviceKind::File, true));
    let [segment] = &device.segments[..] else { panic!("{device:?}") };
    assert_eq!(
        (&segment.path, segment.start, segment.length, segment.exclusive),
        (&directory.join("web_00"), 0, MIB + 4096, true)
    );
    let metadata = fs::metadata(&segment.path).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (MIB + 4096, 0o600));
    assert!(fs::read(&segment.path).unwrap().iter().all(|&byte| byte == 0));

    fs::write(&segment.path, vec![0x11; usize::try_from(MIB + 4096).unwrap()]).unwrap();
    assert_eq!(pool.create(&volume("web"), MIB + 4000).unwrap(), device, "the same size, rounded up");
    assert!(matches!(pool.create(&volume("web"), MIB), Err(PoolError::Exists { size, wanted: MIB, .. }) if size == MIB + 4096));

    drop(pool);
    let pool = open(&directory).unwrap();
    assert_eq!(pool.activate(&volume("web")).unwrap(), device, "after a restart");
    let grown = pool.resize(&volume("web"), 2 * MIB).unwrap();
    assert_eq!(grown.size, 2 * MIB);
    assert_eq!(pool.resize(&volume("web"), 2 * MIB).unwrap(), grown);
    assert!(matches!(pool.resize(&volume("web"), MIB), Err(PoolError::Shrink { .. })));
    let bytes = fs::read(&grown.segments[0].path).unwrap();
    let (old, new) = bytes.split_at(usize::try_from(MIB + 4096).unwrap());
    assert!(new.len() == usize::try_from(MIB).unwrap() - 4096 && new.iter().all(|&byte| byte == 0));
    assert!(old.iter().all(|&byte| byte == 0x11));

    pool.remove(&volume("web")).unwrap();
    pool.remove(&volume("web")).unwrap();
    for error in [pool.device(&volume("web")).unwrap_err(), pool.resize(&volume("web"), MIB).unwrap_err()] {
        assert!(matches!(error, PoolError::NotFound { .. }), "{error}");
    }
}

#[test]
fn what_a_crash_left_half_made_is_gone_after_the_next_start() {
    let (_above, directory) = fresh();
    drop(open(&directory).unwrap());
    fs::write(directory.join(".new-web_00"), "half a volume").unwrap();
    fs::write(directory.join(".blkrep-pool.new"), "half a marker").unwrap();
    let pool = open(&directory).unwrap();
    assert!(!directory.join(".new-web_00").exists());
    assert_eq!(pool.list().unwrap(), []);
    pool.create(&volume("web"), MIB).unwrap();

    // A crash before the marker was whole leaves a directory that is as good as empty.
    let (_above, directory) = fresh();
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(".blkrep-pool.new"), "half a marker").unwrap();
    open(&directory).unwrap();
    assert!(fs::read_to_string(directory.join(".blkrep-pool")).unwrap().contains("\"cluster\": \"c1\""));
}

#[test]
fn volumes_are_listed_in_order_and_nothing_else_is() {
    let (_above, directory) = fresh();
    let pool = open(&directory).unwrap();
    let names = [VolumeName::metadata("b").unwrap(), volume("b"), volume("a")];
    for name in &names {
        pool.create(name, 4096).unwrap();
    }
    fs::create_dir(directory.join("dir_00")).unwrap();
    fs::write(directory.join("notes"), "of the administrator").unwrap();
    fs::write(directory.join("odd_00"), "4096 bytes these are not").unwrap();
    std::os::unix::fs::symlink("a_00", directory.join("link_00")).unwrap();
    let listed = pool.list().unwrap();
    assert_eq!(listed.iter().map(|volume| volume.name.to_string()).collect::<Vec<_>>(), ["a_00", "b_00", "b_meta"]);
    assert!(listed.iter().all(|volume| volume.condition == Condition::Ready(pool.device(&volume.name).unwrap())));

    for foreign in ["dir", "odd", "link"] {
        for refused in [pool.create(&volume(foreign), 4096), pool.resize(&volume(foreign), MIB), pool.device(&volume(foreign))] {
            assert!(matches!(refused, Err(PoolError::Foreign { .. })), "{foreign}: {refused:?}");
        }
        pool.remove(&volume(foreign)).unwrap();
        assert!(fs::symlink_metadata(directory.join(format!("{foreign}_00"))).is_ok(), "{foreign} was removed");
    }
}

#[test]
fn a_pool_is_one_nodes_and_open_once() {
    let (above, directory) = fresh();
    let pool = open(&directory).unwrap();
    assert!(matches!(open(&directory), Err(PoolError::InUse { .. })));
    pool.create(&volume("web"), 4096).unwrap();
    drop(pool);

    let error = FilePool::open(&spec(&directory), &identity("1"), CLAIM).unwrap_err();
    assert!(error.to_string().contains("belongs to node 0 of cluster c1, not to node 1 of cluster c1"), "{error}");
    let spec = format!("file:{}", directory.display()).parse().unwrap();
    assert!(matches!(drbdpool::release(&spec, &identity("0")), Err(PoolError::NotEmpty { volumes: 1, .. })));
    drbdpool::open(&spec, &identity("0")).unwrap().remove(&volume("web")).unwrap();
    drbdpool::release(&spec, &identity("0")).unwrap();
    assert!(matches!(drbdpool::open(&spec, &identity("1")), Err(PoolError::Unclaimed { .. })));
    drbdpool::claim(&spec, &identity("1")).unwrap();
    drbdpool::open(&spec, &identity("1")).unwrap();

    let others = above.path().join("others");
    fs::create_dir(&others).unwrap();
    fs::write(others.join("photo.jpg"), "").unwrap();
    assert!(matches!(open(&others), Err(PoolError::NotAPool { .. })));
    assert_eq!(fs::read_dir(&others).unwrap().count(), 1, "nothing was added to somebody else's directory");

    fs::write(directory.join(".blkrep-pool"), "{\"format\": 2, \"cluster\": \"c1\", \"node\": \"1\"}").unwrap();
    assert!(open(&directory).unwrap_err().to_string().contains("format 2"));
}

#[test]
fn a_volume_that_is_locked_by_its_user_is_not_removed() {
    let (_above, directory) = fresh();
    let pool = open(&directory).unwrap();
    let device = pool.create(&volume("web"), 4096).unwrap();
    let user = File::options().write(true).open(&device.segments[0].path).unwrap();
    user.try_lock().unwrap();
    assert!(matches!(pool.remove(&volume("web")), Err(PoolError::InUse { .. })));
    pool.resize(&volume("web"), MIB).unwrap();
    user.write_all_at(b"x", MIB - 1).unwrap();
    drop(user);
    pool.remove(&volume("web")).unwrap();
}

/// Has a new file take all that is left, in ever smaller pieces.
fn fill_file_system(directory: &Path) {
    let file = File::create(directory.join("somebody-elses")).unwrap();
    let mut at = 0;
    for piece in [16 * MIB, MIB, 1 << 16, 4096] {
        while rustix::fs::fallocate(&file, FallocateFlags::empty(), at, piece).is_ok() {
            at += piece;
        }
    }
    assert!(at > 0, "there was nothing to fill");
}

/// What the file pool promises: a volume that was created can be written in full, whatever becomes of the file system.
fn a_volume_survives_a_full_file_system(kind: &str, size: u64) {
    // Everyone has this one's tools; the others are skipped where theirs are missing.
    if !can_run("mkfs.ext4") || !is_installed(&format!("mkfs.{kind}")) {
        return;
    }
    let mounted = Mounted::new(kind, size);
    let pool = open(&mounted.path().join("pool")).unwrap();
    let before = pool.capacity().unwrap();
    assert!(before.total <= size && before.free > size / 4 && before.free <= before.total, "{before:?}");
    let device = pool.create(&volume("web"), 16 * MIB).unwrap();
    let device = pool.resize(&volume("web"), device.size + 4 * MIB).unwrap();
    let after = pool.capacity().unwrap();
    // btrfs takes its time to say what was used last.
    assert!(before.free - after.free >= 16 * MIB && before.free - after.free < 24 * MIB, "{before:?} {after:?}");

    fill_file_system(mounted.path());
    let free = pool.capacity().unwrap().free;
    for refused in [pool.create(&volume("db"), free + MIB), pool.resize(&volume("web"), device.size + free + MIB)] {
        assert!(matches!(refused, Err(PoolError::NoSpace { .. })), "{refused:?}");
    }
    assert_eq!(pool.device(&volume("web")).unwrap(), device);
    // Without the page cache, as the data plane does. Twice: a file system that writes elsewhere would need space for the second time.
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = File::options().write(true).custom_flags(direct).open(&device.segments[0].path).unwrap();
    for byte in [0x11, 0x22] {
        let unaligned = vec![byte; (4 << 20) + 4096];
        let bytes = &unaligned[unaligned.as_ptr().align_offset(4096)..][..4 << 20];
        for at in (0..device.size).step_by(4 << 20) {
            file.write_all_at(bytes, at).unwrap_or_else(|error| panic!("{kind}, at {at}: {error}"));
        }
        file.sync_all().unwrap();
    }
    pool.remove(&volume("web")).unwrap();
    drop(pool);
    open(&mounted.path().join("pool")).unwrap();
}

#[test]
fn a_volume_survives_a_full_ext4() {
    a_volume_survives_a_full_file_system("ext4", 64 * MIB);
}

#[test]
fn a_volume_survives_a_full_xfs() {
    a_volume_survives_a_full_file_system("xfs", 320 * MIB);
}

#[test]
fn a_volume_survives_a_full_btrfs() {
    a_volume_survives_a_full_file_system("btrfs", 256 * MIB);
}

/// A thin pool promises more than it has, up to its limit, and nothing more when it is nearly full.
#[test]
fn a_thin_pool_gives_space_when_it_is_written() {
    if !can_run("mkfs.ext4") {
        return;
    }
    let mounted = Mounted::new("ext4", 64 * MIB);
    let spec = PoolSpec::FileThin { directory: mounted.path().join("pool") };
    let pool = drbdpool::claim_with(&spec, &identity("0"), 3).unwrap();
    let before = pool.capacity().unwrap();
    assert_eq!(before.free, before.total * 3 / 4096 * 4096);
    let device = pool.create(&volume("web"), 2 * before.total).unwrap();
    let [segment] = &device.segments[..] else { panic!("{device:?}") };
    assert!(device.zeroed && !segment.reserved);
    assert_eq!(fs::metadata(&segment.path).unwrap().blocks(), 0);
    let grown = pool.resize(&volume("web"), device.size + MIB).unwrap();
    assert_eq!((grown.size, fs::metadata(&segment.path).unwrap().blocks()), (device.size + MIB, 0));
    let after = pool.capacity().unwrap();
    assert_eq!(after.promises, Some(Promises { times: 3, made: grown.size }));
    assert!(after.free.abs_diff(before.total - MIB) < MIB, "{before:?} {after:?}");
    assert!(matches!(pool.create(&volume("db"), before.total + MIB), Err(PoolError::NoSpace { .. })));

    // What is written fills it; when it is nearly full nothing new is promised, and what is removed is free again.
    let file = File::options().write(true).open(&segment.path).unwrap();
    let data = vec![0x11; 1 << 20];
    for at in 0.. {
        let fill = pool.capacity().unwrap().fill.unwrap();
        if fill.is_nearly_full() {
            break;
        }
        assert!(pool.capacity().unwrap().free > 0, "{fill:?} after {at} MiB");
        file.write_all_at(&data, at * MIB).unwrap();
        file.sync_all().unwrap();
    }
    assert_eq!(pool.capacity().unwrap().free, 0);
    assert!(matches!(pool.create(&volume("db"), 4096), Err(PoolError::NoSpace { .. })));
    drop(file);
    pool.remove(&volume("web")).unwrap();
    assert!(pool.capacity().unwrap().free > before.total * 2);
    drop(pool);
    assert!(drbdpool::open(&spec, &identity("0")).unwrap().capacity().unwrap().free > before.total * 2, "the limit is kept");
}

/// A snapshot stays as it is whatever becomes of its volume, and a volume that is restored from it is on its own.
fn a_snapshot_keeps_what_its_volume_had(kind: &str, size: u64, thin: bool, method: SnapshotMethod) {
    if !can_run("mkfs.ext4") || !is_installed(&format!("mkfs.{kind}")) {
        return;
    }
    let mounted = Mounted::new(kind, size);
    let directory = mounted.path().join("pool");
    let spec =
        if thin { PoolSpec::FileThin { directory: directory.clone() } } else { PoolSpec::File { directory: directory.clone() } };
    let pool = drbdpool::claim(&spec, &identity("0")).unwrap();
    assert_eq!(pool.snapshot_method().unwrap(), method);
    let web = pool.create(&volume("web"), 8 * MIB).unwrap();
    let put = |path: &Path, byte: u8| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&[byte; 8192], MIB).unwrap();
        file.sync_all().unwrap();
    };
    let get = |path: &Path| {
        let mut found = [0; 16_384];
        File::open(path).unwrap().read_exact_at(&mut found, MIB - 4096).unwrap();
        assert!(found[..4096].iter().chain(&found[12_288..]).all(|&byte| byte == 0), "what is around it is zero");
        assert!(found[4096..12_288].iter().all(|&byte| byte == found[4096]));
        found[4096]
    };
    put(&web.segments[0].path, 0x11);
    let before = pool.capacity().unwrap().free;
    let one: SnapshotName = "web_00@one".parse().unwrap();
    if method == SnapshotMethod::Copy {
        let broken_off = pool.snapshot(&one, 8 * MIB, &mut |_, _| ControlFlow::Break(()));
        assert!(matches!(broken_off, Err(PoolError::Interrupted { .. })), "{broken_off:?}");
        assert!(pool.snapshots().unwrap().is_empty());
        assert_eq!(pool.capacity().unwrap().free, before, "nothing is left of it");
    }
    let taken = pool.snapshot(&one, 8 * MIB, &mut on).unwrap();
    assert_eq!((taken.size, pool.snapshot(&one, 8 * MIB, &mut on).unwrap()), (8 * MIB, taken.clone()));
    // What the volume may have to write elsewhere from now on is promised, or the copy has it.
    let after = pool.capacity().unwrap().free;
    assert!(before.saturating_sub(after) >= 7 * MIB, "{before} {after}");
    put(&web.segments[0].path, 0x22);
    let snapshot = &taken.segments[0].path;
    assert_eq!((get(snapshot), get(&web.segments[0].path)), (0x11, 0x22));

    drop(pool);
    let pool = drbdpool::open(&spec, &identity("0")).unwrap();
    assert_eq!(pool.list().unwrap().len(), 1, "a snapshot is no volume");
    let listed = pool.snapshots().unwrap();
    assert_eq!(
        listed.iter().map(|one| (one.name.to_string(), one.size)).collect::<Vec<_>>(),
        [("web_00@one".to_owned(), 8 * MIB)]
    );
    let restored = pool.restore(&one, &volume("copy")).unwrap();
    assert_eq!(pool.restore(&one, &volume("copy")).unwrap(), restored);
    assert_eq!((restored.size, get(&restored.segments[0].path)), (8 * MIB, 0x11));
    put(&restored.segments[0].path, 0x33);
    assert_eq!((get(snapshot), get(&web.segments[0].path)), (0x11, 0x22));
    pool.create(&volume("small"), MIB).unwrap();
    assert!(matches!(pool.restore(&one, &volume("small")), Err(PoolError::Exists { .. })));
    pool.remove(&volume("web")).unwrap();
    assert_eq!(get(snapshot), 0x11, "it outlives its volume");

    let user = File::open(snapshot).unwrap();
    user.try_lock_shared().unwrap();
    assert!(matches!(pool.remove_snapshot(&one), Err(PoolError::InUse { .. })));
    drop(user);
    for _ in 0..2 {
        pool.remove_snapshot(&one).unwrap();
    }
    assert!(pool.snapshots().unwrap().is_empty() && !snapshot.exists());
    assert!(matches!(pool.restore(&one, &volume("late")), Err(PoolError::NotFound { .. })));
    assert!(matches!(pool.snapshot(&one, 8 * MIB, &mut on), Err(PoolError::NotFound { .. })), "its volume is gone");
    assert_eq!(get(&restored.segments[0].path), 0x33);
    assert!(fs::read_dir(&directory).unwrap().flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with(".new-")));
}

/// The volume has just grown, and its snapshot is of the moment before.
fn a_snapshot_ends_where_it_is_to(kind: &str, size: u64) {
    if !can_run("mkfs.ext4") || !is_installed(&format!("mkfs.{kind}")) {
        return;
    }
    let mounted = Mounted::new(kind, size);
    let spec = PoolSpec::FileThin { directory: mounted.path().join("pool") };
    let pool = drbdpool::claim(&spec, &identity("0")).unwrap();
    pool.create(&volume("web"), 8 * MIB).unwrap();
    let one: SnapshotName = "web_00@one".parse().unwrap();
    assert!(matches!(pool.snapshot(&one, 0, &mut on), Err(PoolError::BadSize { .. })), "of nothing");
    let taken = pool.snapshot(&one, 6 * MIB, &mut on).unwrap();
    assert_eq!((taken.size, pool.device(&volume("web")).unwrap().size), (6 * MIB, 8 * MIB));
    assert_eq!(pool.restore(&one, &volume("old")).unwrap().size, 6 * MIB);
    assert_eq!(pool.resize(&volume("old"), 7 * MIB).unwrap().size, 7 * MIB);
}

#[test]
fn a_snapshot_ends_where_it_is_to_on_ext4() {
    a_snapshot_ends_where_it_is_to("ext4", 64 * MIB);
}

#[test]
fn a_snapshot_ends_where_it_is_to_on_xfs() {
    a_snapshot_ends_where_it_is_to("xfs", 512 * MIB);
}

/// The promises of the pool would allow it, and the writes to others' volumes there would fail.
#[test]
fn a_copy_that_would_fill_the_file_system_is_refused() {
    if !can_run("mkfs.ext4") {
        return;
    }
    let mounted = Mounted::new("ext4", 64 * MIB);
    let spec = PoolSpec::FileThin { directory: mounted.path().join("pool") };
    let pool = drbdpool::claim_with(&spec, &identity("0"), 4).unwrap();
    let device = pool.create(&volume("web"), 40 * MIB).unwrap();
    let file = File::options().write(true).open(&device.segments[0].path).unwrap();
    let fill = |megabytes: std::ops::Range<u64>| {
        megabytes.for_each(|at| file.write_all_at(&[0x11; 1 << 20], at * MIB).unwrap());
        file.sync_all().unwrap();
    };
    fill(0..16);
    let [one, two] = ["web_00@one", "web_00@two"].map(|name| name.parse::<SnapshotName>().unwrap());
    pool.snapshot(&one, 40 * MIB, &mut on).unwrap();
    fill(16..20);
    let refused = pool.snapshot(&two, 40 * MIB, &mut on);
    assert!(matches!(refused, Err(PoolError::NoSpace { wanted, .. }) if wanted >= 20 * MIB), "{refused:?}");
    let refused = pool.restore(&one, &volume("old"));
    assert!(matches!(refused, Err(PoolError::NoSpace { wanted, .. }) if wanted >= 16 * MIB), "{refused:?}");
}

#[test]
fn a_snapshot_on_ext4_is_a_copy() {
    a_snapshot_keeps_what_its_volume_had("ext4", 64 * MIB, false, SnapshotMethod::Copy);
    a_snapshot_keeps_what_its_volume_had("ext4", 64 * MIB, true, SnapshotMethod::Copy);
}

#[test]
fn a_snapshot_on_xfs_is_a_clone() {
    a_snapshot_keeps_what_its_volume_had("xfs", 320 * MIB, false, SnapshotMethod::Shared);
    a_snapshot_keeps_what_its_volume_had("xfs", 320 * MIB, true, SnapshotMethod::Shared);
}

#[test]
fn a_snapshot_on_btrfs_is_a_clone() {
    a_snapshot_keeps_what_its_volume_had("btrfs", 256 * MIB, false, SnapshotMethod::Shared);
    a_snapshot_keeps_what_its_volume_had("btrfs", 256 * MIB, true, SnapshotMethod::Shared);
}

/// ext2 knows no way to reserve space: there promises are only accounted for.
#[test]
fn where_space_cannot_be_reserved_it_is_not_promised_twice() {
    if !can_run("mkfs.ext2") {
        return;
    }
    let mounted = Mounted::new("ext2", 64 * MIB);
    // The root of a file system, with its lost+found.
    let pool = open(mounted.path()).unwrap();
    let before = pool.capacity().unwrap().free;
    let device = pool.create(&volume("web"), 40 * MIB).unwrap();
    assert_eq!(fs::metadata(&device.segments[0].path).unwrap().blocks(), 0, "the file is sparse, or this test shows nothing");
    let free = pool.capacity().unwrap().free;
    assert!(before - free >= 40 * MIB && before - free < 41 * MIB, "{before} {free}");
    assert!(matches!(pool.create(&volume("db"), 40 * MIB), Err(PoolError::NoSpace { .. })));
    assert!(matches!(pool.resize(&volume("web"), 80 * MIB), Err(PoolError::NoSpace { .. })));

    // What is written is no longer only promised.
    let file = File::options().write(true).open(&device.segments[0].path).unwrap();
    file.write_all_at(&vec![0x11; 8 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let later = pool.capacity().unwrap().free;
    assert!(later.abs_diff(free) < MIB, "{free} {later}");
    pool.remove(&volume("web")).unwrap();
    drop(file);
    assert!(pool.capacity().unwrap().free.abs_diff(before) < MIB);
}
