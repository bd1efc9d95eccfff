//! Whose data is discarded after a split brain, when nobody is asked (rule Q10): a function of what the two sides have told each other, and
//! of nothing else.

use crate::units::{AfterSb0, AfterSb1, AfterSb2, NodeId};
use crate::wire::Side;

/// The node whose data is discarded; `None` when an operator has to decide. It makes no difference which side is named first.
pub(super) fn loser(one: &Side, other: &Side) -> Option<NodeId> {
    if one.node == other.node {
        return None;
    }
    if let Some(node) = idle_and_unwritten(one, other) {
        // Nothing is discarded: it is no policy's business (rule Q3).
        return Some(node);
    }
    if one.policies != other.policies {
        // A change of the options has not reached both.
        return None;
    }
    let as_none = || as_if_unused(one, other);
    match (one.in_use, other.in_use) {
        (false, false) => as_none(),
        (true, true) => match one.policies.two {
            AfterSb2::Disconnect => None,
            AfterSb2::ViolentlyAs0p => as_none(),
        },
        (in_use, _) => {
            let unused = if in_use { other.node } else { one.node };
            match one.policies.one {
                AfterSb1::Disconnect => None,
                AfterSb1::Consensus => as_none().filter(|node| *node == unused),
                AfterSb1::ViolentlyAs0p => as_none(),
                AfterSb1::DiscardSecondary => Some(unused),
            }
        }
    }
}

fn as_if_unused(one: &Side, other: &Side) -> Option<NodeId> {
    let higher = one.node.max(other.node);
    let changes = |side: &Side| if side.written { side.changed.max(1) } else { 0 };
    let least = || match changes(one).cmp(&changes(other)) {
        std::cmp::Ordering::Less => Some(one.node),
        std::cmp::Ordering::Greater => Some(other.node),
        std::cmp::Ordering::Equal => Some(higher),
    };
    let (elder, younger) = if one.was_primary { (one.node, other.node) } else { (other.node, one.node) };
    let told_apart = one.was_primary != other.was_primary;
    match one.policies.zero {
        AfterSb0::Disconnect => None,
        AfterSb0::DiscardYoungerPrimary if told_apart => Some(younger),
        AfterSb0::DiscardOlderPrimary if told_apart => Some(elder),
        AfterSb0::DiscardZeroChanges => unwritten(one, other),
        AfterSb0::DiscardYoungerPrimary | AfterSb0::DiscardOlderPrimary | AfterSb0::DiscardLeastChanges => least(),
    }
}

/// The side that nobody uses and that has nothing which the other one lacks, whether or not that is in use; of two such sides the one
/// with the higher node.
pub(super) fn idle_and_unwritten(one: &Side, other: &Side) -> Option<NodeId> {
    let gives_way = |side: &&Side| !side.in_use && !side.written;
    [one, other].into_iter().filter(gives_way).map(|side| side.node).max()
}

/// The side that has nothing which the other one lacks; of two such sides the one with the higher node.
fn unwritten(one: &Side, other: &Side) -> Option<NodeId> {
    match (one.written, other.written) {
        (false, false) => Some(one.node.max(other.node)),
        (false, true) => Some(one.node),
        (true, false) => Some(other.node),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::AfterSplitBrain;

    /// Every pair of sides, as far as it makes a difference.
    fn pairs() -> Vec<(Side, Side)> {
        let mut policies = Vec::new();
        for &zero in AfterSb0::ALL {
            for &one in AfterSb1::ALL {
                policies.extend(AfterSb2::ALL.iter().map(|&two| AfterSplitBrain { zero, one, two }));
            }
        }
        let mut pairs = Vec::new();
        for &policies in &policies {
            let mut sides = Vec::new();
            for bits in 0..8 {
                for changed in [0, 5, 9] {
                    let bit = |n: u32| bits >> n & 1 == 1;
                    sides.push(Side { node: NodeId(0), in_use: bit(0), was_primary: bit(1), written: bit(2), changed, policies });
                }
            }
            for one in &sides {
                pairs.extend(sides.iter().map(|other| (one.clone(), Side { node: NodeId(1), ..other.clone() })));
            }
        }
        pairs
    }

    #[test]
    fn both_sides_come_to_the_same() {
        let pairs = pairs();
        assert_eq!(pairs.len(), 5 * 4 * 2 * 24 * 24);
        for (one, other) in pairs {
            let decided = loser(&one, &other);
            assert_eq!(decided, loser(&other, &one), "{one:?} {other:?}");
            assert!(decided.is_none_or(|node| node == one.node || node == other.node));
        }
    }

    #[test]
    fn nobody_who_is_in_use_loses_but_by_violence() {
        for (one, other) in pairs() {
            let Some(node) = loser(&one, &other) else { continue };
            let (lost, kept) = if node == one.node { (&one, &other) } else { (&other, &one) };
            let violent = match (lost.in_use, kept.in_use) {
                (true, true) => lost.policies.two == AfterSb2::ViolentlyAs0p,
                (true, false) => lost.policies.one == AfterSb1::ViolentlyAs0p,
                _ => true,
            };
            assert!(violent, "{one:?} {other:?}");
        }
    }

    #[test]
    fn by_default_and_with_different_policies_nobody_loses_who_has_something() {
        for (one, other) in pairs() {
            let idle = match (one.in_use || one.written, other.in_use || other.written) {
                (false, false) => Some(NodeId(1)),
                (false, true) => Some(NodeId(0)),
                (true, false) => Some(NodeId(1)),
                (true, true) => None,
            };
            let default = AfterSplitBrain::default();
            let with = |side: &Side, policies| Side { policies, ..side.clone() };
            assert_eq!(loser(&with(&one, default), &with(&other, default)), idle);
            let changed = AfterSplitBrain { zero: AfterSb0::DiscardLeastChanges, one: AfterSb1::DiscardSecondary, ..default };
            assert_eq!(loser(&with(&one, changed), &with(&other, default)), idle);
        }
    }

    #[test]
    fn the_values_mean_what_drbd_says() {
        let decide = |zero, one: (bool, bool, u64), other: (bool, bool, u64)| {
            let policies = AfterSplitBrain { zero, ..AfterSplitBrain::default() };
            let side = |node, (was_primary, written, changed)| Side {
                node: NodeId(node),
                in_use: false,
                was_primary,
                written,
                changed,
                policies,
            };
            loser(&side(0, one), &side(1, other)).map(|node| node.0)
        };
        use AfterSb0::{DiscardLeastChanges, DiscardOlderPrimary, DiscardYoungerPrimary, DiscardZeroChanges};
        assert_eq!(decide(DiscardYoungerPrimary, (true, true, 1), (false, true, 9)), Some(1), "the second primary");
        assert_eq!(decide(DiscardOlderPrimary, (true, true, 9), (false, true, 1)), Some(0), "the first one");
        assert_eq!(decide(DiscardYoungerPrimary, (false, true, 1), (false, true, 9)), Some(0), "undecided: least changes");
        assert_eq!(decide(DiscardOlderPrimary, (true, true, 9), (true, true, 9)), Some(1), "and at last the higher node");
        assert_eq!(decide(DiscardZeroChanges, (true, false, 0), (true, true, 1)), Some(0));
        assert_eq!(decide(DiscardZeroChanges, (true, true, 2), (true, true, 1)), None, "both have written: an operator decides");
        assert_eq!(decide(DiscardZeroChanges, (true, false, 7), (true, false, 0)), Some(1), "hot extents are no changes");
        assert_eq!(decide(DiscardLeastChanges, (true, true, 7), (true, true, 8)), Some(0));
    }
}
