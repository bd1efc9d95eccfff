//! LVM's JSON as it comes: strings only, numbers included.

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) report: Vec<Rows>,
}

#[derive(Deserialize)]
pub(super) struct Rows {
    #[serde(default)]
    pub(super) vg: Vec<VgRow>,
    #[serde(default)]
    pub(super) pv: Vec<PvRow>,
    #[serde(default)]
    pub(super) lv: Vec<LvRow>,
    #[serde(default)]
    pub(super) seg: Vec<SegRow>,
}

#[derive(Deserialize)]
pub(super) struct VgRow {
    pub(super) vg_name: String,
    pub(super) vg_tags: String,
    pub(super) vg_attr: String,
    pub(super) vg_extent_size: String,
}

#[derive(Deserialize)]
pub(super) struct PvRow {
    pub(super) pv_name: String,
    pub(super) pv_attr: String,
    pub(super) pe_start: String,
    pub(super) pv_pe_count: String,
    pub(super) pv_pe_alloc_count: String,
}

#[derive(Deserialize)]
pub(super) struct LvRow {
    pub(super) lv_name: String,
    pub(super) lv_uuid: String,
    pub(super) lv_tags: String,
    pub(super) lv_size: String,
    pub(super) lv_attr: String,
    #[serde(default)]
    pub(super) pool_lv: String,
    #[serde(default)]
    pub(super) origin: String,
    #[serde(default)]
    pub(super) origin_size: String,
    #[serde(default)]
    pub(super) data_percent: String,
    #[serde(default)]
    pub(super) metadata_percent: String,
}

#[derive(Deserialize)]
pub(super) struct SegRow {
    pub(super) lv_name: String,
    pub(super) segtype: String,
    pub(super) seg_start: String,
    pub(super) seg_size: String,
    pub(super) seg_pe_ranges: String,
}

pub(super) fn number(field: &str, value: &str) -> Result<u64, String> {
    value.trim().parse().map_err(|_| format!("{field} is '{value}', which is no number"))
}

/// A percentage with two digits behind its point, rounded up: what is full must not look as if it were not.
pub(super) fn thousandths(percent: &str) -> Option<u16> {
    let (whole, part) = percent.trim().split_once('.')?;
    let (whole, part) = (whole.parse::<u16>().ok()?, format!("{part:0<2}").get(..2)?.parse::<u16>().ok()?);
    Some(whole.min(100) * 10 + part.div_ceil(10))
}

pub(super) fn tags(list: &str) -> Vec<String> {
    list.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_levels_are_rounded_up() {
        let said = [("0.00", Some(0)), ("11.90", Some(119)), ("16.67", Some(167)), ("94.91", Some(950)), ("100.00", Some(1000))];
        for (percent, expected) in said.into_iter().chain([("", None), ("x", None), ("1", None)]) {
            assert_eq!(thousandths(percent), expected, "{percent}");
        }
    }
}
