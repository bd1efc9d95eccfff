//! The network: connections that break, stall and are noticed late, and frames in their real encoding, of which some are damaged.

use std::collections::VecDeque;

use blkrep::engine::{BufferId, Event};
use blkrep::units::NodeId;
use blkrep::wire::{Codec, Forwarded, Frame, Incoming, LinkMessage, Message, Parsed};

use super::disk::SECTORS_PER_BLOCK;
use super::invariants;
use super::world::{Happening, MS, World};

const CODEC: Codec = Codec::new(1, true);

/// What travels between nodes: a frame's bytes, with its payload.
#[derive(Debug)]
pub struct Item {
    /// Its place among all that was sent this way over this connection.
    place: u64,
    frame: Vec<u8>,
    payload: Vec<u8>,
    /// What was sent is not what will arrive.
    damaged: bool,
}

/// The connection of two nodes.
#[derive(Debug, Default)]
pub struct Connection {
    pub epoch: u64,
    pub up: bool,
    /// Which ends have noticed, by node.
    noticed: [bool; 2],
    last_delivery: [u64; 2],
    /// How much was sent and has arrived, each way.
    sent: [u64; 2],
    arrived: [u64; 2],
    /// Cut off without either end being told.
    pub stalled: bool,
    held: VecDeque<(usize, usize, Item)>,
}

impl World {
    fn connection(&mut self, a: usize, b: usize) -> &mut Connection {
        self.connections.entry((a.min(b), a.max(b))).or_default()
    }

    pub fn send(&mut self, at: usize, to: NodeId, reign: u64, message: Message, payload: Option<BufferId>) {
        self.nodes[at].reign = reign;
        let blocks = match &message {
            Message::Write(write) => write.range.count,
            Message::Forward { what, .. } => what.blocks().map_or(0, |blocks| blocks.count),
            Message::ReadReply { .. } | Message::Answer { .. } => u64::MAX,
            _ => 0,
        };
        self.note_forwarded(at, &message);
        let payload = payload.map_or_else(Vec::new, |buffer| {
            let all = self.nodes[at].buffers.get(buffer).expect("a payload is a live buffer");
            let len = blocks.saturating_mul(SECTORS_PER_BLOCK).min(all.len() as u64);
            let mut bytes = Vec::with_capacity(all.len() * 512);
            all[..usize::try_from(len).unwrap()]
                .iter()
                .for_each(|sector| bytes.extend_from_slice(&sector.to_le_bytes().repeat(64)));
            bytes
        });
        let mut frame = Vec::new();
        CODEC
            .encode(&Frame { resource: self.resource, reign, message }, &payload, &mut frame)
            .expect("an engine's message can be sent");
        self.transmit(at, self.index(to), frame, payload);
    }

    /// A primary that answers another node's client has written: for forks.
    fn note_forwarded(&mut self, at: usize, message: &Message) {
        match message {
            Message::Forward { session, seq, what: Forwarded::Write { .. } | Forwarded::Zero { .. }, .. } => {
                self.forwarded.insert((*session, *seq));
            }
            Message::Answer { session, seq, result } if self.forwarded.remove(&(*session, *seq)) && result.is_ok() => {
                invariants::forks::note_answer(self, at);
            }
            _ => {}
        }
    }

    pub fn send_ping(&mut self, at: usize, peer: usize) {
        let times = self.nodes[at].settings.timeouts;
        let (id, now) = (self.nodes[peer].id, self.now);
        let clock = self.nodes[at].clock.at(now);
        let link = self.nodes[at].link(id, now);
        if link.is_up() {
            let seq = link.ping(clock, &times);
            self.transmit_link(at, peer, &LinkMessage::Ping { seq, sent_at: clock.0 });
        }
    }

    fn transmit_link(&mut self, at: usize, to: usize, message: &LinkMessage) {
        let mut frame = Vec::new();
        CODEC.encode_link(message, &mut frame);
        self.transmit(at, to, frame, Vec::new());
    }

    fn transmit(&mut self, at: usize, to: usize, mut frame: Vec<u8>, mut payload: Vec<u8>) {
        let (now, latency) = (self.now, self.rng.between(self.manners.latency.0, self.manners.latency.1));
        let damaged = self.manners.damaged > 0 && !self.quiet && self.rng.below(self.manners.damaged) == 0;
        if damaged {
            let bit = usize::try_from(self.rng.below((frame.len() + payload.len()) as u64 * 8)).unwrap();
            let mut all = frame.iter_mut().chain(payload.iter_mut());
            *all.nth(bit / 8).expect("a byte of the frame") ^= 1 << (bit % 8);
        }
        let connection = self.connection(at, to);
        if !connection.up {
            return;
        }
        let way = usize::from(at > to);
        let when = (now + latency).max(connection.last_delivery[way] + 1);
        connection.last_delivery[way] = when;
        connection.sent[way] += 1;
        let (epoch, place) = (connection.epoch, connection.sent[way]);
        self.at(when, Happening::Deliver { to, from: at, epoch, item: Item { place, frame, payload, damaged } });
    }

    pub fn deliver(&mut self, to: usize, from: usize, epoch: u64, item: Item) -> Result<(), String> {
        let connection = self.connection(from, to);
        if connection.epoch != epoch || !connection.up {
            return Ok(());
        }
        if connection.stalled {
            connection.held.push_back((to, from, item));
            return Ok(());
        }
        let way = usize::from(from > to);
        if item.place != connection.arrived[way] + 1 {
            // What a stall held back for a process that gets no time comes after what was sent later: a connection keeps its order.
            self.at(self.now + 10_000, Happening::Deliver { to, from, epoch, item });
            return Ok(());
        }
        connection.arrived[way] = item.place;
        let now = self.now;
        let from_id = self.nodes[from].id;
        let node = &mut self.nodes[to];
        if node.engine.is_none() || !node.link(from_id, now).is_up() {
            return Ok(());
        }
        let Some(incoming) = decode(&item)? else {
            self.say(|| format!("n{to} ends the connection to n{from}: a damaged frame"));
            self.sever(to, from, None);
            return Ok(());
        };
        let clock = self.nodes[to].clock.at(now);
        self.nodes[to].link(from_id, now).heard(clock);
        match incoming {
            Incoming::Link(LinkMessage::Ping { seq, .. }) => {
                self.nodes[to].link(from_id, now).granted(clock);
                self.transmit_link(to, from, &LinkMessage::Pong { seq });
                Ok(())
            }
            Incoming::Link(LinkMessage::Pong { seq }) => {
                if self.nodes[to].link(from_id, now).ponged(seq) {
                    self.hand(to, Event::LeaseRenewed)?;
                }
                Ok(())
            }
            Incoming::Link(other) => Err(format!("n{to} got {other:?}, which nobody sends here")),
            Incoming::Engine(Frame { reign, message, .. }) => {
                self.say(|| format!("n{to} < n{from} [{reign}] {}", shorten(&message)));
                self.spring(super::ambush::name_of(&message), to, from);
                let sectors = item.payload.chunks(512).map(|s| u64::from_le_bytes(s[..8].try_into().unwrap())).collect();
                let payload = self.room_for(to, &message, sectors);
                if invariants::stale::is_stale(self, to, reign, &message) {
                    return invariants::stale::check(self, to, from_id, reign, message, payload);
                }
                self.hand(to, Event::Message { from: from_id, reign, message, payload })
            }
        }
    }

    /// A buffer for what a message brings, or wants read. Sometimes there is no memory for another node's client.
    fn room_for(&mut self, to: usize, message: &Message, mut sectors: Vec<u64>) -> Option<BufferId> {
        if let Message::Forward { what, .. } = message {
            if self.rng.chance(4) {
                return None;
            }
            let count = what.blocks().map_or(0, |blocks| blocks.count * SECTORS_PER_BLOCK);
            sectors.resize(usize::try_from(count).unwrap(), u64::MAX);
        }
        (!sectors.is_empty()).then(|| self.nodes[to].buffers.insert(sectors))
    }

    pub fn connect(&mut self, a: usize, b: usize) -> Result<(), String> {
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
        (connection.sent, connection.arrived) = ([0; 2], [0; 2]);
        self.soon((100_000, 2 * MS), Happening::LinkUp { at: a, peer: b, epoch });
        self.soon((100_000, 2 * MS), Happening::LinkUp { at: b, peer: a, epoch });
        Ok(())
    }

    pub fn link_up(&mut self, at: usize, peer: usize, epoch: u64) -> Result<(), String> {
        let connection = self.connection(at, peer);
        if connection.epoch != epoch || !connection.up || self.nodes[at].engine.is_none() {
            return Ok(());
        }
        self.connection(at, peer).noticed[usize::from(at > peer)] = true;
        let (now, id) = (self.now, self.nodes[peer].id);
        let clock = self.nodes[at].clock.at(now);
        self.nodes[at].link(id, now).connected(clock);
        let life = self.nodes[at].life;
        self.at(now, Happening::Ping { at, peer, epoch, life });
        self.hand(at, Event::LinkUp(id))
    }

    pub fn link_down(&mut self, at: usize, peer: usize, epoch: u64, silent: bool) -> Result<(), String> {
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

    /// A node is gone, and every connection with it.
    pub fn hang_up(&mut self, at: usize) {
        for peer in (0..self.nodes.len()).filter(|p| *p != at) {
            self.connection(at, peer).noticed[usize::from(at > peer)] = false;
            self.sever(at, peer, None);
            let connection = self.connection(at, peer);
            connection.noticed[usize::from(at > peer)] = false;
        }
    }

    /// Lets a stalled connection flow again.
    pub fn unstall(&mut self, a: usize, b: usize) {
        let connection = self.connection(a, b);
        connection.stalled = false;
        let (held, epoch) = (std::mem::take(&mut connection.held), connection.epoch);
        for (to, from, item) in held {
            self.at(self.now, Happening::Deliver { to, from, epoch, item });
        }
    }

    pub fn ping(&mut self, at: usize, peer: usize, epoch: u64, life: u32) -> Result<(), String> {
        let connection = self.connection(at, peer);
        if connection.epoch != epoch || !connection.up || !self.alive(at, life) {
            return Ok(());
        }
        let (now, id) = (self.now, self.nodes[peer].id);
        let times = self.nodes[at].settings.timeouts;
        let clock = self.nodes[at].clock.at(now);
        if self.nodes[at].link(id, now).is_silent(clock, &times) {
            self.say(|| format!("n{at} gives n{peer} up: silent"));
            self.sever(at, peer, Some(at));
            return Ok(());
        }
        self.send_ping(at, peer);
        let heartbeat = u64::try_from(times.heartbeat.as_nanos()).unwrap();
        self.at(now + heartbeat, Happening::Ping { at, peer, epoch, life });
        Ok(())
    }
}

/// What has arrived; `None` when it was found to be damaged.
fn decode(item: &Item) -> Result<Option<Incoming>, String> {
    let parsed = CODEC.parse(&item.frame);
    let whole = match parsed {
        Ok(Parsed::Whole { incoming, header, used }) if used == item.frame.len() => {
            header.check_payload(&item.payload).is_ok().then_some(incoming)
        }
        _ => None,
    };
    match (whole, item.damaged) {
        (Some(incoming), true) => Err(format!("a damaged frame was taken for {incoming:?}")),
        (None, false) => Err("a good frame was refused".into()),
        (whole, _) => Ok(whole),
    }
}

fn shorten(message: &Message) -> String {
    let text = format!("{message:?}");
    if text.len() > 260 { format!("{}…", text.chars().take(260).collect::<String>()) } else { text }
}
