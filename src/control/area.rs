//! A metadata area as one range of bytes, for the control plane, which makes them and looks at them while no engine runs.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::format::{LoadError, Loaded, Loader, SUPERBLOCK, Span, Step, superblock_at};
use crate::runtime::{Backing, Segment};

/// How many zeroes are written at once.
const ZEROES: usize = 1 << 20;

/// A page: what is tried alone where a longer read fails.
const PAGE: u64 = 4096;

/// The area.
pub(super) struct Area {
    /// Each with its first byte in the file and its length.
    segments: Vec<(File, u64, u64)>,
}

impl Area {
    /// Opens it as it is.
    pub(super) fn open(backing: &Backing) -> io::Result<Self> {
        let open = |segment: &Segment| {
            let file = OpenOptions::new().read(true).write(true).open(&segment.path)?;
            Ok((file, segment.start, segment.length))
        };
        Ok(Self { segments: backing.segments.iter().map(open).collect::<io::Result<_>>()? })
    }

    /// Opens it and keeps everybody else away: an engine that runs on it, and another tool.
    ///
    /// # Errors
    ///
    /// [`ResourceBusy`](io::ErrorKind::ResourceBusy) when somebody has it.
    pub(super) fn open_alone(backing: &Backing) -> io::Result<Self> {
        let open = |segment: &Segment| {
            let block = std::fs::metadata(&segment.path)?.file_type().is_block_device();
            let flags = if block && segment.exclusive { OFlags::EXCL.bits().cast_signed() } else { 0 };
            let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&segment.path)?;
            if !block && segment.exclusive {
                flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
                    rustix::io::Errno::WOULDBLOCK => io::ErrorKind::ResourceBusy.into(),
                    other => io::Error::from(other),
                })?;
            }
            Ok((file, segment.start, segment.length))
        };
        Ok(Self { segments: backing.segments.iter().map(open).collect::<io::Result<_>>()? })
    }

    /// How long it is, in bytes.
    pub(super) fn len(&self) -> u64 {
        self.segments.iter().map(|(.., length)| length).sum()
    }

    /// Takes a step of the format's plan.
    pub(super) fn take(&self, step: Step) -> io::Result<()> {
        match step {
            Step::Zero(span) => {
                let zeroes = vec![0; ZEROES];
                let mut at = span.at;
                while at < span.end() {
                    let length = (span.end() - at).min(ZEROES as u64);
                    self.write(at, &zeroes[..usize::try_from(length).expect("at most a chunk")])?;
                    at += length;
                }
                Ok(())
            }
            Step::Write { at, bytes } => self.write(at, &bytes),
            Step::Flush => self.segments.iter().try_for_each(|(file, ..)| file.sync_all()),
        }
    }

    /// Reads bytes.
    pub(super) fn read(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.each(at, length, |file, at, range| file.read_exact_at(&mut bytes[range], at))?;
        Ok(bytes)
    }

    /// Reads all that it says. What cannot be read counts as the worst that it could say.
    pub(super) fn load(&self) -> Result<Loaded, LoadError> {
        let [first, second] = [0, 1].map(|slot| self.read(superblock_at(slot), SUPERBLOCK).unwrap_or_default());
        let mut loader = Loader::new(&first, &second, self.len())?;
        for Span { at, len } in loader.pieces() {
            loader.feed(at, &self.readable(at, len));
        }
        Ok(loader.finish())
    }

    /// A piece; pages that cannot be read are filled with what no page is.
    fn readable(&self, at: u64, len: u64) -> Vec<u8> {
        let whole = usize::try_from(len).expect("a piece fits into memory");
        self.read(at, whole).unwrap_or_else(|_| {
            let pages = (at..at + len).step_by(usize::try_from(PAGE).expect("a small number"));
            let page = |at_page: u64| {
                let length = usize::try_from(PAGE.min(at + len - at_page)).expect("at most a page");
                self.read(at_page, length).unwrap_or_else(|_| vec![0xff; length])
            };
            pages.flat_map(page).collect()
        })
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.each(at, bytes.len(), |file, at, range| file.write_all_at(&bytes[range], at))
    }

    /// Splits a range of the area where the segments do.
    fn each(&self, at: u64, length: usize, mut act: impl FnMut(&File, u64, Range<usize>) -> io::Result<()>) -> io::Result<()> {
        let (mut first, mut done) = (0, 0);
        for (file, start, segment) in &self.segments {
            let position = at + done as u64;
            if position < first + segment && done < length {
                let inside = position - first;
                let count = usize::try_from(segment - inside).unwrap_or(usize::MAX).min(length - done);
                act(file, start + inside, done..done + count)?;
                done += count;
            }
            first += segment;
        }
        if done == length { Ok(()) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the area is too short")) }
    }
}

/// What an area is called in messages.
pub(super) fn shown(metadata: &Backing) -> String {
    metadata.segments.first().map_or_else(|| "metadata".to_owned(), |segment| segment.path.display().to_string())
}
