//! Messages for tests.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::body::BLOCKS_MAX;
use super::{
    BlockHash, Failure, Features, Forwarded, Frame, Hello, Introduction, LinkMessage, Message, Origin, Process, Program,
    RecordPoint, ReplicaStanding, Report, Standing, Versions, Write, Zero,
};
use super::{Diverged, Side};
use crate::units::strategies::record;
use crate::units::{
    AfterSplitBrain, BLOCK, BLOCKS_PER_EXTENT, BlockRange, ClusterId, DiskState, Extent, Incarnation, NodeId, RecordId,
    ReplicaId, ResourceId, Role, Sharing, VolumeId,
};

/// A frame with a payload that fits it.
pub(super) fn frame() -> impl Strategy<Value = (Frame, Vec<u8>)> {
    (any::<u64>(), any::<u64>(), message(), any::<u8>()).prop_map(|(resource, reign, (message, payload), byte)| {
        (Frame { resource: ResourceId(resource), reign, message }, vec![byte; payload])
    })
}

pub(super) fn link() -> impl Strategy<Value = LinkMessage> {
    prop_oneof![
        hello().prop_map(LinkMessage::Hello),
        any::<(u64, u64)>().prop_map(|(seq, sent_at)| LinkMessage::Ping { seq, sent_at }),
        any::<u64>().prop_map(|seq| LinkMessage::Pong { seq }),
        any::<u64>().prop_map(|resource| LinkMessage::NotOpen { resource: ResourceId(resource) }),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    let process = any::<(u32, u64, u64)>().prop_map(|(id, namespace, started)| Process { id, namespace, started });
    let program = any::<(u16, u16, u16)>().prop_map(|(major, minor, patch)| Program { major, minor, patch });
    (any::<(u8, u8)>(), program, any::<(u128, u32, u16, u16, u128)>(), process).prop_map(
        |((a, b), program, (cluster, node, lane, features, boot), process)| Hello {
            versions: Versions { oldest: a.min(b).max(1), newest: a.max(b).max(1) },
            program,
            cluster: ClusterId(cluster),
            node: NodeId(node),
            lane,
            features: Features(features),
            boot,
            process,
        },
    )
}

/// Any message, with the length of its payload.
fn message() -> impl Strategy<Value = (Message, usize)> {
    prop_oneof![4 => data(), 3 => session().prop_map(|m| (m, 0)), 3 => resync().prop_map(|m| (m, 0)), 2 => authority().prop_map(|m| (m, 0))]
}

fn data() -> impl Strategy<Value = (Message, usize)> {
    let plain = prop_oneof![
        (any::<(u64, u64)>(), range(BLOCKS_MAX), any::<(bool, bool, bool)>()).prop_map(
            |((seq, settled), range, (unmap, fua, sync))| Message::Zero(Zero { seq, range, unmap, fua, sync, settled })
        ),
        vec(any::<u64>(), 1..50).prop_map(|seqs| Message::Written { seqs }),
        vec(any::<u64>(), 1..50).prop_map(|seqs| Message::Received { seqs }),
        any::<u64>().prop_map(|id| Message::Flush { id }),
        any::<(u64, u64)>().prop_map(|(id, durable)| Message::Flushed { id, durable }),
        any::<(u64, bool)>().prop_map(|(seq, older)| Message::Settled { seq, older }),
        (any::<u64>(), range(8192)).prop_map(|(id, range)| Message::Read { id, range }),
    ];
    prop_oneof![
        4 => (any::<(u64, u64)>(), range(16), any::<(bool, bool)>()).prop_map(|((seq, settled), range, (fua, sync))| {
            let payload = usize::try_from(range.count * BLOCK).unwrap();
            (Message::Write(Write { seq, range, fua, sync, settled }), payload)
        }),
        1 => (any::<u64>(), 0..9_usize).prop_map(|(id, blocks)| (Message::ReadReply { id, ok: blocks > 0 }, blocks * 4096)),
        4 => plain.prop_map(|message| (message, 0)),
        2 => forward(),
    ]
}

fn forward() -> impl Strategy<Value = (Message, usize)> {
    let place = (any::<u16>().prop_map(VolumeId), 0..1_u64 << 40, 1..40_000_u64);
    let what =
        (0..4_u8, place, range(1 << 20), any::<(bool, bool)>()).prop_map(|(kind, (volume, offset, len), range, (unmap, fua))| {
            match kind {
                0 => Forwarded::Read { volume, offset, len },
                1 => Forwarded::Write { volume, offset, len, fua },
                2 => Forwarded::Zero { range, unmap, fua },
                _ => Forwarded::Flush,
            }
        });
    let failure = prop::sample::select(vec![Failure::Io, Failure::NoSpace, Failure::ShuttingDown]);
    prop_oneof![
        (any::<(u64, u64, u64)>(), what).prop_map(|((session, seq, answered), what)| {
            let blocks = what.blocks().filter(|_| matches!(what, Forwarded::Write { .. }));
            let payload = blocks.map_or(0, |blocks| usize::try_from(blocks.bytes()).unwrap());
            (Message::Forward { session, seq, answered, what }, payload)
        }),
        (any::<(u64, u64)>(), option::of(failure), 0..9_usize).prop_map(|((session, seq), failure, blocks)| {
            let payload = if failure.is_some() { 0 } else { blocks * 4096 };
            (Message::Answer { session, seq, result: failure.map_or(Ok(()), Err) }, payload)
        }),
    ]
}

fn session() -> impl Strategy<Value = Message> {
    prop_oneof![
        introduction().prop_map(|introduction| Message::Hello(Box::new(introduction))),
        standing().prop_map(|standing| Message::Standing(Box::new(standing))),
        (any::<u64>(), record()).prop_map(|(session, record)| Message::Open { session, record }),
        (any::<u64>(), vec(range(BLOCKS_MAX), 0..40)).prop_map(|(session, ranges)| Message::ReportRanges { session, ranges }),
        any::<(u64, u64, u64, u64)>().prop_map(|(session, record, seen, lease_left)| Message::Report(Report {
            session,
            record: RecordId(record),
            seen,
            lease_left
        })),
        record().prop_map(|record| Message::Fenced { record }),
        Just(Message::Leaving),
        record().prop_map(|record| Message::Record { record }),
    ]
}

fn resync() -> impl Strategy<Value = Message> {
    let bases = vec((any::<u32>().prop_map(NodeId), point()), 0..=32);
    let hashes = vec(any::<[u8; 16]>().prop_map(BlockHash), 0..40);
    prop_oneof![
        Just(Message::SyncBegin),
        Just(Message::SyncReady),
        (any::<u64>(), range(4096)).prop_map(|(id, range)| Message::Hash { id, range }),
        (any::<u64>(), hashes).prop_map(|(id, hashes)| Message::Hashes { id, hashes }),
        (any::<u64>(), extents(), dirty()).prop_map(|(id, extents, dirty)| Message::Cool { id, extents, dirty }),
        any::<u64>().prop_map(|id| Message::Cooled { id }),
        (extents(), dirty()).prop_map(|(hot, dirty)| Message::AdmitPart { hot, dirty }),
        (any::<u64>(), bases).prop_map(|(id, bases)| Message::Admit { id, bases }),
        any::<u64>().prop_map(|id| Message::AdmitStored { id }),
    ]
}

fn authority() -> impl Strategy<Value = Message> {
    let id = || any::<u64>().prop_map(RecordId);
    prop_oneof![
        (id(), record()).prop_map(|(expect, record)| Message::Propose { expect, record }),
        id().prop_map(|id| Message::Accepted { id }),
        (id(), option::of(record())).prop_map(|(id, record)| Message::Rejected { id, record }),
        id().prop_map(|id| Message::Withdraw { id }),
        (any::<(u64, u64, bool)>(), sharing()).prop_map(|((session, entry, waits), sharing)| Message::Serve {
            session,
            entry,
            waits,
            sharing
        }),
        any::<(u64, u32)>().prop_map(|(session, by)| Message::Barred { session, by: NodeId(by) }),
        (any::<(u64, u64, u64)>(), sharing()).prop_map(|((session, memory, entry), sharing)| Message::Serving {
            session,
            memory,
            entry,
            sharing
        }),
        any::<u64>().prop_map(|round| Message::Meet { round }),
        any::<u64>().prop_map(|round| Message::Met { round }),
        any::<(u64, u64)>().prop_map(|(session, seq)| Message::Busy { session, seq }),
        (any::<u64>(), "[a-z ]{0,80}").prop_map(|(session, why)| Message::NotServing { session, why }),
        any::<u64>().prop_map(|session| Message::Unserve { session }),
        any::<(u64, u32, u64, u64, u64)>().prop_map(|(seq, node, session, request, answered)| Message::Origin {
            seq,
            origin: Origin { node: NodeId(node), session, seq: request, answered }
        }),
        (any::<(u64, u32, u64, bool)>(), vec(any::<u64>(), 0..20)).prop_map(|((memory, node, session, equal), done)| {
            Message::Applied { memory, node: NodeId(node), session, done, equal }
        }),
        Just(Message::StepDown),
        Just(Message::InUse),
        (id(), id()).prop_map(|(mine, yours)| Message::Diverged(Diverged::Discard { mine, yours })),
        (any::<u32>(), any::<[bool; 3]>(), any::<u64>()).prop_map(|(node, [in_use, was_primary, written], changed)| {
            let policies = AfterSplitBrain::default();
            Message::Diverged(Diverged::Side(Side { node: NodeId(node), in_use, was_primary, written, changed, policies }))
        }),
        id().prop_map(|yours| Message::Diverged(Diverged::Kept { yours })),
        "[a-z ]{0,80}".prop_map(|why| Message::Diverged(Diverged::NotNow { why })),
    ]
}

/// A range of at most `max` blocks.
fn range(max: u64) -> impl Strategy<Value = BlockRange> {
    (any::<u16>(), 0..BLOCKS_MAX, 1..=max).prop_map(|(volume, first, count)| {
        let count = count.min(BLOCKS_MAX - first);
        BlockRange { volume: VolumeId(volume), first, count }
    })
}

fn extents() -> impl Strategy<Value = Vec<Extent>> {
    let extent = (any::<u16>(), 0..BLOCKS_MAX / BLOCKS_PER_EXTENT);
    vec(extent.prop_map(|(volume, index)| Extent { volume: VolumeId(volume), index }), 0..40)
}

fn dirty() -> impl Strategy<Value = Vec<(NodeId, Vec<BlockRange>)>> {
    vec((any::<u32>().prop_map(NodeId), vec(range(BLOCKS_MAX), 0..10)), 0..5)
}

fn point() -> impl Strategy<Value = RecordPoint> {
    any::<(u64, u64)>().prop_map(|(number, id)| RecordPoint { number, id: RecordId(id) })
}

fn sharing() -> impl Strategy<Value = Sharing> {
    proptest::sample::select(vec![Sharing::Shared, Sharing::Readers, Sharing::Alone])
}

fn standing() -> impl Strategy<Value = Standing> {
    let disk = prop::sample::select(vec![
        DiskState::Diskless,
        DiskState::Attaching,
        DiskState::Failed,
        DiskState::Inconsistent,
        DiskState::Outdated,
        DiskState::Consistent,
        DiskState::UpToDate,
    ]);
    let replica = (any::<[u64; 3]>(), disk, option::of(point())).prop_map(|([replica, incarnation, continues], disk, synced)| {
        let (replica, incarnation, continues) = (ReplicaId(replica), Incarnation(incarnation), Incarnation(continues));
        ReplicaStanding { replica, incarnation, continues, disk, synced }
    });
    let lineage = vec(any::<u64>().prop_map(RecordId), 0..=64);
    let volumes = vec((any::<u16>().prop_map(VolumeId), any::<u64>()), 0..20);
    (option::of(replica), option::of(record()), lineage, (any::<(bool, bool)>(), option::of(sharing())), volumes).prop_map(
        |(replica, record, lineage, ((primary, in_use), sharing), volumes)| Standing {
            replica,
            record,
            lineage,
            role: if primary { Role::Primary } else { Role::Secondary },
            in_use,
            sharing,
            volumes,
        },
    )
}

fn introduction() -> impl Strategy<Value = Introduction> {
    (any::<(u128, u64, u64, u64)>(), standing()).prop_map(|((cluster, resource, token, answers), standing)| Introduction {
        cluster: ClusterId(cluster),
        resource: ResourceId(resource),
        token,
        answers,
        standing,
    })
}
