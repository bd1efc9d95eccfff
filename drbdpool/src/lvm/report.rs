//! LVM's report of a volume group, and what it says.
//!
//! `lvm fullreport` answers group, disks, volumes and their segments as of one moment, from one process. Its JSON has strings only,
//! numbers included; sizes are asked for in bytes.

use std::collections::BTreeMap;

use serde::Deserialize;

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

/// A physical volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Disk {
    /// The device's path; what LVM shows for one that is missing.
    pub(super) path: String,
    /// Where its first extent begins, in bytes.
    pub(super) data_start: u64,
    extents: u64,
    extents_used: u64,
    attributes: String,
}

/// A logical volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LogicalVolume {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) tags: Vec<String>,
    /// Bytes.
    pub(super) size: u64,
    /// The thin pool that a thin volume is in; empty for others.
    pub(super) pool: String,
    /// What it is a snapshot of; empty for others.
    pub(super) origin: String,
    /// How full a thin pool is, in thousandths; `None` where that is not known, as of one that is not active.
    pub(super) data_fill: Option<u16>,
    /// The same, of its metadata.
    pub(super) metadata_fill: Option<u16>,
    /// In order of their place in the volume.
    pub(super) segments: Vec<LvSegment>,
    attributes: String,
}

/// A part of a logical volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LvSegment {
    pub(super) kind: String,
    /// Its place in the volume, in bytes.
    pub(super) start: u64,
    /// Bytes.
    pub(super) size: u64,
    /// The extents of the disks that it is on.
    pub(super) extents: Vec<ExtentRange>,
}

/// Extents of a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ExtentRange {
    pub(super) disk: String,
    pub(super) first: u64,
    pub(super) last: u64,
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

    /// Reads a report.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let report = answer.report.into_iter().next().ok_or("it has no report")?;
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

impl Disk {
    fn read(row: PvRow) -> Result<Self, String> {
        Ok(Self {
            data_start: number("pe_start", &row.pe_start)?,
            extents: number("pv_pe_count", &row.pv_pe_count)?,
            extents_used: number("pv_pe_alloc_count", &row.pv_pe_alloc_count)?,
            path: row.pv_name,
            attributes: row.pv_attr,
        })
    }

    pub(super) fn is_missing(&self) -> bool {
        self.attributes.chars().nth(2) == Some('m') || !self.path.starts_with('/')
    }
}

impl LogicalVolume {
    fn read(row: LvRow, mut segments: Vec<LvSegment>) -> Result<Self, String> {
        segments.sort_by_key(|segment| segment.start);
        // Of a classic snapshot LVM calls the space that was set aside its size; it reads as a device as large as its origin.
        let size = match row.lv_attr.starts_with(['s', 'S']) {
            true => number("origin_size", &row.origin_size)?,
            false => number("lv_size", &row.lv_size)?,
        };
        Ok(Self {
            size,
            name: row.lv_name,
            uuid: row.lv_uuid,
            tags: tags(&row.lv_tags),
            pool: row.pool_lv,
            origin: row.origin,
            data_fill: thousandths(&row.data_percent),
            metadata_fill: thousandths(&row.metadata_percent),
            attributes: row.lv_attr,
            segments,
        })
    }

    /// Whether it is no more than its segments: not the origin of a snapshot, nor a part of something else.
    pub(super) fn is_plain(&self) -> bool {
        self.attribute(0) == '-'
    }

    /// Whether it is a thin pool.
    pub(super) fn is_thin_pool(&self) -> bool {
        self.attribute(0) == 't'
    }

    /// Whether a thin pool overwrites what it gives out with zeros.
    pub(super) fn zeroes(&self) -> bool {
        self.attribute(7) == 'z'
    }

    /// Whether device-mapper has it.
    pub(super) fn is_active(&self) -> bool {
        self.attribute(4) == 'a'
    }

    /// Whether somebody has it open through device-mapper.
    pub(super) fn is_open(&self) -> bool {
        self.attribute(5) == 'o'
    }

    /// Why it is not like a volume that a pool makes, if it is not.
    pub(super) fn unlike_a_volume(&self, full_name: &str) -> Option<String> {
        if !self.origin.is_empty() {
            return Some(format!("it is a snapshot of '{}'; copy it to a volume of its own", self.origin));
        }
        match self.attribute(0) {
            '-' | 'V' | 'm' | 'M' | 'r' | 'R' if self.attribute(1) == 'w' => None,
            '-' | 'V' | 'm' | 'M' | 'r' | 'R' => {
                Some(format!("it is read-only; make it writeable with 'lvchange --permission rw {full_name}'"))
            }
            's' | 'S' => Some("it is a snapshot; copy it to a volume of its own".to_owned()),
            'o' | 'O' => Some("it has snapshots that would go on under it; remove them first ('lvs' shows them)".to_owned()),
            't' => Some("it is a thin pool; adopt the volumes in it one by one".to_owned()),
            'C' => Some(format!("it is cached; take the cache off with 'lvconvert --uncache {full_name}' first")),
            kind => Some(format!("it is a logical volume of type '{kind}' or a part of another one; see 'lvs -a'")),
        }
    }

    /// Why nobody can use it, if nobody can.
    pub(super) fn broken(&self, volume_group: &str) -> Option<String> {
        let name = &self.name;
        if self.attribute(8) == 'p' {
            return Some(format!("it is on a disk that is missing from volume group '{volume_group}'; see 'pvs'"));
        }
        match self.attribute(8) {
            'F' => return Some(format!("its thin pool has failed; see 'lvs {volume_group}', and try 'lvconvert --repair'")),
            'D' => {
                return Some(format!(
                    "its thin pool is full; give it space: 'lvextend --size +SIZE {volume_group}/{}'",
                    self.pool
                ));
            }
            'M' => return Some("its thin pool's metadata can only be read; repair it with 'lvconvert --repair'".to_owned()),
            _ => {}
        }
        match self.attribute(4) {
            // Active, inactive (also half way), or not known, because there is no device-mapper.
            'a' | '-' | 'd' | 'i' | 'X' => None,
            's' => Some(format!("it is suspended in device-mapper; resume it with 'lvchange --refresh {volume_group}/{name}'")),
            state => Some(format!("LVM says that it is in state '{state}'; see 'lvs {volume_group}/{name}'")),
        }
    }

    fn attribute(&self, at: usize) -> char {
        self.attributes.chars().nth(at).unwrap_or('-')
    }
}

impl LvSegment {
    fn read(row: &SegRow) -> Result<Self, String> {
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

fn number(field: &str, value: &str) -> Result<u64, String> {
    value.trim().parse().map_err(|_| format!("{field} is '{value}', which is no number"))
}

/// A percentage with two digits behind its point, rounded up: what is full must not look as if it were not.
fn thousandths(percent: &str) -> Option<u16> {
    let (whole, part) = percent.trim().split_once('.')?;
    let (whole, part) = (whole.parse::<u16>().ok()?, format!("{part:0<2}").get(..2)?.parse::<u16>().ok()?);
    Some(whole.min(100) * 10 + part.div_ceil(10))
}

fn tags(list: &str) -> Vec<String> {
    list.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[derive(Deserialize)]
struct Answer {
    report: Vec<Rows>,
}

#[derive(Deserialize)]
struct Rows {
    #[serde(default)]
    vg: Vec<VgRow>,
    #[serde(default)]
    pv: Vec<PvRow>,
    #[serde(default)]
    lv: Vec<LvRow>,
    #[serde(default)]
    seg: Vec<SegRow>,
}

#[derive(Deserialize)]
struct VgRow {
    vg_name: String,
    vg_tags: String,
    vg_attr: String,
    vg_extent_size: String,
}

#[derive(Deserialize)]
struct PvRow {
    pv_name: String,
    pv_attr: String,
    pe_start: String,
    pv_pe_count: String,
    pv_pe_alloc_count: String,
}

#[derive(Deserialize)]
struct LvRow {
    lv_name: String,
    lv_uuid: String,
    lv_tags: String,
    lv_size: String,
    lv_attr: String,
    #[serde(default)]
    pool_lv: String,
    #[serde(default)]
    origin: String,
    #[serde(default)]
    origin_size: String,
    #[serde(default)]
    data_percent: String,
    #[serde(default)]
    metadata_percent: String,
}

#[derive(Deserialize)]
struct SegRow {
    lv_name: String,
    segtype: String,
    seg_start: String,
    seg_size: String,
    seg_pe_ranges: String,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Reports of lvm2 2.03.16. Two disks of 25 extents: a volume in three pieces, one in one, a striped and a zero volume.
    pub(in crate::lvm) const DIRECT: &str = include_str!("reports/direct.json");
    /// A group one of whose disks is missing, and another closed to allocation.
    pub(in crate::lvm) const MISSING: &str = include_str!("reports/missing.json");

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
    fn volumes_in_states_that_nobody_can_use_are_broken() {
        let state = |attributes: &str| {
            let json = DIRECT.replacen("-wi-XX----", attributes, 1);
            let lv = volume(&group(&json), "a_00").clone();
            (lv.is_active(), lv.is_open(), lv.broken("drbdpool"))
        };
        assert_eq!(state("-wi-ao----"), (true, true, None));
        assert_eq!(state("-wi-------"), (false, false, None));
        assert_eq!(state("-wi-d-----"), (false, false, None));
        assert!(state("-wi-s-----").2.unwrap().contains("lvchange --refresh drbdpool/a_00"));
        assert!(state("-wi-I-----").2.unwrap().contains("state 'I'"));
    }

    #[test]
    fn fill_levels_are_rounded_up() {
        let said = [("0.00", Some(0)), ("11.90", Some(119)), ("16.67", Some(167)), ("94.91", Some(950)), ("100.00", Some(1000))];
        for (percent, expected) in said.into_iter().chain([("", None), ("x", None), ("1", None)]) {
            assert_eq!(thousandths(percent), expected, "{percent}");
        }
    }

    #[test]
    fn a_thin_pool_is_read_with_its_volumes_and_how_full_it_is() {
        let thin = group(include_str!("reports/thin.json"));
        let pool = volume(&thin, "tp");
        assert!(pool.is_thin_pool() && pool.zeroes() && pool.broken("vg").is_none());
        assert_eq!((pool.data_fill, pool.metadata_fill), (Some(119), Some(113)));
        let web = volume(&thin, "web_00");
        assert_eq!((web.pool.as_str(), web.is_thin_pool(), web.is_active()), ("tp", false, true));
        let state = |attributes| group(&include_str!("reports/thin.json").replace("Vwi-a-tz--", attributes));
        assert!(volume(&state("Vwi-a-tzD-"), "web_00").broken("vg").unwrap().contains("lvextend --size +SIZE vg/tp"));
        assert!(volume(&state("Vwi-a-tzF-"), "web_00").broken("vg").is_some());
    }

    #[test]
    fn disks_may_have_colons_in_their_names() {
        let range = ExtentRange::read("/dev/disk/by-path/pci-0000:00:1f.2-ata-1:7-12").unwrap();
        assert_eq!((range.disk.as_str(), range.first, range.last), ("/dev/disk/by-path/pci-0000:00:1f.2-ata-1", 7, 12));
        for bad in ["", "/dev/sda", "/dev/sda:", "/dev/sda:1", "/dev/sda:2-1", "/dev/sda:a-b", "/dev/sda:-1-2"] {
            assert_eq!(ExtentRange::read(bad), None, "{bad:?}");
        }
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
