//! Between a client and the daemon: bytes pass, and the export without a name gets one.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use super::default_export::DefaultExport;

/// How much is moved at a time.
const CHUNK: usize = 256 * 1024;

/// Moves bytes between a client and the server at `socket`, until the server says no more. The export without a name is `export`.
pub(super) fn relay(
    socket: &Path,
    export: &str,
    client: impl Read + Send + 'static,
    mut to_client: impl Write,
) -> io::Result<()> {
    let server = UnixStream::connect(socket)?;
    let (to_server, mut from_server) = (server.try_clone()?, server);
    let between = DefaultExport::new(export);
    // When the server closes first, this ends with the client's connection or with the process.
    thread::spawn(move || upstream(client, to_server, between));
    match io::copy(&mut from_server, &mut to_client) {
        // One of the two has hung up, which is how it ends.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// What the client says. When it says no more, or cannot be heard, the server is told so; the answers still come.
fn upstream(mut client: impl Read, mut server: UnixStream, mut between: DefaultExport) -> io::Result<()> {
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
