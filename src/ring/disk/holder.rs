//! Who is in the way: for the message only, so that it says what can be found out and never fails.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{major, minor};

/// Describes who has locked a file or uses a device.
pub(super) fn describe(path: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else { return "another program".to_owned() };
    let found = if metadata.file_type().is_block_device() {
        let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
        mount_of(&format!("{major}:{minor}")).or_else(|| holders_of(major, minor))
    } else {
        lock_owner(&metadata)
    };
    found
        .or_else(|| opener_of(path))
        .unwrap_or_else(|| "another program (`fuser -v`, `lsof` and `lsblk` may know which)".to_owned())
}

/// The process that took a lock, from /proc/locks: `1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`.
fn lock_owner(metadata: &fs::Metadata) -> Option<String> {
    let (major, minor) = (major(metadata.dev()), minor(metadata.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|line| line.split_whitespace().any(|word| word == file))?;
    process(line.split_whitespace().nth(4)?.parse().ok()?)
}

/// Where a device is mounted.
fn mount_of(device: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let point = fields.find_map(|mut fields| fields.nth(2).filter(|&of| of == device).and_then(|_| fields.nth(1)))?;
    Some(format!("the file system mounted at {point}"))
}

/// The devices that are made of a device (device-mapper, md).
fn holders_of(major: u32, minor: u32) -> Option<String> {
    let holders = fs::read_dir(format!("/sys/dev/block/{major}:{minor}/holders")).ok()?;
    let names: Vec<_> = holders.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    (!names.is_empty()).then(|| format!("the device {}", names.join(", ")))
}

/// A process that has it open, other than this one if there is any.
fn opener_of(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    let has_it_open = |pid: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
        descriptors.is_ok_and(|fds| fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path)))
    };
    let processes = fs::read_dir("/proc").ok()?;
    let mut pids: Vec<u32> = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let own = std::process::id();
    pids.sort_by_key(|&pid| pid == own);
    pids.into_iter().find(has_it_open).and_then(process)
}

/// A process by name and number; nothing when it is gone.
fn process(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let us = if pid == std::process::id() { ", this daemon" } else { "" };
    Some(format!("process {pid} ({}{us})", name.trim()))
}
