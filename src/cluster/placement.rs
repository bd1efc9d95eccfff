//! Which nodes replicas go to.

use std::collections::BTreeSet;

use super::{Cluster, Node, Refusal, Resource};
use crate::units::NodeId;

/// The room that metadata of a replica with `bytes` of volumes is reckoned to take: a bit per 4 KiB and peer for seven peers,
/// and 8 MiB for everything else.
pub const fn metadata_reserve(bytes: u64) -> u64 {
    (8 << 20) + bytes / 32768 * 7
}

/// What is promised to replicas on `node` and not taken from its pool yet, in bytes.
pub fn promised(cluster: &Cluster, node: NodeId) -> u64 {
    let open = |resource: &Resource| {
        let assignment = resource.assignments.get(&node).filter(|a| a.replica.is_some() && !a.leaving)?;
        let volumes = resource.volumes.iter().fold(0u64, |sum, (id, volume)| {
            sum.saturating_add(volume.target.saturating_sub(assignment.volumes.get(id).copied().unwrap_or(0)))
        });
        let metadata = if assignment.created { 0 } else { metadata_reserve(resource.bytes()) };
        Some(volumes.saturating_add(metadata))
    };
    cluster.resources.values().filter_map(|resource| open(resource)).fold(0, u64::saturating_add)
}

/// The largest addition that `node` can take, in bytes: what its pool can promise, and has not promised yet.
pub fn room(cluster: &Cluster, node: &Node) -> u64 {
    match &node.pool {
        Some(pool) => pool.free.saturating_sub(promised(cluster, node.id)),
        None => 0,
    }
}

/// The largest volume that could be created with `replicas` replicas, in bytes; `None` when there are not so many pools.
pub fn largest_volume(cluster: &Cluster, replicas: usize) -> Option<u64> {
    let mut rooms: Vec<u64> = cluster.nodes.values().filter(|n| n.takes_replicas()).map(|n| free(cluster, n)).collect();
    rooms.sort_unstable_by(|a, b| b.cmp(a));
    let least = *rooms.get(replicas.checked_sub(1)?)?;
    // Undo the reserve: `bytes + metadata_reserve(bytes) <= least`.
    let bytes = least.saturating_sub(8 << 20) / (32768 + 7) * 32768;
    Some(bytes / 4096 * 4096)
}

/// Chooses `count` nodes that have no replica of `resource` yet and room for it: those with the most free space, and of equal
/// ones those with the fewest replicas, so that empty thin pools fill evenly. Those to `avoid` come last.
pub(super) fn choose(
    cluster: &Cluster,
    resource: &Resource,
    count: usize,
    avoid: &BTreeSet<NodeId>,
) -> Result<Vec<NodeId>, Refusal> {
    let has_replica = |node: NodeId| resource.assignments.get(&node).is_some_and(|a| a.replica.is_some());
    let candidates: Vec<&Node> = cluster.nodes.values().filter(|n| n.takes_replicas() && !has_replica(n.id)).collect();
    let present = resource.replicas().count();
    if candidates.len() < count {
        return Err(Refusal::TooFewNodes { wanted: present + count, available: present + candidates.len() });
    }
    let bytes = resource.bytes();
    let needed = bytes.saturating_add(metadata_reserve(bytes));
    let mut by_room: Vec<(u64, &Node)> = candidates.iter().map(|node| (room(cluster, node), *node)).collect();
    let (best_room, best) = by_room.iter().max_by_key(|(room, _)| *room).map_or((0, None), |(room, node)| (*room, Some(*node)));
    by_room.retain(|(room, _)| *room >= needed);
    if by_room.len() < count {
        let best = best.map_or_else(String::new, |node| node.name.to_string());
        return Err(Refusal::NoSpace { needed, wanted: count, fitting: by_room.len(), most: best_room, best });
    }
    let mut ranked: Vec<(u64, usize, NodeId)> =
        by_room.iter().map(|(_, node)| (free(cluster, node), replicas_on(cluster, node.id), node.id)).collect();
    let avoided = |node: &NodeId| avoid.contains(node);
    ranked.sort_by(|a, b| avoided(&a.2).cmp(&avoided(&b.2)).then(b.0.cmp(&a.0)).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    Ok(ranked.into_iter().take(count).map(|(_, _, node)| node).collect())
}

/// What is free on `node` when all that was promised is taken.
fn free(cluster: &Cluster, node: &Node) -> u64 {
    node.pool.as_ref().map_or(0, |pool| pool.free.saturating_sub(promised(cluster, node.id)))
}

fn replicas_on(cluster: &Cluster, node: NodeId) -> usize {
    cluster.resources.values().filter(|r| r.assignments.get(&node).is_some_and(|a| a.replica.is_some())).count()
}
