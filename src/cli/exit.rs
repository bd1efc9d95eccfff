//! How a command line ends.

use std::io;
use std::process::ExitCode;

use crate::api::{ApiError, Code};

/// What the process exits with. Scripts may rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was done.
    Success = 0,
    /// It was refused, or failed.
    Failure = 1,
    /// The command line itself is wrong; nothing was tried.
    Usage = 2,
    /// The daemon cannot be reached.
    Unreachable = 3,
    /// There was no answer in time; what was asked for may still happen.
    TimedOut = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command line failed.
#[derive(Debug)]
pub enum Failure {
    /// Something was refused or broke.
    Error(ApiError),
    /// What was typed makes no sense.
    Usage(ApiError),
    /// Whoever reads the output has gone: `blkrep list-volumes | head -1`. Nothing to complain about.
    OutputClosed,
}

impl Failure {
    /// What was typed makes no sense: what is wrong with it, and what would be right.
    pub fn usage(message: impl std::fmt::Display, hint: impl std::fmt::Display) -> Self {
        Self::Usage(ApiError::new(Code::BadRequest, message).hint(hint))
    }

    /// A file or program of this machine could not be used.
    pub fn io(doing: impl std::fmt::Display, error: &io::Error) -> Self {
        Self::Error(ApiError::new(Code::Io, format_args!("{doing}: {error}")))
    }

    /// What to exit with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::OutputClosed => Exit::Success,
            Self::Usage(_) => Exit::Usage,
            Self::Error(ApiError { code: Code::Unreachable, .. }) => Exit::Unreachable,
            Self::Error(ApiError { code: Code::TimedOut, .. }) => Exit::TimedOut,
            Self::Error(_) => Exit::Failure,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

/// For writing to standard output and to nothing else: a closed pipe is no failure there.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::io("cannot write the output", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_failure_decides_the_exit() {
        let exit = |code| Failure::from(ApiError::new(code, "x")).exit();
        assert_eq!(exit(Code::NotFound), Exit::Failure);
        assert_eq!(exit(Code::Unreachable), Exit::Unreachable);
        assert_eq!(exit(Code::TimedOut), Exit::TimedOut);
        assert_eq!(Failure::usage("a", "b").exit(), Exit::Usage);
    }

    #[test]
    fn a_reader_that_leaves_early_is_no_failure() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit(), Exit::Success);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit(), Exit::Failure);
    }
}
