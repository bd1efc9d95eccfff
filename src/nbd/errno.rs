//! The eight error numbers that the protocol allows.

use std::fmt;

/// An error number of a reply. They look like Linux's and are the protocol's own: nothing else may be sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Errno {
    /// EPERM: a write to a read-only export.
    Permission = 1,
    /// EIO: the storage failed, or no quorum allows the request.
    Io = 5,
    /// ENOMEM. Clients do not retry it; a server that is short of memory should rather wait.
    NoMemory = 12,
    /// EINVAL: the request makes no sense here.
    Invalid = 22,
    /// ENOSPC: a write beyond the end, or the pool is full.
    NoSpace = 28,
    /// EOVERFLOW: the request is longer than can be answered at once.
    Overflow = 75,
    /// ENOTSUP: a fast zeroing that would not be fast. Sent for nothing else.
    NotSupported = 95,
    /// ESHUTDOWN: the server ends; the client should disconnect.
    Shutdown = 108,
}

impl Errno {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Permission,
        Self::Io,
        Self::NoMemory,
        Self::Invalid,
        Self::NoSpace,
        Self::Overflow,
        Self::NotSupported,
        Self::Shutdown,
    ];

    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The error of a number from the wire; `None` for numbers that the protocol does not have.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| errno.code() == code)
    }

    /// What to tell a client when a system call failed with Linux's `errno` on behalf of its request.
    ///
    /// EOPNOTSUPP becomes EINVAL: ENOTSUP tells a client that zeroing is slow, and only whoever decides that may say so.
    pub fn from_os(errno: i32) -> Self {
        match errno {
            1 | 13 | 30 => Self::Permission, // EPERM, EACCES, EROFS
            12 => Self::NoMemory,
            22 | 75 | 95 => Self::Invalid,  // EINVAL, EOVERFLOW, EOPNOTSUPP
            27 | 28 | 122 => Self::NoSpace, // EFBIG, ENOSPC, EDQUOT
            108 => Self::Shutdown,
            _ => Self::Io,
        }
    }

    /// The error's name in C, as clients print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Permission => "EPERM",
            Self::Io => "EIO",
            Self::NoMemory => "ENOMEM",
            Self::Invalid => "EINVAL",
            Self::NoSpace => "ENOSPC",
            Self::Overflow => "EOVERFLOW",
            Self::NotSupported => "ENOTSUP",
            Self::Shutdown => "ESHUTDOWN",
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_nothing_else_is_an_error() {
        let known: Vec<u32> = (0..200).filter(|&code| Errno::from_code(code).is_some()).collect();
        assert_eq!(known, [1, 5, 12, 22, 28, 75, 95, 108]);
        for errno in Errno::ALL {
            assert_eq!(Errno::from_code(errno.code()), Some(errno));
        }
    }

    #[test]
    fn system_errors_become_what_the_protocol_asks_for() {
        assert_eq!(Errno::from_os(122), Errno::NoSpace);
        assert_eq!(Errno::from_os(27), Errno::NoSpace);
        assert_eq!(Errno::from_os(30), Errno::Permission);
        assert_eq!(Errno::from_os(95), Errno::Invalid);
        assert_eq!(Errno::from_os(61), Errno::Io, "ENODATA, a medium error");
        assert_eq!(Errno::from_os(5), Errno::Io);
    }
}
