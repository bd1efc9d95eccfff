//! `nbd serve` on sockets that listen already: clients of libnbd start their server so, and systemd starts services so.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::relay::relay;
use crate::api::setup::Listener;

/// Serves whoever connects to any of the sockets from the server at `socket`; ends only with the process, or when none of them can be
/// accepted from any more.
pub(in crate::cli) fn serve(listeners: Vec<Listener>, socket: &Path, export: &str) -> io::Result<()> {
    // TLS ends at the daemon, and here the daemon is asked over its unix socket: what comes from afar would go in plain text.
    for listener in &listeners {
        if let Listener::Tcp(listener) = listener
            && !listener.local_addr()?.ip().is_loopback()
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only unix sockets and loopback addresses are served so"));
        }
    }
    let door = Arc::new(Door { socket: socket.to_owned(), export: export.to_owned() });
    let accepting = listeners.into_iter().map(|listener| {
        let door = door.clone();
        thread::spawn(move || match listener {
            Listener::Unix(listener) => door.accept(|| Ok(listener.accept()?.0.into())),
            Listener::Tcp(listener) => door.accept(|| {
                let (client, _) = listener.accept()?;
                client.set_nodelay(true)?;
                Ok(client.into())
            }),
        })
    });
    for accepting in accepting.collect::<Vec<_>>() {
        accepting.join().unwrap_or_else(|_| Err(io::Error::other("a listener has failed")))?;
    }
    Ok(())
}

struct Door {
    socket: PathBuf,
    export: String,
}

impl Door {
    fn accept(self: &Arc<Self>, mut next: impl FnMut() -> io::Result<OwnedFd>) -> io::Result<()> {
        loop {
            match next() {
                Ok(client) => {
                    let door = self.clone();
                    thread::Builder::new().spawn(move || door.host(&client))?;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                // Gone before it was accepted, or too many files are open for a moment.
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn host(&self, client: &OwnedFd) {
        let half = || client.try_clone().map(File::from);
        let served = half().and_then(|reader| relay(&self.socket, &self.export, reader, half()?));
        // Ends the other direction, too; it may have been the client that has hung up.
        let _ = rustix::net::shutdown(client, rustix::net::Shutdown::Both);
        if let Err(error) = served {
            eprintln!("blkrep: cannot serve {} from {}: {error}", self.export, self.socket.display());
        }
    }
}

const PAUSE: Duration = Duration::from_millis(100);
