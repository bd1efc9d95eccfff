//! A replica's storage: opened and read before its engine starts, and made before that. All of it may block; it is done on threads
//! that may.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::engine::Identity;
use crate::format::{Loaded, Loader, NewReplica, Recognised, SUPERBLOCK, Span, Step, create, recognise, superblock_at};
use crate::ring::{Backing, Buffer, DiskOptions, OpenDisk, Pool};
use crate::units::{BLOCK, VolumeId, blocks_of};

use super::inbox::OpenDisks;
use super::plane::{PlaneError, ReplicaStorage, ResourceSpec};

/// How long another's lock is waited for: a daemon that was killed has it until its last I/O is done (rule F4).
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The longest piece that is read or written at once.
const PIECE: usize = 1 << 20;

/// How much of an area is looked at to see whose it is.
const GLIMPSE: usize = 32 << 10;

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

/// Makes the metadata area of a new replica, durably. An area that was made for this very replica before, perhaps in part, is made
/// anew.
///
/// # Errors
///
/// [`PlaneError::Metadata`] when the area holds something else: it may be somebody's only copy. [`PlaneError::Storage`] when it
/// cannot be opened or written.
pub fn create_metadata(backing: &Backing, new: &NewReplica) -> Result<(), PlaneError> {
    let steps = create(new).map_err(|error| PlaneError::Metadata(error.to_string()))?;
    let needed = crate::format::area_len(&new.volumes, new.slots);
    let disk = open_disk(backing, needed)?;
    let pool = pool()?;
    let mut buffer = allocate(&pool, GLIMPSE)?;
    disk.read(0, &mut buffer).map_err(io_error("read"))?;
    match recognise(&buffer) {
        Recognised::Empty => {}
        Recognised::Blkrep(owner) if owner.cluster == new.cluster && owner.replica == new.replica => {}
        Recognised::Blkrep(owner) => {
            return Err(PlaneError::Metadata(format!(
                "the area belongs to replica {} of resource {} on node {} of cluster {}; choose another area, or wipe it first",
                owner.replica, owner.resource, owner.node, owner.cluster
            )));
        }
        Recognised::Unreadable(error) => return Err(PlaneError::Metadata(format!("the area is a replica's: {error}"))),
        Recognised::Foreign(what) => {
            return Err(PlaneError::Metadata(format!("the area holds {what}; choose another area, or wipe it first")));
        }
    }
    for step in steps {
        match step {
            Step::Zero(Span { at, len }) => disk.zero(at, len).map_err(io_error("zeroed"))?,
            Step::Write { at, bytes } => {
                let mut buffer = allocate(&pool, bytes.len())?;
                buffer.copy_from_slice(&bytes);
                disk.write(at, &buffer).map_err(io_error("written"))?;
            }
            Step::Flush => disk.sync().map_err(io_error("made durable"))?,
        }
    }
    Ok(())
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
    let mut page = allocate(pool, BLOCK as usize)?;
    for (offset, bytes) in (at..).step_by(BLOCK as usize).zip(into.chunks_mut(BLOCK as usize)) {
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

fn io_error(what: &'static str) -> impl Fn(io::Error) -> PlaneError {
    move |error| PlaneError::Storage(format!("the metadata area cannot be {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Authority, ClusterId, Incarnation, NodeId, Record, RecordId, ReplicaId, ResourceId};

    fn new_replica(replica: u64) -> NewReplica {
        let (node, incarnation) = (NodeId(1), Incarnation(5));
        NewReplica {
            cluster: ClusterId(7),
            resource: ResourceId(3),
            node,
            replica: ReplicaId(replica),
            incarnation,
            record: Some(Record::first(RecordId(9), [(node, incarnation)].into(), Authority::Off)),
            synced: Some((1, RecordId(9))),
            peers: Vec::new(),
            volumes: [(VolumeId(0), 64 << 20)].into(),
            slots: 7,
        }
    }

    fn area(folder: &tempfile::TempDir, content: &[u8]) -> Backing {
        let path = folder.path().join("metadata");
        std::fs::write(&path, content).unwrap();
        let length = crate::format::area_len(&new_replica(1).volumes, 7);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        Backing::whole(path, length)
    }

    #[test]
    fn an_area_that_was_made_is_read_back_and_may_be_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let backing = area(&folder, &[]);
        create_metadata(&backing, &new_replica(1)).unwrap();
        create_metadata(&backing, &new_replica(1)).unwrap();
        let loaded = load(&open_disk(&backing, 0).unwrap()).unwrap();
        assert_eq!((loaded.superblock.replica, loaded.damages.len()), (ReplicaId(1), 0));
    }

    #[test]
    fn an_area_that_holds_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let backing = area(&folder, &[]);
        create_metadata(&backing, &new_replica(1)).unwrap();
        let refused = create_metadata(&backing, &new_replica(2)).unwrap_err();
        assert!(refused.to_string().contains("belongs to replica 0000000000000001"), "{refused}");
        let backing = area(&folder, b"XFSB and so on");
        let refused = create_metadata(&backing, &new_replica(1)).unwrap_err();
        assert!(refused.to_string().contains("XFS"), "{refused}");
        assert_eq!(&std::fs::read(folder.path().join("metadata")).unwrap()[..4], b"XFSB");
    }
}
