//! What volumes are called: `<resource>_<volume, two digits at least>`, and `<resource>_meta` for a replica's metadata.

use std::fmt;
use std::str::FromStr;

use crate::PoolError;

/// A volume of a pool, named after the resource and the part of it that it holds, as in drbdmanage: `dockervolume_00`.
///
/// A resource's name follows Docker's grammar, `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, in at most 100 characters. So no volume's name is
/// taken for an option, a hidden file or a path. Different parts have different names: everything up to the last `_` is the
/// resource's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VolumeName {
    resource: String,
    part: Part,
}

/// What of a resource a volume holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// The data of the resource's volume of this number.
    Data(u16),
    /// The replica's metadata.
    Metadata,
}

impl VolumeName {
    /// The longest name of a resource, in characters.
    const RESOURCE_MAX: usize = 100;

    /// The volume that holds volume `number` of `resource`.
    pub fn data(resource: &str, number: u16) -> Result<Self, PoolError> {
        Self::new(resource, Part::Data(number))
    }

    /// The volume that holds a replica's metadata.
    pub fn metadata(resource: &str) -> Result<Self, PoolError> {
        Self::new(resource, Part::Metadata)
    }

    fn new(resource: &str, part: Part) -> Result<Self, PoolError> {
        let bad = |why| Err(PoolError::BadName { name: resource.chars().take(Self::RESOURCE_MAX + 10).collect(), why });
        if !resource.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return bad("it must begin with a letter or digit");
        }
        if !resource.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
            return bad("it can contain letters, digits, '_', '.' and '-' only");
        }
        if resource.len() > Self::RESOURCE_MAX {
            return bad("it has over 100 characters");
        }
        Ok(Self { resource: resource.to_owned(), part })
    }

    /// The resource's name.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// What of the resource it holds.
    pub fn part(&self) -> Part {
        self.part
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Data(number) => write!(f, "{}_{number:02}", self.resource),
            Part::Metadata => write!(f, "{}_meta", self.resource),
        }
    }
}

impl FromStr for VolumeName {
    type Err = PoolError;

    fn from_str(name: &str) -> Result<Self, PoolError> {
        let bad = || PoolError::BadName {
            name: name.chars().take(Self::RESOURCE_MAX + 10).collect(),
            why: "a volume is called <resource>_<number, two digits at least> or <resource>_meta",
        };
        let (resource, part) = name.rsplit_once('_').ok_or_else(bad)?;
        let part = match part {
            "meta" => Part::Metadata,
            number => Part::Data(number.parse().map_err(|_| bad())?),
        };
        let parsed = Self::new(resource, part)?;
        // `a_0`, `a_007` and `a_+1` are read as numbers, but are not how these are written.
        if parsed.to_string() == name { Ok(parsed) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn volumes_are_called_as_in_drbdmanage() {
        assert_eq!(VolumeName::data("dockervolume", 0).unwrap().to_string(), "dockervolume_00");
        assert_eq!(VolumeName::data("r", 65535).unwrap().to_string(), "r_65535");
        assert_eq!(VolumeName::metadata("r_00").unwrap().to_string(), "r_00_meta");
    }

    #[test]
    fn names_that_could_be_an_option_a_path_or_a_hidden_file_are_refused() {
        for bad in ["", "-n", "--force", ".hidden", "_x", "a/b", "../a", "a b", "ä", "a\n", "a+b", "@tag", &"n".repeat(101)] {
            assert!(VolumeName::data(bad, 0).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn other_files_names_are_not_read_as_volumes() {
        for other in ["", "lost+found", "a_0", "a_007", "a_+1", "a_-1", "a_65536", "a_", "_00", "a_meta_", "a", ".new-a_00"] {
            assert!(other.parse::<VolumeName>().is_err(), "{other:?} was read as a volume");
        }
    }

    fn any_volume() -> impl Strategy<Value = VolumeName> {
        let part = prop_oneof![any::<u16>().prop_map(Part::Data), Just(Part::Metadata)];
        ("[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}", part).prop_map(|(resource, part)| VolumeName::new(&resource, part).unwrap())
    }

    proptest! {
        #[test]
        fn a_name_says_which_volume_it_is(volume in any_volume()) {
            prop_assert_eq!(volume.to_string().parse::<VolumeName>().unwrap(), volume);
        }

        #[test]
        fn no_string_is_read_as_a_volume_that_is_written_otherwise(name in "\\PC{0,12}(_[0-9]{1,6}|_meta)?") {
            if let Ok(volume) = name.parse::<VolumeName>() {
                prop_assert_eq!(volume.to_string(), name);
            }
        }
    }
}
