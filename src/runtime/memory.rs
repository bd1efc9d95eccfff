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
    /// Whom memory is kept free for, and how much.
    reserved: Option<(Key, usize)>,
}

/// Of this much memory is kept free for a client that waits for it.
const LARGE: usize = 4 << 20;

/// The least memory of a shard: a client's longest request must fit in what is shared by clients.
pub(super) const LEAST: usize = 128 << 20;

/// What a client holds. It outlives the client until the last of its writes is done.
#[derive(Debug)]
struct Account {
    holding: usize,
    open: bool,
}

impl Memory {
    /// Reserves `bytes`; at least [`LEAST`] where clients' requests may have any length.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let pool = Pool::new(bytes)?;
        let shares = Shares::of(pool.capacity());
        Ok(Self { pool, buffers: Buffers::default(), shares, accounts: Slab::default(), reserved: None })
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
        self.reserved = self.reserved.filter(|(whose, _)| *whose != account);
        self.charge(account, 0);
    }

    /// A buffer of `len` bytes with one holder for a client's request, if it may have it now.
    pub(super) fn allocate_for(&mut self, account: Key, len: usize) -> Option<BufferId> {
        let admitted = self.admits(account, Pool::footprint(len)?);
        if admitted { self.allocate_admitted(account, len) } else { None }
    }

    /// As [`allocate_for`](Self::allocate_for), for a part of what was [admitted](Self::admits) as a whole.
    pub(super) fn allocate_admitted(&mut self, account: Key, len: usize) -> Option<BufferId> {
        let holding = &mut self.accounts.get_mut(account)?.holding;
        let buffer = self.pool.try_allocate(len)?;
        let bytes = Pool::footprint(len)?;
        self.shares.add(holding, bytes);
        Some(self.buffers.insert(buffer, Some(Charge { account, bytes })))
    }

    /// Whether a client may have `bytes` more now. One that may not, and needs more than clients usually do, is kept free for: others
    /// do not get it first.
    pub(super) fn admits(&mut self, account: Key, bytes: usize) -> bool {
        let Some(of) = self.accounts.get(account) else { return false };
        let others = self.reserved.filter(|(whose, _)| *whose != account).map_or(0, |(_, bytes)| bytes);
        let admitted = self.shares.admits(of.holding, bytes, others);
        match self.reserved {
            Some((whose, _)) if whose == account && admitted => self.reserved = None,
            None if !admitted && bytes >= LARGE => self.reserved = Some((account, bytes)),
            _ => {}
        }
        admitted
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

    /// Copies `len` bytes from one buffer to another.
    ///
    /// # Panics
    ///
    /// If they are not in both, or the other buffer is in use.
    pub(super) fn copy(&mut self, from: BufferId, from_at: u64, into: BufferId, into_at: u64, len: u64) {
        let place = |at: u64| usize::try_from(at).expect("a place in a buffer");
        let bytes = self.buffers.share(from).slice(place(from_at)..place(from_at + len));
        let mut target = self.buffers.lend(into);
        target[place(into_at)..place(into_at + len)].copy_from_slice(&bytes);
        self.restore(into, target);
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
    #[cfg(test)]
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
    fn a_long_request_gets_its_memory_though_others_want_a_little_all_the_time() {
        let mut memory = Memory::new(LEAST).unwrap();
        let (long, short) = (memory.open_account(), memory.open_account());
        let mut held: Vec<_> = std::iter::from_fn(|| memory.allocate_for(short, 1 << 20)).collect();
        assert!(!memory.admits(long, 33 << 20));
        let mut waited = 0;
        while !memory.admits(long, 33 << 20) {
            memory.release(held.pop().expect("it is admitted before all is free"));
            held.extend(memory.allocate_for(short, 1 << 20));
            waited += 1;
        }
        assert!(waited < 30, "it waited {waited} times");
        assert!((0..33).all(|_| memory.allocate_admitted(long, 1 << 20).is_some()));
        let third = memory.open_account();
        assert!(memory.allocate_for(third, 4096).is_some(), "everybody has a floor");
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
