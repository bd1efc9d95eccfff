//! Identities. None of them is ever used again, for nodes, resources or records (rule M7): a message or a disk that comes back
//! from the past must not meet a namesake.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $shown:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $shown, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(", $shown, ")"), self.0)
            }
        }
    };
}

id!(
    /// A cluster, drawn at random by `init`.
    ClusterId(u128), "{:032x}"
);
id!(
    /// A node of a cluster, counted up from 0 by the model.
    NodeId(u32), "{}"
);
id!(
    /// A resource of a cluster, counted up from 1 by the model.
    ResourceId(u64), "{}"
);
id!(
    /// A volume's number within its resource, from 0; chosen by the user as in DRBD.
    VolumeId(u16), "{}"
);
id!(
    /// One copy of a resource on one node, drawn at random when its metadata is created: a replica that was removed and
    /// created again on the same node is another one.
    ReplicaId(u64), "{:016x}"
);
id!(
    /// One version of a resource's [`Record`](super::Record), drawn at random by whoever proposes it.
    RecordId(u64), "{:016x}"
);
id!(
    /// One life of a replica: drawn at random at every start (rule M3).
    Incarnation(u64), "{:016x}"
);

/// A user's name for a node, resource, pool or snapshot: Docker's grammar, `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, 1 to 100 characters.
///
/// The first character rules out names that a command could take for an option or a hidden file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a string is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("a name cannot be empty")]
    Empty,
    /// The name has over 100 characters.
    #[error("the name '{0}' has {1} characters; at most {max} are allowed", max = Name::MAX)]
    TooLong(String, usize),
    /// The name has a character outside the grammar, or one that cannot stand first.
    #[error(
        "the name '{0}' cannot contain {1:?} there: names are letters, digits, '_', '.' and '-', and begin with a letter or digit"
    )]
    BadCharacter(String, char),
}

impl Name {
    /// The longest name, in characters.
    pub const MAX: usize = 100;

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        let length = name.chars().count();
        if length > Self::MAX {
            let shown = name.chars().take(20).chain("…".chars()).collect();
            return Err(NameError::TooLong(shown, length));
        }
        let bad = |(at, c): (usize, char)| !(c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '_' | '.' | '-')));
        match name.chars().enumerate().find(|&c| bad(c)) {
            Some((_, c)) => Err(NameError::BadCharacter(name.to_owned(), c)),
            None => Ok(Self(name.to_owned())),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_grammar() {
        for good in ["a", "7", "dockervolume", "web.data-1_x", &"n".repeat(100)] {
            assert_eq!(good.parse::<Name>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-n", ".hidden", "_x", "a b", "a/b", "ä", "a\n", &"n".repeat(101)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was taken for a name");
        }
    }
}
