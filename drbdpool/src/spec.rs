//! How a pool is written: `lvm:VG`, `lvm-thin:VG/POOL`, `file:DIR` or `file-thin:DIR`.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::PoolError;
use crate::lvm::{valid_thin_pool, valid_volume_group};

/// Names a pool. Written and read as `lvm:VG`, `lvm-thin:VG/POOL`, `file:DIR` or `file-thin:DIR`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PoolSpec {
    /// A volume group; its volumes are thick logical volumes.
    Lvm {
        /// The volume group's name.
        volume_group: String,
    },
    /// A thin pool in a volume group; its volumes take space when they are written.
    LvmThin {
        /// The volume group's name.
        volume_group: String,
        /// The thin pool's name.
        thin_pool: String,
    },
    /// A directory; its volumes are files that are allocated in full.
    File {
        /// The directory, absolute.
        directory: PathBuf,
    },
    /// A directory; its volumes are sparse files.
    FileThin {
        /// The directory, absolute.
        directory: PathBuf,
    },
}

/// The kinds of pools and what follows their colon, as an error message lists them.
const KINDS: [(&str, &str); 4] = [("lvm", "VG"), ("lvm-thin", "VG/POOL"), ("file", "DIR"), ("file-thin", "DIR")];

impl PoolSpec {
    /// Whether volumes take space when they are written, and not when they are created.
    pub fn is_thin(&self) -> bool {
        matches!(self, Self::LvmThin { .. } | Self::FileThin { .. })
    }
}

impl FromStr for PoolSpec {
    type Err = PoolError;

    fn from_str(spec: &str) -> Result<Self, PoolError> {
        let bad = |why: &str| PoolError::BadSpec { spec: spec.to_owned(), why: why.to_owned() };
        let Some((kind, place)) = spec.split_once(':') else {
            return Err(bad(&format!("it names no kind of pool; write {}", known_kinds())));
        };
        match kind {
            "lvm" => match valid_volume_group(place) {
                Ok(()) => Ok(Self::Lvm { volume_group: place.to_owned() }),
                Err(why) => Err(bad(why)),
            },
            "lvm-thin" => {
                let Some((volume_group, thin_pool)) = place.split_once('/') else {
                    return Err(bad("it names no thin pool; write lvm-thin:VG/POOL"));
                };
                match valid_volume_group(volume_group).and_then(|()| valid_thin_pool(thin_pool)) {
                    Ok(()) => Ok(Self::LvmThin { volume_group: volume_group.to_owned(), thin_pool: thin_pool.to_owned() }),
                    Err(why) => Err(bad(why)),
                }
            }
            "file" => match valid_directory(place) {
                Ok(directory) => Ok(Self::File { directory }),
                Err(why) => Err(bad(why)),
            },
            "file-thin" => match valid_directory(place) {
                Ok(directory) => Ok(Self::FileThin { directory }),
                Err(why) => Err(bad(why)),
            },
            _ => Err(bad(&format!("'{kind}' is no known kind of pool; write {}", known_kinds()))),
        }
    }
}

impl fmt::Display for PoolSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lvm { volume_group } => write!(f, "lvm:{volume_group}"),
            Self::LvmThin { volume_group, thin_pool } => write!(f, "lvm-thin:{volume_group}/{thin_pool}"),
            Self::File { directory } => write!(f, "file:{}", directory.display()),
            Self::FileThin { directory } => write!(f, "file-thin:{}", directory.display()),
        }
    }
}

fn known_kinds() -> String {
    KINDS.map(|(kind, place)| format!("{kind}:{place}")).join(" or ")
}

/// Brings a directory's name into the one form it is compared and shown in. `..` is refused because what it means depends on
/// symbolic links, which may change between two starts.
fn valid_directory(directory: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(directory);
    if !path.is_absolute() {
        return Err("the directory must be an absolute path");
    }
    if directory.contains(char::is_control) {
        return Err("the directory's name cannot contain control characters");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err("the directory cannot contain '..'");
    }
    let tidy: PathBuf = path.components().collect();
    if tidy == Path::new("/") {
        return Err("the root directory cannot be a pool");
    }
    Ok(tidy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn specs_are_read_as_they_are_written() {
        for spec in
            ["lvm:drbdpool", "lvm:vg-0.x+y_z", "lvm-thin:vg/thin", "file:/var/lib/blkrep/pool", "file-thin:/srv/t", "file:/a b"]
        {
            assert_eq!(spec.parse::<PoolSpec>().unwrap().to_string(), spec);
        }
        assert_eq!("file:/a//b/./c/".parse::<PoolSpec>().unwrap().to_string(), "file:/a/b/c");
    }

    #[test]
    fn what_is_no_spec_is_refused_with_what_would_be_one() {
        for bad in ["", "drbdpool", "lvm", "zfs:tank", "lvmthin:vg/pool", "LVM:vg", ":vg"] {
            let error = bad.parse::<PoolSpec>().unwrap_err().to_string();
            assert!(error.contains("lvm:VG or lvm-thin:VG/POOL or file:DIR or file-thin:DIR"), "{bad:?}: {error}");
        }
        for bad in ["lvm:", "lvm:-x", "lvm:.", "lvm:..", "lvm:a/b", "lvm:a b", "lvm:ä", "lvm:@tag"] {
            assert!(bad.parse::<PoolSpec>().is_err(), "{bad:?} was taken");
        }
        for bad in [
            "lvm-thin:",
            "lvm-thin:vg",
            "lvm-thin:vg/",
            "lvm-thin:/p",
            "lvm-thin:vg/-p",
            "lvm-thin:vg/a/b",
            "lvm-thin:vg/x_tdata",
        ] {
            assert!(bad.parse::<PoolSpec>().is_err(), "{bad:?} was taken");
        }
        for bad in ["file-thin:", "file:", "file:relative", "file:/", "file://", "file:/a/../b", "file:/a\nb"] {
            assert!(bad.parse::<PoolSpec>().is_err(), "{bad:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn any_spec_that_is_taken_survives_a_round_trip(spec in "(lvm|file|lvm-thin|file-thin):/?[ -~]{0,20}") {
            if let Ok(parsed) = spec.parse::<PoolSpec>() {
                prop_assert_eq!(parsed.to_string().parse::<PoolSpec>().unwrap(), parsed);
            }
        }
    }
}
