//! Clients: one a node, that attaches, reads and writes for a while, and goes.

use std::collections::BTreeMap;

use blkrep::engine::{BufferId, ClientId, Event, Request, RequestId};
use blkrep::units::{BlockRange, VolumeId};

use super::disk::{SECTOR, SECTORS_PER_BLOCK};
use super::world::{Happening, MS, World, client_id};

#[derive(Debug, Default)]
pub struct Client {
    pub id: Option<ClientId>,
    pub attached: bool,
    /// Steps until it leaves.
    left: u64,
    count: u64,
    requests: u64,
    open: BTreeMap<RequestId, Open>,
    /// Whether new requests are made.
    pub working: bool,
    /// What the last phase wants read: the sectors, a few at a time.
    pub to_read: Vec<u64>,
}

#[derive(Debug)]
struct Open {
    began: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Read { sectors: std::ops::Range<u64>, buffer: BufferId, skip: usize },
    Write { sectors: std::ops::Range<u64>, value: u64, fua: bool },
    Flush,
}

impl Client {
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }
}

const V: VolumeId = VolumeId(0);

/// What a client does next.
pub fn step(world: &mut World, at: usize) -> Result<(), String> {
    let after = world.rng.between(100_000, 3 * MS);
    world.at(world.now + after, Happening::Client { at });
    if world.nodes[at].engine.is_none() {
        return Ok(());
    }
    let working = world.clients[at].working || !world.clients[at].to_read.is_empty();
    match (world.clients[at].id, world.clients[at].attached) {
        (None, _) if working && (world.rng.chance(3) || !world.clients[at].to_read.is_empty()) => attach(world, at),
        (Some(id), true) if world.clients[at].left == 0 || !working => {
            if world.clients[at].is_idle() || world.rng.chance(10) {
                dropped(world, at);
                return world.hand(at, Event::Detach(id));
            }
            Ok(())
        }
        (Some(id), true) => {
            world.clients[at].left -= 1;
            for _ in 0..world.rng.below(4) {
                if world.clients[at].open.len() < 12 && world.clients[at].attached {
                    request(world, at, id)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn attach(world: &mut World, at: usize) -> Result<(), String> {
    world.clients[at].count += 1;
    let id = client_id(at, world.clients[at].count);
    world.clients[at].id = Some(id);
    world.hand(at, Event::Attach(id))
}

pub fn attached(world: &mut World, at: usize, id: ClientId, ok: bool) {
    let left = world.rng.between(20, 800);
    let client = &mut world.clients[at];
    if client.id == Some(id) {
        client.attached = ok;
        client.left = left;
        if !ok {
            client.id = None;
        }
    }
}

/// The node's clients lose their sessions: what was not answered is unknown.
pub fn dropped(world: &mut World, at: usize) {
    let client = &mut world.clients[at];
    client.id = None;
    client.attached = false;
    for open in std::mem::take(&mut client.open).into_values() {
        if let (What::Read { buffer, .. }, true) = (open.what, world.nodes[at].engine.is_some()) {
            world.nodes[at].buffers.release(buffer);
        }
    }
}

fn request(world: &mut World, at: usize, client: ClientId) -> Result<(), String> {
    world.clients[at].requests += 1;
    let id = RequestId(world.clients[at].requests);
    let all = world.nodes[at].disk.sectors().len() as u64;
    if let Some(sector) = world.clients[at].to_read.pop() {
        return read(world, at, client, id, sector..sector + 1);
    }
    // A few hot places, so that requests overlap and extents matter.
    let extent = world.rng.below(all / 8192) * 8192;
    let first = extent + world.rng.below(96);
    let len = if world.rng.chance(40) { SECTORS_PER_BLOCK } else { world.rng.between(1, 40) };
    let first = if world.rng.chance(40) { first / SECTORS_PER_BLOCK * SECTORS_PER_BLOCK } else { first };
    let sectors = first..(first + len).min(all);
    match world.rng.below(100) {
        0..40 => write(world, at, client, id, sectors),
        40..80 => read(world, at, client, id, sectors),
        80..92 => {
            world.clients[at].open.insert(id, Open { began: world.now, what: What::Flush });
            world.hand(at, Event::Request { id, client, request: Request::Flush })
        }
        _ => zero(world, at, client, id, sectors),
    }
}

fn covering(sectors: &std::ops::Range<u64>) -> (u64, u64, usize, usize) {
    let (offset, len) = (sectors.start * SECTOR, (sectors.end - sectors.start) * SECTOR);
    let range = BlockRange::covering(V, offset, len);
    let skip = usize::try_from(sectors.start - range.first * SECTORS_PER_BLOCK).unwrap();
    (offset, len, skip, usize::try_from(range.count * SECTORS_PER_BLOCK).unwrap())
}

fn write(world: &mut World, at: usize, client: ClientId, id: RequestId, sectors: std::ops::Range<u64>) -> Result<(), String> {
    let (offset, len, skip, whole) = covering(&sectors);
    let fua = world.rng.chance(15);
    let value = world.oracle.begin(world.now, sectors.clone(), false);
    let mut content = vec![u64::MAX; whole];
    content[skip..skip + usize::try_from(sectors.end - sectors.start).unwrap()].fill(value);
    let buffer = world.nodes[at].buffers.insert(content);
    let what = What::Write { sectors: sectors.clone(), value, fua };
    world.clients[at].open.insert(id, Open { began: world.now, what });
    world.say(|| format!("n{at} {id:?} writes {value} to {sectors:?}"));
    world.hand(at, Event::Request { id, client, request: Request::Write { volume: V, offset, len, buffer, fua } })
}

fn read(world: &mut World, at: usize, client: ClientId, id: RequestId, sectors: std::ops::Range<u64>) -> Result<(), String> {
    let (offset, len, skip, whole) = covering(&sectors);
    let buffer = world.nodes[at].buffers.insert(vec![u64::MAX; whole]);
    world.nodes[at].buffers.retain(buffer);
    world.clients[at].open.insert(id, Open { began: world.now, what: What::Read { sectors, buffer, skip } });
    world.hand(at, Event::Request { id, client, request: Request::Read { volume: V, offset, len, buffer } })
}

fn zero(world: &mut World, at: usize, client: ClientId, id: RequestId, sectors: std::ops::Range<u64>) -> Result<(), String> {
    let first = sectors.start / SECTORS_PER_BLOCK;
    let count = (sectors.end - sectors.start).div_ceil(SECTORS_PER_BLOCK);
    let sectors = first * SECTORS_PER_BLOCK..(first + count) * SECTORS_PER_BLOCK;
    let (unmap, fua) = (world.rng.chance(50), world.rng.chance(15));
    world.oracle.begin(world.now, sectors.clone(), true);
    let what = What::Write { sectors, value: 0, fua };
    world.clients[at].open.insert(id, Open { began: world.now, what });
    let range = BlockRange { volume: V, first, count };
    world.hand(at, Event::Request { id, client, request: Request::Zero { range, unmap, fua } })
}

pub fn completed(world: &mut World, at: usize, id: RequestId, ok: bool) -> Result<(), String> {
    let Some(open) = world.clients[at].open.remove(&id) else { return Ok(()) };
    let content = match open.what {
        What::Read { buffer, .. } => {
            let content = world.nodes[at].buffers.get(buffer).cloned().unwrap_or_default();
            world.nodes[at].buffers.release(buffer);
            content
        }
        _ => Vec::new(),
    };
    if !ok {
        return Ok(());
    }
    match open.what {
        What::Flush => world.oracle.flushed(open.began),
        What::Write { sectors, value, fua } => {
            world.say(|| format!("n{at} {id:?} acknowledged: {value} in {sectors:?}"));
            world.oracle.acked(world.now, sectors, value, open.began, fua);
        }
        What::Read { sectors, skip, .. } => {
            for (n, sector) in sectors.enumerate() {
                world.oracle.read(open.began, world.now, sector, content[skip + n])?;
            }
        }
    }
    Ok(())
}
