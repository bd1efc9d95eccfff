//! From a disk's bytes to its files' bytes.

/// The stretches of a disk in order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Layout {
    stretches: Vec<Stretch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// The first byte after it, on the disk.
    end: u64,
    length: u64,
    file: usize,
    /// Its first byte in the file.
    at: u64,
}

/// A range of the disk that is in one piece in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which of the disk's files.
    pub(super) file: usize,
    /// Where in the file.
    pub(super) at: u64,
    /// How many bytes of the range; the rest is elsewhere.
    pub(super) length: u64,
}

impl Layout {
    /// Appends a stretch of a file.
    pub(super) fn append(&mut self, file: usize, at: u64, length: u64) {
        if length > 0 {
            self.stretches.push(Stretch { end: self.bytes() + length, length, file, at });
        }
    }

    /// The size of the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.stretches.last().map_or(0, |stretch| stretch.end)
    }

    /// Where the first part of `length` bytes from `offset` is.
    ///
    /// # Panics
    ///
    /// If the range is not on the disk: requests are checked at the door.
    pub(super) fn piece(&self, offset: u64, length: u64) -> Piece {
        assert!(
            offset.checked_add(length).is_some_and(|end| end <= self.bytes()) && length > 0,
            "bytes {offset}+{length} of a disk of {} bytes",
            self.bytes()
        );
        let stretch = self.stretches[self.stretches.partition_point(|stretch| stretch.end <= offset)];
        let into = offset - (stretch.end - stretch.length);
        Piece { file: stretch.file, at: stretch.at + into, length: length.min(stretch.end - offset) }
    }

    /// All pieces of `length` bytes from `offset`, in order.
    pub(super) fn pieces(&self, offset: u64, length: u64) -> impl Iterator<Item = (u64, Piece)> {
        let end = offset + length;
        let mut at = offset;
        std::iter::from_fn(move || {
            let piece = (at < end).then(|| self.piece(at, end - at))?;
            let from = at;
            at += piece.length;
            Some((from, piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_where_the_segments_meet() {
        let mut layout = Layout::default();
        layout.append(0, 8192, 4096);
        layout.append(1, 0, 12_288);
        layout.append(0, 0, 4096);
        assert_eq!(layout.bytes(), 20_480);
        let pieces: Vec<_> = layout.pieces(2048, 18_432).collect();
        let piece = |file, at, length| Piece { file, at, length };
        assert_eq!(pieces, [(2048, piece(0, 10_240, 2048)), (4096, piece(1, 0, 12_288)), (16_384, piece(0, 0, 4096))]);
    }

    #[test]
    #[should_panic(expected = "bytes 4096+1 of a disk of 4096 bytes")]
    fn nothing_is_beyond_the_end() {
        let mut layout = Layout::default();
        layout.append(0, 0, 4096);
        layout.piece(4096, 1);
    }
}
