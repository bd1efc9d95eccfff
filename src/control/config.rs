//! A node's own settings (`etc/blkrep.toml`) and who it is (`var/lib/blkrep/node.json`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::tls::write_private;
use crate::api::setup::Root;
use crate::api::{ApiError, Code};
use crate::cluster::{NodeKind, Ports};
use crate::units::{ClusterId, Name, NodeId};

/// What an operator may change between two starts of the daemon. Name, address and ports are the cluster's business, too: it goes by
/// those that the node joined with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The node's name.
    pub name: Name,
    /// Its address for its peers.
    pub address: IpAddr,
    /// What it is for.
    #[serde(default)]
    pub kind: NodeKind,
    /// Its pool, `lvm:GROUP` or `file:DIRECTORY`; absent on a node without storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Where NBD clients reach it over TCP; absent for its unix socket alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbd: Option<SocketAddr>,
    /// Where the Docker plugin listens; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<PathBuf>,
    /// Its ports.
    #[serde(default)]
    pub ports: Ports,
    /// Options of Docker volumes for which nothing is said when they are created, as `docker volume create -o` takes them.
    #[serde(default, rename = "docker-defaults", skip_serializing_if = "BTreeMap::is_empty")]
    pub docker_defaults: BTreeMap<String, String>,
}

/// Who the node is. The file's presence is what makes a directory a member's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The members and their certificates' fingerprints when it joined, until it knows better.
    pub told: Vec<(NodeId, String)>,
}

/// Files of a node's state.
pub(super) fn membership_file(root: &Root) -> PathBuf {
    root.state().join("node.json")
}

pub(super) fn consensus_file(root: &Root) -> PathBuf {
    root.state().join("control.redb")
}

pub(super) fn tls_directory(root: &Root) -> PathBuf {
    root.state().join("tls")
}

impl Config {
    /// Reads the file.
    pub fn load(root: &Root) -> Result<Self, ApiError> {
        let path = root.config_file();
        let text = fs::read_to_string(&path).map_err(|error| unusable(&path, &error))?;
        toml::from_str(&text).map_err(|error| {
            ApiError::new(Code::Io, format_args!("{} cannot be used: {error}", path.display())).hint("correct it and start again")
        })
    }

    /// Writes it, with a word on each setting.
    pub fn store(&self, root: &Root) -> Result<(), ApiError> {
        let path = root.config_file();
        let body = toml::to_string(self).map_err(|error| ApiError::new(Code::Internal, error))?;
        let text = format!("# This node's own settings; see blkrep.toml(5). Read when the daemon starts.\n{body}");
        let directory = path.parent().expect("it is below the root").to_owned();
        fs::create_dir_all(&directory)
            .and_then(|()| write_private(&path, text.as_bytes()))
            .map_err(|error| unusable(&path, &error))
    }
}

impl Membership {
    /// Reads the file; `None` when the node is a member of no cluster.
    pub fn load(root: &Root) -> Result<Option<Self>, ApiError> {
        let path = membership_file(root);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| unusable(&path, &io::Error::new(io::ErrorKind::InvalidData, error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(&path, &error)),
        }
    }

    /// Writes it, last of all.
    pub fn store(&self, root: &Root) -> Result<(), ApiError> {
        let path = membership_file(root);
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| ApiError::new(Code::Internal, error))?;
        write_private(&path, &bytes).map_err(|error| unusable(&path, &error))
    }
}

/// A file of this machine that failed.
pub(super) fn unusable(path: &std::path::Path, error: &io::Error) -> ApiError {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "the daemon and `init` and `join` want to be root, or a --root that belongs to you",
        io::ErrorKind::NotFound => "is this node a member of a cluster? `blkrep init` or `blkrep join` make it one",
        io::ErrorKind::StorageFull => "make room on that file system",
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            "it is damaged: restore it, or have this node removed from the cluster and join it again"
        }
        _ => "check the file system",
    };
    ApiError::new(Code::Io, format_args!("{}: {error}", path.display())).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let config = Config {
            name: "alpha".parse().unwrap(),
            address: "10.43.100.2".parse().unwrap(),
            kind: NodeKind::Storage,
            pool: Some("lvm:drbdpool".into()),
            nbd: Some("127.0.0.1:10809".parse().unwrap()),
            docker: Some("/run/docker/plugins/blkrep.sock".into()),
            ports: Ports { control: 6999, replication: 7000, nbd: 10809 },
            docker_defaults: BTreeMap::from([("fs".to_owned(), "xfs".to_owned())]),
        };
        config.store(&root).unwrap();
        assert_eq!(Config::load(&root).unwrap(), config);
        assert_eq!(Membership::load(&root).unwrap(), None);
    }

    #[test]
    fn a_misspelt_setting_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(root.config_file().parent().unwrap()).unwrap();
        fs::write(root.config_file(), "name = 'a'\naddress = '127.0.0.1'\nadress = '127.0.0.2'\n").unwrap();
        let error = Config::load(&root).unwrap_err();
        assert!(error.message.contains("adress"), "{error}");
    }
}
