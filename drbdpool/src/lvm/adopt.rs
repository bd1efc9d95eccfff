//! Logical volumes that others made, as volumes of the pool.
//!
//! The tags make one the pool's, all of them in one command: before it the logical volume is as it was, after it it is adopted. That
//! it is renamed as well is for the eye of who looks at `lvs`; where the process dies in between, the next call does it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::names::{is_internal, lv_name};
use super::report::{LogicalVolume, VolumeGroup};
use super::{LvmPool, Mode, direct, in_use, tags};
use crate::pool::BLOCK;
use crate::{Adoptable, Adoption, Device, PoolError, VolumeName};

impl Adoption for LvmPool {
    fn adoptable(&self, source: &Adoptable, volume: &VolumeName) -> Result<u64, PoolError> {
        Ok(self.candidate(&self.report()?, source, volume)?.size)
    }

    fn adopt(&self, source: &Adoptable, volume: &VolumeName) -> Result<Device, PoolError> {
        let _changing = self.changing();
        let mut group = self.report()?;
        if self.find(&group, volume).is_none() {
            let lv = self.candidate(&group, source, volume)?;
            let [owner, name, _] = tags::of_volume(&self.identity, volume);
            // What is on it is somebody's data to the last byte: there is nothing to be zeroed.
            let zeroed = tags::zeroed_to(lv.size);
            let args = ["--addtag", &owner, "--addtag", &name, "--addtag", &zeroed, "--", &self.full_name(lv)];
            self.change("lvchange", &args)?;
            group = self.report()?;
        }
        let (old, new) = (self.existing(&group, volume)?.name.clone(), lv_name(&self.volume_group, volume));
        if old != new {
            self.rename(&old, &new)?;
            group = self.report()?;
        }
        self.activated(group, volume)
    }

    fn disown(&self, volume: &VolumeName, source: &Adoptable) -> Result<(), PoolError> {
        let _changing = self.changing();
        let mut group = self.report()?;
        let Some(lv) = self.find(&group, volume) else { return Ok(()) };
        if lv.is_open() {
            return Err(in_use(volume, ""));
        }
        // First the name, then the tags: what has them can be found again when this is cut short.
        if let Adoptable::LogicalVolume { name, .. } = source
            && lv.name != *name
            && !group.volumes.iter().any(|lv| lv.name == *name)
        {
            self.rename(&lv.name, name)?;
            group = self.report()?;
        }
        let lv = self.existing(&group, volume)?;
        let ours = lv.tags.iter().filter(|tag| tags::is_of_volume(tag));
        let args: Vec<&str> = ours.flat_map(|tag| ["--deltag", tag]).collect();
        self.change("lvchange", &[&args[..], &["--", &self.full_name(lv)]].concat())
    }
}

impl LvmPool {
    fn rename(&self, old: &str, new: &str) -> Result<(), PoolError> {
        self.change("lvrename", &["--", &self.volume_group, old, new])
    }

    /// The logical volume, if it can become `volume` as it is.
    fn candidate<'a>(
        &self,
        group: &'a VolumeGroup,
        source: &Adoptable,
        volume: &VolumeName,
    ) -> Result<&'a LogicalVolume, PoolError> {
        let Adoptable::LogicalVolume { volume_group, name } = source else {
            return Err(source.refused(format!("{} takes logical volumes; name a pool of files", self.spec)));
        };
        if *volume_group != self.volume_group {
            return Err(source.refused(format!("it is not in {}; name the pool that its volume group is", self.spec)));
        }
        let Some(lv) = group.volumes.iter().find(|lv| lv.name == *name) else {
            return Err(source.refused(match is_internal(name) {
                true => "LVM keeps it to itself, as a part of another volume".to_owned(),
                false => format!("there is no such logical volume; 'lvs {volume_group}' shows those that there are"),
            }));
        };
        if let Some(why) = self.elsewhere(lv) {
            return Err(PoolError::OtherPools { what: source.to_string(), why });
        }
        match self.unfit(group, lv, volume) {
            Some(why) => Err(source.refused(why)),
            None => Ok(lv),
        }
    }

    /// Why a logical volume cannot become `volume`, if it cannot.
    fn unfit(&self, group: &VolumeGroup, lv: &LogicalVolume, volume: &VolumeName) -> Option<String> {
        let (name, full) = (lv_name(&self.volume_group, volume), self.full_name(lv));
        self.whose(lv)
            .or_else(|| lv.unlike_a_volume(&full))
            .or_else(|| lv.broken(&self.volume_group))
            .or_else(|| lv.is_open().then(|| format!("it is in use; unmount it, or end what has it open ('lsof /dev/{full}')")))
            .or_else(|| match &self.mode {
                Mode::Direct(_) => direct::segments(group, lv).err(),
                Mode::Mapper => None,
            })
            .or_else(|| coarse_disk(lv))
            .or_else(|| {
                let present = self.find(group, volume).map(|other| &other.name);
                let taken =
                    present.or_else(|| group.volumes.iter().map(|lv| &lv.name).find(|other| **other == name && name != lv.name));
                taken.map(|other| {
                    format!("'{}/{other}' has the name that it would get; choose another resource name", self.volume_group)
                })
            })
    }

    /// Whose it is, if it is somebody's.
    fn whose(&self, lv: &LogicalVolume) -> Option<String> {
        let owner = tags::owner_of_volume(&lv.tags)?;
        if let Some(volume) = tags::volume_of(&lv.tags, &self.identity) {
            return Some(format!("it is volume '{volume}' of this node already"));
        }
        if let Some(snapshot) = tags::snapshot_of(&lv.tags, &self.identity) {
            return Some(format!("it is the snapshot '{snapshot}' of this node"));
        }
        let deletions: String =
            lv.tags.iter().filter(|tag| tags::is_of_volume(tag)).map(|tag| format!("--deltag {tag} ")).collect();
        let way_out = format!("lvchange {deletions}{}", self.full_name(lv));
        Some(format!("it belongs to {owner}; if that is gone for good, take its tags away: '{way_out}'"))
    }

    /// Why it belongs to another pool, if it does: a thin pool and the group that it is in may both be pools.
    fn elsewhere(&self, lv: &LogicalVolume) -> Option<String> {
        let group = &self.volume_group;
        match self.thin.as_deref().unwrap_or("") {
            pool if pool == lv.pool => None,
            "" => Some(format!(
                "it is in the thin pool '{0}'; 'blkrep add-pool NAME lvm-thin:{group}/{0}' makes that a pool",
                lv.pool
            )),
            pool => Some(format!("it is not in the thin pool '{pool}'; name the pool that is the volume group itself")),
        }
    }
}

/// Refuses volumes on disks whose sectors are larger than a block.
fn coarse_disk(lv: &LogicalVolume) -> Option<String> {
    let disks = lv.segments.iter().flat_map(|segment| &segment.extents).map(|range| &range.disk);
    disks.filter_map(|disk| Some((disk, sector_size(disk)?))).find(|(_, bytes)| *bytes > BLOCK).map(|(disk, bytes)| {
        format!("{disk} has sectors of {bytes} bytes, and a replica is written in blocks of {BLOCK}; copy it to another disk")
    })
}

/// The size of a device's sectors in bytes, as far as the kernel tells; a partition has its disk's.
fn sector_size(device: &str) -> Option<u64> {
    let number = fs::metadata(device).ok()?.rdev();
    let system = format!("/sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let read = |path: &str| fs::read_to_string(format!("{system}/{path}")).ok();
    read("queue/logical_block_size").or_else(|| read("../queue/logical_block_size"))?.trim().parse().ok()
}
