//! A replica's storage, opened and read before its engine starts. All of it may block; it is done on threads that may.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::Identity;
use crate::format::{Loaded, Loader, SUPERBLOCK, Span, superblock_at};
use crate::ring::{Backing, Buffer, DiskOptions, OpenDisk, PAGE, Pool};
use crate::units::{BLOCK, VolumeId, blocks_of};

use super::inbox::OpenDisks;
use super::plane::{PlaneError, ReplicaStorage, ResourceSpec};

/// How long another's lock is waited for: a daemon that was killed has it until its last I/O is done (rule F4).
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The longest piece that is read or written at once.
const PIECE: usize = 1 << 20;

/// Opens and locks a replica's storage and reads its metadata.
///
/// # Errors
///
/// What cannot be opened and why, or whose metadata it is. Nothing was changed.
pub(super) fn open(spec: &ResourceSpec, storage: &ReplicaStorage) -> Result<(Loaded, OpenDisks), PlaneError> {
    let metadata = open_disk(&storage.metadata, 2 * SUPERBLOCK as u64)?;
    let volumes = open_volumes(storage, &spec.settings.volumes)?;
    let loaded = load(&metadata)?;
    check_owner(spec, &loaded)?;
    for damage in &loaded.damages {
        tracing::warn!(resource = %spec.name, "metadata: {damage}");
    }
    Ok((loaded, OpenDisks { metadata, volumes }))
}

/// Opens what a changed resource has: files that are open already stay so.
///
/// # Errors
///
/// As [`open`]; then the resource keeps what it has.
pub(super) fn reopen(
    before: OpenDisks,
    storage: &ReplicaStorage,
    sizes: &BTreeMap<VolumeId, u64>,
) -> Result<OpenDisks, PlaneError> {
    let OpenDisks { metadata, volumes: mut before } = before;
    let metadata = metadata.reopen(&storage.metadata, &options(2 * SUPERBLOCK as u64)).map_err(storage_error)?;
    let mut volumes = BTreeMap::new();
    for (&volume, backing) in &storage.volumes {
        let options = options(size_of(sizes, volume));
        let disk = match before.remove(&volume) {
            Some(disk) => disk.reopen(backing, &options),
            None => OpenDisk::open(backing, &options),
        };
        volumes.insert(volume, disk.map_err(storage_error)?);
    }
    Ok(OpenDisks { metadata, volumes })
}

/// Who an engine is; with a fresh seed.
///
/// # Errors
///
/// When the system has no randomness.
pub(super) fn identity(spec: &ResourceSpec) -> Result<Identity, PlaneError> {
    let mut seed = [0; 2];
    for half in &mut seed {
        *half = getrandom::u64().map_err(|error| PlaneError::Storage(format!("the system has no randomness: {error}")))?;
    }
    Ok(Identity { cluster: spec.cluster, resource: spec.resource, node: spec.me, seed })
}

fn open_volumes(storage: &ReplicaStorage, sizes: &BTreeMap<VolumeId, u64>) -> Result<BTreeMap<VolumeId, OpenDisk>, PlaneError> {
    if let Some(missing) = sizes.keys().find(|volume| !storage.volumes.contains_key(volume)) {
        return Err(PlaneError::Storage(format!("volume {missing} has no storage on this node")));
    }
    let open = |(&volume, backing)| Ok((volume, open_disk(backing, size_of(sizes, volume))?));
    storage.volumes.iter().map(open).collect()
}

fn open_disk(backing: &Backing, bytes: u64) -> Result<OpenDisk, PlaneError> {
    OpenDisk::open(backing, &options(bytes)).map_err(storage_error)
}

fn options(bytes: u64) -> DiskOptions {
    DiskOptions { bytes, read_only: false, wait: LOCK_WAIT }
}

/// The bytes that a volume's storage must have: whole blocks.
fn size_of(sizes: &BTreeMap<VolumeId, u64>, volume: VolumeId) -> u64 {
    sizes.get(&volume).map_or(0, |&bytes| blocks_of(bytes) * BLOCK)
}

/// Reads all of a metadata area. What cannot be read counts as the worst that it could say.
fn load(disk: &OpenDisk) -> Result<Loaded, PlaneError> {
    let pool = pool()?;
    let mut slots = [Vec::new(), Vec::new()];
    for (index, slot) in slots.iter_mut().enumerate() {
        let mut buffer = allocate(&pool, SUPERBLOCK)?;
        match disk.read(superblock_at(index), &mut buffer) {
            Ok(()) => slot.extend_from_slice(&buffer),
            Err(error) => tracing::warn!(slot = index, %error, "a superblock cannot be read"),
        }
    }
    let mut loader = Loader::new(&slots[0], &slots[1], disk.bytes()).map_err(|error| PlaneError::Metadata(error.to_string()))?;
    let mut buffer = allocate(&pool, PIECE)?;
    for Span { at, len } in loader.pieces() {
        buffer.resize(usize::try_from(len).unwrap_or(PIECE));
        match disk.read(at, &mut buffer) {
            Ok(()) => {}
            Err(_) => read_page_by_page(disk, at, &mut buffer, &pool)?,
        }
        loader.feed(at, &buffer);
    }
    Ok(loader.finish())
}

/// Reads what can be read of a piece; pages that cannot are filled with what no page is.
fn read_page_by_page(disk: &OpenDisk, at: u64, into: &mut Buffer, pool: &Pool) -> Result<(), PlaneError> {
    let mut page = allocate(pool, PAGE)?;
    for (offset, bytes) in (at..).step_by(PAGE).zip(into.chunks_mut(PAGE)) {
        match disk.read(offset, &mut page) {
            Ok(()) => bytes.copy_from_slice(&page[..bytes.len()]),
            Err(_) => bytes.fill(0xff),
        }
    }
    Ok(())
}

/// A replica's metadata is for one resource on one node of one cluster (rule M7).
fn check_owner(spec: &ResourceSpec, loaded: &Loaded) -> Result<(), PlaneError> {
    let found = &loaded.superblock;
    if (found.cluster, found.resource, found.node) == (spec.cluster, spec.resource, spec.me) {
        return Ok(());
    }
    Err(PlaneError::Metadata(format!(
        "it belongs to resource {} on node {} of cluster {}, not to resource {} on node {} of cluster {}",
        found.resource, found.node, found.cluster, spec.resource, spec.me, spec.cluster
    )))
}

fn pool() -> Result<Pool, PlaneError> {
    Pool::new(4 * PIECE).map_err(|error| PlaneError::Storage(format!("no memory: {error}")))
}

fn allocate(pool: &Pool, bytes: usize) -> Result<Buffer, PlaneError> {
    pool.try_allocate(bytes).ok_or_else(|| PlaneError::Storage("no memory".to_owned()))
}

fn storage_error(error: impl std::error::Error) -> PlaneError {
    PlaneError::Storage(error.to_string())
}
