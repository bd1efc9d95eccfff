//! Sizes as people write and read them.

pub(super) use crate::api::size::{Bytes, Size, kib};
