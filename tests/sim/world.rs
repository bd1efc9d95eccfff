//! The world: time, the network, and what engines' commands do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use blkrep::engine::{Answer, ClientId, Command, DiskIo, DiskOutcome, Event, OpId, RequestId, Ticket};
use blkrep::units::{Instant, NodeId, Record, RecordId, ResourceId};
use blkrep::wire::{BlockHash, Message};

use super::authority::Register;
use super::client::Client;
use super::disk::SECTORS_PER_BLOCK;
use super::node::Node;
use super::oracle::Oracle;
use super::rng::Rng;

pub const MS: u64 = 1_000_000;

/// Something that will happen.
#[derive(Debug)]
pub enum Happening {
    Deliver { to: usize, from: usize, epoch: u64, item: Item },
    LinkUp { at: usize, peer: usize, epoch: u64 },
    LinkDown { at: usize, peer: usize, epoch: u64, silent: bool },
    Connect { a: usize, b: usize },
    Ping { at: usize, peer: usize, epoch: u64, life: u32 },
    DiskDone { at: usize, life: u32, op: OpId, io: DiskIo, data: Vec<u64> },
    MetaDone { at: usize, life: u32, op: OpId },
    Propose { at: usize, life: u32, ticket: Ticket, proposal: Option<(RecordId, Record)> },
    Answer { at: usize, life: u32, ticket: Ticket, answer: Answer },
    Wake { at: usize, life: u32 },
    Client { at: usize },
    Restart { at: usize },
    Chaos,
}

/// What travels between nodes.
#[derive(Debug)]
pub enum Item {
    Ping(u64),
    Pong(u64),
    Message { reign: u64, message: Message, payload: Option<Vec<u64>> },
}

/// The connection of two nodes.
#[derive(Debug, Default)]
pub struct Connection {
    pub epoch: u64,
    pub up: bool,
    /// Which ends have noticed, by node.
    noticed: [bool; 2],
    last_delivery: [u64; 2],
    /// Cut off without either end being told.
    pub stalled: bool,
    held: VecDeque<(usize, usize, Item)>,
}

/// How a run goes, drawn from its seed.
#[derive(Debug, Clone)]
pub struct Manners {
    pub latency: (u64, u64),
    pub disk: (u64, u64),
    pub authority: (u64, u64),
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    counter: u64,
    pub nodes: Vec<Node>,
    pub connections: BTreeMap<(usize, usize), Connection>,
    pub partitioned: Vec<bool>,
    pub register: Register,
    pub oracle: Oracle,
    pub clients: Vec<Client>,
    pub manners: Manners,
    pub resource: ResourceId,
    pub trace: bool,
    pub majority: bool,
    pub events: u64,
}

impl World {
    pub fn new(rng: Rng, nodes: Vec<Node>, record: Record, manners: Manners, majority: bool, trace: bool) -> Self {
        let count = nodes.len();
        Self {
            now: 1_000 * MS,
            rng,
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            counter: 0,
            clients: (0..count).map(|_| Client::default()).collect(),
            nodes,
            connections: BTreeMap::new(),
            partitioned: vec![false; count],
            register: Register::new(record),
            oracle: Oracle::default(),
            manners,
            resource: ResourceId(1),
            trace,
            majority,
            events: 0,
        }
    }

    pub fn at(&mut self, when: u64, what: Happening) {
        self.counter += 1;
        self.queue.push(Reverse((when, self.counter)));
        self.happenings.insert(self.counter, what);
    }

    fn soon(&mut self, range: (u64, u64), what: Happening) {
        let after = self.rng.between(range.0, range.1);
        self.at(self.now + after, what);
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", self.now as f64 / 1e9, text());
        }
    }

    /// Lets time pass until `until`. Returns what `stop` found.
    pub fn run(&mut self, until: u64, mut chaos: impl FnMut(&mut Self)) -> Result<(), String> {
        while let Some(&Reverse((when, key))) = self.queue.peek() {
            if when > until {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(when);
            let Some(what) = self.happenings.remove(&key) else { continue };
            self.events += 1;
            if matches!(what, Happening::Chaos) {
                chaos(self);
            } else {
                self.happen(what)?;
            }
        }
        self.now = until;
        Ok(())
    }

    fn happen(&mut self, what: Happening) -> Result<(), String> {
        match what {
            Happening::Deliver { to, from, epoch, item } => self.deliver(to, from, epoch, item),
            Happening::LinkUp { at, peer, epoch } => self.link_up(at, peer, epoch),
            Happening::LinkDown { at, peer, epoch, silent } => self.link_down(at, peer, epoch, silent),
            Happening::Connect { a, b } => self.connect(a, b),
            Happening::Ping { at, peer, epoch, life } => self.ping(at, peer, epoch, life),
            Happening::DiskDone { at, life, op, io, data } => self.disk_done(at, life, op, io, &data),
            Happening::MetaDone { at, life, op } => self.meta_done(at, life, op),
            Happening::Propose { at, life, ticket, proposal } => self.propose(at, life, ticket, proposal),
            Happening::Answer { at, life, ticket, answer } => {
                if self.alive(at, life) {
                    self.say(|| format!("n{at} authority says {answer:?}"));
                    self.hand(at, Event::Answer { ticket, answer })?;
                }
                Ok(())
            }
            Happening::Wake { at, life } => {
                if self.alive(at, life) && self.nodes[at].wake.is_some_and(|wake| wake <= self.now) {
                    self.nodes[at].wake = None;
                    self.hand(at, Event::Timeout)?;
                }
                Ok(())
            }
            Happening::Client { at } => super::client::step(self, at),
            Happening::Restart { at } => self.start(at),
            Happening::Chaos => Ok(()),
        }
    }

    fn alive(&self, at: usize, life: u32) -> bool {
        self.nodes[at].engine.is_some() && self.nodes[at].life == life
    }

    /// Starts a node's engine and its connections.
    pub fn start(&mut self, at: usize) -> Result<(), String> {
        if self.nodes[at].engine.is_some() {
            return Ok(());
        }
        let seed = [self.rng.next(), self.rng.next()];
        let (now, resource) = (self.now, self.resource);
        self.nodes[at].start(now, seed, resource);
        self.say(|| format!("n{at} starts"));
        for peer in (0..self.nodes.len()).filter(|p| *p != at) {
            self.soon((MS, 20 * MS), Happening::Connect { a: at.min(peer), b: at.max(peer) });
        }
        self.carry_out(at)
    }

    /// Hands an event to a node's engine and carries its commands out.
    pub fn hand(&mut self, at: usize, event: Event) -> Result<(), String> {
        let now = Instant(self.now);
        let node = &mut self.nodes[at];
        let Some(engine) = &mut node.engine else { return Ok(()) };
        engine.handle(now, &node.links, event);
        // Sometimes a whole batch of events comes before the commands are fetched.
        if self.rng.chance(80) { self.carry_out(at) } else { self.wake(at, self.now + 10_000) }
    }

    fn wake(&mut self, at: usize, when: u64) -> Result<(), String> {
        let node = &mut self.nodes[at];
        if node.wake.is_none_or(|wake| wake > when) {
            node.wake = Some(when);
            let life = node.life;
            self.at(when, Happening::Wake { at, life });
        }
        Ok(())
    }

    pub fn carry_out(&mut self, at: usize) -> Result<(), String> {
        let mut commands = std::mem::take(&mut self.nodes[at].commands);
        let Some(engine) = &mut self.nodes[at].engine else { return Ok(()) };
        engine.take_commands(&mut commands);
        let timeout = engine.timeout();
        for command in commands.drain(..) {
            // After its stop an engine and all that it held is gone.
            if self.nodes[at].engine.is_some() {
                self.command(at, command)?;
            }
        }
        self.nodes[at].commands = commands;
        if let Some(when) = timeout
            && self.nodes[at].engine.is_some()
        {
            self.wake(at, when.0.max(self.now + 1_000))?;
        }
        Ok(())
    }

    fn command(&mut self, at: usize, command: Command) -> Result<(), String> {
        let life = self.nodes[at].life;
        match command {
            Command::Send { to, reign, message, payload } => self.send(at, to, reign, message, payload),
            Command::Disk { op, io } => {
                let data = self.data_of(at, io);
                self.soon(self.manners.disk, Happening::DiskDone { at, life, op, io, data });
            }
            Command::Meta { op, at: place, bytes } => {
                self.nodes[at].meta.begin(op.0, place, bytes);
                self.soon(self.manners.disk, Happening::MetaDone { at, life, op });
            }
            Command::Release(buffer) => self.nodes[at].buffers.release(buffer),
            Command::Copy { from, from_at, into, into_at, len } => {
                let part = |at: u64, len: u64| usize::try_from(at / 512).unwrap()..usize::try_from((at + len) / 512).unwrap();
                let bytes = self.nodes[at].buffers.get(from).unwrap()[part(from_at, len)].to_vec();
                self.nodes[at].buffers.get_mut(into).unwrap()[part(into_at, len)].copy_from_slice(&bytes);
            }
            Command::Propose { ticket, expect, record } => {
                self.say(|| format!("n{at} proposes {record:?}"));
                self.soon(self.manners.authority, Happening::Propose { at, life, ticket, proposal: Some((expect, record)) });
            }
            Command::ReadRecord { ticket } => {
                self.soon(self.manners.authority, Happening::Propose { at, life, ticket, proposal: None });
            }
            Command::AskLease(node) => {
                let peer = node.0 as usize;
                self.send_ping(at, peer);
            }
            Command::Complete { id, result } => return self.completed(at, id, result.is_ok()),
            Command::Attached { client, result } => {
                self.say(|| format!("n{at} attach: {result:?}"));
                super::client::attached(self, at, client, result.is_ok());
            }
            // One that still waits to be attached has no session to lose.
            Command::DropClients if self.clients[at].attached => super::client::dropped(self, at),
            Command::DropClients => {}
            Command::Stopped { clean } => {
                self.say(|| format!("n{at} stopped, clean {clean}"));
                self.nodes[at].stopped = clean;
                self.end(at, false);
            }
        }
        Ok(())
    }

    fn completed(&mut self, at: usize, id: RequestId, ok: bool) -> Result<(), String> {
        super::client::completed(self, at, id, ok)
    }

    /// The sectors that an operation writes.
    fn data_of(&self, at: usize, io: DiskIo) -> Vec<u64> {
        match io {
            DiskIo::Write { range, buffer, .. } => {
                let len = usize::try_from(range.count * SECTORS_PER_BLOCK).unwrap();
                self.nodes[at].buffers.get(buffer).expect("a write of a live buffer")[..len].to_vec()
            }
            _ => Vec::new(),
        }
    }

    fn disk_done(&mut self, at: usize, life: u32, op: OpId, io: DiskIo, data: &[u64]) -> Result<(), String> {
        if !self.alive(at, life) {
            return Ok(());
        }
        let outcome = if self.nodes[at].broken { DiskOutcome::Failed } else { self.perform(at, io, data) };
        self.hand(at, Event::DiskDone { op, outcome })
    }

    fn perform(&mut self, at: usize, io: DiskIo, data: &[u64]) -> DiskOutcome {
        let node = &mut self.nodes[at];
        match io {
            DiskIo::Write { range, fua, .. } => {
                let first = range.first * SECTORS_PER_BLOCK;
                for (n, &value) in data.iter().enumerate() {
                    node.disk.write(first + n as u64, value);
                }
                if fua {
                    node.disk.flush_sectors(first, data.len() as u64);
                }
                DiskOutcome::Done(None)
            }
            DiskIo::Zero { range, fua, .. } => {
                let (first, count) = (range.first * SECTORS_PER_BLOCK, range.count * SECTORS_PER_BLOCK);
                (first..first + count).for_each(|sector| node.disk.write(sector, 0));
                if fua {
                    node.disk.flush_sectors(first, count);
                }
                DiskOutcome::Done(None)
            }
            DiskIo::Flush => {
                node.disk.flush();
                DiskOutcome::Done(None)
            }
            DiskIo::Read { range, buffer, detect_zeroes } => {
                let sectors = sectors_of(node, range.first, range.count);
                if detect_zeroes && sectors.iter().all(|s| *s == 0) {
                    return DiskOutcome::Zeroes;
                }
                match buffer {
                    Some(buffer) => {
                        if let Some(into) = node.buffers.get_mut(buffer) {
                            into[..sectors.len()].copy_from_slice(&sectors);
                        }
                        DiskOutcome::Done(Some(buffer))
                    }
                    None => DiskOutcome::Done(Some(node.buffers.insert(sectors))),
                }
            }
            DiskIo::ReadEdge { range, buffer, block_in_buffer, from, len } => {
                let sectors = sectors_of(node, range.first, 1);
                let (from, len) = (usize::try_from(from / 512).unwrap(), usize::try_from(len / 512).unwrap());
                let into_at = usize::try_from(block_in_buffer * SECTORS_PER_BLOCK).unwrap() + from;
                if let Some(into) = node.buffers.get_mut(buffer) {
                    into[into_at..into_at + len].copy_from_slice(&sectors[from..from + len]);
                }
                DiskOutcome::Done(None)
            }
            DiskIo::Hash { range } => {
                let blocks = (range.first..range.end()).map(|block| hash(&sectors_of(node, block, 1)));
                DiskOutcome::Hashed(blocks.collect())
            }
        }
    }

    fn meta_done(&mut self, at: usize, life: u32, op: OpId) -> Result<(), String> {
        if !self.alive(at, life) {
            return Ok(());
        }
        let ok = !self.nodes[at].broken;
        if ok {
            self.nodes[at].meta.end(op.0);
        }
        self.hand(at, Event::MetaDone { op, ok })
    }

    fn propose(&mut self, at: usize, life: u32, ticket: Ticket, proposal: Option<(RecordId, Record)>) -> Result<(), String> {
        let answer = if !self.register.reachable || self.partitioned[at] {
            Answer::Unknown
        } else {
            match proposal {
                Some((expect, record)) => self.register.propose(expect, record),
                None => Answer::Is(self.register.record.clone()),
            }
        };
        // An answer may be lost after the change was made.
        let answer = if self.rng.chance(5) { Answer::Unknown } else { answer };
        self.soon(self.manners.authority, Happening::Answer { at, life, ticket, answer });
        Ok(())
    }

    // The network.

    fn connection(&mut self, a: usize, b: usize) -> &mut Connection {
        self.connections.entry((a.min(b), a.max(b))).or_default()
    }

    fn send(&mut self, at: usize, to: NodeId, reign: u64, message: Message, payload: Option<blkrep::engine::BufferId>) {
        let blocks = match &message {
            Message::Write(write) => write.range.count,
            Message::ReadReply { .. } => u64::MAX,
            _ => 0,
        };
        let payload = payload.map(|buffer| {
            let all = self.nodes[at].buffers.get(buffer).expect("a payload is a live buffer");
            let len = blocks.saturating_mul(SECTORS_PER_BLOCK).min(all.len() as u64);
            all[..usize::try_from(len).unwrap()].to_vec()
        });
        self.transmit(at, to.0 as usize, Item::Message { reign, message, payload });
    }

    fn send_ping(&mut self, at: usize, peer: usize) {
        let times = self.nodes[at].settings.timeouts;
        let now = self.now;
        let id = self.nodes[peer].id;
        let link = self.nodes[at].link(id, now);
        if link.is_up() {
            let number = link.ping(Instant(now), &times);
            self.transmit(at, peer, Item::Ping(number));
        }
    }

    fn transmit(&mut self, at: usize, to: usize, item: Item) {
        let (now, latency) = (self.now, self.rng.between(self.manners.latency.0, self.manners.latency.1));
        let connection = self.connection(at, to);
        if !connection.up {
            return;
        }
        let way = usize::from(at > to);
        let when = (now + latency).max(connection.last_delivery[way] + 1);
        connection.last_delivery[way] = when;
        let epoch = connection.epoch;
        self.at(when, Happening::Deliver { to, from: at, epoch, item });
    }

    fn deliver(&mut self, to: usize, from: usize, epoch: u64, item: Item) -> Result<(), String> {
        let connection = self.connection(from, to);
        if connection.epoch != epoch || !connection.up {
            return Ok(());
        }
        if connection.stalled {
            connection.held.push_back((to, from, item));
            return Ok(());
        }
        let now = self.now;
        let from_id = self.nodes[from].id;
        let node = &mut self.nodes[to];
        if node.engine.is_none() || !node.link(from_id, now).is_up() {
            return Ok(());
        }
        node.link(from_id, now).heard(Instant(now));
        match item {
            Item::Ping(number) => {
                node.link(from_id, now).granted(Instant(now));
                self.transmit(to, from, Item::Pong(number));
                Ok(())
            }
            Item::Pong(number) => {
                if node.link(from_id, now).ponged(number) {
                    self.hand(to, Event::LeaseRenewed)?;
                }
                Ok(())
            }
            Item::Message { reign, message, payload } => {
                self.say(|| format!("n{to} < n{from} [{reign}] {}", shorten(&message)));
                let payload = payload.map(|sectors| self.nodes[to].buffers.insert(sectors));
                self.hand(to, Event::Message { from: from_id, reign, message, payload })
            }
        }
    }

    fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
        let both = self.nodes[a].engine.is_some() && self.nodes[b].engine.is_some();
        let cut = self.partitioned[a] != self.partitioned[b];
        let busy = {
            let connection = self.connection(a, b);
            connection.up || connection.noticed.contains(&true)
        };
        if !both || busy {
            return Ok(());
        }
        if cut {
            self.soon((10 * MS, 40 * MS), Happening::Connect { a, b });
            return Ok(());
        }
        let now = self.now;
        let connection = self.connection(a, b);
        connection.epoch += 1;
        connection.up = true;
        connection.stalled = false;
        connection.held.clear();
        let epoch = connection.epoch;
        connection.last_delivery = [now + 3 * MS; 2];
        self.soon((100_000, 2 * MS), Happening::LinkUp { at: a, peer: b, epoch });
        self.soon((100_000, 2 * MS), Happening::LinkUp { at: b, peer: a, epoch });
        Ok(())
    }

    fn link_up(&mut self, at: usize, peer: usize, epoch: u64) -> Result<(), String> {
        let connection = self.connection(at, peer);
        if connection.epoch != epoch || !connection.up || self.nodes[at].engine.is_none() {
            return Ok(());
        }
        self.connection(at, peer).noticed[usize::from(at > peer)] = true;
        let (now, id) = (self.now, self.nodes[peer].id);
        self.nodes[at].link(id, now).connected(Instant(now));
        let life = self.nodes[at].life;
        self.at(now, Happening::Ping { at, peer, epoch, life });
        self.hand(at, Event::LinkUp(id))
    }

    fn link_down(&mut self, at: usize, peer: usize, epoch: u64, silent: bool) -> Result<(), String> {
        let way = usize::from(at > peer);
        let connection = self.connection(at, peer);
        if connection.epoch != epoch || connection.up {
            return Ok(());
        }
        let noticed = std::mem::take(&mut connection.noticed[way]);
        let all = connection.noticed == [false, false];
        if all {
            self.soon((MS, 40 * MS), Happening::Connect { a: at.min(peer), b: at.max(peer) });
        }
        if noticed && self.nodes[at].engine.is_some() {
            let (now, id) = (self.now, self.nodes[peer].id);
            self.nodes[at].link(id, now).disconnected();
            self.hand(at, Event::LinkDown { peer: id, silent })?;
        }
        Ok(())
    }

    /// Breaks a connection: what is under way is lost, and the ends notice at moments of their own.
    pub fn sever(&mut self, a: usize, b: usize, silent_for: Option<usize>) {
        let connection = self.connection(a, b);
        if !connection.up {
            return;
        }
        connection.up = false;
        connection.held.clear();
        let epoch = connection.epoch;
        for (at, peer) in [(a, b), (b, a)] {
            let silent = silent_for == Some(at);
            let range = if silent { (0, 0) } else { (10_000, 8 * MS) };
            self.soon(range, Happening::LinkDown { at, peer, epoch, silent });
        }
    }

    /// Lets a stalled connection flow again.
    pub fn unstall(&mut self, a: usize, b: usize) -> Result<(), String> {
        let connection = self.connection(a, b);
        connection.stalled = false;
        let (held, epoch) = (std::mem::take(&mut connection.held), connection.epoch);
        for (to, from, item) in held {
            self.deliver(to, from, epoch, item)?;
        }
        Ok(())
    }

    fn ping(&mut self, at: usize, peer: usize, epoch: u64, life: u32) -> Result<(), String> {
        let connection = self.connection(at, peer);
        if connection.epoch != epoch || !connection.up || !self.alive(at, life) {
            return Ok(());
        }
        let (now, id) = (self.now, self.nodes[peer].id);
        let times = self.nodes[at].settings.timeouts;
        if self.nodes[at].link(id, now).is_silent(Instant(now), &times) {
            self.say(|| format!("n{at} gives n{peer} up: silent"));
            self.sever(at, peer, Some(at));
            return Ok(());
        }
        self.send_ping(at, peer);
        let heartbeat = u64::try_from(times.heartbeat.as_nanos()).unwrap();
        self.at(now + heartbeat, Happening::Ping { at, peer, epoch, life });
        Ok(())
    }

    /// A node's engine ends: its process was killed, or its machine lost power.
    pub fn end(&mut self, at: usize, power: bool) {
        if self.nodes[at].engine.is_none() {
            return;
        }
        self.newest_record();
        self.nodes[at].engine = None;
        let mut rng = self.rng.clone();
        rng.next();
        self.nodes[at].meta.crash(&mut rng, power);
        if power {
            self.nodes[at].disk.lose_power(&mut rng);
        }
        self.rng = rng;
        self.nodes[at].lost_power |= power;
        super::client::dropped(self, at);
        self.nodes[at].buffers = super::node::Buffers::default();
        for peer in (0..self.nodes.len()).filter(|p| *p != at) {
            self.connection(at, peer).noticed[usize::from(at > peer)] = false;
            self.sever(at, peer, None);
            let connection = self.connection(at, peer);
            connection.noticed[usize::from(at > peer)] = false;
        }
        self.check_total_loss();
    }

    /// The record that the cluster goes by: the authority's, or without one the newest of any node.
    pub fn newest_record(&mut self) -> Record {
        if !self.majority {
            let of = |node: &Node| node.engine.as_ref().and_then(|e| e.status().record);
            let newest = self.nodes.iter().filter_map(of).max_by_key(|r| r.number);
            if let Some(record) = newest.filter(|r| r.number > self.register.record.number) {
                self.register.record = record;
            }
        }
        self.register.record.clone()
    }

    /// Whether no replica is left that has, in its own life, what was acknowledged and not flushed.
    fn check_total_loss(&mut self) {
        let in_sync = self.newest_record().in_sync;
        let survives =
            |node: &Node| in_sync.contains_key(&node.id) && (node.engine.is_some() || node.stopped) && !node.lost_power;
        if !self.nodes.iter().any(survives) {
            self.say(|| "every replica in sync has lost its power".into());
            self.oracle.all_lost_power();
        }
    }
}

fn sectors_of(node: &Node, block: u64, count: u64) -> Vec<u64> {
    let first = block * SECTORS_PER_BLOCK;
    (first..first + count * SECTORS_PER_BLOCK).map(|sector| node.disk.read(sector)).collect()
}

fn hash(sectors: &[u64]) -> BlockHash {
    let mix = |seed: u64| sectors.iter().fold(seed, |h, s| (h ^ s).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(1).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(2).to_le_bytes());
    BlockHash(bytes)
}

fn shorten(message: &Message) -> String {
    let text = format!("{message:?}");
    if text.len() > 260 { format!("{}…", text.chars().take(260).collect::<String>()) } else { text }
}

/// Keeps a client id unique in the world.
pub fn client_id(at: usize, n: u64) -> ClientId {
    ClientId((at as u64) << 32 | n)
}
