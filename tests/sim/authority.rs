//! The cluster's authority: a linearizable register that can be slow, unreachable, or lose its answers.

use blkrep::engine::Answer;
use blkrep::units::{Record, RecordId};

#[derive(Debug)]
pub struct Register {
    pub record: Record,
    pub reachable: bool,
    /// Every record there was, for the invariants.
    pub history: Vec<Record>,
}

impl Register {
    pub fn new(record: Record) -> Self {
        Self { history: vec![record.clone()], record, reachable: true }
    }

    pub fn propose(&mut self, expect: RecordId, record: Record) -> Answer {
        if self.record.id == expect {
            assert!(record.number == self.record.number + 1, "a record's number counts its changes");
            self.history.push(record.clone());
            self.record = record;
            Answer::Granted
        } else {
            Answer::Is(self.record.clone())
        }
    }
}
