//! The physical volumes of a group.

use super::rows::{PvRow, number};

/// A physical volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::lvm) struct Disk {
    /// The device's path; what LVM shows for one that is missing.
    pub(in crate::lvm) path: String,
    /// Where its first extent begins, in bytes.
    pub(in crate::lvm) data_start: u64,
    pub(super) extents: u64,
    pub(super) extents_used: u64,
    pub(super) attributes: String,
}

impl Disk {
    pub(super) fn read(row: PvRow) -> Result<Self, String> {
        Ok(Self {
            data_start: number("pe_start", &row.pe_start)?,
            extents: number("pv_pe_count", &row.pv_pe_count)?,
            extents_used: number("pv_pe_alloc_count", &row.pv_pe_alloc_count)?,
            path: row.pv_name,
            attributes: row.pv_attr,
        })
    }

    pub(in crate::lvm) fn is_missing(&self) -> bool {
        self.attributes.chars().nth(2) == Some('m') || !self.path.starts_with('/')
    }
}
