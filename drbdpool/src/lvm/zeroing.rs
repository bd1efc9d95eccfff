//! Overwriting what was on the disk before a volume.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{LvmPool, Mode, in_use, tags};
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
        let before = tags::zeroed(&self.existing(&group, volume)?.tags);
        let from = from.max(before.unwrap_or(0));
        if from >= device.size {
            return Ok(device);
        }
        let stretches = self.stretches(volume, &device, from)?;
        match zero(&stretches, progress).map_err(PoolError::io("zero", &device.segments[0].path))? {
            ControlFlow::Break(()) => return Err(PoolError::Interrupted { volume: volume.to_string() }),
            ControlFlow::Continue(()) => drop(stretches),
        }
        // Where something before `from` was never zeroed the volume as a whole was not.
        if let Some(before) = before.filter(|&before| before >= from) {
            self.note_zeroed(volume, before, device.size)?;
        }
        self.ready(&self.report()?, volume)
    }

    /// The open stretches of a volume from byte `from` on.
    fn stretches(&self, volume: &VolumeName, device: &Device, from: u64) -> Result<Vec<Stretch>, PoolError> {
        let mut stretches = Vec::new();
        let mut at = 0;
        for segment in &device.segments {
            let skipped = from.saturating_sub(at).min(segment.length);
            at += segment.length;
            if skipped == segment.length {
                continue;
            }
            let file = match &self.mode {
                Mode::Direct(claims) => claims.file(&segment.path)?,
                Mode::Mapper => open_to_zero(volume, &segment.path, from == 0)?,
            };
            stretches.push(Stretch { file, start: segment.start + skipped, length: segment.length - skipped });
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
