//! NBD at the command line: a client of our own, and a server's standard input and output.

pub(super) mod client;
mod default_export;
pub(super) mod stdio;
