//! What `docker volume create -o` takes, and the defaults of `blkrep.toml`.

use std::collections::BTreeMap;

use crate::api::size::DockerSize;
use crate::api::{AddDockerVolume, ApiError, Code, DockerSettings, FileSystem, OptionValues, Spread};
use crate::attach::filesystem::{check_mkfs_options, check_mount_options};
use crate::units::{Name, Protocol, human_up};

/// The options by name, each with what it means.
pub const OPTIONS: &[(&str, &str)] = &[
    ("size", "the volume's size; a number alone counts MiB [default: 100]"),
    ("replicas", "how many replicas it has [default: 2]"),
    ("nodes", "the nodes with its replicas, separated by commas; instead of replicas"),
    ("group", "a name that it shares with volumes whose replicas lie on the same nodes"),
    ("pool", "the pool that it lies in, on every node [default: each node's default one]"),
    ("fs", "its file system: ext4, xfs or btrfs [default: ext4]"),
    ("mkfs-opts", "more options of mkfs, separated by spaces"),
    ("mount-opts", "more options of mount, separated by commas"),
    ("uid", "the owner of its directory [default: root]"),
    ("gid", "the group of its directory [default: root]"),
    ("protocol", "when a write is answered: A, B or C [default: C]"),
];

/// The volume that was asked for: its options before the `defaults` of this node.
///
/// # Errors
///
/// The name of an option that there is not, or whose value makes no sense.
pub fn parse(
    name: Name,
    asked: &BTreeMap<String, String>,
    defaults: &BTreeMap<String, String>,
) -> Result<AddDockerVolume, ApiError> {
    let known = |key: &&String| !OPTIONS.iter().any(|(name, _)| name == key);
    if let Some(unknown) = asked.keys().chain(defaults.keys()).find(known) {
        let all: Vec<&str> = OPTIONS.iter().map(|(name, _)| *name).collect();
        let hint = format!("the options are {}", all.join(", "));
        return Err(ApiError::new(Code::BadRequest, format_args!("there is no volume option '{unknown}'")).hint(hint));
    }
    // Whoever says how many does not mean the node's own places, and the other way round; a group has places of its own.
    let placed = ["nodes", "replicas", "group"].iter().any(|key| asked.contains_key(*key));
    let is_place = |key: &str| key == "nodes" || key == "replicas";
    let default = |key: &str| defaults.get(key).filter(|_| !(placed && is_place(key)));
    let value = |key: &str| asked.get(key).or_else(|| default(key)).map(|value| value.trim());
    let bad = |key: &str, why: String| ApiError::new(Code::BadRequest, format_args!("volume option {key}: {why}"));
    let number = |key: &str| -> Result<Option<u32>, ApiError> {
        let read = |text: &str| text.parse::<u32>().map_err(|_| bad(key, format!("'{text}' is no number")));
        value(key).map(read).transpose()
    };
    let size: DockerSize = value("size").unwrap_or(SIZE).parse().map_err(|why| bad("size", why))?;
    let fs: FileSystem = value("fs").unwrap_or("ext4").parse().map_err(|why| bad("fs", why))?;
    if size.0 < fs.smallest() {
        let why = format!("{} are too few for {fs}, which takes {} or more", human_up(size.0), human_up(fs.smallest()));
        return Err(bad("size", why));
    }
    let spread = match (value("nodes"), number("replicas")?) {
        (Some(_), Some(_)) => return Err(bad("nodes", "name the nodes, or say how many replicas; not both".into())),
        (Some(nodes), None) => Spread::Nodes(names(nodes).map_err(|why| bad("nodes", why))?),
        (None, Some(0)) => return Err(bad("replicas", "a volume has at least one".into())),
        (None, Some(count)) => Spread::Count(count),
        (None, None) => Spread::Usual,
    };
    let named = |key: &str| value(key).map(|name| name.parse::<Name>().map_err(|error| bad(key, error.to_string()))).transpose();
    let pool = named("pool")?;
    let protocol = match value("protocol") {
        None => None,
        Some("A" | "a") => Some(Protocol::A),
        Some("B" | "b") => Some(Protocol::B),
        Some("C" | "c") => Some(Protocol::C),
        Some(other) => return Err(bad("protocol", format!("'{other}' is none of A, B and C"))),
    };
    let text = |key: &str| value(key).unwrap_or_default().to_owned();
    let owner = |key: &str| match number(key)? {
        // To chown(2) it means: leave it.
        Some(u32::MAX) => Err(bad(key, format!("{} is nobody's", u32::MAX))),
        id => Ok(id),
    };
    let (mkfs_options, mount_options) = (text("mkfs-opts"), text("mount-opts"));
    check_mkfs_options(&mkfs_options).map_err(|why| bad("mkfs-opts", why))?;
    check_mount_options(&mount_options).map_err(|why| bad("mount-opts", why))?;
    if mount_options.split(',').any(|option| option.trim() == "ro") {
        let refusal = bad("mount-opts", "a volume that nobody can write is of no use".to_owned());
        return Err(refusal.hint("`docker run -v NAME:/path:ro` lets one container only read it"));
    }
    let settings =
        DockerSettings { fs, mkfs_options, mount_options, uid: owner("uid")?, gid: owner("gid")?, group: named("group")? };
    let options = OptionValues { protocol, ..OptionValues::default() };
    Ok(AddDockerVolume { name, bytes: size.0, spread, pool, options, settings })
}

fn names(text: &str) -> Result<Vec<Name>, String> {
    let mut all = Vec::new();
    for one in text.split([',', ' ']).filter(|one| !one.is_empty()) {
        let name: Name = one.parse().map_err(|error: crate::units::NameError| error.to_string())?;
        if all.contains(&name) {
            return Err(format!("'{name}' is named twice"));
        }
        all.push(name);
    }
    if all.is_empty() { Err("no node is named".into()) } else { Ok(all) }
}

/// The size of a volume that nobody said a size of.
const SIZE: &str = "100";

#[cfg(test)]
mod tests {
    use super::*;

    fn options(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn volume(asked: &[(&str, &str)], defaults: &[(&str, &str)]) -> Result<AddDockerVolume, String> {
        parse("v".parse().unwrap(), &options(asked), &options(defaults)).map_err(|error| format!("{error} {}", error.hint))
    }

    #[test]
    fn what_is_not_said_is_as_drbdmanages_plugin_had_it() {
        let plain = volume(&[], &[]).unwrap();
        assert_eq!((plain.bytes, plain.spread, plain.settings.fs), (100 << 20, Spread::Usual, FileSystem::Ext4));
        assert_eq!(volume(&[("size", "500")], &[]).unwrap().bytes, 500 << 20);
    }

    #[test]
    fn options_count_before_the_nodes_defaults() {
        let defaults = [("size", "1GiB"), ("fs", "xfs"), ("replicas", "3")];
        let made = volume(&[("size", "10GiB"), ("nodes", "a,b"), ("uid", "33"), ("protocol", "A")], &defaults).unwrap();
        assert_eq!((made.bytes, made.settings.fs, made.settings.uid), (10 << 30, FileSystem::Xfs, Some(33)));
        assert_eq!(made.spread, Spread::Nodes(vec!["a".parse().unwrap(), "b".parse().unwrap()]));
        assert_eq!(made.options.protocol, Some(Protocol::A));
        assert_eq!(volume(&[], &defaults).unwrap().spread, Spread::Count(3));
        let grouped = volume(&[("group", "stack")], &defaults).unwrap();
        assert_eq!((grouped.spread, grouped.settings.group), (Spread::Usual, Some("stack".parse().unwrap())));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (key, value) in [
            ("sise", "1"),
            ("size", "0"),
            ("size", "much"),
            ("fs", "ntfs"),
            ("replicas", "0"),
            ("replicas", "two"),
            ("nodes", ""),
            ("nodes", "a,a"),
            ("nodes", "-"),
            ("uid", "-1"),
            ("gid", "staff"),
            ("gid", "4294967295"),
            ("mount-opts", "noatime,loop"),
            ("mount-opts", "ro"),
            ("mkfs-opts", "-J device=/dev/sdb"),
            ("protocol", "D"),
            ("group", "-fast"),
            ("pool", "-fast"),
        ] {
            let refusal = volume(&[(key, value)], &[]).unwrap_err();
            assert!(refusal.contains(key), "{key}={value}: {refusal}");
        }
        let small = volume(&[("fs", "xfs")], &[]).unwrap_err();
        assert!(small.contains("size") && small.contains("300 MiB"), "{small}");
        assert!(volume(&[("fs", "btrfs"), ("size", "100")], &[]).is_err());
        assert!(volume(&[("fs", "btrfs"), ("size", "110")], &[]).is_ok());
        assert!(volume(&[("nodes", "a"), ("replicas", "1")], &[]).unwrap_err().contains("not both"));
        assert!(volume(&[], &[("color", "red")]).unwrap_err().contains("color"));
    }
}
