//! Holding writes for a snapshot (rule H1): for a moment every replica in sync has exactly the same writes, and no other begins.
//!
//! ```text
//!            asked for                 served, all members equal          a round of flushes
//!               │        ┌────────┐    ┌──────────┐   drained   ┌──────────┐   has ended   ┌──────┐
//!               └───────▶│ wanted │───▶│ draining │────────────▶│ flushing │──────────────▶│ held │
//!                        └────────┘    └──────────┘             └──────────┘               └──────┘
//! ```
//!
//! A hold ends when it is released, when its time is over, or with the reign, whichever comes first: whoever asked for it may be dead. Only
//! its release says whether it lasted until then; whoever takes snapshots believes none that it does not say so of.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::units::{Instant, NodeId};

use super::core::{Engine, Stopping};
use super::event::{AttachError, Command, Held, HoldError, HoldId};
use super::mutant::{Mutant, mutated};
use super::reign::{Pending, Phase};
use super::requests::range_of;

/// No hold lasts longer, whoever renews it.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// A hold that was asked for.
#[derive(Debug)]
pub(super) struct Hold {
    id: HoldId,
    /// Its end, unless it is renewed.
    until: Instant,
    /// Its end in any case.
    latest: Instant,
    stage: Stage,
}

/// How far a hold is; from its second stage on in a reign of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// This node does not serve yet.
    Wanted,
    /// No write begins, those under way run to their end.
    Draining { reign: u64 },
    /// So many rounds of flushes have ended that do not count.
    Flushing { reign: u64, from: u64 },
    /// Whoever asked was told.
    Held { reign: u64 },
}

impl Stage {
    fn reign(self) -> Option<u64> {
        match self {
            Self::Wanted => None,
            Self::Draining { reign } | Self::Flushing { reign, .. } | Self::Held { reign } => Some(reign),
        }
    }
}

impl Engine {
    pub(super) fn hold(&mut self, id: HoldId, lease: Duration) {
        if self.hold.is_some() {
            self.out.push(Command::Held { id, result: Err(HoldError::Busy) });
            return;
        }
        let (until, latest) = (self.now.after(lease.min(LONGEST)), self.now.after(LONGEST));
        self.hold = Some(Hold { id, until, latest, stage: Stage::Wanted });
    }

    /// Gives a hold more time, if there still is one.
    pub(super) fn renew_hold(&mut self, id: HoldId, lease: Duration) {
        let until = self.now.after(lease);
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.id == id) {
            hold.until = until.min(hold.latest);
        }
    }

    /// Ends a hold, and says whether it was held all the time since that was said.
    pub(super) fn release_hold(&mut self, id: HoldId) {
        // What is over by now was over before this.
        self.consider_hold();
        let held = self.hold.take_if(|hold| hold.id == id).is_some_and(|hold| matches!(hold.stage, Stage::Held { .. }));
        self.out.push(Command::Released { id, whole: held || mutated(Mutant::HoldAlwaysWhole) });
        self.retry_held();
    }

    /// Whether this node has to be primary, or stay so, for a hold.
    pub(super) fn has_hold(&self) -> bool {
        self.hold.is_some()
    }

    /// When a hold ends by itself.
    pub(super) fn hold_ends(&self) -> Option<Instant> {
        self.hold.as_ref().map(|hold| hold.until)
    }

    /// Whether a request has to wait for the end of a hold: it changes blocks, and was not admitted before.
    pub(super) fn is_withheld(&self, exclusive: bool, volume: crate::units::VolumeId) -> bool {
        let skipped = mutated(Mutant::HoldSkipsVolume) && self.settings.volumes.keys().next_back() == Some(&volume);
        exclusive && !skipped && self.holds_writes()
    }

    /// Whether no write begins.
    pub(super) fn holds_writes(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.stage != Stage::Wanted)
    }

    /// Brings a hold on its way, or to its end.
    pub(super) fn consider_hold(&mut self) {
        let Some(hold) = &self.hold else { return };
        let reign = self.reign.as_ref().map(|reign| reign.number);
        let deposed = hold.stage.reign().is_some_and(|of| Some(of) != reign);
        let late = hold.until <= self.now && !(mutated(Mutant::HoldNeverEnds) && hold.stage.reign().is_some());
        if self.stopping != Stopping::No || deposed {
            return self.drop_hold(HoldError::Ended);
        }
        if late {
            let why = self.why_not_held();
            return self.drop_hold(why);
        }
        let stage = hold.stage;
        let next = match stage {
            Stage::Wanted => self.hold_wanted(),
            Stage::Draining { reign } => self.hold_draining(reign),
            Stage::Flushing { reign, from } => self.hold_flushing(reign, from),
            Stage::Held { .. } => stage,
        };
        if let Some(hold) = &mut self.hold {
            hold.stage = next;
        }
        if next != stage {
            self.consider_hold();
        }
    }

    /// Nobody waits for it any more.
    fn drop_hold(&mut self, why: HoldError) {
        let Some(hold) = self.hold.take() else { return };
        if !matches!(hold.stage, Stage::Held { .. }) {
            self.out.push(Command::Held { id: hold.id, result: Err(why) });
        }
        self.retry_held();
    }

    fn hold_wanted(&mut self) -> Stage {
        match &self.reign {
            Some(reign) if reign.phase == Phase::Serving => return Stage::Draining { reign: reign.number },
            None if self.change.is_none() => {
                if let Err(AttachError::InUse(node)) = self.promotable() {
                    self.drop_hold(HoldError::Elsewhere(node));
                }
            }
            _ => {}
        }
        Stage::Wanted
    }

    fn hold_draining(&mut self, number: u64) -> Stage {
        if !self.is_drained() && !mutated(Mutant::HoldUndrained) {
            return Stage::Draining { reign: number };
        }
        let Some(reign) = &mut self.reign else { return Stage::Draining { reign: number } };
        reign.flushes.wanted = true;
        let from = reign.flushes.ended + u64::from(reign.flushes.is_running());
        self.consider_flush();
        Stage::Flushing { reign: number, from }
    }

    fn hold_flushing(&mut self, number: u64, from: u64) -> Stage {
        let ended = self.reign.as_ref().is_some_and(|reign| reign.flushes.ended > from);
        let in_sync = self.whole_in_sync_set().filter(|_| ended);
        let Some((in_sync, hold)) = in_sync.zip(self.hold.as_ref()) else { return Stage::Flushing { reign: number, from } };
        let held = Held { reign: number, in_sync };
        self.out.push(Command::Held { id: hold.id, result: Ok(held) });
        Stage::Held { reign: number }
    }

    /// Whether every replica in sync has all writes that were ever admitted, and no others.
    fn is_drained(&self) -> bool {
        let Some(reign) = &self.reign else { return false };
        let equal = reign.equal || mutated(Mutant::HoldUnequal);
        let changes = |pending: &Pending| range_of(&pending.request).is_some_and(|(_, exclusive)| exclusive);
        let writes = reign.requests.iter().filter(|(_, pending)| changes(pending)).count();
        let waiting = reign.held.iter().filter_map(|&key| reign.requests.get(key)).filter(|pending| changes(pending)).count();
        equal && writes == waiting && self.whole_in_sync_set().is_some()
    }

    /// The nodes in sync, when the record is settled and all of them are there.
    fn whole_in_sync_set(&self) -> Option<BTreeSet<NodeId>> {
        let record = self.record.as_ref().filter(|_| self.change.is_none())?;
        let there = |node: &NodeId| match self.peer_at(*node) {
            _ if *node == self.id.node => self.has_disk(),
            Some(at) => self.peers[at].data,
            None => false,
        };
        record.in_sync.keys().all(there).then(|| record.in_sync.keys().copied().collect())
    }

    /// Why there is no hold when its time is over.
    fn why_not_held(&self) -> HoldError {
        match (&self.reign, self.promotable()) {
            (None, Err(AttachError::NoData(why))) => HoldError::NoData(why),
            (None, _) => HoldError::NoData("no authority answered in time".to_owned()),
            (Some(_), _) => HoldError::Slow,
        }
    }
}
