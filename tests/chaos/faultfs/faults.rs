//! What goes wrong at the moment.

use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::process::Pid;

/// What an operation does to a file: to its content, or to its name (made, renamed, removed).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    Sync,
    Name,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Name => "name",
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
    action: Action,
}

enum Action {
    Fail(i32),
    Hang,
    /// Kills a process at the operation that is as many further on.
    Kill {
        pid: Pid,
        after: bool,
        further: u64,
    },
}

/// An operation's leave to go on. It ends with the operation, and with it perhaps the process that waits for it.
#[derive(Default)]
pub(crate) struct Passage {
    kill: Option<Pid>,
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(pid) = self.kill {
            kill(pid);
        }
    }
}

impl Faults {
    /// Such operations end with an error.
    pub(crate) fn fail(&self, what: &str, errno: i32, part: &str) {
        self.order(what, part, Action::Fail(errno));
    }

    /// Operations wait.
    pub(crate) fn hang(&self, part: &str) {
        self.order("any", part, Action::Hang);
    }

    /// A process is killed before or after the `count`th such operation. What it is killed before is not done.
    pub(crate) fn kill(&self, pid: Pid, after: bool, what: &str, part: &str, count: u64) {
        self.order(what, part, Action::Kill { pid, after, further: count });
    }

    /// Ends all of that.
    pub(crate) fn well(&self) {
        self.lock().clear();
        self.changed.notify_all();
    }

    fn order(&self, what: &str, part: &str, action: Action) {
        self.lock().push(Fault { what: what.to_owned(), part: part.to_owned(), action });
    }

    /// Returns when the operation may go on, or the error that it has to end with.
    pub(crate) fn pass(&self, kind: Kind, path: &Path) -> io::Result<Passage> {
        let path = path.to_string_lossy();
        let mut ordered = self.lock();
        loop {
            let meant = |fault: &&mut Fault| path.contains(&fault.part) && (fault.what == "any" || fault.what == kind.word());
            match ordered.iter_mut().find(meant).map(|fault| &mut fault.action) {
                None => return Ok(Passage::default()),
                Some(Action::Fail(errno)) => return Err(io::Error::from_raw_os_error(*errno)),
                Some(Action::Hang) => {
                    ordered = self.changed.wait(ordered).unwrap_or_else(PoisonError::into_inner);
                }
                Some(Action::Kill { pid, after, further }) => {
                    *further = further.saturating_sub(1);
                    match (*further, *after) {
                        (0, true) => return Ok(Passage { kill: Some(*pid) }),
                        (0, false) => {
                            kill(*pid);
                            return Err(io::Error::from_raw_os_error(libc::EIO));
                        }
                        _ => return Ok(Passage::default()),
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SIGKILL, to one that may be dead already.
fn kill(pid: Pid) {
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
