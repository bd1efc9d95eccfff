//! Volumes as local block devices, and file systems on them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::units::{Name, VolumeId};

/// Makes a volume a block device of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// The resource.
    pub resource: Name,
    /// The volume; 0 when absent.
    #[serde(default)]
    pub volume: Option<VolumeId>,
    /// The node; the one that is asked when absent.
    #[serde(default)]
    pub node: Option<Name>,
    /// Writes to the device are refused.
    #[serde(default)]
    pub read_only: bool,
    /// Refused when the volume is attached here already, and whoever comes later is refused.
    #[serde(default)]
    pub exclusive: bool,
    /// Attached again when the daemon starts and it is not there.
    #[serde(default)]
    pub persistent: bool,
    /// What makes the block device; the kernel's NBD client where there is one, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// How many sockets the kernel's NBD client has; one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sockets: Option<u32>,
}

/// What makes a block device of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// A process that serves a file by FUSE, and a loop device on that.
    #[default]
    Fuse,
    /// The kernel's NBD client.
    Nbd,
}

impl Via {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Fuse, Self::Nbd];
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fuse => "fuse",
            Self::Nbd => "nbd",
        })
    }
}

impl FromStr for Via {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|via| via.to_string() == text);
        found.ok_or_else(|| format!("'{text}' is no way to make a block device; there are nbd and fuse"))
    }
}

/// Takes a volume's block device away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// The resource.
    pub resource: Name,
    /// The volume; 0 when absent.
    #[serde(default)]
    pub volume: Option<VolumeId>,
    /// The node; the one that is asked when absent.
    #[serde(default)]
    pub node: Option<Name>,
}

/// Asks for attachments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAttachments {
    /// Of this resource only; of all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Name>,
    /// On this node only; on all that answer when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
}

/// A volume that is a block device of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The node.
    pub node: Name,
    /// The resource.
    pub resource: Name,
    /// The volume.
    pub volume: VolumeId,
    /// The block device.
    pub device: PathBuf,
    /// What makes it.
    #[serde(default)]
    pub via: Via,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// Whether nobody else may attach the volume on this node.
    pub exclusive: bool,
    /// Whether it comes back after a restart of the machine.
    pub persistent: bool,
    /// Where it is mounted, as the daemon sees it.
    pub mounts: Vec<PathBuf>,
}

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
}

impl FileSystem {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// Its name, as mount(8) takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// How many bytes its mkfs wants at least.
    pub const fn smallest(self) -> u64 {
        match self {
            Self::Ext4 => 0,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 109 << 20,
        }
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for FileSystem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| format!("'{text}' is no file system that blkrep can make; it makes ext4, xfs and btrfs"))
    }
}

/// Attaches a volume on the node that is asked, and mounts its file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The resource.
    pub resource: Name,
    /// The volume; 0 when absent.
    #[serde(default)]
    pub volume: Option<VolumeId>,
    /// An empty directory, from `/` on.
    pub path: PathBuf,
    /// The file system that is to be there, or to be made; absent: whatever is there, and ext4 to be made.
    #[serde(default)]
    pub fs: Option<FileSystem>,
    /// Makes the file system when the volume is new and holds nothing.
    #[serde(default)]
    pub mkfs: bool,
    /// More options of mkfs, separated by spaces.
    #[serde(default)]
    pub mkfs_options: String,
    /// More options of mount, separated by commas.
    #[serde(default)]
    pub mount_options: String,
    /// Nothing is written, not even a journal replayed.
    #[serde(default)]
    pub read_only: bool,
}

/// A volume that was mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// The block device.
    pub device: PathBuf,
    /// The file system.
    pub fs: FileSystem,
    /// Whether it was made just now.
    pub made: bool,
}

/// Unmounts what was mounted at a directory of the node that is asked, and takes the block device away that was made for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unmount {
    /// The directory.
    pub path: PathBuf,
    /// Also when the volume does not answer: what was not written is lost then.
    #[serde(default)]
    pub lazily: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_written_as_mount_takes_them() {
        for kind in FileSystem::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert!("ext3".parse::<FileSystem>().unwrap_err().contains("ext3"));
    }
}
