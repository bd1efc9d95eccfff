//! Direct mode: a linear volume as stretches of the group's disks, without device-mapper.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use super::report::{ExtentRange, LogicalVolume, LvSegment, VolumeGroup};
use crate::patience::patiently;
use crate::pool::BLOCK;
use crate::{PoolError, Segment};

/// Where a logical volume's bytes are, or why they are not anywhere that can be used.
///
/// All of it must be there: whatever the report says that is not understood makes the volume unusable, rather than its bytes ones of
/// another volume.
pub(super) fn segments(group: &VolumeGroup, lv: &LogicalVolume) -> Result<Vec<Segment>, String> {
    if !lv.is_plain() {
        return Err("it has a snapshot or is part of another volume; without device-mapper it cannot be used".to_owned());
    }
    let mut segments: Vec<Segment> = Vec::new();
    let mut at = 0;
    for segment in &lv.segments {
        if segment.start != at {
            return Err(format!("LVM's report has nothing at byte {at}, but a segment at {}", segment.start));
        }
        for stretch in stretches(group, segment)? {
            at = u64::saturating_add(at, stretch.length);
            match segments.last_mut() {
                Some(last) if last.path == stretch.path && last.start + last.length == stretch.start => {
                    last.length += stretch.length;
                }
                _ => segments.push(stretch),
            }
        }
        if at != segment.start.saturating_add(segment.size) {
            return Err(format!("the extents of its segment at byte {} do not add up to the segment's size", segment.start));
        }
    }
    if at != lv.size || segments.is_empty() {
        return Err(format!("its segments have {at} bytes, the volume has {}", lv.size));
    }
    Ok(segments)
}

fn stretches(group: &VolumeGroup, segment: &LvSegment) -> Result<Vec<Segment>, String> {
    if segment.kind != "linear" {
        return Err(format!("a part of it is of type '{}'; without device-mapper only linear volumes can be used", segment.kind));
    }
    segment.extents.iter().map(|range| stretch(group, range)).collect()
}

fn stretch(group: &VolumeGroup, range: &ExtentRange) -> Result<Segment, String> {
    let disk = group.disks.iter().find(|disk| disk.path == range.disk && !disk.is_missing());
    let Some(disk) = disk else { return Err(format!("its disk '{}' is missing", range.disk)) };
    let start = range.first.checked_mul(group.extent_size).and_then(|start| start.checked_add(disk.data_start));
    let length = (range.last - range.first).checked_add(1).and_then(|extents| extents.checked_mul(group.extent_size));
    match (start, length) {
        (Some(start), Some(length)) if start % BLOCK == 0 && length % BLOCK == 0 && start.checked_add(length).is_some() => {
            Ok(Segment { path: PathBuf::from(&range.disk), start, length, exclusive: false, reserved: false })
        }
        _ => Err(format!("its extents on {} do not begin at a multiple of {BLOCK} bytes", range.disk)),
    }
}

/// The group's disks, each open with `O_EXCL`: the kernel gives that to one user at a time, of which device-mapper, a mounted file
/// system and another pool are others. LVM's own commands do not ask for it, except to make a new physical volume.
///
/// They are told apart by device number: LVM may call a disk by another of its paths tomorrow.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<u64, File>>);

impl Claims {
    /// Holds every disk of a group that is not held yet: the group may have grown.
    pub(super) fn hold(&self, group: &VolumeGroup) -> Result<(), PoolError> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for disk in group.disks.iter().filter(|disk| !disk.is_missing()) {
            let path = Path::new(&disk.path);
            if let Entry::Vacant(unheld) = held.entry(device_number(path)?) {
                unheld.insert(claim(path)?);
            }
        }
        Ok(())
    }

    /// A disk that is held.
    pub(super) fn file(&self, path: &Path) -> Result<File, PoolError> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = held.get(&device_number(path)?).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        file.and_then(File::try_clone).map_err(PoolError::io("open", path))
    }
}

fn device_number(path: &Path) -> Result<u64, PoolError> {
    fs::metadata(path).map(|metadata| metadata.rdev()).map_err(PoolError::io("examine", path))
}

fn claim(path: &Path) -> Result<File, PoolError> {
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(exclusive);
    let in_use = |by| PoolError::InUse { what: format!("the disk {}", path.display()), by };
    let busy = |error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy;
    let disk = patiently(busy, || options.open(path)).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => in_use(users(path)),
        _ => PoolError::io("open", path)(error),
    })?;
    // When a process is killed its descriptors are closed before the writes that it has submitted have ended. But these writes keep
    // the locks on its volumes' stretches, each of which stands in the way of one on all of the disk. The moment that this lock is
    // held is enough: nobody else can begin, because nobody else has the disk.
    match patiently(|error| is_locked(*error), || fcntl_lock(&disk, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => fcntl_lock(&disk, FlockOperation::Unlock).map_err(PoolError::io("unlock", path))?,
        Err(error) if is_locked(error) => {
            return Err(in_use(" by what a process that was killed has still to write".to_owned()));
        }
        Err(error) => return Err(PoolError::io("lock", path)(error)),
    }
    Ok(disk)
}

fn is_locked(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::ACCESS)
}

/// Who has a disk, as far as the kernel tells.
fn users(path: &Path) -> String {
    let other = || " by another process, which has the pool open, or by a mount".to_owned();
    let Ok(device) = device_number(path) else { return other() };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(holders) = fs::read_dir(format!("/sys/dev/block/{major}:{minor}/holders")) else { return other() };
    let holders: Vec<_> = holders.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if holders.is_empty() { other() } else { format!(" by {}", holders.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{DIRECT, MISSING, group, volume};
    use super::*;

    const MIB: u64 = 1 << 20;

    fn stretch(disk: &str, first_extent: u64, extents: u64) -> Segment {
        Segment {
            path: disk.into(),
            start: MIB + first_extent * 4 * MIB,
            length: extents * 4 * MIB,
            exclusive: false,
            reserved: false,
        }
    }

    #[test]
    fn a_linear_volume_is_the_extents_of_its_segments() {
        let group = group(DIRECT);
        let b = segments(&group, volume(&group, "b_00")).unwrap();
        assert_eq!(b, [stretch("/dev/loop0", 3, 3)]);
        let a = segments(&group, volume(&group, "a_00")).unwrap();
        assert_eq!(a, [stretch("/dev/loop0", 0, 3), stretch("/dev/loop0", 8, 17), stretch("/dev/loop1", 2, 10)]);
    }

    #[test]
    fn neighbouring_segments_are_one_stretch() {
        let group = group(&DIRECT.replace("/dev/loop0:8-24", "/dev/loop0:3-19"));
        let a = segments(&group, volume(&group, "a_00")).unwrap();
        assert_eq!(a, [stretch("/dev/loop0", 0, 20), stretch("/dev/loop1", 2, 10)]);
    }

    #[test]
    fn volumes_that_are_not_linear_are_refused_by_their_type() {
        let group = group(DIRECT);
        for kind in ["striped", "zero"] {
            let why = segments(&group, volume(&group, kind)).unwrap_err();
            assert!(why.contains(&format!("'{kind}'")) || why.contains("part of another volume"), "{why}");
        }
    }

    /// Each of these would put a volume's bytes where another's are.
    #[test]
    fn a_report_that_does_not_add_up_makes_the_volume_unusable() {
        let a_segment = "\"seg_start\":\"12582912\", \"seg_size\":\"71303168\"";
        for (from, to, why) in [
            ("/dev/loop0:8-24", "/dev/loop0:8-23", "add up"),
            ("/dev/loop0:8-24", "/dev/loop0:8-24 /dev/loop0:40-40", "add up"),
            ("/dev/loop0:8-24", "gibberish", "add up"),
            ("/dev/loop0:8-24", "/dev/loop7:8-24", "missing"),
            ("/dev/loop0:8-24", "/dev/loop0:18446744073709551598-18446744073709551614", "multiple of 4096"),
            (a_segment, "\"seg_start\":\"16777216\", \"seg_size\":\"71303168\"", "nothing at byte 12582912"),
            ("\"lv_size\":\"125829120\"", "\"lv_size\":\"129829120\"", "segments have"),
            ("\"pe_start\":\"1048576\"", "\"pe_start\":\"1048577\"", "multiple of 4096"),
            ("\"lv_size\":\"125829120\", \"lv_attr\":\"-", "\"lv_size\":\"125829120\", \"lv_attr\":\"o", "snapshot"),
        ] {
            assert!(DIRECT.contains(from), "{from}");
            let group = group(&DIRECT.replace(from, to));
            let refused = segments(&group, volume(&group, "a_00")).unwrap_err();
            assert!(refused.contains(why), "{from} -> {to}: {refused}");
        }
        let group = group(MISSING);
        assert!(segments(&group, volume(&group, "a_00")).unwrap_err().contains("[unknown]"));
    }
}
