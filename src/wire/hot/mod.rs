//! The messages of the data path: fixed layouts, so that a write costs neither an allocation nor a look at its shape.
//!
//! All integers are little-endian. A range is checked when it is taken apart: it has blocks, and its last byte's offset is a number
//! that can be added to. A message's payload must have exactly the length that the message says.

mod acknowledge;
mod flush;
mod read;
mod write;

pub(super) use acknowledge::{Settled, decode_seqs, encode_seqs};
pub(super) use flush::Flushed;
pub(super) use read::{Read, ReadReply};
