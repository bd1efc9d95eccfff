//! What others made becomes a volume with all that is on it, or stays as it was.

mod real;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use drbdpool::{Adoptable, Adoption, FilePool, Pool, PoolError, PoolSpec, VolumeName};
use real::{CLAIM, Group, can_run, has_device_mapper, identity, volume};
use rustix::fs::{FlockOperation, flock};

const EXTENT: u64 = 4 << 20;

fn refused(answer: Result<u64, PoolError>) -> String {
    match answer {
        Err(PoolError::NotAdoptable { what, why }) => format!("{what}: {why}"),
        other => panic!("{other:?}"),
    }
}

/// A logical volume of so many extents that is not active, as an administrator makes it, with `byte` all over it.
fn make(group: &Group, name: &str, extents: u64) -> Adoptable {
    let activation: &[&str] = if has_device_mapper() { &["-ay", "-Wn"] } else { &["-an", "-Zn", "-Wn"] };
    let extents = extents.to_string();
    group.lvm(
        "lvcreate",
        &[activation, &["--yes", "--type", "linear", "--extents", &extents, "--name", name, &group.name]].concat(),
    );
    format!("{}/{name}", group.name).parse().unwrap()
}

fn tags(group: &Group, name: &str) -> String {
    group.lvm("lvs", &["--noheadings", "-o", "lv_tags", &format!("{}/{name}", group.name)])
}

fn names(group: &Group) -> Vec<String> {
    group.lvm("lvs", &["--noheadings", "-o", "lv_name", &group.name]).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_logical_volume_is_adopted_with_its_bytes_and_given_back() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[10]);
    let source = make(&group, "old", 3);
    let pool = group.open(&identity("0")).unwrap();
    let web = volume("web");
    assert_eq!(pool.adoptable(&source, &web).unwrap(), 3 * EXTENT);
    assert!((tags(&group, "old"), pool.list().unwrap()) == (String::new(), Vec::new()), "a look changes nothing");

    let device = pool.adopt(&source, &web).unwrap();
    assert_eq!(device.size, 3 * EXTENT);
    assert_eq!(names(&group), ["web_00"]);
    assert_eq!(pool.adopt(&source, &web).unwrap(), device, "again");
    assert_eq!(pool.device(&web).unwrap(), device);
    let segment = &device.segments[0];
    let file = File::options().read(true).write(true).open(&segment.path).unwrap();
    file.write_all_at(&[0xab; 4096], segment.start).unwrap();
    file.sync_all().unwrap();
    drop(file);
    // What was adopted is never taken for new: there is nothing to zero.
    pool.zero(&web, 0, &mut |_, _| std::ops::ControlFlow::Continue(())).unwrap();
    let mut read = [0; 4096];
    File::open(&segment.path).unwrap().read_exact_at(&mut read, segment.start).unwrap();
    assert_eq!(read, [0xab; 4096]);

    pool.disown(&web, &source).unwrap();
    pool.disown(&web, &source).unwrap();
    assert_eq!((names(&group), tags(&group, "old")), (vec!["old".to_owned()], String::new()));
    assert!(pool.list().unwrap().is_empty());
    pool.remove(&web).unwrap();
    assert_eq!(names(&group), ["old"], "what was given back is nobody's");
}

#[test]
fn an_adoption_that_was_cut_short_between_tags_and_name_is_finished() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[10]);
    let source = make(&group, "old", 1);
    let pool = group.open(&identity("0")).unwrap();
    pool.adopt(&source, &volume("web")).unwrap();
    group.lvm("lvrename", &[&group.name, "web_00", "old"]);
    assert_eq!(pool.list().unwrap().len(), 1, "it is the pool's by its tags");
    pool.adopt(&source, &volume("web")).unwrap();
    assert_eq!(names(&group), ["web_00"]);
}

#[test]
fn what_cannot_be_adopted_is_refused_by_name_and_stays_as_it_is() {
    if !can_run("lvm") {
        return;
    }
    let group = Group::new(&[12, 12]);
    let pool = group.open(&identity("0")).unwrap();
    let web = volume("web");
    pool.create(&volume("db"), EXTENT).unwrap();
    let source = |name: &str| format!("{}/{name}", group.name).parse::<Adoptable>().unwrap();
    let why = |name: &str| refused(pool.adoptable(&source(name), &web));
    assert!(why("db_00").contains("it is volume 'db_00' of this node already"));
    assert!(why("none").contains("there is no such logical volume"));
    assert!(why("tp_tdata").contains("LVM keeps it to itself"));
    assert!(refused(pool.adoptable(&"othervg/x".parse().unwrap(), &web)).contains("not in lvm:"));
    assert!(refused(pool.adoptable(&"/etc/hostname".parse().unwrap(), &web)).contains("takes logical volumes"));

    make(&group, "strange", 1);
    group.lvm(
        "lvchange",
        &["--addtag", "blkrep.owner=c9/4", "--addtag", "blkrep.volume=x_00", &format!("{}/strange", group.name)],
    );
    let answer = why("strange");
    assert!(
        answer.contains("node 4 of cluster c9") && answer.contains("lvchange --deltag blkrep.owner=c9/4 --deltag"),
        "{answer}"
    );

    let old = make(&group, "old", 1);
    make(&group, "web_00", 1);
    assert!(refused(pool.adoptable(&old, &web)).contains("choose another resource name"));
    assert!(refused(pool.adoptable(&old, &volume("db"))).contains("choose another resource name"));
    let blog = volume("blog");
    group.lvm("lvchange", &["--permission", "r", &format!("{}/old", group.name)]);
    assert!(refused(pool.adoptable(&old, &blog)).contains("lvchange --permission rw"));
    group.lvm("lvchange", &["--permission", "rw", &format!("{}/old", group.name)]);
    if has_device_mapper() {
        let held = File::open(Path::new("/dev").join(&group.name).join("old")).unwrap();
        assert!(refused(pool.adoptable(&old, &blog)).contains("it is in use"));
        drop(held);
        group.lvm("lvcreate", &["--yes", "--snapshot", "--extents", "1", "--name", "before", &format!("{}/old", group.name)]);
        assert!(refused(pool.adoptable(&old, &blog)).contains("it has snapshots"));
        assert!(refused(pool.adoptable(&source("before"), &blog)).contains("it is a snapshot of 'old'"));
    } else {
        let striped = ["-an", "-Zn", "-Wn", "--yes", "--stripes", "2", "--extents", "2", "--name", "wide", &group.name];
        group.lvm("lvcreate", &striped);
        assert!(refused(pool.adoptable(&source("wide"), &blog)).contains("only linear volumes"));
    }
    assert_eq!(tags(&group, "old"), "");
    assert!(matches!(pool.adopt(&source("strange"), &blog), Err(PoolError::NotAdoptable { .. })), "adopting looks, too");
}

fn files() -> (tempfile::TempDir, FilePool, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let spec = PoolSpec::File { directory: directory.path().join("pool") };
    let pool = FilePool::open(&spec, &identity("0"), CLAIM).unwrap();
    let image = directory.path().join("old.img");
    let file = File::create(&image).unwrap();
    file.set_len(1 << 20).unwrap();
    file.write_all_at(&[0xcd; 8192], 4096).unwrap();
    (directory, pool, image)
}

fn web() -> VolumeName {
    VolumeName::data("web", 0).unwrap()
}

#[test]
fn a_file_is_adopted_with_its_bytes_its_holes_reserved_and_given_back() {
    let (directory, pool, image) = files();
    let source = Adoptable::File(image.clone());
    let before = fs::read(&image).unwrap();
    assert_eq!(pool.adoptable(&source, &web()).unwrap(), 1 << 20);
    let device = pool.adopt(&source, &web()).unwrap();
    assert_eq!((device.size, image.exists()), (1 << 20, false));
    assert_eq!(pool.adopt(&source, &web()).unwrap(), device, "again");
    let path = directory.path().join("pool/web_00");
    assert!(fs::read(&path).unwrap() == before, "the same bytes");
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mode() & 0o777, found.blocks() * 512 >= 1 << 20), (0o600, true));
    pool.disown(&web(), &source).unwrap();
    pool.disown(&web(), &source).unwrap();
    assert!(fs::read(&image).unwrap() == before && !path.exists());
}

#[test]
fn a_file_that_cannot_be_adopted_is_refused_by_name() {
    let (directory, pool, image) = files();
    let why = |path: &Path| refused(pool.adoptable(&Adoptable::File(path.to_owned()), &web()));
    assert!(refused(pool.adoptable(&"vg/lv".parse().unwrap(), &web())).contains("takes files"));
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    assert!(why(&link).contains("no regular file") && why(directory.path()).contains("no regular file"));
    let odd = directory.path().join("odd");
    fs::write(&odd, [1; 5000]).unwrap();
    assert!(why(&odd).contains("truncate --size 8192"));
    fs::write(&odd, []).unwrap();
    assert!(why(&odd).contains("it is empty"));
    let other = directory.path().join("other");
    fs::hard_link(&image, &other).unwrap();
    assert!(why(&image).contains("hard links"));
    fs::remove_file(&other).unwrap();
    let elsewhere = tempfile::tempfile_in("/dev/shm").map(drop).and_then(|()| tempfile::NamedTempFile::new_in("/dev/shm"));
    if let Ok(elsewhere) = elsewhere
        && fs::metadata("/dev/shm").unwrap().dev() != fs::metadata(directory.path()).unwrap().dev()
    {
        assert!(why(elsewhere.path()).contains("another file system"));
    }
    let held = File::open(&image).unwrap();
    assert!(why(&image).contains(&format!("in use by process {}", std::process::id())));
    drop(held);
    pool.create(&VolumeName::data("db", 0).unwrap(), 4096).unwrap();
    assert!(why(&directory.path().join("pool/db_00")).contains("it is volume 'db_00' of this node already"));
    let taken = refused(pool.adoptable(&Adoptable::File(image.clone()), &VolumeName::data("db", 0).unwrap()));
    assert!(taken.contains("choose another resource name"), "{taken}");
    assert_eq!(pool.adoptable(&Adoptable::File(image), &web()).unwrap(), 1 << 20, "when all that is mended");
}

/// A directory that is mounted in another place, until it is dropped.
struct Bound(tempfile::TempDir);

impl Bound {
    fn of(directory: &Path) -> Self {
        let place = tempfile::tempdir().unwrap();
        assert!(Command::new("mount").arg("--bind").args([directory, place.path()]).status().unwrap().success());
        Self(place)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_file_that_is_open_by_another_path_is_in_use() {
    if !can_run("mount") {
        return;
    }
    let (directory, pool, image) = files();
    let bound = Bound::of(directory.path());
    let held = File::open(bound.0.path().join(image.file_name().unwrap())).unwrap();
    let why = refused(pool.adoptable(&Adoptable::File(image.clone()), &web()));
    assert!(why.contains(&format!("in use by process {}", std::process::id())), "{why}");
    drop(held);
    assert_eq!(pool.adoptable(&Adoptable::File(image), &web()).unwrap(), 1 << 20);
}

#[test]
fn a_file_that_is_locked_is_in_use() {
    let (_directory, pool, image) = files();
    let held = File::open(&image).unwrap();
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    let answer = pool.adopt(&Adoptable::File(image.clone()), &web());
    assert!(matches!(answer, Err(PoolError::NotAdoptable { .. })) && image.exists(), "{answer:?}");
}
