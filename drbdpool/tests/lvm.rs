//! The LVM pool against the real LVM, on loop devices.

mod real;

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use drbdpool::{Device, DeviceKind, Pool, PoolError, VolumeName};
use real::{Group, can_run, has_device_mapper, identity};

const EXTENT: u64 = 4 << 20;

fn volume(resource: &str) -> VolumeName {
    VolumeName::data(resource, 0).unwrap()
}

/// Reads a whole volume through its segments, as the data plane would.
fn contents(device: &Device) -> Vec<u8> {
    let mut all = Vec::new();
    for segment in &device.segments {
        let mut bytes = vec![0; usize::try_from(segment.length).unwrap()];
        File::open(&segment.path).unwrap().read_exact_at(&mut bytes, segment.start).unwrap();
        all.extend(bytes);
    }
    all
}

fn fill(device: &Device, byte: u8) {
    for segment in &device.segments {
        let file = File::options().write(true).open(&segment.path).unwrap();
        file.write_all_at(&vec![byte; usize::try_from(segment.length).unwrap()], segment.start).unwrap();
        file.sync_all().unwrap();
    }
}

#[test]
fn a_volume_is_created_once_found_again_and_removed() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[10]);
    let pool = group.open(&identity("0")).unwrap();
    let before = pool.capacity().unwrap();
    assert_eq!((before.total, before.free), (10 * EXTENT, 10 * EXTENT));

    let device = pool.create(&volume("web"), EXTENT + 1).unwrap();
    assert_eq!((device.size, device.kind, device.zeroed), (2 * EXTENT, DeviceKind::Block, false));
    assert_eq!(pool.create(&volume("web"), 2 * EXTENT).unwrap(), device, "the same size again");
    assert_eq!(pool.device(&volume("web")).unwrap(), device);
    assert!(matches!(pool.create(&volume("web"), 3 * EXTENT), Err(PoolError::Exists { size, .. }) if size == 2 * EXTENT));
    assert_eq!(pool.capacity().unwrap().free, 8 * EXTENT);
    assert_eq!(pool.list().unwrap().len(), 1);

    drop(pool);
    let pool = group.open(&identity("0")).unwrap();
    assert_eq!(pool.activate(&volume("web")).unwrap(), device, "after a restart");
    pool.remove(&volume("web")).unwrap();
    pool.remove(&volume("web")).unwrap();
    assert!(matches!(pool.device(&volume("web")), Err(PoolError::NotFound { .. })));
    assert_eq!(pool.capacity().unwrap(), before);
}

#[test]
fn a_volume_in_pieces_over_two_disks_keeps_its_bytes_apart() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[4, 4]);
    let pool = group.open(&identity("0")).unwrap();
    let [a, b] = [volume("a"), volume("b")];
    pool.create(&a, EXTENT).unwrap();
    pool.create(&b, EXTENT).unwrap();
    pool.resize(&a, 3 * EXTENT).unwrap();
    pool.resize(&b, 2 * EXTENT).unwrap();
    let a = pool.resize(&a, 5 * EXTENT).unwrap();
    let b = pool.resize(&b, 3 * EXTENT).unwrap();
    if !has_device_mapper() {
        assert!(a.segments.len() > 1 && a.segments.iter().any(|segment| segment.path != a.segments[0].path), "{a:?}");
        assert!(a.segments.iter().all(|segment| !segment.exclusive && segment.start >= real::PV_HEAD));
    }
    fill(&a, 0xaa);
    fill(&b, 0xbb);
    assert!(contents(&a).len() == 5 << 22 && contents(&a).iter().all(|&byte| byte == 0xaa));
    assert!(contents(&b).len() == 3 << 22 && contents(&b).iter().all(|&byte| byte == 0xbb));
    // LVM's own metadata is where it was.
    assert_eq!(pool.list().unwrap().len(), 2);
    assert_eq!(pool.capacity().unwrap().free, 0);
    assert!(matches!(pool.create(&volume("c"), 1), Err(PoolError::NoSpace { free: 0, .. })));
}

#[test]
fn old_data_is_there_until_it_is_zeroed() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[8]);
    let pool = group.open(&identity("0")).unwrap();
    let web = volume("web");
    fill(&pool.create(&volume("old"), 8 * EXTENT).unwrap(), 0xee);
    pool.remove(&volume("old")).unwrap();

    let device = pool.create(&web, 2 * EXTENT).unwrap();
    assert!(!device.zeroed && contents(&device).contains(&0xee));
    let error = pool.zero(&web, 0, &mut |_, _| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, PoolError::Interrupted { .. }), "{error}");
    assert!(!pool.device(&web).unwrap().zeroed, "broken off");
    let device = pool.zero(&web, 0, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert!(device.zeroed && contents(&device).iter().all(|&byte| byte == 0));

    // Zeroing what is known to be zero would destroy what was written since.
    fill(&device, 0x11);
    assert!(pool.create(&web, 2 * EXTENT).unwrap().zeroed);
    pool.zero(&web, 0, &mut |_, _| panic!("nothing to do")).unwrap();

    let grown = pool.resize(&web, 4 * EXTENT).unwrap();
    assert!(!grown.zeroed);
    let grown = pool.zero(&web, 2 * EXTENT, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let bytes = contents(&grown);
    assert!(grown.zeroed && bytes[..2 << 22].iter().all(|&byte| byte == 0x11) && bytes[2 << 22..].iter().all(|&byte| byte == 0));
}
