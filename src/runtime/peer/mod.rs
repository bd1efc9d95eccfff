//! Connections to peers.
//!
//! | file | what it is |
//! |---|---|
//! | [`lanes`] | which peers there are on which lane, and what is known of their leases |
//! | [`receive`] | bytes become messages |
//! | [`beat`] | heartbeats |
//!
//! A connection carries the sessions of all resources of its lane. What is to be sent waits in a queue of its own, so that a peer
//! that does not read holds up nobody else; when the queue is full the connection is closed.

mod beat;
mod lanes;
mod receive;

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::engine::{BufferId, Event, Timeouts};
use crate::ring::Completion;
use crate::units::{Instant, NodeId};
use crate::wire::{BODY_MAX, Codec, Frame, HEADER, LinkMessage, Message};

use super::io::Token;
use super::plane::{Lane, PeerLink, PlaneEvent};
use super::shard::{Shard, Speaker};
use super::slab::Key;
use super::stream::Stream;

pub(super) use lanes::Peers;
use receive::Intake;

/// The staging buffer of a connection: it holds any frame without its payload.
const STAGING: usize = HEADER + BODY_MAX as usize;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    peer: NodeId,
    lane: Lane,
    stream: Stream,
    codec: Codec,
    intake: Intake,
    /// The quickest of the times of the resources that use it.
    timeouts: Timeouts,
    /// When the last ping was sent.
    pinged: Option<Instant>,
    /// It is in the list of those that have something to send.
    speaking: bool,
    /// It waits in line for memory.
    starved: bool,
}

impl Shard {
    /// Takes over a connection. It replaces the one before.
    pub(super) fn link(&mut self, link: PeerLink) {
        let PeerLink { peer, lane, socket, same_host, version } = link;
        if let Some(before) = self.peers.connection(lane, peer) {
            // So that nobody is asked for another one.
            self.peers.want(lane, peer);
            self.close_link(before, &"it is replaced by another connection", false);
        }
        let encrypted = socket.tls.is_some();
        let staging = self.io.memory.pool().try_allocate(STAGING.max(socket.early.len()));
        let stream = staging.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        let stream = match stream.and_then(|staging| Stream::new(socket, staging, self.io.memory.pool())) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%peer, lane = lane.0, %error, "a connection to a peer cannot be used");
                return self.want_link(lane, peer);
            }
        };
        let codec = Codec::new(version, !encrypted && !same_host);
        let (timeouts, intake) = (self.quickest(lane, peer), Intake::Frame);
        let connection =
            Connection { peer, lane, stream, codec, intake, timeouts, pinged: None, speaking: false, starved: false };
        let key = self.peers.connect(connection, self.io.now);
        tracing::debug!(%peer, lane = lane.0, "connected to a peer");
        self.tell_users(lane, peer, || Event::LinkUp(peer));
        self.beat();
        self.hear_peer(key);
        self.speak_to(key);
    }

    /// Closes a connection and tells all engines that use it. `silent`: the peer did not answer.
    pub(super) fn close_link(&mut self, key: Key, why: &dyn Display, silent: bool) {
        let Some(connection) = self.peers.disconnect(key) else { return };
        let Connection { peer, lane, stream, intake, .. } = connection;
        tracing::info!(%peer, lane = lane.0, why = %why, "the connection to a peer is closed");
        stream.shut();
        if let Intake::Payload { buffer, .. } = intake {
            self.io.memory.abandon(buffer);
        }
        self.tell_users(lane, peer, || Event::LinkDown { peer, silent });
        self.want_link(lane, peer);
    }

    /// Sends a message of an engine. Without a connection it goes nowhere, as the engine knows or is about to be told.
    pub(super) fn say(&mut self, resource: Key, to: NodeId, reign: u64, message: Message, payload: Option<BufferId>) {
        let Some(of) = self.resources.get(resource) else { return };
        let Some(key) = self.peers.connection(of.lane, to) else { return };
        let Some(connection) = self.peers.get_mut(key) else { return };
        let frame = Frame { resource: of.id, reign, message };
        let payload = payload.map(|buffer| {
            let whole = self.io.memory.share(buffer);
            match payload_bytes(&frame.message) {
                Some(bytes) => whole.slice(..bytes),
                None => whole,
            }
        });
        self.scratch.clear();
        let bytes: &[u8] = payload.as_deref().unwrap_or_default();
        if let Err(error) = connection.codec.encode(&frame, bytes, &mut self.scratch) {
            tracing::error!(resource = %of.name, peer = %to, %error, "a message was not sent; this is a bug");
            return self.close_link(key, &error, false);
        }
        self.io.counters.messages += 1;
        connection.stream.put(&self.scratch);
        if let Some(payload) = payload {
            connection.stream.put_payload(payload);
        }
        if connection.stream.unsent() > self.io.memory.pool().capacity() / 2 {
            return self.close_link(key, &"the peer does not keep up with what it is sent", true);
        }
        self.speak_to(key);
    }

    /// Sends what is ready.
    pub(super) fn send_to_peer(&mut self, key: Key) {
        let Some(connection) = self.peers.get_mut(key) else { return };
        connection.speaking = false;
        match connection.stream.send(self.io.now) {
            Ok(op) => {
                self.io.counters.sends += 1;
                if let Some(op) = op {
                    self.io.push(op, Token::PeerSend(key));
                }
            }
            Err(end) => self.close_link(key, &end, false),
        }
    }

    pub(super) fn peer_sent(&mut self, key: Key, completion: Completion<Token>) {
        let Some(connection) = self.peers.get_mut(key) else { return };
        match connection.stream.sent(completion) {
            Ok(()) => self.speak_to(key),
            Err(end) => self.close_link(key, &end, false),
        }
    }

    /// Notes that a connection has something to send.
    fn speak_to(&mut self, key: Key) {
        if let Some(connection) = self.peers.get_mut(key)
            && !connection.speaking
        {
            connection.speaking = true;
            self.speaking.push(Speaker::Peer(key));
        }
    }

    fn say_on_link(&mut self, key: Key, message: LinkMessage) {
        let Some(connection) = self.peers.get_mut(key) else { return };
        self.scratch.clear();
        connection.codec.encode_link(&message, &mut self.scratch);
        connection.stream.put(&self.scratch);
        self.speak_to(key);
    }

    /// A resource was opened or has other peers than before: it is told which of them are connected, and the rest are asked for.
    pub(super) fn peers_changed(&mut self, key: Key, before: &BTreeMap<NodeId, crate::engine::Peer>) {
        let Some(resource) = self.resources.get(key) else { return };
        let lane = resource.lane;
        let talked = |peer: &NodeId| before.get(peer).is_some_and(|peer| !peer.apart);
        let peers = &resource.settings.peers;
        let (apart, together): (Vec<NodeId>, Vec<NodeId>) = peers.keys().copied().partition(|peer| peers[peer].apart);
        for peer in together.into_iter().filter(|peer| !talked(peer)) {
            match self.peers.connection(lane, peer) {
                Some(_) => self.feed(key, Event::LinkUp(peer)),
                None => self.want_link(lane, peer),
            }
        }
        apart.into_iter().filter(talked).for_each(|peer| self.part(key, peer));
        self.hurry(lane);
    }

    /// Ends the session with a peer that the connection between the nodes outlives: to each of the two, the resource is not open at the other.
    /// The peer hears of it before the next pong, which would grant it a lease (rule F2).
    fn part(&mut self, key: Key, peer: NodeId) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        let (id, lane) = (resource.id, resource.lane);
        if !resource.closed_there.remove(&peer) {
            self.feed(key, Event::LinkDown { peer, silent: true });
        }
        if let Some(link) = self.peers.connection(lane, peer) {
            self.say_on_link(link, LinkMessage::NotOpen { resource: id });
        }
    }

    /// Closes all connections, at the end.
    pub(super) fn close_links(&mut self) {
        for key in self.peers.keys() {
            self.close_link(key, &"the daemon is shutting down", false);
        }
    }

    /// Asks the control plane for a connection, once until there is one.
    fn want_link(&mut self, lane: Lane, peer: NodeId) {
        let is_used = self.users(lane, peer).next().is_some();
        if is_used && self.peers.want(lane, peer) {
            (self.events)(PlaneEvent::WantLink { peer, lane });
        }
    }

    /// The resources that use a connection.
    fn users(&self, lane: Lane, peer: NodeId) -> impl Iterator<Item = Key> {
        let uses = move |resource: &super::resource::Resource| resource.lane == lane && resource.talks_to(peer);
        self.resources.iter().filter(move |(_, resource)| uses(resource)).map(|(key, _)| key)
    }

    fn tell_users(&mut self, lane: Lane, peer: NodeId, event: impl Fn() -> Event) {
        let users: Vec<Key> = self.users(lane, peer).collect();
        for key in users {
            if let Some(resource) = self.resources.get_mut(key) {
                resource.closed_there.remove(&peer);
            }
            self.feed(key, event());
        }
    }
}

/// How many bytes of the buffer are the payload; `None` for all.
fn payload_bytes(message: &Message) -> Option<usize> {
    match message {
        Message::Write(write) => usize::try_from(write.range.bytes()).ok(),
        Message::Forward { what, .. } => what.blocks().and_then(|blocks| usize::try_from(blocks.bytes()).ok()),
        _ => None,
    }
}
