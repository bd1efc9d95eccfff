//! The LVM pool where the kernel has device-mapper. Elsewhere there is nothing to test.

mod real;

use std::fs::{File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use drbdpool::{Condition, Pool, PoolError, VolumeName};
use real::{Group, can_run, has_device_mapper, identity, run};

const EXTENT: u64 = 4 << 20;

fn volume(resource: &str) -> VolumeName {
    VolumeName::data(resource, 0).unwrap()
}

fn skip() -> bool {
    if has_device_mapper() {
        return !can_run("lvm");
    }
    eprintln!("skipped: this kernel has no device-mapper");
    true
}

/// Opens a volume as its user does.
fn hold(path: &Path) -> File {
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path).unwrap()
}

#[test]
fn a_volume_is_one_device_that_its_user_can_lock() {
    if skip() {
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
    if skip() {
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
    if skip() {
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
    if skip() {
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
