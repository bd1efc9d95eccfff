//! A client's request as one or several of the engine's.

use crate::engine::{BufferId, Event, Request, RequestId};
use crate::nbd::{Errno, Tag};
use crate::ring::{PAGE, Pool};
use crate::units::{BLOCK, BlockRange, VolumeId};

use super::receive::{Intake, Payload};
use crate::runtime::shard::Shard;
use crate::runtime::slab::Key;

/// The most bytes of a piece of a read or write, preferred and when memory is short. Longer requests are cut, so that their first
/// part is written while the rest is received, and no large stretch of memory is needed at once.
pub(super) const PIECES: [u64; 2] = [1 << 20, 32 << 10];

/// The most blocks of a piece of a range to be zeroed: whoever overlaps it waits for it.
const ZERO_PIECE: u64 = (64 << 20) / BLOCK;

/// How many pieces of a range are being zeroed at once.
const ZEROING: u32 = 4;

/// A client's request under way.
#[derive(Debug)]
pub(in crate::runtime) struct Job {
    pub(super) client: Key,
    pub(super) tag: Tag,
    pub(super) kind: Kind,
    /// Pieces that the engine has not completed.
    pub(super) open: u32,
    /// Whether there are no further pieces.
    pub(super) complete: bool,
    pub(super) error: Option<Errno>,
}

/// What a job is.
#[derive(Debug)]
pub(super) enum Kind {
    /// The pieces in order, for the reply.
    Read {
        offset: u64,
        length: u32,
        first: Option<Key>,
        last: Option<Key>,
    },
    Write,
    /// The blocks that are still to be zeroed.
    Zero {
        next: u64,
        end: u64,
        unmap: bool,
        fua: bool,
    },
    Flush,
}

/// One of the engine's requests; its key is the request's id.
#[derive(Debug)]
pub(in crate::runtime) struct Piece {
    pub(super) job: Key,
    pub(super) part: Part,
    /// A read's buffer.
    pub(super) buffer: Option<BufferId>,
    /// The next piece of the same read.
    pub(super) next: Option<Key>,
}

/// A range of bytes within the buffer of one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Part {
    /// Where its first byte is in a buffer of whole blocks.
    pub(super) fn start(&self) -> usize {
        usize::try_from(self.offset % BLOCK).expect("less than a block")
    }

    /// The byte after its last in that buffer.
    pub(super) fn end(&self) -> usize {
        self.start() + usize::try_from(self.length).expect("a piece is at most 1 MiB")
    }

    /// The length of that buffer.
    pub(super) fn blocks(&self) -> usize {
        self.end().next_multiple_of(PAGE)
    }

    /// The first part of a longer range, so that its buffer is at most `most` bytes long.
    pub(super) fn first_of(offset: u64, length: u64, most: u64) -> Self {
        Self { offset, length: length.min(most - offset % BLOCK) }
    }
}

/// Cuts a range into parts.
fn cut(offset: u64, length: u64) -> impl Iterator<Item = Part> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        let part = (at < end).then(|| Part::first_of(at, end - at, PIECES[0]))?;
        at += part.length;
        Some(part)
    })
}

/// Each of these begins a client's request and says whether it did: if not there is no memory for it now, and nothing has changed.
impl Shard {
    pub(super) fn begin_read(&mut self, key: Key, tag: Tag, offset: u64, length: u32) -> bool {
        let Some(client) = self.clients.get(key) else { return true };
        let account = client.account;
        let bytes = cut(offset, length.into()).map(|part| Pool::footprint(part.blocks()).unwrap_or(usize::MAX)).sum();
        if !self.io.memory.admits(account, bytes) {
            return false;
        }
        let job = self.add_job(key, tag, Kind::Read { offset, length, first: None, last: None });
        for part in cut(offset, length.into()) {
            let Some(buffer) = self.io.memory.allocate_admitted(account, part.blocks()) else {
                self.take_back_read(job);
                return false;
            };
            self.add_read_piece(job, part, buffer);
        }
        self.ask_for_read(job);
        self.no_more_pieces(job);
        true
    }

    pub(super) fn begin_write(&mut self, key: Key, tag: Tag, offset: u64, length: u32, fua: bool) -> bool {
        let job = self.add_job(key, tag, Kind::Write);
        let Some(client) = self.clients.get_mut(key) else { return true };
        client.adapt(length);
        if length == 0 {
            self.no_more_pieces(job);
        } else {
            let left = length.into();
            client.intake = Intake::Payload(Payload { job, offset, left, fua, filling: None });
        }
        true
    }

    pub(super) fn begin_flush(&mut self, key: Key, tag: Tag) -> bool {
        let job = self.add_job(key, tag, Kind::Flush);
        self.ask(job, |_| Request::Flush);
        self.no_more_pieces(job);
        true
    }

    /// Partial blocks at the ends stay as they are, as the protocol allows.
    pub(super) fn begin_trim(&mut self, key: Key, tag: Tag, offset: u64, length: u64, fua: bool) -> bool {
        let kind = Kind::Zero { next: offset.div_ceil(BLOCK), end: (offset + length) / BLOCK, unmap: true, fua };
        let job = self.add_job(key, tag, kind);
        self.zero_on(job);
        true
    }

    /// Partial blocks at the ends are written with zeroes.
    pub(super) fn begin_zeroes(&mut self, key: Key, tag: Tag, part: Zeroes) -> bool {
        let Zeroes { offset, length, fua, no_hole } = part;
        let (next, end) = (offset.div_ceil(BLOCK), (offset + length) / BLOCK);
        let edges = match next > end {
            // All within one block.
            true => [Part { offset, length }, Part::default()],
            false => [
                Part { offset, length: (next * BLOCK - offset).min(length) },
                Part { offset: end * BLOCK, length: offset + length - end * BLOCK },
            ],
        };
        let Some(client) = self.clients.get(key) else { return true };
        let account = client.account;
        let mut buffers = [None, None];
        for (edge, buffer) in edges.iter().zip(&mut buffers).filter(|(edge, _)| edge.length > 0) {
            *buffer = self.io.memory.allocate_for(account, edge.blocks());
            if buffer.is_none() {
                buffers.into_iter().flatten().for_each(|buffer| self.io.memory.release(buffer));
                return false;
            }
        }
        let job = self.add_job(key, tag, Kind::Zero { next, end, unmap: !no_hole, fua });
        for (edge, buffer) in edges.into_iter().zip(buffers) {
            if let Some(id) = buffer {
                let mut buffer = self.io.memory.lend(id);
                buffer.fill(0);
                self.io.memory.restore(id, buffer);
                let Part { offset, length: len } = edge;
                self.ask(job, |volume| Request::Write { volume, offset, len, buffer: id, fua });
            }
        }
        self.zero_on(job);
        true
    }

    /// A part of a write's payload is complete.
    pub(super) fn write_piece(&mut self, key: Key, buffer: BufferId) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Intake::Payload(payload) = &mut client.intake else { return };
        let Some((_, part)) = payload.filling.take() else { return };
        let (job, fua, all) = (payload.job, payload.fua, payload.left == 0);
        if all {
            client.intake = Intake::Header;
        }
        self.io.counters.written += part.length;
        let Part { offset, length: len } = part;
        self.ask(job, |volume| Request::Write { volume, offset, len, buffer, fua });
        if all {
            self.no_more_pieces(job);
        }
    }

    /// Asks for the next pieces of a range to be zeroed.
    pub(super) fn zero_on(&mut self, id: Key) {
        while let Some(job) = self.jobs.get_mut(id) {
            let Kind::Zero { next, end, unmap, fua } = &mut job.kind else { return };
            if *next >= *end {
                return self.no_more_pieces(id);
            }
            if job.open >= ZEROING {
                return;
            }
            let (first, count) = (*next, ZERO_PIECE.min(*end - *next));
            *next += count;
            let (unmap, fua) = (*unmap, *fua);
            self.ask(id, |volume| Request::Zero { range: BlockRange { volume, first, count }, unmap, fua });
        }
    }

    fn add_job(&mut self, client: Key, tag: Tag, kind: Kind) -> Key {
        if let Some(client) = self.clients.get_mut(client) {
            client.jobs += 1;
        }
        self.jobs.insert(Job { client, tag, kind, open: 0, complete: false, error: None })
    }

    fn add_read_piece(&mut self, id: Key, part: Part, buffer: BufferId) {
        let piece = self.pieces.insert(Piece { job: id, part, buffer: Some(buffer), next: None });
        let Some(Job { kind: Kind::Read { first, last, .. }, .. }) = self.jobs.get_mut(id) else { return };
        match last.replace(piece) {
            None => *first = Some(piece),
            Some(before) => {
                if let Some(before) = self.pieces.get_mut(before) {
                    before.next = Some(piece);
                }
            }
        }
    }

    /// Undoes a read that there was no memory for.
    fn take_back_read(&mut self, id: Key) {
        if let Some(job) = self.jobs.remove(id) {
            self.drop_read_pieces(&job);
            if let Some(client) = self.clients.get_mut(job.client) {
                client.jobs -= 1;
            }
        }
    }

    pub(super) fn drop_read_pieces(&mut self, job: &Job) {
        let Kind::Read { first, .. } = job.kind else { return };
        let mut next = first;
        while let Some(piece) = next.and_then(|key| self.pieces.remove(key)) {
            next = piece.next;
            if let Some(buffer) = piece.buffer {
                self.io.memory.release(buffer);
            }
        }
    }

    /// Asks the engine for all pieces of a read.
    fn ask_for_read(&mut self, id: Key) {
        let Some(&Job { kind: Kind::Read { first, .. }, .. }) = self.jobs.get(id) else { return };
        let mut next = first;
        while let Some(key) = next
            && let Some(&Piece { part: Part { offset, length: len }, buffer: Some(buffer), next: after, .. }) =
                self.pieces.get(key)
        {
            // One reference is the engine's, one is kept for the reply.
            self.io.memory.hold(buffer);
            self.submit(id, key, |volume| Request::Read { volume, offset, len, buffer });
            next = after;
        }
    }

    /// Asks the engine for a piece that nothing need be remembered of.
    fn ask(&mut self, job: Key, request: impl FnOnce(VolumeId) -> Request) {
        let piece = self.pieces.insert(Piece { job, part: Part::default(), buffer: None, next: None });
        self.submit(job, piece, request);
    }

    fn submit(&mut self, job: Key, piece: Key, request: impl FnOnce(VolumeId) -> Request) {
        let Some(job) = self.jobs.get_mut(job) else { return };
        let Some(client) = self.clients.get(job.client) else { return };
        job.open += 1;
        let (id, resource) = (RequestId(piece.into()), client.resource);
        let event = Event::Request { id, client: client.id, request: request(client.volume) };
        self.feed(resource, event);
    }

    /// A client is gone: whatever the engine says about its requests finds nobody.
    pub(super) fn forget_jobs(&mut self, client: Key) {
        let gone: Vec<Key> = self.jobs.iter().filter(|(_, job)| job.client == client).map(|(key, _)| key).collect();
        for key in gone {
            if let Some(job) = self.jobs.remove(key) {
                self.drop_read_pieces(&job);
            }
        }
        // Pieces of other kinds hold nothing; they go when the engine completes them, or now.
        let orphans: Vec<Key> = self.pieces.iter().filter(|(_, p)| self.jobs.get(p.job).is_none()).map(|(key, _)| key).collect();
        for key in orphans {
            self.pieces.remove(key);
        }
    }
}

/// The range of a WRITE_ZEROES.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zeroes {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) fua: bool,
    pub(super) no_hole: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_at_whole_pieces_from_the_block_it_begins_in() {
        let parts: Vec<_> = cut(5000, 2 << 20).collect();
        assert_eq!(parts.iter().map(|part| part.length).sum::<u64>(), 2 << 20);
        assert_eq!(parts.iter().map(Part::blocks).max(), Some(1 << 20));
        assert_eq!((parts[0].start(), parts[0].end()), (904, 1 << 20));
        assert_eq!((parts[1].start(), parts[1].offset), (0, 4096 + (1 << 20)));
        assert_eq!((parts[2].offset + parts[2].length, parts[2].blocks()), (5000 + (2 << 20), 4096));
    }

    #[test]
    fn a_single_byte_needs_a_single_block() {
        let parts: Vec<_> = cut(8191, 1).collect();
        assert_eq!((parts.len(), parts[0].start(), parts[0].blocks()), (1, 4095, 4096));
        assert_eq!(cut(7, 0).count(), 0);
    }
}
