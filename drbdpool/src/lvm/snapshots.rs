//! Snapshots of logical volumes: thin ones in a thin pool, classic ones beside thick volumes.
//!
//! They are found by their tags, as volumes are. A volume that is restored in a thick pool is copied; until that is complete, a tag says
//! that it is not usable.

use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::path::Path;

use super::names::snapshot_lv_name;
use super::report::{LogicalVolume, VolumeGroup};
use super::{LvmPool, Mode, in_use, lv_name, tags};
use crate::copy::copy;
use crate::pool::round_up;
use crate::{Condition, Device, PoolError, Progress, Snapshot, SnapshotMethod, SnapshotName, Snapshots, VolumeName};

impl Snapshots for LvmPool {
    fn snapshot_method(&self) -> Result<SnapshotMethod, PoolError> {
        match (&self.thin, &self.mode) {
            (Some(_), _) => Ok(SnapshotMethod::Shared),
            (None, Mode::Mapper) => Ok(SnapshotMethod::SetAside),
            (None, Mode::Direct(_)) => {
                let why =
                    "this kernel has no device-mapper, which keeps a volume's old blocks; a pool of files makes them anywhere";
                Err(PoolError::NoSnapshots { pool: self.spec.to_string(), why: why.to_owned() })
            }
        }
    }

    fn snapshot(&self, snapshot: &SnapshotName, room: u64, _progress: &mut Progress<'_>) -> Result<Device, PoolError> {
        let method = self.snapshot_method()?;
        let _changing = self.changing();
        let group = self.report()?;
        if self.find_snapshot(&group, snapshot).is_none() {
            let origin = self.existing(&group, snapshot.volume())?;
            let name = snapshot_lv_name(&self.volume_group, snapshot);
            if group.volumes.iter().any(|lv| lv.name == name) {
                return Err(PoolError::Foreign { what: format!("{}/{name}", self.volume_group) });
            }
            let mut args: Vec<String> =
                ["--yes", "--snapshot", "--setactivationskip", "n", "-ay", "--permission", "r"].map(str::to_owned).into();
            if method == SnapshotMethod::SetAside {
                // LVM notes in the same space what it has put there.
                let extents = round_up(room.clamp(1, origin.size), group.extent_size)? / group.extent_size + 1;
                self.check_free(&group, extents * group.extent_size)?;
                args.extend(["--extents".to_owned(), extents.to_string()]);
            } else {
                self.check_free(&group, origin.size)?;
            }
            for tag in tags::of_snapshot(&self.identity, snapshot) {
                args.extend(["--addtag".to_owned(), tag]);
            }
            args.extend(["--name".to_owned(), name, "--".to_owned(), self.full_name(origin)]);
            self.change("lvcreate", &args)?;
        }
        self.snapshot_ready(snapshot)
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, PoolError> {
        let group = self.recent()?;
        let ours = group.volumes.iter().filter_map(|lv| Some((self.snapshot_of(lv)?, lv)));
        let mut all: Vec<_> =
            ours.map(|(name, lv)| Snapshot { name, size: lv.size, condition: self.condition(&group, lv) }).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn remove_snapshot(&self, snapshot: &SnapshotName) -> Result<(), PoolError> {
        let _changing = self.changing();
        let group = self.report()?;
        let Some(lv) = self.find_snapshot(&group, snapshot) else { return Ok(()) };
        let selection = format!("lv_uuid={}", lv.uuid);
        let answer = self.change("lvremove", &["--yes", "--select", &selection, "--", &self.full_name(lv)]);
        match self.find_snapshot(&self.report()?, snapshot) {
            None => Ok(()),
            Some(lv) if lv.is_open() => Err(PoolError::InUse { what: format!("snapshot '{snapshot}'"), by: String::new() }),
            Some(_) => Err(answer.err().unwrap_or_else(|| in_use(snapshot.volume(), " by something that changed it meanwhile"))),
        }
    }

    fn restore(&self, snapshot: &SnapshotName, volume: &VolumeName) -> Result<Device, PoolError> {
        let source = self.snapshot_ready(snapshot)?;
        let _changing = self.changing();
        let group = self.report()?;
        let size = source.size;
        match self.find(&group, volume) {
            Some(lv) if lv.size != size => {
                return Err(PoolError::Exists { volume: volume.to_string(), size: lv.size, wanted: size });
            }
            Some(lv) if !tags::is_restoring(&lv.tags) => return self.activated(group, volume),
            Some(_) => {}
            None => {
                self.refuse_foreign(&group, volume)?;
                self.check_free(&group, size)?;
                match self.thin {
                    Some(_) => self.clone_thin(&group, snapshot, volume)?,
                    None => self.create_new(&group, volume, size, Some(tags::RESTORING))?,
                }
            }
        }
        if self.thin.is_none() {
            self.copy_from(&source, volume)?;
        }
        self.activated(self.report()?, volume)
    }
}

impl LvmPool {
    /// A thin volume that shares everything with a snapshot.
    fn clone_thin(&self, group: &VolumeGroup, snapshot: &SnapshotName, volume: &VolumeName) -> Result<(), PoolError> {
        let from = self.existing_snapshot(group, snapshot)?;
        let kind = ["--yes", "--snapshot", "--setactivationskip", "n", "-ay", "--permission", "rw"];
        let mut args: Vec<String> = kind.map(str::to_owned).into();
        for tag in tags::of_volume(&self.identity, volume) {
            args.extend(["--addtag".to_owned(), tag]);
        }
        args.extend(["--name".to_owned(), lv_name(&self.volume_group, volume), "--".to_owned(), self.full_name(from)]);
        self.change("lvcreate", &args)
    }

    /// Copies all of a snapshot into a volume that is nobody's yet, and lets it be used.
    fn copy_from(&self, source: &Device, volume: &VolumeName) -> Result<(), PoolError> {
        let group = self.report()?;
        let lv = self.existing(&group, volume)?;
        let open =
            |path: &Path, write| OpenOptions::new().read(true).write(write).open(path).map_err(PoolError::io("open", path));
        let path = Path::new("/dev").join(&self.volume_group).join(&lv.name);
        let (from, to) = (open(&source.segments[0].path, false)?, open(&path, true)?);
        let whole =
            crate::zero::Stretch { file: to.try_clone().map_err(PoolError::io("open", &path))?, start: 0, length: lv.size };
        let zeroed = crate::zero::zero(&[whole], &mut |_, _| ControlFlow::Continue(()));
        let copied = zeroed.and_then(|_| copy(&from, &to, source.size, &mut |_, _| ControlFlow::Continue(()))).map(drop);
        copied.map_err(PoolError::io("copy into", &path))?;
        let name = self.full_name(lv);
        // It does not count as zeroed: behind what its user makes of it may be what came to the old volume while that grew.
        self.change("lvchange", &["--deltag", tags::RESTORING, "--", &name])
    }

    /// The snapshot's device, active.
    fn snapshot_ready(&self, snapshot: &SnapshotName) -> Result<Device, PoolError> {
        self.snapshot_method()?;
        let mut group = self.report()?;
        if self.condition(&group, self.existing_snapshot(&group, snapshot)?) == Condition::Inactive {
            let name = self.full_name(self.existing_snapshot(&group, snapshot)?);
            self.change("lvchange", &["--yes", "-ay", "--ignoreactivationskip", "--", &name])?;
            group = self.report()?;
        }
        match self.condition(&group, self.existing_snapshot(&group, snapshot)?) {
            Condition::Ready(device) => Ok(device),
            Condition::Inactive => Err(PoolError::Inactive { volume: snapshot.to_string() }),
            Condition::Unusable(why) => Err(PoolError::Unusable { volume: snapshot.to_string(), why }),
        }
    }

    fn existing_snapshot<'a>(&self, group: &'a VolumeGroup, snapshot: &SnapshotName) -> Result<&'a LogicalVolume, PoolError> {
        let missing = || PoolError::NotFound { volume: snapshot.to_string(), pool: self.spec.to_string() };
        self.find_snapshot(group, snapshot).ok_or_else(missing)
    }

    fn find_snapshot<'a>(&self, group: &'a VolumeGroup, snapshot: &SnapshotName) -> Option<&'a LogicalVolume> {
        group.volumes.iter().find(|lv| self.snapshot_of(lv).as_ref() == Some(snapshot))
    }

    fn snapshot_of(&self, lv: &LogicalVolume) -> Option<SnapshotName> {
        let here = self.thin.as_deref().unwrap_or("") == lv.pool;
        tags::snapshot_of(&lv.tags, &self.identity).filter(|_| here)
    }

    /// Refuses to remove a volume whose snapshots would go with it: classic ones hold what it has changed, and nothing else.
    pub(super) fn refuse_origin(&self, group: &VolumeGroup, volume: &VolumeName) -> Result<(), PoolError> {
        if self.thin.is_some() {
            return Ok(());
        }
        let of_volume = group.volumes.iter().filter_map(|lv| self.snapshot_of(lv)).filter(|one| one.volume() == volume);
        let names: Vec<String> = of_volume.map(|one| one.name().to_owned()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(PoolError::HasSnapshots { volume: volume.to_string(), snapshots: names.join(", ") })
    }
}
