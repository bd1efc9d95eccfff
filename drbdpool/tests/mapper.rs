//! The LVM pool where the kernel has device-mapper. Elsewhere there is nothing to test.

mod real;

use std::fs::{File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use drbdpool::{Condition, Device, Pool, PoolError, SnapshotMethod, SnapshotName, Snapshots};
use real::{Group, get, identity, on, put, run, skip_without_mapper, volume};

const EXTENT: u64 = 4 << 20;

/// Opens a volume as its user does.
fn hold(path: &Path) -> File {
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path).unwrap()
}

#[test]
fn a_volume_is_one_device_that_its_user_can_lock() {
    if skip_without_mapper() {
        return;
    }
    let group = Group::new(&[3, 6]);
    let pool = group.open(&identity("0")).unwrap();
    pool.create(&volume("other"), EXTENT).unwrap();
    let device = pool.create(&volume("web"), 4 * EXTENT).unwrap();
    let [segment] = &device.segments[..] else { panic!("{device:?}") };
    assert_eq!(segment.path, Path::new("/dev").join(&group.name).join("web_00"));
    assert_eq!((segment.start, segment.length, segment.exclusive), (0, 4 * EXTENT, true));
    let file = hold(&segment.path);
    file.write_all_at(&[0x11; 4096], 4 * EXTENT - 4096).unwrap();

    for refused in [pool.remove(&volume("web")), pool.deactivate(&volume("web"))] {
        assert!(matches!(refused, Err(PoolError::InUse { .. })), "{refused:?}");
    }
    let refused = pool.zero(&volume("web"), 0, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(PoolError::InUse { .. })), "{refused:?}");

    // It grows in use, and what is new is zeroed in use.
    let grown = pool.resize(&volume("web"), 6 * EXTENT).unwrap();
    assert_eq!((grown.size, grown.segments[0].length), (6 * EXTENT, 6 * EXTENT));
    let grown = pool.zero(&volume("web"), 4 * EXTENT, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert!(!grown.zeroed, "its beginning never was");
    let mut bytes = vec![0; 8192];
    file.read_exact_at(&mut bytes, 4 * EXTENT - 4096).unwrap();
    assert!(bytes[..4096].iter().all(|&byte| byte == 0x11) && bytes[4096..].iter().all(|&byte| byte == 0));

    drop(file);
    pool.remove(&volume("web")).unwrap();
    assert!(!segment.path.exists());
}

#[test]
fn a_volume_is_activated_after_the_machine_has_restarted() {
    if skip_without_mapper() {
        return;
    }
    let group = Group::new(&[4]);
    let pool = group.open(&identity("0")).unwrap();
    let device = pool.create(&volume("web"), EXTENT).unwrap();
    let device = pool.zero(&volume("web"), 0, &mut |_, _| ControlFlow::Continue(())).map(|zeroed| (device, zeroed)).unwrap().1;
    drop(pool);
    group.lvm("vgchange", &["-an", &group.name]);
    assert!(!device.segments[0].path.exists());

    let pool = group.open(&identity("0")).unwrap();
    assert_eq!(pool.list().unwrap()[0].condition, Condition::Inactive);
    assert_eq!(pool.activate(&volume("web")).unwrap(), device);
    assert!(device.zeroed && device.segments[0].path.exists());
    pool.deactivate(&volume("web")).unwrap();
    pool.deactivate(&volume("web")).unwrap();
    assert!(matches!(pool.device(&volume("web")), Err(PoolError::Inactive { .. })));
    assert_eq!(pool.resize(&volume("web"), 2 * EXTENT).unwrap().size, 2 * EXTENT, "an inactive volume grows and is active then");
    pool.deactivate(&volume("web")).unwrap();
    pool.remove(&volume("web")).unwrap();
}

/// LVM's question whether to wipe a signature that it finds has hung drbdmanage.
#[test]
fn a_file_system_that_was_there_before_asks_no_questions() {
    if skip_without_mapper() {
        return;
    }
    let group = Group::new(&[4]);
    let pool = group.open(&identity("0")).unwrap();
    let device = pool.create(&volume("old"), 4 * EXTENT).unwrap();
    run("mkfs.ext4", &["-q", &device.segments[0].path.to_string_lossy()]);
    pool.remove(&volume("old")).unwrap();
    let device = pool.create(&volume("new"), 4 * EXTENT).unwrap();
    let answer = duct::cmd!("blkid", "-p", &device.segments[0].path).stdout_capture().unchecked().run().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "", "the old file system's signature is gone");
}

/// With device-mapper a volume may be of any type: an administrator converted it, say.
#[test]
fn volumes_of_every_type_are_used_through_device_mapper() {
    if skip_without_mapper() {
        return;
    }
    let group = Group::new(&[8, 8]);
    let pool = group.open(&identity("0")).unwrap();
    let tags = |name: &str| ["--addtag".into(), "blkrep.owner=c1/0".into(), "--addtag".into(), format!("blkrep.volume={name}")];
    let make = |name: &str, options: &[&str]| {
        let tags = tags(name);
        let tags: Vec<_> = tags.iter().map(String::as_str).collect();
        group.lvm("lvcreate", &[&["--yes", "--extents", "2", "--name", name], options, &tags[..], &[&group.name]].concat());
    };
    make("striped_00", &["--type", "striped", "--stripes", "2"]);
    make("raid_00", &["--type", "raid1", "--mirrors", "1"]);
    let origin = pool.create(&volume("origin"), EXTENT).unwrap();
    group.lvm("lvcreate", &["--yes", "-s", "--extents", "1", "--name", "snap", &format!("{}/origin_00", group.name)]);
    for name in ["striped", "raid", "origin"] {
        let device = pool.activate(&volume(name)).unwrap();
        hold(&device.segments[0].path).write_all_at(&[0x22; 4096], device.size - 4096).unwrap();
    }
    assert_eq!(pool.device(&volume("origin")).unwrap(), origin);
    assert_eq!(pool.list().unwrap().len(), 3, "the snapshot is not a volume of the pool");
}

/// A classic snapshot has space of its own for what the volume changes, and is lost, not the volume, when that is used up.
#[test]
fn a_classic_snapshot_has_space_set_aside() {
    if skip_without_mapper() {
        return;
    }
    let group = Group::new(&[24]);
    let pool = group.open(&identity("0")).unwrap();
    assert_eq!(pool.snapshot_method().unwrap(), SnapshotMethod::SetAside);
    let web = pool.create(&volume("web"), 4 * EXTENT).unwrap();
    put(&web, 0x11);
    let tail = |device: &Device, byte: Option<u8>| {
        let file = OpenOptions::new().read(true).write(true).open(&device.segments[0].path).unwrap();
        byte.into_iter().for_each(|byte| file.write_all_at(&[byte; 4096], 3 * EXTENT).unwrap());
        file.sync_all().unwrap();
        let mut found = [0; 1];
        file.read_exact_at(&mut found, 3 * EXTENT).unwrap();
        found[0]
    };
    tail(&web, Some(0x55));
    let one: SnapshotName = "web_00@one".parse().unwrap();
    let before = pool.capacity().unwrap().free;
    let taken = pool.snapshot(&one, 2 * EXTENT, &mut on).unwrap();
    assert_eq!(before - pool.capacity().unwrap().free, 3 * EXTENT, "what was asked for, and LVM's notes");
    assert_eq!(taken.size, 4 * EXTENT);
    put(&web, 0x22);
    assert_eq!((get(&taken), get(&web)), (0x11, 0x22));
    assert!(matches!(pool.remove(&volume("web")), Err(PoolError::HasSnapshots { snapshots, .. }) if snapshots == "one"));
    let restored = pool.restore(&one, &volume("copy")).unwrap();
    assert_eq!((restored.size, get(&restored), tail(&restored, None)), (4 * EXTENT, 0x11, 0x55));
    // Its user knows it as a smaller one, that grew when the snapshot was taken.
    pool.zero(&volume("copy"), 3 * EXTENT, &mut on).unwrap();
    assert_eq!((get(&restored), tail(&restored, None)), (0x11, 0));
    put(&restored, 0x33);
    assert_eq!((pool.list().unwrap().len(), pool.snapshots().unwrap().len()), (2, 1));

    // A volume that was not restored to the end is nobody's to use, until it is.
    let name = format!("{}/copy_00", group.name);
    group.lvm("lvchange", &["--addtag", "blkrep.restoring", &name]);
    assert!(pool.device(&volume("copy")).unwrap_err().to_string().contains("not complete"));
    assert_eq!(get(&pool.restore(&one, &volume("copy")).unwrap()), 0x11);

    let two: SnapshotName = "web_00@two".parse().unwrap();
    let small = pool.snapshot(&two, 1, &mut on).unwrap();
    let file = OpenOptions::new().write(true).open(&web.segments[0].path).unwrap();
    file.write_all_at(&vec![0x44; 16 << 20], 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let lost = pool.snapshots().unwrap().into_iter().find(|snapshot| snapshot.name == two).unwrap();
    assert!(matches!(lost.condition, Condition::Unusable(_)), "{lost:?} {small:?}");
    assert_eq!(get(&web), 0x44);
    for name in [&one, &two, &two] {
        pool.remove_snapshot(name).unwrap();
    }
    pool.remove(&volume("web")).unwrap();
    pool.remove(&volume("copy")).unwrap();
    assert_eq!(pool.capacity().unwrap().free, 24 * EXTENT);
}
