//! A node: its disks outlive its engine.

use std::cell::Cell;
use std::collections::BTreeMap;

use blkrep::engine::{BufferId, Command, Engine, Identity, Link, Links, Settings};
use blkrep::format::{Loaded, Loader, NewReplica, SUPERBLOCK, Step, create, superblock_at};
use blkrep::units::{Incarnation, Instant, NodeId, ReplicaId, VolumeId};

use super::disk::{Disk, Meta, SECTOR};

pub struct Node {
    pub id: NodeId,
    /// Counts the engine's lives; what was asked for in one is not answered in another.
    pub life: u32,
    pub engine: Option<Engine>,
    /// It has no replica, only clients. Its disks are there and nobody uses them.
    pub diskless: bool,
    pub links: Links,
    pub disk: Disk,
    pub meta: Meta,
    pub settings: Settings,
    pub cluster: blkrep::units::ClusterId,
    pub buffers: Buffers,
    pub commands: Vec<Command>,
    /// When the engine's next timeout was scheduled for.
    pub wake: Option<u64>,
    pub clock: Clock,
    pub failing: Failing,
    /// No operation on its disks ends before this.
    pub hung_until: u64,
    /// The process gets no time before this.
    pub paused_until: u64,
    /// The incarnation that the metadata named when this life began: as long as it still does, nothing of this life is stored.
    pub before: Incarnation,
    /// The last life ended with a clean stop.
    pub stopped: bool,
    /// Its power went, or its disk failed, in a life that the record may still name; for the oracle.
    pub lost: bool,
    /// Its disks as they were at a clean stop.
    pub image: Option<Box<(Disk, Meta, Life)>>,
    first_sectors: BTreeMap<VolumeId, u64>,
    /// What [`life`](Self::life) found last, and when.
    known: Cell<Option<(u64, Life)>>,
    /// The reign in which the engine has sent last.
    pub reign: u64,
}

/// Whose life the metadata tells of.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub incarnation: Incarnation,
    pub continues: Incarnation,
    pub clean: bool,
    pub inconsistent: bool,
}

/// A node's clock: it drifts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    pub ahead: u64,
    /// Nanoseconds gained (or, when negative, lost) a millisecond.
    pub drift: i64,
}

impl Clock {
    pub fn at(self, now: u64) -> Instant {
        let gained = i64::try_from(now / 1_000_000).unwrap() * self.drift;
        Instant((now + self.ahead).checked_add_signed(gained).unwrap())
    }

    /// When this clock shows `instant`, or a little later.
    pub fn when(self, instant: Instant) -> u64 {
        let shown = i64::try_from(instant.0.saturating_sub(self.ahead)).unwrap_or(i64::MAX / 2);
        let now = u64::try_from(i128::from(shown) * 1_000_000 / i128::from(1_000_000 + self.drift)).unwrap_or(0);
        now + 1_000_000
    }
}

/// What a node's disks refuse now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failing {
    pub reads: bool,
    pub writes: bool,
    pub flushes: bool,
    pub metadata: bool,
}

/// Buffers by number. Contents are sectors.
#[derive(Debug, Default)]
pub struct Buffers {
    map: BTreeMap<u32, (Vec<u64>, u32)>,
    next: u32,
}

impl Buffers {
    pub fn insert(&mut self, sectors: Vec<u64>) -> BufferId {
        self.next += 1;
        self.map.insert(self.next, (sectors, 1));
        BufferId(self.next)
    }

    pub fn get(&self, id: BufferId) -> Option<&Vec<u64>> {
        self.map.get(&id.0).map(|b| &b.0)
    }

    pub fn get_mut(&mut self, id: BufferId) -> Option<&mut Vec<u64>> {
        self.map.get_mut(&id.0).map(|b| &mut b.0)
    }

    /// One more user.
    pub fn retain(&mut self, id: BufferId) {
        self.map.get_mut(&id.0).expect("a live buffer").1 += 1;
    }

    pub fn release(&mut self, id: BufferId) {
        let buffer = self.map.get_mut(&id.0).unwrap_or_else(|| panic!("buffer {id:?} was released too often"));
        buffer.1 -= 1;
        if buffer.1 == 0 {
            self.map.remove(&id.0);
        }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }
}

impl Node {
    /// A node with a fresh replica.
    pub fn new(new: &NewReplica, settings: Settings, clock: Clock) -> Self {
        let mut first_sectors = BTreeMap::new();
        let mut sectors = 0;
        for (&volume, &bytes) in &new.volumes {
            first_sectors.insert(volume, sectors);
            sectors += bytes / SECTOR;
        }
        Self {
            id: new.node,
            life: 0,
            engine: None,
            diskless: false,
            links: Links::new(),
            disk: Disk::new(sectors),
            meta: area(new),
            settings,
            cluster: new.cluster,
            buffers: Buffers::default(),
            commands: Vec::new(),
            wake: None,
            clock,
            failing: Failing::default(),
            hung_until: 0,
            paused_until: 0,
            before: Incarnation(0),
            stopped: true,
            lost: false,
            image: None,
            first_sectors,
            known: Cell::new(None),
            reign: 0,
        }
    }

    /// Begins a life.
    pub fn start(&mut self, now: u64, seed: [u64; 2], resource: blkrep::units::ResourceId) {
        self.life += 1;
        self.links = Links::new();
        self.buffers = Buffers::default();
        self.commands.clear();
        self.wake = None;
        self.stopped = false;
        self.reign = 0;
        self.failing = Failing::default();
        let identity = Identity { cluster: self.cluster, resource, node: self.id, seed };
        let loaded = (!self.diskless).then(|| self.load());
        self.before = loaded.as_ref().map_or(Incarnation(0), |loaded| loaded.superblock.incarnation);
        self.engine = Some(Engine::start(identity, self.settings.clone(), loaded, self.clock.at(now)));
    }

    /// The present or last life, as the metadata names it.
    pub fn life(&self) -> Life {
        if let Some((_, life)) = self.known.get().filter(|(at, _)| *at == self.meta.superblocks) {
            return life;
        }
        let superblock = self.load().superblock;
        let life = Life {
            incarnation: superblock.incarnation,
            continues: superblock.continues,
            clean: superblock.clean,
            inconsistent: superblock.inconsistent,
        };
        self.known.set(Some((self.meta.superblocks, life)));
        life
    }

    /// What is in the metadata area now.
    pub fn load(&self) -> Loaded {
        let piece = |at: u64, len: usize| {
            let at = usize::try_from(at).unwrap();
            &self.meta.bytes[at..at + len]
        };
        let slot = |n| piece(superblock_at(n), SUPERBLOCK);
        let mut loader = Loader::new(slot(0), slot(1), self.meta.bytes.len() as u64).expect("one superblock is always whole");
        for span in loader.pieces() {
            loader.feed(span.at, piece(span.at, usize::try_from(span.len).unwrap()));
        }
        loader.finish()
    }

    /// Another disk takes the place of this node's: empty, a replica that was never in sync.
    pub fn replace_disk(&mut self, replica: ReplicaId) {
        let old = self.load().superblock;
        let peers = old.peers.iter().map(|p| blkrep::format::PeerSlot { node: p.node, base: None });
        let new = NewReplica {
            cluster: old.cluster,
            resource: old.resource,
            node: old.node,
            replica,
            incarnation: Incarnation(replica.0),
            record: None,
            synced: None,
            peers: peers.collect(),
            volumes: self.settings.volumes.clone(),
            slots: 7,
        };
        self.disk = Disk::new(self.disk.sectors().len() as u64);
        self.meta = area(&new);
        self.known.set(None);
        self.image = None;
    }

    /// What the disks held earlier is on them again.
    pub fn restore(&mut self, image: (Disk, Meta, Life)) {
        (self.disk, self.meta, _) = image;
        self.known.set(None);
    }

    /// Where a volume's sectors begin on the disk.
    pub fn first_sector(&self, volume: VolumeId) -> u64 {
        self.first_sectors[&volume]
    }

    pub fn link(&mut self, peer: NodeId, now: u64) -> &mut Link {
        let now = self.clock.at(now);
        self.links.entry(peer).or_insert_with(|| Link::new(now))
    }
}

fn area(new: &NewReplica) -> Meta {
    let mut meta = Meta::new(blkrep::format::area_len(&new.volumes, new.slots));
    for step in create(new).expect("a small replica") {
        if let Step::Write { at, bytes } = step {
            meta.put(at, &bytes);
        }
    }
    meta
}
