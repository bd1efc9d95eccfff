//! How fast resyncs go, from two looks at them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::api::{ClusterStatus, Resync};
use crate::units::Name;

/// How much of an earlier speed is kept at each look, in percent: enough to calm the figure, not so much that it lags.
const KEPT: f64 = 0.7;

/// The speeds of all resyncs, by resource and target.
#[derive(Debug, Default)]
pub(super) struct Pace {
    seen: BTreeMap<(Name, Name), Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    done: u64,
    per_second: Option<f64>,
}

impl Pace {
    /// Takes the present state of every resync into account.
    pub(super) fn look(&mut self, status: &ClusterStatus, now: Instant) {
        let mut seen = BTreeMap::new();
        for resource in &status.resources {
            for replica in &resource.replicas {
                let Some(resync) = resource.resync_of(replica) else { continue };
                let key = (resource.name.clone(), replica.node.clone());
                let next = self.seen.get(&key).map_or_else(|| Seen::first(resync, now), |last| last.next(resync, now));
                seen.insert(key, next);
            }
        }
        self.seen = seen;
    }

    /// Bytes per second of the resync to `target`; `None` after fewer than two looks.
    pub(super) fn speed(&self, resource: &Name, target: &Name) -> Option<u64> {
        let seen = self.seen.get(&(resource.clone(), target.clone()))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a speed is not negative, and a float `as` saturates"
        )]
        seen.per_second.map(|speed| speed as u64)
    }

    /// How long the resync to `target` will take at its speed.
    pub(super) fn left(&self, resource: &Name, target: &Name, resync: Resync) -> Option<Duration> {
        let speed = self.speed(resource, target).filter(|speed| *speed > 0)?;
        Some(Duration::from_secs(resync.total.saturating_sub(resync.done).div_ceil(speed)))
    }
}

impl Seen {
    fn first(resync: Resync, at: Instant) -> Self {
        Self { at, done: resync.done, per_second: None }
    }

    /// A resync that has less done than before is another one, and begins anew.
    fn next(self, resync: Resync, at: Instant) -> Self {
        let (Some(bytes), elapsed) = (resync.done.checked_sub(self.done), at.duration_since(self.at)) else {
            return Self::first(resync, at);
        };
        if elapsed.is_zero() {
            return self;
        }
        #[expect(clippy::cast_precision_loss, reason = "a speed for people needs no more than 52 bits")]
        let now = bytes as f64 / elapsed.as_secs_f64();
        let calm = self.per_second.map_or(now, |before| before * KEPT + now * (1.0 - KEPT));
        Self { at, done: resync.done, per_second: Some(calm) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn resync(done: u64) -> Resync {
        Resync { source: true, total: 100 * MIB, done: done * MIB }
    }

    #[test]
    fn the_speed_follows_what_was_done() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let seen = Seen::first(resync(0), start).next(resync(10), start + second);
        assert_eq!(seen.per_second, Some(10.0 * 1_048_576.0));
        let seen = seen.next(resync(30), start + 2 * second);
        assert!(seen.per_second.is_some_and(|speed| (12.9..13.1).contains(&(speed / 1_048_576.0))));
    }

    #[test]
    fn a_resync_that_begins_anew_has_no_speed_yet() {
        let start = Instant::now();
        let seen = Seen::first(resync(50), start).next(resync(10), start + Duration::from_secs(1));
        assert_eq!(seen.per_second, None);
    }
}
