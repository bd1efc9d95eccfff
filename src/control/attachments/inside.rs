//! Attachments that share their volume with other nodes, and have had it without a break.
//!
//! While an attachment is *in*, whatever comes on another node comes beside it: one primary orders the requests of both. Only what came
//! while it was not in, because its daemon was away, or its node was deposed or cut off, makes old what it holds in its caches. So as
//! long as it is in, the others' counts (see [`super::uses`]) are noted anew.
//!
//! A node that was deposed may not have heard of that yet, and whoever came then came under another primary. So a count is noted only
//! when it is seen again a while later, on a node that goes by this node's primary and reign at that time: it was let in under that
//! reign, or an earlier one. The later reign's primary would have been heard of by then.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::{Connection, ResourceStatus};
use crate::units::{NodeId, Role};

/// A reign: its number, and who is primary.
pub type Under = (u64, NodeId);

/// What another node tells of its uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// How often it has let clients in.
    pub count: u64,
    /// The reign that it goes by.
    pub under: Option<Under>,
}

/// How this node's data plane stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// How often it has ended all sessions.
    pub dropped: u64,
    /// The reign that it goes by.
    pub under: Option<Under>,
    /// It is primary, or connected to the primary, and has clients.
    pub in_touch: bool,
}

/// The attachments of this node that were let in since its daemon started, by their tokens.
#[derive(Debug, Default)]
pub struct Inside(Mutex<BTreeMap<String, Member>>);

#[derive(Debug, Default)]
struct Member {
    dropped: u64,
    /// The node was cut off, and has not seen yet that nobody has come meanwhile.
    apart: bool,
    /// What the others have told, and since when.
    told: BTreeMap<NodeId, (u64, Instant)>,
}

/// What the others' counts mean for an attachment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is in: these are to be noted.
    In(BTreeMap<NodeId, u64>),
    /// It is not, or was not for a while: nobody may have come.
    Out,
}

/// The reign that a node goes by, as it tells.
pub fn under(status: &ResourceStatus) -> Option<Under> {
    Some((status.record.as_ref()?.reign, status.primary?))
}

/// How the data plane stands that tells this of a resource.
pub fn standing(status: &ResourceStatus) -> Standing {
    let connected = |node| status.peers.iter().any(|peer| peer.node == node && peer.connection == Connection::Connected);
    let served = status.role == Role::Primary || status.primary.is_some_and(connected);
    Standing { dropped: status.dropped, under: under(status), in_touch: served && status.clients > 0 }
}

impl Inside {
    /// Notes that an attachment was let in.
    pub fn admitted(&self, token: &str, dropped: u64) {
        let new = Member { dropped, ..Member::default() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), new);
    }

    /// Whether an attachment is in: what comes for it is one more of its connections.
    pub fn is_in(&self, token: &str, dropped: u64) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(token).is_some_and(|member| member.dropped == dropped && !member.apart)
    }

    /// Forgets the attachments that are gone.
    pub fn retain(&self, living: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|token, _| living(token));
    }

    /// What `seen` means at this instant for an attachment that has noted the counts `noted`.
    pub fn look(
        &self,
        token: &str,
        at: Instant,
        now: Standing,
        noted: &BTreeMap<NodeId, u64>,
        seen: &BTreeMap<NodeId, Seen>,
    ) -> Verdict {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(member) = all.get_mut(token).filter(|member| member.dropped == now.dropped) else { return Verdict::Out };
        let changed: BTreeMap<NodeId, Seen> = seen
            .iter()
            .filter(|(node, seen)| noted.get(node).is_some_and(|then| *then != seen.count))
            .map(|(node, seen)| (*node, *seen))
            .collect();
        if !now.in_touch {
            member.apart = true;
            return Verdict::In(BTreeMap::new());
        }
        if member.apart && !changed.is_empty() {
            return Verdict::Out;
        }
        member.apart = false;
        member.told.retain(|node, (count, _)| changed.get(node).is_some_and(|seen| seen.count == *count));
        let mut settled = |node: &NodeId, seen: &Seen| {
            let (_, since) = *member.told.entry(*node).or_insert((seen.count, at));
            at.duration_since(since) >= SETTLED && seen.under.is_some() && seen.under == now.under
        };
        Verdict::In(changed.iter().filter(|(node, seen)| settled(node, seen)).map(|(node, seen)| (*node, seen.count)).collect())
    }
}

/// How long after a count was first seen its node tells of the reign under which it was made, or a later one: what a data plane tells
/// may be as old as [`super::uses::STATUS_AGE`].
const SETTLED: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn counts(count: u64) -> BTreeMap<NodeId, u64> {
        [(OTHER, count)].into()
    }

    fn seen(count: u64, reign: u64, primary: NodeId) -> BTreeMap<NodeId, Seen> {
        [(OTHER, Seen { count, under: Some((reign, primary)) })].into()
    }

    const IN: Standing = Standing { dropped: 0, under: Some((5, ME)), in_touch: true };

    #[test]
    fn whoever_comes_beside_an_attachment_is_noted_after_a_while() {
        let (inside, mut at) = (Inside::default(), Instant::now());
        inside.admitted("t", 0);
        assert_eq!(inside.look("t", at, IN, &counts(1), &seen(1, 5, ME)), Verdict::In(BTreeMap::new()));
        assert_eq!(
            inside.look("t", at, IN, &counts(1), &seen(2, 5, ME)),
            Verdict::In(BTreeMap::new()),
            "its reign may be old news"
        );
        at += SETTLED;
        assert_eq!(inside.look("t", at, IN, &counts(1), &seen(3, 5, ME)), Verdict::In(BTreeMap::new()), "this one is new");
        at += SETTLED;
        assert_eq!(inside.look("t", at, IN, &counts(1), &seen(3, 5, ME)), Verdict::In(counts(3)));
        assert!(inside.is_in("t", 0));
    }

    #[test]
    fn whoever_came_under_another_primary_is_not_noted() {
        let (inside, mut at) = (Inside::default(), Instant::now());
        inside.admitted("t", 0);
        for later in [seen(2, 6, OTHER), seen(2, 5, OTHER)] {
            for _ in 0..3 {
                assert_eq!(inside.look("t", at, IN, &counts(1), &later), Verdict::In(BTreeMap::new()));
                at += SETTLED;
            }
        }
        // It hears of it: its sessions end.
        let deposed = Standing { dropped: 1, under: Some((6, OTHER)), in_touch: true };
        assert_eq!(inside.look("t", at, deposed, &counts(1), &seen(2, 6, OTHER)), Verdict::Out);
        assert!(!inside.is_in("t", 1));
    }

    #[test]
    fn whoever_came_while_a_node_was_cut_off_is_not_noted() {
        let (inside, at) = (Inside::default(), Instant::now());
        inside.admitted("t", 0);
        let alone = Standing { in_touch: false, under: None, ..IN };
        assert_eq!(inside.look("t", at, alone, &counts(1), &BTreeMap::new()), Verdict::In(BTreeMap::new()));
        assert!(!inside.is_in("t", 0));
        assert_eq!(inside.look("t", at, IN, &counts(1), &seen(2, 5, ME)), Verdict::Out);
        // Nobody came.
        assert_eq!(inside.look("t", at, IN, &counts(1), &seen(1, 5, ME)), Verdict::In(BTreeMap::new()));
        assert!(inside.is_in("t", 0));
    }

    #[test]
    fn an_attachment_of_a_daemon_before_this_one_is_not_in() {
        let (inside, at) = (Inside::default(), Instant::now());
        assert_eq!(inside.look("t", at, IN, &counts(1), &seen(1, 5, ME)), Verdict::Out);
        assert!(!inside.is_in("t", 0));
        inside.admitted("t", 0);
        assert!(inside.is_in("t", 0));
        inside.retain(|_| false);
        assert!(!inside.is_in("t", 0));
    }
}
