//! Noting that writing has begun (rule Q3).
//!
//! With `quorum=off` a record says `unwritten` until just before the first write under it, on every replica that applies one, durably:
//! a side of a fork that still says so has nothing that the other lacks, and can withdraw by itself.

use crate::units::Authority;

use super::core::Engine;
use super::mutant::{Mutant, mutated};
use super::store::Then;

impl Engine {
    /// Holds a request back while the record still says "unwritten". Returns whether it does.
    pub(super) fn latch(&mut self, request: u64) -> bool {
        let unwritten = self.record.as_ref().is_some_and(|r| r.unwritten && r.authority == Authority::Off);
        let Some(reign) = self.reign.as_mut().filter(|_| !mutated(Mutant::NeverLatched)) else { return false };
        if !unwritten && !reign.latching {
            return false;
        }
        reign.latched.push_back(request);
        if !reign.latching {
            reign.latching = true;
            // The record that is about to follow it says so too: what is begun under this one is completed under that.
            let next = self.change.as_mut().map(|change| &mut change.record);
            let next = next.filter(|_| !mutated(Mutant::LatchForgotten));
            self.record.iter_mut().chain(next).for_each(|record| record.unwritten = false);
            if !self.has_disk() || mutated(Mutant::LatchUnstored) || !self.store_record(Then::Unlatch) {
                self.ready.push(Then::Unlatch);
            }
        }
        true
    }

    /// The record says durably that writing has begun.
    pub(super) fn unlatch(&mut self) {
        self.unlatch_follower();
        let Some(reign) = &mut self.reign else { return };
        reign.latching = false;
        for key in std::mem::take(&mut reign.latched) {
            self.launch(key);
        }
    }
}
