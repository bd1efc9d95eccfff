//! Where operations live while they are in flight.

use io_uring::types::Timespec;

use super::Op;

/// Names an operation in flight, to [`cancel`](super::Ring::cancel) it. One whose operation has completed names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle(u64);

/// A table of operations and their owners' tokens. Entries never move: the kernel has pointers into them.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Box<[Slot<T>]>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    /// Counts the slot's uses, so that an old handle does not name a new operation.
    generation: u32,
    content: Option<(T, Op)>,
    timespec: Timespec,
}

impl Handle {
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    pub(super) const fn from_user_data(user_data: u64) -> Self {
        Self(user_data)
    }

    pub(super) const fn user_data(self) -> u64 {
        self.0
    }

    fn index(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).expect("masked to 32 bits")
    }
}

impl<T> Slots<T> {
    /// Room for `capacity` operations, which is less than `u32::MAX`.
    pub(super) fn new(capacity: u32) -> Self {
        let slot = |_| Slot { generation: 0, content: None, timespec: Timespec::new() };
        Self { slots: (0..capacity).map(slot).collect(), free: (0..capacity).rev().collect() }
    }

    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Stores an operation; its handle, and the operation and its time where they stay. There must be room.
    pub(super) fn insert(&mut self, op: Op, token: T) -> (Handle, &mut Op, &Timespec) {
        let index = self.free.pop().expect("the caller has seen that there is room");
        let slot = &mut self.slots[index as usize];
        if let Some(timespec) = op.timespec() {
            slot.timespec = timespec;
        }
        let handle = Handle::new(index, slot.generation);
        let (_, op) = slot.content.insert((token, op));
        (handle, op, &slot.timespec)
    }

    /// Takes an operation out.
    pub(super) fn remove(&mut self, handle: Handle) -> Option<(T, Op)> {
        let slot = self.slots.get_mut(handle.index() as usize)?;
        if Handle::new(handle.index(), slot.generation) != handle {
            return None;
        }
        let content = slot.content.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(handle.index());
        Some(content)
    }

    /// The handles of all that is in it.
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        let used = self.slots.iter().zip(0..).filter(|(slot, _)| slot.content.is_some());
        used.map(|(slot, index)| Handle::new(index, slot.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_handle_names_nothing() {
        let mut slots = Slots::new(2);
        let (first, ..) = slots.insert(Op::Nop, 'a');
        assert_eq!(slots.remove(first).map(|(token, _)| token), Some('a'));
        let (second, ..) = slots.insert(Op::Nop, 'b');
        assert_ne!(first, second);
        assert!(slots.remove(first).is_none());
        assert_eq!(slots.handles().collect::<Vec<_>>(), [second]);
        assert_eq!(slots.used(), 1);
    }
}
