//! Rows of seeds: what a run has beside clients and faults is drawn only in the seeds of some rows, so that those of the others go as they
//! always did, and a seed that found something finds it again.

/// What the runs of a row have.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its first seed; it ends where the next row begins.
    pub from: u64,
    /// One in so many of the seeds that are asked for is of this row.
    pub share: u64,
    pub verifies: bool,
    pub holds: bool,
    pub operates: bool,
    /// Clients come for a moment ([`brief`](super::brief)).
    pub brief: bool,
    /// Two nodes that may go on alone.
    pub forks: bool,
    /// Clients that do not share with others ([`sharing`](super::sharing)).
    pub shares: bool,
    /// I/O fails that waits for a quorum, in every other seed.
    pub errors: bool,
}

const PLAIN: Row = Row {
    from: 0,
    share: 1,
    verifies: false,
    holds: false,
    operates: false,
    brief: false,
    forks: false,
    shares: false,
    errors: false,
};

pub const VERIFIED: Row = Row { from: 500_000, share: 8, verifies: true, ..PLAIN };
pub const HELD: Row = Row { from: 1_000_000, share: 4, holds: true, ..PLAIN };
pub const OPERATED: Row = Row { from: 1_500_000, share: 8, operates: true, ..PLAIN };
pub const BRIEF: Row = Row { from: 2_000_000, share: 4, brief: true, ..PLAIN };
pub const CROWDED: Row = Row { from: 2_500_000, share: 8, verifies: true, holds: true, operates: true, brief: true, ..PLAIN };
pub const SHARED: Row = Row { from: 3_500_000, share: 8, brief: true, shares: true, errors: true, ..PLAIN };
pub const FORKED: Row = Row { from: 4_000_000, share: 8, brief: true, forks: true, ..PLAIN };

/// All rows, in their order.
pub const ROWS: [Row; 8] = [PLAIN, VERIFIED, HELD, OPERATED, BRIEF, CROWDED, SHARED, FORKED];

/// The row of a seed.
pub fn of(seed: u64) -> Row {
    ROWS.into_iter().rfind(|row| row.from <= seed).unwrap_or(PLAIN)
}
