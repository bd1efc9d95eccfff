//! The control plane's shell: what runs the cluster around the data plane.
//!
//! | file | what it is |
//! |---|---|
//! | [`setup`], [`former`] | `init`, `join`, `recover`: a node comes into being, and a former cluster is forgotten |
//! | [`daemon`] | a node runs: everything below, started and ended in order |
//! | [`consensus`] | agreement on the model: Raft over redb |
//! | [`tls`], [`net`] | who a node is, and requests between nodes |
//! | [`join`], [`token`] | letting nodes in |
//! | [`reconciler`] | makes this node what the model says |
//! | [`authority`] | the cluster's answers about records |
//! | [`links`] | replication links, proved and handed to the data plane |
//! | [`nbd`] | NBD clients, negotiated and handed to the data plane |
//! | [`attachments`] | volumes as block devices of this node, and what is mounted from them |
//! | [`docker`] | Docker volumes in the model, and their plugin's socket |
//! | [`status`], [`service`], `adopt` | the API's operations |
//! | [`replica`], `area`, `metadata` | metadata made, and looked at while a node is stopped |
//! | [`snapshots`] | snapshots: taken on all nodes at one moment, restored, read, scheduled |
//! | [`operate`], [`verifies`] | what is the primary's to do; verifies that begin by themselves |
//! | [`removal`], [`unused`], [`holds`] | nothing is taken from under a client |
//!
//! Stopping all of this on every node stops no I/O.

mod adopt;
mod area;
pub mod attachments;
pub mod authority;
pub mod config;
pub mod connections;
pub mod consensus;
pub mod daemon;
#[cfg(test)]
mod daemon_tests;
pub mod docker;
mod failure;
pub mod former;
#[cfg(test)]
mod handover_tests;
pub mod holds;
pub mod join;
pub mod links;
pub mod local;
mod metadata;
pub mod nbd;
pub mod net;
pub mod node;
pub mod operate;
pub mod options;
mod pools;
pub mod promote;
pub mod reconciler;
pub mod removal;
#[cfg(test)]
mod removal_tests;
pub mod replace;
pub mod replica;
pub mod service;
pub mod setup;
pub mod snapshots;
pub mod split_brain;
pub mod status;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod token;
pub mod unused;
pub mod verifies;
