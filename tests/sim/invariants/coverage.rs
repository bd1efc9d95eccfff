//! What may differ is known to differ: between a member and any other replica, whatever is on one disk now or would be after a loss of
//! power and not on the other is durably hot at one of the two, or durably dirty at one of them for the other, or the bitmaps do not
//! serve the other and all of it would be compared. It holds at every moment, for the moment may be the last.

use std::collections::BTreeMap;

use blkrep::format::{Bitmap, Loaded};
use blkrep::units::{BLOCKS_PER_EXTENT, NodeId, Record, VolumeId};

use super::super::disk::SECTORS_PER_BLOCK;
use super::super::node::Node;
use super::super::world::World;

pub fn check(world: &mut World) -> Result<(), String> {
    check_of(world, None)
}

/// Between one node, when only its metadata has changed, and all others; or between all.
pub fn check_of(world: &mut World, only: Option<usize>) -> Result<(), String> {
    if world.manners.forks {
        return Ok(());
    }
    let record = world.newest_record();
    let places = world.oracle.sectors();
    let loaded: Vec<Loaded> = world.nodes.iter().map(Node::load).collect();
    for (m, member) in world.nodes.iter().enumerate() {
        if !is_member(&record, member) {
            continue;
        }
        for (r, replica) in world.nodes.iter().enumerate() {
            let asked = only.is_none_or(|at| at == m || at == r);
            if asked && m != r && serves(world.majority, &loaded[m], &loaded[r]) {
                between(world, &places, (member, &loaded[m]), (replica, &loaded[r]))
                    .map_err(|why| format!("{why}; {record:?}"))?;
            }
        }
    }
    Ok(())
}

/// Whether a node's replica is in sync in a life that is not over, or was ended cleanly.
fn is_member(record: &Record, node: &Node) -> bool {
    node.failing == Default::default() && !node.lost && super::names(record, node)
}

/// Whether the bitmap that one keeps for the other says all that the other lacks (rule M6).
fn serves(majority: bool, member: &Loaded, replica: &Loaded) -> bool {
    let node = replica.superblock.node;
    let base = member.superblock.peers.iter().find(|p| p.node == node).and_then(|p| p.base);
    match (base, replica.superblock.synced) {
        (Some((number, id)), Some((synced, synced_id))) => {
            let line = &member.superblock.lineage;
            let known = || {
                synced_id == id
                    || line.contains(&synced_id)
                    || member.superblock.record.as_ref().is_some_and(|r| r.id == synced_id)
            };
            synced >= number && (majority || known())
        }
        _ => false,
    }
}

fn between(world: &World, places: &[u64], m: (&Node, &Loaded), r: (&Node, &Loaded)) -> Result<(), String> {
    for &sector in places {
        if world.verify.rotten.contains(&sector) {
            // What a disk has changed by itself is known to nobody.
            continue;
        }
        let values = [m.0.disk.read(sector), m.0.disk.durable(sector), r.0.disk.read(sector), r.0.disk.durable(sector)];
        if values.iter().all(|v| *v == values[0]) {
            continue;
        }
        let (volume, block) = block_of(world, sector);
        let extent = block / BLOCKS_PER_EXTENT;
        // Maps that have not followed a growth yet say nothing about what is beyond their end.
        let is_hot = |map: &Bitmap| extent < map.len() && map.is_set(extent);
        let hot = |loaded: &Loaded| loaded.activity.get(&volume).is_none_or(|a| is_hot(&a.hot));
        if hot(m.1) || hot(r.1) || dirty(m.1, r.0.id, volume, block) || dirty(r.1, m.0.id, volume, block) {
            continue;
        }
        return Err(format!(
            "sector {sector} is {values:?} on the member n{} and on n{} (seen, durable; seen, durable), and neither has it hot or dirty",
            m.0.id, r.0.id
        ));
    }
    Ok(())
}

fn block_of(world: &World, sector: u64) -> (VolumeId, u64) {
    let (volume, first, _) = world.volumes.iter().rev().find(|(_, first, _)| *first <= sector).expect("a sector is in a volume");
    (*volume, (sector - first) / SECTORS_PER_BLOCK)
}

fn dirty(loaded: &Loaded, of: NodeId, volume: VolumeId, block: u64) -> bool {
    let slots: BTreeMap<NodeId, u16> = loaded.superblock.peers.iter().map(|p| p.node).zip(0..).collect();
    slots
        .get(&of)
        .and_then(|slot| loaded.dirty.get(&(*slot, volume)))
        .is_some_and(|bits| block < bits.len() && bits.is_set(block))
}
