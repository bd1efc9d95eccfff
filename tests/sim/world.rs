//! The world: time, nodes that live and die, and what engines are told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use blkrep::engine::{Answer, ClientId, Command, DiskIo, Event, OpId, Ticket};
use blkrep::units::{NodeId, Protocol, Record, RecordId, ResourceId, Role, VolumeId};

use super::ambush::Ambush;
use super::authority::Register;
use super::client::Client;
use super::invariants;
use super::network::{Connection, Item};
use super::node::Node;
use super::oracle::Oracle;
use super::rng::Rng;

pub const MS: u64 = 1_000_000;

/// Something that will happen.
#[derive(Debug)]
pub enum Happening {
    Deliver {
        to: usize,
        from: usize,
        epoch: u64,
        item: Item,
    },
    LinkUp {
        at: usize,
        peer: usize,
        epoch: u64,
    },
    LinkDown {
        at: usize,
        peer: usize,
        epoch: u64,
        silent: bool,
    },
    Connect {
        a: usize,
        b: usize,
    },
    Ping {
        at: usize,
        peer: usize,
        epoch: u64,
        life: u32,
    },
    DiskDone {
        at: usize,
        life: u32,
        op: OpId,
        io: DiskIo,
    },
    MetaDone {
        at: usize,
        life: u32,
        op: OpId,
    },
    Propose {
        at: usize,
        life: u32,
        ticket: Ticket,
        proposal: Option<(RecordId, Record)>,
    },
    Answer {
        at: usize,
        life: u32,
        ticket: Ticket,
        answer: Answer,
    },
    Wake {
        at: usize,
        life: u32,
    },
    Client {
        at: usize,
    },
    Restart {
        at: usize,
    },
    Kill {
        at: usize,
        power: bool,
    },
    Stop {
        at: usize,
    },
    Check,
    Grow,
    /// Somebody wants a snapshot.
    Hold,
    /// He does the next thing for it.
    Snap,
    /// Somebody wants the replicas compared.
    Verify,
    /// The operator does something else.
    Operate,
    Configure {
        at: usize,
        life: u32,
    },
    Chaos,
}

impl Happening {
    /// The node that has to be running for it: one whose process gets no time sees it later.
    fn needs(&self) -> Option<usize> {
        match *self {
            Self::Deliver { to: at, .. }
            | Self::LinkUp { at, .. }
            | Self::LinkDown { at, .. }
            | Self::Ping { at, .. }
            | Self::DiskDone { at, .. }
            | Self::MetaDone { at, .. }
            | Self::Answer { at, .. }
            | Self::Wake { at, .. }
            | Self::Client { at }
            | Self::Stop { at } => Some(at),
            _ => None,
        }
    }
}

/// How a run goes, drawn from its seed.
#[derive(Debug, Clone)]
pub struct Manners {
    pub latency: (u64, u64),
    pub disk: (u64, u64),
    pub authority: (u64, u64),
    /// One frame in so many is damaged on its way; 0 for none.
    pub damaged: u64,
    pub protocol: Protocol,
    /// Without a majority nodes may be cut off from each other: the two sides may both go on.
    pub forks: bool,
    /// Clients stay for a moment.
    pub brief: bool,
    /// Some of them do not share with others.
    pub shares: bool,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    /// The owner's randomness.
    pub owner: Rng,
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
    pub holds: super::holds::Holds,
    pub verify: super::verify::Verify,
    pub operator: super::operator::Operator,
    pub ambush: Option<Ambush>,
    pub resource: ResourceId,
    pub trace: bool,
    pub majority: bool,
    /// Volumes: their first sectors on every disk, and how many they have.
    pub volumes: Vec<(VolumeId, u64, u64)>,
    /// What each record follows, those that said on some node that something had been written under them, and those under which a write was
    /// answered: for forks.
    pub parents: BTreeMap<RecordId, Option<RecordId>>,
    pub written: BTreeSet<RecordId>,
    pub answered: BTreeSet<RecordId>,
    /// Forwarded writes on their way, by session and number.
    pub forwarded: BTreeSet<(u64, u64)>,
    /// Faults are over.
    pub quiet: bool,
    /// The replicas are one again.
    pub settled: bool,
    pub replicas: u64,
}

impl World {
    pub fn new(rng: Rng, nodes: Vec<Node>, record: Record, manners: Manners, trace: bool) -> Self {
        let count = nodes.len();
        let first = |(&volume, &bytes): (&VolumeId, &u64)| (volume, nodes[0].first_sector(volume), bytes / super::disk::SECTOR);
        Self {
            now: 1_000 * MS,
            rng,
            owner: Rng::new(0),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            counter: 0,
            clients: (0..count).map(|_| Client::default()).collect(),
            volumes: nodes[0].settings.volumes.iter().map(first).collect(),
            nodes,
            connections: BTreeMap::new(),
            partitioned: vec![false; count],
            majority: record.authority == blkrep::units::Authority::Majority,
            register: Register::new(record),
            oracle: Oracle::default(),
            manners,
            holds: super::holds::Holds::default(),
            verify: super::verify::Verify::default(),
            operator: super::operator::Operator::default(),
            ambush: None,
            resource: ResourceId(1),
            trace,
            parents: BTreeMap::new(),
            written: BTreeSet::new(),
            answered: BTreeSet::new(),
            forwarded: BTreeSet::new(),
            quiet: false,
            settled: false,
            replicas: 0,
        }
    }

    /// Lets something happen at times that are drawn from a row of their own, so many as `count` says; the row goes on with what is left.
    pub fn strew(&mut self, mut row: Rng, count: (u64, u64), until: u64, happening: impl Fn() -> Happening) -> Rng {
        for _ in 0..row.between(count.0, count.1) {
            let when = row.between(self.now, until);
            self.at(when, happening());
        }
        row
    }

    pub fn at(&mut self, when: u64, what: Happening) {
        self.counter += 1;
        self.queue.push(Reverse((when, self.counter)));
        self.happenings.insert(self.counter, what);
    }

    pub fn soon(&mut self, range: (u64, u64), what: Happening) {
        let after = self.rng.between(range.0, range.1);
        self.at(self.now + after, what);
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6} {}", self.now as f64 / 1e9, text());
        }
    }

    /// Lets time pass until `until`.
    pub fn run(&mut self, until: u64, mut chaos: impl FnMut(&mut Self)) -> Result<(), String> {
        while let Some(&Reverse((when, key))) = self.queue.peek() {
            if when > until {
                break;
            }
            self.queue.pop();
            self.now = self.now.max(when);
            let Some(what) = self.happenings.remove(&key) else { continue };
            let paused = what.needs().map_or(0, |at| self.nodes[at].paused_until);
            if paused > self.now {
                self.at(paused, what);
            } else if matches!(what, Happening::Chaos) {
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
            Happening::DiskDone { at, life, op, io } => self.disk_done(at, life, op, io),
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
            Happening::Kill { .. } | Happening::Stop { .. } if self.quiet => Ok(()),
            Happening::Kill { at, power } => self.kill(at, power),
            Happening::Stop { at } => self.hand(at, Event::Stop),
            Happening::Check => {
                self.soon((50 * MS, 400 * MS), Happening::Check);
                invariants::during(self)
            }
            Happening::Grow => {
                super::owner::grow(self);
                Ok(())
            }
            Happening::Hold => super::holds::ask(self),
            Happening::Snap => super::holds::step(self),
            Happening::Verify => super::verify::ask(self),
            Happening::Operate => super::operator::act(self),
            Happening::Configure { at, life } if self.alive(at, life) => super::owner::configure(self, at),
            Happening::Configure { .. } => Ok(()),
            Happening::Chaos => Ok(()),
        }
    }

    pub fn alive(&self, at: usize, life: u32) -> bool {
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
        self.look(at)
    }

    /// Has a node's engine do what is due at this moment.
    pub fn look(&mut self, at: usize) -> Result<(), String> {
        let node = &mut self.nodes[at];
        if let Some(engine) = &mut node.engine {
            engine.handle(node.clock.at(self.now), &node.links, Event::Timeout);
        }
        self.carry_out(at)
    }

    /// Hands an event to a node's engine and carries its commands out.
    pub fn hand(&mut self, at: usize, event: Event) -> Result<(), String> {
        let node = &mut self.nodes[at];
        let now = node.clock.at(self.now);
        let Some(engine) = &mut node.engine else { return Ok(()) };
        engine.handle(now, &node.links, event);
        if self.manners.forks {
            invariants::forks::note_record(self, at);
        }
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
        invariants::awake::check(self, at)?;
        self.do_all(at, commands.drain(..))?;
        self.nodes[at].commands = commands;
        if let Some(when) = timeout
            && self.nodes[at].engine.is_some()
        {
            let when = self.nodes[at].clock.when(when);
            self.wake(at, when.max(self.now + 1_000))?;
        }
        Ok(())
    }

    /// Carries out an engine's commands.
    pub fn do_all(&mut self, at: usize, commands: impl IntoIterator<Item = Command>) -> Result<(), String> {
        for command in commands {
            // After its stop an engine and all that it held is gone.
            if self.nodes[at].engine.is_some() {
                self.command(at, command)?;
            }
        }
        Ok(())
    }

    fn command(&mut self, at: usize, command: Command) -> Result<(), String> {
        let life = self.nodes[at].life;
        match command {
            Command::Send { to, reign, message, payload } => self.send(at, to, reign, message, payload),
            Command::Disk { op, io } => self.submit(at, op, io),
            Command::Meta { op, at: place, bytes } => self.submit_meta(at, op, place, bytes),
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
            Command::Complete { id, result } => return super::client::completed(self, at, id, result.is_ok()),
            Command::Attached { client, result } => {
                self.say(|| format!("n{at} attach: {result:?}"));
                self.spring("attached", at, at);
                super::client::attached(self, at, client, result.is_ok());
            }
            Command::DropClients => {
                // A reign has ended, perhaps after its last client has gone.
                self.early_answers_lost();
                // One that still waits to be attached has no session to lose.
                if self.clients[at].attached {
                    super::client::dropped(self, at);
                }
            }
            Command::Held { id, result } => super::holds::held(self, at, id, result),
            Command::Released { id, whole } => return super::holds::released(self, id, whole),
            Command::Operated { id, result } => super::verify::operated(self, at, id, result),
            Command::Configured => {}
            Command::Stopped { clean } => {
                self.say(|| format!("n{at} stopped, clean {clean}"));
                self.nodes[at].stopped = clean;
                self.end(at, false);
            }
        }
        Ok(())
    }

    fn propose(&mut self, at: usize, life: u32, ticket: Ticket, proposal: Option<(RecordId, Record)>) -> Result<(), String> {
        let answer = if !self.register.reachable || self.partitioned[at] {
            Answer::Unknown
        } else {
            match proposal {
                Some((expect, record)) => self.decide(at, expect, record)?,
                None => Answer::Is(self.register.record.clone()),
            }
        };
        // An answer may be lost after the change was made.
        let answer = if self.rng.chance(5) { Answer::Unknown } else { answer };
        self.soon(self.manners.authority, Happening::Answer { at, life, ticket, answer });
        Ok(())
    }

    fn decide(&mut self, at: usize, expect: RecordId, record: Record) -> Result<Answer, String> {
        let before = self.register.record.clone();
        let answer = self.register.propose(expect, record);
        if answer == Answer::Granted {
            self.spring("granted", at, at);
            if before.primary.is_some() && before.reign != self.register.record.reign {
                self.early_answers_lost();
            }
            invariants::writers::check(&self.register.history)?;
        }
        Ok(answer)
    }

    /// Protocols A and B answer a write before it is everywhere: a reign that does not end by itself may take such writes with it.
    pub fn early_answers_lost(&mut self) {
        if self.manners.protocol != Protocol::C {
            self.oracle.unflushed_lost(self.now);
        }
    }

    /// A process gets no time for a while. What would happen to it waits, in order.
    pub fn pause(&mut self, at: usize, time: u64) {
        let node = &mut self.nodes[at];
        node.paused_until = node.paused_until.max(self.now + time);
    }

    /// A process is killed, or a machine loses its power.
    pub fn kill(&mut self, at: usize, power: bool) -> Result<(), String> {
        if self.nodes[at].engine.is_some() {
            self.say(|| format!("n{at} is killed, power lost: {power}"));
            self.end(at, power);
            invariants::during(self)?;
        }
        Ok(())
    }

    /// A node's engine ends: its process was killed, or its machine lost power, or it has stopped.
    fn end(&mut self, at: usize, power: bool) {
        if self.nodes[at].engine.is_none() {
            return;
        }
        self.newest_record();
        self.note_lives();
        let primary = self.nodes[at].engine.as_ref().is_some_and(|e| e.status().role == Role::Primary);
        if primary {
            self.early_answers_lost();
        }
        let mut rng = self.rng.clone();
        rng.next();
        let node = &mut self.nodes[at];
        node.engine = None;
        node.meta.crash(&mut rng, power);
        // What a flush that failed was to keep may be gone whenever it is looked at again.
        if node.diskless {
            // Nothing is lost with it.
        } else if power || node.failing.flushes {
            node.disk.lose_power(&mut rng);
            node.lost = true;
        } else {
            node.disk.lose_process(&mut rng);
        }
        if node.stopped {
            let life = node.life();
            node.image = Some(Box::new((node.disk.clone(), node.meta.clone(), life)));
        }
        self.rng = rng;
        super::client::dropped(self, at);
        self.clients[at].beside = super::sharing::Beside::default();
        self.nodes[at].buffers = super::node::Buffers::default();
        self.hang_up(at);
        self.check_total_loss();
    }

    /// The record that the cluster goes by: the authority's, or without one the newest of any node.
    pub fn newest_record(&mut self) -> Record {
        if !self.majority {
            let of = |node: &Node| node.engine.as_ref().and_then(|e| e.status().record);
            let before = &self.register.record;
            // What nobody goes by any more, when everybody is up, was one side's that gave way.
            let given_up = self.nodes.iter().all(|n| of(n).is_some_and(|r| r.id != before.id));
            let newest = self.nodes.iter().filter_map(of).max_by_key(|r| r.number);
            if let Some(record) = newest.filter(|r| given_up || r.number > before.number) {
                self.register.record = record;
            }
        }
        self.register.record.clone()
    }

    /// A life that the record names has everything, whatever was lost in the lives before it.
    fn note_lives(&mut self) {
        let record = self.newest_record();
        for node in self.nodes.iter_mut().filter(|n| n.lost && n.engine.is_some() && n.failing == Default::default()) {
            node.lost = !invariants::names(&record, node);
        }
    }

    /// Whether no replica is left that has, in its own life, what was acknowledged and not flushed.
    pub fn check_total_loss(&mut self) {
        let record = self.newest_record();
        let members = || self.nodes.iter().filter(|n| record.in_sync.contains_key(&n.id));
        // A life that began uncleanly does not know whether its disk has everything, even where it has.
        let survives = |node: &Node| !node.lost && invariants::names(&record, node);
        // On its side of a fork a replica may be the only one.
        let only = |n: &Node| n.load().superblock.record.is_some_and(|r| r.in_sync.keys().eq([&n.id]));
        let alone = self.manners.forks && self.nodes.iter().any(|n| n.lost && only(n));
        if alone || !members().any(survives) && members().any(|n| n.lost) {
            self.say(|| "no replica in sync is left that did not lose its power".into());
            self.oracle.unflushed_lost(self.now);
        }
    }

    /// Whether another member than `at` has everything, so that its own disk may be lost.
    pub fn may_lose_disk(&mut self, at: usize) -> bool {
        self.note_lives();
        let record = self.newest_record();
        // It has to know so itself, or nobody could tell that its copy is whole.
        let knows = |n: &Node| !n.life().inconsistent && n.engine.as_ref().is_some_and(|e| e.status().in_sync);
        let well = |n: &Node| n.id != self.nodes[at].id && !n.lost && knows(n) && invariants::names(&record, n);
        let others_well = self.nodes.iter().filter(|n| n.id != self.nodes[at].id).all(|n| !n.lost);
        self.majority && others_well && self.nodes.iter().any(well)
    }

    pub fn index(&self, node: NodeId) -> usize {
        node.0 as usize
    }
}

/// Keeps a client id unique in the world.
pub fn client_id(at: usize, n: u64) -> ClientId {
    ClientId((at as u64) << 32 | n)
}
