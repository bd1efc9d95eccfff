//! Records, and when a reign may begin.

use super::*;

#[test]
fn a_record_that_could_not_be_stored_is_not_waited_for() {
    let mut rig = Rig::new(Authority::Off, &[B]);
    rig.metadata_fails = true;
    rig.tell(Event::Attach(ClientId(1)));
    rig.now = rig.now.after(Duration::from_secs(3));
    rig.tell(Event::Timeout);
    let primary = rig.engine.status().record.and_then(|r| r.primary);
    assert!(rig.engine.change.is_none() || primary == Some(ME), "the change is not stuck behind a disk that is gone");
    assert_eq!(rig.engine.status().disk, DiskState::Failed);
}

#[test]
fn a_stop_ends_though_its_last_words_cannot_be_stored() {
    let stopped = |rig: &Rig| rig.done.contains(&Command::Stopped { clean: false });
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.metadata_fails = true;
    rig.tell(Event::Stop);
    assert!(stopped(&rig), "{:?}", rig.done);
    // The metadata's disk fails while the last flush is under way.
    let mut rig = Rig::new(Authority::Off, &[B]);
    (rig.holds_flushes, rig.holds_metadata) = (true, true);
    rig.record = Record { primary: Some(B), ..rig.record.next(RecordId(78)) };
    let standing = Standing { lineage: vec![RecordId(77)], ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    rig.tell(Event::Stop);
    let (flush, store) = (rig.flushing.pop().expect("the last flush"), rig.storing.pop().expect("the newer record"));
    rig.tell(Event::MetaDone { op: store, ok: false });
    rig.tell(Event::DiskDone { op: flush, outcome: DiskOutcome::Done(None) });
    assert!(stopped(&rig), "{:?}", rig.done);
}

#[test]
fn that_all_sessions_were_ended_is_told() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.tell(Event::Detach(ClientId(1)));
    let before = rig.engine.status().dropped;
    rig.tell(Event::Attach(ClientId(2)));
    assert_eq!((rig.engine.status().clients, rig.engine.status().dropped), (1, before), "a client's own end is no matter");
    let newer = Record { primary: Some(B), reign: rig.record.reign + 1, ..rig.record.next(RecordId(78)) };
    let standing = Standing { role: Role::Primary, record: Some(newer), ..rig.standing(B) };
    rig.hear(B, Message::Standing(Box::new(standing)));
    assert!(rig.done.contains(&Command::DropClients), "{:?}", rig.done);
    assert_eq!((rig.engine.status().clients, rig.engine.status().dropped), (0, before + 1));
    let Rig { engine, .. } = rig;
    let identity = Identity { seed: [3, 4], ..engine.id };
    let again = Engine::start(identity, engine.settings.clone(), None, rig.now);
    assert!(![before, before + 1].contains(&again.status().dropped), "one that is opened anew has ended those before");
}

#[test]
fn a_replica_that_is_admitted_after_it_has_left_stays_outdated() {
    let mut rig = Rig::new(Authority::Off, &[B]);
    rig.meet(B, CLUSTER);
    rig.holds_flushes = true;
    rig.tell(Event::Stop);
    assert!(rig.sent.contains(&(B, Message::Leaving)), "it has told the other one to go on alone");
    let record = Record { primary: Some(B), ..rig.record.next(RecordId(78)) };
    rig.hear(B, Message::Propose { expect: rig.record.id, record: record.clone() });
    assert_eq!(rig.engine.status().record, Some(record), "the proposal came while the last flush was under way");
    rig.holds_flushes = false;
    for op in std::mem::take(&mut rig.flushing) {
        rig.tell(Event::DiskDone { op, outcome: DiskOutcome::Done(None) });
    }
    assert!(rig.done.contains(&Command::Stopped { clean: true }), "{:?}", rig.done);
    assert_eq!(rig.engine.status().disk, DiskState::Outdated, "the other one went on: alone, this one must not serve");
}

#[test]
fn a_replica_that_stopped_before_it_heard_of_its_admission_is_in_sync() {
    let record = Record::first(RecordId(77), [(B, Incarnation(101))].into(), Authority::Majority);
    let mut rig = Rig::with_record(record, &[B]);
    assert!(!rig.engine.status().in_sync);
    let mut admitted = rig.record.next(RecordId(78));
    admitted.in_sync.insert(ME, Incarnation(100));
    let standing = Standing { record: Some(admitted), ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    assert!(rig.engine.status().in_sync, "the life that was admitted ended cleanly, and this one continues it");
}

#[test]
fn a_reign_begins_when_what_the_old_one_submitted_is_on_the_disk() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.record = Record { primary: Some(B), reign: 2, ..rig.record.next(RecordId(78)) };
    rig.meet(B, CLUSTER);
    rig.tell(Event::LinkDown { peer: B, silent: true });
    rig.holds_answers = true;
    rig.tell(Event::Attach(ClientId(1)));
    rig.now = rig.now.after(Duration::from_secs(3));
    rig.tell(Event::Timeout);
    assert_eq!(rig.unanswered.len(), 1, "it asks for a reign: {:?}", rig.engine.status());
    // The old primary is there again before the answer, and gives it something to do.
    rig.meet(B, CLUSTER);
    let record = rig.record.clone();
    rig.hear(B, Message::Open { session: 5, record });
    rig.holds_flushes = true;
    rig.hear(B, Message::Flush { id: 9 });
    assert_eq!(rig.flushing.len(), 1, "it follows: {:?}", rig.sent);
    let ticket = rig.unanswered[0];
    rig.tell(Event::Answer { ticket, answer: Answer::Granted });
    assert!(rig.engine.reign.is_none(), "something of the old reign is under way to the disk");
    let op = rig.flushing[0];
    rig.tell(Event::DiskDone { op, outcome: DiskOutcome::Done(None) });
    assert!(rig.engine.reign.is_some(), "and now nothing is");
}

#[test]
fn what_was_stored_for_a_session_that_broke_opens_no_other() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.record = Record { primary: Some(B), reign: 2, ..rig.record.next(RecordId(78)) };
    rig.meet(B, CLUSTER);
    rig.holds_metadata = true;
    for session in [5, 6] {
        rig.tell(Event::LinkDown { peer: B, silent: false });
        rig.meet(B, CLUSTER);
        let record = rig.record.clone();
        rig.hear(B, Message::Open { session, record });
    }
    for stored in [5, 6] {
        let told = |rig: &Rig| rig.sent.iter().any(|(_, m)| matches!(m, Message::Report(report) if report.session == 6));
        assert!(!told(&rig), "the disk is known to be idle when this session's own store is done, not another's (rule F4)");
        let op = rig.storing.pop().expect("the record is stored for each session");
        rig.tell(Event::MetaDone { op, ok: true });
        assert_eq!(told(&rig), stored == 6, "{:?}", rig.sent);
    }
}

#[test]
fn a_proposal_that_another_peer_has_told_of_is_granted() {
    let mut rig = Rig::new(Authority::Off, &[B, C]);
    rig.meet(B, CLUSTER);
    let (expect, record) = (rig.record.id, Record { primary: Some(B), ..rig.record.next(RecordId(78)) });
    let line = vec![expect];
    let standing = Standing { record: Some(record.clone()), lineage: line, ..rig.standing(C) };
    rig.meet_as(C, CLUSTER, standing);
    assert_eq!(rig.engine.status().record, Some(record.clone()), "C was asked first");
    rig.hear(B, Message::Propose { expect, record: record.clone() });
    assert!(rig.sent.contains(&(B, Message::Accepted { id: record.id })), "{:?}", rig.sent);
}

#[test]
fn a_member_that_is_away_when_extents_are_cooled_hears_of_it_when_it_is_back() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.request(1, WRITE);
    rig.hear(B, Message::Written { seqs: vec![1] });
    rig.request(2, Request::Flush);
    while rig.answer_to(2).is_none() {
        rig.durable_on(B, 1);
    }
    rig.tell(Event::LinkDown { peer: B, silent: false });
    rig.tell(Event::Stop);
    let hot = |rig: &Rig| rig.engine.store.as_ref().map_or(0, |store| store.activity.hot());
    assert_eq!(hot(&rig), 0, "what is durable everywhere is cooled");
    assert!(
        rig.engine.reign.is_some(),
        "B is a member still: with the role it would take its extents for cold, and lacks the bits"
    );
    rig.follow_of(B, 101);
    assert!(rig.sent.iter().any(|(to, m)| *to == B && matches!(m, Message::Cool { .. })), "{:?}", rig.sent);
}

#[test]
fn what_was_written_since_is_not_cooled_by_a_member_that_is_asked_again() {
    let mut rig = Rig::new(Authority::Majority, &[B, C]);
    rig.serve(&[B, C]);
    rig.request(1, WRITE);
    for peer in [B, C] {
        rig.hear(peer, Message::Written { seqs: vec![1] });
    }
    rig.request(2, Request::Flush);
    while rig.answer_to(2).is_none() {
        for peer in [B, C] {
            rig.durable_on(peer, 1);
        }
    }
    let cooled = |rig: &Rig| {
        rig.sent.iter().rev().find_map(|(to, m)| match m {
            Message::Cool { extents, .. } if *to == B => Some(extents.len()),
            _ => None,
        })
    };
    while cooled(&rig).is_none() {
        rig.sleep();
    }
    assert_eq!(cooled(&rig), Some(1), "nothing was written for a while");
    rig.request(3, WRITE);
    rig.hear(B, Message::Written { seqs: vec![2] });
    rig.tell(Event::LinkDown { peer: B, silent: false });
    rig.follow_of(B, 101);
    assert_eq!(cooled(&rig), Some(0), "C lacks that write: B must not take it for cold");
}
