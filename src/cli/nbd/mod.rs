//! NBD at the command line: a client of our own, and a server for clients that start theirs.

pub(super) mod client;
mod default_export;
pub(super) mod listening;
mod relay;
pub(super) mod stdio;
