//! Memory is bounded: an engine holds no more buffers than its clients' requests, those of clients that are gone, the chunks of its
//! resyncs, and what a primary may have under way to it can need.

use blkrep::engine::ORPHANS_MAX;

use super::super::client::REQUESTS_MAX;
use super::super::world::World;

pub fn check(world: &World) -> Result<(), String> {
    let peers = world.nodes.len();
    // Who is let in while there are almost too many orphans may leave as many again.
    let most = ORPHANS_MAX + 2 * REQUESTS_MAX * (peers + 1) + 32 * peers + 64;
    let over = world.nodes.iter().find(|n| n.buffers.len() > most);
    over.map_or(Ok(()), |n| Err(format!("n{} holds {} buffers, more than {most}", n.id, n.buffers.len())))
}
