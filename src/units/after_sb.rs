//! What happens by itself after a split brain: DRBD's policies, by its names and values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whose data is discarded when two replicas that decide alone have diverged and meet, by how many of the two are in use then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct AfterSplitBrain {
    /// Neither is.
    pub zero: AfterSb0,
    /// One is.
    pub one: AfterSb1,
    /// Both are.
    pub two: AfterSb2,
}

/// A table of values: the enum, and what each is written as.
macro_rules! policy {
    ($(#[$doc:meta])+ $name:ident { $( $(#[$of:meta])+ $value:ident = $word:literal, )+ }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $( $(#[$of])+ $value, )+ }

        impl $name {
            /// Every value, in DRBD's order.
            pub const ALL: &[Self] = &[$( Self::$value, )+];

            /// The value as it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$value => $word, )+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                if let Some(why) = refused(word) {
                    return Err(why.to_owned());
                }
                let found = Self::ALL.iter().copied().find(|value| value.as_str() == word);
                found.ok_or_else(|| format!("give {}", [$( $word, )+].join(", ")))
            }
        }
    };
}

policy! {
    /// Neither side is in use.
    AfterSb0 {
        /// Nobody's: an operator decides.
        #[default]
        Disconnect = "disconnect",
        /// That of the side that became primary as the second one. Where neither was primary as they parted, or both say so, as `discard-least-changes`.
        DiscardYoungerPrimary = "discard-younger-primary",
        /// That of the side that was primary as they parted; else as above.
        DiscardOlderPrimary = "discard-older-primary",
        /// That of a side that has written nothing; an operator decides when both have.
        DiscardZeroChanges = "discard-zero-changes",
        /// That of the side with fewer changed blocks; of two with as many, that of the higher node.
        DiscardLeastChanges = "discard-least-changes",
    }
}

policy! {
    /// One side is in use.
    AfterSb1 {
        /// Nobody's: an operator decides.
        #[default]
        Disconnect = "disconnect",
        /// As if neither were in use, when that discards the data of the one that is not; else an operator decides.
        Consensus = "consensus",
        /// As if neither were in use; clients of the side that loses are cut off.
        ViolentlyAs0p = "violently-as0p",
        /// That of the side that is not in use.
        DiscardSecondary = "discard-secondary",
    }
}

policy! {
    /// Both sides are in use.
    AfterSb2 {
        /// Nobody's: an operator decides.
        #[default]
        Disconnect = "disconnect",
        /// As if neither were in use; clients of the side that loses are cut off.
        ViolentlyAs0p = "violently-as0p",
    }
}

/// Why a value of DRBD's is none here.
fn refused(word: &str) -> Option<&'static str> {
    match word {
        "call-pri-lost-after-sb" => Some(
            "blkrep calls no handler that would restart a machine; with violently-as0p the clients of the side that loses are cut off, and \
             nothing goes on with data that has changed below it",
        ),
        "discard-local" | "discard-remote" => {
            Some("an option is the same for all nodes; `blkrep discard-my-data RES NODE` discards the data of a node")
        }
        _ if word.starts_with("discard-node-") => {
            Some("which node loses is no option that is kept; `blkrep discard-my-data RES NODE` discards the data of a node")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_given_and_is_jsons_word() {
        for value in AfterSb0::ALL {
            assert_eq!(value.to_string().parse(), Ok(*value));
            assert_eq!(serde_json::to_value(value).unwrap(), value.as_str());
        }
        for value in AfterSb1::ALL {
            assert_eq!(value.to_string().parse(), Ok(*value));
            assert_eq!(serde_json::to_value(value).unwrap(), value.as_str());
        }
        for value in AfterSb2::ALL {
            assert_eq!(value.to_string().parse(), Ok(*value));
            assert_eq!(serde_json::to_value(value).unwrap(), value.as_str());
        }
    }

    #[test]
    fn what_drbd_can_and_this_cannot_is_refused_with_the_reason() {
        let why = |word: &str| word.parse::<AfterSb0>().unwrap_err();
        assert!(why("discard-node-alpha").contains("discard-my-data") && why("discard-local").contains("all nodes"));
        assert!("call-pri-lost-after-sb".parse::<AfterSb1>().unwrap_err().contains("violently-as0p"));
        assert!("call-pri-lost-after-sb".parse::<AfterSb2>().unwrap_err().contains("handler"));
        assert!("discard-secondary".parse::<AfterSb2>().unwrap_err().contains("disconnect, violently-as0p"));
    }
}
