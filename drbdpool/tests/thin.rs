//! Thin pools of LVM, where the kernel has device-mapper. Elsewhere they are refused.

mod real;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use drbdpool::{
    Condition, Fill, LvmPool, Pool, PoolError, PoolSpec, Promises, SnapshotMethod, SnapshotName, Snapshots, Unclaimed,
};
use real::{CLAIM, Disks, Group, can_run, get, has_device_mapper, identity, on, put, run, skip_without_mapper, volume};

const EXTENT: u64 = 4 << 20;

/// A group with a thin pool of so many extents.
fn thin(extents: u32) -> (Group, PoolSpec) {
    let group = Group::new(&[u64::from(extents) + 4]);
    let size = extents.to_string();
    group.lvm("lvcreate", &["--yes", "--type", "thin-pool", "--extents", &size, "--zero", "y", "--name", "tp", &group.name]);
    group.lvm("lvchange", &["--errorwhenfull", "y", &format!("{}/tp", group.name)]);
    let spec = PoolSpec::LvmThin { volume_group: group.name.clone(), thin_pool: "tp".to_owned() };
    (group, spec)
}

fn open(group: &Group, spec: &PoolSpec, unclaimed: Unclaimed) -> Result<LvmPool, PoolError> {
    LvmPool::open(spec, &identity("0"), unclaimed, group.options())
}

#[test]
fn without_device_mapper_it_is_refused_with_the_way_out() {
    if has_device_mapper() || !can_run("lvm") {
        return;
    }
    let group = Group::new(&[2]);
    let spec = format!("lvm-thin:{}/tp", group.name).parse().unwrap();
    let error = open(&group, &spec, CLAIM).unwrap_err().to_string();
    assert!(error.contains("device-mapper") && error.contains("lvm:VG"), "{error}");
}

#[test]
fn volumes_take_space_when_they_are_written() {
    if skip_without_mapper() {
        return;
    }
    let (group, spec) = thin(8);
    let pool = open(&group, &spec, Unclaimed::Claim { oversubscription: 3 }).unwrap();
    let before = pool.capacity().unwrap();
    assert_eq!((before.total, before.free), (8 * EXTENT, 24 * EXTENT));
    let device = pool.create(&volume("web"), 16 * EXTENT).unwrap();
    assert!(device.zeroed);
    assert_eq!(pool.create(&volume("web"), 16 * EXTENT).unwrap(), device);
    assert_eq!(pool.capacity().unwrap().promises, Some(Promises { times: 3, made: 16 * EXTENT }));
    assert_eq!(pool.capacity().unwrap().free, 8 * EXTENT);
    assert!(matches!(pool.create(&volume("db"), 9 * EXTENT), Err(PoolError::NoSpace { free, .. }) if free == 8 * EXTENT));
    let [segment] = &device.segments[..] else { panic!("{device:?}") };
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let file = OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(&segment.path).unwrap();
    file.write_all_at(&[0x11; 4096], 16 * EXTENT - 4096).unwrap();
    file.sync_all().unwrap();
    let fill = pool.capacity().unwrap().fill.unwrap();
    assert!(fill.data > 0 && fill.data < 100 && fill.metadata.is_some(), "{fill:?}");

    assert!(matches!(pool.remove(&volume("web")), Err(PoolError::InUse { .. })));
    let grown = pool.resize(&volume("web"), 20 * EXTENT).unwrap();
    assert_eq!(grown.size, 20 * EXTENT);
    drop(file);
    drop(pool);
    group.lvm("vgchange", &["-an", &group.name]);
    let pool = open(&group, &spec, Unclaimed::Refuse).unwrap();
    assert_eq!(pool.list().unwrap()[0].condition, Condition::Inactive);
    pool.activate(&volume("web")).unwrap();
    assert_eq!(pool.capacity().unwrap().free, 4 * EXTENT, "the limit is kept");
    pool.remove(&volume("web")).unwrap();
    assert_eq!(pool.capacity().unwrap().free, 24 * EXTENT);
    pool.deactivate(&volume("web")).unwrap_err();
}

/// The kernel says how full it is; before that is everything nothing new is promised. What is full fails, and what was written stays.
#[test]
fn a_full_pool_fails_writes_and_keeps_what_it_has() {
    if skip_without_mapper() {
        return;
    }
    let (group, spec) = thin(8);
    let pool = open(&group, &spec, CLAIM).unwrap();
    let device = pool.create(&volume("web"), 20 * EXTENT).unwrap();
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let path = &device.segments[0].path;
    let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(path).unwrap();
    let memory = vec![0x11; (1 << 20) + 4096];
    let block = &memory[memory.as_ptr().align_offset(4096)..][..1 << 20];
    let written = (0..40).take_while(|at| file.write_all_at(block, at << 20).is_ok()).count();
    assert_eq!(written, 32, "MiB");
    let fill = pool.capacity().unwrap();
    assert_eq!((fill.free, fill.fill.unwrap().data), (0, 1000));
    assert!(matches!(pool.create(&volume("db"), EXTENT), Err(PoolError::NoSpace { free: 0, .. })));
    let says = pool.device(&volume("web")).map(|_| ()).err().map(|error| error.to_string());
    assert!(says.is_none_or(|says| says.contains("lvextend")), "the way out is named");
    drop(file);
    group.lvm("lvextend", &["--yes", "--extents", "+2", &format!("{}/tp", group.name)]);
    let file = File::open(path).unwrap();
    let mut found = vec![0; 1 << 20];
    file.read_exact_at(&mut found, 31 << 20).unwrap();
    assert!(found.iter().all(|&byte| byte == 0x11));
    assert!(pool.capacity().unwrap().fill.unwrap().data < 1000);
    drop(file);
    pool.remove(&volume("web")).unwrap();
}

#[test]
fn a_thin_pool_is_one_nodes_and_apart_from_its_group() {
    if skip_without_mapper() {
        return;
    }
    let (group, spec) = thin(4);
    assert!(matches!(open(&group, &spec, Unclaimed::Refuse), Err(PoolError::Unclaimed { .. })));
    let pool = open(&group, &spec, CLAIM).unwrap();
    let other = LvmPool::open(&spec, &identity("1"), CLAIM, group.options()).unwrap_err().to_string();
    assert!(other.contains("lvchange --deltag blkrep.cluster=c1"), "{other}");
    // The group around it may be a pool, too: each has its own volumes.
    let thick = group.open(&identity("0")).unwrap();
    pool.create(&volume("web"), EXTENT).unwrap();
    thick.create(&volume("db"), EXTENT).unwrap();
    assert_eq!((pool.list().unwrap().len(), thick.list().unwrap().len()), (1, 1));
    assert!(matches!(thick.create(&volume("web"), EXTENT), Err(PoolError::Foreign { .. })));
    thick.remove(&volume("web")).unwrap();
    assert!(pool.device(&volume("web")).is_ok(), "not the thick pool's to remove");
    let nosuch = PoolSpec::LvmThin { volume_group: group.name.clone(), thin_pool: "db_00".to_owned() };
    assert!(open(&group, &nosuch, CLAIM).unwrap_err().to_string().contains("is no thin pool"));
    let nosuch = PoolSpec::LvmThin { volume_group: group.name.clone(), thin_pool: "nosuch".to_owned() };
    assert!(open(&group, &nosuch, CLAIM).unwrap_err().to_string().contains("lvcreate --type thin-pool"));
}

/// Old data must not show through blocks that were written in part: replicas would differ.
#[test]
fn a_thin_pool_that_gives_out_old_data_is_refused() {
    if skip_without_mapper() {
        return;
    }
    let (group, spec) = thin(4);
    group.lvm("lvchange", &["--zero", "n", &format!("{}/tp", group.name)]);
    assert!(open(&group, &spec, CLAIM).unwrap_err().to_string().contains("lvchange --zero y"));
}

#[test]
fn a_thin_pool_is_made_of_empty_devices() {
    if skip_without_mapper() {
        return;
    }
    let disks = Disks::new(&[100 << 20]);
    let name = format!("vg-{}", disks.directory().file_name().unwrap().to_string_lossy());
    let spec = PoolSpec::LvmThin { volume_group: name.clone(), thin_pool: "thin".to_owned() };
    drbdpool::create_pool(&spec, &[disks.path(0).into()]).unwrap();
    let pool = drbdpool::claim(&spec, &identity("0")).unwrap();
    let capacity = pool.capacity().unwrap();
    assert!(capacity.total >= 80 << 20 && matches!(capacity.fill, Some(Fill { data: 0, .. })), "{capacity:?}");
    pool.create(&volume("web"), 1 << 30).unwrap();
    pool.remove(&volume("web")).unwrap();
    drop(pool);
    run("vgremove", &["--quiet", "--yes", "--force", &name]);
}

#[test]
fn a_thin_snapshot_shares_what_neither_has_changed() {
    if skip_without_mapper() {
        return;
    }
    let (group, spec) = thin(8);
    let pool = open(&group, &spec, CLAIM).unwrap();
    assert_eq!(pool.snapshot_method().unwrap(), SnapshotMethod::Shared);
    let web = pool.create(&volume("web"), 4 * EXTENT).unwrap();
    put(&web, 0x11);
    let one: SnapshotName = "web_00@one".parse().unwrap();
    let taken = pool.snapshot(&one, 0, &mut on).unwrap();
    assert_eq!(pool.snapshot(&one, 0, &mut on).unwrap(), taken);
    put(&web, 0x22);
    assert_eq!((get(&taken), get(&web)), (0x11, 0x22));
    let file = OpenOptions::new().read(true).write(true).open(&taken.segments[0].path);
    let written = file.and_then(|file| file.write_all_at(&[0x55; 4096], 0).and_then(|()| file.sync_all()));
    assert!(written.is_err(), "it can only be read");
    drop(pool);
    group.lvm("vgchange", &["-an", &group.name]);
    let pool = open(&group, &spec, Unclaimed::Refuse).unwrap();
    assert_eq!(pool.snapshots().unwrap()[0].condition, Condition::Inactive);
    let restored = pool.restore(&one, &volume("copy")).unwrap();
    assert_eq!((restored.size, get(&restored)), (4 * EXTENT, 0x11));
    assert_eq!(pool.restore(&one, &volume("copy")).unwrap(), restored);
    put(&restored, 0x33);
    assert_eq!(pool.list().unwrap().iter().map(|volume| volume.name.to_string()).collect::<Vec<_>>(), ["copy_00", "web_00"]);
    pool.remove(&volume("web")).unwrap();
    let taken = pool.snapshot(&one, 0, &mut on).unwrap();
    assert_eq!((get(&taken), get(&restored)), (0x11, 0x33), "each is on its own");
    for _ in 0..2 {
        pool.remove_snapshot(&one).unwrap();
    }
    assert!(pool.snapshots().unwrap().is_empty());
    assert!(matches!(pool.restore(&one, &volume("late")), Err(PoolError::NotFound { .. })));
}
