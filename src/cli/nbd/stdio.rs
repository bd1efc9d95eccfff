//! `nbd serve --stdio`: a client on standard input and output, the daemon behind it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::relay::relay;

/// Serves the client on standard input and output from the server at `socket`, until one end closes.
pub(in crate::cli) fn serve(socket: &Path, export: &str) -> io::Result<()> {
    // Not through Rust's own standard output, which would hold back what does not end in a line.
    let client = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    relay(socket, export, io::stdin(), client)
}
