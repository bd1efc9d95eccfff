//! The Raft-replicated model (pure): what the cluster is meant to be.
//!
//! [`Cluster`] is changed by [`Cluster::apply`] alone, one [`Command`] after the other in the order of the Raft log, so that every
//! node holds the same model. A command that cannot be taken is answered by a [`Refusal`] and changes nothing. What a command
//! needs of time and randomness it brings along ([`Command`]'s `now` and [`Seed`]).
//!
//! The model says what *should* be; a reconciler on each node makes it so and confirms what it has done
//! ([`Command::ConfirmReplica`], [`Command::ConfirmLeftover`]). Three rules keep a confirmation that was lost, or a node that
//! slept through years of commands, from destroying data:
//!
//! - ids of nodes, resources, replicas and leftovers are never used again (rule M7);
//! - a replica is created only while the model says that it never was ([`Assignment::created`]); one that was and is not
//!   there any more is an error for an operator, never made afresh;
//! - what is to be deleted on a node is named by a [`Leftover`] of its own, so that a name which is used again at once never
//!   leads to the new data.
//!
//! Architecture invariant: no clock, no randomness, no socket, no file, no Raft in here.

mod apply;
mod command;
mod leftovers;
mod model;
mod options;
mod placement;
mod pools;
mod refusal;
mod seed;
mod snapshot;
mod snapshots;
#[cfg(test)]
mod tests;
mod verifies;

pub use command::{Applied, Command, DeployCount, Placement};
pub use leftovers::{Leftover, LeftoverId};
pub use model::{
    Assignment, Certificate, Cluster, Invitation, Limits, Node, NodeKind, NodeState, Paused, PoolFill, PoolPromises, PoolReport,
    Ports, Resource, Successor, TokenHash, Volume,
};
pub use options::{OPTIONS, OptionSet, OptionSpec, Options};
pub use placement::{largest_volume, metadata_reserve, promised, room};
pub use pools::{FIRST_POOL, NodePool, Places};
pub use refusal::{Refusal, RefusalKind, ThinLimit};
pub use seed::Seed;
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError};
pub use snapshots::{Purpose, Schedule, Snapshot, SnapshotId, SnapshotState, Source, StoredSnapshot};
pub use verifies::VerifySchedule;
