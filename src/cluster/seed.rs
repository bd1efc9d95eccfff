//! Randomness that came in with a command.

use serde::{Deserialize, Serialize};

use crate::units::{Incarnation, RecordId, ReplicaId};

/// 128 random bits that a command brings along; every id it creates is derived from them, the same on every node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seed(pub u128);

impl Seed {
    pub(super) fn draws(self) -> Draws {
        Draws { seed: self, count: 0 }
    }
}

/// Draws ids from a [`Seed`]: independent of each other, and the same sequence for the same seed.
pub(super) struct Draws {
    seed: Seed,
    count: u64,
}

impl Draws {
    pub(super) fn replica(&mut self) -> ReplicaId {
        ReplicaId(self.draw())
    }

    pub(super) fn incarnation(&mut self) -> Incarnation {
        Incarnation(self.draw())
    }

    pub(super) fn record(&mut self) -> RecordId {
        RecordId(self.draw())
    }

    /// Never 0, so that a zeroed field on a disk is nobody's id.
    fn draw(&mut self) -> u64 {
        loop {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.seed.0.to_le_bytes()).update(&self.count.to_le_bytes());
            self.count += 1;
            let mut first = [0; 8];
            first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
            match u64::from_le_bytes(first) {
                0 => {}
                drawn => return drawn,
            }
        }
    }
}
