//! Replicas that are resynced.

use super::*;

#[test]
fn what_a_target_has_not_made_durable_is_dirty_for_it_when_it_refuses_the_reign() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.lend_target(B);
    // Its admission waits for this node's own flush.
    rig.holds_flushes = true;
    rig.hear(B, Message::SyncReady);
    rig.request(1, WRITE);
    let seq = rig.sent.iter().find_map(|(_, m)| if let Message::Write(write) = m { Some(write.seq) } else { None });
    rig.hear(B, Message::Written { seqs: vec![seq.expect("a target gets clients' writes")] });
    assert_eq!(rig.answer_to(1), Some(Ok(())));
    assert!(rig.engine.peers[0].dirty.is_clear(), "it has the block, perhaps in its cache");
    let newer = Record { primary: Some(B), ..rig.record.next(RecordId(78)) };
    rig.hear(B, Message::Fenced { record: newer });
    assert!(!rig.engine.peers[0].dirty.is_clear(), "nobody will hear whether it has made the block durable");
}

#[test]
fn a_target_that_has_not_grown_gets_no_writes_when_its_primary_has() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.lend_target(B);
    let volumes = [(VolumeId(0), 2 * BYTES)].into();
    let settings = Settings { volumes, ..rig.engine.settings.clone() };
    rig.tell(Event::Configure(settings));
    assert_eq!(rig.engine.volume_bytes(VolumeId(0)), Some(2 * BYTES));
    rig.hear(B, Message::SyncReady);
    rig.request(1, Request::Write { volume: VolumeId(0), offset: BYTES, len: 4096, buffer: BufferId(1), fua: false });
    assert_eq!(rig.answer_to(1), Some(Ok(())));
    assert!(!rig.sent.iter().any(|(_, m)| matches!(m, Message::Write(_))), "{:?}", rig.sent);
    assert!(!rig.engine.peers[0].dirty.is_clear(), "it is given the block when it has grown");
}

#[test]
fn whom_a_proposal_names_in_one_life_is_not_resynced_in_another() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.hear(B, Message::Leaving);
    assert!(!rig.record.in_sync.contains_key(&B));
    rig.tell(Event::LinkDown { peer: B, silent: false });
    rig.holds_answers = true;
    rig.proposed.clear();
    rig.follow_of(B, 101);
    rig.hear(B, Message::SyncReady);
    let flush = rig.sent.iter().find_map(|(_, m)| if let Message::Flush { id } = m { Some(*id) } else { None });
    rig.hear(B, Message::Flushed { id: flush.expect("what it was given is flushed"), durable: 0 });
    let admit = rig.sent.iter().find_map(|(_, m)| if let Message::Admit { id, .. } = m { Some(*id) } else { None });
    rig.hear(B, Message::AdmitStored { id: admit.expect("it is given what its promotion would need") });
    assert!(rig.proposed.last().is_some_and(|r| r.in_sync.contains_key(&B)), "{:?}", rig.proposed);
    // Before the answer it loses its power.
    rig.tell(Event::LinkDown { peer: B, silent: false });
    rig.follow_of(B, 999);
    assert!(!rig.sent.iter().any(|(_, m)| *m == Message::SyncBegin), "{:?}", rig.sent);
}

#[test]
fn a_resync_begins_in_the_moment_in_which_the_members_are_equal() {
    let alone = Record::first(RecordId(77), [(ME, Incarnation(100))].into(), Authority::Majority);
    let mut rig = Rig::with_record(alone, &[B]);
    rig.holds_flushes = true;
    rig.tell(Event::Attach(ClientId(1)));
    rig.follow_of(B, 101);
    rig.engine.peers[0].dirty.fill();
    rig.hear(B, Message::SyncReady);
    let compares = |rig: &Rig| rig.sent.iter().any(|(to, m)| *to == B && matches!(m, Message::Hash { .. }));
    assert!(!compares(&rig), "what the reign before left is not known to be durable yet (rule R6)");
    // Nobody writes, nobody comes or goes: the end of this flush is the last event for a long time.
    let asked = rig.sent.iter().find_map(|(_, m)| if let Message::Flush { id } = m { Some(*id) } else { None });
    rig.hear(B, Message::Flushed { id: asked.expect("a target is asked, too"), durable: 0 });
    let flush = rig.flushing.pop().expect("a round that makes the members equal");
    rig.tell(Event::DiskDone { op: flush, outcome: DiskOutcome::Done(None) });
    assert!(compares(&rig), "{:?}", rig.sent);
}

/// Node 0 serves, and gives B, whose replica is new, what it has.
fn resyncing() -> Rig {
    let alone = Record::first(RecordId(77), [(ME, Incarnation(100))].into(), Authority::Majority);
    let mut rig = Rig::with_record(alone, &[B]);
    rig.tell(Event::Attach(ClientId(1)));
    follow_as_new(&mut rig);
    rig.engine.peers[0].dirty.fill();
    rig.hear(B, Message::SyncReady);
    assert!(!rig.zeroes_sent(B).is_empty(), "{:?}", rig.sent);
    rig
}

fn follow_as_new(rig: &mut Rig) {
    let mut standing = rig.standing(B);
    standing.replica = standing.replica.map(|replica| ReplicaStanding { synced: None, ..replica });
    rig.meet_as(B, CLUSTER, standing);
    let (session, record) = (rig.asked_to_follow(B), rig.record.id);
    rig.hear(B, Message::Report(Report { session, record, seen: 0, lease_left: 0 }));
}

#[test]
fn what_a_resync_has_sent_lands_before_anything_else_is_written_there() {
    let mut rig = resyncing();
    let seqs = rig.zeroes_sent(B);
    rig.engine.abort_sync(0);
    rig.request(1, WRITE);
    assert_eq!(rig.writes_sent(B), 0, "B applies what it is sent in any order (rule W4)");
    rig.hear(B, Message::Written { seqs });
    assert_eq!(rig.writes_sent(B), 1, "{:?}", rig.sent);
}

/// What node 0 is told when the resync of B is paused, or goes on.
fn steered(rig: &Rig, paused: bool) -> Event {
    let peers = [(B, Peer { paused, ..peer(B, false) })].into();
    Event::Configure(Settings { peers, ..rig.engine.settings.clone() })
}

#[test]
fn a_resync_that_is_paused_does_not_begin_and_nobody_becomes_primary_for_it() {
    let alone = Record::first(RecordId(77), [(ME, Incarnation(100))].into(), Authority::Majority);
    let mut rig = Rig::with_record(alone, &[B]);
    let event = steered(&rig, true);
    rig.tell(event);
    rig.meet(B, CLUSTER);
    assert!(rig.proposed.is_empty(), "{:?}", rig.proposed);
    rig.tell(Event::Attach(ClientId(1)));
    rig.sent.clear();
    let standing = rig.standing(B);
    rig.hear(B, Message::Standing(Box::new(standing)));
    let session = rig.asked_to_follow(B);
    let record = rig.record.id;
    rig.hear(B, Message::Report(Report { session, record, seen: 0, lease_left: 0 }));
    assert!(!rig.sent.contains(&(B, Message::SyncBegin)), "it stays whole");
    let event = steered(&rig, false);
    rig.tell(event);
    assert!(rig.sent.contains(&(B, Message::SyncBegin)), "{:?}", rig.sent);
}

#[test]
fn a_resync_that_is_paused_sends_no_more_and_what_clients_write_goes_on() {
    let alone = Record::first(RecordId(77), [(ME, Incarnation(100))].into(), Authority::Majority);
    let mut rig = Rig::with_record(alone, &[B]);
    rig.tell(Event::Attach(ClientId(1)));
    rig.follow_of(B, 101);
    rig.engine.peers[0].dirty.fill();
    let event = steered(&rig, true);
    rig.tell(event);
    rig.hear(B, Message::SyncReady);
    let compares = |rig: &Rig| rig.sent.iter().any(|(to, m)| *to == B && matches!(m, Message::Hash { .. }));
    assert!(!compares(&rig), "{:?}", rig.sent);
    rig.request(1, WRITE);
    assert!(rig.sent.iter().any(|(_, m)| matches!(m, Message::Write(_))), "it gets no older meanwhile");
    let event = steered(&rig, false);
    rig.tell(event);
    assert!(compares(&rig), "{:?}", rig.sent);
}

#[test]
fn members_are_made_equal_though_resyncs_are_paused() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    let event = steered(&rig, true);
    rig.tell(event);
    rig.meet(B, CLUSTER);
    rig.tell(Event::Attach(ClientId(1)));
    rig.sent.clear();
    let standing = rig.standing(B);
    rig.hear(B, Message::Standing(Box::new(standing)));
    let (session, record) = (rig.asked_to_follow(B), rig.record.id);
    let ranges = vec![BlockRange { volume: VolumeId(0), first: 3, count: 1 }];
    rig.hear(B, Message::ReportRanges { session, ranges });
    rig.hear(B, Message::Report(Report { session, record, seen: 0, lease_left: 0 }));
    let compared = rig.sent.iter().any(|(to, m)| *to == B && matches!(m, Message::Hash { range, .. } if range.first == 3));
    assert!(compared, "clients wait for it: {:?}", rig.sent);
}

#[test]
fn the_role_is_given_to_its_only_user_though_an_admission_is_half_done() {
    let mut rig = Rig::new(Authority::Majority, &[B, C]);
    rig.serve(&[B, C]);
    rig.request(1, Request::Flush);
    while rig.answer_to(1).is_none() {
        rig.durable_on(B, 0);
        rig.durable_on(C, 0);
    }
    rig.lend_target(B);
    rig.hear(B, Message::SyncReady);
    rig.request(2, WRITE);
    rig.hear(B, Message::Written { seqs: vec![1] });
    rig.hear(C, Message::Written { seqs: vec![1] });
    let admit = |rig: &Rig| rig.sent.iter().find_map(|(_, m)| if let Message::Admit { id, .. } = m { Some(*id) } else { None });
    while admit(&rig).is_none() {
        rig.durable_on(B, 1);
        rig.durable_on(C, 1);
    }
    let id = admit(&rig).expect("just seen");
    // While it stores that, its resync is paused, and the last client here goes.
    rig.serve_guest(C);
    let peers = [(B, Peer { paused: true, ..peer(B, false) }), (C, peer(C, false))].into();
    let event = Event::Configure(Settings { peers, ..rig.engine.settings.clone() });
    rig.tell(event);
    rig.tell(Event::Detach(ClientId(1)));
    rig.sent.clear();
    rig.pass(Duration::from_secs(2));
    rig.hear(B, Message::AdmitStored { id });
    for peer in [B, C] {
        rig.durable_on(peer, 1);
    }
    let cools = rig.sent.iter().any(|(to, m)| *to == C && matches!(m, Message::Cool { .. }));
    assert!(cools, "nothing else keeps the role from its heir: {:?}", rig.engine.status());
}
