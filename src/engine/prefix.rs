//! Up to where everything is done, when things end out of order.

use std::collections::VecDeque;

/// Tracks numbers that begin in ascending order and end in any.
#[derive(Debug, Default)]
pub(super) struct Prefix {
    open: VecDeque<(u64, bool)>,
    done: u64,
}

impl Prefix {
    /// `seq`, greater than every one before, has begun.
    pub(super) fn begin(&mut self, seq: u64) {
        debug_assert!(self.open.back().is_none_or(|last| last.0 < seq) && seq > self.done, "numbers begin in ascending order");
        self.open.push_back((seq, false));
    }

    /// `seq` has ended.
    pub(super) fn end(&mut self, seq: u64) {
        if let Ok(at) = self.open.binary_search_by_key(&seq, |o| o.0) {
            self.open[at].1 = true;
        }
        while let Some(&(seq, true)) = self.open.front() {
            self.done = seq;
            self.open.pop_front();
        }
    }

    /// Everything that has begun up to here has ended.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// As [`done`](Self::done); when nothing is open, `last`, the greatest number given to anybody.
    pub(super) fn upto(&self, last: u64) -> u64 {
        if self.open.is_empty() { last } else { self.done }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_holds_the_prefix_back_until_it_is_closed() {
        let mut prefix = Prefix::default();
        for seq in [1, 2, 4, 7] {
            prefix.begin(seq);
        }
        prefix.end(2);
        prefix.end(7);
        assert_eq!(prefix.done(), 0);
        prefix.end(1);
        assert_eq!(prefix.done(), 2);
        prefix.end(4);
        assert_eq!((prefix.done(), prefix.upto(9)), (7, 9));
    }
}
