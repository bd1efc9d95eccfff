//! What can be wrong with a superblock.

use super::SUPERBLOCK;
use crate::units::{ReplicaId, ResourceId};

/// Why bytes are no superblock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// Every byte is zero.
    #[error("there is no superblock: the slot holds nothing but zeroes")]
    Blank,
    /// Something else is there.
    #[error("not blkrep metadata: it begins with {seen:02x?}; check that the path is that of a blkrep metadata area")]
    Foreign {
        /// The first bytes.
        seen: [u8; 8],
    },
    /// A later program wrote it.
    #[error(
        "metadata of format {format}, written by blkrep {}.{}.{}; this program reads up to format {known}: upgrade blkrep to at \
         least {}.{}.{} on this node", writer.0, writer.1, writer.2, writer.0, writer.1, writer.2, known = super::codec::FORMAT
    )]
    Newer {
        /// Its format.
        format: u16,
        /// The program that wrote it.
        writer: (u16, u16, u16),
    },
    /// There are not enough bytes.
    #[error("the superblock is cut off: {len} of {SUPERBLOCK} bytes are there")]
    Truncated {
        /// How many are there.
        len: usize,
    },
    /// The write was torn, or the bytes have changed since.
    #[error(
        "the superblock's checksum is {computed:08x} where {stored:08x} was stored: torn by a crash, or damaged on the medium"
    )]
    Checksum {
        /// As stored.
        stored: u32,
        /// As the bytes have it.
        computed: u32,
    },
    /// The checksum is right and the content makes no sense.
    #[error("the superblock is whole, yet its {field} cannot be ({value}): a faulty program wrote it")]
    Malformed {
        /// Which part.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Why two slots together are no superblock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// Neither holds anything: the area is new.
    #[error("the metadata area is empty; nothing was created here yet")]
    Blank,
    /// A later program wrote one of them.
    #[error(transparent)]
    Newer(SuperblockError),
    /// Neither can be used.
    #[error(
        "both superblocks of the metadata area are unusable (first: {first}; second: {second}); the replica has to be created again \
         and is then resynced in full"
    )]
    Unusable {
        /// What is wrong with the first.
        first: SuperblockError,
        /// What is wrong with the second.
        second: SuperblockError,
    },
    /// They speak of different replicas, or say different things at the same time.
    #[error(
        "the two superblocks of the metadata area contradict each other (replica {} of resource {} at version {version}, and replica {} of \
         resource {}): one was copied here from elsewhere, and which one cannot be told; create the replica again",
        first.0, first.1, second.0, second.1
    )]
    Conflict {
        /// The first one's replica and resource.
        first: (ReplicaId, ResourceId),
        /// The second one's.
        second: (ReplicaId, ResourceId),
        /// The first one's version.
        version: u64,
    },
}

/// A superblock has no room for so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a replica's metadata has room for {max} {what}, not for {count}")]
pub struct TooLarge {
    /// Of what.
    pub what: &'static str,
    /// How many there are.
    pub count: usize,
    /// How many there can be.
    pub max: usize,
}
