//! File systems on an attached volume, by the system's own tools.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::settle::settle;
use crate::api::{ApiError, Code, FileSystem};

/// How a file system is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Read-only, and without replaying a journal: nothing at all is written.
    pub read_only: bool,
    /// The operator's own, as `mount -o` takes them.
    pub options: String,
}

/// Whether options of mount leave the mount to blkrep: its device, its place, and that it is a new one.
///
/// # Errors
///
/// The option that does not, and why.
pub fn check_mount_options(options: &str) -> Result<(), String> {
    let name = |option: &'_ str| option.split('=').next().unwrap_or_default().trim().to_owned();
    match options.split(',').map(name).find(|name| FOREIGN.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(format!(
            "the mount option '{name}' is refused: blkrep says itself which device is mounted, and where; leave it out"
        )),
    }
}

/// Whether options of mkfs are about the volume alone.
///
/// # Errors
///
/// The one that names another device.
pub fn check_mkfs_options(options: &str) -> Result<(), String> {
    match options.split_whitespace().find(|word| word.contains("/dev/")) {
        None => Ok(()),
        Some(word) => Err(format!(
            "the mkfs option '{word}' is refused: another device would be written, and would not be there on other nodes; leave it out"
        )),
    }
}

/// What is on a device, by its signatures: a file system's or partition table's type; `None` when there is no signature at all.
pub async fn probe(device: &Path) -> Result<Option<String>, ApiError> {
    let mut blkid = Command::new("blkid");
    blkid.args(["--probe", "--output", "export"]).arg(device);
    let done = run(&mut blkid, LOOK).await?;
    match done.status.code() {
        Some(0) => {}
        // Nothing was found.
        Some(2) => return Ok(None),
        _ => return Ok(Some("several signatures".to_owned())),
    }
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
    Ok(Some(value("TYPE=").or_else(|| value("PTTYPE=")).unwrap_or_else(|| "an unknown signature".to_owned())))
}

/// Whether a device of so many bytes holds nothing but zeroes at its beginning and its end, as one does that was never written. What has no
/// signature may be a program's data all the same.
pub async fn is_blank(device: &Path, bytes: u64) -> Result<bool, ApiError> {
    let length = bytes.min(LOOKED_AT);
    for skipped in [0, bytes - length] {
        let mut cmp = Command::new("cmp");
        cmp.arg("--quiet")
            .arg(format!("--bytes={length}"))
            .arg(format!("--ignore-initial={skipped}:0"))
            .arg(device)
            .arg("/dev/zero");
        let done = run(&mut cmp, LOOK).await?;
        match done.status.code() {
            Some(0) => {}
            Some(1) => return Ok(false),
            _ => return Err(ApiError::new(Code::Io, format_args!("{}: {}", shown(&cmp), words(&done)))),
        }
    }
    Ok(true)
}

/// Makes a file system, over whatever is there. Whoever calls this knows that it may.
pub async fn make(device: &Path, kind: FileSystem, options: &str) -> Result<(), ApiError> {
    let mut mkfs = Command::new(format!("mkfs.{kind}"));
    // What a new volume holds is zeroes already: discarding it would only take time.
    mkfs.args(match kind {
        FileSystem::Ext4 => &["-F", "-q", "-E", "nodiscard"][..],
        FileSystem::Xfs | FileSystem::Btrfs => &["-f", "-q", "-K"][..],
    });
    mkfs.args(options.split_whitespace()).arg(device);
    succeed(&mut mkfs, MAKE).await.map_err(|error| match options.is_empty() || !error.hint.is_empty() {
        true => error,
        false => error.hint(format_args!(
            "the options '{options}' are yours: say others (of Docker's volume, remove it and create it again with other mkfs-opts)"
        )),
    })?;
    // It is on the replicas' disks before anybody is told that it is made.
    let synced = tokio::task::spawn_blocking({
        let device = device.to_owned();
        move || settle(&device)
    });
    synced.await.map_err(std::io::Error::other).flatten().map_err(|error| ApiError::new(Code::Io, error))
}

/// Replays a journal and mends what can be mended without a question. XFS and btrfs do it by being mounted.
pub async fn check(device: &Path, kind: FileSystem) -> Result<(), ApiError> {
    if kind != FileSystem::Ext4 {
        return Ok(());
    }
    let mut fsck = Command::new("e2fsck");
    fsck.arg("-p").arg(device);
    let done = run(&mut fsck, CHECK).await?;
    match done.status.code() {
        // 1 and 2: errors were mended.
        Some(0..=2) => Ok(()),
        _ => Err(ApiError::new(
            Code::Storage,
            format_args!("the file system on {} needs mending: {}", device.display(), words(&done)),
        )
        .hint(format_args!("`e2fsck {}` asks what to do", device.display()))),
    }
}

/// Mounts a device at a directory.
pub async fn mount(device: &Path, kind: FileSystem, path: &Path, options: &MountOptions) -> Result<(), ApiError> {
    let mut all: Vec<&str> = Vec::new();
    if options.read_only {
        all.push(match kind {
            FileSystem::Ext4 => "ro,noload",
            FileSystem::Xfs => "ro,norecovery",
            FileSystem::Btrfs => "ro,rescue=nologreplay",
        });
    }
    if !options.options.is_empty() {
        all.push(&options.options);
    }
    let mut mount = Command::new("mount");
    mount.arg("-t").arg(kind.as_str());
    if !all.is_empty() {
        mount.arg("-o").arg(all.join(","));
    }
    mount.arg(device).arg(path);
    succeed(&mut mount, CHECK).await
}

/// Lets a mounted file system fill its device, if that has grown.
pub async fn grow(device: &Path, kind: FileSystem, path: &Path) -> Result<(), ApiError> {
    let mut command = match kind {
        FileSystem::Ext4 => {
            let mut resize = Command::new("resize2fs");
            resize.arg(device);
            resize
        }
        FileSystem::Xfs => {
            let mut grow = Command::new("xfs_growfs");
            grow.arg(path);
            grow
        }
        FileSystem::Btrfs => {
            let mut resize = Command::new("btrfs");
            resize.args(["filesystem", "resize", "max"]).arg(path);
            resize
        }
    };
    succeed(&mut command, CHECK).await
}

/// Unmounts what is mounted at a directory; `lazily` also while it is in use, and without waiting for what cannot be written.
pub async fn unmount(path: &Path, lazily: bool) -> Result<(), ApiError> {
    let mut umount = Command::new("umount");
    if lazily {
        umount.arg("-l");
    }
    umount.arg(path);
    succeed(&mut umount, UNMOUNT).await.map_err(|error| match lazily {
        true => error,
        false => error.hint(format_args!("`fuser -vm {}` shows who uses it; --lazy unmounts it all the same", path.display())),
    })
}

/// Where a device is mounted, in this process's view.
pub fn mounts_of(device: &Path) -> std::io::Result<Vec<PathBuf>> {
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(device)?.rdev();
    let wanted = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let source = device.to_string_lossy().into_owned();
    let all = all_mounts()?;
    // btrfs shows a device number of its own: its source is the device.
    Ok(all.into_iter().filter(|mount| mount.device == wanted || mount.source == source).map(|mount| mount.path).collect())
}

/// A file system that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedFileSystem {
    /// Where.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileSystem,
}

/// The writable file system of a device that is mounted, in this process's view, where it is one that blkrep knows.
pub fn file_system_on(device: &Path) -> std::io::Result<Option<MountedFileSystem>> {
    let source = device.to_string_lossy();
    let here = all_mounts()?.into_iter().filter(|mount| mount.source == source && mount.writable);
    Ok(here.filter_map(|mount| Some(MountedFileSystem { kind: mount.kind.parse().ok()?, path: mount.path })).next())
}

/// The device that is mounted at a directory, the topmost if there are several.
pub fn mounted_at(path: &Path) -> std::io::Result<Option<PathBuf>> {
    Ok(all_mounts()?.into_iter().rev().find(|mount| mount.path == path).map(|mount| PathBuf::from(mount.source)))
}

struct Mounted {
    device: String,
    path: PathBuf,
    kind: String,
    source: String,
    writable: bool,
}

fn all_mounts() -> std::io::Result<Vec<Mounted>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse_mount).collect())
}

/// A line of mountinfo: fields, optional fields up to a `-`, then type and source.
fn parse_mount(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let fields: Vec<&str> = before.split(' ').collect();
    let mut after = after.split(' ');
    let (kind, source, options) = (after.next()?.to_owned(), unescape(after.next()?), after.next().unwrap_or_default());
    let writable = options.split(',').any(|option| option == "rw");
    Some(Mounted { device: (*fields.get(2)?).to_owned(), path: unescape(fields.get(4)?).into(), kind, source, writable })
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

async fn succeed(command: &mut Command, patience: Duration) -> Result<(), ApiError> {
    let done = run(command, patience).await?;
    match done.status.success() {
        true => Ok(()),
        false => Err(ApiError::new(Code::Storage, format_args!("{}: {}", shown(command), words(&done)))),
    }
}

async fn run(command: &mut Command, patience: Duration) -> Result<std::process::Output, ApiError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).env("LC_ALL", "C");
    match timeout(patience, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let program = command.as_std().get_program().to_string_lossy().into_owned();
            Err(ApiError::new(Code::Io, format_args!("there is no program '{program}' on this node"))
                .hint("install the file system's tools: e2fsprogs, xfsprogs or btrfs-progs, and util-linux"))
        }
        Ok(Err(error)) => Err(ApiError::new(Code::Io, format_args!("{}: {error}", shown(command)))),
        Err(_) => {
            Err(ApiError::new(Code::TimedOut, format_args!("{} did not end within {} s", shown(command), patience.as_secs())))
        }
    }
}

fn shown(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// What a program said, in one line.
fn words(done: &std::process::Output) -> String {
    let all = [&done.stderr[..], &done.stdout[..]].map(|text| String::from_utf8_lossy(text).into_owned());
    // How a program is used is no reason why it failed.
    let told = all.iter().flat_map(|text| text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")));
    let lines: Vec<&str> = told.filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { done.status.to_string() } else { lines.join("; ") }
}

/// Options with which another device is mounted than the one that was named, or nothing new, or elsewhere.
const FOREIGN: &[&str] = &["loop", "offset", "sizelimit", "remount", "bind", "rbind", "move"];
/// How much of a device is looked at, at either end: what programs keep on raw devices begins there.
const LOOKED_AT: u64 = 2 << 20;
const LOOK: Duration = Duration::from_secs(30);
const MAKE: Duration = Duration::from_secs(600);
const CHECK: Duration = Duration::from_secs(300);
const UNMOUNT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_odd_names() {
        let line = r"36 35 7:3 / /mnt/a\040b\134c rw,noatime shared:1 master:2 - ext4 /dev/loop3 rw";
        let mount = parse_mount(line).unwrap();
        assert_eq!((mount.device.as_str(), mount.source.as_str()), ("7:3", "/dev/loop3"));
        assert_eq!(mount.path, Path::new(r"/mnt/a b\c"));
        assert_eq!((mount.kind.as_str(), mount.writable), ("ext4", true));
        assert!(parse_mount("36 35 7:3 / /mnt").is_none());
    }

    #[test]
    fn options_that_lead_away_from_the_volume_are_refused() {
        for options in ["loop", "noatime,loop=/dev/loop7", "remount", "nodev, bind", "offset=4096"] {
            assert!(check_mount_options(options).unwrap_err().contains("mount option"), "{options}");
        }
        for options in ["", "noatime,nodiratime", "ro", "errors=remount-ro", "data=journal"] {
            assert_eq!(check_mount_options(options), Ok(()), "{options}");
        }
        for options in ["/dev/sdb", "-l logdev=/dev/sdb1", "-J device=/dev/sdb"] {
            assert!(check_mkfs_options(options).unwrap_err().contains("another device"), "{options}");
        }
        assert_eq!(check_mkfs_options("-L web -m 0 -O ^has_journal"), Ok(()));
    }

    #[tokio::test]
    async fn a_device_without_a_signature_is_known_from_one_with() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 << 20).unwrap();
        assert_eq!(probe(file.path()).await.unwrap(), None);
        assert!(is_blank(file.path(), 64 << 20).await.unwrap());
        make(file.path(), FileSystem::Ext4, "-L blkrep").await.unwrap();
        assert_eq!(probe(file.path()).await.unwrap().as_deref(), Some("ext4"));
        assert!(!is_blank(file.path(), 64 << 20).await.unwrap());
        check(file.path(), FileSystem::Ext4).await.unwrap();
        assert!(make(file.path(), FileSystem::Ext4, "--no-such-option").await.unwrap_err().message.contains("mkfs.ext4"));
    }
}
