//! Whether a block device is empty, so that a pool may be made of it.
//!
//! What is found is named, and nothing is ever wiped: that is for its owner to do.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::Deserialize;

use crate::{CommandFailure, Outcome, PoolError};

/// Refuses a device that holds anything: partitions, a mounted file system, swap space, a part of a volume group or array, the
/// signature of any of these, or somebody who has it open.
pub(crate) fn check_empty(path: &Path) -> Result<(), PoolError> {
    let holds = |what: String| Err(PoolError::DeviceInUse { device: path.to_owned(), what });
    let metadata = fs::metadata(path).map_err(PoolError::io("examine", path))?;
    if !metadata.file_type().is_block_device() {
        return Err(PoolError::NoDevice { device: path.to_owned() });
    }
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let system = format!("/sys/dev/block/{major}:{minor}");
    if let Some(what) = users(Path::new(&system), &format!("{major}:{minor}"), metadata.rdev()) {
        return holds(what);
    }
    let found = signatures(path)?;
    if !found.is_empty() {
        return holds(format!("the signature of {}", found.join(", ")));
    }
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    match OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => holds("something that another process uses".to_owned()),
        Err(error) => Err(PoolError::io("open", path)(error)),
    }
}

/// What the kernel knows of a device's use.
fn users(system: &Path, number: &str, device: u64) -> Option<String> {
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        names.sort();
        names
    };
    let shown = |paths: &[std::path::PathBuf]| {
        let names: Vec<_> = paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
        names.join(", ")
    };
    let partitions: Vec<_> = names(system).into_iter().filter(|path| path.join("partition").exists()).collect();
    if !partitions.is_empty() {
        return Some(format!("partitions ({})", shown(&partitions)));
    }
    if let Some(at) = mounted_at(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), number) {
        return Some(format!("a file system that is mounted at {at}"));
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let is_device = |path: &str| fs::metadata(path).is_ok_and(|swap| swap.rdev() == device);
    if swap_devices(&swaps).any(is_device) {
        return Some("swap space in use".to_owned());
    }
    let holders = names(&system.join("holders"));
    (!holders.is_empty()).then(|| format!("something that is in use ({})", shown(&holders)))
}

/// Where the device of that number is mounted, if it is: the third and fifth fields of a `mountinfo`.
fn mounted_at<'a>(mounts: &'a str, number: &str) -> Option<&'a str> {
    let mut lines = mounts.lines().map(|line| line.split(' '));
    lines.find_map(|mut fields| (fields.nth(2)? == number).then(|| fields.nth(1))?)
}

/// The paths of a `/proc/swaps`, whose first line is a heading.
fn swap_devices(swaps: &str) -> impl Iterator<Item = &str> {
    swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next())
}

/// The kinds of everything whose signature is on a device, as `wipefs` names them (`gpt`, `ext4`, `LVM2_member`, `swap` …).
fn signatures(path: &Path) -> Result<Vec<String>, PoolError> {
    let failed = |outcome, stderr| {
        let command = format!("wipefs --no-act --json -- {}", path.display());
        PoolError::from(Box::new(CommandFailure { command, outcome, stderr }))
    };
    let args = ["--no-act".as_ref(), "--json".as_ref(), "--".as_ref(), path.as_os_str()];
    let command = duct::cmd("wipefs", args).stdin_null().stdout_capture().stderr_capture().unchecked().env("LC_ALL", "C");
    let output = command.run().map_err(|error| failed(Outcome::NotRun(error), String::new()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(Outcome::Exited(output.status.to_string()), stderr));
    }
    parse_signatures(&output.stdout)
        .map_err(|why| PoolError::Report { command: format!("wipefs --json {}", path.display()), why })
}

fn parse_signatures(json: &[u8]) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Answer {
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        #[serde(rename = "type")]
        kind: String,
    }
    // Older versions print nothing at all when there is nothing.
    if json.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let answer: Answer = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut kinds: Vec<_> = answer.signatures.into_iter().map(|signature| signature.kind).collect();
    // A GPT has two, and a copy of the other kind.
    kinds.dedup();
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_and_swaps_are_found_by_the_device() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n40 22 7:3 / /mnt/x rw - xfs /dev/loop3 rw\n";
        assert_eq!(mounted_at(mounts, "7:3"), Some("/mnt/x"));
        assert_eq!(mounted_at(mounts, "7:31"), None);
        let swaps = "Filename\tType\tSize\tUsed\tPriority\n/dev/sdb2 partition 1048572 0 -2\n/swapfile file 10 0 -3\n";
        assert_eq!(swap_devices(swaps).collect::<Vec<_>>(), ["/dev/sdb2", "/swapfile"]);
    }

    #[test]
    fn signatures_are_read_by_their_kinds() {
        let two = br#"{"signatures": [{"device":"loop0","offset":"0x200","type":"gpt","uuid":null,"label":null},
            {"device":"loop0","offset":"0x1fe","type":"gpt","uuid":null,"label":null},{"type":"PMBR"}]}"#;
        assert_eq!(parse_signatures(two).unwrap(), ["gpt", "PMBR"]);
        assert!(parse_signatures(br#"{"signatures": []}"#).unwrap().is_empty());
        assert!(parse_signatures(b"").unwrap().is_empty());
        assert!(parse_signatures(b"{}").is_err());
    }

    #[test]
    fn what_is_no_block_device_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(check_empty(file.path()), Err(PoolError::NoDevice { .. })));
        assert!(matches!(check_empty(Path::new("/dev/nonexistent")), Err(PoolError::Io { .. })));
    }
}
