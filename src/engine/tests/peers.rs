//! Members: their acknowledgements, their reads, their leases, and who is none.

use super::*;

#[test]
fn a_peer_that_says_that_it_leaves_is_not_waited_for() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    assert!(rig.record.in_sync.contains_key(&B));
    rig.hear(B, Message::Leaving);
    assert!(!rig.record.in_sync.contains_key(&B), "in the same moment, not when the connection ends");
}

#[test]
fn two_members_that_leave_by_one_record_lack_the_same() {
    let mut rig = Rig::new(Authority::Majority, &[B, C]);
    rig.serve(&[B, C]);
    rig.request(3, Request::Flush);
    while rig.answer_to(3).is_none() {
        rig.durable_on(B, 0);
        rig.durable_on(C, 0);
    }
    rig.request(1, WRITE);
    rig.request(2, Request::Flush);
    rig.tell(Event::LinkDown { peer: B, silent: false });
    rig.tell(Event::LinkDown { peer: C, silent: false });
    while rig.record.in_sync.len() > 1 {
        rig.sleep();
    }
    assert_eq!(rig.proposed.last().map(|r| r.in_sync.len()), Some(1));
    assert_eq!((rig.answer_to(1), rig.answer_to(2)), (Some(Ok(())), Some(Ok(()))));
    let lacks: Vec<u64> = rig.engine.peers.iter().map(|peer| peer.dirty.count()).collect();
    assert_eq!(lacks, [1, 1], "what the first leaves to be settled is in the window of the second (rule M1)");
}

#[test]
fn a_primary_whose_disk_fails_leaves_the_in_sync_set_before_it_answers() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.disk_fails = true;
    rig.request(1, WRITE);
    assert_eq!(rig.proposed.last().map(|r| r.in_sync.keys().copied().collect::<Vec<_>>()), Some(vec![B]));
    assert_eq!(rig.answer_to(1), None, "it is on no disk yet");
    let seq = rig.sent.iter().find_map(|(_, m)| if let Message::Write(write) = m { Some(write.seq) } else { None });
    rig.hear(B, Message::Written { seqs: vec![seq.expect("the write was sent")] });
    assert_eq!(rig.answer_to(1), Some(Ok(())));
}

#[test]
fn a_read_that_one_member_cannot_do_is_asked_of_the_next_and_of_none_twice() {
    let mut rig = Rig::new(Authority::Majority, &[B, C]);
    rig.serve(&[B, C]);
    rig.disk_fails = true;
    rig.sent.clear();
    rig.request(1, Request::Read { volume: VolumeId(0), offset: 0, len: 4096, buffer: BufferId(1) });
    let asked = rig.asked_to_read(B);
    assert_eq!((asked.len(), rig.asked_to_read(C).len()), (1, 0));
    rig.hear(B, Message::ReadReply { id: asked[0], ok: false });
    let asked = rig.asked_to_read(C);
    assert_eq!((rig.asked_to_read(B).len(), asked.len()), (1, 1));
    rig.hear(C, Message::ReadReply { id: asked[0], ok: false });
    assert_eq!(rig.answer_to(1), Some(Err(Failure::Io)));
    assert_eq!((rig.asked_to_read(B).len(), rig.asked_to_read(C).len()), (1, 1));
}

#[test]
fn what_a_member_was_to_read_is_asked_of_the_next_when_it_is_evicted() {
    let mut rig = Rig::new(Authority::Majority, &[B, C]);
    rig.serve(&[B, C]);
    rig.disk_fails = true;
    rig.request(1, Request::Read { volume: VolumeId(0), offset: 0, len: 4096, buffer: BufferId(1) });
    rig.request(2, Request::Read { volume: VolumeId(0), offset: 0, len: 4096, buffer: BufferId(2) });
    assert!(!rig.asked_to_read(B).is_empty() && rig.asked_to_read(C).is_empty());
    // Its replica is to go; its connection stays.
    let peers = [(B, peer(B, true)), (C, peer(C, false))].into();
    let event = Event::Configure(Settings { peers, ..rig.engine.settings.clone() });
    rig.tell(event);
    assert!(!rig.record.in_sync.contains_key(&B));
    assert_eq!(rig.asked_to_read(C).len(), rig.asked_to_read(B).len());
}

/// Its own disk has failed, and the only one that could read is away for a moment.
#[test]
fn a_read_waits_for_a_member_that_is_away_as_a_write_does() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.disk_fails = true;
    rig.request(1, WRITE);
    let read = |block| Request::Read { volume: VolumeId(0), offset: u64::from(block) * 4096, len: 4096, buffer: BufferId(block) };
    rig.request(2, read(2));
    assert_eq!(rig.asked_to_read(B).len(), 1);
    rig.tell(Event::LinkDown { peer: B, silent: false });
    rig.request(3, read(3));
    // What a write leaves of its block is read, too.
    rig.request(4, Request::Write { volume: VolumeId(0), offset: 16384, len: 100, buffer: BufferId(4), fua: false });
    assert!((1..=4).all(|id| rig.answer_to(id).is_none()), "{:?}", rig.done);
    rig.follow_of(B, 101);
    let asked = rig.asked_to_read(B);
    assert_eq!(asked.len(), 3, "{:?}", rig.sent);
    asked.into_iter().for_each(|id| rig.hear(B, Message::ReadReply { id, ok: false }));
    assert_eq!((2..=4).map(|id| rig.answer_to(id)).collect::<Vec<_>>(), [Some(Err(Failure::Io)); 3], "nobody has it");
}

#[test]
fn another_clusters_engine_is_refused() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.meet(B, ClusterId(2));
    assert_eq!(rig.engine.status().peers[0].connection, Connection::Refused);
    rig.meet(B, CLUSTER);
    assert_eq!(rig.engine.status().peers[0].connection, Connection::Connected);
}

#[test]
fn holes_are_told_only_where_a_read_could_be_answered() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    let block = BlockRange { volume: VolumeId(0), first: 0, count: 1 };
    assert!(!rig.engine.may_tell_holes(rig.now, &rig.links, block), "another node may be primary by now");
    let timeouts = Timeouts::default();
    let mut link = Link::new(rig.now);
    link.connected(rig.now);
    let ping = link.ping(rig.now, &timeouts);
    assert!(link.ponged(ping));
    rig.links.insert(B, link);
    assert!(rig.engine.may_tell_holes(rig.now, &rig.links, block));
    assert!(!rig.engine.may_tell_holes(rig.now.after(timeouts.lease), &rig.links, block), "the lease is over");
    rig.request(1, Request::Zero { range: block, unmap: true, fua: false });
    assert!(!rig.engine.may_tell_holes(rig.now, &rig.links, block), "if this node dies now, these zeroes may never have been");
    assert!(rig.engine.may_tell_holes(rig.now, &rig.links, BlockRange { first: 1, ..block }));
}

#[test]
fn a_replica_that_knows_its_primarys_next_record_first_is_asked_to_follow_again() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.tell(Event::LinkDown { peer: B, silent: false });
    rig.meet(B, CLUSTER);
    let session = rig.asked_to_follow(B);
    // Granted while the question was on its way, and heard of by B through somebody else.
    rig.sent.clear();
    rig.hear(B, Message::Fenced { record: rig.record.clone() });
    assert_ne!(rig.asked_to_follow(B), session, "B is there, so it will not be evicted: nothing else would ever ask it");
}

/// What node 0 is told when the replica of B is to go.
fn without_b(rig: &Rig) -> Event {
    Event::Configure(Settings { peers: [(B, peer(B, true))].into(), ..rig.engine.settings.clone() })
}

#[test]
fn a_replica_that_is_to_go_is_dropped_from_the_record_though_nobody_is_primary() {
    for known in [true, false] {
        let mut rig = Rig::new(Authority::Majority, &[B]);
        rig.meet(B, CLUSTER);
        assert!(rig.proposed.is_empty(), "all is well");
        let peers = known.then(|| (B, peer(B, true))).into_iter().collect();
        let event = Event::Configure(Settings { peers, ..rig.engine.settings.clone() });
        rig.tell(event);
        assert_eq!(rig.proposed.first().map(|r| r.primary), Some(Some(ME)), "only a primary changes who is in sync (rule M8)");
        assert!(!rig.record.in_sync.contains_key(&B));
    }
}

#[test]
fn a_replica_that_is_to_go_gets_no_resync_and_has_no_say() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.sent.clear();
    let event = without_b(&rig);
    rig.tell(event);
    assert!(!rig.record.in_sync.contains_key(&B));
    let standing = rig.standing(B);
    rig.hear(B, Message::Standing(Box::new(standing)));
    rig.request(1, WRITE);
    assert_eq!(rig.answer_to(1), Some(Ok(())), "B is not waited for");
    assert!(!rig.sent.iter().any(|(_, m)| *m == Message::SyncBegin), "{:?}", rig.sent);
}

#[test]
fn a_replica_that_is_to_go_is_waited_for_where_it_may_have_the_only_copy() {
    let mut rig = Rig::with_record(crashed(), &[B]);
    let event = without_b(&rig);
    rig.tell(event);
    rig.tell(Event::Attach(ClientId(1)));
    assert!(rig.proposed.is_empty(), "this life is none that the record names: B may have what was lost here (rule M3)");
    // B has crashed, too.
    let mut standing = rig.standing(B);
    if let Some(replica) = &mut standing.replica {
        (replica.incarnation, replica.continues) = (Incarnation(900), Incarnation(900));
    }
    rig.meet_as(B, CLUSTER, standing);
    assert_eq!(rig.proposed.last().map(|r| r.in_sync.keys().copied().collect::<Vec<_>>()), Some(vec![ME]));
}

#[test]
fn a_peer_that_is_removed_is_not_waited_for_when_a_record_is_decided_on() {
    let mut rig = Rig::new(Authority::Off, &[B]);
    rig.meet(B, CLUSTER);
    rig.tell(Event::Attach(ClientId(1)));
    assert!(rig.sent.iter().any(|(to, m)| *to == B && matches!(m, Message::Propose { .. })), "{:?}", rig.sent);
    // Its replica is taken away in this moment: it will not answer, and nobody will tell that its connection is gone.
    let event = Event::Configure(Settings { peers: BTreeMap::new(), ..rig.engine.settings.clone() });
    rig.tell(event);
    assert!(rig.done.contains(&Command::Attached { client: ClientId(1), result: Ok(()) }), "{:?}", rig.engine.status());
}

/// A record of a life of node 0 before the present one.
fn crashed() -> Record {
    Record::first(RecordId(77), [(ME, Incarnation(7)), (B, Incarnation(101))].into(), Authority::Majority)
}
