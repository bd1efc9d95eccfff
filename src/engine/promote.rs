//! The role at an operator's word, also for a replica that is not up to date when nobody else's is to be had (rule M9).
//!
//! By force a replica goes on that the record does not have in sync: what those have written that it does not have is given up. Nobody knows
//! what that is, so that every other replica is compared block by block when it comes.

use std::time::Duration;

use crate::units::{Instant, Membership};

use super::core::{Engine, Stopping};
use super::operate::{AskId, OperateError};
use super::store::{Store, Then};

/// How long it may take until this node is primary.
const PATIENCE: Duration = Duration::from_secs(10);

/// An operator wants this node to be primary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promoting {
    id: AskId,
    force: bool,
    until: Instant,
}

impl Engine {
    /// An operator wants this node to be primary. It keeps the role for a moment, and for as long as somebody uses it.
    pub(super) fn promote(&mut self, id: AskId, force: bool) {
        if self.stopping != Stopping::No {
            return self.operated(id, Err(OperateError::ShuttingDown));
        }
        if self.reign.is_some() {
            return self.operated(id, Ok(()));
        }
        if self.promoting.is_some() {
            return self.operated(id, Err(OperateError::Refused("it is about to be primary already".to_owned())));
        }
        let needs_force = self.promotable().is_err();
        let refused = if needs_force && force { self.may_force().err() } else { needs_force.then(|| self.why_not_primary()) };
        if let Some(why) = refused {
            return self.operated(id, Err(why));
        }
        self.promoting = Some(Promoting { id, force, until: self.now.after(PATIENCE) });
    }

    /// Whether this node may become primary with what it has, though it may not have everything.
    fn may_force(&self) -> Result<(), OperateError> {
        let refused = |why: &str| Err(OperateError::Refused(why.to_owned()));
        let (Some(record), Some(store)) = (&self.record, self.store.as_ref().filter(|s| !s.failed)) else {
            return Err(OperateError::NoData("this node has no replica that can be used".to_owned()));
        };
        if store.superblock.synced.is_none() {
            return refused("the replica on this node was never whole");
        }
        if !self.record_read {
            return Err(OperateError::NoData("no authority answered in time".to_owned()));
        }
        if self.primary_may_return() > Some(self.now) {
            return refused("the primary was lost a moment ago and may come back; try again");
        }
        let better = |peer: &&super::peer::Peer| peer.is_connected() && (peer.is_primary() || peer.is_member_of(record));
        match self.peers.iter().find(better) {
            Some(peer) => refused(&format!("node {} has newer data, and can be used", peer.settings.name)),
            None => Ok(()),
        }
    }

    /// Nothing that is noted here of what others lack says what they have that is given up. That is forgotten durably before the reign is asked
    /// for (promotion waits for the superblock): a crash in between must not bring it back.
    fn forget_bases(&mut self) {
        let needed = self.needs_force();
        if let Some(store) = self.store.as_mut().filter(|store| needed && has_bases(store)) {
            store.superblock.peers.iter_mut().for_each(|slot| slot.base = None);
            store.store_superblock(Then::Nothing, &mut self.ops, &mut self.out);
        }
    }

    /// Whether force is wanted, needed, and may be used. It may turn out to be needed only when the authority is asked: this node did not know
    /// the newest record.
    fn needs_force(&self) -> bool {
        let wanted = self.promoting.is_some_and(|promoting| promoting.force) && self.reign.is_none() && self.change.is_none();
        wanted && self.promotable().is_err() && self.may_force().is_ok()
    }

    /// Whether an operator waits for this node to be primary.
    pub(super) fn is_promoting(&self) -> bool {
        self.promoting.is_some()
    }

    /// The in-sync set that force begins with, where it is needed and may be used.
    pub(super) fn forced(&self) -> Option<Membership> {
        let store = self.store.as_ref().filter(|store| !has_bases(store) && self.needs_force())?;
        Some([(self.id.node, store.superblock.incarnation)].into())
    }

    /// Tells whoever asked what came of it.
    pub(super) fn consider_promoting(&mut self) {
        let Some(Promoting { id, until, .. }) = self.promoting else { return };
        let result = if self.reign.is_some() {
            Ok(())
        } else if self.stopping != Stopping::No {
            Err(OperateError::ShuttingDown)
        } else if until <= self.now && self.change.is_some() {
            let why = "no authority has answered yet; it may still be granted: `blkrep status` shows whether it was";
            Err(OperateError::NoData(why.to_owned()))
        } else if until <= self.now {
            Err(self.why_not_primary())
        } else {
            return self.forget_bases();
        };
        self.promoting = None;
        self.operated(id, result);
    }

    pub(super) fn promoting_due(&self) -> Option<Instant> {
        self.promoting.map(|promoting| promoting.until)
    }

    /// An operator wants this node to give the role up, which nobody uses.
    pub(super) fn demote(&mut self, id: AskId) {
        let used = self.is_in_use() || self.has_hold();
        let result = match &mut self.reign {
            Some(_) if used => {
                Err(OperateError::Refused("it is in use, here or by way of this node: detach its clients first".into()))
            }
            Some(reign) => {
                reign.yield_role = true;
                self.give_up_verify();
                Ok(())
            }
            None => Err(OperateError::Refused("this node is not primary".into())),
        };
        self.operated(id, result);
    }
}

fn has_bases(store: &Store) -> bool {
    store.superblock.peers.iter().any(|slot| slot.base.is_some())
}
