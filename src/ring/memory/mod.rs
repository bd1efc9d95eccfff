//! Page-aligned, bounded, shard-local memory.

mod arena;
mod buddy;
mod buffer;
mod pool;

use buffer::Block;
pub(super) use buffer::Place;
pub use buffer::{Buffer, Slice};
pub use pool::{MAX_BUFFER, PAGE, Pool};
