//! What a volume can be made of without copying: a logical volume or file that exists.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Device, PoolError, VolumeName};

/// A logical volume or file that [`Adoption::adopt`] makes a volume.
///
/// Written as `GROUP/VOLUME` or `/dev/GROUP/VOLUME`, or as a file's full path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Adoptable {
    /// A logical volume.
    LogicalVolume {
        /// Its volume group.
        volume_group: String,
        /// Its name.
        name: String,
    },
    /// A file, by its full path.
    File(PathBuf),
}

impl FromStr for Adoptable {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let bad = |why: &str| PoolError::NotAdoptable { what: text.to_owned(), why: why.to_owned() };
        if let Some(mapped) = text.strip_prefix("/dev/mapper/") {
            return Err(bad(&format!("write a logical volume as GROUP/VOLUME ('lvs' shows both for {mapped})")));
        }
        let plain = |name: &str| !name.is_empty() && !name.starts_with(['-', '.']) && !name.contains('/');
        match text.strip_prefix("/dev/").unwrap_or(text).split_once('/') {
            Some((volume_group, name)) if !text.starts_with('/') || text.starts_with("/dev/") => {
                if !plain(volume_group) || !plain(name) {
                    return Err(bad("write a logical volume as GROUP/VOLUME, and a file with its full path"));
                }
                Ok(Self::LogicalVolume { volume_group: volume_group.to_owned(), name: name.to_owned() })
            }
            _ if text.starts_with("/dev/") => {
                Err(bad("it is a whole device; make a volume group of an empty one, or copy what it holds into a volume"))
            }
            _ if Path::new(text).is_absolute() => Ok(Self::File(PathBuf::from(text))),
            _ => Err(bad("write a logical volume as GROUP/VOLUME, and a file with its full path")),
        }
    }
}

impl fmt::Display for Adoptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogicalVolume { volume_group, name } => write!(f, "{volume_group}/{name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Adoptable {
    /// The error that it cannot be adopted, and why.
    pub(crate) fn refused(&self, why: impl Into<String>) -> PoolError {
        PoolError::NotAdoptable { what: self.to_string(), why: why.into() }
    }
}

/// Making what others made a pool's volumes.
pub trait Adoption {
    /// The size in bytes of a logical volume or file that [`adopt`](Self::adopt) could make `volume` now.
    ///
    /// # Errors
    ///
    /// [`PoolError::NotAdoptable`] says why it could not: it is in use, somebody's, a part of something, not of whole blocks, elsewhere, or
    /// the name is taken; [`PoolError::OtherPools`] that another pool of the same volume group could. [`PoolError::NoSpace`] where its holes need more than there is.
    fn adoptable(&self, source: &Adoptable, volume: &VolumeName) -> Result<u64, PoolError>;

    /// Makes a logical volume or file, with all that is on it, a volume of this pool, ready for use; nothing is copied or written. When
    /// the process dies on the way it is as it was, or it is the volume. One that is the volume already is answered as it is.
    ///
    /// # Errors
    ///
    /// Those of [`adoptable`](Self::adoptable).
    fn adopt(&self, source: &Adoptable, volume: &VolumeName) -> Result<Device, PoolError>;

    /// Undoes [`adopt`](Self::adopt): the volume is nobody's again, has its former name where that is free, and keeps what is on it.
    /// Nothing when there is no such volume.
    ///
    /// # Errors
    ///
    /// [`PoolError::InUse`].
    fn disown(&self, volume: &VolumeName, source: &Adoptable) -> Result<(), PoolError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_volumes_and_files_are_told_apart_by_how_they_are_written() {
        let lv = Adoptable::LogicalVolume { volume_group: "vg0".to_owned(), name: "web".to_owned() };
        assert_eq!("vg0/web".parse::<Adoptable>().unwrap(), lv);
        assert_eq!("/dev/vg0/web".parse::<Adoptable>().unwrap(), lv);
        assert_eq!("/srv/pool/web.img".parse::<Adoptable>().unwrap(), Adoptable::File("/srv/pool/web.img".into()));
        for text in ["vg0/web", "/srv/pool/web.img"] {
            assert_eq!(text.parse::<Adoptable>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_what_would_be_right() {
        for (bad, remedy) in [
            ("web", "GROUP/VOLUME"),
            ("a/b/c", "full path"),
            ("/dev/mapper/vg0-web", "GROUP/VOLUME"),
            ("/dev/sdb", "volume group"),
            ("vg0/-f", "GROUP/VOLUME"),
            ("./x", "full path"),
            ("", "full path"),
        ] {
            let error = bad.parse::<Adoptable>().unwrap_err().to_string();
            assert!(error.contains(remedy), "{bad}: {error}");
        }
    }
}
