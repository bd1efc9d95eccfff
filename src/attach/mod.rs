//! A volume as a local block device.
//!
//! | file | what it is |
//! |---|---|
//! | [`place`] | where an attachment keeps its files, and what is written there |
//! | [`launch`] | the daemon's side: starting, finding and ending attachments |
//! | [`helper`] | the process that keeps one alive |
//! | [`file`](mod@file) | the volume as one file of a FUSE file system |
//! | [`link`], [`dial`] | the helper's connection to the daemon, which may break and be made again |
//! | [`direct`] | attachments by the kernel's NBD client instead |
//! | [`kernel`], [`netlink`] | that client, and how it is spoken to |
//! | [`settle`](mod@settle) | writing what a device has in its cache |
//! | [`filesystem`] | making, checking and mounting file systems on the device |
//!
//! There are two ways. By the kernel's NBD client, where there is one: the daemon opens the volume at its own socket and hands the
//! connection to the kernel. Elsewhere by a process of its own, the helper: it serves the volume as a file (FUSE) and makes that a loop
//! device. Either is the daemon's NBD client, so a daemon that is restarted, or killed, costs the device's users a pause and no error:
//! there are new connections, and what was not answered is asked again.
//!
//! Architecture Invariant: the room knows NBD and this machine's devices. What a volume is made of, and where its replicas are, it
//! does not know.

pub mod dial;
pub mod direct;
pub mod file;
pub mod filesystem;
pub mod helper;
pub mod kernel;
pub mod launch;
pub mod link;
pub mod netlink;
pub mod place;
pub mod settle;
