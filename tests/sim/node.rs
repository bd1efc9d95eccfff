//! A node: its disks outlive its engine.

use std::collections::BTreeMap;

use blkrep::engine::{BufferId, Command, Engine, Identity, Link, Links, Settings};
use blkrep::format::{Loaded, Loader, NewReplica, SUPERBLOCK, Step, create, superblock_at};
use blkrep::units::{Instant, NodeId};

use super::disk::{Disk, Meta};

pub struct Node {
    pub id: NodeId,
    /// Counts the engine's lives; what was asked for in one is not answered in another.
    pub life: u32,
    pub engine: Option<Engine>,
    pub links: Links,
    pub disk: Disk,
    pub meta: Meta,
    pub settings: Settings,
    pub cluster: blkrep::units::ClusterId,
    pub buffers: Buffers,
    pub commands: Vec<Command>,
    /// When the engine's next timeout was scheduled for.
    pub wake: Option<u64>,
    /// Its disk fails everything.
    pub broken: bool,
    /// The last life ended with a clean stop.
    pub stopped: bool,
    /// The power went, or the process died, since the node was last a member; for the oracle.
    pub lost_power: bool,
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
    pub fn new(id: NodeId, new: &NewReplica, settings: Settings, sectors: u64) -> Self {
        let mut meta = Meta::new(blkrep::format::area_len(&new.volumes, new.slots));
        for step in create(new).expect("a small replica") {
            if let Step::Write { at, bytes } = step {
                meta.put(at, &bytes);
            }
        }
        Self {
            id,
            life: 0,
            engine: None,
            links: Links::new(),
            disk: Disk::new(sectors),
            meta,
            settings,
            cluster: new.cluster,
            buffers: Buffers::default(),
            commands: Vec::new(),
            wake: None,
            broken: false,
            stopped: true,
            lost_power: false,
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
        let identity = Identity { cluster: self.cluster, resource, node: self.id, seed };
        let loaded = self.load();
        self.engine = Some(Engine::start(identity, self.settings.clone(), Some(loaded), Instant(now)));
    }

    fn load(&self) -> Loaded {
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

    pub fn link(&mut self, peer: NodeId, now: u64) -> &mut Link {
        self.links.entry(peer).or_insert_with(|| Link::new(Instant(now)))
    }
}
