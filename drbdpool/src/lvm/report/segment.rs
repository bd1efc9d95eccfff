//! The parts of a logical volume, and the extents of disks that they are on.

use super::rows::{SegRow, number};

/// A part of a logical volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::lvm) struct LvSegment {
    pub(in crate::lvm) kind: String,
    /// Its place in the volume, in bytes.
    pub(in crate::lvm) start: u64,
    /// Bytes.
    pub(in crate::lvm) size: u64,
    /// The extents of the disks that it is on.
    pub(in crate::lvm) extents: Vec<ExtentRange>,
}

/// Extents of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::lvm) struct ExtentRange {
    pub(in crate::lvm) disk: String,
    pub(in crate::lvm) first: u64,
    pub(in crate::lvm) last: u64,
}

impl LvSegment {
    pub(super) fn read(row: &SegRow) -> Result<Self, String> {
        Ok(Self {
            kind: row.segtype.clone(),
            start: number("seg_start", &row.seg_start)?,
            size: number("seg_size", &row.seg_size)?,
            extents: row.seg_pe_ranges.split(' ').filter(|range| !range.is_empty()).filter_map(ExtentRange::read).collect(),
        })
    }
}

impl ExtentRange {
    /// Reads `DISK:FIRST-LAST`. `None` for what is no range of a disk, which segments of other kinds than linear have.
    fn read(range: &str) -> Option<Self> {
        // From the right: a disk's path may contain a colon.
        let (disk, extents) = range.rsplit_once(':')?;
        let (first, last) = extents.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then(|| Self { disk: disk.to_owned(), first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_may_have_colons_in_their_names() {
        let range = ExtentRange::read("/dev/disk/by-path/pci-0000:00:1f.2-ata-1:7-12").unwrap();
        assert_eq!((range.disk.as_str(), range.first, range.last), ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", 7, 12));
        for bad in ["", "/dev/sda", "/dev/sda:", "/dev/sda:1", "/dev/sda:2-1", "/dev/sda:a-b", "/dev/sda:-1-2"] {
            assert_eq!(ExtentRange::read(bad), None, "{bad:?}");
        }
    }
}
