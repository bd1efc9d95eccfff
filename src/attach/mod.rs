//! A volume as a local block device.
//!
//! | file | what it is |
//! |---|---|
//! | [`place`] | where an attachment keeps its files, and what is written there |
//! | [`launch`] | the daemon's side: starting, finding and ending attachments |
//! | [`helper`] | the process that keeps one alive |
//! | [`file`](mod@file) | the volume as one file of a FUSE file system |
//! | [`link`], [`dial`] | the helper's connection to the daemon, which may break and be made again |
//! | [`filesystem`] | making, checking and mounting file systems on the device |
//!
//! An attachment is a process of its own, the helper: it serves the volume as a file (FUSE) and makes that a loop device. It is the
//! daemon's NBD client, so a daemon that is restarted, or killed, costs the device's users a pause and no error: the helper connects
//! again and asks again for what was not answered.
//!
//! Architecture Invariant: the room knows NBD and this machine's devices. What a volume is made of, and where its replicas are, it
//! does not know.

pub mod dial;
pub mod file;
pub mod filesystem;
pub mod helper;
pub mod launch;
pub mod link;
pub mod place;
