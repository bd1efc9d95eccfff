//! Which nodes replicas go to.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cluster, FIRST_POOL, Node, Places, PoolPromises, Refusal, Resource, ThinLimit};
use crate::units::{Name, NodeId, VolumeId};

/// The room that metadata of a replica with `bytes` of volumes is reckoned to take: a bit per 4 KiB and peer for seven peers,
/// and 8 MiB for everything else.
pub const fn metadata_reserve(bytes: u64) -> u64 {
    (8 << 20) + bytes / 32768 * 7
}

/// What volumes of these sizes take in each pool of a node, and the metadata of a replica of them if that is asked for, in bytes.
pub(super) fn needs(volumes: &BTreeMap<VolumeId, u64>, places: &Places, replica: bool) -> BTreeMap<Name, u64> {
    let total = volumes.values().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    let metadata = replica.then(|| (places.metadata(), metadata_reserve(total)));
    let volumes = volumes.iter().map(|(id, bytes)| (places.of(*id), *bytes));
    let mut needs = BTreeMap::new();
    for (pool, bytes) in volumes.chain(metadata) {
        let sum: &mut u64 = needs.entry(pool.clone()).or_default();
        *sum = sum.saturating_add(bytes);
    }
    needs
}

/// What is promised to replicas in a pool of `node` and not taken from it yet, in bytes.
pub fn promised(cluster: &Cluster, node: NodeId, pool: &Name) -> u64 {
    let open = |resource: &Resource| {
        let next = cluster.successor_of(resource, node);
        let assignment =
            next.as_ref().or_else(|| resource.assignments.get(&node)).filter(|a| a.replica.is_some() && !a.leaving)?;
        let here = resource.volumes.iter().filter(|(id, _)| assignment.places.of(**id) == pool);
        let volumes = here.fold(0u64, |sum, (id, volume)| {
            sum.saturating_add(volume.target.saturating_sub(assignment.volumes.get(id).copied().unwrap_or(0)))
        });
        let made = assignment.created || assignment.places.metadata() != pool;
        let metadata = if made { 0 } else { metadata_reserve(resource.bytes()) };
        Some(volumes.saturating_add(metadata))
    };
    cluster.resources.values().filter_map(|resource| open(resource)).fold(0, u64::saturating_add)
}

/// The largest addition that a pool of `node` can take, in bytes: what it can promise, and has not promised yet.
pub fn room(cluster: &Cluster, node: &Node, pool: &Name) -> u64 {
    node.pool_report(pool).map_or(0, |report| report.free.saturating_sub(promised(cluster, node.id, pool)))
}

/// A pool of a node, in words for a refusal.
pub(super) fn place(node: &Node, pool: &Name) -> String {
    if *pool == *FIRST_POOL { node.name.to_string() } else { format!("{}, pool {pool}", node.name) }
}

/// Why so much does not fit into a pool of a node, which has `room`; both in bytes.
pub(super) fn no_space(cluster: &Cluster, node: &Node, pool: &Name, needed: u64, room: u64) -> Refusal {
    let thin = node.pool_report(pool).filter(|report| report.fill.is_some()).map(|report| report.total);
    Refusal::NoSpaceOn { node: place(node, pool), needed, room, thin, limit: limit(cluster, node, pool) }
}

/// What limits the room in a pool of a node, where that is not what is there.
fn limit(cluster: &Cluster, node: &Node, pool: &Name) -> Option<ThinLimit> {
    let report = node.pool_report(pool)?;
    let PoolPromises { times, made } = report.fill?.promises?;
    let promised = made.saturating_add(promised(cluster, node.id, pool));
    Some(ThinLimit { size: report.total, times, promised })
}

/// The largest volume that could be created with `replicas` replicas, in bytes; `None` when there are not so many pools.
pub fn largest_volume(cluster: &Cluster, replicas: usize) -> Option<u64> {
    let mut rooms: Vec<u64> =
        cluster.nodes.values().filter(|n| n.takes_replicas()).map(|n| room(cluster, n, n.usual_pool())).collect();
    rooms.sort_unstable_by(|a, b| b.cmp(a));
    let least = *rooms.get(replicas.checked_sub(1)?)?;
    // Undo the reserve: `bytes + metadata_reserve(bytes) <= least`.
    let bytes = least.saturating_sub(8 << 20) / (32768 + 7) * 32768;
    Some(bytes / 4096 * 4096)
}

/// Chooses `count` nodes that have no replica of `resource` yet and room for it: those with the most free space, and of equal
/// ones those with the fewest replicas, so that empty thin pools fill evenly. Those to `avoid` come last. They go to `pool`, if that is
/// given.
pub(super) fn choose(
    cluster: &Cluster,
    resource: &Resource,
    count: usize,
    avoid: &BTreeSet<NodeId>,
    pool: Option<&Name>,
) -> Result<Vec<NodeId>, Refusal> {
    let has_replica = |node: NodeId| resource.assignments.get(&node).is_some_and(|a| a.replica.is_some());
    let candidates: Vec<(&Node, BTreeMap<Name, u64>)> = cluster
        .nodes
        .values()
        .filter(|node| node.takes_replicas() && !has_replica(node.id))
        .map(|node| (node, needs(&resource.targets(), &resource.places_on(node, pool), true)))
        .filter(|(node, needs)| needs.keys().all(|pool| node.pool_report(pool).is_some()))
        .collect();
    let present = resource.replicas().count();
    if candidates.len() < count {
        return Err(Refusal::TooFewNodes { wanted: present + count, available: present + candidates.len() });
    }
    let rooms = |node: &Node, needs: &BTreeMap<Name, u64>| needs.keys().map(|pool| room(cluster, node, pool)).min().unwrap_or(0);
    let fits =
        |(node, needs): &&(&Node, BTreeMap<Name, u64>)| needs.iter().all(|(pool, need)| *need <= room(cluster, node, pool));
    let fitting: Vec<&(&Node, BTreeMap<Name, u64>)> = candidates.iter().filter(fits).collect();
    if fitting.len() < count {
        let best = candidates.iter().map(|(node, needs)| (rooms(node, needs), node, needs)).max_by_key(|(room, ..)| *room);
        let (most, best, limit) = best.map_or((0, String::new(), None), |(room, node, needs)| {
            let tightest = needs.keys().min_by_key(|pool| self::room(cluster, node, pool));
            (room, node.name.to_string(), tightest.and_then(|pool| limit(cluster, node, pool)))
        });
        let needed = resource.bytes().saturating_add(metadata_reserve(resource.bytes()));
        return Err(Refusal::NoSpace { needed, wanted: count, fitting: fitting.len(), most, best, limit });
    }
    let mut ranked: Vec<(u64, usize, NodeId)> =
        fitting.into_iter().map(|(node, needs)| (rooms(node, needs), replicas_on(cluster, node.id), node.id)).collect();
    let avoided = |node: &NodeId| avoid.contains(node);
    ranked.sort_by(|a, b| avoided(&a.2).cmp(&avoided(&b.2)).then(b.0.cmp(&a.0)).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    Ok(ranked.into_iter().take(count).map(|(_, _, node)| node).collect())
}

fn replicas_on(cluster: &Cluster, node: NodeId) -> usize {
    cluster.resources.values().filter(|r| r.assignments.get(&node).is_some_and(|a| a.replica.is_some())).count()
}
