//! Where volumes lie.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a pool stores volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolKind {
    /// Logical volumes of an LVM volume group.
    Lvm,
    /// Thin volumes of an LVM thin pool.
    LvmThin,
    /// Files in a directory, allocated in full.
    File,
    /// Sparse files in a directory.
    FileThin,
}

impl fmt::Display for PoolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lvm => "lvm",
            Self::LvmThin => "lvm-thin",
            Self::File => "file",
            Self::FileThin => "file-thin",
        })
    }
}
