//! A shard's memory: the pool, the buffers that engines know, and who is charged for them.

use std::io;

use crate::engine::BufferId;
use crate::ring::{Buffer, Pool, Slice};

use super::buffers::{Buffers, Charge};
use super::shares::Shares;
use super::slab::{Key, Slab};

/// A shard's memory.
#[derive(Debug)]
pub(super) struct Memory {
    pool: Pool,
    buffers: Buffers,
    shares: Shares,
    accounts: Slab<Account>,
}

/// What a client holds. It outlives the client until the last of its writes is done.
#[derive(Debug)]
struct Account {
    holding: usize,
    open: bool,
}

impl Memory {
    /// Reserves `bytes`.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let pool = Pool::new(bytes)?;
        let shares = Shares::of(pool.capacity());
        Ok(Self { pool, buffers: Buffers::default(), shares, accounts: Slab::default() })
    }

    /// The pool.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Opens an account.
    pub(super) fn open_account(&mut self) -> Key {
        self.accounts.insert(Account { holding: 0, open: true })
    }

    /// Closes an account: it ends when it holds nothing any more.
    pub(super) fn close_account(&mut self, account: Key) {
        if let Some(of) = self.accounts.get_mut(account) {
            of.open = false;
        }
        self.charge(account, 0);
    }

    /// A buffer of `len` bytes with one holder for a client's request, if it may have it now.
    pub(super) fn allocate_for(&mut self, account: Key, len: usize) -> Option<BufferId> {
        let bytes = Pool::footprint(len)?;
        let holding = &mut self.accounts.get_mut(account)?.holding;
        if !self.shares.take(holding, bytes) {
            return None;
        }
        match self.pool.try_allocate(len) {
            Some(buffer) => Some(self.buffers.insert(buffer, Some(Charge { account, bytes }))),
            None => {
                self.shares.give(holding, bytes);
                None
            }
        }
    }

    /// Whether a client may have `bytes` more now.
    pub(super) fn admits(&self, account: Key, bytes: usize) -> bool {
        self.accounts.get(account).is_some_and(|account| self.shares.admits(account.holding, bytes))
    }

    /// A buffer for what a peer sends; `None` when there is no room at all.
    pub(super) fn allocate_for_peer(&mut self, len: usize) -> Option<BufferId> {
        let buffer = self.pool.try_allocate(len)?;
        Some(self.buffers.insert(buffer, None))
    }

    /// A buffer for an engine's own work.
    pub(super) fn allocate_for_engine(&mut self, len: usize) -> Option<Buffer> {
        if self.shares.admits_background(self.pool.in_use()) { self.pool.try_allocate(len) } else { None }
    }

    /// Makes a buffer known to an engine, which gets it with one holder.
    pub(super) fn hand_over(&mut self, buffer: Buffer) -> BufferId {
        self.buffers.insert(buffer, None)
    }

    /// See [`Buffers::lend`].
    pub(super) fn lend(&mut self, id: BufferId) -> Buffer {
        self.buffers.lend(id)
    }

    /// See [`Buffers::restore`].
    pub(super) fn restore(&mut self, id: BufferId, buffer: Buffer) {
        let charge = self.buffers.restore(id, buffer);
        self.settle(charge);
    }

    /// See [`Buffers::share`].
    pub(super) fn share(&mut self, id: BufferId) -> Slice {
        self.buffers.share(id)
    }

    /// See [`Buffers::hold`].
    pub(super) fn hold(&mut self, id: BufferId) {
        self.buffers.hold(id);
    }

    /// See [`Buffers::release`].
    pub(super) fn release(&mut self, id: BufferId) {
        let charge = self.buffers.release(id);
        self.settle(charge);
    }

    /// See [`Buffers::abandon`].
    pub(super) fn abandon(&mut self, id: BufferId) {
        let charge = self.buffers.abandon(id);
        self.settle(charge);
    }

    /// Charges an account for bytes that it has in no buffer of its own: replies that it has not read.
    pub(super) fn charge(&mut self, account: Key, bytes: usize) {
        if let Some(of) = self.accounts.get_mut(account) {
            self.shares.add(&mut of.holding, bytes);
        }
        self.settle(Some(Charge { account, bytes: 0 }));
    }

    /// Takes back what was [charged](Self::charge).
    pub(super) fn discharge(&mut self, account: Key, bytes: usize) {
        self.settle(Some(Charge { account, bytes }));
    }

    /// How many buffers are held.
    pub(super) fn buffers(&self) -> usize {
        self.buffers.len()
    }

    fn settle(&mut self, charge: Option<Charge>) {
        let Some(Charge { account, bytes }) = charge else { return };
        let Some(of) = self.accounts.get_mut(account) else { return };
        self.shares.give(&mut of.holding, bytes);
        if of.holding == 0 && !of.open {
            self.accounts.remove(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_left_is_charged_until_its_last_write_is_done() {
        let mut memory = Memory::new(4 << 20).unwrap();
        let account = memory.open_account();
        let buffer = memory.allocate_for(account, 5000).unwrap();
        memory.charge(account, 100);
        assert_eq!(memory.shares.held(), 8292);
        memory.close_account(account);
        memory.discharge(account, 100);
        assert_eq!((memory.shares.held(), memory.accounts.len()), (8192, 1));
        memory.release(buffer);
        assert_eq!((memory.shares.held(), memory.accounts.len(), memory.buffers()), (0, 0, 0));
    }

    #[test]
    fn clients_cannot_take_what_is_for_peers() {
        let mut memory = Memory::new(8 << 20).unwrap();
        for _ in 0..1000 {
            let account = memory.open_account();
            while memory.allocate_for(account, 4096).is_some() {}
        }
        assert_eq!(memory.shares.held(), (8 << 20) / 8 * 5);
        assert!(memory.allocate_for_peer(1 << 20).is_some());
    }
}
