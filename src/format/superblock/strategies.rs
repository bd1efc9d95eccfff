//! Superblocks for tests.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{LINEAGE_MAX, Parted, PeerSlot, Superblock};
use crate::format::layout::{SLOTS_MAX, plan};
use crate::units::strategies::record;
use crate::units::{Authority, ClusterId, Incarnation, NodeId, Record, RecordId, ReplicaId, ResourceId, VolumeId};

/// A superblock with something in every field.
pub(in crate::format) fn example() -> Superblock {
    let in_sync = BTreeMap::from([(NodeId(0), Incarnation(0xa0)), (NodeId(2), Incarnation(0xa2))]);
    let record = Record {
        number: 9,
        id: RecordId(0xc9),
        parent: Some(RecordId(0xc8)),
        in_sync,
        primary: Some(NodeId(2)),
        reign: 7,
        authority: Authority::Off,
        unwritten: true,
    };
    Superblock {
        version: 5,
        cluster: ClusterId(0xc1),
        resource: ResourceId(3),
        node: NodeId(0),
        replica: ReplicaId(0xbe),
        incarnation: Incarnation(0xa0),
        continues: Incarnation(0x9f),
        clean: true,
        inconsistent: false,
        outdated: true,
        synced: Some((9, RecordId(0xc9))),
        record: Some(record),
        parted: None,
        lineage: vec![RecordId(0xc8), RecordId(0xc7)],
        peers: vec![PeerSlot { node: NodeId(2), base: Some((8, RecordId(0xc8))) }, PeerSlot { node: NodeId(5), base: None }],
        regions: plan(&BTreeMap::from([(VolumeId(0), 10 << 30), (VolumeId(1), 4097)]), 7),
    }
}

pub(in crate::format) fn superblock() -> impl Strategy<Value = Superblock> {
    let identity = (any::<u64>(), any::<u128>(), any::<u64>(), any::<u32>(), any::<[u64; 3]>(), any::<[bool; 3]>());
    let lists =
        (prop::option::of(parted()), prop::collection::vec(any::<u64>().prop_map(RecordId), 0..=LINEAGE_MAX), peers(), regions());
    (identity, prop::option::of(point()), prop::option::of(record()), lists).prop_map(|(identity, synced, record, lists)| {
        let (version, cluster, resource, node, [replica, incarnation, continues], [clean, inconsistent, outdated]) = identity;
        let (parted, lineage, peers, volumes) = lists;
        Superblock {
            version,
            cluster: ClusterId(cluster),
            resource: ResourceId(resource),
            node: NodeId(node),
            replica: ReplicaId(replica),
            incarnation: Incarnation(incarnation),
            continues: Incarnation(continues),
            clean,
            inconsistent,
            outdated,
            synced,
            record,
            parted,
            lineage,
            peers,
            regions: plan(&volumes, SLOTS_MAX),
        }
    })
}

fn point() -> impl Strategy<Value = (u64, RecordId)> {
    (any::<u64>(), any::<u64>().prop_map(RecordId))
}

fn parted() -> impl Strategy<Value = Parted> {
    (point(), any::<[bool; 2]>()).prop_map(|((number, id), [primary, written])| Parted { number, id, primary, written })
}

fn peers() -> impl Strategy<Value = Vec<PeerSlot>> {
    let peer = (any::<u32>(), prop::option::of(point())).prop_map(|(node, base)| PeerSlot { node: NodeId(node), base });
    prop::collection::vec(peer, 0..=usize::from(SLOTS_MAX))
}

fn regions() -> impl Strategy<Value = BTreeMap<VolumeId, u64>> {
    prop::collection::btree_map(any::<u16>().prop_map(VolumeId), 0..1_u64 << 44, 0..20)
}
