//! What the pools know of their volume groups: one report of LVM's serves all pools of the node.
//!
//! A report is a process that reads every disk of the machine, however many groups it is of. So whoever wants one gets that of all the
//! groups that are pools here, or the last one, where that is young enough for what he means to do with it: whatever is about to be
//! changed is looked at anew, and what was seen before a change is forgotten. While one looks, the others wait, and see the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::command::Lvm;
use super::report::VolumeGroup;
use crate::{Outcome, PoolError};

/// How old what is known of a group may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Age {
    /// As it is now, or later: a command follows that depends on it.
    Now,
    /// A moment old, if this process has changed nothing since: nothing is changed after it.
    Recent,
}

/// The groups of the pools that run LVM in one way.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When the last report was asked for; `None` when something was changed since.
    asked: Option<Instant>,
    groups: BTreeMap<String, VolumeGroup>,
    /// How many pools there are of each group.
    pools: BTreeMap<String, usize>,
    /// Groups that a report has failed for: they are asked for alone until one does not, and the others together.
    apart: BTreeSet<String>,
}

/// One pool's part in them.
#[derive(Debug)]
pub(super) struct Share {
    reports: Arc<Reports>,
    name: String,
}

impl Reports {
    /// Those of everybody in this process who runs LVM in the way that `key` tells.
    pub(super) fn of(key: String) -> Arc<Self> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, reports| reports.strong_count() > 0);
        let known = all.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::new(Self::default());
            all.insert(key, Arc::downgrade(&new));
            new
        })
    }

    /// Lets a group be in every report until the answer is dropped.
    pub(super) fn share(self: &Arc<Self>, name: &str) -> Share {
        *self.known().pools.entry(name.to_owned()).or_default() += 1;
        Share { reports: self.clone(), name: name.to_owned() }
    }

    /// Something was changed, or may have been: what was seen before is not used any more.
    pub(super) fn forget(&self) {
        self.known().asked = None;
    }

    /// A group of which there is a [`Share`].
    pub(super) fn group(&self, lvm: &Lvm, name: &str, age: Age) -> Result<VolumeGroup, PoolError> {
        let not_before = match age {
            Age::Now => Some(Instant::now()),
            Age::Recent => Instant::now().checked_sub(lvm.options.report_lifetime),
        };
        // One asks for all who wait here; a report that was begun after they came is theirs too.
        let mut known = self.known();
        // Once more without those that a report failed for.
        for _ in 0..2 {
            if known.apart.contains(name) {
                break;
            }
            if known.asked >= not_before
                && known.asked.is_some()
                && let Some(group) = known.groups.get(name)
            {
                return Ok(group.clone());
            }
            known.look(lvm)?;
        }
        // Nobody waits for a group that does not answer but who wants it.
        drop(known);
        let group = lvm.volume_group(name)?;
        self.known().apart.remove(name);
        Ok(group)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Asks for all groups that are not apart. Some may be apart afterwards.
    fn look(&mut self, lvm: &Lvm) -> Result<(), PoolError> {
        let names: Vec<&str> = self.pools.keys().filter(|name| !self.apart.contains(*name)).map(String::as_str).collect();
        let asked = Instant::now();
        self.asked = None;
        let (groups, complete) = match lvm.volume_groups(&names) {
            // One that another command has locked keeps the report of all of them waiting.
            Err(PoolError::Command(failure)) if matches!(failure.outcome, Outcome::TimedOut { .. }) => (Vec::new(), false),
            answer => answer?,
        };
        self.groups = groups.into_iter().map(|group| (group.name.clone(), group)).collect();
        if complete {
            self.asked = Some(asked);
            return Ok(());
        }
        // Which of them is to blame is told by what is missing; else each shows when it is asked for alone.
        let missing = |name: &&String| !self.groups.contains_key(*name);
        let any_missing = self.pools.keys().filter(|name| !self.apart.contains(*name)).any(|name| missing(&name));
        let blamed: Vec<String> = self.pools.keys().filter(|name| !any_missing || missing(name)).cloned().collect();
        self.apart.extend(blamed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut known = self.reports.known();
        if let Some(count) = known.pools.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                known.pools.remove(&self.name);
                known.groups.remove(&self.name);
                known.apart.remove(&self.name);
            }
        }
    }
}

/// Those of this process, by how LVM is run.
static ALL: Mutex<BTreeMap<String, Weak<Reports>>> = Mutex::new(BTreeMap::new());
