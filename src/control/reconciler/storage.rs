//! A replica's volumes in the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use drbdpool::{Device, Pool, PoolError, VolumeName};

use crate::cluster::Places;
use crate::control::node::Node;
use crate::control::replica::ReplicaPlan;
use crate::runtime::{Backing, ReplicaStorage, Segment};
use crate::units::{Name, VolumeId};

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("it was broken off: {error}"))?
}

/// Creates the volumes and the metadata of a replica that never was.
pub(super) fn create(node: &Node, name: &Name, plan: &ReplicaPlan, places: &Places, zero: bool) -> Result<(), String> {
    for (&volume, &bytes) in &plan.volumes {
        create_volume(&*pool(node, places.of(volume))?, &data(name, volume)?, bytes, zero)?;
    }
    let metadata =
        pool(node, places.metadata())?.create(&metadata(name)?, node.maker.metadata_bytes(&plan.volumes)).map_err(told)?;
    let backing = backing(&metadata);
    // A replica that exists was created by an earlier try whose confirmation was lost.
    if node.maker.inspect(&backing)? == Some(plan.replica) { Ok(()) } else { node.maker.create(plan, &backing) }
}

/// Makes a replica's volumes as large as they shall be; creates those that it never had. Answers whether anything changed.
pub(super) fn grow(
    node: &Node,
    name: &Name,
    present: &BTreeMap<VolumeId, u64>,
    wanted: &BTreeMap<VolumeId, u64>,
    places: &Places,
) -> Result<bool, String> {
    let mut changed = false;
    for (&volume, &bytes) in wanted {
        let volume_name = data(name, volume)?;
        let pool = pool(node, places.of(volume))?;
        match present.get(&volume) {
            Some(&has) if has >= bytes => {}
            Some(&has) => {
                let device = pool.resize(&volume_name, bytes).map_err(told)?;
                if !device.zeroed {
                    // The new part has to be the same everywhere.
                    pool.zero(&volume_name, has, &mut |_, _| ControlFlow::Continue(())).map_err(told)?;
                }
                changed = true;
            }
            None => {
                create_volume(&*pool, &volume_name, bytes, true)?;
                changed = true;
            }
        }
    }
    if changed {
        room_for_maps(node, name, wanted, places)?;
    }
    Ok(changed)
}

/// Where a replica's bytes are. A volume that is not there is an error: it was, and nobody may make it again.
pub(super) fn find(
    node: &Node,
    name: &Name,
    volumes: &BTreeMap<VolumeId, u64>,
    places: &Places,
) -> Result<ReplicaStorage, String> {
    let find = |place: &Name, volume: &VolumeName| match pool(node, place)?.activate(volume) {
        Ok(device) => Ok(backing(&device)),
        Err(PoolError::NotFound { volume, pool }) => Err(format!(
            "volume '{volume}' has vanished from {pool}; bring it back, or take the replica from this node (unassign-resource) and \
             assign it again"
        )),
        Err(error) => Err(error.to_string()),
    };
    let metadata = find(places.metadata(), &metadata(name)?)?;
    let volumes = volumes.keys().map(|&volume| Ok((volume, find(places.of(volume), &data(name, volume)?)?)));
    Ok(ReplicaStorage { metadata, volumes: volumes.collect::<Result<_, String>>()? })
}

/// Makes sure that the metadata has room for the maps of volumes of these sizes, wherever those are now.
pub(super) fn room_for_maps(node: &Node, name: &Name, volumes: &BTreeMap<VolumeId, u64>, places: &Places) -> Result<(), String> {
    let pool = pool(node, places.metadata())?;
    let metadata = metadata(name)?;
    let present = pool.activate(&metadata).map_err(told)?;
    let needed = node.maker.grown_bytes(&backing(&present), volumes)?;
    if present.size < needed {
        pool.resize(&metadata, needed).map_err(told)?;
    }
    Ok(())
}

/// Removes volumes, and the metadata.
pub(super) fn remove(
    node: &Node,
    name: &Name,
    volumes: &BTreeSet<VolumeId>,
    with_metadata: bool,
    places: &Places,
) -> Result<(), String> {
    if with_metadata {
        pool(node, places.metadata())?.remove(&metadata(name)?).map_err(told)?;
    }
    volumes.iter().try_for_each(|&volume| pool(node, places.of(volume))?.remove(&data(name, volume)?).map_err(told))
}

fn create_volume(pool: &dyn Pool, volume: &VolumeName, bytes: u64, zero: bool) -> Result<(), String> {
    let device = pool.create(volume, bytes).map_err(told)?;
    if zero && !device.zeroed {
        pool.zero(volume, 0, &mut |_, _| ControlFlow::Continue(())).map_err(told)?;
    }
    Ok(())
}

fn pool(node: &Node, name: &Name) -> Result<Arc<dyn Pool>, String> {
    let why = || node.board.pool_failures().remove(name).unwrap_or_else(|| "it is not open yet".to_owned());
    node.pool(name).ok_or_else(|| format!("this node's pool '{name}' cannot be used: {}", why()))
}

/// A pool's volume as the data plane opens it.
pub(in crate::control) fn backing(device: &Device) -> Backing {
    let segment = |s: &drbdpool::Segment| {
        let (path, start, length) = (s.path.clone(), s.start, s.length);
        Segment { path, start, length, exclusive: s.exclusive, reserved: s.reserved }
    };
    Backing { segments: device.segments.iter().map(segment).collect() }
}

fn data(name: &Name, volume: VolumeId) -> Result<VolumeName, String> {
    VolumeName::data(name.as_str(), volume.0).map_err(told)
}

fn metadata(name: &Name) -> Result<VolumeName, String> {
    VolumeName::metadata(name.as_str()).map_err(told)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn told(error: PoolError) -> String {
    error.to_string()
}
