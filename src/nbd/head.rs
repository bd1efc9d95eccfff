//! A message header in a buffer of fixed size.

use std::fmt;
use std::ops::Deref;

/// A header ready to be sent: at most 48 bytes, on the stack, nothing allocated. It derefs to its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl Head {
    /// The longest header in bytes.
    pub const MAX: usize = 48;

    pub(super) fn new() -> Self {
        Self { bytes: [0; Self::MAX], length: 0 }
    }

    /// Adds a field; the callers' messages are all of fixed lengths below [`MAX`](Self::MAX).
    pub(super) fn put<const N: usize>(mut self, field: [u8; N]) -> Self {
        self.bytes[self.length..self.length + N].copy_from_slice(&field);
        self.length += N;
        self
    }
}

impl Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Head(")?;
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}
