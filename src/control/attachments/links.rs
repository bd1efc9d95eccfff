//! Which of the kernel's NBD devices have all their connections: what is not known to is given new ones.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;

use crate::attach::kernel::{Deaths, Driver, backend_of};

/// The devices that this daemon has given connections, and that have not lost any since.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By their identifiers.
    whole: Mutex<BTreeSet<String>>,
    listening: Mutex<bool>,
    broken: Notify,
}

impl Links {
    /// Notes that a device is about to get connections. What breaks from now on is heard of.
    pub(super) fn expect(&self, backend: &str) {
        self.whole().insert(backend.to_owned());
    }

    /// Notes that a device has lost a connection, or did not get any.
    pub(super) fn lost(&self, backend: &str) {
        self.whole().remove(backend);
    }

    /// Whether a device has all its connections, as far as is known.
    pub(super) fn is_whole(&self, backend: &str) -> bool {
        self.whole().contains(backend)
    }

    /// Waits until a device has lost a connection. One that was lost since the last call counts.
    pub(super) async fn broken(&self) {
        self.broken.notified().await;
    }

    /// Begins to listen to the kernel, until the last reference to this is dropped. False when it has no driver. Blocks for a moment.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub(super) fn listen(self: &Arc<Self>) -> io::Result<bool> {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if *listening {
            return Ok(true);
        }
        let Some(driver) = Driver::find()? else { return Ok(false) };
        let deaths = Deaths::listen(driver, LISTEN)?;
        let links = Arc::downgrade(self);
        thread::Builder::new().name("nbd-deaths".into()).spawn(move || hear(&deaths, &links))?;
        *listening = true;
        Ok(true)
    }

    fn whole(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hear(deaths: &Deaths, links: &Weak<Links>) {
    loop {
        let heard = deaths.next();
        let Some(links) = links.upgrade() else { return };
        match heard {
            Ok(Some(dead)) => dead.into_iter().filter_map(backend_of).for_each(|backend| links.lost(&backend)),
            Ok(None) => links.whole().clear(),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
            Err(error) => {
                tracing::error!(%error, "broken connections of NBD devices are not heard of any more");
                return;
            }
        }
        links.broken.notify_one();
    }
}

/// How often it is looked whether anybody wants to know.
const LISTEN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_given_connections_is_not_whole() {
        let links = Links::default();
        assert!(!links.is_whole("a"));
        links.expect("a");
        assert!(links.is_whole("a") && !links.is_whole("b"));
        links.lost("a");
        assert!(!links.is_whole("a"));
    }
}
