//! Who may touch which blocks now (rules W4 and R2).
//!
//! Requests and resync chunks that overlap run one after the other in the order of their arrival, unless both only read. The
//! table is a list in that order: what is in flight is bounded by the clients' queues, and a scan of some dozens of entries is
//! cheaper than any tree.

use crate::units::BlockRange;

use super::mutant::{Mutant, mutated};

/// The table of what is in flight or waits for it.
#[derive(Debug, Default)]
pub(super) struct Order {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    range: BlockRange,
    exclusive: bool,
    /// How many earlier entries it waits for.
    waits: u32,
}

impl Entry {
    fn conflicts(&self, other: &Self) -> bool {
        let both_write = self.exclusive && other.exclusive;
        let harmless = both_write && mutated(Mutant::WritesOverlap) || !both_write && mutated(Mutant::ReadsOvertake);
        (self.exclusive || other.exclusive) && self.range.overlaps(&other.range) && !harmless
    }
}

impl Order {
    /// Enters `range` under `id`. Returns whether it may go ahead at once; else a later [`release`](Self::release) names it.
    pub(super) fn enter(&mut self, id: u64, range: BlockRange, exclusive: bool) -> bool {
        let mut entry = Entry { id, range, exclusive, waits: 0 };
        entry.waits = u32::try_from(self.entries.iter().filter(|e| e.conflicts(&entry)).count()).unwrap_or(u32::MAX);
        let free = entry.waits == 0;
        self.entries.push(entry);
        free
    }

    /// Removes `id` and adds to `ready` those that waited for nothing else, in their order.
    pub(super) fn release(&mut self, id: u64, ready: &mut Vec<u64>) {
        let Some(at) = self.entries.iter().position(|e| e.id == id) else { return };
        let gone = self.entries.remove(at);
        for entry in &mut self.entries[at..] {
            if gone.conflicts(entry) {
                entry.waits -= 1;
                if entry.waits == 0 {
                    ready.push(entry.id);
                }
            }
        }
    }

    /// Whether a change of blocks of `range` is in flight or waits for its turn.
    pub(super) fn is_changing(&self, range: BlockRange) -> bool {
        self.entries.iter().any(|e| e.exclusive && e.range.overlaps(&range))
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::VolumeId;

    fn blocks(first: u64, count: u64) -> BlockRange {
        BlockRange { volume: VolumeId(0), first, count }
    }

    #[test]
    fn overlapping_writes_go_one_after_the_other_in_the_order_they_came() {
        let mut order = Order::default();
        let mut ready = Vec::new();
        assert!(order.enter(1, blocks(0, 4), true));
        assert!(!order.enter(2, blocks(2, 4), true));
        assert!(!order.enter(3, blocks(3, 1), true));
        assert!(order.enter(4, blocks(8, 1), true));
        order.release(1, &mut ready);
        assert_eq!(ready, [2]);
        ready.clear();
        order.release(2, &mut ready);
        assert_eq!(ready, [3]);
    }

    #[test]
    fn reads_share_but_wait_for_a_write_and_hold_one_up() {
        let mut order = Order::default();
        let mut ready = Vec::new();
        assert!(order.enter(1, blocks(0, 4), false));
        assert!(order.enter(2, blocks(0, 4), false));
        assert!(!order.enter(3, blocks(1, 1), true));
        assert!(!order.enter(4, blocks(1, 1), false), "a read that came after a write has to see it");
        order.release(1, &mut ready);
        assert!(ready.is_empty());
        order.release(2, &mut ready);
        assert_eq!(ready, [3]);
        ready.clear();
        order.release(3, &mut ready);
        assert_eq!(ready, [4]);
    }

    #[test]
    fn volumes_do_not_touch_each_other() {
        let mut order = Order::default();
        assert!(order.enter(1, blocks(0, 4), true));
        assert!(order.enter(2, BlockRange { volume: VolumeId(1), first: 0, count: 4 }, true));
        assert!(!order.enter(3, blocks(3, 1), false));
    }
}
