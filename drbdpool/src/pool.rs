//! What every pool can do, and what it says of its volumes.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::{Adoption, PoolError, PoolSpec, Snapshots, VolumeName};

/// Told how far a long operation is, as bytes done and bytes in all; `Break` ends it early.
pub type Progress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// A place that volumes are carved out of.
///
/// Calls may be made from any thread and block their caller. Those that change the same pool follow one another, except
/// [`zero`](Self::zero), which runs beside everything else.
///
/// A new volume's life: [`create`](Self::create), then, unless [`Device::zeroed`] says that it reads as zeros, either
/// [`zero`](Self::zero) or a complete copy from elsewhere, and only then any use. After a restart, [`activate`](Self::activate) and
/// use. A volume is closed by its users before [`deactivate`](Self::deactivate) or [`remove`](Self::remove).
///
/// What it makes of volumes that others made, and its snapshots, are traits of their own.
pub trait Pool: Adoption + Snapshots + fmt::Debug + Send + Sync {
    /// What was opened.
    fn spec(&self) -> &PoolSpec;

    /// How much there is. What is free is what [`create`](Self::create) can promise, not what happens to be unused.
    fn capacity(&self) -> Result<Capacity, PoolError>;

    /// Creates a volume of at least `bytes`, rounded up to what the pool allocates (4 KiB, or a volume group's extents), and makes
    /// it ready for use. A volume of that name and rounded size is answered as it is.
    ///
    /// # Errors
    ///
    /// [`PoolError::Exists`] when it has another size, [`PoolError::Foreign`] when something of its name was not made here,
    /// [`PoolError::NoSpace`], [`PoolError::BadSize`].
    fn create(&self, volume: &VolumeName, bytes: u64) -> Result<Device, PoolError>;

    /// Makes a volume read as zeros from byte `from` to its end, durably; nothing when that is known already.
    ///
    /// `from` is 0 for a new volume and its old size for one that was grown; the block that it is in the middle of stays. **What was
    /// there is gone**: only a range that nobody has been given may be zeroed. When `progress` breaks it off, or the process dies,
    /// the next call goes on from near where it was.
    ///
    /// # Errors
    ///
    /// [`PoolError::Interrupted`] when `progress` broke it off; [`PoolError::InUse`] when it is being zeroed already, or when `from` is
    /// 0 and the volume is open.
    fn zero(&self, volume: &VolumeName, from: u64, progress: &mut Progress<'_>) -> Result<Device, PoolError>;

    /// Grows a volume to at least `bytes`, rounded up; it may be in use. Nothing when it is that large. The answer's segments begin
    /// with the old ones, the last of which may have become longer.
    ///
    /// # Errors
    ///
    /// [`PoolError::Shrink`] when it is larger, [`PoolError::NotFound`], [`PoolError::NoSpace`], [`PoolError::BadSize`].
    fn resize(&self, volume: &VolumeName, bytes: u64) -> Result<Device, PoolError>;

    /// Removes a volume and what is on it. Nothing when there is none; what has its name but was not made here stays.
    ///
    /// # Errors
    ///
    /// [`PoolError::HasSnapshots`] where these would go with it; [`PoolError::InUse`] when it is open or being zeroed. Users of segments that are not exclusive are not known to the pool, and
    /// must have closed them.
    fn remove(&self, volume: &VolumeName) -> Result<(), PoolError>;

    /// Every volume of the pool in order of names, at the price of asking for one. What was not made here is left out.
    fn list(&self) -> Result<Vec<Volume>, PoolError>;

    /// Where a volume's bytes are.
    ///
    /// # Errors
    ///
    /// [`PoolError::NotFound`], [`PoolError::Foreign`], [`PoolError::Inactive`] until [`activate`](Self::activate),
    /// [`PoolError::Unusable`].
    fn device(&self, volume: &VolumeName) -> Result<Device, PoolError>;

    /// Makes a volume ready for use, as it may not be after a restart of the machine. Nothing when it is.
    fn activate(&self, volume: &VolumeName) -> Result<Device, PoolError>;

    /// Undoes [`activate`](Self::activate) where that means anything.
    fn deactivate(&self, volume: &VolumeName) -> Result<(), PoolError>;
}

/// The size of a pool, in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// The volume group or file system, whoever uses it.
    pub total: u64,
    /// What can be promised to new volumes.
    pub free: u64,
    /// How full it is, of a thin pool.
    pub fill: Option<Fill>,
    /// What a thin pool has promised, which may be more than it has.
    pub promises: Option<Promises>,
    /// What is amiss with it and what to do, though volumes that exist may be in use.
    pub trouble: Option<String>,
}

/// How full a thin pool is, in thousandths. When one of them is 1000, writes fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fill {
    /// Of its space for data.
    pub data: u16,
    /// Of its space for metadata; `None` where there is no such limit.
    pub metadata: Option<u16>,
}

impl Fill {
    /// From here on nothing more is promised: what volumes have already needs the rest.
    pub const NEARLY: u16 = 950;

    /// Whether nothing more should be promised.
    pub fn is_nearly_full(&self) -> bool {
        self.data.max(self.metadata.unwrap_or(0)) >= Self::NEARLY
    }
}

/// What a thin pool has promised, and may promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promises {
    /// How many times its size it may promise.
    pub times: u32,
    /// What it has promised to volumes and snapshots, in bytes.
    pub made: u64,
}

/// What a thin pool of `size` bytes can still promise when it has promised that much and is that full.
pub(crate) fn thin_free(size: u64, promises: Promises, fill: Fill) -> u64 {
    let limit = size.saturating_mul(promises.times.into());
    if fill.is_nearly_full() { 0 } else { limit.saturating_sub(promises.made) / BLOCK * BLOCK }
}

/// How many times its size a thin pool promises when nobody says: as much as LINSTOR's does.
pub const OVERSUBSCRIPTION: u32 = 20;

/// A volume and whether it can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it can be used.
    pub condition: Condition,
}

/// Whether a volume can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It can.
    Ready(Device),
    /// It can after [`Pool::activate`].
    Inactive,
    /// It cannot, and why.
    Unusable(String),
}

/// Where a volume's bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// The stretches that make up the volume, in order; their lengths add up to `size`.
    pub segments: Vec<Segment>,
    /// The size in bytes, a multiple of 4096.
    pub size: u64,
    /// Whether every byte that was not written since the volume was created reads as zero. Otherwise it reads as whatever was on
    /// the disk before.
    pub zeroed: bool,
    /// What the segments are stretches of.
    pub kind: DeviceKind,
}

/// A stretch of a file or block device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The file or device.
    pub path: PathBuf,
    /// The first byte, a multiple of 4096.
    pub start: u64,
    /// How many bytes, a multiple of 4096.
    pub length: u64,
    /// Whether the whole file or device belongs to the volume, so that its user can lock it: a file by `flock`, a device by opening
    /// it with `O_EXCL`. Where several volumes share a device the pool itself holds it with `O_EXCL`, and the user of a stretch locks its bytes
    /// (`F_OFD_SETLK`): a pool that is opened after its process was killed waits for these locks, and so does not meet late writes.
    pub exclusive: bool,
    /// Whether a file's space was promised to it: its user must not give any of it back, not even where he zeroes it.
    pub reserved: bool,
}

/// What holds a volume's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// Regular files.
    File,
    /// Block devices.
    Block,
}

/// A volume's size is a multiple of this, in every pool.
pub(crate) const BLOCK: u64 = 4096;

/// The least multiple of `unit` that holds `bytes`, if `bytes` is a size that a device can have.
pub(crate) fn round_up(bytes: u64, unit: u64) -> Result<u64, PoolError> {
    let rounded = bytes.checked_next_multiple_of(unit).filter(|&rounded| bytes > 0 && i64::try_from(rounded).is_ok());
    rounded.ok_or(PoolError::BadSize { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_and_absurd_ones_refused() {
        assert_eq!(round_up(1, 4096).unwrap(), 4096);
        assert_eq!(round_up(4096, 4096).unwrap(), 4096);
        assert_eq!(round_up(4097, 4 << 20).unwrap(), 4 << 20);
        for absurd in [0, u64::MAX, 1 << 63, (1 << 63) - 1] {
            assert!(matches!(round_up(absurd, 4096), Err(PoolError::BadSize { bytes }) if bytes == absurd), "{absurd}");
        }
    }
}
