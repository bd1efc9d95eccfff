//! Who may take how much of a shard's memory.
//!
//! | part of the pool | whose |
//! |---|---|
//! | 1/4 | the floor: what every client may hold whatever the others do, [`FLOOR`] each |
//! | 3/8 | shared by clients: one may hold as much above its floor as is still free, so a single busy one gets half of it |
//! | the rest | peers and engines |
//!
//! So clients whose resource is suspended keep what they have and stop nobody else. What peers send always finds room: a replica
//! frees it by writing to its own disk, which waits for nobody.

/// What a client may always hold, in bytes: enough for a queue of small requests.
pub(super) const FLOOR: usize = 64 << 10;

/// What of a pool clients' requests hold.
#[derive(Debug)]
pub(super) struct Shares {
    /// The shared part, and how much of it is held.
    limit: usize,
    shared: usize,
    /// What all clients hold, their floors included.
    held: usize,
    /// What all clients may hold.
    all: usize,
    /// Above this much in use in the pool, an engine's own reads (a resync's, mostly) wait.
    background: usize,
}

impl Shares {
    /// For a pool of so many bytes.
    pub(super) fn of(pool: usize) -> Self {
        Self { limit: pool / 8 * 3, shared: 0, held: 0, all: pool / 8 * 5, background: pool / 8 * 7 }
    }

    /// How many clients have a floor.
    #[cfg(test)]
    pub(super) fn clients_of(pool: usize) -> usize {
        pool / 4 / FLOOR
    }

    /// Whether a client that is `holding` so much may have `need` bytes more now, while so much is `reserved` for others.
    pub(super) fn admits(&self, holding: usize, need: usize, reserved: usize) -> bool {
        let before = holding.saturating_sub(FLOOR);
        let after = (holding + need).saturating_sub(FLOOR);
        let free = self.limit.saturating_sub(self.shared).saturating_sub(reserved);
        let allowed = after == before || (after - before <= free && (before == 0 || after <= free));
        // More clients than there are floors for must not take what is the peers'.
        allowed && self.held + need <= self.all
    }

    /// Adds `bytes` to what a client is `holding`, asked for or not.
    pub(super) fn add(&mut self, holding: &mut usize, bytes: usize) {
        let before = holding.saturating_sub(FLOOR);
        *holding += bytes;
        self.shared += holding.saturating_sub(FLOOR) - before;
        self.held += bytes;
    }

    /// Gives back `bytes` of what a client is `holding`.
    pub(super) fn give(&mut self, holding: &mut usize, bytes: usize) {
        let after = *holding - bytes;
        self.shared -= holding.saturating_sub(FLOOR) - after.saturating_sub(FLOOR);
        self.held -= bytes;
        *holding = after;
    }

    /// What clients hold.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether an engine's own read may take memory while the pool has `in_use` bytes in use.
    pub(super) fn admits_background(&self, in_use: usize) -> bool {
        in_use < self.background
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: usize = 256 << 20;

    impl Shares {
        fn take(&mut self, holding: &mut usize, need: usize) -> bool {
            let granted = self.admits(*holding, need, 0);
            if granted {
                self.add(holding, need);
            }
            granted
        }
    }

    #[test]
    fn clients_that_never_give_back_leave_every_other_its_floor() {
        let mut shares = Shares::of(POOL);
        let mut taken = Vec::new();
        for _ in 0..Shares::clients_of(POOL) {
            let mut holding = 0;
            while shares.take(&mut holding, 4096) {}
            taken.push(holding);
        }
        assert_eq!(taken[0], (48 << 20) + FLOOR, "the first gets half of what is shared");
        assert!(taken.iter().all(|&holding| holding >= FLOOR), "one got less than its floor");
        assert!(shares.held() <= POOL / 8 * 5, "peers have lost their part: clients hold {}", shares.held());
        for mut holding in taken {
            let all = holding;
            shares.give(&mut holding, all);
        }
        assert_eq!((shares.held(), shares.shared), (0, 0));
    }

    #[test]
    fn a_client_that_holds_nothing_may_have_all_that_is_free() {
        let mut shares = Shares::of(POOL);
        let (mut first, mut second) = (0, 0);
        assert!(shares.take(&mut first, 64 << 20));
        assert!(!shares.take(&mut first, 1 << 20), "it would hold more than is left");
        assert!(shares.take(&mut second, 32 << 20));
        assert!(!shares.take(&mut second, 1 << 20));
    }
}
