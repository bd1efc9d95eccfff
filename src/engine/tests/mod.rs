//! One engine among peers that are played by hand: what it asks for, and in which moment.
//!
//! Whole clusters are the simulator's. Here is what a cluster survives either way and only a list of commands can show: that a peer is not
//! waited for, that a question is put to another one, that a stranger is refused.

mod alone;
mod discards;
mod forwards;
mod holds;
mod no_quorum;
mod peers;
mod promotes;
mod reigns;
mod targets;
mod verify;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::format::{Loaded, Loader, NewReplica, PeerSlot, SUPERBLOCK, Step, area_len, create, superblock_at};
use crate::units::{
    AfterSplitBrain, Authority, BlockRange, ClusterId, DiskState, Incarnation, Instant, NodeId, Protocol, Record, RecordId,
    ReplicaId, ResourceId, Role, Sharing, VolumeId,
};
use crate::wire::{BlockHash, Introduction, Message, RecordPoint, ReplicaStanding, Report, Standing};

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
    /// Whether writes of metadata stay under way.
    holds_metadata: bool,
    storing: Vec<OpId>,
    /// Whether flushes stay under way.
    holds_flushes: bool,
    flushing: Vec<OpId>,
    /// What is being hashed here.
    hashing: Vec<(OpId, BlockRange)>,
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
            peers: peers.iter().map(|n| (*n, peer(*n, false))).collect(),
            volumes,
            protocol: Protocol::C,
            authority,
            io_fails_after: None,
            after_split_brain: AfterSplitBrain::default(),
            resync_max: 0,
            timeouts: Timeouts::default(),
        };
        Self::start(record, settings, Some(load(&new)))
    }

    /// Node 0 without a replica, while those of `peers` are in sync.
    fn bare(peers: &[NodeId]) -> Self {
        Self::bare_under(Authority::Majority, peers)
    }

    fn bare_under(authority: Authority, peers: &[NodeId]) -> Self {
        let settings = Self::new(authority, peers).engine.settings;
        let in_sync = peers.iter().map(|n| (*n, Incarnation(100 + u64::from(n.0)))).collect();
        Self::start(Record::first(RecordId(77), in_sync, authority), settings, None)
    }

    fn start(record: Record, settings: Settings, replica: Option<Loaded>) -> Self {
        let identity = Identity { cluster: CLUSTER, resource: RESOURCE, node: ME, seed: [1, 2] };
        let now = Instant(1_000_000_000);
        let engine = Engine::start(identity, settings, replica, now);
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
            holds_metadata: false,
            storing: Vec::new(),
            holds_flushes: false,
            flushing: Vec::new(),
            hashing: Vec::new(),
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

    /// Nothing happens until the engine wants to be woken.
    fn sleep(&mut self) {
        self.now = self.engine.timeout().expect("it wants to be woken");
        self.tell(Event::Timeout);
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
            Command::Meta { op, .. } if self.holds_metadata => {
                self.storing.push(op);
                None
            }
            Command::Meta { op, .. } => Some(Event::MetaDone { op, ok: !self.metadata_fails }),
            Command::Disk { op, io: DiskIo::Flush, .. } if self.holds_flushes => {
                self.flushing.push(op);
                None
            }
            // Comparing takes time.
            Command::Disk { op, io: DiskIo::Hash { range } } => {
                self.hashing.push((op, range));
                None
            }
            Command::Disk { op, io: DiskIo::Read { detect_zeroes: true, .. } } if !self.disk_fails => {
                Some(Event::DiskDone { op, outcome: DiskOutcome::Zeroes })
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
            sharing: None,
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

    /// A peer answers the flush that it was asked for last.
    fn durable_on(&mut self, node: NodeId, seq: u64) {
        let asked =
            |(to, m): &(NodeId, Message)| if let (true, Message::Flush { id }) = (*to == node, m) { Some(*id) } else { None };
        let id = self.sent.iter().rev().find_map(asked).expect("it is asked to flush");
        self.hear(node, Message::Flushed { id, durable: seq });
    }

    /// So much time passes, and the engine is woken whenever it wants to be.
    fn pass(&mut self, time: Duration) {
        let until = self.now.after(time);
        while let Some(at) = self.engine.timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.tell(Event::Timeout);
        }
        self.now = until;
    }

    /// Clients of a node come to node 0, which is primary.
    fn serve_guest(&mut self, node: NodeId) {
        self.hear(node, Message::Serve { session: 7, entry: 1, waits: true, sharing: Sharing::Shared });
        assert!(self.sent.iter().any(|(to, m)| *to == node && matches!(m, Message::Serving { .. })), "{:?}", self.sent);
    }

    /// The numbers of the writes of zeroes that a peer was sent.
    fn zeroes_sent(&self, node: NodeId) -> Vec<u64> {
        let seq =
            |(to, m): &(NodeId, Message)| if let (true, Message::Zero(zero)) = (*to == node, m) { Some(zero.seq) } else { None };
        self.sent.iter().filter_map(seq).collect()
    }

    /// A peer's comparison of blocks with node 0's: they are the same.
    fn all_equal(&mut self, node: NodeId) {
        for (op, range) in std::mem::take(&mut self.hashing) {
            let asked = |(to, m): &(NodeId, Message)| match m {
                Message::Hash { id, range: of } if *to == node && *of == range => Some(*id),
                _ => None,
            };
            let id = self.sent.iter().find_map(asked).expect("it is asked for the same blocks");
            let hashes = vec![BlockHash([1; 16]); usize::try_from(range.count).unwrap()];
            self.hear(node, Message::Hashes { id, hashes: hashes.clone() });
            self.tell(Event::DiskDone { op, outcome: DiskOutcome::Hashed(hashes) });
        }
    }

    fn writes_sent(&self, node: NodeId) -> usize {
        self.sent.iter().filter(|(to, m)| *to == node && matches!(m, Message::Write(_))).count()
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

fn peer(node: NodeId, leaving: bool) -> Peer {
    Peer { name: format!("n{node}").parse().unwrap(), diskful: true, leaving, paused: false, apart: false }
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
