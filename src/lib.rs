//! blkrep: replicated block storage without a kernel module.
//!
//! This file is the map and holds no logic. Each module is a room of the house; ARCHITECTURE.md draws them with their arrows
//! and says what each room must *not* know.
//!
//! | room | what it is |
//! |---|---|
//! | [`units`] | newtypes for offsets, blocks, extents, ids and time; the generation record |
//! | [`mod@format`] | pure: on-disk metadata |
//! | [`wire`] | pure: the messages between peers and their codec |
//! | [`nbd`] | pure: the NBD protocol |
//! | [`engine`] | pure: the replication state machine, events in and commands out |
//! | [`cluster`] | pure: the Raft-replicated model of nodes, resources and assignments |
//! | [`ring`] | io_uring and aligned buffers; the only code that the compiler does not prove safe |
//! | [`runtime`] | the data plane's shell: shard threads that run the engine's commands |
//! | [`attach`] | a volume as a local block device: FUSE and loop; file systems on it |
//! | [`docker`] | the Docker volume plugin |
//! | [`control`] | the control plane's shell: Raft, membership, the reconciler |
//! | [`api`] | HTTP/JSON types, routes and client |
//! | [`cli`] | the command line |

pub mod api;
pub mod attach;
pub mod cli;
pub mod cluster;
pub mod control;
pub mod docker;
pub mod engine;
pub mod format;
pub mod nbd;
pub mod ring;
pub mod runtime;
pub mod units;
pub mod wire;
