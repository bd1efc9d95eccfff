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
fn asked_for(rig: &Rig) -> Vec<(u64, Sharing)> {
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

/// A node that forwards, whose client shares so and is let in by B.
fn let_in_by_b(sharing: Sharing) -> (Rig, Message) {
    let mut rig = Rig::bare(&[B, C]);
    let standing = Standing { role: Role::Primary, in_use: true, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    rig.tell(Event::AttachAs(ClientId(1), sharing));
    let (session, _) = *asked_for(&rig).last().unwrap();
    let serving = Message::Serving { session, memory: 9, entry: 1, sharing };
    rig.hear(B, serving.clone());
    assert!(rig.done.contains(&Command::Attached { client: ClientId(1), result: Ok(()) }));
    (rig, serving)
}

/// What it had not sent would go into what somebody else has written meanwhile, who is gone again and in nobody's way.
#[test]
fn a_client_that_is_to_be_alone_comes_anew_when_its_node_was_out_of_touch() {
    for (sharing, ends) in [(Sharing::Alone, true), (Sharing::Readers, true), (Sharing::Shared, false)] {
        let (mut rig, serving) = let_in_by_b(sharing);
        rig.tell(Event::LinkDown { peer: B, silent: true });
        rig.request(1, WRITE);
        let standing = Standing { role: Role::Primary, in_use: true, ..rig.standing(B) };
        rig.meet_as(B, CLUSTER, standing);
        rig.hear(B, serving);
        let forwarded = rig.sent.iter().any(|(_, m)| matches!(m, Message::Forward { .. }));
        assert_eq!((rig.done.contains(&Command::DropClients), forwarded), (ends, !ends), "{sharing:?}");
    }
}

/// The node that takes its requests is cut off from all others and does not know it. Somebody was let in by the next primary, which this node
/// could not reach, and is gone when it can.
#[test]
fn a_client_that_is_to_be_alone_comes_anew_when_its_server_was_deposed_behind_its_back() {
    for (sharing, ends) in [(Sharing::Alone, true), (Sharing::Readers, true), (Sharing::Shared, false)] {
        let (mut rig, serving) = let_in_by_b(sharing);
        let Message::Serving { session, memory, .. } = serving else { panic!("{serving:?}") };
        rig.record = Record { primary: Some(C), reign: rig.record.reign + 5, ..rig.record.next(RecordId(500)) };
        let standing = Standing { role: Role::Primary, in_use: true, ..rig.standing(C) };
        rig.meet_as(C, CLUSTER, standing);
        rig.hear(B, Message::NotServing { session, why: String::new() });
        rig.request(1, WRITE);
        rig.sent.clear();
        rig.hear(C, Message::Serving { session, memory, entry: 0, sharing });
        let forwarded = rig.sent.iter().any(|(to, m)| *to == C && matches!(m, Message::Forward { .. }));
        assert_eq!((rig.done.contains(&Command::DropClients), forwarded), (ends, !ends), "{sharing:?}");
    }
}

/// A moment's break of a connection takes nobody's mount away.
#[test]
fn whose_connection_has_just_broken_keeps_others_out() {
    for silent in [false, true] {
        let mut rig = Rig::new(Authority::Majority, &[B, C]);
        // Shorter than a primary that nobody uses keeps the role.
        let timeouts = Timeouts { peer_silent: Duration::from_millis(500), ..Timeouts::default() };
        let settings = Settings { timeouts, ..rig.engine.settings.clone() };
        rig.tell(Event::Configure(settings));
        rig.serve(&[B, C]);
        rig.tell(Event::Detach(ClientId(1)));
        rig.hear(B, Message::Serve { session: 7, entry: 1, waits: true, sharing: Sharing::Alone });
        let ask = |rig: &mut Rig| {
            rig.sent.clear();
            rig.hear(C, Message::Serve { session: 8, entry: 1, waits: true, sharing: Sharing::Alone });
            rig.sent.iter().any(|(to, m)| *to == C && matches!(m, Message::Serving { .. }))
        };
        assert!(!ask(&mut rig));
        rig.tell(Event::LinkDown { peer: B, silent });
        assert_eq!(ask(&mut rig), silent, "one that was silent has had its time");
        rig.pass(Duration::from_millis(500));
        assert!(ask(&mut rig));
    }
}

/// However long a silent node is waited for: it would be told that a node is in its way that may never come back.
#[test]
fn who_waits_for_one_whose_connection_has_broken_is_let_in_before_its_patience_ends() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    let timeouts = Timeouts { peer_silent: Duration::from_secs(60), ..Timeouts::default() };
    let settings = Settings { timeouts, ..rig.engine.settings.clone() };
    rig.tell(Event::Configure(settings));
    rig.serve(&[B]);
    rig.tell(Event::Detach(ClientId(1)));
    rig.hear(B, Message::Serve { session: 7, entry: 1, waits: true, sharing: Sharing::Alone });
    rig.tell(Event::LinkDown { peer: B, silent: false });
    rig.tell(Event::AttachAs(ClientId(2), Sharing::Alone));
    let answer = |rig: &Rig| rig.done.iter().find(|done| matches!(done, Command::Attached { client: ClientId(2), .. })).cloned();
    assert_eq!(answer(&rig), None);
    rig.pass(Duration::from_millis(2_900));
    assert_eq!(answer(&rig), Some(Command::Attached { client: ClientId(2), result: Ok(()) }));
}

/// Else it waits while nothing says so, and what it has asked for is done when those in its way have gone for a moment.
#[test]
fn who_is_barred_does_not_stay_in() {
    let (mut rig, _) = let_in_by_b(Sharing::Shared);
    let (session, _) = *asked_for(&rig).last().unwrap();
    rig.hear(B, Message::Barred { session, by: C });
    assert!(rig.done.contains(&Command::DropClients), "{:?}", rig.done);
}

#[test]
fn a_reign_in_between_ends_the_sessions_of_those_that_are_alone() {
    let mut rig = Rig::new(Authority::Majority, &[B, C]);
    let next = rig.record.next(RecordId(900));
    rig.record = Record { primary: Some(B), reign: next.number, ..next };
    let standing = Standing { role: Role::Primary, in_use: true, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    rig.tell(Event::AttachAs(ClientId(1), Sharing::Alone));
    let session = |rig: &Rig| {
        rig.sent.iter().rev().find_map(|(_, m)| if let Message::Serve { session, .. } = m { Some(*session) } else { None })
    };
    let first = session(&rig).unwrap();
    rig.hear(B, Message::Serving { session: first, memory: 9, entry: 1, sharing: Sharing::Alone });
    assert!(rig.done.contains(&Command::Attached { client: ClientId(1), result: Ok(()) }));
    // B gives the role to this node, the only user; but C, which this node does not see, is quicker to take it.
    rig.holds_answers = true;
    rig.hear(B, Message::NotServing { session: first, why: String::new() });
    let over = Record { primary: None, ..rig.record.next(RecordId(901)) };
    rig.record = over.clone();
    let standing = Standing { ..rig.standing(B) };
    rig.hear(B, Message::Standing(Box::new(standing)));
    rig.pass(Duration::from_millis(300));
    rig.request(1, WRITE);
    let next = rig.record.next(RecordId(902));
    rig.record = Record { primary: Some(C), reign: next.number, ..next };
    if let Some(ticket) = rig.unanswered.last().copied() {
        let answer = Answer::Is(rig.record.clone());
        rig.tell(Event::Answer { ticket, answer });
    }
    // It evicts this node, serves a client that is alone, and gives the role up; B has it next.
    let mut next = rig.record.next(RecordId(903));
    next.in_sync.remove(&ME);
    rig.record = Record { primary: None, ..next };
    let standing = rig.standing(B);
    rig.hear(B, Message::Standing(Box::new(standing)));
    let next = rig.record.next(RecordId(904));
    rig.record = Record { primary: Some(B), reign: next.number, ..next };
    let standing = Standing { role: Role::Primary, in_use: true, ..rig.standing(B) };
    rig.hear(B, Message::Standing(Box::new(standing)));
    rig.sent.clear();
    rig.pass(Duration::from_secs(1));
    let again = session(&rig).expect("it asks");
    rig.hear(B, Message::Serving { session: again, memory: 9, entry: 1, sharing: Sharing::Alone });
    let late = rig.sent.iter().any(|(_, m)| matches!(m, Message::Forward { .. }));
    assert!(rig.done.contains(&Command::DropClients) && !late, "late={late} same={} {:?}", again == first, rig.answer_to(1));
}
