//! The LVM pool against the real LVM, on loop devices.

mod real;

use std::fs::File;
use std::io::{BufRead, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use drbdpool::{Condition, Device, DeviceKind, LvmOptions, LvmPool, Pool, PoolError, PoolSpec, Snapshots, Unclaimed, VolumeName};
use real::{CLAIM, Disks, Group, can_run, has_device_mapper, identity, on, run, volume};

const EXTENT: u64 = 4 << 20;

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
    pool.zero(&web, u64::MAX, &mut |_, _| panic!("nothing to do")).unwrap();
    let grown = pool.zero(&web, 2 * EXTENT - 1000, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let bytes = contents(&grown);
    assert!(grown.zeroed && bytes[..2 << 22].iter().all(|&byte| byte == 0x11) && bytes[2 << 22..].iter().all(|&byte| byte == 0));
}

#[test]
fn what_others_made_in_the_group_is_left_alone() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[10]);
    let pool = group.open(&identity("0")).unwrap();
    let flags: &[&str] = if has_device_mapper() { &["--yes"] } else { &["--yes", "-an", "-Zn", "-Wn"] };
    let make = |name: &str, tags: &[&str]| {
        let tags: Vec<_> = tags.iter().flat_map(|&tag| ["--addtag", tag]).collect();
        group.lvm("lvcreate", &[flags, &["--extents", "1", "--name", name], &tags[..], &[&group.name]].concat());
    };
    make("root", &[]);
    make("web_00", &[]);
    make("db_00", &["blkrep.owner=c2/0", "blkrep.volume=db_00"]);
    make("odd", &["blkrep.owner=c1/0", "blkrep.volume=../../etc/passwd"]);

    for name in ["web", "db"].map(volume) {
        for refused in [pool.create(&name, EXTENT), pool.resize(&name, 2 * EXTENT), pool.device(&name), pool.activate(&name)] {
            assert!(matches!(refused, Err(PoolError::Foreign { .. })), "{name}: {refused:?}");
        }
        pool.remove(&name).unwrap();
    }
    assert_eq!(pool.list().unwrap(), []);
    assert_eq!(pool.capacity().unwrap().free, 6 * EXTENT);
    let names = group.lvm("lvs", &["--noheadings", "-o", "lv_name,lv_size", "--units", "m", &group.name]);
    assert_eq!(
        names.split_whitespace().collect::<Vec<_>>(),
        ["db_00", "4.00m", "odd", "4.00m", "root", "4.00m", "web_00", "4.00m"]
    );
}

#[test]
fn a_group_is_one_nodes_until_it_is_released() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[4]);
    let error = group.open_unless(&identity("0"), Unclaimed::Refuse).unwrap_err();
    assert!(matches!(error, PoolError::Unclaimed { .. }), "{error}");
    let pool = group.open(&identity("0")).unwrap();
    pool.create(&volume("web"), 1).unwrap();
    drop(pool);
    group.open_unless(&identity("0"), Unclaimed::Refuse).unwrap();

    let error = group.open(&identity("1")).unwrap_err();
    let PoolError::OtherOwner { owner, remedy, .. } = &error else { panic!("{error}") };
    assert_eq!(owner, "node 0 of cluster c1");
    let remedy: Vec<_> = remedy.split(' ').collect();
    group.lvm(remedy[0], &remedy[1..]);
    let pool = group.open(&identity("1")).unwrap();
    assert_eq!(pool.list().unwrap(), [], "the volumes of the last owner do not pass to the next");
    assert!(matches!(pool.create(&volume("web"), 1), Err(PoolError::Foreign { .. })));
    drop(pool);

    let error = LvmPool::open(&"lvm:no-such-group".parse().unwrap(), &identity("0"), CLAIM, group.options()).unwrap_err();
    assert!(error.to_string().contains("vgcreate no-such-group"), "{error}");
}

#[test]
fn every_name_that_a_resource_can_have_makes_a_volume() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[30]);
    let pool = group.open(&identity("0")).unwrap();
    let long = ["-".repeat(99), "_".repeat(99), "a".repeat(99), "_tdata".repeat(16)].map(|rest| format!("a{rest}"));
    let words = ["snapshot", "pvmove0", "a_tdata_mlog", "x_rimage_0", "x_pmspare", "a_vorigin", "0.-_", "a_cdata", "a_cmeta"];
    let resources: Vec<_> = long.iter().map(String::as_str).chain(words).collect();
    let mut names: Vec<_> = resources.iter().flat_map(|name| [volume(name), VolumeName::metadata(name).unwrap()]).collect();
    for name in &names {
        pool.create(name, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    names.sort();
    assert_eq!(pool.list().unwrap().into_iter().map(|volume| volume.name).collect::<Vec<_>>(), names);
    for name in &names {
        pool.resize(name, 1).unwrap();
        pool.remove(name).unwrap();
    }
    assert_eq!(pool.capacity().unwrap().free, 30 * EXTENT);
}

/// A daemon that was killed in `create` finds the volume made, but not active and with nothing zeroed.
#[test]
fn a_creation_that_was_cut_short_is_finished() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[4]);
    let pool = group.open(&identity("0")).unwrap();
    let device = pool.create(&volume("web"), EXTENT).unwrap();
    pool.deactivate(&volume("web")).unwrap();
    drop(pool);
    let pool = group.open(&identity("0")).unwrap();
    if has_device_mapper() {
        assert_eq!(pool.list().unwrap()[0].condition, Condition::Inactive);
        assert!(matches!(pool.device(&volume("web")), Err(PoolError::Inactive { .. })));
    }
    assert_eq!(pool.create(&volume("web"), EXTENT).unwrap(), device);
    assert!(!device.zeroed);
}

#[test]
fn a_group_grows_and_loses_a_disk_while_it_is_open() {
    if !can_run("lvm") {
        return;
    }
    let mut group = Group::new(&[2]);
    let pool = group.open(&identity("0")).unwrap();
    pool.create(&volume("old"), 2 * EXTENT).unwrap();
    assert!(matches!(pool.create(&volume("new"), 1), Err(PoolError::NoSpace { free: 0, wanted: EXTENT, .. })));
    group.extend(3);
    assert_eq!(pool.capacity().unwrap().free, 3 * EXTENT);
    let new = pool.create(&volume("new"), 2 * EXTENT).unwrap();
    fill(&new, 0x22);
    pool.deactivate(&volume("new")).unwrap();
    drop(pool);

    group.disks.pull(1);
    let pool = group.open(&identity("0")).unwrap();
    let listed = pool.list().unwrap();
    assert!(matches!(&listed[0].condition, Condition::Unusable(why) if why.contains("missing")), "{listed:?}");
    assert!(matches!(pool.activate(&volume("new")), Err(PoolError::Unusable { .. })));
    pool.activate(&volume("old")).unwrap();
    assert_eq!(pool.capacity().unwrap().free, 0);
    assert!(matches!(pool.create(&volume("more"), 1), Err(PoolError::NoSpace { .. })));
}

#[test]
fn a_group_without_room_for_names_says_so() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::with(&[40], &["--metadatasize", "32k", "--dataalignment", "32k"]);
    // LVM writes the new beside the old, so half of these 60 KiB can be used. Tags fill them sooner than volumes.
    let tags: Vec<_> = (0..26).map(|number| format!("{number:0>1000}")).collect();
    let tags: Vec<_> = tags.iter().flat_map(|tag| ["--addtag", tag]).collect();
    group.lvm("vgchange", &[&tags[..], &[&group.name]].concat());
    let pool = group.open(&identity("0")).unwrap();
    let error = (0..40).find_map(|number| pool.create(&VolumeName::data("r", number).unwrap(), 1).err()).unwrap();
    assert!(matches!(error, PoolError::MetadataFull { .. }), "{error}");
    let volumes = pool.list().unwrap();
    assert!(volumes.len() > 2 && volumes.iter().all(|volume| matches!(volume.condition, Condition::Ready(_))));
    pool.remove(&volumes[0].name).unwrap();
}

#[test]
fn without_device_mapper_the_disks_are_the_pools_alone() {
    if !can_run("lvm") || has_device_mapper() {
        return;
    }
    let group = Group::new(&[4]);
    let pool = group.open(&identity("0")).unwrap();
    let error = group.open(&identity("0")).unwrap_err();
    assert!(matches!(&error, PoolError::InUse { what, .. } if what.contains(group.disks.path(0))), "{error}");
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    assert!(
        File::options().read(true).custom_flags(exclusive).open(group.disks.path(0)).is_err(),
        "mount and device-mapper do this"
    );
    // What LVM's own commands do goes on.
    pool.create(&volume("web"), 1).unwrap();
    group.lvm("lvs", &[&group.name]);
}

#[test]
fn without_device_mapper_a_volume_that_is_not_linear_is_refused_by_type() {
    if !can_run("lvm") || has_device_mapper() {
        return;
    }
    let group = Group::new(&[4, 4]);
    let pool = group.open(&identity("0")).unwrap();
    pool.create(&volume("web"), EXTENT).unwrap();
    let striped = ["--yes", "-an", "-Zn", "-Wn", "--type", "striped", "--stripes", "2", "--extents", "2", "--name", "db_00"];
    let tags = ["--addtag", "blkrep.owner=c1/0", "--addtag", "blkrep.volume=db_00"];
    group.lvm("lvcreate", &[&striped[..], &tags, &[&group.name]].concat());
    let error = pool.device(&volume("db")).unwrap_err();
    assert!(matches!(&error, PoolError::Unusable { why, .. } if why.contains("striped")), "{error}");
    assert_eq!(pool.list().unwrap().len(), 2);
    pool.device(&volume("web")).unwrap();
}

#[test]
fn a_report_that_hangs_ends_in_time() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[4]);
    // Another command's lock on the group, as LVM takes it.
    let lock = File::create(format!("/run/lock/lvm/V_{}", group.name)).unwrap();
    lock.lock().unwrap();
    let mut options = group.options();
    options.report_timeout = Duration::from_secs(2);
    let error = LvmPool::open(&group.spec(), &identity("0"), CLAIM, options).unwrap_err();
    assert!(error.to_string().contains("fullreport") && error.to_string().contains("did not end within 2s"), "{error}");
    drop(lock);
    group.open(&identity("0")).unwrap();
}

#[test]
fn zeroing_goes_on_where_it_was_broken_off() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[6]);
    let mut options = group.options();
    options.zero_lap = EXTENT;
    let pool = LvmPool::open(&group.spec(), &identity("0"), CLAIM, options).unwrap();
    let web = volume("web");
    fill(&pool.create(&web, 6 * EXTENT).unwrap(), 0xee);
    let mut seen = Vec::new();
    let error = pool.zero(&web, 0, &mut |done, total| {
        seen.push((done, total));
        if done == 3 * EXTENT { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(error, Err(PoolError::Interrupted { .. })));
    assert_eq!(seen, [1, 2, 3].map(|laps| (laps * EXTENT, 6 * EXTENT)));

    drop(pool);
    let pool = group.open(&identity("0")).unwrap();
    // Two laps were noted; what they zeroed is not touched again.
    let device = pool.device(&web).unwrap();
    let first = &device.segments[0];
    File::options().write(true).open(&first.path).unwrap().write_all_at(&[0x33; 4096], first.start).unwrap();
    let device = pool.zero(&web, 0, &mut |_, total| {
        assert_eq!(total, 4 * EXTENT);
        ControlFlow::Continue(())
    });
    let device = device.unwrap();
    let bytes = contents(&device);
    assert!(device.zeroed && bytes[..4096].iter().all(|&byte| byte == 0x33) && bytes[4096..].iter().all(|&byte| byte == 0));
}

/// LVM writes its metadata so that it can be killed at any time; what this crate makes of that must keep to it.
#[test]
fn commands_that_are_killed_leave_a_group_that_works() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[20]);
    group.open(&identity("0")).unwrap();
    let mut killed = 0;
    for time in 1..20 {
        let mut options = group.options();
        options.change_timeout = Duration::from_millis(2 * time);
        let pool = LvmPool::open(&group.spec(), &identity("0"), Unclaimed::Refuse, options).unwrap();
        let name = volume(&format!("v{time}"));
        let created = pool.create(&name, EXTENT);
        let grown = created.is_ok().then(|| pool.resize(&name, 2 * EXTENT));
        let removed = (time % 2 == 0).then(|| pool.remove(&name));
        for error in [created.err(), grown.and_then(Result::err), removed.and_then(Result::err)].into_iter().flatten() {
            assert!(error.to_string().contains("did not end within"), "{error}");
            killed += 1;
        }
    }
    assert!(killed > 0, "nothing was killed");
    let pool = group.open(&identity("0")).unwrap();
    for volume in pool.list().unwrap() {
        assert!(matches!(volume.condition, Condition::Ready(_) | Condition::Inactive), "{volume:?}");
        pool.resize(&volume.name, volume.size).unwrap();
        pool.remove(&volume.name).unwrap();
    }
    assert_eq!(pool.capacity().unwrap().free, 20 * EXTENT);
}

#[test]
fn a_volume_that_is_being_zeroed_stays() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[4]);
    let pool = group.open(&identity("0")).unwrap();
    let web = volume("web");
    pool.create(&web, EXTENT).unwrap();
    let device = pool.zero(&web, 0, &mut |_, _| {
        assert!(matches!(pool.remove(&web), Err(PoolError::InUse { .. })));
        assert!(matches!(pool.zero(&web, 0, &mut |_, _| ControlFlow::Continue(())), Err(PoolError::InUse { .. })));
        pool.create(&volume("db"), EXTENT).unwrap();
        ControlFlow::Continue(())
    });
    assert!(device.unwrap().zeroed);
    pool.remove(&web).unwrap();
}

/// The writes of a process that was killed hold its locks until they have ended; here a process that lives plays them.
#[test]
fn without_device_mapper_late_writes_are_waited_for() {
    if !can_run("lvm") || has_device_mapper() {
        return;
    }
    let group = Group::new(&[4]);
    let device = group.open(&identity("0")).unwrap().create(&volume("web"), EXTENT).unwrap();
    let segment = &device.segments[0];
    let late = Other::start("lock", &[&segment.path.to_string_lossy()]);
    assert!(matches!(group.open(&identity("0")), Err(PoolError::InUse { by, .. }) if by.contains("killed")));
    drop(late);
    let _pool = group.open(&identity("0")).unwrap();
}

/// Two processes never write to one replica: the second is refused the disks as long as the first lives, and has them when it was
/// killed.
#[test]
fn without_device_mapper_one_process_at_a_time_has_the_disks() {
    if !can_run("lvm") || has_device_mapper() {
        return;
    }
    let group = Group::new(&[2, 4]);
    group.open(&identity("0")).unwrap().create(&volume("web"), 5 * EXTENT).unwrap();
    let first = Other::start("pool", &[&group.name, &group.system_directory().to_string_lossy()]);
    let refused = group.open(&identity("0")).unwrap_err();
    assert!(matches!(&refused, PoolError::InUse { what, .. } if what.contains("/dev/loop")), "{refused}");
    // Nor past the pool, as a daemon's data plane opens what it has all of.
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let opened = File::options().read(true).write(true).custom_flags(exclusive).open(group.disks.path(0));
    assert_eq!(opened.unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
    drop(first);
    assert_eq!(group.open(&identity("0")).unwrap().list().unwrap().len(), 1);
}

/// Another process, played by this program; killed when the value goes.
struct Other(std::process::Child);

impl Other {
    fn start(part: &str, arguments: &[&str]) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "the_other_process", "--nocapture"]).env("POOL_TEST_PART", part);
        command.env("POOL_TEST_ARGUMENTS", arguments.join("\n"));
        let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let ready = output.lines().map_while(Result::ok).any(|line| line.ends_with("it plays its part"));
        let other = Self(child);
        assert!(ready, "the other process could not do '{part}'");
        other
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// No test of its own: what another process does, until it is killed or its parent is gone.
#[test]
fn the_other_process() {
    let Ok(part) = std::env::var("POOL_TEST_PART") else { return };
    let arguments = std::env::var("POOL_TEST_ARGUMENTS").unwrap();
    let arguments: Vec<_> = arguments.lines().collect();
    let held: Box<dyn std::any::Any> = match part.as_str() {
        "lock" => {
            let file = File::options().read(true).write(true).open(arguments[0]).unwrap();
            rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
            Box::new(file)
        }
        "pool" => {
            let environment = vec![("LVM_SYSTEM_DIR".into(), arguments[1].into())];
            let options = LvmOptions { environment, ..LvmOptions::default() };
            let spec = format!("lvm:{}", arguments[0]).parse().unwrap();
            Box::new(LvmPool::open(&spec, &identity("0"), Unclaimed::Refuse, options).unwrap())
        }
        other => panic!("{other}?"),
    };
    println!("it plays its part");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    drop(held);
}

#[test]
fn without_device_mapper_there_are_no_snapshots() {
    if !can_run("lvm") || has_device_mapper() {
        return;
    }
    let group = Group::new(&[2]);
    let pool = group.open(&identity("0")).unwrap();
    pool.create(&volume("web"), EXTENT).unwrap();
    let refused = pool.snapshot(&"web_00@one".parse().unwrap(), 0, &mut on).unwrap_err().to_string();
    assert!(refused.contains("makes no snapshots") && refused.contains("device-mapper"), "{refused}");
    assert!(pool.snapshot_method().is_err() && pool.snapshots().unwrap().is_empty());
}

/// A device that anybody needs is named with what is on it, and stays as it is.
#[test]
fn a_pool_is_made_of_devices_that_hold_nothing() {
    if !can_run("lvm") || !can_run("mkfs.ext4") {
        return;
    }
    let group = Group::new(&[2]);
    let disks = Disks::new(&[32 << 20, 32 << 20, 32 << 20, 32 << 20]);
    let name = format!("{}-new", group.name);
    let spec: PoolSpec = format!("lvm:{name}").parse().unwrap();
    let make = |devices: &[&str]| drbdpool::create_pool(&spec, &devices.iter().map(Into::into).collect::<Vec<_>>());
    let refused = |devices: &[&str], why: &str| {
        let error = make(devices).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(devices[devices.len() - 1]), "{error}");
    };
    run("mkfs.ext4", &["-q", disks.path(0)]);
    refused(&[disks.path(2), disks.path(0)], "holds the signature of ext4");
    let at = disks.directory().join("mounted");
    std::fs::create_dir(&at).unwrap();
    run("mount", &[disks.path(0), &at.to_string_lossy()]);
    refused(&[disks.path(0)], &format!("holds a file system that is mounted at {}", at.display()));
    run("umount", &[&at.to_string_lossy()]);
    run("mkswap", &[disks.path(1)]);
    refused(&[disks.path(1)], "holds the signature of swap");
    refused(&[group.disks.path(0)], "LVM2_member");
    refused(&[disks.path(2), disks.path(2)], "what was named before");
    let held =
        File::options().read(true).custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed()).open(disks.path(3)).unwrap();
    refused(&[disks.path(3)], "another process uses");
    drop(held);
    refused(&[&disks.directory().join("disk0").to_string_lossy()], "is no block device");
    assert!(make(&[]).is_err());

    make(&[disks.path(2), disks.path(3)]).unwrap();
    assert!(make(&[disks.path(2)]).unwrap_err().to_string().contains("LVM2_member"));
    let pool = drbdpool::claim(&spec, &identity("0")).unwrap();
    assert_eq!(pool.capacity().unwrap().free, 14 * EXTENT);
    drop(pool);
    drbdpool::release(&spec, &identity("0")).unwrap();
    run("vgremove", &["--quiet", "--yes", &name]);
}

#[test]
fn the_default_pool_is_what_this_machine_has() {
    if !can_run("lvm") {
        return;
    }
    let has_group =
        || duct::cmd!("lvm", "vgs", "drbdpool").stdout_null().stderr_null().unchecked().run().unwrap().status.success();
    let before = has_group();
    let found = drbdpool::detect_default(std::path::Path::new("/nonexistent/pool")).unwrap();
    // Somebody else may be making or removing one.
    if has_group() == before {
        assert_eq!(found.spec.to_string(), if before { "lvm:drbdpool" } else { "file:/nonexistent/pool" }, "{}", found.reason);
    }
}
