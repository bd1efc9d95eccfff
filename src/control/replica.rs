//! How a replica's metadata comes into being: the format's plan, carried out on files and devices.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::area::{Area, shown};
use crate::format::{NewReplica, PeerSlot, Recognised, SLOTS_DEFAULT, SUPERBLOCK, Superblock, area_len, create, grow, recognise};
use crate::runtime::Backing;
use crate::units::{ClusterId, Incarnation, NodeId, Record, ReplicaId, ResourceId, VolumeId};

/// Everything that the metadata of a new replica says.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaPlan {
    /// The cluster.
    pub cluster: ClusterId,
    /// The resource.
    pub resource: ResourceId,
    /// The node it is on: this one.
    pub node: NodeId,
    /// The replica.
    pub replica: ReplicaId,
    /// The incarnation that the first start continues cleanly.
    pub incarnation: Incarnation,
    /// Whether it has all data from the start, as the record says; else it is Inconsistent and waits for a full sync.
    pub up_to_date: bool,
    /// The resource's first record, in a replica that it names; `None` in one that was never in sync.
    pub record: Option<Record>,
    /// Volume sizes in bytes.
    pub volumes: BTreeMap<VolumeId, u64>,
    /// The other replicas.
    pub peers: BTreeSet<NodeId>,
}

/// Makes metadata. The calls block, and may be repeated.
pub trait ReplicaMaker: Send + Sync + 'static {
    /// How many bytes the metadata of a replica with volumes of these sizes takes.
    fn metadata_bytes(&self, volumes: &BTreeMap<VolumeId, u64>) -> u64;

    /// The replica whose metadata this is; `None` when it is nobody's (whatever else was there before).
    fn inspect(&self, metadata: &Backing) -> Result<Option<ReplicaId>, String>;

    /// How many bytes the metadata of an existing replica takes when its volumes have these sizes.
    fn grown_bytes(&self, metadata: &Backing, volumes: &BTreeMap<VolumeId, u64>) -> Result<u64, String>;

    /// Writes fresh metadata, durable when this returns. Whatever was there is gone.
    fn create(&self, plan: &ReplicaPlan, metadata: &Backing) -> Result<(), String>;
}

/// Makes metadata of this program's format ([`crate::format`]).
#[derive(Debug, Default)]
pub struct FormatMaker;

impl ReplicaMaker for FormatMaker {
    fn metadata_bytes(&self, volumes: &BTreeMap<VolumeId, u64>) -> u64 {
        area_len(volumes, SLOTS_DEFAULT)
    }

    fn inspect(&self, metadata: &Backing) -> Result<Option<ReplicaId>, String> {
        let head = Area::open(metadata).and_then(|area| area.read(0, 2 * SUPERBLOCK)).map_err(|error| told(metadata, &error))?;
        Ok(match recognise(&head) {
            Recognised::Blkrep(owner) => Some(owner.replica),
            Recognised::Empty | Recognised::Unreadable(_) | Recognised::Foreign(_) => None,
        })
    }

    fn grown_bytes(&self, metadata: &Backing, volumes: &BTreeMap<VolumeId, u64>) -> Result<u64, String> {
        let head = Area::open(metadata).and_then(|area| area.read(0, 2 * SUPERBLOCK)).map_err(|error| told(metadata, &error))?;
        let slots = [&head[..SUPERBLOCK], &head[SUPERBLOCK..]].map(Superblock::decode);
        let present = slots.into_iter().flatten().max_by_key(|superblock| superblock.version);
        let present = present.ok_or_else(|| format!("{}: the metadata cannot be read", shown(metadata)))?;
        let room = present.regions.first().map_or(SLOTS_DEFAULT, |region| region.slots);
        Ok(grow(&present.regions, volumes, room).area_len)
    }

    fn create(&self, plan: &ReplicaPlan, metadata: &Backing) -> Result<(), String> {
        let synced = plan.record.as_ref().map(|record| (record.number, record.id));
        let in_sync = |node: &NodeId| plan.record.as_ref().is_some_and(|record| record.in_sync.contains_key(node));
        let peers = plan.peers.iter().map(|&node| PeerSlot { node, base: synced.filter(|_| in_sync(&node)) }).collect();
        let steps = create(&NewReplica {
            cluster: plan.cluster,
            resource: plan.resource,
            node: plan.node,
            replica: plan.replica,
            incarnation: plan.incarnation,
            record: plan.record.clone(),
            synced: synced.filter(|_| plan.up_to_date),
            peers,
            volumes: plan.volumes.clone(),
            slots: SLOTS_DEFAULT.max(u16::try_from(plan.peers.len()).unwrap_or(u16::MAX)),
        });
        let steps = steps.map_err(|error| error.to_string())?;
        let area = Area::open(metadata).map_err(|error| told(metadata, &error))?;
        steps.into_iter().try_for_each(|step| area.take(step)).map_err(|error| told(metadata, &error))
    }
}

fn told(metadata: &Backing, error: &io::Error) -> String {
    format!("{}: {error}", shown(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Segment;
    use crate::units::{Authority, RecordId};

    fn plan(volumes: &[(u16, u64)]) -> ReplicaPlan {
        let in_sync = BTreeMap::from([(NodeId(0), Incarnation(4)), (NodeId(1), Incarnation(5))]);
        ReplicaPlan {
            cluster: ClusterId(1),
            resource: ResourceId(2),
            node: NodeId(0),
            replica: ReplicaId(3),
            incarnation: Incarnation(4),
            up_to_date: true,
            record: Some(Record::first(RecordId(6), in_sync, Authority::Off)),
            volumes: volumes.iter().map(|&(id, bytes)| (VolumeId(id), bytes)).collect(),
            peers: BTreeSet::from([NodeId(1), NodeId(2)]),
        }
    }

    #[test]
    fn metadata_over_several_stretches_is_found_again_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&[(0, 64 << 20)]);
        let needed = FormatMaker.metadata_bytes(&plan.volumes);
        let first = 3 * 4096;
        let segments = [(first, 4096), (needed - first, 8192)].into_iter().enumerate().map(|(at, (length, start))| {
            let path = dir.path().join(at.to_string());
            std::fs::write(&path, vec![0xee; usize::try_from(start + length).unwrap()]).unwrap();
            Segment { path, start, length, exclusive: false, reserved: false }
        });
        let backing = Backing { segments: segments.collect() };
        assert_eq!(FormatMaker.inspect(&backing), Ok(None), "old bytes are nobody's");
        FormatMaker.create(&plan, &backing).unwrap();
        assert_eq!(FormatMaker.inspect(&backing), Ok(Some(ReplicaId(3))));
        let head = Area::open(&backing).unwrap().read(0, SUPERBLOCK).unwrap();
        let superblock = Superblock::decode(&head).unwrap();
        assert_eq!(superblock.synced, Some((1, RecordId(6))));
        let bases: Vec<_> = superblock.peers.iter().map(|peer| (peer.node, peer.base.is_some())).collect();
        assert_eq!(bases, [(NodeId(1), true), (NodeId(2), false)], "only the record's members have a base");
        let outside = std::fs::read(dir.path().join("1")).unwrap();
        assert!(outside[..8192].iter().all(|&byte| byte == 0xee), "what is not the area's is left alone");
        let larger = BTreeMap::from([(VolumeId(0), 64 << 30)]);
        assert!(FormatMaker.grown_bytes(&backing, &larger).unwrap() > needed);
        assert_eq!(FormatMaker.grown_bytes(&backing, &plan.volumes), Ok(needed));
    }

    #[test]
    fn an_area_that_is_too_short_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("short");
        std::fs::write(&path, vec![0; 8192]).unwrap();
        let backing = Backing { segments: vec![Segment { path, start: 0, length: 8192, exclusive: true, reserved: false }] };
        assert!(FormatMaker.create(&plan(&[(0, 1 << 20)]), &backing).unwrap_err().contains("too short"));
    }
}
