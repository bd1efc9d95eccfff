//! Pools: what a node stores volumes in, and how one comes and goes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::setup::PoolChoice;
use super::state::Level;
use crate::units::{Name, PoolKind};

/// A node's storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// How it stores.
    pub kind: PoolKind,
    /// The volume group, `group/thinpool`, or the directory.
    pub location: String,
    /// Its size in bytes.
    pub size: u64,
    /// How much of it is free, in bytes: what new volumes can have.
    pub free: u64,
    /// How full it is, where volumes take space when they are written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
}

/// How full a thin pool is, in thousandths. When one of them reaches 1000, writes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// Of its space for data.
    pub data: u16,
    /// Of its space for metadata, where that is limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<u16>,
}

impl Fill {
    /// From here on a pool wants attention.
    const HIGH: u16 = 800;
    /// From here on it is a matter of time, and nothing new is promised.
    const CRITICAL: u16 = 950;

    /// Whether somebody should look after it.
    pub fn is_high(&self) -> bool {
        self.most() >= Self::HIGH
    }

    /// Whether somebody should do so now.
    pub fn is_critical(&self) -> bool {
        self.most() >= Self::CRITICAL
    }

    /// How full in percent, with that of the metadata where that is more.
    pub fn percent(&self) -> String {
        let percent = |level: u16| format!("{}.{}%", level / 10, level % 10);
        match self.metadata {
            Some(metadata) if metadata > self.data => format!("{} (metadata {})", percent(self.data), percent(metadata)),
            _ => percent(self.data),
        }
    }

    fn most(&self) -> u16 {
        self.data.max(self.metadata.unwrap_or(0))
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |level: u16| format!("{}.{}%", level / 10, level % 10);
        match self.metadata {
            Some(metadata) if metadata > self.data => {
                write!(f, "{} full, its metadata {}", percent(self.data), percent(metadata))
            }
            _ => write!(f, "{} full", percent(self.data)),
        }
    }
}

/// A pool of a node, in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePool {
    /// The node.
    pub node: Name,
    /// The pool's name on it.
    pub name: Name,
    /// Whether volumes go to it when nobody says.
    #[serde(rename = "default")]
    pub usual: bool,
    /// Whether the node's daemon answers.
    pub online: bool,
    /// What it is, as it was added; absent for the pool that the node was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
    /// How it is; `None` while it cannot be used.
    pub pool: Option<Pool>,
    /// Why it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl NodePool {
    /// How it is in a word, and how much attention it wants.
    pub fn state(&self) -> (String, Level) {
        match (&self.failure, &self.pool) {
            _ if !self.online => ("OFFLINE".to_owned(), Level::Alert),
            (Some(failure), _) => (format!("failing ({failure})"), Level::Alert),
            (None, None) => ("not known yet".to_owned(), Level::Warning),
            (None, Some(pool)) => match pool.fill {
                Some(fill) if fill.is_critical() => ("nearly full".to_owned(), Level::Alert),
                Some(fill) if fill.is_high() => ("filling up".to_owned(), Level::Warning),
                _ => ("ok".to_owned(), Level::Normal),
            },
        }
    }
}

/// Asks for the pools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListPools {
    /// Of this node only; of all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
}

/// Adds a pool to the node that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddPool {
    /// What it shall be called there. Volumes name it so on every node.
    pub name: Name,
    /// What it is.
    pub pool: PoolChoice,
    /// How many times its size a thin pool may promise; 20 when absent.
    #[serde(default)]
    pub oversubscription: Option<u32>,
    /// Whether volumes go to it when nobody says.
    #[serde(default)]
    pub default: bool,
}

/// Takes a pool from the node that is asked; nothing may be in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovePool {
    /// The pool.
    pub name: Name,
}

/// Chooses the pool that volumes go to when nobody says, on the node that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultPool {
    /// The pool.
    pub name: Name,
}
