//! Overwriting what was on the disk before a volume.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{LvmPool, Mode, in_use, tags};
use crate::pool::BLOCK;
use crate::zero::{Stretch, zero};
use crate::{Device, PoolError, Progress, VolumeName};

impl LvmPool {
    /// [`Pool::zero`](crate::Pool::zero).
    pub(super) fn zero_from(&self, volume: &VolumeName, from: u64, progress: &mut Progress<'_>) -> Result<Device, PoolError> {
        // From here to the end the volume stays, or its extents could be another's when they are zeroed.
        let (group, _staying) = {
            let _changing = self.changing();
            (self.report()?, self.zeroing.begin(volume)?)
        };
        let device = self.ready(&group, volume)?;
        let mut zeroed = tags::zeroed(&self.existing(&group, volume)?.tags);
        // A new volume is nobody's yet, also where its zeroing goes on after a restart.
        let alone = from == 0;
        let from = from.max(zeroed.unwrap_or(0)).min(device.size).next_multiple_of(BLOCK);
        let mut at = from;
        while at < device.size {
            let end = device.size.min(at.saturating_add(self.lvm.options.zero_lap.max(BLOCK)));
            let stretches = self.stretches(volume, &device, at..end, alone)?;
            let mut lap = |done, _| progress(at - from + done, device.size - from);
            match zero(&stretches, &mut lap).map_err(PoolError::io("zero", &device.segments[0].path))? {
                ControlFlow::Break(()) => return Err(PoolError::Interrupted { volume: volume.to_string() }),
                ControlFlow::Continue(()) => drop(stretches),
            }
            // Where something before was never zeroed the volume as a whole was not, and nothing is noted.
            if let Some(before) = zeroed.filter(|&before| before >= at) {
                self.note_zeroed(volume, before, end)?;
                zeroed = Some(end);
            }
            at = end;
        }
        self.ready(&self.report()?, volume)
    }

    /// The open stretches of a range of a volume.
    fn stretches(&self, volume: &VolumeName, device: &Device, range: Range<u64>, alone: bool) -> Result<Vec<Stretch>, PoolError> {
        let mut stretches = Vec::new();
        let mut begin = 0;
        for segment in &device.segments {
            let end = begin + segment.length;
            let (first, last) = (range.start.max(begin), range.end.min(end));
            if first < last {
                let file = match &self.mode {
                    Mode::Direct(claims) => claims.file(&segment.path)?,
                    Mode::Mapper => open_to_zero(volume, &segment.path, alone)?,
                };
                stretches.push(Stretch { file, start: segment.start + (first - begin), length: last - first });
            }
            begin = end;
        }
        Ok(stretches)
    }

    /// Notes that a volume, of which the first `before` bytes were, is zeroed up to `size` now.
    fn note_zeroed(&self, volume: &VolumeName, before: u64, size: u64) -> Result<(), PoolError> {
        let _changing = self.changing();
        let group = self.report()?;
        let name = self.full_name(self.existing(&group, volume)?);
        self.change("lvchange", &["--addtag", &tags::zeroed_to(size), "--deltag", &tags::zeroed_to(before), "--", &name])
    }
}

/// Opens a volume to zero it. A new one must be nobody else's; one that was grown may be in use below what is zeroed.
fn open_to_zero(volume: &VolumeName, path: &Path, alone: bool) -> Result<File, PoolError> {
    let flags = if alone { rustix::fs::OFlags::EXCL.bits().cast_signed() } else { 0 };
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => in_use(volume, ""),
        _ => PoolError::io("open", path)(error),
    })
}

/// The volumes that are being zeroed: each once, and none of them is removed meanwhile.
#[derive(Debug, Default)]
pub(super) struct InProgress(Mutex<BTreeSet<VolumeName>>);

impl InProgress {
    /// Adds a volume until the answer is dropped.
    fn begin(&self, volume: &VolumeName) -> Result<Turn<'_>, PoolError> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(volume.clone()) {
            true => Ok(Turn { all: self, volume: volume.clone() }),
            false => Err(in_use(volume, " by another 'zero'")),
        }
    }

    pub(super) fn includes(&self, volume: &VolumeName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(volume)
    }
}

/// A volume that is being zeroed.
#[derive(Debug)]
struct Turn<'a> {
    all: &'a InProgress,
    volume: VolumeName,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.volume);
    }
}
