//! The logical volumes of a group: what they are, and what LVM's letters say of the state that they are in.

use super::rows::{LvRow, number, tags, thousandths};
use super::segment::LvSegment;

/// A logical volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::lvm) struct LogicalVolume {
    pub(in crate::lvm) name: String,
    pub(in crate::lvm) uuid: String,
    pub(in crate::lvm) tags: Vec<String>,
    /// Bytes.
    pub(in crate::lvm) size: u64,
    /// The thin pool that a thin volume is in; empty for others.
    pub(in crate::lvm) pool: String,
    /// What it is a snapshot of; empty for others.
    pub(in crate::lvm) origin: String,
    /// How full a thin pool is, in thousandths; `None` where that is not known, as of one that is not active.
    pub(in crate::lvm) data_fill: Option<u16>,
    /// The same, of its metadata.
    pub(in crate::lvm) metadata_fill: Option<u16>,
    /// In order of their place in the volume.
    pub(in crate::lvm) segments: Vec<LvSegment>,
    attributes: String,
}

impl LogicalVolume {
    pub(super) fn read(row: LvRow, mut segments: Vec<LvSegment>) -> Result<Self, String> {
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
    pub(in crate::lvm) fn is_plain(&self) -> bool {
        self.attribute(0) == '-'
    }

    /// Whether it is a thin pool.
    pub(in crate::lvm) fn is_thin_pool(&self) -> bool {
        self.attribute(0) == 't'
    }

    /// Whether a thin pool overwrites what it gives out with zeros.
    pub(in crate::lvm) fn zeroes(&self) -> bool {
        self.attribute(7) == 'z'
    }

    /// Whether device-mapper has it.
    pub(in crate::lvm) fn is_active(&self) -> bool {
        self.attribute(4) == 'a'
    }

    /// Whether somebody has it open through device-mapper.
    pub(in crate::lvm) fn is_open(&self) -> bool {
        self.attribute(5) == 'o'
    }

    /// Why it is not like a volume that a pool makes, if it is not.
    pub(in crate::lvm) fn unlike_a_volume(&self, full_name: &str) -> Option<String> {
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
    pub(in crate::lvm) fn broken(&self, volume_group: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use crate::lvm::report::tests::{DIRECT, group, volume};

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
    fn a_thin_pool_is_read_with_its_volumes_and_how_full_it_is() {
        let thin = group(include_str!("thin.json"));
        let pool = volume(&thin, "tp");
        assert!(pool.is_thin_pool() && pool.zeroes() && pool.broken("vg").is_none());
        assert_eq!((pool.data_fill, pool.metadata_fill), (Some(119), Some(113)));
        let web = volume(&thin, "web_00");
        assert_eq!((web.pool.as_str(), web.is_thin_pool(), web.is_active()), ("tp", false, true));
        let state = |attributes| group(&include_str!("thin.json").replace("Vwi-a-tz--", attributes));
        assert!(volume(&state("Vwi-a-tzD-"), "web_00").broken("vg").unwrap().contains("lvextend --size +SIZE vg/tp"));
        assert!(volume(&state("Vwi-a-tzF-"), "web_00").broken("vg").is_some());
    }
}
