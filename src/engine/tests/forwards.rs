//! A node whose clients' requests are taken elsewhere, and the node that takes them.

use super::*;

/// The one that is asked to take requests, and when: the questions so far.
fn asked(rig: &Rig) -> Vec<NodeId> {
    let question = |(to, m): &(NodeId, Message)| matches!(m, Message::Serve { .. }).then_some(*to);
    rig.sent.iter().filter_map(question).collect()
}

#[test]
fn whoever_has_refused_is_asked_again_though_nothing_else_happens() {
    let mut rig = Rig::bare(&[B]);
    rig.meet(B, CLUSTER);
    rig.tell(Event::Attach(ClientId(1)));
    assert_eq!(asked(&rig), [B]);
    let session = rig.sent.iter().find_map(|(_, m)| if let Message::Serve { session, .. } = m { Some(*session) } else { None });
    // It has lost the last primary a little later than this node, and gives it time to come back.
    let why = "the primary was lost a moment ago and may come back".into();
    rig.hear(B, Message::NotServing { session: session.unwrap(), why });
    rig.sleep();
    assert_eq!(asked(&rig), [B, B]);
}

#[test]
fn a_device_with_several_connections_is_alone_with_all_of_them() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.tell(Event::Detach(ClientId(1)));
    // Two connections of one device, or the second of one whose first is broken.
    rig.tell(Event::AttachAs(ClientId(2), Sharing::Alone));
    rig.tell(Event::AttachAs(ClientId(3), Sharing::Alone));
    let let_in = |rig: &Rig, client| rig.done.contains(&Command::Attached { client: ClientId(client), result: Ok(()) });
    assert!(let_in(&rig, 2) && let_in(&rig, 3), "{:?}", rig.done);
    rig.tell(Event::Detach(ClientId(2)));
    // Somebody who would share, while one of them is left.
    rig.tell(Event::Attach(ClientId(4)));
    let refusal = Command::Attached { client: ClientId(4), result: Err(AttachError::InUse(ME)) };
    while !rig.done.contains(&refusal) {
        assert!(!let_in(&rig, 4));
        rig.sleep();
    }
    rig.tell(Event::Detach(ClientId(3)));
    rig.tell(Event::Attach(ClientId(5)));
    assert!(let_in(&rig, 5));
    // And no device beside it.
    rig.tell(Event::AttachAs(ClientId(6), Sharing::Alone));
    assert!(!let_in(&rig, 6));
}

#[test]
fn a_device_with_several_connections_is_alone_on_a_node_that_forwards() {
    let mut rig = Rig::bare(&[B]);
    rig.meet(B, CLUSTER);
    rig.tell(Event::AttachAs(ClientId(1), Sharing::Alone));
    rig.tell(Event::AttachAs(ClientId(2), Sharing::Alone));
    rig.sleep();
    let question = |(_, m): &(NodeId, Message)| match m {
        Message::Serve { session, entry, sharing, .. } => Some((*session, *entry, *sharing)),
        _ => None,
    };
    let (session, entry, sharing) = rig.sent.iter().rev().find_map(question).expect("it asks");
    assert_eq!((entry, sharing), (2, Sharing::Alone));
    let standing = Standing { role: Role::Primary, ..rig.standing(B) };
    rig.hear(B, Message::Standing(Box::new(standing)));
    rig.hear(B, Message::Serving { session, memory: 9, entry, sharing });
    let attached = |client| Command::Attached { client: ClientId(client), result: Ok(()) };
    assert!(rig.done.contains(&attached(1)) && rig.done.contains(&attached(2)), "{:?}", rig.done);
}

/// The sessions in which somebody was asked to take requests, and how their clients share.
pub(super) fn asked_for(rig: &Rig) -> Vec<(u64, Sharing)> {
    let question = |(_, m): &(NodeId, Message)| match m {
        Message::Serve { session, sharing, .. } => Some((*session, *sharing)),
        _ => None,
    };
    rig.sent.iter().filter_map(question).collect()
}

#[test]
fn who_was_let_in_under_a_question_before_does_not_come_in_beside_whom_the_server_let_in_since() {
    let mut rig = Rig::bare(&[B]);
    let standing = Standing { role: Role::Primary, in_use: true, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    let let_in = |rig: &Rig, client| rig.done.contains(&Command::Attached { client: ClientId(client), result: Ok(()) });
    rig.tell(Event::AttachAs(ClientId(1), Sharing::Alone));
    rig.tell(Event::AttachAs(ClientId(2), Sharing::Readers));
    let [(alone, Sharing::Alone), (readers, Sharing::Readers)] = asked_for(&rig)[..] else { panic!("{:?}", rig.sent) };
    // The server has taken the first question's client in, and then heard the second one: for all it knows there are readers here.
    rig.hear(B, Message::Serving { session: alone, memory: 9, entry: 1, sharing: Sharing::Alone });
    assert!(!let_in(&rig, 1), "it would write beside readers");
    // Back to the first question, while the answer to the one before is on its way.
    rig.tell(Event::Detach(ClientId(2)));
    let (again, sharing) = *asked_for(&rig).last().unwrap();
    assert_eq!(sharing, Sharing::Alone);
    assert!(again != alone && again != readers);
    rig.hear(B, Message::Serving { session: readers, memory: 9, entry: 2, sharing: Sharing::Readers });
    rig.hear(B, Message::Serving { session: again, memory: 9, entry: 1, sharing: Sharing::Alone });
    assert!(let_in(&rig, 1) && !let_in(&rig, 2), "{:?}", rig.done);
}

#[test]
fn whose_return_the_clients_of_a_node_wait_for_is_told() {
    for authority in [Authority::Majority, Authority::Off] {
        let mut rig = Rig::bare_under(authority, &[B]);
        rig.record.primary = Some(B);
        let standing = Standing { role: Role::Primary, ..rig.standing(B) };
        rig.meet_as(B, CLUSTER, standing);
        rig.tell(Event::Attach(ClientId(1)));
        let session =
            rig.sent.iter().find_map(|(_, m)| if let Message::Serve { session, .. } = m { Some(*session) } else { None });
        rig.hear(B, Message::Serving { session: session.unwrap(), memory: 9, entry: 1, sharing: Sharing::Shared });
        rig.request(1, WRITE);
        assert!(rig.engine.status().suspended.is_empty());
        rig.tell(Event::LinkDown { peer: B, silent: true });
        assert_eq!(rig.engine.status().suspended, [Suspension::NoData(vec![B])]);
        assert_eq!(rig.answer_to(1), None, "it waits");
        rig.tell(Event::Detach(ClientId(1)));
        assert!(rig.answer_to(1).is_some() && rig.engine.status().suspended.is_empty(), "{:?}", rig.done);
    }
}

#[test]
fn where_nodes_decide_alone_a_replica_that_is_behind_waits_for_the_role_unless_others_use_the_primary() {
    for (authority, in_use, asks) in
        [(Authority::Off, false, false), (Authority::Off, true, true), (Authority::Majority, false, true)]
    {
        let mut record = Record::first(RecordId(77), [(B, Incarnation(101))].into(), authority);
        record.primary = Some(B);
        let mut rig = Rig::with_record(record, &[B]);
        let standing = Standing { role: Role::Primary, in_use, ..rig.standing(B) };
        rig.meet_as(B, CLUSTER, standing);
        rig.tell(Event::Attach(ClientId(1)));
        assert_eq!(asked(&rig), if asks { vec![B] } else { vec![] }, "{authority:?} {in_use}");
    }
}

#[test]
fn where_nodes_decide_alone_a_replica_that_is_behind_makes_nobody_primary_for_its_clients() {
    for (authority, asks) in [(Authority::Off, false), (Authority::Majority, true)] {
        let mut rig = Rig::with_record(Record::first(RecordId(77), [(B, Incarnation(101))].into(), authority), &[B]);
        rig.meet(B, CLUSTER);
        rig.tell(Event::Attach(ClientId(1)));
        assert_eq!(asked(&rig), if asks { vec![B] } else { vec![] }, "{authority:?}");
    }
}

#[test]
fn readers_share_with_readers_of_other_nodes_and_with_nobody_who_may_write() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.tell(Event::Detach(ClientId(1)));
    rig.tell(Event::AttachAs(ClientId(2), Sharing::Readers));
    let let_in = |rig: &Rig, client| rig.done.contains(&Command::Attached { client: ClientId(client), result: Ok(()) });
    assert!(let_in(&rig, 2), "{:?}", rig.done);
    let visit = |session, sharing| Message::Serve { session, entry: 1, waits: true, sharing };
    rig.hear(B, visit(5, Sharing::Readers));
    let served =
        |(to, m): &(NodeId, Message)| *to == B && matches!(m, Message::Serving { session: 5, sharing: Sharing::Readers, .. });
    assert!(rig.sent.iter().any(served), "{:?}", rig.sent);
    // Somebody who writes, here, while one of them is left anywhere.
    rig.tell(Event::Detach(ClientId(2)));
    rig.tell(Event::Attach(ClientId(3)));
    assert!(!let_in(&rig, 3), "B's clients only read");
    rig.hear(B, Message::Unserve { session: 5 });
    assert!(let_in(&rig, 3), "{:?}", rig.done);
    // And readers there while one writes here.
    rig.hear(B, visit(6, Sharing::Readers));
    assert!(rig.sent.contains(&(B, Message::Barred { session: 6, by: ME })), "{:?}", rig.sent);
}

#[test]
fn what_a_guest_has_sent_is_not_overtaken_while_it_waits_for_other_blocks() {
    let mut rig = Rig::new(Authority::Majority, &[B, C]);
    rig.serve(&[B, C]);
    let (first, second) =
        (BlockRange { volume: VolumeId(0), first: 0, count: 1 }, BlockRange { volume: VolumeId(0), first: 1, count: 1 });
    rig.engine.peers[0].dirty.set(second);
    rig.serve_guest(C);
    // Of a client there that is gone; another one keeps the session, and nothing is said of it.
    let what = crate::wire::Forwarded::Write { volume: VolumeId(0), offset: 0, len: 8192, fua: false };
    let message = Message::Forward { session: 7, seq: 1, answered: 0, what };
    let (reign, payload) = (rig.record.reign, Some(BufferId(9)));
    rig.tell(Event::Message { from: C, reign, message, payload });
    rig.request(1, WRITE);
    let written = |rig: &Rig| -> Vec<BlockRange> {
        let range =
            |(to, m): &(NodeId, Message)| if let (true, Message::Write(w)) = (*to == B, m) { Some(w.range) } else { None };
        rig.sent.iter().filter_map(range).collect()
    };
    assert_eq!(written(&rig), [], "the earlier one is held, and the later one is behind it (rule W7)");
    rig.all_equal(B);
    assert_eq!(written(&rig), [BlockRange { count: 2, ..first }]);
    rig.hear(B, Message::Written { seqs: vec![2] });
    rig.hear(C, Message::Written { seqs: vec![2] });
    assert_eq!(written(&rig), [BlockRange { count: 2, ..first }, first]);
}

/// Else the write would be done a second time by this node's next reign.
#[test]
fn a_list_of_what_was_done_that_is_cut_off_takes_nothing_from_what_a_replica_remembers() {
    let mut rig = Rig::new(Authority::Majority, &[B, C]);
    rig.engine.applied.memory = 9;
    let origin = crate::wire::Origin { node: C, session: 5, seq: 1, answered: 0 };
    rig.engine.applied.note(&origin);
    let next = rig.record.next(RecordId(900));
    rig.record = Record { primary: Some(B), reign: next.number, ..next };
    let standing = Standing { role: Role::Primary, in_use: true, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    let open = |rig: &mut Rig, session| {
        rig.sent.clear();
        let record = rig.record.clone();
        rig.hear(B, Message::Open { session, record });
        assert!(rig.sent.iter().any(|(_, m)| matches!(m, Message::Report(_))), "{:?}", rig.sent);
    };
    let part = |session, done| Message::Applied { memory: 9, node: C, session, done, equal: false };
    open(&mut rig, 5);
    rig.hear(B, part(6, vec![]));
    rig.tell(Event::LinkDown { peer: B, silent: false });
    assert!(rig.engine.applied.knows(&origin));
    // What came of one is no part of the next.
    let standing = Standing { role: Role::Primary, in_use: true, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    open(&mut rig, 6);
    rig.hear(B, Message::Applied { memory: 9, node: B, session: 0, done: vec![], equal: false });
    assert!(!rig.engine.applied.knows(&origin), "the primary does not have it");
}
