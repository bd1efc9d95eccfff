//! Ids that are never used again.

use crate::units::{Incarnation, RecordId};

/// Draws ids from a seed: two rounds of a 64-bit mixer over a counter, so that engines with different seeds draw different ids.
#[derive(Debug)]
pub(super) struct Ids {
    seed: [u64; 2],
    count: u64,
}

impl Ids {
    pub(super) fn new(seed: [u64; 2]) -> Self {
        Self { seed, count: 0 }
    }

    /// An id that is not 0.
    pub(super) fn draw(&mut self) -> u64 {
        loop {
            self.count += 1;
            let id = mix(mix(self.seed[0].wrapping_add(self.count)) ^ self.seed[1]);
            if id != 0 {
                return id;
            }
        }
    }

    pub(super) fn record(&mut self) -> RecordId {
        RecordId(self.draw())
    }

    pub(super) fn incarnation(&mut self) -> Incarnation {
        Incarnation(self.draw())
    }
}

/// The finalizer of SplitMix64: a bijection, so that distinct counts never give the same id under one seed.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
