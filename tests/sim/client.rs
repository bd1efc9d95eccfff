//! Clients: one a node, that attaches, reads and writes for a while, and goes.

use std::collections::BTreeMap;

use blkrep::engine::{BufferId, ClientId, Event, Request, RequestId};
use blkrep::units::{BLOCK, BlockRange, Protocol, Role, Sharing, VolumeId};

use super::disk::{SECTOR, SECTORS_PER_BLOCK};
use super::invariants::{alone, everywhere, forks};
use super::sharing::{self, Beside};
use super::world::{Happening, MS, World, client_id};

#[derive(Debug, Default)]
pub struct Client {
    pub id: Option<ClientId>,
    pub attached: bool,
    /// When it asked to be let in, and when it was.
    pub asked: u64,
    pub entered: u64,
    /// With whom it shares.
    pub sharing: Sharing,
    /// The last moment at which it asked for something that was answered.
    pub answered: u64,
    pub beside: Beside,
    /// Since when somebody was let in elsewhere whom it does not suffer.
    pub cut: Option<u64>,
    /// Steps until it leaves.
    left: u64,
    pub count: u64,
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
    /// Its node was not primary.
    forwarded: bool,
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

/// The most requests that a client has under way.
pub const REQUESTS_MAX: usize = 12;

/// What a client does next.
pub fn step(world: &mut World, at: usize) -> Result<(), String> {
    // Together they ask for as much as one of them alone.
    let together = world.clients.iter().filter(|client| client.attached).count().max(1) as u64;
    let after = world.rng.between(100_000, 3 * MS) * together;
    let brief = world.manners.brief;
    let silent = if brief && !world.quiet { super::brief::silence(&mut world.rng) } else { 0 };
    world.at(world.now + after + silent, Happening::Client { at });
    if world.nodes[at].engine.is_none() {
        return Ok(());
    }
    if world.manners.shares {
        sharing::step(world, at)?;
    }
    let working = world.clients[at].working || !world.clients[at].to_read.is_empty();
    match (world.clients[at].id, world.clients[at].attached) {
        (None, _) if working && (world.rng.chance(if brief { 15 } else { 3 }) || !world.clients[at].to_read.is_empty()) => {
            attach(world, at)
        }
        (Some(id), true) if world.clients[at].left == 0 || !working => {
            if world.clients[at].is_idle() || world.rng.chance(10) {
                dropped(world, at);
                world.spring("detached", at, at);
                return world.hand(at, Event::Detach(id));
            }
            Ok(())
        }
        (Some(id), true) => {
            world.clients[at].left -= 1;
            for _ in 0..world.rng.below(4) {
                if world.clients[at].open.len() < REQUESTS_MAX && world.clients[at].attached {
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
    world.clients[at].asked = world.now;
    world.clients[at].sharing = sharing::draw(world);
    world.hand(at, Event::AttachAs(id, world.clients[at].sharing))
}

pub fn attached(world: &mut World, at: usize, id: ClientId, ok: bool) {
    sharing::attached(world, at, id, ok);
    let left = if world.manners.brief { super::brief::steps(&mut world.rng) } else { world.rng.between(20, 800) };
    let client = &mut world.clients[at];
    if client.id == Some(id) {
        client.attached = ok;
        client.left = left;
        (client.entered, client.answered) = (world.now, 0);
        client.cut = None;
        if ok {
            world.oracle.entered(world.now, client.asked);
        } else {
            client.id = None;
        }
    }
}

/// The node's clients lose their sessions: what was not answered is unknown.
pub fn dropped(world: &mut World, at: usize) {
    let client = &mut world.clients[at];
    client.id = None;
    client.attached = false;
    let now = world.now;
    for open in std::mem::take(&mut client.open).into_values() {
        match open.what {
            What::Read { buffer, .. } if world.nodes[at].engine.is_some() => world.nodes[at].buffers.release(buffer),
            What::Write { sectors, value, .. } => world.oracle.gone(now, sectors, value, open.began, open.forwarded),
            _ => {}
        }
    }
}

/// A request that is being made.
fn open(world: &mut World, at: usize, id: RequestId, what: What) {
    let primary = world.nodes[at].engine.as_ref().is_some_and(|e| e.status().role == Role::Primary);
    world.clients[at].open.insert(id, Open { began: world.now, forwarded: !primary, what });
}

fn request(world: &mut World, at: usize, client: ClientId) -> Result<(), String> {
    world.clients[at].requests += 1;
    let id = RequestId(world.clients[at].requests);
    if let Some(sector) = world.clients[at].to_read.pop() {
        return read(world, at, client, id, sector..sector + 1);
    }
    let sectors = somewhere(world, at);
    let only_reads = world.clients[at].sharing == Sharing::Readers;
    match if only_reads { 40 } else { world.rng.below(100) } {
        0..40 => write(world, at, client, id, sectors),
        40..80 => read(world, at, client, id, sectors),
        80..92 => {
            open(world, at, id, What::Flush);
            world.hand(at, Event::Request { id, client, request: Request::Flush })
        }
        _ => zero(world, at, client, id, sectors),
    }
}

/// A few hot places, so that requests overlap and extents matter; the border between two extents, and a volume's end.
fn somewhere(world: &mut World, at: usize) -> std::ops::Range<u64> {
    const EXTENT: u64 = 8192;
    let (volume, first, count) = world.volumes[usize::try_from(world.rng.below(world.volumes.len() as u64)).unwrap()];
    // One that has grown, as far as a client may know.
    let served = world.nodes[at].engine.as_ref().and_then(|engine| engine.volume_bytes(volume));
    let count = served.map_or(count, |bytes| count.min(bytes / SECTOR));
    let extent = world.rng.below(count.div_ceil(EXTENT)) * EXTENT;
    let within = match world.rng.below(10) {
        0 => (extent + EXTENT).min(count).saturating_sub(world.rng.between(1, 24)),
        _ => extent + world.rng.below(96),
    };
    let within = if world.rng.chance(40) { within / SECTORS_PER_BLOCK * SECTORS_PER_BLOCK } else { within };
    // A volume that has grown may end soon after its last extent begins.
    let within = if within < count { within } else { count - SECTORS_PER_BLOCK };
    let len = if world.rng.chance(40) { SECTORS_PER_BLOCK } else { world.rng.between(1, 40) };
    first + within..first + (within + len).min(count)
}

/// Where sectors of a disk lie in their volume.
struct Place {
    volume: VolumeId,
    offset: u64,
    len: u64,
    /// Sectors of the first block before them.
    skip: usize,
    /// Sectors of all their blocks.
    whole: usize,
}

fn place(world: &World, sectors: &std::ops::Range<u64>) -> Place {
    let (volume, first, _) = *world.volumes.iter().rev().find(|(_, first, _)| *first <= sectors.start).expect("in a volume");
    let (offset, len) = ((sectors.start - first) * SECTOR, (sectors.end - sectors.start) * SECTOR);
    let range = BlockRange::covering(volume, offset, len);
    let skip = usize::try_from(offset % BLOCK / SECTOR).unwrap();
    Place { volume, offset, len, skip, whole: usize::try_from(range.count * SECTORS_PER_BLOCK).unwrap() }
}

fn write(world: &mut World, at: usize, client: ClientId, id: RequestId, sectors: std::ops::Range<u64>) -> Result<(), String> {
    let Place { volume, offset, len, skip, whole } = place(world, &sectors);
    let fua = world.rng.chance(15);
    let value = world.oracle.begin(world.now, sectors.clone(), false);
    let mut content = vec![u64::MAX; whole];
    content[skip..skip + usize::try_from(sectors.end - sectors.start).unwrap()].fill(value);
    let buffer = world.nodes[at].buffers.insert(content);
    let what = What::Write { sectors: sectors.clone(), value, fua };
    open(world, at, id, what);
    world.say(|| format!("n{at} {id:?} writes {value} to {sectors:?}"));
    world.hand(at, Event::Request { id, client, request: Request::Write { volume, offset, len, buffer, fua } })
}

fn read(world: &mut World, at: usize, client: ClientId, id: RequestId, sectors: std::ops::Range<u64>) -> Result<(), String> {
    let Place { volume, offset, len, skip, whole } = place(world, &sectors);
    let buffer = world.nodes[at].buffers.insert(vec![u64::MAX; whole]);
    world.nodes[at].buffers.retain(buffer);
    open(world, at, id, What::Read { sectors, buffer, skip });
    world.hand(at, Event::Request { id, client, request: Request::Read { volume, offset, len, buffer } })
}

fn zero(world: &mut World, at: usize, client: ClientId, id: RequestId, sectors: std::ops::Range<u64>) -> Result<(), String> {
    let Place { volume, offset, len, skip, .. } = place(world, &sectors);
    let range = BlockRange::covering(volume, offset, len);
    let first = sectors.start - skip as u64;
    let sectors = first..first + range.count * SECTORS_PER_BLOCK;
    let (unmap, fua) = (world.rng.chance(50), world.rng.chance(15));
    world.oracle.begin(world.now, sectors.clone(), true);
    let what = What::Write { sectors, value: 0, fua };
    open(world, at, id, what);
    world.hand(at, Event::Request { id, client, request: Request::Zero { range, unmap, fua } })
}

pub fn completed(world: &mut World, at: usize, id: RequestId, ok: bool) -> Result<(), String> {
    let all = world.clients.iter().flat_map(|client| client.open.values());
    world.oracle.oldest = all.map(|open| open.began).min().unwrap_or(world.now);
    let Some(open) = world.clients[at].open.remove(&id) else { return Ok(()) };
    let content = match open.what {
        What::Read { buffer, .. } => {
            let content = world.nodes[at].buffers.get(buffer).cloned().unwrap_or_default();
            world.nodes[at].buffers.release(buffer);
            content
        }
        _ => Vec::new(),
    };
    let for_nothing = matches!(open.what, What::Write { .. }) && !counts(world, at, open.forwarded);
    if ok && !for_nothing {
        alone::answered(world, at, open.began)?;
    }
    match open.what {
        What::Write { sectors, value, .. } if !ok => {
            world.oracle.gone(world.now, sectors, value, open.began, open.forwarded);
        }
        _ if !ok => {}
        What::Flush => {
            world.say(|| format!("n{at} {id:?} acknowledged: flush of {}", open.began));
            everywhere::flushed(world, at, open.began)?;
            world.oracle.flushed(open.began);
            world.spring("flushed", at, at);
        }
        What::Write { sectors, value, fua } => {
            world.say(|| format!("n{at} {id:?} acknowledged: {value} in {sectors:?}"));
            let newer = open.forwarded.then_some(open.began);
            everywhere::written(world, at, sectors.clone(), value, fua, newer)?;
            if !open.forwarded {
                forks::note_answer(world, at);
            }
            if counts(world, at, open.forwarded) {
                world.oracle.acked(world.now, sectors, value, open.began, fua);
            } else {
                world.oracle.ended(world.now, sectors, value, open.began);
            }
            world.spring("written", at, at);
        }
        // Where two sides may go on, either may be read after the other was written.
        What::Read { .. } if world.manners.forks && !world.settled => {}
        What::Read { sectors, skip, .. } => {
            for (n, sector) in sectors.enumerate() {
                world.oracle.read(open.began, world.now, sector, content[skip + n])?;
            }
        }
    }
    Ok(())
}

/// Protocols A and B answer what a primary that was deposed and does not know it yet has written, for nothing.
fn counts(world: &World, at: usize, forwarded: bool) -> bool {
    let reign = world.nodes[at].engine.as_ref().and_then(|e| e.status().record).map(|r| r.reign);
    world.manners.protocol == Protocol::C || !forwarded && (!world.majority || reign == Some(world.register.record.reign))
}
