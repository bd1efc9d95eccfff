//! The engine's answers become replies.

use crate::engine::{Failure, RequestId};
use crate::nbd::{Errno, Tag, reply};

use super::job::{Job, Kind};
use crate::runtime::shard::Shard;
use crate::runtime::slab::Key;

impl Shard {
    /// The engine has completed a piece of a client's request. The client may be gone.
    pub(in crate::runtime) fn complete(&mut self, id: RequestId, result: Result<(), Failure>) {
        let key = Key::from(id.0);
        let Some(id) = self.pieces.get(key).map(|piece| piece.job) else { return };
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.open -= 1;
        if let Err(failure) = result {
            job.error.get_or_insert_with(|| errno(failure));
        }
        match job.kind {
            // They make up the reply.
            Kind::Read { .. } => {}
            Kind::Zero { .. } => {
                self.pieces.remove(key);
                self.zero_on(id);
            }
            Kind::Write | Kind::Flush => {
                self.pieces.remove(key);
            }
        }
        self.finish_if_done(id);
    }

    /// A job has all its pieces.
    pub(super) fn no_more_pieces(&mut self, id: Key) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.complete = true;
        }
        self.finish_if_done(id);
    }

    fn finish_if_done(&mut self, id: Key) {
        if self.jobs.get(id).is_none_or(|job| job.open > 0 || !job.complete) {
            return;
        }
        let Some(job) = self.jobs.remove(id) else { return };
        let Some(client) = self.clients.get_mut(job.client) else { return };
        client.jobs -= 1;
        match (job.error, &job.kind) {
            (Some(Errno::Shutdown), _) if client.asks_again => {
                self.drop_read_pieces(&job);
                return self.close_client(job.client, &"the export ends");
            }
            (Some(errno), _) => {
                self.drop_read_pieces(&job);
                self.reply_error(job.client, job.tag, errno, text(errno));
            }
            (None, Kind::Read { .. }) => self.reply_data(&job),
            (None, _) => client.stream.put(&reply::done(&client.mode, job.tag)),
        }
        self.speak(job.client);
        if self.clients.get(job.client).is_some_and(|client| client.paused) {
            self.resume(job.client);
        }
    }

    /// All of a read is there.
    fn reply_data(&mut self, job: &Job) {
        let &Job { client, tag, kind: Kind::Read { offset, length, first, .. }, .. } = job else { return };
        let Some(client) = self.clients.get_mut(client) else { return };
        client.stream.put(&reply::data(&client.mode, tag, offset, length, true));
        self.io.counters.read += u64::from(length);
        let mut next = first;
        while let Some(piece) = next.and_then(|key| self.pieces.remove(key)) {
            next = piece.next;
            if let Some(buffer) = piece.buffer {
                let blocks = self.io.memory.share(buffer);
                client.stream.put_payload(blocks.slice(piece.part.start()..piece.part.end()));
                self.io.memory.release(buffer);
            }
        }
    }

    /// Answers a request that needs nothing to be done.
    pub(super) fn reply_done(&mut self, key: Key, tag: Tag) {
        if let Some(client) = self.clients.get_mut(key) {
            client.stream.put(&reply::done(&client.mode, tag));
            self.speak(key);
        }
    }

    /// Answers a request by an error.
    pub(super) fn reply_error(&mut self, key: Key, tag: Tag, errno: Errno, text: &str) {
        if let Some(client) = self.clients.get_mut(key) {
            self.scratch.clear();
            reply::error(&client.mode, tag, errno, text, &mut self.scratch);
            client.stream.put(&self.scratch);
            self.speak(key);
        }
    }
}

fn errno(failure: Failure) -> Errno {
    match failure {
        Failure::Io => Errno::Io,
        Failure::NoSpace => Errno::NoSpace,
        Failure::ShuttingDown => Errno::Shutdown,
    }
}

/// What the client's user may read.
fn text(errno: Errno) -> &'static str {
    match errno {
        Errno::NoSpace => "the storage pool is full",
        Errno::Shutdown => "the export is being closed",
        _ => "no replica could do it, or no quorum allows it",
    }
}
