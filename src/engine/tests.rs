//! One engine among peers that are played by hand: what it asks for, and in which moment.
//!
//! Whole clusters are the simulator's. Here is what a cluster survives either way and only a list of commands can show: that a peer is not
//! waited for, that a question is put to another one, that a stranger is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::format::{Loaded, Loader, NewReplica, PeerSlot, SUPERBLOCK, Step, area_len, create, superblock_at};
use crate::units::{
    Authority, BlockRange, ClusterId, DiskState, Incarnation, Instant, NodeId, Protocol, Record, RecordId, ReplicaId, ResourceId,
    Role, VolumeId,
};
use crate::wire::{Introduction, Message, RecordPoint, ReplicaStanding, Report, Standing};

const ME: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const C: NodeId = NodeId(2);
const CLUSTER: ClusterId = ClusterId(1);
const RESOURCE: ResourceId = ResourceId(1);
const BYTES: u64 = 4 << 20;

/// An engine whose disks do at once what they are asked for, and its world.
struct Rig {
    engine: Engine,
    links: Links,
    now: Instant,
    /// What the authority says.
    record: Record,
    proposed: Vec<Record>,
    sent: Vec<(NodeId, Message)>,
    done: Vec<Command>,
    disk_fails: bool,
    metadata_fails: bool,
    /// Whether flushes stay under way.
    holds_flushes: bool,
    flushing: Vec<OpId>,
    /// Whether the authority keeps its answers back.
    holds_answers: bool,
    unanswered: Vec<Ticket>,
}

impl Rig {
    /// Node 0 with a replica, in sync with those of `peers`.
    fn new(authority: Authority, peers: &[NodeId]) -> Self {
        let all = std::iter::once(&ME).chain(peers);
        let in_sync = all.map(|n| (*n, Incarnation(100 + u64::from(n.0)))).collect();
        Self::with_record(Record::first(RecordId(77), in_sync, authority), peers)
    }

    /// Node 0 with a replica that has stopped cleanly and goes by `record`.
    fn with_record(record: Record, peers: &[NodeId]) -> Self {
        let authority = record.authority;
        let volumes: BTreeMap<_, _> = [(VolumeId(0), BYTES)].into();
        let base = Some((1, record.id));
        let new = NewReplica {
            cluster: CLUSTER,
            resource: RESOURCE,
            node: ME,
            replica: ReplicaId(500),
            incarnation: Incarnation(100),
            record: Some(record.clone()),
            synced: base,
            peers: peers.iter().map(|node| PeerSlot { node: *node, base }).collect(),
            volumes: volumes.clone(),
            slots: 7,
        };
        let settings = Settings {
            peers: peers.iter().map(|n| (*n, Peer { name: format!("n{n}").parse().unwrap(), diskful: true })).collect(),
            volumes,
            protocol: Protocol::C,
            authority,
            on_no_quorum: OnNoQuorum::SuspendIo,
            resync_max: 0,
            timeouts: Timeouts::default(),
        };
        let identity = Identity { cluster: CLUSTER, resource: RESOURCE, node: ME, seed: [1, 2] };
        let now = Instant(1_000_000_000);
        let engine = Engine::start(identity, settings, Some(load(&new)), now);
        let mut rig = Self {
            engine,
            links: Links::new(),
            now,
            record,
            proposed: Vec::new(),
            sent: Vec::new(),
            done: Vec::new(),
            disk_fails: false,
            metadata_fails: false,
            holds_flushes: false,
            flushing: Vec::new(),
            holds_answers: false,
            unanswered: Vec::new(),
        };
        rig.carry_out();
        rig
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, &self.links, event);
        self.carry_out();
    }

    fn hear(&mut self, from: NodeId, message: Message) {
        let reign = self.record.reign;
        self.tell(Event::Message { from, reign, message, payload: None });
    }

    fn carry_out(&mut self) {
        loop {
            let mut commands = Vec::new();
            self.engine.take_commands(&mut commands);
            if commands.is_empty() {
                return;
            }
            for command in commands {
                if let Some(event) = self.do_it(command) {
                    self.engine.handle(self.now, &self.links, event);
                }
            }
        }
    }

    fn do_it(&mut self, command: Command) -> Option<Event> {
        match command {
            Command::Meta { op, .. } => Some(Event::MetaDone { op, ok: !self.metadata_fails }),
            Command::Disk { op, io: DiskIo::Flush, .. } if self.holds_flushes => {
                self.flushing.push(op);
                None
            }
            Command::Disk { op, .. } if self.disk_fails => Some(Event::DiskDone { op, outcome: DiskOutcome::Failed }),
            Command::Disk { op, .. } => Some(Event::DiskDone { op, outcome: DiskOutcome::Done(None) }),
            Command::Propose { ticket, record, .. } if self.holds_answers => {
                self.proposed.push(record);
                self.unanswered.push(ticket);
                None
            }
            Command::Propose { ticket, record, .. } => {
                self.proposed.push(record.clone());
                self.record = record;
                Some(Event::Answer { ticket, answer: Answer::Granted })
            }
            Command::ReadRecord { ticket } => Some(Event::Answer { ticket, answer: Answer::Is(self.record.clone()) }),
            Command::Send { to, message, .. } => {
                self.sent.push((to, message));
                None
            }
            other => {
                self.done.push(other);
                None
            }
        }
    }

    fn standing(&self, node: NodeId) -> Standing {
        let incarnation = Incarnation(100 + u64::from(node.0));
        let synced = Some(RecordPoint { number: 1, id: RecordId(77) });
        let replica = ReplicaStanding {
            replica: ReplicaId(500 + u64::from(node.0)),
            incarnation,
            continues: incarnation,
            disk: DiskState::UpToDate,
            synced,
        };
        Standing {
            replica: Some(replica),
            record: Some(self.record.clone()),
            lineage: Vec::new(),
            role: Role::Secondary,
            in_use: false,
            volumes: vec![(VolumeId(0), BYTES)],
        }
    }

    /// A peer of some cluster connects.
    fn meet(&mut self, node: NodeId, cluster: ClusterId) {
        let standing = self.standing(node);
        self.meet_as(node, cluster, standing);
    }

    fn meet_as(&mut self, node: NodeId, cluster: ClusterId, standing: Standing) {
        self.sent.clear();
        self.tell(Event::LinkUp(node));
        let greeting = self.sent.iter().find_map(|(to, m)| match m {
            Message::Hello(hello) if *to == node => Some(hello.token),
            _ => None,
        });
        let hello = Introduction {
            cluster,
            resource: RESOURCE,
            token: 7,
            answers: greeting.expect("whoever connects is greeted"),
            standing,
        };
        self.hear(node, Message::Hello(Box::new(hello)));
    }

    /// A client attaches, and every peer follows.
    fn serve(&mut self, peers: &[NodeId]) {
        peers.iter().for_each(|peer| self.meet(*peer, CLUSTER));
        self.tell(Event::Attach(ClientId(1)));
        for &peer in peers {
            self.sent.clear();
            let standing = self.standing(peer);
            self.hear(peer, Message::Standing(Box::new(standing)));
            let session = self.asked_to_follow(peer);
            let record = self.record.id;
            self.hear(peer, Message::Report(Report { session, record, seen: 0, lease_left: 0 }));
        }
        assert!(self.done.contains(&Command::Attached { client: ClientId(1), result: Ok(()) }), "{:?}", self.done);
    }

    /// A peer that is not in sync connects in another life, and follows; it is asked whether it is ready for a resync.
    fn lend_target(&mut self, node: NodeId) {
        self.hear(node, Message::Leaving);
        let life = Incarnation(900);
        let mut standing = self.standing(node);
        standing.replica = standing.replica.map(|replica| ReplicaStanding { incarnation: life, continues: life, ..replica });
        self.meet_as(node, CLUSTER, standing);
        let session = self.asked_to_follow(node);
        let record = self.record.id;
        self.hear(node, Message::Report(Report { session, record, seen: 0, lease_left: 0 }));
        assert!(self.sent.contains(&(node, Message::SyncBegin)), "{:?}", self.sent);
    }

    fn asked_to_follow(&self, node: NodeId) -> u64 {
        let session = self.sent.iter().find_map(|(to, m)| match m {
            Message::Open { session, .. } if *to == node => Some(*session),
            _ => None,
        });
        session.expect("who goes by the record is asked to follow")
    }

    /// A replica connects in a certain life and follows.
    fn follow_of(&mut self, node: NodeId, life: u64) {
        let mut standing = self.standing(node);
        if let Some(replica) = &mut standing.replica {
            (replica.incarnation, replica.continues) = (Incarnation(life), Incarnation(life));
        }
        self.sent.clear();
        self.tell(Event::LinkUp(node));
        let token = self.sent.iter().find_map(|(_, m)| if let Message::Hello(hello) = m { Some(hello.token) } else { None });
        let answers = token.expect("whoever connects is greeted");
        let hello = Introduction { cluster: CLUSTER, resource: RESOURCE, token: 8 + life, answers, standing };
        self.hear(node, Message::Hello(Box::new(hello)));
        let session =
            self.sent.iter().find_map(|(_, m)| if let Message::Open { session, .. } = m { Some(*session) } else { None });
        let (session, record) = (session.expect("it is asked to follow"), self.record.id);
        self.hear(node, Message::Report(Report { session, record, seen: 0, lease_left: 0 }));
    }

    fn request(&mut self, id: u64, request: Request) {
        self.tell(Event::Request { id: RequestId(id), client: ClientId(1), request });
    }

    fn answer_to(&self, id: u64) -> Option<Result<(), Failure>> {
        self.done.iter().find_map(|c| match c {
            Command::Complete { id: of, result } if *of == RequestId(id) => Some(*result),
            _ => None,
        })
    }

    /// The reads that a peer was asked for, by their questions.
    fn asked_to_read(&self, node: NodeId) -> Vec<u64> {
        let question = |(to, m): &(NodeId, Message)| match m {
            Message::Read { id, .. } if *to == node => Some(*id),
            _ => None,
        };
        self.sent.iter().filter_map(question).collect()
    }
}

fn load(new: &NewReplica) -> Loaded {
    let mut area = vec![0; usize::try_from(area_len(&new.volumes, new.slots)).unwrap()];
    for step in create(new).unwrap() {
        if let Step::Write { at, bytes } = step {
            let at = usize::try_from(at).unwrap();
            area[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }
    let piece = |at: u64, len: usize| &area[usize::try_from(at).unwrap()..][..len];
    let mut loader =
        Loader::new(piece(superblock_at(0), SUPERBLOCK), piece(superblock_at(1), SUPERBLOCK), area.len() as u64).unwrap();
    for span in loader.pieces() {
        loader.feed(span.at, piece(span.at, usize::try_from(span.len).unwrap()));
    }
    loader.finish()
}

const WRITE: Request = Request::Write { volume: VolumeId(0), offset: 0, len: 4096, buffer: BufferId(1), fua: false };

#[test]
fn a_peer_that_says_that_it_leaves_is_not_waited_for() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    assert!(rig.record.in_sync.contains_key(&B));
    rig.hear(B, Message::Leaving);
    assert!(!rig.record.in_sync.contains_key(&B), "in the same moment, not when the connection ends");
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
fn another_clusters_engine_is_refused() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.meet(B, ClusterId(2));
    assert_eq!(rig.engine.status().peers[0].connection, Connection::Refused);
    rig.meet(B, CLUSTER);
    assert_eq!(rig.engine.status().peers[0].connection, Connection::Connected);
}

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

const HOLD: HoldId = HoldId(9);

impl Rig {
    fn holds(&mut self) -> Option<Result<Held, HoldError>> {
        let told = self.done.iter().find_map(|c| match c {
            Command::Held { id, result } if *id == HOLD => Some(result.clone()),
            _ => None,
        });
        self.done.retain(|c| !matches!(c, Command::Held { .. }));
        told
    }

    fn released_whole(&mut self) -> bool {
        self.tell(Event::ReleaseHold(HOLD));
        self.done.contains(&Command::Released { id: HOLD, whole: true })
    }

    /// The peer answers the flushes that it was asked for.
    fn flushed_by(&mut self, node: NodeId, durable: u64) {
        let asked = |(to, m): &(NodeId, Message)| match m {
            Message::Flush { id } if *to == node => Some(*id),
            _ => None,
        };
        let ids: Vec<u64> = self.sent.iter().filter_map(asked).collect();
        self.sent.clear();
        ids.into_iter().for_each(|id| self.hear(node, Message::Flushed { id, durable }));
    }
}

fn write(block: u64, buffer: u32) -> Request {
    Request::Write { volume: VolumeId(0), offset: block * 4096, len: 4096, buffer: BufferId(buffer), fua: false }
}

#[test]
fn a_hold_waits_for_what_is_under_way_and_lets_nothing_begin() {
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.serve(&[B]);
    rig.flushed_by(B, 0);
    rig.request(1, write(0, 1));
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    rig.request(2, write(8, 2));
    assert_eq!(rig.holds(), None, "B has not written the first");
    rig.hear(B, Message::Written { seqs: vec![1] });
    assert_eq!((rig.answer_to(1), rig.holds()), (Some(Ok(())), None), "nor flushed it");
    (0..3).for_each(|_| rig.flushed_by(B, 1));
    let held = rig.holds().expect("all is there").unwrap();
    assert_eq!((held.reign, held.in_sync), (rig.record.reign, [ME, B].into()));
    assert!(rig.engine.status().suspended.contains(&Suspension::Snapshot));
    assert!(!rig.sent.iter().any(|(_, m)| matches!(m, Message::Write(w) if w.seq == 2)));
    assert!(rig.released_whole());
    assert!(rig.sent.iter().any(|(_, m)| matches!(m, Message::Write(w) if w.seq == 2)), "what waited begins");
}

#[test]
fn a_hold_that_nobody_releases_ends_and_says_so_later() {
    let mut rig = Rig::new(Authority::Majority, &[]);
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    rig.holds().expect("it becomes primary for it").unwrap();
    rig.now = rig.now.after(Duration::from_secs(4));
    rig.tell(Event::RenewHold { id: HOLD, lease: Duration::from_secs(5) });
    rig.now = rig.now.after(Duration::from_secs(4));
    rig.tell(Event::Timeout);
    assert!(rig.engine.status().suspended.contains(&Suspension::Snapshot), "it was renewed");
    rig.now = rig.now.after(Duration::from_secs(1));
    rig.tell(Event::Timeout);
    assert!(rig.engine.status().suspended.is_empty());
    rig.tell(Event::RenewHold { id: HOLD, lease: Duration::from_secs(5) });
    assert!(!rig.released_whole(), "what is over is not begun again");
}

#[test]
fn a_second_hold_is_refused_and_a_replica_names_the_primary() {
    let mut rig = Rig::new(Authority::Majority, &[]);
    rig.tell(Event::Hold { id: HoldId(1), lease: Duration::from_secs(5) });
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    assert_eq!(rig.holds(), Some(Err(HoldError::Busy)));
    let mut rig = Rig::new(Authority::Majority, &[B]);
    rig.record.primary = Some(B);
    rig.meet(B, CLUSTER);
    let standing = Standing { role: Role::Primary, ..rig.standing(B) };
    rig.hear(B, Message::Standing(Box::new(standing)));
    rig.tell(Event::Hold { id: HOLD, lease: Duration::from_secs(5) });
    assert_eq!(rig.holds(), Some(Err(HoldError::Elsewhere(B))));
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
