//! The buffers that engines know by number.

use crate::engine::BufferId;
use crate::ring::{Buffer, Slice};

use super::slab::Key;

/// A shard's table of buffers. An entry lives until everybody who was named its holder has let go.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    content: Content,
    holders: u32,
    /// Whose share it counts in, and as how much.
    charge: Option<Charge>,
}

/// What a client's account is charged for a buffer, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Charge {
    /// The account.
    pub(super) account: Key,
    /// How much.
    pub(super) bytes: usize,
}

#[derive(Debug)]
enum Content {
    /// Nobody but the table has it: it can be filled.
    Own(Buffer),
    /// It is being written or sent, or has been: nobody changes it any more.
    Shared(Slice),
    /// An operation that fills it has it.
    Lent,
    /// A free place.
    Nothing,
}

impl Buffers {
    /// Takes in a buffer for one holder.
    pub(super) fn insert(&mut self, buffer: Buffer, charge: Option<Charge>) -> BufferId {
        let entry = Entry { content: Content::Own(buffer), holders: 1, charge };
        match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                BufferId(index)
            }
            None => {
                self.entries.push(entry);
                BufferId(u32::try_from(self.entries.len() - 1).expect("memory for 2^32 buffers does not exist"))
            }
        }
    }

    /// Lends the buffer to an operation that fills it.
    ///
    /// # Panics
    ///
    /// If it is lent or shared: whoever names a buffer to be filled knows that nothing else uses it.
    pub(super) fn lend(&mut self, id: BufferId) -> Buffer {
        let entry = self.entry(id);
        match std::mem::replace(&mut entry.content, Content::Lent) {
            Content::Own(buffer) => buffer,
            // It was written or sent before, and that is over.
            Content::Shared(slice) => slice.try_into_buffer().expect("a buffer that is filled is in use nowhere else"),
            Content::Lent | Content::Nothing => panic!("{id:?} is not here to be filled"),
        }
    }

    /// Takes a lent buffer back. When its holders are gone, so is the buffer: then its charge is to be given back.
    #[must_use]
    pub(super) fn restore(&mut self, id: BufferId, buffer: Buffer) -> Option<Charge> {
        let entry = self.entry(id);
        debug_assert!(matches!(entry.content, Content::Lent), "{id:?} was not lent");
        entry.content = Content::Own(buffer);
        if entry.holders == 0 { self.clear(id) } else { None }
    }

    /// A handle for reading; from the first one on the buffer does not change.
    ///
    /// # Panics
    ///
    /// If it is being filled.
    pub(super) fn share(&mut self, id: BufferId) -> Slice {
        let entry = self.entry(id);
        let slice = match std::mem::replace(&mut entry.content, Content::Nothing) {
            Content::Own(buffer) => buffer.freeze(),
            Content::Shared(slice) => slice,
            Content::Lent | Content::Nothing => panic!("{id:?} is not here to be read"),
        };
        entry.content = Content::Shared(slice.clone());
        slice
    }

    /// One holder more.
    pub(super) fn hold(&mut self, id: BufferId) {
        self.entry(id).holders += 1;
    }

    /// One holder less. After the last one the charge is to be given back.
    ///
    /// # Panics
    ///
    /// If there is none left: a buffer that was given back twice could be another's by then.
    #[must_use]
    pub(super) fn release(&mut self, id: BufferId) -> Option<Charge> {
        let entry = self.entry(id);
        entry.holders = entry.holders.checked_sub(1).expect("a buffer is given back once by each holder");
        if entry.holders == 0 && !matches!(entry.content, Content::Lent) { self.clear(id) } else { None }
    }

    /// Gives up a buffer with one holder that is lent and will not come back.
    #[must_use]
    pub(super) fn abandon(&mut self, id: BufferId) -> Option<Charge> {
        debug_assert!(self.entry(id).holders == 1, "{id:?} has other holders");
        self.clear(id)
    }

    /// How many buffers are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    fn clear(&mut self, id: BufferId) -> Option<Charge> {
        let entry = self.entry(id);
        entry.content = Content::Nothing;
        let charge = entry.charge.take();
        self.free.push(id.0);
        charge
    }

    fn entry(&mut self, id: BufferId) -> &mut Entry {
        &mut self.entries[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Pool;

    fn charge() -> Charge {
        Charge { account: Key::from(7), bytes: 4096 }
    }

    #[test]
    fn a_buffer_lives_until_its_last_holder_and_its_last_operation() {
        let pool = Pool::new(1 << 21).unwrap();
        let mut buffers = Buffers::default();
        let id = buffers.insert(pool.try_allocate(100).unwrap(), Some(charge()));
        buffers.hold(id);
        let mut lent = buffers.lend(id);
        lent.fill(7);
        assert_eq!(buffers.release(id), None);
        assert_eq!(buffers.restore(id, lent), None);
        assert_eq!(buffers.share(id)[99], 7);
        let sent = buffers.share(id);
        assert_eq!(buffers.release(id), Some(charge()));
        assert_eq!((buffers.len(), pool.in_use()), (0, 4096));
        drop(sent);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn a_buffer_whose_holders_left_while_it_was_filled_goes_when_it_comes_back() {
        let pool = Pool::new(1 << 21).unwrap();
        let mut buffers = Buffers::default();
        let id = buffers.insert(pool.try_allocate(100).unwrap(), Some(charge()));
        let lent = buffers.lend(id);
        assert_eq!(buffers.release(id), None);
        assert_eq!(buffers.len(), 1);
        assert_eq!(buffers.restore(id, lent), Some(charge()));
        assert_eq!((buffers.len(), pool.in_use()), (0, 0));
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn giving_back_twice_is_a_bug() {
        let pool = Pool::new(1 << 21).unwrap();
        let mut buffers = Buffers::default();
        let id = buffers.insert(pool.try_allocate(100).unwrap(), None);
        let (_first, _second) = (buffers.release(id), buffers.release(id));
    }
}
