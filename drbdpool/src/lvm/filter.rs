//! Which devices LVM must not look at.
//!
//! LVM reads the beginning of every block device. One that is served by this very daemon, through the kernel's NBD client or a
//! loop device over FUSE, answers only if the daemon can: while a volume's I/O is suspended every LVM command would hang, and a
//! guest's physical volumes inside a volume would be taken for the host's.

use std::fs;
use std::path::Path;

/// Where the rejections go among what the administrator has configured. LVM has two filters and wants both to accept a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    setting: &'static str,
    /// The administrator's patterns of that setting, which come after ours.
    patterns: String,
    /// The kinds of network block devices that are rejected.
    rejected: Vec<&'static str>,
}

/// The kinds of network block devices that a volume can be attached as.
const NETWORK: [&str; 2] = ["nbd", "drbd"];

impl Default for Place {
    fn default() -> Self {
        Self::beside("")
    }
}

impl Place {
    /// Finds the place beside what `lvmconfig devices/filter devices/global_filter` shows. Kinds of devices that the administrator
    /// accepts by name are left to him.
    pub(super) fn beside(configured: &str) -> Self {
        let (filter, global) = (setting(configured, "filter"), setting(configured, "global_filter"));
        let accepted = |kind: &&str| [filter, global].into_iter().flatten().any(|patterns| accepts(patterns, kind));
        let rejected = NETWORK.into_iter().filter(|kind| !accepted(kind)).collect();
        match (filter, global) {
            (None, _) => Self { setting: "devices/filter", patterns: String::new(), rejected },
            (Some(_), None) => Self { setting: "devices/global_filter", patterns: String::new(), rejected },
            (Some(patterns), Some(_)) => Self { setting: "devices/filter", patterns: patterns.to_owned(), rejected },
        }
    }

    /// The setting, for `--config`. Made anew for each command: loop devices come and go.
    pub(super) fn config(&self) -> String {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        self.config_with(loops_over_fuse(Path::new("/sys/block"), &mounts))
    }

    fn config_with(&self, loops: Vec<String>) -> String {
        let network = self.rejected.iter().map(|kind| format!("^/dev/{kind}[0-9]"));
        let loops = loops.into_iter().map(|name| format!("^/dev/{name}(p[0-9]+)?$"));
        let mut list: Vec<_> = network.chain(loops).map(|pattern| format!("\"r|{pattern}|\"")).collect();
        if !self.patterns.is_empty() {
            list.push(self.patterns.clone());
        }
        // An empty list would not be LVM's default, which accepts all.
        if list.is_empty() {
            return String::new();
        }
        format!("{}=[{}]", self.setting, list.join(","))
    }
}

/// The patterns of a setting, quoted and with commas between them.
fn setting<'a>(configured: &'a str, name: &str) -> Option<&'a str> {
    let list = configured.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
    Some(list.trim().trim_start_matches('[').trim_end_matches(']'))
}

/// Whether one of the patterns accepts devices of a kind by name: `drbd1` is of the kind `drbd`, the volume group `drbdpool` is not.
fn accepts(patterns: &str, kind: &str) -> bool {
    let names_kind = |pattern: &str| pattern.split(kind).skip(1).any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()));
    patterns.split('"').any(|pattern| pattern.starts_with('a') && names_kind(pattern))
}

/// The loop devices over files of FUSE file systems. Nothing but the kernel is asked: the file system itself may not answer.
fn loops_over_fuse(block: &Path, mounts: &str) -> Vec<String> {
    let fuse = fuse_mounts(mounts);
    if fuse.is_empty() {
        return Vec::new();
    }
    let Ok(devices) = fs::read_dir(block) else { return Vec::new() };
    let mut names: Vec<_> = devices
        .flatten()
        .filter(|device| {
            let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
            fuse.iter().any(|mount| Path::new(backing.trim_end()).starts_with(mount))
        })
        .map(|device| device.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The places where FUSE file systems are mounted, of a `mountinfo`: the fifth field of lines whose type, the first after ` - `, is
/// fuse. A file system that is mounted below one of them is taken for FUSE too, which LVM can do without.
fn fuse_mounts(mounts: &str) -> Vec<String> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let fuse = kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.");
        fuse.then(|| before.split(' ').nth(4).map(unescape))?
    };
    mounts.lines().filter_map(mount).collect()
}

/// Undoes what the kernel writes for blanks in paths.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (code, plain)| path.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(configured: &str, loops: &[&str]) -> String {
        Place::beside(configured).config_with(loops.iter().map(|&name| name.to_owned()).collect())
    }

    const BOTH: &str = "\"r|^/dev/nbd[0-9]|\",\"r|^/dev/drbd[0-9]|\"";

    #[test]
    fn rejections_are_put_where_the_administrator_has_nothing() {
        assert_eq!(config("", &[]), format!("devices/filter=[{BOTH}]"));
        assert_eq!(config("global_filter=[\"a|.*|\"]\n", &[]), format!("devices/filter=[{BOTH}]"));
        assert_eq!(config("filter=[\"a|sda|\",\"r|.*|\"]\n", &[]), format!("devices/global_filter=[{BOTH}]"));
        let both = "filter=[\"a|sda|\",\"r|.*|\"]\nglobal_filter=\"a|.*|\"\n";
        assert_eq!(config(both, &[]), format!("devices/filter=[{BOTH},\"a|sda|\",\"r|.*|\"]"));
    }

    #[test]
    fn kinds_that_the_administrator_accepts_by_name_are_left_to_him() {
        let drbd = "devices/global_filter=[\"r|^/dev/drbd[0-9]|\"]";
        assert_eq!(config("filter=[\"a|/dev/nbd0|\",\"r|.*|\"]\n", &[]), drbd);
        assert_eq!(config("filter=[\"a|nbd|\",\"a|drbd.*|\"]\n", &[]), "");
        assert_eq!(
            config("filter=[\"a|nbd|\",\"a|drbd.*|\"]\n", &["loop3"]),
            "devices/global_filter=[\"r|^/dev/loop3(p[0-9]+)?$|\"]"
        );
        // To reject them, or to accept a volume group of that name, is something else.
        for other in ["\"r|^/dev/drbd|\",\"r|/dev/nbd|\"", "\"a|/dev/mapper/drbdpool-.*|\",\"a|.*|\""] {
            assert_eq!(config(&format!("filter=[{other}]\n"), &[]), format!("devices/global_filter=[{BOTH}]"));
        }
    }

    #[test]
    fn loop_devices_over_fuse_are_found_without_touching_them() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            99 22 0:45 / /run/blk\\040rep/web rw,nosuid master:3 - fuse.blkrep blkrep rw,user_id=0\n\
            98 22 0:46 / /run/plain rw - fuseblk x rw\n97 22 0:47 / /fusectl rw - fusectl x rw\n";
        let block = tempfile::tempdir().unwrap();
        for (name, backing) in [
            ("loop0", "/run/blk rep/web/volume\n"),
            ("loop1", "/var/image\n"),
            ("loop2", "/run/blk rep/website/volume\n"),
            ("loop3", "/run/plain/x\n"),
            ("loop4", "/fusectl/x\n"),
        ] {
            fs::create_dir_all(block.path().join(name).join("loop")).unwrap();
            fs::write(block.path().join(name).join("loop/backing_file"), backing).unwrap();
        }
        fs::create_dir(block.path().join("sda")).unwrap();
        assert_eq!(loops_over_fuse(block.path(), mounts), ["loop0", "loop3"]);
    }
}
