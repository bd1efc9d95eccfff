//! One operation on a disk, from the engine's command to its answer.

use rustix::io::Errno;

use crate::engine::{BufferId, DiskOutcome, Event, OpId};
use crate::ring::{Buffer, Completion, Disk, Op, PAGE, Progress, Zeroing};
use crate::units::{BlockRange, VolumeId};

use super::hash::Hashing;
use crate::runtime::io::Token;
use crate::runtime::memory::Memory;
use crate::runtime::shard::Shard;
use crate::runtime::slab::Key;

/// An operation under way.
#[derive(Debug)]
pub(in crate::runtime) struct DiskJob {
    resource: Key,
    op: OpId,
    place: Place,
    /// The first byte, as the disk counts.
    offset: u64,
    work: Work,
}

/// Which of a resource's disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Metadata,
    Volume(VolumeId),
}

/// What is being done.
#[derive(Debug)]
pub(super) enum Work {
    /// Read into the buffer that was given, or into one that is handed over.
    Read {
        buffer: Option<BufferId>,
        detect_zeroes: bool,
    },
    /// Read a block and copy a part of it.
    Edge {
        buffer: BufferId,
        block: usize,
        from: usize,
        len: usize,
    },
    Write,
    Meta,
    /// Zero; then, for FUA, make it durable.
    Zero {
        zeroing: Zeroing,
        fua: bool,
    },
    /// Wait for so many syncs, of which one may have failed.
    Sync {
        left: usize,
        failed: bool,
    },
    Hash(Hashing),
}

impl DiskJob {
    pub(super) fn new(resource: Key, op: OpId, range: BlockRange, work: Work) -> Self {
        Self { resource, op, place: Place::Volume(range.volume), offset: range.offset(), work }
    }

    pub(super) fn meta(resource: Key, op: OpId, at: u64) -> Self {
        Self { resource, op, place: Place::Metadata, offset: at, work: Work::Meta }
    }
}

impl DiskJob {
    /// The hashing that it is, if it is one, and whose.
    pub(super) fn hashing(&mut self) -> Option<(&mut Hashing, Key)> {
        match &mut self.work {
            Work::Hash(hashing) => Some((hashing, self.resource)),
            _ => None,
        }
    }
}

impl Work {
    /// Puts a read's memory back when nothing is read.
    pub(super) fn give_back(&self, memory_of_read: Buffer, memory: &mut Memory) {
        if let Self::Read { buffer: Some(id), .. } = self {
            memory.restore(*id, memory_of_read);
        }
    }

    /// Lets go of the buffer that was held until the end.
    pub(super) fn let_go(&self, memory: &mut Memory) {
        if let Self::Edge { buffer, .. } = self {
            memory.release(*buffer);
        }
    }
}

impl Shard {
    pub(super) fn disk(&self, resource: Key, place: Place) -> Option<&Disk> {
        let disks = self.resources.get(resource)?.disks.as_ref()?;
        match place {
            Place::Metadata => Some(&disks.metadata),
            Place::Volume(volume) => disks.volumes.get(&volume),
        }
    }

    pub(super) fn start_job(&mut self, job: DiskJob, first: Op) {
        self.count_job(job.resource);
        let key = self.disk_jobs.insert(job);
        self.io.push(first, Token::Disk(key));
    }

    pub(super) fn start_zero(&mut self, resource: Key, op: OpId, range: BlockRange, unmap: bool, fua: bool) {
        let zeroing = Zeroing::new(range.offset(), range.bytes(), !unmap);
        self.count_job(resource);
        let key = self.disk_jobs.insert(DiskJob::new(resource, op, range, Work::Zero { zeroing, fua }));
        self.zero_some(key);
    }

    /// Makes everything that has ended durable, on all volumes.
    pub(super) fn start_flush(&mut self, resource: Key, op: OpId) {
        self.count_job(resource);
        let work = Work::Sync { left: 0, failed: false };
        let key = self.disk_jobs.insert(DiskJob { resource, op, place: Place::Metadata, offset: 0, work });
        self.sync_all(key);
    }

    /// A part of an operation has completed.
    pub(in crate::runtime) fn disk_completed(&mut self, key: Key, completion: Completion<Token>) {
        let Completion { op, result, .. } = completion;
        let Some(job) = self.disk_jobs.get_mut(key) else { return };
        match &mut job.work {
            Work::Zero { .. } => self.zeroed(key, &op, result),
            Work::Sync { left, failed } => {
                *left -= 1;
                if let Err(error) = result {
                    *failed = true;
                    self.note_failure(key, "made durable", error);
                }
                self.synced(key);
            }
            _ => self.moved(key, op, result),
        }
    }

    /// Bytes were read or written.
    fn moved(&mut self, key: Key, op: Op, result: Result<u32, Errno>) {
        let Some(job) = self.disk_jobs.get(key) else { return };
        let Some(disk) = self.disk(job.resource, job.place) else { return self.failed(key, op) };
        let progress = match result {
            Ok(count) => disk.resume(job.offset, op, count),
            Err(Errno::INTR | Errno::AGAIN) => Progress::More(op),
            Err(error) => {
                self.note_failure(key, if matches!(op, Op::Read { .. }) { "read" } else { "written" }, error);
                return self.failed(key, op);
            }
        };
        match progress {
            Progress::Done(op) => self.arrived(key, op),
            Progress::More(op) => self.io.push(op, Token::Disk(key)),
            Progress::Truncated(op) => {
                self.note_failure(key, "reached: the file has become shorter", Errno::IO);
                self.failed(key, op);
            }
        }
    }

    /// Reads the next portion of a range that is being hashed.
    pub(super) fn read_on(&mut self, key: Key, resource: Key, range: BlockRange, into: Buffer) {
        let Some(disk) = self.disk(resource, Place::Volume(range.volume)) else {
            return self.end_job(key, DiskOutcome::Failed);
        };
        let op = disk.read(range.offset(), into);
        if let Some(job) = self.disk_jobs.get_mut(key) {
            job.offset = range.offset();
        }
        self.io.push(op, Token::Disk(key));
    }

    /// All bytes were read or written.
    fn arrived(&mut self, key: Key, op: Op) {
        let Some(job) = self.disk_jobs.get_mut(key) else { return };
        let outcome = match (&mut job.work, op) {
            (Work::Read { buffer: Some(id), .. }, Op::Read { into, .. }) => {
                let id = *id;
                self.io.memory.restore(id, into);
                DiskOutcome::Done(Some(id))
            }
            (Work::Read { detect_zeroes, .. }, Op::Read { into, .. }) => match *detect_zeroes && is_zero(&into) {
                true => DiskOutcome::Zeroes,
                false => DiskOutcome::Done(Some(self.io.memory.hand_over(into))),
            },
            (&mut Work::Edge { buffer, block, from, len }, Op::Read { into, .. }) => {
                let at = block * PAGE + from;
                let mut whole = self.io.memory.lend(buffer);
                whole[at..at + len].copy_from_slice(&into[from..from + len]);
                self.io.memory.restore(buffer, whole);
                DiskOutcome::Done(None)
            }
            (Work::Hash(hashing), Op::Read { into, .. }) => {
                hashing.read(into);
                return self.hashing.push_back(key);
            }
            _ => DiskOutcome::Done(None),
        };
        self.end_job(key, outcome);
    }

    /// A read or write has failed.
    fn failed(&mut self, key: Key, op: Op) {
        if let (Some(job), Op::Read { into, .. }) = (self.disk_jobs.get(key), op) {
            job.work.give_back(into, &mut self.io.memory);
        }
        self.end_job(key, DiskOutcome::Failed);
    }

    fn zeroed(&mut self, key: Key, op: &Op, result: Result<u32, Errno>) {
        let Some(DiskJob { resource, place: Place::Volume(volume), work: Work::Zero { zeroing, .. }, .. }) =
            self.disk_jobs.get_mut(key)
        else {
            return;
        };
        // Not `self.disk`: the job is borrowed as well.
        let disks = self.resources.get(*resource).and_then(|resource| resource.disks.as_ref());
        let Some(disk) = disks.and_then(|disks| disks.volumes.get(volume)) else {
            return self.end_job(key, DiskOutcome::Failed);
        };
        match zeroing.completed(disk, op, result) {
            Ok(()) => self.zero_some(key),
            Err(error) => {
                self.note_failure(key, "zeroed", error);
                self.end_job(key, DiskOutcome::Failed);
            }
        }
    }

    fn zero_some(&mut self, key: Key) {
        let Some(DiskJob { resource, place, work: Work::Zero { zeroing, fua }, .. }) = self.disk_jobs.get(key) else { return };
        let Some(disk) = self.disk(*resource, *place) else { return self.end_job(key, DiskOutcome::Failed) };
        match zeroing.next(disk, &self.zeroes) {
            Some(op) => self.io.push(op, Token::Disk(key)),
            None if *fua => self.sync_all(key),
            None => self.end_job(key, DiskOutcome::Done(None)),
        }
    }

    /// Goes on with a sync of all data.
    fn sync_all(&mut self, key: Key) {
        let Some(job) = self.disk_jobs.get_mut(key) else { return };
        let disks = self.resources.get(job.resource).and_then(|resource| resource.disks.as_ref());
        let mut left = 0;
        for disk in disks.iter().flat_map(|disks| disks.volumes.values()) {
            for file in disk.files() {
                left += 1;
                self.io.push(Op::Sync { file: file.clone() }, Token::Disk(key));
            }
        }
        job.work = Work::Sync { left, failed: disks.is_none() };
        self.synced(key);
    }

    fn synced(&mut self, key: Key) {
        let Some(DiskJob { work: Work::Sync { left: 0, failed }, .. }) = self.disk_jobs.get(key) else { return };
        let outcome = if *failed { DiskOutcome::Failed } else { DiskOutcome::Done(None) };
        self.end_job(key, outcome);
    }

    /// Tells the engine, and sees whether a resource that has stopped may go.
    pub(super) fn end_job(&mut self, key: Key, outcome: DiskOutcome) {
        let Some(DiskJob { resource, op, work, .. }) = self.disk_jobs.remove(key) else { return };
        if let Some(of) = self.resources.get_mut(resource) {
            of.disk_jobs -= 1;
        }
        work.let_go(&mut self.io.memory);
        let event = match work {
            Work::Meta => Event::MetaDone { op, ok: !matches!(outcome, DiskOutcome::Failed) },
            _ => Event::DiskDone { op, outcome },
        };
        self.feed(resource, event);
        self.end_if_idle(resource);
    }

    /// Answers an operation that was not started.
    pub(super) fn answer_disk(&mut self, resource: Key, op: OpId, outcome: DiskOutcome) {
        self.feed(resource, Event::DiskDone { op, outcome });
    }

    fn count_job(&mut self, resource: Key) {
        if let Some(resource) = self.resources.get_mut(resource) {
            resource.disk_jobs += 1;
        }
    }

    fn note_failure(&self, key: Key, what: &str, error: Errno) {
        let Some(job) = self.disk_jobs.get(key) else { return };
        let Some(resource) = self.resources.get(job.resource) else { return };
        let offset = job.offset;
        match job.place {
            Place::Metadata => {
                tracing::error!(resource = %resource.name, offset, %error, "metadata or data could not be {what}");
            }
            Place::Volume(volume) => {
                tracing::error!(resource = %resource.name, %volume, offset, %error, "data could not be {what}");
            }
        }
    }
}

/// The length of a range's buffer.
pub(super) fn length(range: BlockRange) -> usize {
    index(range.bytes())
}

/// A place in a buffer.
pub(super) fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("engines ask for no more than a buffer holds")
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROES: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROES.len()).all(|chunk| chunk == &ZEROES[..chunk.len()])
}
