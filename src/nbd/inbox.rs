//! Bytes that were received and not understood yet.

/// A byte queue: filled at the back in pieces of any size, emptied from the front in messages.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    taken: usize,
}

impl Inbox {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// What is there.
    pub(super) fn peek(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// The first `count` bytes, when all of them are there; they stay until they are [skipped](Self::skip).
    pub(super) fn front(&self, count: usize) -> Option<&[u8]> {
        self.peek().get(..count)
    }

    /// The first bytes as an array, which are then gone.
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let front = *self.peek().first_chunk()?;
        self.taken += N;
        Some(front)
    }

    /// Forgets up to `count` bytes and tells how many were there.
    pub(super) fn skip(&mut self, count: usize) -> usize {
        let skipped = count.min(self.peek().len());
        self.taken += skipped;
        skipped
    }

    /// Everything, leaving nothing.
    pub(super) fn take_all(&mut self) -> Vec<u8> {
        let all = self.bytes.split_off(self.taken);
        *self = Self::default();
        all
    }
}
