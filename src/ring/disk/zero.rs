//! Making a range read as zeroes, the same on every replica.

use rustix::io::Errno;

use super::Disk;
use crate::ring::{Op, Slice, Span, ZeroBy};

/// A range on its way to reading as zeroes: TRIM (space given back) or WRITE_ZEROES (space kept).
///
/// It is done by the cheapest means that file or device have: holes or unmapping, else zeroed extents, else writing zeroes. All of
/// them read back as zeroes, so that replicas on different storage stay equal; a plain discard, whose result is undefined, is
/// never used. Push what [`next`](Self::next) gives, tell [`completed`](Self::completed), until there is no more. Durable after
/// a [`Op::Sync`].
#[derive(Debug)]
pub struct Zeroing {
    at: u64,
    end: u64,
    /// The means this one may begin with.
    from: Means,
}

/// How zeroes are made, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) enum Means {
    /// The space is given back.
    #[default]
    Punch,
    /// The space is kept.
    Allocate,
    /// There are only writes.
    Write,
}

/// The most that one operation zeroes: it cannot be cancelled, and a device may have to write all of it.
const PIECE: u64 = 128 << 20;

impl Zeroing {
    /// Of `length` bytes from `offset`, both multiples of 4096. `keep` the space: what is written there later cannot fail for
    /// want of it.
    pub fn new(offset: u64, length: u64, keep: bool) -> Self {
        Self { at: offset, end: offset + length, from: if keep { Means::Allocate } else { Means::Punch } }
    }

    /// What is to be done next; `None` when all is done. `zeroes` is zero, for storage that cannot do it by itself: a multiple of
    /// 4096 long, at best 1 MiB.
    pub fn next(&self, disk: &Disk, zeroes: &Slice) -> Option<Op> {
        if self.at == self.end {
            return None;
        }
        let piece = disk.layout.piece(self.at, (self.end - self.at).min(PIECE));
        let file = &disk.files[piece.file];
        let how = match self.from.max(file.means.get()) {
            Means::Punch => ZeroBy::Punch,
            Means::Allocate => ZeroBy::Allocate,
            Means::Write => {
                let len = usize::try_from(piece.length).map_or(zeroes.len(), |length| length.min(zeroes.len()));
                let span = Span::all(len);
                return Some(Op::Write { file: file.fd.clone(), offset: piece.at, from: zeroes.clone(), span, durable: false });
            }
        };
        Some(Op::Zero { file: file.fd.clone(), offset: piece.at, length: piece.length, how })
    }

    /// Takes what became of the operation that [`next`](Self::next) gave.
    ///
    /// # Errors
    ///
    /// What is not merely a missing ability: the disk has failed.
    pub fn completed(&mut self, disk: &Disk, op: &Op, result: Result<u32, Errno>) -> Result<(), Errno> {
        match (op, result) {
            (Op::Zero { length, .. }, Ok(_)) => self.at += length,
            (Op::Write { .. }, Ok(0)) => return Err(Errno::IO),
            (Op::Write { .. }, Ok(count)) => self.at += u64::from(count),
            (Op::Zero { how, .. }, Err(Errno::OPNOTSUPP | Errno::NOSYS)) => {
                let file = &disk.files[disk.layout.piece(self.at, 1).file];
                file.means.set(file.means.get().max(after(*how)));
            }
            // The file or device takes no such range. Perhaps another one: it is not remembered.
            (Op::Zero { how, .. }, Err(Errno::INVAL)) => self.from = after(*how),
            (_, Err(Errno::INTR | Errno::AGAIN)) => {}
            (_, Err(error)) => return Err(error),
            (other, Ok(_)) => panic!("{other:?} makes no zeroes"),
        }
        Ok(())
    }
}

impl Disk {
    /// Whether zeroes cost less than writing them, as far as is known yet (NBD's FAST_ZERO).
    pub fn zeroes_fast(&self) -> bool {
        self.files.iter().all(|file| file.means.get() != Means::Write)
    }
}

fn after(how: ZeroBy) -> Means {
    match how {
        ZeroBy::Punch => Means::Allocate,
        ZeroBy::Allocate => Means::Write,
    }
}
