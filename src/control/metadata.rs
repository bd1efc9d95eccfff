//! A replica's metadata, shown, checked, kept aside and brought back while its node is stopped.

use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use drbdpool::{PoolError, PoolSpec, VolumeName};

use super::area::{Area, shown};
use super::config::{Config, Membership, consensus_file};
use super::consensus::Consensus;
use super::local;
use super::reconciler::storage::backing;
use super::setup::no_member;
use crate::api::metadata::{DirtyReport, MetadataOf, MetadataReport, RecordReport, RestoreMetadata, VolumeReport};
use crate::api::setup::Root;
use crate::api::{ApiError, Code, Done};
use crate::cluster::{Assignment, Cluster, FIRST_POOL, Resource};
use crate::format::{Dump, Loaded, Owner, Recognised, SUPERBLOCK, Superblock, end_of, recognise};
use crate::runtime::{Backing, Segment};
use crate::units::{Authority, BLOCK, DiskState, EXTENT, Name, NodeId, Record, human};

/// What metadata says.
pub(super) fn report(root: &Root, of: &MetadataOf) -> Result<MetadataReport, ApiError> {
    let place = Place::open(root, of)?;
    let loaded = place.load()?;
    Ok(place.report(&loaded))
}

/// Metadata as a document.
pub(super) fn dump(root: &Root, of: &MetadataOf) -> Result<String, ApiError> {
    let loaded = Place::open(root, of)?.load()?;
    if let Some(damage) = loaded.damages.first() {
        let message = format!("the metadata is damaged: {damage}");
        return Err(ApiError::new(Code::Storage, message).hint("the daemon takes what is damaged for the worst; start it"));
    }
    serde_json::to_string(&Dump::of(&loaded)).map_err(|error| ApiError::new(Code::Internal, error))
}

/// Brings metadata back from a document.
pub(super) fn restore(asked: &RestoreMetadata) -> Result<Done, ApiError> {
    let dump: Dump = serde_json::from_str(&asked.dump).map_err(|error| {
        ApiError::new(Code::BadRequest, format_args!("this is no dump of metadata: {error}"))
            .hint("`blkrep metadata dump RESOURCE > FILE` writes one")
    })?;
    let mut loaded = dump.into_loaded().map_err(|error| ApiError::new(Code::BadRequest, error))?;
    let place = Place::open(&asked.root, &asked.of)?;
    place.check_owner(&loaded.superblock)?;
    let present = place.check_present(&loaded.superblock, asked.force)?;
    let needed = end_of(&loaded.superblock.regions);
    if place.area.len() < needed {
        let message = format!("{} has {}, the metadata takes {}", place.shown, human(place.area.len()), human(needed));
        return Err(ApiError::new(Code::NoSpace, message).hint("extend it first"));
    }
    if !asked.exact {
        loaded.distrust();
    }
    loaded.superblock.version = loaded.superblock.version.max(present) + 1;
    let steps = loaded.rewrite().map_err(|error| ApiError::new(Code::BadRequest, error))?;
    for step in steps {
        place.area.take(step).map_err(|error| place.failed(&error))?;
    }
    let note = match asked.exact {
        true => "it counts as it did when the dump was made",
        false => {
            "everything counts as different from every peer, and the data as an old state: peers compare all of it when the \
             node is back"
        }
    };
    Ok(Done { notes: vec![note.to_owned()] })
}

/// Metadata that is open, nobody else using it.
struct Place {
    area: Area,
    shown: String,
    /// The node that is stopped, when its replica was asked for.
    stopped: Option<Stopped>,
}

/// A node that does not run, as it knows the cluster.
struct Stopped {
    membership: Membership,
    model: Cluster,
    resource: Arc<Resource>,
    assignment: Assignment,
    _held: local::Held,
}

impl Place {
    fn open(root: &Root, of: &MetadataOf) -> Result<Self, ApiError> {
        let (backing, stopped) = match of {
            MetadataOf::File(path) => (whole(path).map_err(|error| unusable(&path.display().to_string(), &error))?, None),
            MetadataOf::Replica(name) => {
                let stopped = Stopped::find(root, name)?;
                (stopped.metadata(root)?, Some(stopped))
            }
        };
        let shown = shown(&backing);
        let area = Area::open_alone(&backing).map_err(|error| unusable(&shown, &error))?;
        Ok(Self { area, shown, stopped })
    }

    fn load(&self) -> Result<Loaded, ApiError> {
        self.area.load().map_err(|error| {
            ApiError::new(Code::Storage, format_args!("{}: {error}", self.shown))
                .hint("a replica whose metadata is lost is made again: unassign-resource, then assign-resource")
        })
    }

    /// A dump is for the replica it was made of.
    fn check_owner(&self, superblock: &Superblock) -> Result<(), ApiError> {
        let Some(stopped) = &self.stopped else { return Ok(()) };
        let resource = stopped.resource.id;
        let (cluster, node) = (stopped.membership.cluster, stopped.membership.node);
        if (superblock.cluster, superblock.resource, superblock.node) == (cluster, resource, node) {
            return Ok(());
        }
        let message = format!(
            "the dump is of resource {} on node {} of cluster {}, not of '{}' on this node",
            superblock.resource, superblock.node, superblock.cluster, stopped.resource.name
        );
        Err(ApiError::new(Code::BadRequest, message).hint("`blkrep metadata show FILE` tells whose an area is"))
    }

    /// What is there already must be the same replica's, or nobody's. Answers the version of its superblock.
    fn check_present(&self, superblock: &Superblock, force: bool) -> Result<u64, ApiError> {
        let head = self.area.read(0, 2 * SUPERBLOCK).map_err(|error| self.failed(&error))?;
        let owner = |s: &Superblock| Owner { cluster: s.cluster, resource: s.resource, node: s.node, replica: s.replica };
        let whose = match recognise(&head) {
            Recognised::Empty | Recognised::Unreadable(_) => return Ok(0),
            Recognised::Blkrep(found) if found == owner(superblock) => {
                let slots = [&head[..SUPERBLOCK], &head[SUPERBLOCK..]].map(Superblock::decode);
                return Ok(slots.into_iter().flatten().map(|slot| slot.version).max().unwrap_or_default());
            }
            Recognised::Blkrep(found) => {
                format!("metadata of replica {} of resource {} on node {}", found.replica, found.resource, found.node)
            }
            Recognised::Foreign(name) => name.to_owned(),
        };
        if force {
            return Ok(0);
        }
        let message = format!("{} holds {whose}", self.shown);
        Err(ApiError::new(Code::InUse, message).hint("--force overwrites it; it is gone then"))
    }

    fn failed(&self, error: &io::Error) -> ApiError {
        unusable(&self.shown, error)
    }

    fn report(&self, loaded: &Loaded) -> MetadataReport {
        let superblock = &loaded.superblock;
        let node = |node: NodeId| self.node(node);
        let volumes = superblock.regions.iter().map(|region| VolumeReport {
            volume: region.volume.0,
            bytes: region.bytes,
            hot_bytes: (loaded.activity[&region.volume].hot.count() * EXTENT).min(region.bytes),
            peers: (0..)
                .zip(&superblock.peers)
                .map(|(slot, peer)| DirtyReport {
                    node: node(peer.node),
                    dirty_bytes: (loaded.dirty[&(slot, region.volume)].count() * BLOCK).min(region.bytes),
                    since: peer.base.map(|(number, id)| (number, id.to_string())),
                })
                .collect(),
        });
        let volumes: Vec<VolumeReport> = volumes.collect();
        let resource = self.stopped.as_ref().map_or_else(|| superblock.resource.to_string(), |s| s.resource.name.to_string());
        MetadataReport {
            area: self.shown.clone(),
            cluster: superblock.cluster.to_string(),
            resource,
            node: node(superblock.node),
            replica: superblock.replica.to_string(),
            incarnation: superblock.incarnation.to_string(),
            continues: superblock.continues.to_string(),
            clean: superblock.clean,
            disk: superblock.disk(),
            synced: superblock.synced.map(|(number, id)| (number, id.to_string())),
            record: superblock.record.as_ref().map(|record| record_report(record, &node)),
            lineage: superblock.lineage.iter().map(ToString::to_string).collect(),
            meaning: meaning(superblock, &volumes, &node),
            problems: self.problems(loaded),
            volumes,
        }
    }

    fn problems(&self, loaded: &Loaded) -> Vec<String> {
        let mut problems: Vec<String> = loaded.damages.iter().map(ToString::to_string).collect();
        if let Err(error) = self.check_owner(&loaded.superblock) {
            problems.push(error.to_string());
        }
        if let Some(replica) = self.stopped.as_ref().and_then(|stopped| stopped.assignment.replica)
            && replica != loaded.superblock.replica
        {
            problems
                .push(format!("it is of replica {}, but the cluster knows this node's as {replica}", loaded.superblock.replica));
        }
        problems
    }

    /// A node's name where it is known.
    fn node(&self, node: NodeId) -> String {
        self.stopped.as_ref().map_or_else(|| format!("node {node}"), |stopped| stopped.model.node_name(node))
    }
}

impl Stopped {
    /// Keeps the node from being started, and reads what it knew of the cluster when it was stopped.
    fn find(root: &Root, resource: &Name) -> Result<Self, ApiError> {
        let membership = Membership::load(root)?.ok_or_else(no_member)?;
        let held = local::hold(root)?;
        let model = Consensus::logged(&consensus_file(root)).map_err(|error| ApiError::new(Code::Io, error))?;
        let resource = model.resource_named(resource)?.clone();
        let assignment = resource.assignments.get(&membership.node).filter(|assignment| !assignment.is_diskless());
        let assignment = assignment.cloned().ok_or_else(|| {
            ApiError::new(Code::NotFound, format_args!("this node has no replica of '{}'", resource.name))
                .hint("`blkrep list-assignments` tells which nodes have one")
        })?;
        Ok(Self { membership, model, resource, assignment, _held: held })
    }

    /// Where the replica's metadata is.
    fn metadata(&self, root: &Root) -> Result<Backing, ApiError> {
        let place = self.assignment.places.metadata();
        let spec = match *place == *FIRST_POOL {
            true => Config::load(root)?.pool,
            false => self.model.node(self.membership.node)?.pools.get(place).map(|pool| pool.spec.clone()),
        };
        let spec = spec.ok_or_else(|| ApiError::new(Code::Storage, format_args!("this node has no pool '{place}'")))?;
        let storage = |error: PoolError| ApiError::new(Code::Storage, error);
        let spec: PoolSpec = spec.parse().map_err(storage)?;
        let pool = local::open_pool(&spec, self.membership.cluster, self.membership.node)?;
        let name = VolumeName::metadata(self.resource.name.as_str()).map_err(storage)?;
        Ok(backing(&pool.activate(&name).map_err(storage)?))
    }
}

/// All of a file or device.
fn whole(path: &Path) -> io::Result<Backing> {
    let length = fs::File::open(path)?.seek(SeekFrom::End(0))?;
    let segment = Segment { path: path.to_owned(), start: 0, length, exclusive: true, reserved: false };
    Ok(Backing { segments: vec![segment] })
}

fn unusable(shown: &str, error: &io::Error) -> ApiError {
    match error.kind() {
        io::ErrorKind::ResourceBusy => {
            ApiError::new(Code::InUse, format_args!("{shown} is in use")).hint("stop the daemon that uses it: `blkrep shutdown`")
        }
        _ => ApiError::new(Code::Io, format_args!("{shown}: {error}")),
    }
}

fn record_report(record: &Record, node: &impl Fn(NodeId) -> String) -> RecordReport {
    RecordReport {
        number: record.number,
        id: record.id.to_string(),
        parent: record.parent.map(|id| id.to_string()),
        in_sync: record.in_sync.iter().map(|(&member, incarnation)| (node(member), incarnation.to_string())).collect(),
        primary: record.primary.map(node),
        reign: record.reign,
        quorum: match record.authority {
            Authority::Majority => "majority".to_owned(),
            Authority::Off => "off".to_owned(),
        },
    }
}

/// What the numbers come to, for an operator who has to decide something.
fn meaning(superblock: &Superblock, volumes: &[VolumeReport], node: &impl Fn(NodeId) -> String) -> Vec<String> {
    let hot: u64 = volumes.iter().map(|volume| volume.hot_bytes).sum();
    let mut meaning = vec![match (superblock.clean, hot) {
        (true, _) => "its last life ended cleanly: the next start goes on where that left off".to_owned(),
        (false, 0) => "its last life did not end cleanly, but it was writing nowhere: nothing has to be compared".to_owned(),
        (false, hot) => format!(
            "its last life did not end cleanly: {} in hot extents are brought from a peer that did not crash before it counts again",
            human(hot)
        ),
    }];
    match superblock.disk() {
        DiskState::Inconsistent if superblock.synced.is_none() => {
            meaning.push("it was never in sync: it waits for all data from a peer".to_owned());
        }
        DiskState::Inconsistent => {
            meaning
                .push("a resync had begun and not ended: its data is a mixture until one has, and nobody may use it".to_owned());
        }
        DiskState::Outdated => meaning.push(
            "others may have gone on without it: alone it is not used, until it has met one that was there or it is forced"
                .to_owned(),
        ),
        _ => meaning.push("its data was the newest it knew of".to_owned()),
    }
    let record = superblock.record.as_ref();
    if record.and_then(|record| record.primary) == Some(superblock.node) {
        meaning.push("it was primary".to_owned());
    }
    if let Some(record) = record.filter(|record| !record.in_sync.contains_key(&superblock.node)) {
        meaning.push(format!("the record it knows, number {}, does not have it in sync", record.number));
    }
    for peer in &superblock.peers {
        let of_peer = volumes.iter().flat_map(|volume| &volume.peers).filter(|dirty| dirty.node == node(peer.node));
        match of_peer.map(|dirty| dirty.dirty_bytes).sum::<u64>() {
            0 => {}
            bytes => meaning.push(format!("{} may lack {}, which it gets when it is back", node(peer.node), human(bytes))),
        }
    }
    meaning
}
