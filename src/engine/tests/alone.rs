//! Clients that do not share with everybody (rule W8): when their sessions end, and when nobody ends them.

use super::forwards::asked_for;
use super::*;

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
    let session = |rig: &Rig| asked_for(rig).last().map(|(session, _)| *session);
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

/// Its guest is the only user and gets the role; somebody comes to the primary meanwhile, who is to be alone.
#[test]
fn whoever_was_to_have_the_role_is_in_the_way_of_others_though_it_stays_where_it_was() {
    for gone in [false, true] {
        let mut rig = Rig::new(Authority::Majority, &[B, C]);
        rig.serve(&[B, C]);
        rig.tell(Event::Detach(ClientId(1)));
        rig.serve_guest(B);
        rig.holds_flushes = true;
        rig.request(1, WRITE);
        rig.sent.clear();
        rig.pass(Duration::from_millis(1_500));
        assert!(rig.sent.iter().any(|(to, m)| *to == B && matches!(m, Message::NotServing { .. })), "{:?}", rig.sent);
        assert!(rig.engine.status().record.unwrap().primary == Some(ME), "not before all is durable");
        if gone {
            rig.hear(B, Message::Unserve { session: 7 });
        }
        rig.tell(Event::AttachAs(ClientId(5), Sharing::Alone));
        let let_in = Command::Attached { client: ClientId(5), result: Ok(()) };
        assert_eq!(rig.done.contains(&let_in), gone, "gone: {gone}");
        rig.sent.clear();
        rig.hear(B, Message::Serve { session: 8, entry: 1, waits: false, sharing: Sharing::Shared });
        let barred = rig.sent.contains(&(B, Message::Barred { session: 8, by: ME }));
        assert_eq!(barred, gone, "{:?}", rig.sent);
        // It is there as long as it keeps the others waiting.
        rig.pass(Duration::from_secs(3));
        let refused = Command::Attached { client: ClientId(5), result: Err(AttachError::InUse(B)) };
        assert_eq!(rig.done.contains(&refused), !gone, "{:?}", rig.done);
    }
}
