//! An answered write is on every member, and one that a flush covers is there durably (rules W1, M1): looked at at the moment of the
//! answer, at a primary that the authority's record names, for members that are alive and well. Protocols A and B answer writes earlier
//! and flushes not.

use super::super::world::World;
use blkrep::units::Protocol;

/// A write of `value` is being answered at a node. One that was forwarded, and began then, may have been written over by the time.
pub fn written(
    world: &mut World,
    at: usize,
    sectors: std::ops::Range<u64>,
    value: u64,
    durable: bool,
    forwarded: Option<u64>,
) -> Result<(), String> {
    if world.manners.protocol != Protocol::C && !durable {
        return Ok(());
    }
    for member in members(world, at) {
        for sector in sectors.clone() {
            let disk = &world.nodes[member].disk;
            let (seen, kept) = (disk.read(sector), disk.durable(sector));
            let newer = |found| forwarded.is_some_and(|began| world.oracle.may_be_newer(sector, found, began));
            let right = |found| found == value || newer(found);
            if !right(seen) || (durable && !right(kept)) {
                return Err(format!(
                    "n{at} answers a write of {value} to sector {sector}; the member n{member} has {seen}, durably {kept} (durable wanted: {durable})"
                ));
            }
        }
    }
    Ok(())
}

/// A flush that began at `began` is being answered at a node.
pub fn flushed(world: &mut World, at: usize, began: u64) -> Result<(), String> {
    let members = members(world, at);
    // What a disk has changed by itself is no answer's fault.
    let certain = world.oracle.certain(began);
    for (sector, value) in certain.into_iter().filter(|(sector, _)| !world.verify.rotten.contains(sector)) {
        for &member in &members {
            let kept = world.nodes[member].disk.durable(sector);
            if kept != value {
                return Err(format!(
                    "n{at} answers a flush of {began}; sector {sector} has to be {value}, and the member n{member} has {kept} durably"
                ));
            }
        }
    }
    Ok(())
}

/// The members that have to have it; none when the node that answers was deposed and does not know it yet (which is harmless).
fn members(world: &mut World, at: usize) -> Vec<usize> {
    let record = world.newest_record();
    let status = |n: usize| world.nodes[n].engine.as_ref().map(|e| e.status());
    if world.manners.forks || status(at).and_then(|s| s.record).is_none_or(|r| r.id != record.id) {
        return Vec::new();
    }
    let well = |n: &usize| {
        let node = &world.nodes[*n];
        !node.lost && node.failing == Default::default() && node.engine.is_some() && super::names(&record, node)
    };
    (0..world.nodes.len()).filter(well).collect()
}
