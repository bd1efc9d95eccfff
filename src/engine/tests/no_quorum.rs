//! What happens to I/O that no quorum allows.

use super::*;

const FLUSH: Request = Request::Flush;
const READ: Request = Request::Read { volume: VolumeId(0), offset: 0, len: 4096, buffer: BufferId(9) };
const PATIENCE: Duration = Duration::from_secs(7);

fn fails_io(rig: &mut Rig) {
    let settings = Settings { io_fails_after: Some(PATIENCE), ..rig.engine.settings.clone() };
    rig.tell(Event::Configure(settings));
}

/// A primary that has lost its peer, while the authority does not answer.
fn cut_off(rig: &mut Rig) {
    rig.serve(&[B]);
    rig.holds_answers = true;
    rig.request(1, WRITE);
    rig.tell(Event::LinkDown { peer: B, silent: true });
    rig.request(2, WRITE);
    rig.request(3, FLUSH);
    rig.request(4, READ);
}

#[test]
fn io_fails_when_it_has_waited_for_a_quorum_and_is_served_again_when_there_is_one() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    fails_io(&mut rig);
    cut_off(&mut rig);
    rig.pass(PATIENCE - Duration::from_millis(1));
    assert!((1..=4).all(|id| rig.answer_to(id).is_none()), "a fail-over takes no longer: {:?}", rig.done);
    rig.pass(Duration::from_millis(1));
    for id in 1..=4 {
        assert_eq!(rig.answer_to(id), Some(Err(Failure::Io)), "request {id}");
    }
    assert!(rig.engine.status().suspended.contains(&Suspension::Failing));
    // What a client asks again and again meanwhile takes no memory.
    let kept = |rig: &Rig| rig.engine.reign.as_ref().map(|r| (r.requests.keys().count(), r.flushes.waiting.len())).unwrap();
    let before = kept(&rig);
    for (id, request) in (20..50).zip([WRITE, READ, FLUSH].into_iter().cycle()) {
        rig.request(id, request);
        assert_eq!(rig.answer_to(id), Some(Err(Failure::Io)), "request {id}");
    }
    assert_eq!(kept(&rig), before);
    rig.holds_answers = false;
    rig.record = rig.proposed.last().unwrap().clone();
    let ticket = *rig.unanswered.last().unwrap();
    rig.tell(Event::Answer { ticket, answer: Answer::Granted });
    assert!(rig.engine.status().suspended.is_empty(), "{:?}", rig.engine.status());
    for (id, request) in [(7, WRITE), (8, FLUSH), (9, READ)] {
        rig.request(id, request);
        assert_eq!(rig.answer_to(id), Some(Ok(())), "request {id}");
    }
    // What was in flight has ended with its client's error, and with nothing left behind.
    assert_eq!(rig.done.iter().filter(|done| matches!(done, Command::Complete { id: RequestId(1..=4), .. })).count(), 4);
}

#[test]
fn io_waits_for_a_quorum_unless_it_is_to_fail() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    cut_off(&mut rig);
    rig.pass(PATIENCE * 10);
    assert!((1..=4).all(|id| rig.answer_to(id).is_none()), "{:?}", rig.done);
}

/// What came first goes first, though its client was told that it has failed.
#[test]
fn a_write_that_has_failed_in_flight_keeps_its_place() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    fails_io(&mut rig);
    cut_off(&mut rig);
    rig.pass(PATIENCE);
    rig.sent.clear();
    // The peer was only away, and follows again before anybody has answered.
    rig.follow_of(B, 101);
    rig.request(10, WRITE);
    let writes =
        |rig: &Rig| rig.sent.iter().filter(|(to, m)| *to == B && matches!(m, Message::Zero(_) | Message::Write(_))).count();
    assert_eq!((writes(&rig), rig.answer_to(10)), (1, None), "the first one is sent again, and waited for: {:?}", rig.sent);
    rig.hear(B, Message::Written { seqs: vec![1] });
    assert_eq!(writes(&rig), 2);
    rig.hear(B, Message::Written { seqs: vec![2] });
    assert_eq!(rig.answer_to(10), Some(Ok(())));
    assert_eq!(rig.done.iter().filter(|done| matches!(done, Command::Complete { id: RequestId(1), .. })).count(), 1);
}

#[test]
fn what_nobody_takes_fails_on_a_node_that_forwards() {
    let mut rig = Rig::bare(&[B]);
    fails_io(&mut rig);
    let standing = Standing { role: Role::Primary, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    rig.tell(Event::Attach(ClientId(1)));
    let asked =
        |rig: &Rig| rig.sent.iter().find_map(|(_, m)| if let Message::Serve { session, .. } = m { Some(*session) } else { None });
    let session = asked(&rig).unwrap();
    let serving = Message::Serving { session, memory: 9, entry: 1, sharing: Sharing::Shared };
    rig.hear(B, serving.clone());
    rig.request(1, WRITE);
    rig.tell(Event::LinkDown { peer: B, silent: true });
    rig.pass(PATIENCE - Duration::from_millis(1));
    assert_eq!(rig.answer_to(1), None);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.answer_to(1), Some(Err(Failure::Io)));
    rig.request(2, WRITE);
    assert_eq!(rig.answer_to(2), Some(Err(Failure::Io)), "it does not wait once more");
    let standing = Standing { role: Role::Primary, ..rig.standing(B) };
    rig.meet_as(B, CLUSTER, standing);
    rig.hear(B, serving);
    rig.sent.clear();
    rig.request(3, WRITE);
    let forwarded: Vec<u64> =
        rig.sent.iter().filter_map(|(_, m)| if let Message::Forward { seq, .. } = m { Some(*seq) } else { None }).collect();
    assert_eq!((forwarded, rig.answer_to(3)), (vec![3], None), "what has failed is not sent again");
}
