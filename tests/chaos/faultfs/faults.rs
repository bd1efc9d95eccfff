//! What goes wrong at the moment.

use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

/// What an operation does to a file's content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Sync,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
        }
    }
}

/// The faults that were ordered. Operations ask before they begin.
#[derive(Default)]
pub(crate) struct Faults {
    ordered: Mutex<Vec<Fault>>,
    changed: Condvar,
}

struct Fault {
    what: String,
    part: String,
    /// `None`: it hangs.
    errno: Option<i32>,
}

impl Faults {
    pub(crate) fn fail(&self, what: &str, errno: i32, part: &str) {
        self.order(Fault { what: what.to_owned(), part: part.to_owned(), errno: Some(errno) });
    }

    pub(crate) fn hang(&self, part: &str) {
        self.order(Fault { what: "any".to_owned(), part: part.to_owned(), errno: None });
    }

    pub(crate) fn well(&self) {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.changed.notify_all();
    }

    fn order(&self, fault: Fault) {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Returns when the operation may go on, or the error that it has to end with.
    pub(crate) fn pass(&self, kind: Kind, path: &Path) -> io::Result<()> {
        let path = path.to_string_lossy();
        let mut ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let meant = |fault: &&Fault| path.contains(&fault.part) && (fault.what == "any" || fault.what == kind.word());
            match ordered.iter().find(meant) {
                None => return Ok(()),
                Some(Fault { errno: Some(errno), .. }) => return Err(io::Error::from_raw_os_error(*errno)),
                Some(_) => ordered = self.changed.wait(ordered).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}
