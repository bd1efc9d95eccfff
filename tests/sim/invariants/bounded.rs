//! Memory is bounded: an engine holds no more buffers than its clients' requests, the chunks of its resyncs, and what a primary may have
//! under way to it can need. A client that leaves while its writes are in flight may come back and have as many again, a few times
//! before the first have ended.

use super::super::client::REQUESTS_MAX;
use super::super::world::World;

/// The sessions of one client that may have requests in flight at once: a new one takes longer than a write.
const SESSIONS: usize = 4;

pub fn check(world: &World) -> Result<(), String> {
    let peers = world.nodes.len();
    let most = SESSIONS * REQUESTS_MAX * peers + 32 * peers + 64;
    let over = world.nodes.iter().find(|n| n.buffers.len() > most);
    over.map_or(Ok(()), |n| Err(format!("n{} holds {} buffers, more than {most}", n.id, n.buffers.len())))
}
