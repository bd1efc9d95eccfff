//! What a device or file holds at its beginning, before anything is written there.

use super::superblock::{SUPERBLOCK, Superblock, SuperblockError};
use crate::units::{ClusterId, NodeId, ReplicaId, ResourceId};

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// Nothing but zeroes.
    Empty,
    /// A replica's metadata.
    Blkrep(Owner),
    /// A replica's metadata that cannot be read: damaged, or of a later format. It may still be somebody's only copy.
    Unreadable(SuperblockError),
    /// Something else; its name where it is known.
    Foreign(&'static str),
}

/// Whose metadata it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The resource.
    pub resource: ResourceId,
    /// The node.
    pub node: NodeId,
    /// The replica.
    pub replica: ReplicaId,
}

/// Recognises what a device or file begins with, from its first bytes: 32 KiB see all that can be seen, 16 KiB miss the second
/// superblock.
pub fn recognise(bytes: &[u8]) -> Recognised {
    if bytes.iter().all(|&byte| byte == 0) {
        return Recognised::Empty;
    }
    let slots = [bytes, bytes.get(SUPERBLOCK..).unwrap_or_default()].map(Superblock::decode);
    if let Some(found) = slots.iter().flatten().max_by_key(|superblock| superblock.version) {
        let Superblock { cluster, resource, node, replica, .. } = *found;
        return Recognised::Blkrep(Owner { cluster, resource, node, replica });
    }
    let ours = |error: &SuperblockError| {
        matches!(error, SuperblockError::Newer { .. } | SuperblockError::Checksum { .. } | SuperblockError::Malformed { .. })
    };
    match slots.into_iter().filter_map(Result::err).find(ours) {
        Some(error) => Recognised::Unreadable(error),
        None => Recognised::Foreign(name_of(bytes)),
    }
}

fn name_of(bytes: &[u8]) -> &'static str {
    let known = SIGNATURES.iter().find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    known.map_or("unknown data", |(_, _, name)| name)
}

/// Offset, bytes and name. A partition table comes last: its mark also ends the boot sectors of some file systems.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"XFSB", "an XFS file system"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (0, b"QFI\xfb", "a qcow2 image"),
    (3, b"NTFS    ", "an NTFS file system"),
    (0x218, b"LVM2 001", "an LVM physical volume"),
    (0x200, b"EFI PART", "a GPT partition table"),
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    (0xff6, b"SWAPSPACE2", "swap space"),
    (0x1000, b"\xfc\x4e\x2b\xa9", "a Linux RAID member"),
    (0x1fe, b"\x55\xaa", "a partition table or boot sector"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::superblock::strategies::example;
    use super::*;

    const OWNER: Owner = Owner { cluster: ClusterId(0xc1), resource: ResourceId(3), node: NodeId(0), replica: ReplicaId(0xbe) };

    fn area() -> Vec<u8> {
        let mut area = vec![0; 2 * SUPERBLOCK];
        area[..SUPERBLOCK].copy_from_slice(&example().encode().unwrap());
        area
    }

    proptest! {
        #[test]
        fn any_beginning_is_given_a_name(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let empty = bytes.iter().all(|&byte| byte == 0);
            prop_assert_eq!(recognise(&bytes) == Recognised::Empty, empty);
        }
    }

    #[test]
    fn metadata_is_recognised_with_either_superblock_damaged() {
        assert_eq!(recognise(&area()), Recognised::Blkrep(OWNER));
        assert_eq!(recognise(&area()[..SUPERBLOCK]), Recognised::Blkrep(OWNER));
        let mut second = area();
        second.rotate_right(SUPERBLOCK);
        assert_eq!(recognise(&second), Recognised::Blkrep(OWNER));
        let mut torn = area();
        torn[500] ^= 1;
        assert!(matches!(recognise(&torn), Recognised::Unreadable(SuperblockError::Checksum { .. })));
    }

    #[test]
    fn other_peoples_data_is_called_by_its_name() {
        for (at, magic, name) in SIGNATURES {
            let mut bytes = vec![0; SUPERBLOCK];
            bytes[*at..*at + magic.len()].copy_from_slice(magic);
            assert_eq!(recognise(&bytes), Recognised::Foreign(name));
        }
        assert_eq!(recognise(b"my diary"), Recognised::Foreign("unknown data"));
        assert_eq!(recognise(&[0; 512]), Recognised::Empty);
    }
}
