//! Verifies that begin by themselves.

use serde::{Deserialize, Serialize};

use super::Schedule;

/// When the replicas of a resource are compared by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifySchedule {
    /// Seconds between the beginnings of two.
    pub every: u64,
    /// Whether differences are made equal.
    pub repair: bool,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// When the last one began, in seconds since 1970.
    pub last: Option<u64>,
}

impl VerifySchedule {
    /// Whether one is to begin by `now`. What was missed is made up for once.
    pub fn is_due(&self, now: u64) -> bool {
        let due = Schedule::last_moment(self.since, self.every, now);
        due.is_some_and(|due| self.last.is_none_or(|last| last < due))
    }
}
