//! When which resource's engine wants to be called.
//!
//! Engines move their deadlines with nearly every event. A deadline that moves back costs nothing here: the alarm rings early, the
//! engine is asked again, and the alarm is set anew.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::units::Instant;

use super::slab::Key;

/// Alarms of many owners, each of which has at most one that counts.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    heap: BinaryHeap<Reverse<(Instant, Key)>>,
}

/// An owner's side of its alarm.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// The earliest entry in the heap.
    rings: Option<Instant>,
}

impl Alarms {
    /// Sees to it that `owner` is called at `at` or before.
    pub(super) fn set(&mut self, alarm: &mut Alarm, owner: Key, at: Option<Instant>) {
        let Some(at) = at else { return };
        if alarm.rings.is_none_or(|rings| at < rings) {
            alarm.rings = Some(at);
            self.heap.push(Reverse((at, owner)));
        }
    }

    /// The next moment at which somebody may have to be called.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// An owner whose alarm has rung by `now`. It must be told by [`Alarm::rang`], unless it is gone.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Key, Instant)> {
        let &Reverse((at, owner)) = self.heap.peek()?;
        (at <= now).then(|| {
            self.heap.pop();
            (owner, at)
        })
    }
}

impl Alarm {
    /// The alarm that was set for `at` has rung.
    pub(super) fn rang(&mut self, at: Instant) {
        if self.rings == Some(at) {
            self.rings = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    #[test]
    fn a_deadline_that_moves_forward_is_met_and_one_that_moves_back_rings_early() {
        let mut owners = Slab::default();
        let owner = owners.insert(());
        let (mut alarms, mut alarm) = (Alarms::default(), Alarm::default());
        alarms.set(&mut alarm, owner, Some(Instant(50)));
        alarms.set(&mut alarm, owner, Some(Instant(70)));
        alarms.set(&mut alarm, owner, Some(Instant(30)));
        assert_eq!(alarms.next(), Some(Instant(30)));
        assert_eq!(alarms.pop(Instant(29)), None);
        assert_eq!(alarms.pop(Instant(30)), Some((owner, Instant(30))));
        alarm.rang(Instant(30));
        alarms.set(&mut alarm, owner, Some(Instant(70)));
        // The first one is still there; it rings for nothing.
        assert_eq!(alarms.pop(Instant(99)), Some((owner, Instant(50))));
        alarm.rang(Instant(50));
        assert_eq!(alarms.pop(Instant(99)), Some((owner, Instant(70))));
        assert_eq!(alarms.next(), None);
    }
}
