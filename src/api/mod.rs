//! HTTP/JSON: what a daemon can be asked, and the words it answers in.
//!
//! One table, [`OPERATIONS`], names every operation with its path, request and answer. From it come the [`Service`] trait that
//! a daemon implements, the [`routes`] that serve any such service, and the [`Client`], which is a `Service` itself: whoever
//! holds one need not know whether it answers here, over the unix socket or on the cluster's leader.
//!
//! - A read is a `GET` whose request travels in the query; a change is a `POST` whose request is a JSON object. Both answer JSON.
//! - A refusal is an [`ApiError`]: a code for programs, what happened, and what to do next.
//! - The words for states are decided in [`state`], and nowhere else.
//!
//! [`setup`] holds what cannot be asked of a running daemon, because there is none yet: `init`, `join` and `daemon`.
//!
//! This room knows the words only. It never looks at the model, the disks or the engine.

mod assignments;
mod attachments;
mod client;
mod docker;
mod error;
pub mod metadata;
mod nodes;
mod operate;
mod operations;
mod options;
mod pools;
mod resources;
mod server;
pub mod setup;
pub mod size;
mod snapshots;
mod split_brain;
pub mod state;
mod status;
mod views;

pub use assignments::{
    AssignResource, Assignment, DeployResource, ListAssignments, Placement, Relative, Replicas, UnassignResource,
    UndeployResource,
};
pub use attachments::{Attach, Attachment, Detach, FileSystem, ListAttachments, Mount, Mounted, Unmount, Via};
pub use client::{Client, Connecting, Connector, Stream};
pub use docker::{AddDockerVolume, DockerSettings, DockerVolume, ListDockerVolumes, Spread};
pub use error::{ApiError, Code};
pub use nodes::{AddNode, HowtoJoin, JoinTicket, ListNodes, Membership, Node, RemoveNode};
pub use operate::{
    Connect, Demote, Disconnect, Invalidate, Promote, ReplaceDisk, ScheduleVerify, SteerResync, Verify, VerifyResource,
    VerifySchedule, VerifyState,
};
pub use operations::{OPERATIONS, Operation, Promise, Service, routes};
pub use options::{EffectiveOptions, ListOptions, OnNoQuorum, OptionName, OptionValues, Options, Quorum, SetOptions};
pub use pools::{AddPool, DefaultPool, Fill, ListPools, NodePool, Pool, RemovePool};
pub use resources::{
    AddResource, AddVolume, AddedVolume, AdoptVolume, FreeSpace, ListFreeSpace, ListResources, ListVolumes, RemoveResource,
    RemoveVolume, ResizeVolume, ResizedVolume, Resource, Volume,
};
pub use server::serve_connection;
pub use snapshots::{
    AddSnapshot, CloneResource, ListSchedules, ListSnapshots, RemoveSnapshot, RestoreSnapshot, RollbackSnapshot,
    ScheduleSnapshots, Snapshot, SnapshotSchedule, SnapshotState, TakenSnapshot,
};
pub use split_brain::DiscardMyData;
pub use status::{
    AskStatus, ClusterStatus, Connection, Done, Growth, PeerView, Pending, Ping, Pong, ReplicaStatus, ResourceStatus, Resync,
    Shutdown, Suspension, VolumeInfo,
};
