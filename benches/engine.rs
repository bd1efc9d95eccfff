//! What the replication engine itself costs: two engines that hand each other messages, on disks that are done at once.

use std::collections::{BTreeMap, VecDeque};

use blkrep::engine::{
    Answer, BufferId, ClientId, Command, DiskOutcome, Engine, Event, Identity, Links, Peer, Request, RequestId, Settings,
    Timeouts,
};
use blkrep::format::{Loaded, Loader, NewReplica, PeerSlot, SUPERBLOCK, Step, area_len, create, superblock_at};
use blkrep::units::{
    Authority, ClusterId, Incarnation, Instant, NodeId, Protocol, Record, RecordId, ReplicaId, ResourceId, VolumeId,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const NODES: [NodeId; 2] = [NodeId(0), NodeId(1)];
const BYTES: u64 = 1 << 30;
const BLOCK: u64 = 4096;
const CLIENT: ClientId = ClientId(1);

/// Two nodes with a replica each; the client is at the first.
struct Pair {
    engines: [Engine; 2],
    links: Links,
    now: Instant,
    record: Record,
    /// What is on its way to a node.
    events: VecDeque<(usize, Event)>,
    commands: Vec<Command>,
    answered: u64,
    asked: u64,
}

impl Pair {
    fn new() -> Self {
        let in_sync = NODES.iter().map(|node| (*node, Incarnation(100 + u64::from(node.0)))).collect();
        let record = Record::first(RecordId(77), in_sync, Authority::Majority);
        let now = Instant(1_000_000_000);
        let engines = [0, 1].map(|at| engine(at, &record, now));
        let events = [(0, Event::Timeout), (1, Event::Timeout), (0, Event::LinkUp(NODES[1])), (1, Event::LinkUp(NODES[0]))];
        let (events, links, commands) = (events.into(), Links::new(), Vec::new());
        let mut pair = Self { engines, links, now, record, events, commands, answered: 0, asked: 0 };
        pair.settle();
        pair.events.push_back((0, Event::Attach(CLIENT)));
        pair.settle();
        pair
    }

    /// Hands events on until there are none, a batch a node, as a shard does.
    fn settle(&mut self) {
        while !self.events.is_empty() {
            for (at, event) in std::mem::take(&mut self.events) {
                self.engines[at].handle(self.now, &self.links, event);
            }
            for at in 0..2 {
                let mut commands = std::mem::take(&mut self.commands);
                self.engines[at].take_commands(&mut commands);
                commands.drain(..).for_each(|command| self.carry_out(at, command));
                self.commands = commands;
            }
        }
    }

    fn carry_out(&mut self, at: usize, command: Command) {
        let event = match command {
            Command::Meta { op, .. } => Event::MetaDone { op, ok: true },
            Command::Disk { op, .. } => Event::DiskDone { op, outcome: DiskOutcome::Done(None) },
            Command::Send { to, reign, message, payload } => {
                let to = usize::try_from(to.0).expect("a small number");
                return self.events.push_back((to, Event::Message { from: NODES[at], reign, message, payload }));
            }
            Command::Propose { ticket, record, .. } => {
                self.record = record;
                Event::Answer { ticket, answer: Answer::Granted }
            }
            Command::ReadRecord { ticket } => Event::Answer { ticket, answer: Answer::Is(self.record.clone()) },
            Command::Complete { result, .. } => {
                result.expect("nothing fails here");
                self.answered += 1;
                return;
            }
            _ => return,
        };
        self.events.push_back((at, event));
    }

    /// Writes `depth` blocks at once and waits for all. Time goes on, so that memory is settled in between.
    fn write(&mut self, depth: u64) {
        for _ in 0..depth {
            self.asked += 1;
            let (id, offset) = (RequestId(self.asked), self.asked * 17 % (BYTES / BLOCK) * BLOCK);
            let request = Request::Write { volume: VolumeId(0), offset, len: BLOCK, buffer: BufferId(1), fua: false };
            self.events.push_back((0, Event::Request { id, client: CLIENT, request }));
        }
        self.settle();
        self.now = self.now.after(std::time::Duration::from_micros(100));
        for at in 0..2 {
            if self.engines[at].timeout().is_some_and(|when| when <= self.now) {
                self.events.push_back((at, Event::Timeout));
            }
        }
        self.settle();
        assert_eq!(self.answered, self.asked, "every write is answered");
    }
}

fn engine(at: usize, record: &Record, now: Instant) -> Engine {
    let (node, peer) = (NODES[at], NODES[1 - at]);
    let (cluster, resource) = (ClusterId(1), ResourceId(1));
    let volumes: BTreeMap<_, _> = [(VolumeId(0), BYTES)].into();
    let base = Some((record.number, record.id));
    let new = NewReplica {
        cluster,
        resource,
        node,
        replica: ReplicaId(500 + u64::from(node.0)),
        incarnation: record.in_sync[&node],
        record: Some(record.clone()),
        synced: base,
        peers: vec![PeerSlot { node: peer, base }],
        volumes: volumes.clone(),
        slots: 7,
    };
    let settings = Settings {
        peers: [(
            peer,
            Peer {
                name: format!("n{peer}").parse().expect("a name"),
                diskful: true,
                leaving: false,
                paused: false,
                apart: false,
            },
        )]
        .into(),
        volumes,
        protocol: Protocol::C,
        authority: Authority::Majority,
        io_fails_after: None,
        after_split_brain: blkrep::units::AfterSplitBrain::default(),
        resync_max: 0,
        timeouts: Timeouts::default(),
    };
    Engine::start(Identity { cluster, resource, node, seed: [1, u64::from(node.0)] }, settings, Some(load(&new)), now)
}

/// What a new replica's metadata area reads as.
fn load(new: &NewReplica) -> Loaded {
    let size = |bytes: u64| usize::try_from(bytes).expect("it fits");
    let mut area = vec![0; size(area_len(&new.volumes, new.slots))];
    for step in create(new).expect("a layout") {
        if let Step::Write { at, bytes } = step {
            area[size(at)..size(at) + bytes.len()].copy_from_slice(&bytes);
        }
    }
    let piece = |at: u64, len: usize| &area[size(at)..][..len];
    let superblocks = [0, 1].map(|copy| piece(superblock_at(copy), SUPERBLOCK));
    let mut loader = Loader::new(superblocks[0], superblocks[1], area.len() as u64).expect("a superblock");
    for span in loader.pieces() {
        loader.feed(span.at, piece(span.at, size(span.len)));
    }
    loader.finish()
}

fn writes(c: &mut Criterion) {
    let mut group = c.benchmark_group("replicated 4 KiB writes, both engines");
    for depth in [1, 32] {
        let mut pair = Pair::new();
        group.throughput(Throughput::Elements(depth));
        group.bench_function(format!("{depth} at once"), |b| b.iter(|| pair.write(depth)));
    }
    group.finish();
}

criterion_group!(benches, writes);
criterion_main!(benches);
