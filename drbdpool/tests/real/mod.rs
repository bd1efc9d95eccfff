//! Real storage for tests: loop devices over sparse files, and volume groups and file systems on them.

#![allow(dead_code, reason = "each test program uses a part")]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drbdpool::{Device, Identity, LvmOptions, LvmPool, OVERSUBSCRIPTION, PoolError, PoolSpec, Unclaimed, VolumeName};
use tempfile::TempDir;

/// The beginning of every test's directory; the process's id follows, so that what killed runs left can be told and removed.
const PREFIX: &str = "blkrep-pool-test-";

/// Makes a pool this node's.
pub(crate) const CLAIM: Unclaimed = Unclaimed::Claim { oversubscription: OVERSUBSCRIPTION };

/// Has a long operation go on.
pub(crate) fn on(_done: u64, _all: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Whether tests on real devices can run. With `BLKREP_TEST_ROOT=1` they must.
pub(crate) fn can_run(program: &str) -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "they need root".to_owned()
    } else if !is_installed(program) {
        format!("'{program}' is not installed")
    } else if !Path::new("/dev/loop-control").exists() {
        "there are no loop devices".to_owned()
    } else {
        return true;
    };
    assert!(std::env::var_os("BLKREP_TEST_ROOT").is_none_or(|set| set != "1"), "tests on real devices cannot run: {missing}");
    eprintln!("skipped: tests on real devices cannot run: {missing}");
    false
}

/// Whether a program is installed, for tests that go beyond what every machine has.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|directory| Path::new(directory).join(program).exists());
    if !found {
        eprintln!("'{program}' is not installed");
    }
    found
}

/// Runs a program to its end and answers what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = duct::cmd(program, args).stdin_null().stdout_capture().stderr_capture().unchecked().run();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(output.status.success(), "{program} {args:?}: {}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Block devices over sparse files, gone with the value.
pub(crate) struct Disks {
    directory: TempDir,
    loops: Vec<String>,
}

impl Disks {
    pub(crate) fn new(sizes: &[u64]) -> Self {
        remove_leftovers();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let mut disks = Self { directory: tempfile::Builder::new().prefix(&prefix).tempdir().unwrap(), loops: Vec::new() };
        for &size in sizes {
            disks.add(size);
        }
        disks
    }

    /// Adds a disk and answers its path.
    pub(crate) fn add(&mut self, size: u64) -> String {
        let image = self.directory.path().join(format!("disk{}", self.loops.len()));
        File::create(&image).unwrap().set_len(size).unwrap();
        let device = run("losetup", &["--find", "--show", &image.to_string_lossy()]);
        self.loops.push(device.clone());
        device
    }

    /// Pulls a disk out of the machine.
    pub(crate) fn pull(&mut self, disk: usize) {
        run("losetup", &["--detach", &self.loops.remove(disk)]);
    }

    pub(crate) fn path(&self, disk: usize) -> &str {
        &self.loops[disk]
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for device in &self.loops {
            let _ = duct::cmd!("losetup", "--detach", device).stdin_null().unchecked().run();
        }
    }
}

/// Unmounts the file systems, detaches the loop devices and removes the directories of test processes that are no more.
fn remove_leftovers() {
    for mount in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let at = mount.split(' ').nth(4).unwrap_or_default();
        if owner(Path::new(at)).is_some_and(is_dead) {
            let _ = duct::cmd!("umount", at).stdin_null().unchecked().run();
        }
    }
    for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        if owner(Path::new(&backing)).is_some_and(is_dead) {
            let _ = duct::cmd!("losetup", "--detach", Path::new("/dev").join(device.file_name())).stdin_null().unchecked().run();
        }
    }
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if owner(&entry.path()).is_some_and(is_dead) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn owner(path: &Path) -> Option<u32> {
    let rest = path.to_str()?.split_once(PREFIX)?.1;
    rest.split_once('-')?.0.parse().ok()
}

fn is_dead(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

/// A volume group on disks of its own. LVM sees no other disks, and nothing of what it keeps on the machine is touched.
pub(crate) struct Group {
    pub(crate) disks: Disks,
    pub(crate) name: String,
    system: PathBuf,
}

/// What physical volumes lose to metadata at their beginning.
pub(crate) const PV_HEAD: u64 = 1 << 20;

impl Group {
    /// A group of disks that have room for so many 4 MiB extents.
    pub(crate) fn new(extents: &[u64]) -> Self {
        Self::with(extents, &[])
    }

    /// The same, made with further options.
    pub(crate) fn with(extents: &[u64], options: &[&str]) -> Self {
        let sizes: Vec<_> = extents.iter().map(|&extents| disk_of(extents)).collect();
        let disks = Disks::new(&sizes);
        let system = disks.directory().join("lvm");
        fs::create_dir(&system).unwrap();
        let unique = disks.directory().file_name().unwrap().to_string_lossy().into_owned();
        let group = Self { name: format!("vg-{unique}"), disks, system };
        group.show_disks();
        let disks: Vec<_> = group.disks.loops.iter().map(String::as_str).collect();
        group.lvm("vgcreate", &[options, &["--yes", &group.name], &disks[..]].concat());
        group
    }

    /// Where LVM's settings for this group are.
    pub(crate) fn system_directory(&self) -> &Path {
        &self.system
    }

    /// Lets LVM see the group's disks and no others.
    fn show_disks(&self) {
        let accepted: String = self.disks.loops.iter().map(|disk| format!("\"a|^{disk}$|\", ")).collect();
        let mut config = format!("devices {{ global_filter = [ {accepted}\"r|.*|\" ] }}\nbackup {{ backup = 0 archive = 0 }}\n");
        if !Path::new("/run/udev/control").exists() {
            // Nobody would answer LVM.
            config += "activation { udev_sync = 0 udev_rules = 0 verify_udev_operations = 0 }\n";
        }
        fs::write(self.system.join("lvm.conf"), config).unwrap();
    }

    /// Adds a disk to the group.
    pub(crate) fn extend(&mut self, extents: u64) {
        let disk = self.disks.add(disk_of(extents));
        self.show_disks();
        self.lvm("vgextend", &["--yes", &self.name, &disk]);
    }

    /// Makes another group beside this one, on a disk of its own; its name.
    pub(crate) fn another(&mut self, suffix: &str, extents: u64) -> String {
        let (name, disk) = (format!("{}-{suffix}", self.name), self.disks.add(disk_of(extents)));
        self.show_disks();
        self.lvm("vgcreate", &["--yes", &name, &disk]);
        name
    }

    /// Runs one of LVM's commands as an administrator would.
    pub(crate) fn lvm(&self, subcommand: &str, args: &[&str]) -> String {
        let mut all = vec![subcommand];
        if !has_device_mapper() {
            all.extend(["--driverloaded", "n"]);
        }
        all.extend(args);
        let output = duct::cmd("lvm", &all)
            .env("LVM_SYSTEM_DIR", &self.system)
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .stdin_null()
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            .run()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "lvm {all:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// How LVM is run for this group. What tests change behind a pool's back it sees at once.
    pub(crate) fn options(&self) -> LvmOptions {
        let environment = vec![("LVM_SYSTEM_DIR".into(), OsString::from(&self.system))];
        let (report_timeout, report_lifetime) = (Duration::from_secs(120), Duration::ZERO);
        LvmOptions { environment, report_timeout, report_lifetime, ..LvmOptions::default() }
    }

    /// The group as a pool.
    pub(crate) fn spec(&self) -> PoolSpec {
        PoolSpec::Lvm { volume_group: self.name.clone() }
    }

    /// Opens the group as a pool, and claims it if it is nobody's.
    pub(crate) fn open(&self, identity: &Identity) -> Result<LvmPool, PoolError> {
        self.open_unless(identity, CLAIM)
    }

    pub(crate) fn open_unless(&self, identity: &Identity, unclaimed: Unclaimed) -> Result<LvmPool, PoolError> {
        LvmPool::open(&self.spec(), identity, unclaimed, self.options())
    }
}

/// How large a disk is that has room for so many extents of a group.
fn disk_of(extents: u64) -> u64 {
    PV_HEAD + extents * (4 << 20)
}

impl Drop for Group {
    fn drop(&mut self) {
        if has_device_mapper() {
            let _ = duct::cmd!("lvm", "vgremove", "--force", "--yes", &self.name)
                .env("LVM_SYSTEM_DIR", &self.system)
                .stdin_null()
                .stdout_null()
                .stderr_null()
                .unchecked()
                .run();
        }
    }
}

/// Whether LVs can be active here.
pub(crate) fn has_device_mapper() -> bool {
    File::options().read(true).write(true).open("/dev/mapper/control").is_ok()
}

pub(crate) fn identity(node: &str) -> Identity {
    Identity::new("c1", node).unwrap()
}

/// A file system of its own on a disk of its own, mounted while the value lives.
pub(crate) struct Mounted {
    disks: Disks,
    at: PathBuf,
}

impl Mounted {
    /// Makes a file system with `mkfs.<kind>`.
    pub(crate) fn new(kind: &str, size: u64) -> Self {
        let disks = Disks::new(&[size]);
        let at = disks.directory().join("mounted");
        fs::create_dir(&at).unwrap();
        run(&format!("mkfs.{kind}"), &["-q", disks.path(0)]);
        run("mount", &["-t", kind, disks.path(0), &at.to_string_lossy()]);
        Self { disks, at }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = duct::cmd!("umount", &self.at).stdin_null().unchecked().run();
    }
}

/// The first volume of a resource.
pub(crate) fn volume(resource: &str) -> VolumeName {
    VolumeName::data(resource, 0).unwrap()
}

/// Whether tests of device-mapper cannot run here; says so.
pub(crate) fn skip_without_mapper() -> bool {
    if has_device_mapper() {
        return !can_run("lvm");
    }
    eprintln!("skipped: this kernel has no device-mapper");
    true
}

/// Where [`put`] writes: not in the first extent, which a wrong offset would hit, too.
const BLOCK_AT: u64 = 4 << 20;

/// Writes a block to a device, past every cache.
pub(crate) fn put(device: &Device, byte: u8) {
    let file = OpenOptions::new().write(true).open(&device.segments[0].path).unwrap();
    file.write_all_at(&[byte; 4096], BLOCK_AT).unwrap();
    file.sync_all().unwrap();
}

/// The byte of a block that was [`put`].
pub(crate) fn get(device: &Device) -> u8 {
    let mut found = [0; 4096];
    File::open(&device.segments[0].path).unwrap().read_exact_at(&mut found, BLOCK_AT).unwrap();
    assert!(found.iter().all(|&byte| byte == found[0]));
    found[0]
}
