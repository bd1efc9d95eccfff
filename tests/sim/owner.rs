//! The cluster's owner: grows a volume while it is in use.
//!
//! As the reconcilers do it: first every replica's storage and metadata area grow, those of nodes that are down too; then each node's
//! engine is told, at a moment of its own. The owner draws from a row of its own, so that seeds without it go as they always did.

use blkrep::engine::Event;
use blkrep::format::area_len;

use super::disk::SECTOR;
use super::rng::Rng;
use super::world::{Happening, MS, World};

const EXTENT: u64 = 4 << 20;

/// Decides how often the last volume grows in a run, and when.
pub fn plan(world: &mut World, seed: u64, until: u64) {
    world.owner = Rng::new(seed ^ 0x6f77_6e65_7221);
    if !world.owner.chance(35) {
        return;
    }
    for _ in 0..world.owner.between(1, 4) {
        let when = world.owner.between(world.now, until);
        world.at(when, Happening::Grow);
    }
}

/// Grows the last volume: by a little, or so much that the maps need other regions.
pub fn grow(world: &mut World) {
    let far = world.owner.chance(40);
    let more = if far { world.owner.between(28, 36) * EXTENT } else { world.owner.between(1, 600) * 4096 };
    let (volume, first, sectors) = world.volumes.last_mut().expect("there is a volume");
    *sectors += more / SECTOR;
    let (volume, end, bytes) = (*volume, *first + *sectors, *sectors * SECTOR);
    world.say(|| format!("volume {volume} grows to {bytes} bytes"));
    for at in 0..world.nodes.len() {
        let node = &mut world.nodes[at];
        node.settings.volumes.insert(volume, bytes);
        let longer = area_len(&node.settings.volumes, 7);
        node.disk.grow(end);
        node.meta.grow(longer);
        if let Some(image) = &mut node.image {
            image.0.grow(end);
            image.1.grow(longer);
        }
        let life = node.life;
        let after = world.owner.between(0, 1_500) * MS;
        world.at(world.now + after, Happening::Configure { at, life });
    }
}

/// In the end a resync of a volume that has become large is not held back, so that the run ends in time.
pub fn hurry(world: &mut World) -> Result<(), String> {
    if world.volumes.iter().all(|(_, _, sectors)| sectors * SECTOR < 16 * EXTENT) {
        return Ok(());
    }
    for at in 0..world.nodes.len() {
        world.nodes[at].settings.resync_max = 0;
        configure(world, at)?;
    }
    Ok(())
}

/// A node's engine is told.
pub fn configure(world: &mut World, at: usize) -> Result<(), String> {
    let settings = world.nodes[at].settings.clone();
    world.hand(at, Event::Configure(settings))
}
