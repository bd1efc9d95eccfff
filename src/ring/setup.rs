//! Making a ring of what the kernel has, or saying what is missing and what to do about it.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;

/// Why there is no ring, or why it can be used no longer.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel was built without it.
    #[error("this kernel has no io_uring; use Linux 6.1 or newer, built with CONFIG_IO_URING=y")]
    Missing,
    /// An administrator or a container's seccomp profile has turned it off.
    #[error("io_uring is not allowed here (kernel.io_uring_disabled is {sysctl}); {remedy}")]
    Forbidden {
        /// The setting: 0 allows it, 1 needs the group of `kernel.io_uring_group` or CAP_SYS_ADMIN, 2 forbids it.
        sysctl: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The memory for the rings may not be locked.
    #[error("the rings need more locked memory than RLIMIT_MEMLOCK allows; raise it (LimitMEMLOCK= in the unit, ulimit -l)")]
    Memory,
    /// The kernel is too old.
    #[error("this kernel's io_uring cannot {0}; use Linux 6.1 or newer")]
    TooOld(&'static str),
    /// Anything else.
    #[error("io_uring: {action}: {source}")]
    System {
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl RingError {
    pub(super) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

/// The kinds of ring, the best first. One thread uses a ring, and asks for completions when it wants them: then the kernel
/// need not interrupt it (DEFER_TASKRUN, Linux 6.1), nor send it signals (COOP_TASKRUN, Linux 5.19).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// SINGLE_ISSUER and DEFER_TASKRUN.
    Deferred,
    /// SINGLE_ISSUER and COOP_TASKRUN.
    Cooperative,
    /// Neither.
    Plain,
}

/// Makes a ring with room for `entries` submissions, of the first of `modes` that the kernel knows.
pub(super) fn build(entries: u32, modes: &[Mode]) -> Result<IoUring, RingError> {
    let mut refused = io::Error::from(Errno::INVAL);
    for &mode in modes {
        match attempt(entries, mode) {
            Ok(ring) => {
                check(&ring)?;
                if mode != Mode::Deferred {
                    tracing::info!(
                        ?mode,
                        "this kernel lacks deferred io_uring completions; I/O costs more CPU than on Linux 6.1"
                    );
                }
                return Ok(ring);
            }
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
            Err(error) => return Err(explain(error)),
        }
    }
    Err(explain(refused))
}

fn attempt(entries: u32, mode: Mode) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    // The completion queue is twice as long as the submission queue, and a ring has never more in flight than submissions.
    builder.dontfork().setup_clamp();
    match mode {
        Mode::Deferred => builder.setup_submit_all().setup_single_issuer().setup_defer_taskrun(),
        Mode::Cooperative => builder.setup_submit_all().setup_coop_taskrun(),
        Mode::Plain => &mut builder,
    };
    builder.build(entries)
}

fn explain(error: io::Error) -> RingError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => RingError::Missing,
        Some(libc::EPERM | libc::EACCES) => forbidden(),
        Some(libc::ENOMEM) => RingError::Memory,
        _ => RingError::System { action: "set up", source: error },
    }
}

fn forbidden() -> RingError {
    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let sysctl = sysctl.map_or_else(|_| "unknown".to_owned(), |value| value.trim().to_owned());
    let remedy = match sysctl.as_str() {
        "0" | "unknown" => {
            "a seccomp profile forbids it: let the container use io_uring_setup, io_uring_enter and io_uring_register"
        }
        "1" => {
            "set it to 0 with `sysctl -w kernel.io_uring_disabled=0`, or start the daemon in the group of kernel.io_uring_group"
        }
        _ => "set it to 0 with `sysctl -w kernel.io_uring_disabled=0`",
    };
    RingError::Forbidden { sysctl, remedy }
}

/// Refuses a kernel whose ring lacks something that is used without a fall-back.
fn check(ring: &IoUring) -> Result<(), RingError> {
    let parameters = ring.params();
    let features = [
        (parameters.is_feature_nodrop(), "keep every completion"),
        (parameters.is_feature_submit_stable(), "copy a submission at once"),
        (parameters.is_feature_fast_poll(), "wait for sockets without threads"),
        (parameters.is_feature_ext_arg(), "wait with a time-out"),
        (parameters.is_feature_native_workers(), "use the files of its process"),
    ];
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(RingError::system("ask for its operations"))?;
    let operations = [
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
        (opcode::ReadFixed::CODE, "read into registered memory"),
        (opcode::WriteFixed::CODE, "write registered memory"),
        (opcode::Fsync::CODE, "fsync"),
        (opcode::Fallocate::CODE, "fallocate"),
        (opcode::Recv::CODE, "receive"),
        (opcode::RecvMsg::CODE, "receive vectors"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "send vectors"),
        (opcode::Shutdown::CODE, "shut sockets down"),
        (opcode::Close::CODE, "close files"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::Timeout::CODE, "wait for a moment"),
        (opcode::AsyncCancel::CODE, "cancel"),
    ];
    let operations = operations.map(|(code, what)| (probe.is_supported(code), what));
    match features.into_iter().chain(operations).find(|(there, _)| !there) {
        Some((_, what)) => Err(RingError::TooOld(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_this_kernel_knows_passes_the_check() {
        for mode in [Mode::Deferred, Mode::Cooperative, Mode::Plain] {
            build(8, &[mode]).unwrap();
        }
    }

    #[test]
    fn refusals_name_their_remedy() {
        let says = |errno: Errno| explain(errno.into()).to_string();
        assert!(says(Errno::NOSYS).contains("CONFIG_IO_URING=y"));
        assert!(says(Errno::PERM).contains("io_uring_disabled is"));
        assert!(says(Errno::NOMEM).contains("LimitMEMLOCK="));
    }
}
