//! The end of a split brain: who may discard what he has, and that nothing but the difference travels.

use super::*;
use crate::units::{AfterSb0, AfterSb1, AfterSplitBrain};
use crate::wire::Diverged;

const ASK: AskId = AskId(9);
const BLOCK: u64 = 4096;

impl Rig {
    /// Node 0 and B go on without each other, B under a record of its own; node 0 has written a block.
    fn forked() -> Self {
        let mut rig = Self::new(Authority::Off, &[B]);
        rig.meet(B, CLUSTER);
        rig.tell(Event::LinkDown { peer: B, silent: true });
        rig.tell(Event::Attach(ClientId(1)));
        rig.pass(Duration::from_secs(3));
        rig.request(1, Request::Write { volume: VolumeId(0), offset: 5 * BLOCK, len: BLOCK, buffer: BufferId(1), fua: false });
        rig.pass(Duration::from_secs(3));
        assert_eq!(rig.answer_to(1), Some(Ok(())), "{:?}", rig.done);
        rig
    }

    fn detach(&mut self) {
        self.tell(Event::Detach(ClientId(1)));
        self.pass(Duration::from_secs(10));
        assert_eq!(self.engine.status().role, Role::Secondary);
    }

    /// What B goes by: it is primary and has evicted node 0.
    fn theirs(&self) -> (Record, Standing) {
        let first = Record::first(RecordId(77), self.record.in_sync.clone(), Authority::Off);
        let reign = Record { primary: Some(B), reign: 2, ..first.next(RecordId(900)) };
        let mut alone = Record { unwritten: false, ..reign.next(RecordId(901)) };
        alone.in_sync.remove(&ME);
        let standing = Standing { record: Some(alone.clone()), lineage: vec![RecordId(900), RecordId(77)], ..self.standing(B) };
        (alone, standing)
    }

    fn meet_fork(&mut self) -> Record {
        let (record, standing) = self.theirs();
        self.meet_as(B, CLUSTER, standing);
        assert_eq!(self.engine.status().peers[0].connection, Connection::SplitBrain);
        record
    }

    fn discard(&mut self) -> Option<Result<(), OperateError>> {
        self.done.clear();
        self.tell(Event::Operate { id: ASK, operation: Operation::DiscardMyData });
        self.discarded()
    }

    fn discarded(&self) -> Option<Result<(), OperateError>> {
        self.done.iter().find_map(|c| match c {
            Command::Operated { id: ASK, result } => Some(result.clone()),
            _ => None,
        })
    }

    fn diverged(&self) -> Vec<Diverged> {
        let word = |(_, m): &(NodeId, Message)| if let Message::Diverged(word) = m { Some(word.clone()) } else { None };
        self.sent.iter().filter_map(word).collect()
    }
}

#[test]
fn the_side_that_is_discarded_reports_what_it_wrote_and_nothing_else() {
    let mut rig = Rig::forked();
    rig.detach();
    let (record, before) = (rig.meet_fork(), rig.engine.status().record.unwrap());
    assert_eq!(rig.discard(), None, "the other side is asked first");
    assert_eq!(rig.diverged().last(), Some(&Diverged::Discard { mine: before.id, yours: record.id }));
    rig.hear(B, Message::Diverged(Diverged::Kept { yours: before.id }));
    assert_eq!(rig.discarded(), Some(Ok(())));
    let status = rig.engine.status();
    assert_eq!((status.record.as_ref(), status.in_sync, status.disk), (Some(&record), false, DiskState::Outdated));
    assert_eq!(status.peers[0].connection, Connection::Connected);
    let told = rig.sent.iter().rev().find_map(|(_, m)| if let Message::Standing(s) = m { Some((**s).clone()) } else { None });
    let told = told.expect("it says where it stands");
    let replica = told.replica.unwrap();
    assert_eq!(replica.synced, Some(RecordPoint { number: 1, id: RecordId(77) }), "what both had");
    assert_ne!(replica.incarnation, Incarnation(100), "no record names this life");
    assert!(!told.lineage.contains(&before.id), "the discarded records are no ancestors (rule Q4)");
    rig.sent.clear();
    rig.record = record.clone();
    rig.hear(B, Message::Open { session: 5, record });
    let reported: Vec<BlockRange> = rig
        .sent
        .iter()
        .flat_map(|(_, m)| if let Message::ReportRanges { ranges, .. } = m { ranges.clone() } else { Vec::new() })
        .collect();
    let bytes: u64 = reported.iter().map(BlockRange::bytes).sum();
    assert!(reported.iter().all(|r| r.first == 5), "{reported:?}");
    assert_eq!(bytes, BLOCK * reported.len() as u64, "a block, not the device: {reported:?}");
    assert!(!reported.is_empty());
}

/// It was alone for a while, and an eviction is no write.
#[test]
fn who_went_on_alone_and_wrote_nothing_gives_way_by_itself() {
    let mut rig = Rig::new(Authority::Off, &[B]);
    rig.meet(B, CLUSTER);
    rig.tell(Event::LinkDown { peer: B, silent: true });
    rig.tell(Event::Attach(ClientId(1)));
    rig.pass(Duration::from_secs(3));
    let record = rig.engine.status().record.unwrap();
    assert!(record.unwritten && record.in_sync.len() == 1, "{record:?}");
    rig.detach();
    // Its line has two records that the other one never heard of: it is not the last one alone that counts.
    rig.meet_fork();
    let told: Vec<_> = rig.diverged();
    let [Diverged::Side(mine)] = &told[..] else { panic!("{told:?}") };
    assert!(!mine.written && mine.changed == 0, "{mine:?}");
    let theirs = crate::wire::Side { node: B, written: true, changed: 3, ..mine.clone() };
    rig.hear(B, Message::Diverged(Diverged::Side(theirs)));
    assert!(matches!(rig.diverged().last(), Some(Diverged::Discard { .. })), "{:?}", rig.diverged());
}

/// The write may be completed under that record, and the other replica lost before it has it: the side that has it must not say that it has
/// nothing to itself.
#[test]
fn a_write_that_begins_while_a_replica_is_admitted_is_noted_in_the_record_that_follows() {
    let alone = Record::first(RecordId(77), [(ME, Incarnation(100))].into(), Authority::Off);
    let mut rig = Rig::with_record(alone, &[B]);
    rig.tell(Event::Attach(ClientId(1)));
    rig.record = rig.engine.status().record.unwrap();
    assert!(rig.record.unwritten && rig.record.primary == Some(ME), "{:?}", rig.record);
    rig.follow_of(B, 101);
    rig.hear(B, Message::SyncReady);
    let flush = rig.sent.iter().find_map(|(_, m)| if let Message::Flush { id } = m { Some(*id) } else { None });
    rig.hear(B, Message::Flushed { id: flush.expect("what it was given is flushed"), durable: 0 });
    let admit = rig.sent.iter().find_map(|(_, m)| if let Message::Admit { id, .. } = m { Some(*id) } else { None });
    rig.hear(B, Message::AdmitStored { id: admit.expect("it is given what its promotion would need") });
    let proposed = |m: &(NodeId, Message)| if let Message::Propose { record, .. } = &m.1 { Some(record.clone()) } else { None };
    let admitted = rig.sent.iter().find_map(proposed).expect("B is asked to store its admission");
    rig.request(1, WRITE);
    assert_eq!(rig.writes_sent(B), 1, "the target gets it");
    rig.hear(B, Message::Accepted { id: admitted.id });
    let record = rig.engine.status().record.unwrap();
    assert_eq!((record.id, record.in_sync.len(), record.unwritten), (admitted.id, 2, false));
    // B is lost before it has the write, which is completed without it.
    rig.tell(Event::LinkDown { peer: B, silent: true });
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.answer_to(1), Some(Ok(())), "{:?}", rig.done);
    let record = rig.engine.status().record.unwrap();
    assert_eq!((record.in_sync.len(), record.unwritten), (1, false));
    assert!(rig.engine.store.as_ref().unwrap().superblock.parted.is_some_and(|parted| parted.written));
}

#[test]
fn the_side_that_is_kept_sends_both_sides_blocks_and_nothing_else() {
    let mut rig = Rig::forked();
    let (_, mut standing) = rig.theirs();
    rig.meet_fork();
    let mine = rig.engine.status().record.unwrap();
    rig.sent.clear();
    rig.hear(B, Message::Diverged(Diverged::Discard { mine: RecordId(901), yours: mine.id }));
    assert_eq!(rig.diverged(), [Diverged::Kept { yours: RecordId(901) }]);
    assert!(matches!(rig.discard(), Some(Err(OperateError::Refused(_)))), "and does not give way itself");
    // B goes by this node's record, in a life that no record names, and reports a block of its own.
    rig.record = mine.clone();
    standing.record = Some(mine);
    standing.lineage = vec![RecordId(77)];
    let life = Incarnation(900);
    let synced = Some(RecordPoint { number: 1, id: RecordId(77) });
    standing.replica = standing.replica.map(|r| ReplicaStanding { incarnation: life, continues: life, synced, ..r });
    rig.sent.clear();
    rig.hear(B, Message::Standing(Box::new(standing)));
    let session = rig.asked_to_follow(B);
    let range = BlockRange { volume: VolumeId(0), first: 100, count: 2 };
    rig.hear(B, Message::ReportRanges { session, ranges: vec![range] });
    let record = rig.record.id;
    rig.hear(B, Message::Report(Report { session, record, seen: 0, lease_left: 0 }));
    assert_eq!(rig.engine.status().peers[0].dirty, 3 * BLOCK, "one block of this side, two of the other, not 4 MiB");
}

#[test]
fn nothing_is_discarded_that_is_in_use_or_has_no_other_side() {
    let mut rig = Rig::new(Authority::Off, &[B]);
    rig.meet(B, CLUSTER);
    assert!(matches!(rig.discard(), Some(Err(OperateError::Refused(_)))), "there is no split brain");
    let mut rig = Rig::forked();
    rig.meet_fork();
    assert!(matches!(rig.discard(), Some(Err(OperateError::Refused(why))) if why.contains("in use")));
    rig.detach();
    // The other side is being brought up to date by somebody: it has nothing whole.
    assert_eq!(rig.discard(), None);
    rig.hear(B, Message::Diverged(Diverged::NotNow { why: "no".into() }));
    assert_eq!(rig.discarded(), Some(Err(OperateError::Refused("no".into()))));
    assert_eq!(rig.discard(), None);
    rig.tell(Event::LinkDown { peer: B, silent: false });
    assert!(matches!(rig.discarded(), Some(Err(OperateError::Refused(_)))), "what was said is over with the session");
}

#[test]
fn a_client_that_comes_before_the_other_side_has_answered_keeps_the_data() {
    let mut rig = Rig::forked();
    rig.detach();
    rig.meet_fork();
    let before = rig.engine.status().record.unwrap();
    rig.discard();
    rig.tell(Event::Attach(ClientId(2)));
    rig.sent.clear();
    rig.hear(B, Message::Diverged(Diverged::Kept { yours: before.id }));
    assert!(matches!(rig.discarded(), Some(Err(OperateError::Refused(_)))), "{:?}", rig.done);
    assert!(matches!(rig.diverged()[..], [Diverged::NotNow { .. }]), "the other side hears of it");
    assert_eq!(rig.engine.status().peers[0].connection, Connection::SplitBrain);
}

#[test]
fn of_two_that_ask_each_other_one_is_heard() {
    for kept in [false, true] {
        let mut rig = Rig::forked();
        rig.detach();
        rig.meet_fork();
        let mine = rig.engine.status().record.unwrap().id;
        if kept {
            // Now it is the higher of the two.
            rig.engine.id.node = C;
            rig.engine.record.as_mut().unwrap().in_sync.insert(C, Incarnation(100));
        }
        assert_eq!(rig.discard(), None);
        rig.sent.clear();
        rig.hear(B, Message::Diverged(Diverged::Discard { mine: RecordId(901), yours: mine }));
        let answer = rig.diverged();
        assert_eq!(matches!(answer[..], [Diverged::Kept { .. }]), kept, "{answer:?}");
        assert_eq!(rig.discarded().is_some(), kept, "its own question is over when it keeps");
    }
}

/// As node 0, forked, with these policies; what it says of itself.
fn with_policies(zero: AfterSb0, one: AfterSb1) -> (Rig, crate::wire::Side) {
    let mut rig = Rig::forked();
    rig.detach();
    rig.engine.settings.after_split_brain = AfterSplitBrain { zero, one, ..AfterSplitBrain::default() };
    rig.meet_fork();
    let told: Vec<_> =
        rig.diverged().into_iter().filter_map(|w| if let Diverged::Side(side) = w { Some(side) } else { None }).collect();
    assert_eq!(told.len(), 1, "it is told once in a session");
    (rig, told.into_iter().next().unwrap())
}

#[test]
fn who_loses_by_the_policies_asks_to_discard_and_the_other_one_does_not() {
    for (changed, loses) in [(0, false), (50, true)] {
        let (mut rig, mine) = with_policies(AfterSb0::DiscardLeastChanges, AfterSb1::Disconnect);
        assert!(mine.written && !mine.in_use && !mine.was_primary, "{mine:?}");
        assert!((1..=2).contains(&mine.changed), "{mine:?}");
        rig.sent.clear();
        let theirs = crate::wire::Side { node: B, written: changed > 0, changed, ..mine };
        rig.hear(B, Message::Diverged(Diverged::Side(theirs)));
        let asks = rig.diverged().iter().any(|w| matches!(w, Diverged::Discard { .. }));
        assert_eq!(asks, loses, "{changed}: {:?}", rig.diverged());
        if loses {
            let mine = rig.engine.status().record.unwrap().id;
            rig.hear(B, Message::Diverged(Diverged::Kept { yours: mine }));
            assert_eq!(rig.engine.status().peers[0].connection, Connection::Connected);
        }
    }
}

#[test]
fn a_side_that_was_not_in_use_when_it_said_so_keeps_what_a_client_brings_it_meanwhile() {
    let (mut rig, mine) = with_policies(AfterSb0::Disconnect, AfterSb1::DiscardSecondary);
    rig.tell(Event::Attach(ClientId(2)));
    rig.sent.clear();
    rig.hear(B, Message::Diverged(Diverged::Side(crate::wire::Side { node: B, in_use: true, ..mine })));
    assert!(rig.diverged().is_empty(), "{:?}", rig.diverged());
    assert_eq!(rig.engine.status().peers[0].connection, Connection::SplitBrain);
}

#[test]
fn when_clients_go_later_only_a_side_gives_way_that_has_nothing() {
    for written in [false, true] {
        let mut rig = Rig::new(Authority::Off, &[B]);
        rig.engine.settings.after_split_brain.zero = AfterSb0::DiscardLeastChanges;
        rig.meet(B, CLUSTER);
        rig.tell(Event::LinkDown { peer: B, silent: true });
        rig.tell(Event::Attach(ClientId(1)));
        rig.pass(Duration::from_secs(3));
        if written {
            rig.request(1, WRITE);
        }
        rig.pass(Duration::from_secs(3));
        // Its line is longer than by one record: it cannot see by the records alone that it may give way (rule Q3).
        rig.detach();
        rig.tell(Event::Attach(ClientId(2)));
        rig.pass(Duration::from_secs(3));
        rig.meet_fork();
        let mine = rig.diverged().into_iter().find_map(|w| if let Diverged::Side(side) = w { Some(side) } else { None }).unwrap();
        assert!(mine.in_use);
        rig.hear(B, Message::Diverged(Diverged::Side(crate::wire::Side { node: B, written: true, changed: 500, ..mine })));
        rig.sent.clear();
        rig.tell(Event::Detach(ClientId(2)));
        rig.pass(Duration::from_secs(10));
        let told = rig.diverged();
        assert!(matches!(&told[..], [Diverged::Side(side), ..] if !side.in_use && side.written == written), "{told:?}");
        assert_eq!(told.iter().any(|w| matches!(w, Diverged::Discard { .. })), !written, "{told:?}");
    }
}

#[test]
fn clients_of_a_side_that_loses_by_violence_are_cut_off() {
    let mut rig = Rig::forked();
    rig.engine.settings.after_split_brain =
        AfterSplitBrain { zero: AfterSb0::DiscardLeastChanges, one: AfterSb1::ViolentlyAs0p, ..AfterSplitBrain::default() };
    rig.meet_fork();
    let told = rig.diverged().into_iter().find_map(|w| if let Diverged::Side(side) = w { Some(side) } else { None });
    let mine = told.unwrap();
    assert!(mine.in_use);
    rig.hear(B, Message::Diverged(Diverged::Side(crate::wire::Side { node: B, in_use: false, changed: 500, ..mine })));
    let record = rig.engine.status().record.unwrap().id;
    rig.done.clear();
    rig.hear(B, Message::Diverged(Diverged::Kept { yours: record }));
    assert!(rig.done.contains(&Command::DropClients), "{:?}", rig.done);
    let status = rig.engine.status();
    assert_eq!((status.clients, status.role, status.peers[0].connection), (0, Role::Secondary, Connection::Connected));
}

#[test]
fn where_the_lines_part_is_kept_though_the_other_one_is_met_while_the_next_record_is_being_stored() {
    let parted = |rig: &Rig| rig.engine.store.as_ref().unwrap().superblock.parted.map(|parted| parted.id);
    let mut rig = Rig::new(Authority::Off, &[B]);
    rig.meet(B, CLUSTER);
    rig.tell(Event::LinkDown { peer: B, silent: true });
    rig.holds_metadata = true;
    rig.tell(Event::Attach(ClientId(1)));
    rig.pass(Duration::from_secs(3));
    assert!(!rig.storing.is_empty(), "a reign of its own is being stored");
    assert_eq!(parted(&rig), Some(RecordId(77)));
    rig.meet(B, CLUSTER);
    assert_eq!(parted(&rig), Some(RecordId(77)), "B has not stored it");
}

#[test]
fn what_clients_that_are_cut_off_had_forwarded_is_dropped() {
    let mut rig = Rig::new(Authority::Off, &[B]);
    rig.engine.settings.after_split_brain =
        AfterSplitBrain { zero: AfterSb0::DiscardLeastChanges, one: AfterSb1::ViolentlyAs0p, ..AfterSplitBrain::default() };
    let first = rig.record.clone();
    rig.record = Record { primary: Some(B), reign: 2, unwritten: false, ..first.next(RecordId(900)) };
    let standing = Standing { role: Role::Primary, in_use: true, lineage: vec![RecordId(77)], ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    rig.tell(Event::Attach(ClientId(1)));
    let session = rig.sent.iter().find_map(|(_, m)| if let Message::Serve { session, .. } = m { Some(*session) } else { None });
    rig.hear(B, Message::Serving { session: session.unwrap(), memory: 9, entry: 1, sharing: Sharing::Shared });
    rig.tell(Event::LinkDown { peer: B, silent: true });
    rig.request(1, WRITE);
    assert_eq!(rig.answer_to(1), None);
    // B has crashed without having stored that record, and went on under another one.
    let other = Record { primary: Some(B), reign: 2, unwritten: false, ..first.next(RecordId(950)) };
    let standing = Standing { record: Some(other.clone()), role: Role::Primary, lineage: vec![RecordId(77)], ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    assert_eq!(rig.engine.status().peers[0].connection, Connection::SplitBrain);
    let mine = rig.diverged().into_iter().find_map(|w| if let Diverged::Side(side) = w { Some(side) } else { None }).unwrap();
    assert!(mine.in_use && rig.engine.reign.is_none());
    rig.hear(
        B,
        Message::Diverged(Diverged::Side(crate::wire::Side { node: B, in_use: false, changed: 500, written: true, ..mine })),
    );
    let record = rig.engine.status().record.unwrap().id;
    rig.hear(B, Message::Diverged(Diverged::Kept { yours: record }));
    assert!(rig.done.contains(&Command::DropClients), "{:?}", rig.done);
    // B serves clients that come anew.
    rig.record = other.clone();
    rig.sent.clear();
    let standing =
        Standing { record: Some(other), role: Role::Primary, in_use: true, lineage: vec![RecordId(77)], ..rig.standing(B) };
    rig.hear(B, Message::Standing(Box::new(standing)));
    rig.pass(Duration::from_secs(3));
    let session = rig.sent.iter().find_map(|(_, m)| if let Message::Serve { session, .. } = m { Some(*session) } else { None });
    if let Some(session) = session {
        rig.hear(B, Message::Serving { session, memory: 9, entry: 1, sharing: Sharing::Shared });
    }
    let late = rig.sent.iter().any(|(_, m)| matches!(m, Message::Forward { .. }));
    assert!(!late && rig.answer_to(1).is_some(), "late={late} {:?}", rig.answer_to(1));
}
