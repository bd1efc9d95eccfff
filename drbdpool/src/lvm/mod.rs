//! A volume group as a pool, whose volumes are thick, linear logical volumes; or a thin pool in one, with thin volumes.
//!
//! The pool is a user of LVM's command line like any other: whatever it knows it reads from one report of the whole group, and
//! every command may fail, hang or be repeated. It keeps no memory of its own, so that `lvs` always tells the truth.
//!
//! **Whose is what** stands in tags. The group is tagged with its cluster and node; a logical volume with its owner and with the
//! volume's name, by which alone it is found. What lacks these tags is never changed.
//!
//! **Old data.** A thick logical volume begins with what was on the disk before. A tag `blkrep.zeroed=<bytes>` says how far that
//! was overwritten; it is set only after the zeros are durable, so a crash leaves too small a number.
//!
//! **With device-mapper** a volume is `/dev/VG/LV`. **Without** it LVM still keeps its metadata, and a linear volume is stretches of
//! the group's disks, which this pool answers: *direct mode*. There it holds every disk of the group exclusively
//! (`O_EXCL`) for as long as it is open, so that no device-mapper, file system or second pool can use them at the same time.

mod adopt;
mod claim;
mod command;
mod create;
mod direct;
mod filter;
mod mapper;
mod names;
mod report;
mod reports;
mod snapshots;
mod tags;
mod thin;
mod zeroing;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use command::Lvm;
pub use command::LvmOptions;
use names::lv_name;
pub(crate) use names::{valid_thin_pool, valid_volume_group};
use report::{LogicalVolume, VolumeGroup};
use reports::{Age, Share};

use crate::pool::{BLOCK, round_up};
use crate::{
    Capacity, Condition, Device, DeviceKind, Identity, Pool, PoolError, PoolSpec, Progress, Segment, Unclaimed, Volume,
    VolumeName,
};

/// A volume group; see [`Pool`].
#[derive(Debug)]
pub struct LvmPool {
    spec: PoolSpec,
    volume_group: String,
    /// The thin pool's name, if it is one.
    thin: Option<String>,
    identity: Identity,
    lvm: Lvm,
    /// The group is in the report that all pools share.
    _share: Share,
    mode: Mode,
    /// Held by whoever changes the pool, so that what was read from a report holds until the command that follows from it.
    changes: Mutex<()>,
    /// The volumes that are being zeroed.
    zeroing: zeroing::InProgress,
}

/// How volumes are reached.
#[derive(Debug)]
enum Mode {
    /// Through device-mapper.
    Mapper,
    /// As stretches of the group's disks, which are held here.
    Direct(direct::Claims),
}

impl LvmPool {
    /// Opens a volume group, or a thin pool in one, for `identity`, and tags it first if it is nobody's and `unclaimed` says so.
    ///
    /// # Errors
    ///
    /// [`PoolError::LvmMissing`], [`PoolError::NoVolumeGroup`], [`PoolError::BadVolumeGroup`], [`PoolError::Unclaimed`],
    /// [`PoolError::OtherOwner`], in direct mode [`PoolError::InUse`], and [`PoolError::Command`].
    pub fn open(spec: &PoolSpec, identity: &Identity, unclaimed: Unclaimed, options: LvmOptions) -> Result<Self, PoolError> {
        let bad = |why: &str| PoolError::BadSpec { spec: spec.to_string(), why: why.to_owned() };
        let (volume_group, thin) = match spec {
            PoolSpec::Lvm { volume_group } => (volume_group, None),
            PoolSpec::LvmThin { volume_group, thin_pool } => (volume_group, Some(thin_pool)),
            PoolSpec::File { .. } | PoolSpec::FileThin { .. } => return Err(bad("it is no volume group")),
        };
        valid_volume_group(volume_group).and_then(|()| thin.map_or(Ok(()), |thin| valid_thin_pool(thin))).map_err(bad)?;
        let mapper = mapper::is_there();
        if thin.is_some() && !mapper {
            return Err(mapper::missing(volume_group));
        }
        let lvm = Lvm::new(options, mapper)?;
        let mode = if mapper { Mode::Mapper } else { Mode::Direct(direct::Claims::default()) };
        let identity = identity.clone();
        let (spec, volume_group, thin) = (spec.clone(), volume_group.clone(), thin.cloned());
        let (changes, zeroing, share) = (Mutex::default(), zeroing::InProgress::default(), lvm.share(&volume_group));
        let pool = Self { spec, volume_group, thin, identity, lvm, _share: share, mode, changes, zeroing };
        let group = pool.report()?;
        group.check_usable()?;
        pool.check_or_claim(&group, unclaimed)?;
        Ok(pool)
    }

    /// Whether there is a volume group of that name.
    pub(crate) fn exists(volume_group: &str) -> Result<bool, PoolError> {
        match Lvm::new(LvmOptions::default(), mapper::is_there())?.volume_group(volume_group) {
            Ok(_) => Ok(true),
            Err(PoolError::NoVolumeGroup { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The group as it is now.
    fn report(&self) -> Result<VolumeGroup, PoolError> {
        self.look(Age::Now)
    }

    /// The group as it was a moment ago, for whoever changes nothing.
    fn recent(&self) -> Result<VolumeGroup, PoolError> {
        self.look(Age::Recent)
    }

    /// The group, its disks held in direct mode.
    fn look(&self, age: Age) -> Result<VolumeGroup, PoolError> {
        let group = self.lvm.shared_group(&self.volume_group, age)?;
        if let Mode::Direct(claims) = &self.mode {
            claims.hold(&group)?;
        }
        Ok(group)
    }

    /// The logical volume that is `volume`, if there is one.
    fn find<'a>(&self, group: &'a VolumeGroup, volume: &VolumeName) -> Option<&'a LogicalVolume> {
        group.volumes.iter().find(|lv| self.volume_of(lv).as_ref() == Some(volume))
    }

    /// Which volume a logical volume is, if it is this pool's. A thin pool and the group that it is in may both be pools.
    fn volume_of(&self, lv: &LogicalVolume) -> Option<VolumeName> {
        let here = self.thin.as_deref().unwrap_or("") == lv.pool;
        tags::volume_of(&lv.tags, &self.identity).filter(|_| here)
    }

    fn existing<'a>(&self, group: &'a VolumeGroup, volume: &VolumeName) -> Result<&'a LogicalVolume, PoolError> {
        if let Some(lv) = self.find(group, volume) {
            return Ok(lv);
        }
        self.refuse_foreign(group, volume)?;
        Err(PoolError::NotFound { volume: volume.to_string(), pool: self.spec.to_string() })
    }

    fn refuse_foreign(&self, group: &VolumeGroup, volume: &VolumeName) -> Result<(), PoolError> {
        let name = lv_name(&self.volume_group, volume);
        match group.volumes.iter().any(|lv| lv.name == name) {
            true => Err(PoolError::Foreign { what: format!("{}/{name}", self.volume_group) }),
            false => Ok(()),
        }
    }

    fn condition(&self, group: &VolumeGroup, lv: &LogicalVolume) -> Condition {
        if let Some(why) = lv.broken(&self.volume_group) {
            return Condition::Unusable(why);
        }
        if tags::is_restoring(&lv.tags) {
            return Condition::Unusable("it is being restored from a snapshot and is not complete".to_owned());
        }
        let segments = match &self.mode {
            Mode::Mapper if !lv.is_active() => return Condition::Inactive,
            Mode::Mapper => {
                let path = Path::new("/dev").join(&self.volume_group).join(&lv.name);
                vec![Segment { path, start: 0, length: lv.size, exclusive: true, reserved: false }]
            }
            Mode::Direct(_) => match direct::segments(group, lv) {
                Ok(segments) => segments,
                Err(why) => return Condition::Unusable(why),
            },
        };
        let zeroed = self.thin.is_some() || tags::zeroed(&lv.tags).is_some_and(|zeroed| zeroed >= lv.size);
        Condition::Ready(Device { segments, size: lv.size, zeroed, kind: DeviceKind::Block })
    }

    fn ready(&self, group: &VolumeGroup, volume: &VolumeName) -> Result<Device, PoolError> {
        match self.condition(group, self.existing(group, volume)?) {
            Condition::Ready(device) => Ok(device),
            Condition::Inactive => Err(PoolError::Inactive { volume: volume.to_string() }),
            Condition::Unusable(why) => Err(PoolError::Unusable { volume: volume.to_string(), why }),
        }
    }

    fn capacity_of(&self, group: &VolumeGroup) -> Result<Capacity, PoolError> {
        Ok(match self.thin_pool(group)? {
            Some(thin) => self.thin_capacity(group, thin),
            None => Capacity { total: group.total(), free: group.free(), fill: None, promises: None, trouble: group.trouble() },
        })
    }

    fn check_free(&self, group: &VolumeGroup, wanted: u64) -> Result<(), PoolError> {
        let free = self.capacity_of(group)?.free;
        if wanted > free { Err(PoolError::NoSpace { pool: self.spec.to_string(), wanted, free }) } else { Ok(()) }
    }

    /// How a command names a logical volume. With what this crate allows in names it cannot be taken for an option or a tag.
    fn full_name(&self, lv: &LogicalVolume) -> String {
        format!("{}/{}", self.volume_group, lv.name)
    }

    fn create_new(&self, group: &VolumeGroup, volume: &VolumeName, size: u64, tag: Option<&str>) -> Result<(), PoolError> {
        self.check_free(group, size)?;
        let mut args: Vec<String> = match (&self.thin, &self.mode) {
            // Without the flag that makes LVM skip a volume when it activates the group's.
            (Some(pool), _) => {
                ["--yes", "--type", "thin", "--setactivationskip", "n", "-ay", "--thinpool", pool].map(str::to_owned).into()
            }
            // Signatures of file systems that were there before would have udev act on them at once.
            (None, Mode::Mapper) => ["--yes", "--type", "linear", "-ay", "-Zy", "-Wy"].map(str::to_owned).into(),
            (None, Mode::Direct(_)) => ["--yes", "--type", "linear", "-an", "-Zn", "-Wn"].map(str::to_owned).into(),
        };
        args.extend(match self.thin {
            Some(_) => ["--virtualsize".to_owned(), format!("{size}b")],
            None => ["--extents".to_owned(), (size / group.extent_size).to_string()],
        });
        for tag in tags::of_volume(&self.identity, volume).into_iter().chain(tag.map(str::to_owned)) {
            args.extend(["--addtag".to_owned(), tag]);
        }
        args.extend(["--name".to_owned(), lv_name(&self.volume_group, volume)]);
        args.extend(["--".to_owned(), self.volume_group.clone()]);
        self.change("lvcreate", &args)
    }

    /// Makes a volume active and answers the report that says so.
    fn activated(&self, group: VolumeGroup, volume: &VolumeName) -> Result<Device, PoolError> {
        let lv = self.existing(&group, volume)?;
        if self.condition(&group, lv) != Condition::Inactive {
            return self.ready(&group, volume);
        }
        self.change("lvchange", &["--yes", "-ay", "--ignoreactivationskip", "--", &self.full_name(lv)])?;
        self.ready(&self.report()?, volume)
    }

    /// Runs a command that changes the group.
    fn change<S: AsRef<str>>(&self, subcommand: &str, args: &[S]) -> Result<(), PoolError> {
        self.lvm.change(subcommand, args).map_err(|error| match error {
            PoolError::Command(failure) if failure.stderr.contains("exceeds maximum metadata size") => {
                PoolError::MetadataFull { volume_group: self.volume_group.clone() }
            }
            error => error,
        })
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // The lock guards nothing but the order of changes: each leaves the pool whole wherever it ends.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool for LvmPool {
    fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    fn capacity(&self) -> Result<Capacity, PoolError> {
        self.capacity_of(&self.recent()?)
    }

    fn create(&self, volume: &VolumeName, bytes: u64) -> Result<Device, PoolError> {
        let _changing = self.changing();
        let mut group = self.report()?;
        let wanted = round_up(bytes, group.extent_size)?;
        match self.find(&group, volume).map(|lv| lv.size) {
            Some(size) if size == wanted => {}
            Some(size) => return Err(PoolError::Exists { volume: volume.to_string(), size, wanted }),
            None => {
                self.refuse_foreign(&group, volume)?;
                self.create_new(&group, volume, wanted, None)?;
                group = self.report()?;
            }
        }
        self.activated(group, volume)
    }

    fn zero(&self, volume: &VolumeName, from: u64, progress: &mut Progress<'_>) -> Result<Device, PoolError> {
        self.zero_from(volume, from, progress)
    }

    fn resize(&self, volume: &VolumeName, bytes: u64) -> Result<Device, PoolError> {
        let _changing = self.changing();
        let group = self.report()?;
        let wanted = round_up(bytes, group.extent_size)?;
        let lv = self.existing(&group, volume)?;
        if wanted < lv.size {
            return Err(PoolError::Shrink { volume: volume.to_string(), size: lv.size, wanted });
        }
        if wanted == lv.size {
            return self.activated(group, volume);
        }
        self.check_free(&group, wanted - lv.size)?;
        let extents = (wanted / group.extent_size).to_string();
        self.change("lvextend", &["--yes", "--extents", &extents, "--", &self.full_name(lv)])?;
        self.activated(self.report()?, volume)
    }

    fn remove(&self, volume: &VolumeName) -> Result<(), PoolError> {
        let _changing = self.changing();
        let group = self.report()?;
        let Some(lv) = self.find(&group, volume) else { return Ok(()) };
        if self.zeroing.includes(volume) {
            return Err(in_use(volume, " by 'zero'"));
        }
        self.refuse_origin(&group, volume)?;
        // By name and uuid: should the name have passed to another volume since the report, nothing is removed.
        let selection = format!("lv_uuid={}", lv.uuid);
        let answer = self.change("lvremove", &["--yes", "--select", &selection, "--", &self.full_name(lv)]);
        match self.find(&self.report()?, volume) {
            None => Ok(()),
            Some(lv) if lv.is_open() => Err(in_use(volume, "")),
            Some(_) => Err(answer.err().unwrap_or_else(|| PoolError::Unusable {
                volume: volume.to_string(),
                why: "it changed while it was being removed; try again".to_owned(),
            })),
        }
    }

    fn list(&self) -> Result<Vec<Volume>, PoolError> {
        let group = self.recent()?;
        let ours = group.volumes.iter().filter_map(|lv| Some((self.volume_of(lv)?, lv)));
        let mut volumes: Vec<_> =
            ours.map(|(name, lv)| Volume { name, size: lv.size, condition: self.condition(&group, lv) }).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    fn device(&self, volume: &VolumeName) -> Result<Device, PoolError> {
        self.ready(&self.recent()?, volume)
    }

    fn activate(&self, volume: &VolumeName) -> Result<Device, PoolError> {
        // After a start all volumes are activated, one by one, and most of them are active.
        if let Ok(device) = self.device(volume) {
            return Ok(device);
        }
        let _changing = self.changing();
        self.activated(self.report()?, volume)
    }

    fn deactivate(&self, volume: &VolumeName) -> Result<(), PoolError> {
        let _changing = self.changing();
        let group = self.report()?;
        let lv = self.existing(&group, volume)?;
        if matches!(self.mode, Mode::Direct(_)) || !lv.is_active() {
            return Ok(());
        }
        if lv.is_open() {
            return Err(in_use(volume, ""));
        }
        self.change("lvchange", &["--yes", "-an", "--", &self.full_name(lv)])
    }
}

fn in_use(volume: &VolumeName, by: &str) -> PoolError {
    PoolError::InUse { what: format!("volume '{volume}'"), by: by.to_owned() }
}
