//! Volumes of Docker's: resources with one volume and notes on its file system.

use serde::{Deserialize, Serialize};

use super::attachments::FileSystem;
use super::options::OptionValues;
use super::status::ResourceStatus;
use crate::units::Name;

/// What a Docker volume's file system is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DockerSettings {
    /// Its kind.
    pub fs: FileSystem,
    /// More options of mkfs, separated by spaces.
    #[serde(default)]
    pub mkfs_options: String,
    /// More options of mount, separated by commas.
    #[serde(default)]
    pub mount_options: String,
    /// The owner of the new volume's directory.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Its group.
    #[serde(default)]
    pub gid: Option<u32>,
    /// Volumes of the same group have their replicas on the same nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
}

/// Where replicas go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// Two, or one where only one node has storage.
    Usual,
    /// So many.
    Count(u32),
    /// On these nodes.
    Nodes(Vec<Name>),
}

/// Adds a Docker volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDockerVolume {
    /// Its name, and the resource's.
    pub name: Name,
    /// Its size in bytes; rounded up to whole blocks.
    pub bytes: u64,
    /// Where its replicas go.
    pub spread: Spread,
    /// The pool that its replicas lie in; each node's default one when absent.
    #[serde(default)]
    pub pool: Option<Name>,
    /// Options of the resource.
    #[serde(default)]
    pub options: OptionValues,
    /// Its file system.
    pub settings: DockerSettings,
}

/// Asks for Docker volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListDockerVolumes {
    /// This one only; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

/// A Docker volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DockerVolume {
    /// Its resource.
    pub resource: ResourceStatus,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Its file system.
    pub settings: DockerSettings,
}
