//! NBD clients on a shard.
//!
//! | file | what it is |
//! |---|---|
//! | [`receive`] | bytes become requests, within budgets |
//! | [`job`] | a client's request as one or several of the engine's |
//! | [`answer`] | the engine's answers become replies |
//!
//! Architecture Invariant: a request is checked once, in [`crate::nbd::request`]. What is done with it is the engine's matter;
//! this module cuts it into pieces, sees to the memory for it, and puts the answer together.

mod answer;
mod job;
mod receive;
mod status;

use crate::engine::ClientId;
use crate::nbd::Mode;
use crate::ring::{Completion, Op, PollFor};
use crate::units::VolumeId;

use super::inbox::Mailbox;
use super::io::Token;
use super::plane::ClientSocket;
use super::resource::Attachment;
use super::shard::{Shard, Speaker};
use super::slab::Key;
use super::stream::Stream;

pub(super) use job::{Job, Piece};
use receive::Intake;

/// The staging buffer of a client: a queue of small writes is received at once.
const STAGING: usize = 64 << 10;

/// The most requests of a client that are under way.
const MAX_JOBS: usize = 1024;

/// The most bytes of replies that may wait to be sent before no further request is looked at.
const MAX_UNSENT: usize = 4 << 20;

/// How long one send may take: a client that does not read for so long is cut.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    resource: Key,
    id: ClientId,
    volume: VolumeId,
    /// The export's size.
    bytes: u64,
    mode: Mode,
    name: String,
    /// It is cut rather than told that the export ends.
    asks_again: bool,
    stream: Stream,
    intake: Intake,
    /// Whom its memory is charged to.
    account: Key,
    /// Requests under way.
    jobs: usize,
    /// Bytes of replies that its account is charged for.
    charged: usize,
    /// It has said goodbye: what is under way is answered, nothing more is read.
    leaving: bool,
    /// Nothing is read until something was answered or sent, or there is memory.
    paused: bool,
    /// It waits in line for memory.
    starved: bool,
    /// A hang-up is watched for.
    watched: bool,
    /// It is in the list of those that have something to send.
    speaking: bool,
}

impl Shard {
    /// A client whose attachment was granted has come.
    pub(super) fn welcome(&mut self, resource: Key, id: ClientId, volume: VolumeId, bytes: u64, socket: ClientSocket) {
        let granted = self.resources.get_mut(resource).and_then(|resource| resource.clients.get_mut(&id));
        // The engine may have dropped it meanwhile.
        let Some(attachment) = granted else { return };
        let ClientSocket { socket, mode, name, asks_again } = socket;
        let staging = self.io.memory.pool().try_allocate(STAGING.max(socket.early.len()));
        let stream = staging.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::OutOfMemory));
        let stream = match stream.and_then(|staging| Stream::new(socket, staging, self.io.memory.pool())) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(client = %name, %error, "a client cannot be served");
                return self.detach(resource, id);
            }
        };
        let client = Client {
            resource,
            id,
            volume,
            bytes,
            mode,
            name,
            asks_again,
            stream,
            intake: Intake::Header,
            account: self.io.memory.open_account(),
            jobs: 0,
            charged: 0,
            leaving: false,
            paused: false,
            starved: false,
            watched: false,
            speaking: false,
        };
        tracing::debug!(client = %client.name, "connected");
        let key = self.clients.insert(client);
        *attachment = Attachment::Connected(attachment.volume(), key);
        self.serve_client(key);
        self.speak(key);
    }

    /// Ends a client's session. What it was not answered is unknown to it; what was started goes on unheard (rule W7).
    pub(super) fn close_client(&mut self, key: Key, why: &dyn std::fmt::Display) {
        let Some(client) = self.clients.remove(key) else { return };
        tracing::debug!(client = %client.name, why = %why, "disconnected");
        client.stream.shut();
        if let Intake::Payload(payload) = client.intake
            && let Some((buffer, _)) = payload.filling
        {
            self.io.memory.abandon(buffer);
        }
        self.forget_jobs(key);
        self.io.memory.discharge(client.account, client.charged);
        self.io.memory.close_account(client.account);
        self.detach(client.resource, client.id);
    }

    /// Drops the connections of a resource's clients that have hung up, so that nothing that they sent and nobody has looked at is
    /// done after what a new connection asks for (rule W7).
    pub(super) fn fence_clients_gone(&mut self, resource: Key) {
        let Some(of) = self.resources.get(resource) else { return };
        let connections: Vec<Key> = of.clients.values().filter_map(Attachment::connection).collect();
        for key in connections {
            if self.clients.get(key).is_some_and(|client| client.stream.is_hung_up()) {
                self.close_client(key, &"it has hung up");
            }
        }
    }

    /// Notes that a client has something to send.
    fn speak(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.speaking
        {
            client.speaking = true;
            self.speaking.push(Speaker::Client(key));
        }
    }

    /// Sends what is ready, and sees whether the client may go.
    pub(super) fn send_to_client(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.speaking = false;
        match client.stream.send(self.io.now) {
            Ok(op) => {
                self.io.counters.sends += 1;
                if let Some(op) = op {
                    self.io.push(op, Token::ClientSend(key));
                }
            }
            Err(end) => return self.close_client(key, &end),
        }
        let unsent = client.stream.unsent();
        let (account, charged) = (client.account, client.charged);
        client.charged = unsent;
        match unsent >= charged {
            true => self.io.memory.charge(account, unsent - charged),
            false => self.io.memory.discharge(account, charged - unsent),
        }
        if client.leaving && client.jobs == 0 && unsent == 0 {
            return self.close_client(key, &"it has said goodbye");
        }
        // What the socket took at once has no completion to do this.
        self.resume(key);
    }

    pub(super) fn client_sent(&mut self, key: Key, completion: Completion<Token>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if let Err(end) = client.stream.sent(completion) {
            return self.close_client(key, &end);
        }
        self.speak(key);
    }

    pub(super) fn client_hung_up(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key) {
            client.watched = false;
            // While it is read from, what it sent before is looked at first.
            if client.paused && client.stream.is_hung_up() {
                self.close_client(key, &"it has hung up");
            }
        }
    }

    /// Watches for the hang-up of a client that is not read from: one that is gone must not hold its attachment.
    fn watch(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if !client.watched {
            client.watched = true;
            let fd = client.stream.socket().clone();
            self.io.push(Op::Poll { fd, until: PollFor::HangUp }, Token::ClientHangUp(key));
        }
    }

    /// Cuts clients that do not read their replies.
    pub(super) fn patrol_clients(&mut self) {
        let now = self.io.now;
        let stuck = |client: &Client| client.stream.sending_since().is_some_and(|since| now.since(since) >= PATIENCE);
        let stuck: Vec<Key> = self.clients.iter().filter(|(_, client)| stuck(client)).map(|(key, _)| key).collect();
        for key in stuck {
            if let Some(client) = self.clients.get(key) {
                tracing::warn!(client = %client.name, "has not read its replies for {PATIENCE:?} and is disconnected");
            }
            self.close_client(key, &"it does not read its replies");
        }
    }
}

/// The other end of an attachment that was granted.
pub(super) fn usher(mailbox: &Mailbox, resource: Key, client: ClientId, volume: VolumeId, bytes: u64, socket: ClientSocket) {
    let socket = Box::new(socket);
    mailbox.post(super::inbox::Request::Serve { resource, client, volume, bytes, socket });
}
