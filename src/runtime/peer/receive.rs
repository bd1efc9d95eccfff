//! Bytes become messages.

use crate::engine::{BufferId, Event};
use crate::ring::Completion;
use crate::units::{NodeId, ResourceId};
use crate::wire::{Frame, FrameError, Header, Incoming, LinkMessage, Message, Parsed};

use crate::runtime::disk::Starved;
use crate::runtime::io::Token;
use crate::runtime::shard::{Shard, Speaker};
use crate::runtime::slab::Key;

/// What one peer may have looked at in one turn.
const MESSAGES: u32 = 128;

/// What a peer's next bytes are.
#[derive(Debug)]
pub(super) enum Intake {
    /// A header and a body.
    Frame,
    /// The payload of a message; the stream has the buffer.
    Payload { frame: Frame, header: Header, buffer: BufferId },
    /// The payload of a message for nobody.
    Unwanted { left: usize },
}

/// How far a step came.
enum Step {
    /// One thing was done.
    Done,
    /// More bytes are needed.
    Hungry,
    /// There is no memory for it now.
    NoMemory,
    /// The peer cannot be understood.
    Broken(FrameError),
}

impl Shard {
    pub(in crate::runtime) fn peer_received(&mut self, key: Key, completion: Completion<Token>) {
        let now = self.io.now;
        let Some((connection, link)) = self.peers.link(key) else { return };
        match connection.stream.received(completion) {
            Ok(()) => {
                link.heard(now);
                self.hear_peer(key);
            }
            Err(end) => self.close_link(key, &end, false),
        }
    }

    /// A peer's turn to try again has come.
    pub(in crate::runtime) fn hear_starved_peer(&mut self, key: Key) {
        if let Some(connection) = self.peers.get_mut(key) {
            connection.starved = false;
            self.hear_peer(key);
        }
    }

    /// Looks at what a peer has sent, up to its budget, and asks for more.
    pub(in crate::runtime) fn hear_peer(&mut self, key: Key) {
        for _ in 0..MESSAGES {
            if self.peers.get(key).is_none_or(|connection| connection.stream.is_receiving() || connection.starved) {
                return;
            }
            match self.hear_step(key) {
                Step::Done => {}
                Step::Hungry => {
                    if !self.more_from_peer(key) {
                        return;
                    }
                }
                Step::NoMemory => {
                    if let Some(connection) = self.peers.get_mut(key) {
                        connection.starved = true;
                        self.starved.push_back(Starved::Peer(key));
                    }
                    return;
                }
                Step::Broken(error) => {
                    if let Some(connection) = self.peers.get(key) {
                        tracing::warn!(peer = %connection.peer, %error, "a peer cannot be understood");
                    }
                    return self.close_link(key, &error, false);
                }
            }
        }
        self.busy.push_back(Speaker::Peer(key));
    }

    fn more_from_peer(&mut self, key: Key) -> bool {
        let Some(connection) = self.peers.get_mut(key) else { return false };
        match connection.stream.pump() {
            Ok(true) => return true,
            Ok(false) => {}
            Err(end) => {
                self.close_link(key, &end, false);
                return false;
            }
        }
        if let Some(op) = connection.stream.receive() {
            self.io.counters.receives += 1;
            self.io.push(op, Token::PeerReceive(key));
        }
        false
    }

    fn hear_step(&mut self, key: Key) -> Step {
        let Some(connection) = self.peers.get_mut(key) else { return Step::Hungry };
        match &mut connection.intake {
            Intake::Frame => {
                let parsed = match connection.codec.parse(connection.stream.staged()) {
                    Ok(parsed) => parsed,
                    Err(error) => return Step::Broken(error),
                };
                let Parsed::Whole { incoming, header, used } = parsed else { return Step::Hungry };
                match incoming {
                    Incoming::Link(message) => {
                        connection.stream.skip(used);
                        self.hear_link(key, message);
                        Step::Done
                    }
                    Incoming::Engine(frame) => self.hear_frame(key, frame, header, used),
                }
            }
            Intake::Payload { header, buffer: id, .. } => {
                let Some(buffer) = connection.stream.filled() else { return Step::Hungry };
                let (checked, id) = (header.check_payload(&buffer), *id);
                self.io.memory.restore(id, buffer);
                let Intake::Payload { frame, .. } = std::mem::replace(&mut connection.intake, Intake::Frame) else {
                    return Step::Hungry;
                };
                if let Err(error) = checked {
                    self.io.memory.release(id);
                    return Step::Broken(error);
                }
                self.deliver(key, frame, Some(id));
                Step::Done
            }
            Intake::Unwanted { left } => {
                let skipped = connection.stream.staged().len().min(*left);
                *left -= skipped;
                if *left == 0 {
                    connection.intake = Intake::Frame;
                }
                connection.stream.skip(skipped);
                if skipped > 0 { Step::Done } else { Step::Hungry }
            }
        }
    }

    fn hear_frame(&mut self, key: Key, frame: Frame, header: Header, used: usize) -> Step {
        let length = header.payload_len as usize;
        if let Message::Forward { what, .. } = &frame.message {
            let room = what.blocks().and_then(|blocks| usize::try_from(blocks.bytes()).ok()).unwrap_or(0);
            return self.hear_guest(key, frame, header, used, room);
        }
        let open = self.listener(key, frame.resource).is_some();
        let Some(connection) = self.peers.get_mut(key) else { return Step::Hungry };
        if !open {
            connection.stream.skip(used);
            connection.intake = if length > 0 { Intake::Unwanted { left: length } } else { Intake::Frame };
            self.say_on_link(key, LinkMessage::NotOpen { resource: frame.resource });
            return Step::Done;
        }
        if length == 0 {
            connection.stream.skip(used);
            self.deliver(key, frame, None);
            return Step::Done;
        }
        // The message is read again when there is memory for its payload.
        let Some(buffer) = self.io.memory.allocate_for_peer(length) else { return Step::NoMemory };
        connection.stream.skip(used);
        connection.stream.fill(self.io.memory.lend(buffer), 0, length);
        connection.intake = Intake::Payload { frame, header, buffer };
        Step::Done
    }

    /// A request of another node's client, which needs `room` bytes for what it writes or reads. They are charged as a client's of this node
    /// are. Acknowledgements may be behind it, so that it is not waited for: without room it goes to its engine as it is, and comes again.
    fn hear_guest(&mut self, key: Key, frame: Frame, header: Header, used: usize, room: usize) -> Step {
        let length = header.payload_len as usize;
        let found = self.listener(key, frame.resource);
        let Some(connection) = self.peers.get_mut(key) else { return Step::Hungry };
        connection.stream.skip(used);
        let peer = connection.peer;
        let buffer = found.filter(|_| room > 0).and_then(|resource| self.allocate_for_guest(resource, peer, room));
        let Some(connection) = self.peers.get_mut(key) else { return Step::Hungry };
        match buffer {
            Some(buffer) if length > 0 => {
                connection.stream.fill(self.io.memory.lend(buffer), 0, length);
                connection.intake = Intake::Payload { frame, header, buffer };
                return Step::Done;
            }
            _ if length > 0 => connection.intake = Intake::Unwanted { left: length },
            _ => {}
        }
        if found.is_some() {
            self.deliver(key, frame, buffer);
        } else {
            self.say_on_link(key, LinkMessage::NotOpen { resource: frame.resource });
        }
        Step::Done
    }

    fn allocate_for_guest(&mut self, resource: Key, peer: NodeId, room: usize) -> Option<BufferId> {
        let accounts = &mut self.resources.get_mut(resource)?.guests;
        let account = *accounts.entry(peer).or_insert_with(|| self.io.memory.open_account());
        self.io.memory.allocate_for(account, room)
    }

    /// The resource that is meant to hear what a peer says of it.
    fn listener(&self, key: Key, resource: ResourceId) -> Option<Key> {
        let peer = self.peers.get(key)?.peer;
        let found = *self.by_id.get(&resource)?;
        let is_apart = self.resources.get(found)?.settings.peers.get(&peer).is_some_and(|peer| peer.apart);
        (!is_apart).then_some(found)
    }

    /// Gives a message to its engine.
    fn deliver(&mut self, key: Key, frame: Frame, payload: Option<BufferId>) {
        self.io.counters.messages += 1;
        let Frame { resource, reign, message } = frame;
        let found = self.listener(key, resource).zip(self.peers.get(key).map(|connection| connection.peer));
        let Some((resource, from)) = found else {
            payload.into_iter().for_each(|buffer| self.io.memory.release(buffer));
            return;
        };
        let reopened = self.resources.get_mut(resource).is_some_and(|resource| resource.closed_there.remove(&from));
        if reopened {
            self.feed(resource, Event::LinkUp(from));
        }
        self.feed(resource, Event::Message { from, reign, message, payload });
    }

    fn hear_link(&mut self, key: Key, message: LinkMessage) {
        match message {
            LinkMessage::Ping { seq, .. } => self.ping_arrived(key, seq),
            LinkMessage::Pong { seq } => self.pong_arrived(key, seq),
            LinkMessage::NotOpen { resource } => self.not_open_there(key, resource),
            // Hellos are exchanged before a connection is handed over; the codec lets none through after that.
            LinkMessage::Hello(_) => {}
        }
    }

    /// A peer does not have a resource open: to its engine here it is as good as not connected, until it says something.
    fn not_open_there(&mut self, key: Key, resource: ResourceId) {
        let Some(peer) = self.peers.get(key).map(|connection| connection.peer) else { return };
        let Some(&resource) = self.by_id.get(&resource) else { return };
        let Some(of) = self.resources.get_mut(resource) else { return };
        if of.talks_to(peer) && of.closed_there.insert(peer) {
            self.feed(resource, Event::LinkDown { peer, silent: true });
        }
    }
}
