//! Bytes become requests, within budgets.

use crate::engine::BufferId;
use crate::nbd::Request;
use crate::nbd::request::{COMPACT_LENGTH, Decoded, EXTENDED_LENGTH, decode};
use crate::ring::Completion;

use super::job::{PIECES, Part, Zeroes};
use super::{Client, MAX_JOBS, MAX_UNSENT, STAGING};
use crate::runtime::disk::Starved;
use crate::runtime::io::Token;
use crate::runtime::shard::{Shard, Speaker};
use crate::runtime::slab::Key;

/// What one client may have looked at in one turn: so many requests, so many bytes of payload.
const REQUESTS: u32 = 64;
const BYTES: u64 = 1 << 20;

/// A write of this much is expected to be followed by others: then only its header is received into the staging buffer, so
/// that no payload passes through it.
const LARGE: u32 = 32 << 10;

/// What a client's next bytes are.
#[derive(Debug)]
pub(super) enum Intake {
    /// A request.
    Header,
    /// The payload of a write.
    Payload(Payload),
    /// The payload of a request that was refused.
    Refused { left: usize },
}

/// A payload on its way in.
#[derive(Debug)]
pub(super) struct Payload {
    /// The write.
    pub(super) job: Key,
    /// Where the next byte belongs.
    pub(super) offset: u64,
    /// How many bytes are missing that no buffer is there for yet.
    pub(super) left: u64,
    pub(super) fua: bool,
    /// The buffer that is being filled, which the stream has, and the part of the payload that it takes.
    pub(super) filling: Option<(BufferId, Part)>,
}

/// How far a step came.
enum Step {
    /// One thing was done.
    Done,
    /// More bytes are needed.
    Hungry,
    /// Something must be answered or sent first.
    Full,
    /// There is no memory for it now.
    NoMemory,
    /// The client cannot be understood.
    Broken(String),
}

impl Shard {
    pub(in crate::runtime) fn client_received(&mut self, key: Key, completion: Completion<Token>) {
        let Some(client) = self.clients.get_mut(key) else { return };
        match client.stream.received(completion) {
            Ok(()) => self.serve_client(key),
            Err(end) => self.close_client(key, &end),
        }
    }

    /// Looks at what a client has sent, up to its budget, and asks for more.
    pub(in crate::runtime) fn serve_client(&mut self, key: Key) {
        let (mut requests, mut bytes) = (REQUESTS, BYTES);
        if let Some(client) = self.clients.get_mut(key) {
            client.paused = false;
        }
        loop {
            let Some(client) = self.clients.get_mut(key) else { return };
            if client.leaving || client.stream.is_receiving() {
                return;
            }
            if requests == 0 || bytes == 0 {
                return self.busy.push_back(Speaker::Client(key));
            }
            match self.step(key, &mut bytes) {
                Step::Done => requests -= 1,
                Step::Hungry => match self.more_from(key) {
                    true => {}
                    false => return,
                },
                Step::Full => return self.pause(key),
                Step::NoMemory => return self.starve_client(key),
                Step::Broken(why) => return self.close_client(key, &why),
            }
        }
    }

    /// Gets more bytes: at once from a TLS session, else by a receive. Whether there are any now.
    fn more_from(&mut self, key: Key) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        match client.stream.pump() {
            Ok(true) => return true,
            Ok(false) => {}
            Err(end) => {
                self.close_client(key, &end);
                return false;
            }
        }
        if let Some(op) = client.stream.receive() {
            self.io.counters.receives += 1;
            self.io.push(op, Token::ClientReceive(key));
        }
        false
    }

    /// Something was answered, sent or freed for a client that waits for that.
    pub(in crate::runtime) fn resume(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key)
            && client.paused
        {
            client.paused = false;
            self.busy.push_back(Speaker::Client(key));
        }
    }

    /// A client's turn to try again has come.
    pub(in crate::runtime) fn serve_starved_client(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key) {
            client.starved = false;
            self.serve_client(key);
        }
    }

    fn starve_client(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.starved
        {
            client.starved = true;
            self.starved.push_back(Starved::Client(key));
        }
        self.pause(key);
    }

    fn pause(&mut self, key: Key) {
        if let Some(client) = self.clients.get_mut(key) {
            client.paused = true;
            self.watch(key);
        }
    }

    fn step(&mut self, key: Key, bytes: &mut u64) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Hungry };
        match &mut client.intake {
            Intake::Header => self.header(key),
            Intake::Payload(payload) => match (payload.filling, client.stream.filled()) {
                (None, _) => self.make_room(key),
                (Some(_), None) => Step::Hungry,
                (Some((id, part)), Some(buffer)) => {
                    *bytes = bytes.saturating_sub(part.length);
                    self.io.memory.restore(id, buffer);
                    self.write_piece(key, id);
                    Step::Done
                }
            },
            Intake::Refused { left } => {
                let skipped = client.stream.staged().len().min(*left);
                *left -= skipped;
                let all = *left == 0;
                client.stream.skip(skipped);
                if all {
                    client.intake = Intake::Header;
                    return Step::Done;
                }
                Step::Hungry
            }
        }
    }

    fn header(&mut self, key: Key) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Hungry };
        if client.jobs >= MAX_JOBS || client.stream.unsent() >= MAX_UNSENT {
            return Step::Full;
        }
        let decoded = match decode(client.stream.staged(), &client.mode, client.bytes) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return Step::Hungry,
            Err(violation) => return Step::Broken(violation.to_string()),
        };
        match decoded.request {
            Ok(request) => self.begin(key, decoded, request),
            Err(refusal) => {
                if self.learn_size(key) {
                    // It is looked at again.
                    return Step::Done;
                }
                let Some(client) = self.clients.get_mut(key) else { return Step::Hungry };
                client.stream.skip(decoded.taken);
                if refusal.payload > 0 {
                    client.intake = Intake::Refused { left: refusal.payload as usize };
                }
                self.reply_error(key, decoded.tag, refusal.errno, refusal.text);
                Step::Done
            }
        }
    }

    /// Whether the volume has grown since the client's session knew its size.
    fn learn_size(&mut self, key: Key) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        let now = self.resources.get(client.resource).and_then(|resource| resource.engine.volume_bytes(client.volume));
        let grown = now.filter(|bytes| *bytes > client.bytes);
        client.bytes = grown.unwrap_or(client.bytes);
        grown.is_some()
    }

    /// Begins a request, unless there is no memory for it: then it stays where it is, and is decoded again later.
    fn begin(&mut self, key: Key, Decoded { taken, tag, .. }: Decoded, request: Request) -> Step {
        let begun = match request {
            Request::Read { offset, length, .. } => self.begin_read(key, tag, offset, length),
            Request::Write { offset, length, fua } => self.begin_write(key, tag, offset, length, fua),
            Request::Flush => self.begin_flush(key, tag),
            Request::Trim { offset, length, fua } => self.begin_trim(key, tag, offset, length, fua),
            Request::WriteZeroes { fast: true, .. } if !self.zeroes_fast(key) => self.refuse_slow_zeroes(key, tag),
            Request::WriteZeroes { offset, length, fua, no_hole, .. } => {
                self.begin_zeroes(key, tag, Zeroes { offset, length, fua, no_hole })
            }
            Request::BlockStatus { offset, length, one } => self.block_status(key, tag, offset, length, one),
            // What is on its way from the disk is as soon there as it would be from a cache.
            Request::Cache { .. } => {
                self.reply_done(key, tag);
                true
            }
            Request::Disconnect => {
                if let Some(client) = self.clients.get_mut(key) {
                    client.leaving = true;
                }
                self.speak(key);
                true
            }
        };
        if !begun {
            return Step::NoMemory;
        }
        self.io.counters.requests += 1;
        if let Some(client) = self.clients.get_mut(key) {
            client.stream.skip(taken);
        }
        Step::Done
    }

    /// Takes a buffer for the next part of a payload and lets the stream fill it.
    fn make_room(&mut self, key: Key) -> Step {
        let Some(client) = self.clients.get_mut(key) else { return Step::Hungry };
        let Intake::Payload(payload) = &mut client.intake else { return Step::Done };
        for most in PIECES {
            let part = Part::first_of(payload.offset, payload.left, most);
            if let Some(id) = self.io.memory.allocate_for(client.account, part.blocks()) {
                payload.filling = Some((id, part));
                payload.offset += part.length;
                payload.left -= part.length;
                client.stream.fill(self.io.memory.lend(id), part.start(), part.end());
                return Step::Done;
            }
        }
        Step::NoMemory
    }
}

impl Client {
    /// Adapts how much is received at once to what comes: with large payloads, one header at a time.
    pub(super) fn adapt(&mut self, length: u32) {
        let header = if self.mode.extended { EXTENDED_LENGTH } else { COMPACT_LENGTH };
        self.stream.expect(if length >= LARGE { header } else { STAGING });
    }
}
