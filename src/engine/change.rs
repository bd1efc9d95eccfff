//! The one change of the record that may be under way (rules M1 and M2).

use crate::units::{Instant, Record};

use super::event::Ticket;
use super::peerset::PeerSet;

/// A change of the record that was asked for and not answered.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) record: Record,
    pub(super) purpose: Purpose,
    pub(super) at: Court,
    /// When to ask again, after an answer that settled nothing.
    pub(super) again: Option<Instant>,
    /// The authority has not been reachable: shown as suspended.
    pub(super) unanswered: bool,
    /// It was granted: a reign, which waits for what was submitted under an older one (rule F4).
    pub(super) draining: bool,
}

/// What a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// This node becomes primary.
    Reign,
    /// The primary goes on without these replicas.
    Evict(PeerSet),
    /// The primary goes on without its own disk.
    DropSelf,
    /// A replica has been resynced.
    Admit(usize),
    /// A replica was cleanly restarted.
    Renew(usize),
    /// The primary gives the role up.
    StepDown,
}

/// Who decides.
#[derive(Debug)]
pub(super) enum Court {
    /// The cluster, by its Raft log.
    Cluster { ticket: Ticket },
    /// This node, once the replicas that it reaches have stored the record.
    Own {
        /// Peers that have not answered.
        asked: PeerSet,
        /// Peers that have stored it.
        accepted: PeerSet,
        /// It is being stored here.
        storing: bool,
        /// It is stored here first, and the peers are asked after that.
        own_first: bool,
    },
}
