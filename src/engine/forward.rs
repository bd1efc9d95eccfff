//! Clients of a node that is not primary (rule W7): their requests are sent to the primary, and sent again to the next one.
//!
//! A node without a replica, or one whose replica is behind, has nothing to be primary with; a member forwards while another node's
//! clients keep the role there. With no primary in sight, a node that cannot take the role asks one that can to take it. Requests
//! carry a session and a number, so that a write that was done before a fail-over is not done again. Who that
//! primary is, is `server`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::units::{BlockRange, Instant, NodeId, Sharing};
use crate::wire::{FORWARDED_MAX, Forwarded, Message, Origin};

use super::core::Engine;
use super::event::{BufferId, ClientId, Command, Failure, Request, RequestId};
use super::mutant::{Mutant, mutated};
use super::peerset::PeerSet;
use super::reign::{Asker, Pending, State};
use super::requests::release_buffer;

/// The most bytes that are on their way at once, either way. The server charges them as it does a client of its own; what finds no room
/// there comes again.
const FLYING_MAX: u64 = 8 << 20;

/// After how long a request is sent again for which there was no memory, unless another one is answered before.
const BUSY: Duration = Duration::from_millis(10);

/// What this node forwards.
#[derive(Debug, Default)]
pub(super) struct Forward {
    /// Names this node's requests together with their numbers; 0 before the first.
    pub(super) session: u64,
    /// The memory of what was done (see `applied`) that the requests were sent to.
    memory: u64,
    /// Who takes requests.
    pub(super) server: Option<usize>,
    /// When somebody is asked again, and who has refused meanwhile.
    pub(super) again: Option<Instant>,
    pub(super) refused: PeerSet,
    /// Who was asked and has not been told that nothing more is needed.
    pub(super) asked: PeerSet,
    /// How the clients share that were asked for last.
    pub(super) sharing: Option<Sharing>,
    /// The node that took requests was lost, or another one has come while nobody did: somebody may have been let in there whom the
    /// clients of this node would not suffer, and be gone again.
    pub(super) apart: bool,
    /// Why, as the last of them said.
    pub(super) why: String,
    last: u64,
    /// Clients that came here, counted.
    pub(super) entry: u64,
    /// Whose clients are in the way of those that wait here, as the server said.
    pub(super) barred: Option<NodeId>,
    /// Requests that found no memory at the server, and when they are sent again.
    busy: BTreeSet<u64>,
    pub(super) busy_until: Option<Instant>,
    /// What was not answered.
    requests: BTreeMap<u64, Ask>,
    /// The first that was not sent to the present server, and the bytes of those that were.
    next: u64,
    flying: u64,
}

#[derive(Debug)]
struct Ask {
    id: RequestId,
    client: ClientId,
    request: Request,
    /// It was sent to somebody.
    sent: bool,
}

impl Ask {
    fn bytes(&self) -> u64 {
        match self.request {
            Request::Read { volume, offset, len, .. } | Request::Write { volume, offset, len, .. } => {
                BlockRange::covering(volume, offset, len).bytes()
            }
            Request::Zero { .. } | Request::Flush => 0,
        }
    }

    fn changes(&self) -> bool {
        matches!(self.request, Request::Write { .. } | Request::Zero { .. })
    }
}

impl Forward {
    pub(super) fn reset_server(&mut self, server: Option<usize>) {
        self.server = server;
        self.next = 0;
        self.flying = 0;
        self.busy.clear();
        self.busy_until = None;
    }

    /// Every number up to this one was answered.
    fn answered(&self) -> u64 {
        self.requests.keys().next().map_or(self.last, |first| first - 1)
    }

    /// Takes out all that waits for an answer. Nobody takes it now, and it is not sent again.
    pub(super) fn give_up(&mut self) -> Vec<(RequestId, Request)> {
        debug_assert!(self.server.is_none(), "the server's answer would come");
        std::mem::take(&mut self.requests).into_values().map(|ask| (ask.id, ask.request)).collect()
    }

    /// Whether nothing waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }
}

impl Engine {
    /// A client's request on a node that is not primary.
    pub(super) fn forward(&mut self, id: RequestId, client: ClientId, request: Request) {
        self.forward.last += 1;
        let seq = self.forward.last;
        self.forward.requests.insert(seq, Ask { id, client, request, sent: false });
        self.send_forwarded();
    }

    /// Sends what the server has not been sent, as far as it may be on its way.
    pub(super) fn send_forwarded(&mut self) {
        let Some(at) = self.forward.server else { return };
        let (session, answered) = (self.forward.session, self.forward.answered());
        let mut messages = Vec::new();
        let Forward { requests, next, flying, busy, .. } = &mut self.forward;
        let first = busy.first().copied().unwrap_or(*next);
        for (&seq, ask) in requests.range_mut(first..) {
            // What was sent and is not answered, or is beyond what the server remembers.
            if seq < *next && !busy.contains(&seq) {
                continue;
            }
            if *flying > 0 && *flying + ask.bytes() > FLYING_MAX || seq > answered + FORWARDED_MAX {
                break;
            }
            busy.remove(&seq);
            *flying += ask.bytes();
            *next = (*next).max(seq + 1);
            ask.sent = true;
            let (what, payload) = match ask.request {
                Request::Read { volume, offset, len, .. } => (Forwarded::Read { volume, offset, len }, None),
                Request::Write { volume, offset, len, buffer, fua } => {
                    (Forwarded::Write { volume, offset, len, fua }, Some(buffer))
                }
                Request::Zero { range, unmap, fua } => (Forwarded::Zero { range, unmap, fua }, None),
                Request::Flush => (Forwarded::Flush, None),
            };
            messages.push((Message::Forward { session, seq, answered, what }, payload));
        }
        for (message, payload) in messages {
            self.send_with(at, message, payload);
        }
    }

    /// The server has answered.
    pub(super) fn forward_answered(
        &mut self,
        at: usize,
        session: u64,
        seq: u64,
        done: Result<(), Failure>,
        payload: Option<BufferId>,
    ) {
        // One that gave the role up meanwhile has done it before.
        let ours = self.forward.session == session;
        let flying = self.forward.server == Some(at);
        let ask = if ours { self.forward.requests.remove(&seq) } else { None };
        if let Some(ask) = ask {
            if flying && seq < self.forward.next {
                self.forward.flying = self.forward.flying.saturating_sub(ask.bytes());
            }
            let mut result = done;
            if let (Ok(()), Request::Read { volume, offset, len, buffer: into }) = (done, ask.request) {
                match payload {
                    Some(from) => {
                        let len = BlockRange::covering(volume, offset, len).bytes();
                        self.out.push(Command::Copy { from, from_at: 0, into, into_at: 0, len });
                    }
                    None => result = Err(Failure::Io),
                }
            }
            release_buffer(&mut self.out, &ask.request);
            self.out.push(Command::Complete { id: ask.id, result });
            self.send_forwarded();
        }
        self.out.extend(payload.map(Command::Release));
    }

    /// The server had no memory for a request: it comes again in a moment.
    pub(super) fn forward_busy(&mut self, at: usize, session: u64, seq: u64) {
        if self.forward.session != session || self.forward.server != Some(at) || seq >= self.forward.next {
            return;
        }
        if let Some(ask) = self.forward.requests.get(&seq)
            && self.forward.busy.insert(seq)
        {
            self.forward.flying = self.forward.flying.saturating_sub(ask.bytes());
            self.forward.busy_until = Some(self.now.after(BUSY));
        }
    }

    /// Whether what was sent may be sent again to whoever has this memory. If not, what became of it is not known, and its clients' sessions
    /// end: they are never told of a success that was lost, and nothing is done twice.
    pub(super) fn may_send_again(&mut self, memory: u64) -> bool {
        let known = std::mem::replace(&mut self.forward.memory, memory);
        let unknown = self.forward.requests.values().any(|ask| ask.sent && ask.changes()) && !mutated(Mutant::SentAgainToAnybody);
        if known == memory || known == 0 || !unknown {
            return true;
        }
        self.drop_clients();
        false
    }

    /// Gives up everything that was not answered.
    pub(super) fn drop_forwarded(&mut self) {
        for ask in std::mem::take(&mut self.forward.requests).into_values() {
            release_buffer(&mut self.out, &ask.request);
            self.out.push(Command::Complete { id: ask.id, result: Err(Failure::ShuttingDown) });
        }
        let session = self.forward.session;
        for at in self.forward.asked.iter() {
            self.send(at, Message::Unserve { session });
        }
        let (last, entry) = (self.forward.last, self.forward.entry);
        // What was sent must never be taken for what comes.
        self.forward = Forward { last, entry, ..Forward::default() };
    }

    /// Drops the requests of a client that is gone: what was sent is done or not, and not sent again.
    pub(super) fn drop_forwarded_of(&mut self, client: ClientId) {
        let of = |ask: &Ask| ask.client == client;
        let gone: Vec<u64> = self.forward.requests.iter().filter(|(_, ask)| of(ask)).map(|(seq, _)| *seq).collect();
        for seq in gone {
            if let Some(ask) = self.forward.requests.remove(&seq) {
                if seq < self.forward.next {
                    self.forward.flying = self.forward.flying.saturating_sub(ask.bytes());
                }
                release_buffer(&mut self.out, &ask.request);
                self.out.push(Command::Complete { id: ask.id, result: Err(Failure::ShuttingDown) });
            }
        }
        self.send_forwarded();
    }

    /// Clients that do not share with everybody end their sessions when they were out of touch. Whoever came meanwhile is not in the way
    /// any more; only when they come anew it is compared who has used the volume.
    pub(super) fn end_those_apart(&mut self) -> bool {
        let ends =
            self.forward.apart && self.shares().is_some_and(|ours| ours != Sharing::Shared) && !mutated(Mutant::ApartGoesOn);
        self.forward.apart = false;
        if ends {
            self.drop_clients();
        }
        ends
    }

    /// This node becomes primary: it does itself what nobody has answered.
    pub(super) fn adopt_forwarded(&mut self) {
        if self.end_those_apart() {
            return;
        }
        let memory = self.applied.memory;
        if self.forward.session == 0 || !self.may_send_again(memory) {
            return;
        }
        self.forward.reset_server(None);
        let (node, session, answered) = (self.id.node, self.forward.session, self.forward.answered());
        for (seq, ask) in std::mem::take(&mut self.forward.requests) {
            let origin = Origin { node, session, seq, answered };
            let done = ask.sent && ask.changes() && self.applied.knows(&origin);
            let asker = Asker::Client { id: ask.id, client: ask.client };
            let Some(reign) = &mut self.reign else { return };
            let pending =
                Pending { asker, origin: Some(origin), done, request: ask.request, state: State::Waiting, holds: false };
            let key = reign.requests.insert(pending);
            self.enter(key);
        }
    }
}
