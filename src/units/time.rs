//! Time, as an argument.

use std::fmt;
use std::time::Duration;

/// A moment of this node's monotonic clock that counts suspension (`CLOCK_BOOTTIME`), in nanoseconds.
///
/// Pure rooms never read a clock: every event brings its moment along, so that production and simulation run the same code
/// and a lease survives a suspended machine (rule F2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// This moment and `duration` more; the end of time when that is beyond it.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
