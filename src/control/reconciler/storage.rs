//! A replica's volumes in the pool.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use drbdpool::{Adoptable, Condition, Device, Pool, PoolError, SnapshotMethod, SnapshotName, VolumeName};

use crate::cluster::{Leftover, Places, Source, StoredSnapshot};
use crate::control::node::Node;
use crate::control::replica::ReplicaPlan;
use crate::runtime::{Backing, ReplicaStorage, Segment};
use crate::units::{Name, VolumeId};

/// Runs what blocks where it may.
pub(in crate::control) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("it was broken off: {error}"))?
}

/// What a new replica's volumes begin as.
pub(super) struct Origin {
    /// They have to read as zeros.
    pub(super) zero: bool,
    /// The snapshot that they are made of.
    pub(super) source: Option<Source>,
    /// What the node has already and makes them of.
    pub(super) adopts: BTreeMap<VolumeId, String>,
}

/// Creates the volumes and the metadata of a replica that never was.
pub(super) fn create(node: &Node, name: &Name, plan: &ReplicaPlan, places: &Places, origin: &Origin) -> Result<(), String> {
    for (&volume, &bytes) in plan.volumes.iter().filter(|(volume, _)| !origin.adopts.contains_key(volume)) {
        let pool = pool(node, places.of(volume))?;
        match &origin.source {
            Some(Source { of, stored, .. }) => {
                let (snapshot, volume) = (snapshot_name(of, volume, stored)?, data(name, volume)?);
                let made = pool.restore(&snapshot, &volume).map_err(told)?.size;
                if made < bytes {
                    return Err(format!(
                        "the part of the snapshot here, '{snapshot}', has {made} bytes of {bytes}: it was cut short; take the replica from \
                         this node (unassign-resource) and assign it again"
                    ));
                }
                if made > bytes {
                    // What is behind it is no part of the snapshot, and the volume grows into it.
                    pool.zero(&volume, bytes, &mut |_, _| ControlFlow::Continue(())).map_err(told)?;
                }
            }
            None => create_volume(&*pool, &data(name, volume)?, bytes, origin.zero)?,
        }
    }
    let metadata =
        pool(node, places.metadata())?.create(&metadata(name)?, node.maker.metadata_bytes(&plan.volumes)).map_err(told)?;
    let backing = backing(&metadata);
    // A replica that exists was created by an earlier try whose confirmation was lost.
    if node.maker.inspect(&backing)? != Some(plan.replica) {
        node.maker.create(plan, &backing)?;
    }
    // Last: as long as anything can fail for want of space, what others made stays as it is.
    for (&volume, source) in &origin.adopts {
        let (source, wanted) = (source.parse::<Adoptable>().map_err(told)?, plan.volumes.get(&volume).copied().unwrap_or(0));
        let device = pool(node, places.of(volume))?.adopt(&source, &data(name, volume)?).map_err(told)?;
        if device.size < wanted {
            return Err(format!(
                "{source} had {wanted} bytes and has {} now; make it as large again, or remove the resource, which gives it back",
                device.size
            ));
        }
    }
    Ok(())
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
                let present = pool.activate(&volume_name).map_err(told)?;
                let device = if present.size < bytes { pool.resize(&volume_name, bytes).map_err(told)? } else { present };
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

/// Removes what is left over: parts of snapshots, which may hang on their volumes, then the metadata, then volumes.
pub(super) fn remove(node: &Node, leftover: &Leftover) -> Result<(), String> {
    let (name, places) = (&leftover.name, &leftover.places);
    for StoredSnapshot { stored, volumes, places } in &leftover.snapshots {
        if node.taking.is_busy(name, stored) {
            return Err(format!("snapshot '{stored}' is still being taken"));
        }
        for &volume in volumes {
            pool(node, places.of(volume))?.remove_snapshot(&snapshot_name(name, volume, stored)?).map_err(told)?;
        }
    }
    if leftover.metadata {
        pool(node, places.metadata())?.remove(&metadata(name)?).map_err(told)?;
    }
    leftover.volumes.iter().try_for_each(|&volume| {
        let (pool, data) = (pool(node, places.of(volume))?, data(name, volume)?);
        match leftover.adopts.get(&volume) {
            Some(source) => source.parse().and_then(|source| pool.disown(&data, &source)).map_err(told),
            None => pool.remove(&data).map_err(told),
        }
    })
}

/// Takes snapshots of a replica's volumes, while nobody writes to them; how many bytes had to be copied for it. `moved` is told whenever
/// something is done, and ends it by `Break`.
pub(in crate::control) fn snapshot(
    node: &Node,
    name: &Name,
    stored: &str,
    volumes: &BTreeMap<VolumeId, u64>,
    places: &Places,
    moved: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<u64, String> {
    let mut copied = 0;
    for (&volume, &bytes) in volumes {
        let pool = pool(node, places.of(volume))?;
        // Where the volume's old blocks are put aside there is room for all of them: the snapshot is never lost.
        pool.snapshot(&snapshot_name(name, volume, stored)?, bytes, &mut |_, _| moved()).map_err(told)?;
        if moved().is_break() {
            return Err("it was broken off".to_owned());
        }
        if pool.snapshot_method().map_err(told)? == SnapshotMethod::Copy {
            copied += bytes;
        }
    }
    Ok(copied)
}

/// Where a volume of a snapshot is.
pub(in crate::control) fn snapshot_device(
    node: &Node,
    name: &Name,
    volume: VolumeId,
    stored: &str,
    places: &Places,
) -> Result<Device, String> {
    let wanted = snapshot_name(name, volume, stored)?;
    let all = pool(node, places.of(volume))?.snapshots().map_err(told)?;
    match all.into_iter().find(|one| one.name == wanted).map(|one| one.condition) {
        Some(Condition::Ready(device)) => Ok(device),
        // One that is there is answered as it is, and activated.
        Some(Condition::Inactive) => {
            pool(node, places.of(volume))?.snapshot(&wanted, 0, &mut |_, _| ControlFlow::Continue(())).map_err(told)
        }
        Some(Condition::Unusable(why)) => Err(why),
        None => Err(format!("'{wanted}' is not there")),
    }
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

fn snapshot_name(name: &Name, volume: VolumeId, stored: &str) -> Result<SnapshotName, String> {
    SnapshotName::new(data(name, volume)?, stored).map_err(told)
}

fn metadata(name: &Name) -> Result<VolumeName, String> {
    VolumeName::metadata(name.as_str()).map_err(told)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn told(error: PoolError) -> String {
    error.to_string()
}
