//! LVM's report of volume groups, and what it says.
//!
//! `lvm fullreport` answers groups, disks, volumes and their segments as of one moment, from one process. Its JSON has strings only,
//! numbers included; sizes are asked for in bytes.

mod disk;
mod rows;
mod segment;
mod volume;

use std::collections::BTreeMap;

pub(super) use disk::Disk;
use rows::{Answer, Rows, number, tags};
pub(super) use segment::{ExtentRange, LvSegment};
pub(super) use volume::LogicalVolume;

use super::BLOCK;
use crate::PoolError;

/// A volume group at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct VolumeGroup {
    pub(super) name: String,
    pub(super) tags: Vec<String>,
    /// Bytes.
    pub(super) extent_size: u64,
    pub(super) disks: Vec<Disk>,
    pub(super) volumes: Vec<LogicalVolume>,
    attributes: String,
}

impl VolumeGroup {
    /// What [`parse`](Self::parse) reads is what these arguments, with blanks between them, ask for. Of the segments of disks, which
    /// are not read, there is no way to ask for nothing.
    pub(super) const ARGUMENTS: &'static str = concat!(
        "--reportformat json --units b --nosuffix ",
        "--configreport vg -o vg_name,vg_tags,vg_attr,vg_extent_size ",
        "--configreport pv -o pv_name,pv_attr,pe_start,pv_pe_count,pv_pe_alloc_count ",
        "--configreport lv -o lv_name,lv_uuid,lv_tags,lv_size,lv_attr,pool_lv,origin,origin_size,data_percent,metadata_percent ",
        "--configreport pvseg -o pv_name ",
        "--configreport seg -o lv_name,segtype,seg_start,seg_size,seg_pe_ranges",
    );

    /// Reads a report of one group.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        Self::parse_all(json)?.into_iter().next().ok_or_else(|| "it has no report".to_owned())
    }

    /// Reads a report of several groups; those that were not found are not in it.
    pub(super) fn parse_all(json: &[u8]) -> Result<Vec<Self>, String> {
        let answer: Answer = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        answer.report.into_iter().map(Self::read).collect()
    }

    fn read(report: Rows) -> Result<Self, String> {
        let group = report.vg.into_iter().next().ok_or("it has no volume group")?;
        let mut segments: BTreeMap<String, Vec<LvSegment>> = BTreeMap::new();
        for row in report.seg {
            let segment = LvSegment::read(&row)?;
            segments.entry(row.lv_name).or_default().push(segment);
        }
        let volumes = report.lv.into_iter().map(|row| {
            let segments = segments.remove(&row.lv_name).unwrap_or_default();
            LogicalVolume::read(row, segments)
        });
        Ok(Self {
            extent_size: number("vg_extent_size", &group.vg_extent_size)?,
            name: group.vg_name,
            tags: tags(&group.vg_tags),
            attributes: group.vg_attr,
            disks: report.pv.into_iter().map(Disk::read).collect::<Result<_, _>>()?,
            volumes: volumes.collect::<Result<_, _>>()?,
        })
    }

    /// Refuses a group that cannot be a pool.
    pub(super) fn check_usable(&self) -> Result<(), PoolError> {
        let name = &self.name;
        let why = match () {
            () if self.attribute(2) == 'x' => format!("it is exported; take it back with 'vgimport {name}'"),
            () if self.attribute(0) != 'w' => {
                format!("it is read-only; make it writeable with 'vgchange --permission rw {name}'")
            }
            () if matches!(self.attribute(5), 'c' | 's') => {
                "it is shared between machines; give each node one of its own".to_owned()
            }
            () if self.extent_size == 0 || !self.extent_size.is_multiple_of(BLOCK) => {
                format!("its extents of {} bytes are no multiple of {BLOCK}", self.extent_size)
            }
            () => return Ok(()),
        };
        Err(PoolError::BadVolumeGroup { volume_group: name.clone(), why })
    }

    /// The size of all disks, in bytes.
    pub(super) fn total(&self) -> u64 {
        self.bytes(self.disks.iter().map(|disk| disk.extents))
    }

    /// What new volumes can have, in bytes: nothing on disks that are closed to allocation, and nothing at all while a disk is
    /// missing, because LVM changes no such group.
    pub(super) fn free(&self) -> u64 {
        if self.is_partial() {
            return 0;
        }
        let allocatable = self.disks.iter().filter(|disk| disk.attributes.starts_with('a'));
        self.bytes(allocatable.map(|disk| disk.extents.saturating_sub(disk.extents_used)))
    }

    /// Whether a disk is missing: LVM changes no such group.
    pub(super) fn is_partial(&self) -> bool {
        self.attribute(3) == 'p'
    }

    /// What is amiss with the group as a whole.
    pub(super) fn trouble(&self) -> Option<String> {
        self.is_partial().then(|| {
            format!(
                "a disk is missing from volume group '{0}', which LVM does not change meanwhile ('pvs' shows it): bring it back; if it is \
                 lost, take the replicas on it from this node (unassign-resource) and end it with 'vgreduce --removemissing --force {0}'",
                self.name
            )
        })
    }

    fn attribute(&self, at: usize) -> char {
        self.attributes.chars().nth(at).unwrap_or('-')
    }

    fn bytes(&self, extents: impl Iterator<Item = u64>) -> u64 {
        extents.sum::<u64>().saturating_mul(self.extent_size)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reports of lvm2 2.03.16. Two disks of 25 extents: a volume in three pieces, one in one, a striped and a zero volume.
    pub(in crate::lvm) const DIRECT: &str = include_str!("direct.json");
    /// A group one of whose disks is missing, and another closed to allocation.
    pub(in crate::lvm) const MISSING: &str = include_str!("missing.json");

    pub(in crate::lvm) fn group(json: &str) -> VolumeGroup {
        VolumeGroup::parse(json.as_bytes()).unwrap()
    }

    pub(in crate::lvm) fn volume<'a>(group: &'a VolumeGroup, name: &str) -> &'a LogicalVolume {
        group.volumes.iter().find(|lv| lv.name == name).unwrap()
    }

    #[test]
    fn a_group_is_read_with_its_disks_and_volumes() {
        let group = group(DIRECT);
        assert_eq!((group.name.as_str(), group.extent_size), ("drbdpool", 4 << 20));
        assert_eq!(group.tags, ["blkrep.cluster=c1", "blkrep.node=0", "site=a"]);
        assert_eq!(group.total(), 50 << 22);
        assert_eq!(group.free(), 13 << 22);
        let a = volume(&group, "a_00");
        assert_eq!(a.tags, ["blkrep.owner=c1/0", "blkrep.volume=a_00", "blkrep.zeroed=0"]);
        assert_eq!(a.segments.iter().map(|segment| segment.start >> 22).collect::<Vec<_>>(), [0, 3, 20]);
        assert_eq!(a.segments[2].extents, [ExtentRange { disk: "/dev/loop1".to_owned(), first: 2, last: 11 }]);
        assert_eq!((a.is_active(), a.is_open(), a.broken("drbdpool")), (false, false, None));
        assert_eq!(volume(&group, "striped").segments[0].extents.len(), 2);
        assert_eq!(volume(&group, "zero").segments[0].extents, []);
        assert!(group.check_usable().is_ok());
    }

    #[test]
    fn what_is_on_a_missing_disk_is_broken_and_nothing_is_free() {
        let damaged = group(MISSING);
        assert_eq!(damaged.free(), 0);
        assert!(damaged.trouble().unwrap().contains("vgreduce --removemissing"));
        assert!(volume(&damaged, "a_00").broken("drbdpool").unwrap().contains("missing from volume group 'drbdpool'"));
        assert_eq!(volume(&damaged, "b_00").broken("drbdpool"), None);
        assert_eq!(damaged.disks.iter().filter(|disk| disk.is_missing()).count(), 1);
        // The same group after its disk has come back.
        let healed = MISSING.replace("wz-pn-", "wz--n-").replace("a-m", "a--");
        assert_eq!(group(&healed).trouble(), None);
        assert_eq!(group(&healed).free(), 2 << 22, "nothing of the disk that is closed to allocation");
    }

    #[test]
    fn groups_that_cannot_be_a_pool_are_refused_with_the_way_out() {
        for (attributes, remedy) in
            [("wzx-n-", "vgimport drbdpool"), ("rz--n-", "vgchange --permission rw"), ("wz--ns", "shared")]
        {
            let error = group(&DIRECT.replace("wz--n-", attributes)).check_usable().unwrap_err().to_string();
            assert!(error.contains(remedy), "{error}");
        }
        let error = group(&DIRECT.replace("\"vg_extent_size\":\"4194304\"", "\"vg_extent_size\":\"1024\"")).check_usable();
        assert!(error.unwrap_err().to_string().contains("1024"));
    }

    #[test]
    fn a_report_that_is_not_understood_is_an_error() {
        for (bad, why) in [
            ("".to_owned(), "EOF"),
            ("{\"report\": []}".to_owned(), "no report"),
            ("{\"report\": [{}]}".to_owned(), "no volume group"),
            (DIRECT.replace("4194304\"}", "4.00m\"}"), "vg_extent_size"),
            (DIRECT.replace("lv_uuid", "uuid"), "lv_uuid"),
            (DIRECT[..DIRECT.len() / 2].to_owned(), "EOF"),
        ] {
            let error = VolumeGroup::parse(bad.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
