//! The role at an operator's word.

use super::*;

const ASK: AskId = AskId(1);

/// Node 0 and C have old replicas; B, which is away, has everything.
fn behind() -> Rig {
    let mut record = Record::first(RecordId(77), [(B, Incarnation(101))].into(), Authority::Majority);
    record.primary = Some(B);
    Rig::with_record(Record { reign: 5, number: 5, ..record }, &[B, C])
}

fn answer(rig: &Rig) -> Option<Result<(), OperateError>> {
    let found = |done: &Command| if let Command::Operated { id: ASK, result } = done { Some(result.clone()) } else { None };
    rig.done.iter().find_map(found)
}

fn promote(rig: &mut Rig, force: bool) {
    rig.pass(Duration::from_secs(3));
    rig.tell(Event::Operate { id: ASK, operation: Operation::Promote { force } });
}

#[test]
fn a_replica_that_is_behind_goes_on_by_force_and_compares_every_block_with_whoever_comes() {
    let mut rig = behind();
    promote(&mut rig, false);
    assert!(matches!(answer(&rig), Some(Err(OperateError::NoData(_)))), "{:?}", rig.done);
    rig.done.clear();
    let slots = |rig: &Rig| rig.engine.store.as_ref().unwrap().superblock.peers.clone();
    assert!(slots(&rig).iter().all(|slot| slot.base.is_some()));
    promote(&mut rig, true);
    assert_eq!(answer(&rig), Some(Ok(())));
    let proposed = rig.proposed.last().unwrap();
    assert_eq!((proposed.primary, proposed.reign, proposed.in_sync.keys().copied().collect::<Vec<_>>()), (Some(ME), 6, vec![ME]));
    // B has written what nobody else has, and comes back under the record before.
    let old = Record {
        number: 5,
        reign: 5,
        primary: Some(B),
        ..Record::first(RecordId(77), [(B, Incarnation(101))].into(), Authority::Majority)
    };
    let standing = Standing { record: Some(old), role: Role::Primary, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    let standing = Standing { replica: rig.standing(B).replica, ..rig.standing(B) };
    rig.sent.clear();
    rig.hear(B, Message::Standing(Box::new(standing)));
    let (session, record) = (rig.asked_to_follow(B), rig.record.id);
    rig.hear(B, Message::Report(Report { session, record, seen: 0, lease_left: 0 }));
    assert_eq!(rig.engine.peers[0].dirty.count(), BYTES / 4096, "nobody knows what it has");
}

/// A crash after the grant would find the old notes, and the others' newer blocks would stay.
#[test]
fn what_was_noted_of_others_is_forgotten_durably_before_a_reign_by_force_is_asked_for() {
    let mut rig = behind();
    rig.holds_metadata = true;
    promote(&mut rig, true);
    assert!(rig.proposed.is_empty(), "{:?}", rig.proposed);
    rig.holds_metadata = false;
    for op in std::mem::take(&mut rig.storing) {
        rig.tell(Event::MetaDone { op, ok: true });
    }
    assert_eq!(rig.proposed.len(), 1);
}

#[test]
fn force_is_for_when_nobody_who_is_there_has_more() {
    for role in [Role::Primary, Role::Secondary] {
        let mut rig = behind();
        let standing = Standing { role, ..rig.standing(B) };
        rig.meet_as(B, CLUSTER, standing);
        promote(&mut rig, true);
        assert!(matches!(answer(&rig), Some(Err(OperateError::Refused(_)))), "{:?}", rig.done);
        assert!(rig.proposed.is_empty());
    }
    let mut rig = behind();
    rig.engine.store.as_mut().unwrap().superblock.synced = None;
    promote(&mut rig, true);
    assert!(matches!(answer(&rig), Some(Err(OperateError::Refused(why))) if why.contains("never whole")), "{:?}", rig.done);
}

#[test]
fn who_is_promoted_gives_the_role_up_when_it_is_told_to_and_nobody_uses_it() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.meet(B, CLUSTER);
    promote(&mut rig, false);
    assert_eq!(answer(&rig), Some(Ok(())));
    let demote = |rig: &mut Rig| {
        rig.done.clear();
        rig.tell(Event::Operate { id: ASK, operation: Operation::Demote });
        answer(rig)
    };
    rig.tell(Event::Attach(ClientId(1)));
    assert!(matches!(demote(&mut rig), Some(Err(OperateError::Refused(why))) if why.contains("in use")));
    rig.tell(Event::Detach(ClientId(1)));
    assert_eq!(demote(&mut rig), Some(Ok(())));
}

/// It takes itself for a member, and the authority knows better.
#[test]
fn what_was_noted_of_others_is_forgotten_also_when_force_turns_out_to_be_needed() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.holds_answers = true;
    promote(&mut rig, true);
    let proposed = |rig: &Rig| rig.proposed.iter().map(|record| record.in_sync.len()).collect::<Vec<_>>();
    assert_eq!(proposed(&rig), [2], "it needs no force, for all it knows");
    let mut newer = Record { primary: Some(B), reign: 3, ..rig.record.next(RecordId(78)) };
    newer.in_sync.remove(&ME);
    rig.record = newer.clone();
    rig.holds_metadata = true;
    let ticket = *rig.unanswered.last().unwrap();
    rig.tell(Event::Answer { ticket, answer: Answer::Is(newer) });
    rig.pass(Duration::from_secs(2));
    assert_eq!(proposed(&rig), [2]);
    assert!(rig.engine.store.as_ref().unwrap().superblock.peers.iter().all(|slot| slot.base.is_none()));
    while let Some(op) = rig.storing.pop() {
        rig.tell(Event::MetaDone { op, ok: true });
    }
    assert_eq!(proposed(&rig), [2, 1]);
}

/// B went on by force and has not met C since. Whoever is primary after it does not know what C has, either.
#[test]
fn who_is_brought_up_to_date_knows_no_more_of_others_than_its_primary() {
    let mut record = Record::first(RecordId(77), [(B, Incarnation(101))].into(), Authority::Majority);
    record.primary = Some(B);
    let mut rig = Rig::with_record(record, &[B, C]);
    let standing = Standing { role: Role::Primary, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    let record = rig.record.clone();
    rig.hear(B, Message::Open { session: 5, record });
    let base =
        |rig: &Rig, node| rig.engine.store.as_ref().unwrap().superblock.peers.iter().find(|s| s.node == node).unwrap().base;
    assert!(base(&rig, B).is_some() && base(&rig, C).is_some());
    rig.hear(B, Message::Admit { id: 9, bases: vec![] });
    assert!(rig.sent.contains(&(B, Message::AdmitStored { id: 9 })), "{:?}", rig.sent);
    assert_eq!((base(&rig, B).is_some(), base(&rig, C)), (true, None));
}
