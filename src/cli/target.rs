//! What a command is about, as it is typed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::api::setup::PoolChoice;
use crate::units::{Name, PoolKind, VolumeId};

/// `RES` or `RES/VOL`: a resource, or one of its volumes. `RES` alone, where a volume is wanted, means its volume 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The resource.
    pub(super) resource: Name,
    /// The volume's number, when one was named.
    pub(super) volume: Option<VolumeId>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (resource, volume) = match text.split_once('/') {
            None => (text, None),
            Some((resource, volume)) => {
                let number = volume.parse().map_err(|_| format!("'{volume}' is no volume number (0 to 65535)"))?;
                (resource, Some(VolumeId(number)))
            }
        };
        Ok(Self { resource: resource.parse().map_err(|error: crate::units::NameError| error.to_string())?, volume })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.volume {
            None => write!(f, "{}", self.resource),
            Some(volume) => write!(f, "{}/{volume}", self.resource),
        }
    }
}

/// `IP` or `IP:PORT`, or `[IPv6]:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contact {
    /// The address.
    pub(super) address: IpAddr,
    /// The port, when one was named.
    pub(super) port: Option<u16>,
}

impl FromStr for Contact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { address, port: None });
        }
        let both: SocketAddr = text
            .parse()
            .map_err(|_| format!("'{text}' is no IP address: write 10.43.100.2, 10.43.100.2:6999 or [fd00::2]:6999"))?;
        Ok(Self { address: both.ip(), port: Some(both.port()) })
    }
}

/// `lvm:GROUP`, `lvm-thin:GROUP/THINPOOL`, `file:DIRECTORY` or `file-thin:DIRECTORY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolArgument(pub PoolChoice);

impl FromStr for PoolArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is no pool: write lvm:GROUP, lvm-thin:GROUP/THINPOOL, file:DIRECTORY or file-thin:DIRECTORY");
        let (kind, location) = text.split_once(':').ok_or_else(wrong)?;
        let kind = match (kind, location) {
            (_, "") => return Err(wrong()),
            ("lvm", group) if !group.contains('/') => PoolKind::Lvm,
            ("lvm-thin", pool) if pool.split('/').filter(|part| !part.is_empty()).count() == 2 => PoolKind::LvmThin,
            ("file", directory) if directory.starts_with('/') => PoolKind::File,
            ("file-thin", directory) if directory.starts_with('/') => PoolKind::FileThin,
            ("file" | "file-thin", directory) => return Err(format!("the directory '{directory}' must begin with '/'")),
            _ => return Err(wrong()),
        };
        Ok(Self(PoolChoice { kind, location: location.to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_resource_or_one_of_its_volumes() {
        let target =
            |resource: &str, volume: Option<u16>| Target { resource: resource.parse().unwrap(), volume: volume.map(VolumeId) };
        assert_eq!("web".parse(), Ok(target("web", None)));
        assert_eq!("web/3".parse(), Ok(target("web", Some(3))));
        for bad in ["", "/1", "web/", "web/x", "web/1/2", "web/65536", "-x"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?} was taken for a target");
        }
    }

    #[test]
    fn a_contact_may_name_its_port() {
        let contact = |text: &str| text.parse::<Contact>().map(|c| (c.address.to_string(), c.port));
        assert_eq!(contact("10.0.0.1"), Ok(("10.0.0.1".to_owned(), None)));
        assert_eq!(contact("10.0.0.1:70"), Ok(("10.0.0.1".to_owned(), Some(70))));
        assert_eq!(contact("[fd00::2]:70"), Ok(("fd00::2".to_owned(), Some(70))));
        assert_eq!(contact("fd00::2"), Ok(("fd00::2".to_owned(), None)));
        assert!(contact("node2").is_err());
    }

    #[test]
    fn pools_are_named_by_kind_and_place() {
        let pool = |text: &str| text.parse::<PoolArgument>().map(|p| (p.0.kind, p.0.location));
        assert_eq!(pool("lvm:drbdpool"), Ok((PoolKind::Lvm, "drbdpool".to_owned())));
        assert_eq!(pool("lvm-thin:vg/thin"), Ok((PoolKind::LvmThin, "vg/thin".to_owned())));
        assert_eq!(pool("file:/srv/pool"), Ok((PoolKind::File, "/srv/pool".to_owned())));
        for bad in ["drbdpool", "lvm:", "lvm:a/b", "lvm-thin:a", "lvm-thin:a/", "file:pool", "zfs:tank"] {
            assert!(pool(bad).is_err(), "{bad:?} was taken for a pool");
        }
    }
}
