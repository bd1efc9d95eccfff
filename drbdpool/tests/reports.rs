//! How often LVM is asked: one report serves all pools of a node.

mod real;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use drbdpool::{LvmOptions, LvmPool, Pool, PoolError, PoolSpec, Snapshots};
use real::{CLAIM, Group, can_run, identity, volume};

/// LVM's command line, which counts how often it is run.
struct Counted {
    program: PathBuf,
    log: PathBuf,
}

impl Counted {
    fn new(group: &Group) -> Self {
        let (program, log) = (group.disks.directory().join("counted-lvm"), group.disks.directory().join("runs"));
        fs::write(&program, format!("#!/bin/sh\necho \"$1\" >>'{}'\nexec lvm \"$@\"\n", log.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&log, "").unwrap();
        Self { program, log }
    }

    /// The commands that `work` runs.
    fn during(&self, work: impl FnOnce()) -> Vec<String> {
        fs::write(&self.log, "").unwrap();
        work();
        fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }

    fn open(&self, group: &Group, name: &str, lifetime: Duration) -> LvmPool {
        let options = LvmOptions { program: Some(self.program.clone()), report_lifetime: lifetime, ..group.options() };
        let spec = PoolSpec::Lvm { volume_group: name.to_owned() };
        LvmPool::open(&spec, &identity("0"), CLAIM, options).unwrap()
    }
}

/// Three groups, and a pool of each.
fn three(lifetime: Duration) -> (Group, Counted, Vec<LvmPool>) {
    let mut group = Group::new(&[8]);
    let names = [group.name.clone(), group.another("b", 8), group.another("c", 8)];
    let counted = Counted::new(&group);
    let pools = names.iter().map(|name| counted.open(&group, name, lifetime)).collect();
    (group, counted, pools)
}

/// Long enough for the slowest machine.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn one_report_serves_all_pools_until_something_is_changed() {
    if !can_run("lvm") {
        return;
    }
    let (_group, counted, pools) = three(LONG);
    let free = |pool: &LvmPool| pool.capacity().unwrap().free >> 22;
    let looked = counted.during(|| assert_eq!(pools.iter().map(free).collect::<Vec<_>>(), [8, 8, 8]));
    assert_eq!(looked, ["fullreport"], "the last that happened was that a pool was claimed; all three are looked at at once");
    pools[0].create(&volume("web"), 8 << 20).unwrap();
    let looked = counted.during(|| {
        for pool in &pools {
            pool.list().unwrap();
            pool.snapshots().unwrap();
        }
        pools[0].activate(&volume("web")).unwrap();
        pools[0].device(&volume("web")).unwrap();
    });
    assert!(looked.is_empty(), "nothing has changed since: {looked:?}");
    // What is changed is looked at before and after, and nobody sees what was before.
    let looked = counted.during(|| drop(pools[1].create(&volume("db"), 4 << 20).unwrap()));
    assert_eq!(looked, ["fullreport", "lvcreate", "fullreport"]);
    let looked = counted.during(|| assert_eq!(pools.iter().map(free).collect::<Vec<_>>(), [6, 7, 8]));
    assert!(looked.is_empty(), "the report after the change was of all: {looked:?}");
}

#[test]
fn a_report_that_is_not_young_is_not_used() {
    if !can_run("lvm") {
        return;
    }
    let (group, counted, pools) = three(Duration::ZERO);
    group.lvm("lvcreate", &["--yes", "-an", "-Zn", "-Wn", "--name", "alien", "--extents", "5", &group.name]);
    let looked = counted.during(|| assert_eq!(pools[0].capacity().unwrap().free >> 22, 3));
    assert_eq!(looked, ["fullreport"]);
}

#[test]
fn a_group_that_vanishes_does_not_cost_the_others_their_report() {
    if !can_run("lvm") {
        return;
    }
    let (group, counted, pools) = three(LONG);
    let gone = |error: PoolError| matches!(error, PoolError::NoVolumeGroup { .. });
    // The disk of the second group. Without device-mapper the pool holds it open, and it is there for as long: it is told to be another.
    group.lvm("vgrename", &[&format!("{}-b", group.name), &format!("{}-x", group.name)]);
    pools[0].create(&volume("web"), 4 << 20).unwrap();
    assert!(gone(pools[1].capacity().unwrap_err()));
    let looked = counted.during(|| {
        assert_eq!((pools[0].capacity().unwrap().free >> 22, pools[2].capacity().unwrap().free >> 22), (7, 8));
    });
    assert!(looked.len() <= 1, "{looked:?}");
    group.lvm("vgrename", &[&format!("{}-x", group.name), &format!("{}-b", group.name)]);
    assert_eq!(pools[1].capacity().unwrap().free >> 22, 8, "it is there again");
}

#[test]
fn a_group_that_another_command_has_locked_keeps_the_others_waiting_once() {
    if !can_run("lvm") {
        return;
    }
    let mut group = Group::new(&[8]);
    let locked = group.another("b", 8);
    let patience = Duration::from_secs(8);
    let pools = [group.name.clone(), locked.clone()].map(|name| {
        let options = LvmOptions { report_timeout: patience, ..group.options() };
        LvmPool::open(&PoolSpec::Lvm { volume_group: name }, &identity("0"), CLAIM, options).unwrap()
    });
    let lock = File::create(format!("/run/lock/lvm/V_{locked}")).unwrap();
    lock.lock().unwrap();
    assert_eq!(pools[0].capacity().unwrap().free >> 22, 8, "after the report of both has timed out");
    thread::scope(|scope| {
        let hanging = scope.spawn(|| pools[1].capacity());
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(pools[0].capacity().unwrap().free >> 22, 8);
            assert!(began.elapsed() < patience, "it has waited for the other: {:?}", began.elapsed());
        }
        assert!(!hanging.is_finished(), "the other still waits");
        let error = hanging.join().unwrap().unwrap_err();
        assert!(error.to_string().contains("did not end within 8s"), "{error}");
    });
    drop(lock);
    assert_eq!(pools[1].capacity().unwrap().free >> 22, 8, "it is there again");
}

#[test]
fn lvm_that_is_removed_is_named() {
    if !can_run("lvm") {
        return;
    }
    let (_group, counted, pools) = three(Duration::ZERO);
    fs::rename(&counted.program, counted.program.with_extension("gone")).unwrap();
    for answer in [pools[0].capacity().map(drop), pools[1].create(&volume("web"), 4 << 20).map(drop)] {
        let error = answer.unwrap_err();
        assert!(matches!(error, PoolError::LvmMissing) && error.to_string().contains("install lvm2"), "{error}");
    }
}
