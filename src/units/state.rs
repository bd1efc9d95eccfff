//! DRBD's words for the state of a replica and of a resource.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a replica's data can be trusted. The order is DRBD's: a greater state is a better source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum DiskState {
    /// No storage on this node.
    Diskless,
    /// The metadata is being read.
    Attaching,
    /// The storage failed and is not asked again.
    Failed,
    /// A resync that is not finished: a mixture of old and new blocks.
    Inconsistent,
    /// One consistent moment, known to be an old one.
    Outdated,
    /// One consistent moment; not yet known whether the newest.
    Consistent,
    /// The newest data.
    UpToDate,
}

impl fmt::Display for DiskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a node is for a resource.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Role {
    /// It orders and completes the writes of this reign.
    Primary,
    /// It follows a primary, or waits for one.
    Secondary,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// When a write is answered, as DRBD's protocols. Flushes, windows and leases are the same in all three.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// When it is on the primary's disk and on its way to the peers.
    A,
    /// When it is on the primary's disk and every peer has received it.
    B,
    /// When it is on every disk.
    #[default]
    C,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// With whom a client shares a resource. Clients that are there at one time have the same, on all nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Sharing {
    /// With whoever shares, too.
    #[default]
    Shared,
    /// With others that only read, on any node: none of them expects what it has read to change.
    Readers,
    /// With clients of its own node that want the same, and no other.
    Alone,
}

impl Sharing {
    /// Whether clients of two nodes may be there at one time.
    pub fn suits(self, other: Self) -> bool {
        self == other && self != Self::Alone
    }
}

/// What happens to I/O that no quorum allows; DRBD's option of that name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum OnNoQuorum {
    /// It waits.
    #[default]
    SuspendIo,
    /// It fails with EIO.
    IoError,
}

impl fmt::Display for OnNoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SuspendIo => "suspend-io",
            Self::IoError => "io-error",
        })
    }
}
