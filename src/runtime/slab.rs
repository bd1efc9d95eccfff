//! What the shards' slabs are keyed by.

use crate::units;

/// Names a value of a [`Slab`]. The name of a value that was removed never finds another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Key(u64);

/// Values in numbered places.
pub(super) type Slab<T> = units::Slab<T, Key>;

impl From<u64> for Key {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        key.0
    }
}
