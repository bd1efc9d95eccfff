//! `nbd serve --stdio`: a client on standard input and output, the daemon behind it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use super::default_export::DefaultExport;

/// How much is moved at a time.
const CHUNK: usize = 256 * 1024;

/// Moves bytes between standard input and output and the server at `socket`, until one end closes. The export without a name
/// is `export`.
pub(in crate::cli) fn serve(socket: &Path, export: &str) -> io::Result<()> {
    let server = UnixStream::connect(socket)?;
    let (to_server, mut from_server) = (server.try_clone()?, server);
    let between = DefaultExport::new(export);
    // It ends with the process when the server closes first: nothing interrupts a read of standard input.
    thread::spawn(move || upstream(to_server, between));
    // Not through Rust's own standard output, which would hold back what does not end in a line.
    let mut client = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    match io::copy(&mut from_server, &mut client) {
        // One of the two has hung up, which is how it ends.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// What the client says. When it says no more, or cannot be heard, the server is told so; the answers still come.
fn upstream(mut server: UnixStream, mut between: DefaultExport) -> io::Result<()> {
    let mut client = io::stdin().lock();
    let mut buffer = vec![0; CHUNK];
    let moved = loop {
        match client.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => {
                if let Err(error) = server.write_all(&between.pass(&buffer[..read])) {
                    break Err(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    server.shutdown(Shutdown::Write)?;
    moved
}
