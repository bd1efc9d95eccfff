//! What clients were promised, sector by sector.
//!
//! Every write has a number of its own, so that a value read names the write it came from. A read is legal when that write may be the
//! latest: no other write is known to have happened wholly after it and wholly before the read. A write is known to have happened when it
//! was acknowledged or when a read has returned it. One that was not acknowledged may happen at any time, or never.

use std::collections::BTreeMap;

/// A moment that never comes.
const NEVER: u64 = u64::MAX;

#[derive(Debug, Clone)]
struct Write {
    value: u64,
    began: u64,
    acked: u64,
    observed: u64,
    /// The session that asked for it ended unanswered then: it happened before anything that began later, or never (rule W7).
    ended: u64,
    /// Covered by a flush that was acknowledged.
    durable: bool,
}

impl Write {
    fn happened(&self) -> u64 {
        self.acked.min(self.observed)
    }

    /// When it had happened, if it ever did.
    fn latest(&self) -> u64 {
        self.happened().min(self.ended)
    }
}

/// The promises.
#[derive(Debug, Default)]
pub struct Oracle {
    sectors: BTreeMap<u64, Vec<Write>>,
    next: u64,
    /// When the oldest request began that is not answered.
    pub oldest: u64,
    /// Writes of sessions that have ended on nodes that forward: when, where and which. They are on their way, and happen before anything
    /// that a client asks for that comes later, or never.
    astray: Vec<(u64, std::ops::Range<u64>, u64, u64)>,
    pub reads: u64,
    pub writes: u64,
}

impl Oracle {
    /// A new value, written to the sectors from now on. `zero` writes zeroes, which all zeroing requests share.
    pub fn begin(&mut self, now: u64, sectors: std::ops::Range<u64>, zero: bool) -> u64 {
        self.next += 1;
        let value = if zero { 0 } else { self.next };
        for sector in sectors {
            let writes = self.sectors.entry(sector).or_default();
            writes.push(Write { value, began: now, acked: NEVER, observed: NEVER, ended: NEVER, durable: false });
        }
        self.writes += 1;
        self.next
    }

    /// The write that began at `began` with `value` was acknowledged.
    pub fn acked(&mut self, now: u64, sectors: std::ops::Range<u64>, value: u64, began: u64, durable: bool) {
        for sector in sectors {
            let writes = self.sectors.entry(sector).or_default();
            if let Some(write) = writes.iter_mut().find(|w| w.value == value && w.began == began && w.acked == NEVER) {
                write.acked = now;
                write.durable |= durable;
            }
            forget(writes, self.oldest);
        }
    }

    /// The session of the write that began at `began` has ended, and it was not answered.
    pub fn ended(&mut self, now: u64, sectors: std::ops::Range<u64>, value: u64, began: u64) {
        for sector in sectors {
            let writes = self.sectors.entry(sector).or_default();
            for write in writes.iter_mut().filter(|w| w.value == value && w.began == began && w.acked == NEVER) {
                write.ended = write.ended.min(now);
            }
        }
    }

    /// The session of a write has ended. What was forwarded may still be on its way to the primary.
    pub fn gone(&mut self, now: u64, sectors: std::ops::Range<u64>, value: u64, began: u64, forwarded: bool) {
        if forwarded {
            self.astray.push((now, sectors, value, began));
        } else {
            self.ended(now, sectors, value, began);
        }
    }

    /// A client that asked for it then is let in: what clients that had gone before had sent has arrived, or never will.
    pub fn entered(&mut self, now: u64, asked: u64) {
        let (over, later) = std::mem::take(&mut self.astray).into_iter().partition(|(gone, ..)| *gone < asked);
        self.astray = later;
        let over: Vec<_> = over;
        over.into_iter().for_each(|(_, sectors, value, began)| self.ended(now, sectors, value, began));
    }

    /// Whether a sector may hold a value although another write to it that began at `began` has happened.
    pub fn may_be_newer(&self, sector: u64, value: u64, began: u64) -> bool {
        self.sectors.get(&sector).is_some_and(|writes| writes.iter().any(|w| w.value == value && w.latest() >= began))
    }

    /// What sectors are sure to hold durably when a flush that began then is answered: those of which the last write was acknowledged
    /// before, and no other may have come after it.
    pub fn certain(&self, began: u64) -> Vec<(u64, u64)> {
        let of = |(&sector, writes): (&u64, &Vec<Write>)| {
            let (last, before) = writes.split_last()?;
            // Two that begin at one moment are forwarded in any order.
            let certain = last.acked < began && before.iter().all(|w| w.latest() <= last.began);
            certain.then_some((sector, last.value))
        };
        self.sectors.iter().filter_map(of).collect()
    }

    /// A flush that began then was acknowledged: what was acknowledged before it began is durable.
    pub fn flushed(&mut self, began: u64) {
        for writes in self.sectors.values_mut() {
            for write in writes.iter_mut().filter(|w| w.acked < began) {
                write.durable = true;
            }
        }
    }

    /// What no flush covered may be gone, by what the protocol promises.
    pub fn unflushed_lost(&mut self, now: u64) {
        for writes in self.sectors.values_mut() {
            for write in writes.iter_mut().filter(|w| !w.durable) {
                if write.happened() != NEVER {
                    write.ended = write.ended.min(now);
                }
                write.acked = NEVER;
                write.observed = NEVER;
            }
        }
    }

    /// A read from `began` to `now` returned `value`.
    pub fn read(&mut self, began: u64, now: u64, sector: u64, value: u64) -> Result<(), String> {
        self.reads += 1;
        let only = self.judge(began, now, sector, value)?;
        let writes = self.sectors.entry(sector).or_default();
        if let Some(began) = only
            && let Some(write) = writes.iter_mut().find(|w| w.value == value && w.began == began)
        {
            write.observed = write.observed.min(now);
        }
        Ok(())
    }

    /// Whether a read from `began` to `now` may return `value`; when the write began that alone can have put it there.
    pub fn judge(&self, began: u64, now: u64, sector: u64, value: u64) -> Result<Option<u64>, String> {
        let writes = self.sectors.get(&sector).map_or(&[][..], Vec::as_slice);
        let source = |w: &&Write| w.value == value && w.began <= now;
        // Zeroes are what a sector holds before any write, and what any zeroing leaves: the latest that fits is the witness.
        let from: Vec<&Write> = writes.iter().filter(source).collect();
        let overwritten = |happened: u64| writes.iter().find(|w| w.value != value && w.began > happened && w.happened() < began);
        let initial = value == 0 && overwritten(0).is_none();
        let witness = from.iter().find(|w| overwritten(w.latest()).is_none()).map(|w| w.began);
        if witness.is_none() && !initial {
            let by = from.first().map_or_else(|| overwritten(0), |w| overwritten(w.latest()));
            return Err(match (from.is_empty() && value != 0, by) {
                (true, _) => format!("sector {sector} read as {value}, which was never written there"),
                (_, Some(by)) => format!(
                    "sector {sector} read as {value} between {began} and {now}, but {} had been written over it (begun {}, known at {})",
                    by.value,
                    by.began,
                    by.happened()
                ),
                (_, None) => format!("sector {sector} read as {value} at {now}"),
            });
        }
        let only = from.len() == 1 && !initial;
        Ok(witness.filter(|_| only))
    }

    /// Sectors that were ever written.
    pub fn sectors(&self) -> Vec<u64> {
        self.sectors.keys().copied().collect()
    }
}

/// Forgets writes that are certainly overwritten durably for every read that is under way since `oldest` or comes later.
fn forget(writes: &mut Vec<Write>, oldest: u64) {
    if writes.len() > 16 {
        let floor = writes.iter().filter(|w| w.durable && w.happened() <= oldest).map(|w| w.began).max().unwrap_or(0);
        writes.retain(|w| w.happened() >= floor || (w.acked == NEVER && w.ended >= floor));
    }
}
