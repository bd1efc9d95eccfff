//! Where bytes are, in words that every room can use.

use std::path::PathBuf;

/// Where a volume's or a metadata area's bytes are: one or more stretches of files or block devices, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// The stretches; their lengths add up to at least the size.
    pub segments: Vec<Segment>,
}

/// A stretch of a file or block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The file or device.
    pub path: PathBuf,
    /// The first byte, a multiple of 4096.
    pub start: u64,
    /// How many bytes; in all but the last segment a multiple of 4096.
    pub length: u64,
    /// Whether the whole file or device belongs to this segment alone, so that it can be locked (rule F4). Of one that is
    /// shared only the stretch itself is locked, which other programs do not see.
    pub exclusive: bool,
    /// Whether the space of a file was promised to it: then it keeps what it has, also where TRIM zeroes it. Means nothing for a
    /// block device, which has all of its space anyway and may pass on what is not needed.
    pub reserved: bool,
}

impl Backing {
    /// All of `length` bytes of one file or device that nobody else uses.
    pub fn whole(path: impl Into<PathBuf>, length: u64) -> Self {
        Self { segments: vec![Segment { path: path.into(), start: 0, length, exclusive: true, reserved: false }] }
    }
}
