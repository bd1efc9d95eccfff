//! The two slots: which superblock is the present one, and where the next goes.

use super::{SUPERBLOCK, SlotsError, Superblock, SuperblockError};

/// The present superblock of an area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// It; with [`clean`](Superblock::clean) taken back when the other slot is damaged.
    pub superblock: Superblock,
    /// The slot that the next one is written to.
    pub next_slot: usize,
    /// What is wrong with the other slot.
    pub damaged: Option<SuperblockError>,
}

/// Where a slot begins, in bytes.
pub fn superblock_at(slot: usize) -> u64 {
    assert!(slot < 2, "there are two slots");
    (slot * SUPERBLOCK) as u64
}

/// Chooses among the two slots as read from disk; a slot that cannot be read is an empty slice.
///
/// Superblocks are written in turn, each durable before anything is done under it. So when one slot is damaged the other is a state
/// that was durable, and if the damage is a torn write, nothing was done under the torn one: it is safe to go back. If the damage came
/// later, it may be the newest state that is lost. Both look the same; hence a replica that falls back counts as not cleanly
/// stopped, which makes its start an unclean one: its hot extents are resynced before it is in sync again (rule M3).
pub fn choose(slot0: &[u8], slot1: &[u8]) -> Result<Present, SlotsError> {
    let (first, second) = (Superblock::decode(slot0), Superblock::decode(slot1));
    // The other slot is from before an upgrade, and what was done since is not in it.
    if let Some(newer) = [&first, &second].into_iter().find_map(newer_format) {
        return Err(SlotsError::Newer(newer));
    }
    match (first, second) {
        (Ok(first), Ok(second)) => newest(first, second),
        (Ok(superblock), Err(error)) => Ok(alone(superblock, 1, error)),
        (Err(error), Ok(superblock)) => Ok(alone(superblock, 0, error)),
        (Err(SuperblockError::Blank), Err(SuperblockError::Blank)) => Err(SlotsError::Blank),
        (Err(first), Err(second)) => Err(SlotsError::Unusable { first, second }),
    }
}

fn newest(first: Superblock, second: Superblock) -> Result<Present, SlotsError> {
    let identity = |s: &Superblock| (s.cluster, s.resource, s.node, s.replica);
    if identity(&first) != identity(&second) || (first.version == second.version && first != second) {
        let of = |s: &Superblock| (s.replica, s.resource);
        return Err(SlotsError::Conflict { first: of(&first), second: of(&second), version: first.version });
    }
    let (superblock, next_slot) = if first.version > second.version { (first, 1) } else { (second, 0) };
    Ok(Present { superblock, next_slot, damaged: None })
}

fn alone(mut superblock: Superblock, other: usize, error: SuperblockError) -> Present {
    // The first superblock of all is written to slot 0, and the other slot is blank until the second.
    if error == SuperblockError::Blank && superblock.version == 1 && other == 1 {
        return Present { superblock, next_slot: 1, damaged: None };
    }
    superblock.clean = false;
    Present { superblock, next_slot: other, damaged: Some(error) }
}

fn newer_format(slot: &Result<Superblock, SuperblockError>) -> Option<SuperblockError> {
    slot.as_ref().err().filter(|error| matches!(error, SuperblockError::Newer { .. })).cloned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::strategies::{example, superblock};
    use super::*;

    fn successor(of: &Superblock) -> Superblock {
        Superblock { version: of.version + 1, outdated: !of.outdated, ..of.clone() }
    }

    proptest! {
        #[test]
        fn the_newest_counts_and_the_next_goes_to_the_other_slot(old in superblock(), swap in any::<bool>()) {
            prop_assume!(old.version < u64::MAX);
            let new = successor(&old);
            let (old, bytes) = (old.encode().unwrap(), new.encode().unwrap());
            let slots = if swap { [&bytes, &old] } else { [&old, &bytes] };
            let present = choose(slots[0], slots[1]).unwrap();
            prop_assert_eq!(present, Present { superblock: new, next_slot: usize::from(swap), damaged: None });
        }

        /// The slot that is written holds any mixture of its old sectors and the new ones.
        #[test]
        fn a_torn_write_leaves_the_superblock_before_it(old in superblock(), other in superblock(), sectors in any::<u32>()) {
            prop_assume!(old.version < u64::MAX - 2);
            let (older, present) = (old.clone(), successor(&old));
            // The next one differs in every sector that either uses, not only in the first.
            let Superblock { version, cluster, resource, node, replica, .. } = present;
            let next = Superblock { version: version + 1, cluster, resource, node, replica, ..other };
            let (older, next_bytes) = (older.encode().unwrap(), next.encode().unwrap());
            let mut torn = older.to_vec();
            for sector in (0..32).filter(|sector| sectors >> sector & 1 == 1) {
                torn[sector * 512..][..512].copy_from_slice(&next_bytes[sector * 512..][..512]);
            }
            let chosen = choose(&torn, &present.encode().unwrap()).unwrap();
            if torn == *next_bytes {
                prop_assert_eq!(chosen, Present { superblock: next, next_slot: 1, damaged: None });
            } else if torn == *older {
                prop_assert_eq!(chosen, Present { superblock: present, next_slot: 0, damaged: None });
            } else {
                prop_assert!(chosen.damaged.is_some());
                prop_assert_eq!(chosen.next_slot, 0);
                prop_assert_eq!(chosen.superblock, Superblock { clean: false, ..present });
            }
        }
    }

    #[test]
    fn the_first_superblock_of_all_needs_no_other() {
        let first = Superblock { version: 1, ..example() };
        let present = choose(&first.encode().unwrap(), &[0; SUPERBLOCK]).unwrap();
        assert_eq!(present, Present { superblock: first, next_slot: 1, damaged: None });
    }

    #[test]
    fn a_slot_that_was_written_and_is_blank_or_unreadable_makes_the_start_unclean() {
        let bytes = example().encode().unwrap();
        for lost in [vec![0; SUPERBLOCK], vec![]] {
            let present = choose(&bytes, &lost).unwrap();
            assert!(!present.superblock.clean && present.damaged.is_some());
            assert_eq!(present.next_slot, 1);
        }
    }

    #[test]
    fn a_later_format_in_one_slot_is_not_stepped_over() {
        let mut newer = example().encode().unwrap();
        newer[12] = 9;
        let checksum = crc32fast::hash(&newer[12..]);
        newer[8..12].copy_from_slice(&checksum.to_le_bytes());
        let older = Superblock { version: 1, ..example() }.encode().unwrap();
        assert!(matches!(choose(&older, &newer), Err(SlotsError::Newer(_))));
    }

    #[test]
    fn slots_that_contradict_each_other_are_refused() {
        let one = example();
        let stranger = Superblock { replica: crate::units::ReplicaId(1), version: 6, ..one.clone() };
        let twin = Superblock { clean: !one.clean, ..one.clone() };
        for other in [stranger, twin] {
            let error = choose(&one.encode().unwrap(), &other.encode().unwrap()).unwrap_err();
            assert!(matches!(error, SlotsError::Conflict { .. }), "{error}");
        }
    }

    #[test]
    fn an_area_without_any_says_whether_it_is_new() {
        assert_eq!(choose(&[0; SUPERBLOCK], &[0; SUPERBLOCK]), Err(SlotsError::Blank));
        let error = choose(&[1; SUPERBLOCK], &[0; SUPERBLOCK]).unwrap_err();
        assert!(error.to_string().contains("not blkrep metadata"), "{error}");
    }
}
