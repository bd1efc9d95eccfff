//! What LVM allows as names.

use crate::{SnapshotName, VolumeName};

/// Whether LVM can have a volume group of that name, and this pool volumes in it.
pub(crate) fn valid_volume_group(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name == "." || name == ".." || name.starts_with('-') {
        return Err("no volume group can have this name");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '_' | '.' | '-')) {
        return Err("a volume group's name can contain letters, digits, '+', '_', '.' and '-' only");
    }
    if mapped_length(name) > VOLUME_GROUP_MAX {
        return Err(
            "the volume group's name leaves no room for volumes' names: it can have 64 characters, each '-' counted twice",
        );
    }
    Ok(())
}

/// Whether a thin pool can have that name.
pub(crate) fn valid_thin_pool(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name == "." || name == ".." || name.starts_with('-') {
        return Err("no thin pool can have this name");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '_' | '.' | '-')) {
        return Err("a thin pool's name can contain letters, digits, '+', '_', '.' and '-' only");
    }
    if is_internal(name) || mapped_length(name) > VOLUME_GROUP_MAX {
        return Err("LVM keeps such names for itself");
    }
    Ok(())
}

/// Whether LVM gives such names to the parts of volumes, which it does not show.
pub(super) fn is_internal(name: &str) -> bool {
    RESERVED_BEGINNINGS.iter().any(|word| name.starts_with(word))
        || RESERVED_WORDS.iter().any(|word| name.contains(&format!("_{word}")))
}

/// The name of the logical volume for a volume. Different volumes have different ones.
///
/// It is the volume's own name, with two exceptions. LVM keeps some words for itself: in front of one of these a `+` is put,
/// which no volume's name contains (`snapshot_00` becomes `+snapshot_00`). And device-mapper limits the length of a group's and a
/// volume's names together, each `-` counted twice: what is too long is cut, and ends in `+` and a hash of the whole name.
/// Neither is ever read back: a tag holds the volume's name.
pub(super) fn lv_name(volume_group: &str, volume: &VolumeName) -> String {
    fit(volume_group, &volume.to_string())
}

/// The name of the logical volume for a snapshot: its volume's, `+` and its own, treated likewise. In a volume's name a `+` never
/// follows a digit or letter.
pub(super) fn snapshot_lv_name(volume_group: &str, snapshot: &SnapshotName) -> String {
    fit(volume_group, &format!("{}+{}", snapshot.volume(), snapshot.name()))
}

fn fit(volume_group: &str, name: &str) -> String {
    let escaped = escape(name);
    let room = MAPPED_MAX - mapped_length(volume_group) - 1;
    if mapped_length(&escaped) <= room {
        return escaped;
    }
    // 128 bits: no two will ever meet. A '+' with nothing but hexadecimal digits after it stands in no escaped name, because no
    // reserved word is made of these, so a cut name is not another volume's escaped one either.
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let end = format!("+{}", &hash[..32]);
    let mut cut = escaped;
    while mapped_length(&cut) + end.len() > room {
        cut.pop();
    }
    cut + &end
}

/// What device-mapper has room for is 127 bytes; LVM needs a few of these for names of its own.
const MAPPED_MAX: usize = 120;

/// Leaves room for a volume's cut name.
const VOLUME_GROUP_MAX: usize = 64;

/// What a logical volume's name must not begin with.
const RESERVED_BEGINNINGS: [&str; 2] = ["snapshot", "pvmove"];

/// What a logical volume's name must not contain after a `_`. More than today's LVM reserves: its neighbours in newer versions too.
const RESERVED_WORDS: [&str; 19] = [
    "cdata", "cmeta", "corig", "cpool", "cvol", "imeta", "iorig", "mimage", "mlog", "pmspare", "rimage", "rmeta", "tdata",
    "tmeta", "vdata", "vmeta", "vorigin", "vpool", "wcorig",
];

fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len() + 4);
    if RESERVED_BEGINNINGS.iter().any(|word| name.starts_with(word)) {
        escaped.push('+');
    }
    for (at, c) in name.char_indices() {
        escaped.push(c);
        if c == '_' && RESERVED_WORDS.iter().any(|word| name[at + 1..].starts_with(word)) {
            escaped.push('+');
        }
    }
    escaped
}

/// How long a name is in device-mapper, where a `-` is written twice.
fn mapped_length(name: &str) -> usize {
    name.len() + name.matches('-').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_volumes_keep_their_names() {
        for name in ["dockervolume_00", "web.data-1_x_15", "a_meta", "my_data_00", "n_snapshot_00"] {
            assert_eq!(lv_name("drbdpool", &name.parse().unwrap()), name);
        }
    }

    #[test]
    fn snapshots_have_names_of_their_own() {
        let name = |text: &str| snapshot_lv_name("drbdpool", &text.parse().unwrap());
        assert_eq!(name("web_00@before"), "web_00+before");
        assert_eq!(name("web_00@x_tdata"), "web_00+x_+tdata");
        let long = name(&format!("{}_00@{}", "a".repeat(100), "b".repeat(100)));
        assert!(mapped_length("drbdpool") + 1 + mapped_length(&long) <= MAPPED_MAX, "{long}");
    }

    #[test]
    fn what_lvm_keeps_for_itself_is_escaped() {
        let pairs = [
            ("snapshot_00", "+snapshot_00"),
            ("snapshots_meta", "+snapshots_meta"),
            ("pvmove0_00", "+pvmove0_00"),
            ("a_tdata_00", "a_+tdata_00"),
            ("pvmove_mlog_cvol_rimage_0_00", "+pvmove_+mlog_+cvol_+rimage_0_00"),
        ];
        for (volume, lv) in pairs {
            assert_eq!(lv_name("drbdpool", &volume.parse().unwrap()), lv);
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let long = |last: &str| VolumeName::data(&format!("{}{last}", "a-".repeat(49)), 0).unwrap();
        let (a, b) = (lv_name("drbdpool", &long("a")), lv_name("drbdpool", &long("b")));
        assert_ne!(a, b);
        assert!(a.starts_with("a-a-a-") && mapped_length("drbdpool") + 1 + mapped_length(&a) <= MAPPED_MAX, "{a}");
        assert_eq!(a, lv_name("drbdpool", &long("a")));
    }

    #[test]
    fn no_hash_can_be_a_reserved_word() {
        assert!(RESERVED_WORDS.iter().chain(&RESERVED_BEGINNINGS).all(|word| !word.chars().all(|c| c.is_ascii_hexdigit())));
    }

    /// Names dense in everything that is treated specially.
    fn any_volume() -> impl Strategy<Value = VolumeName> {
        let words = RESERVED_WORDS.iter().chain(&RESERVED_BEGINNINGS).chain(&["_", "-", ".", "a", "x-y"]).copied();
        let piece = prop::sample::select(words.collect::<Vec<_>>());
        let dense = prop::collection::vec(piece, 1..20).prop_map(|pieces| pieces.concat());
        let resource = prop_oneof!["[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}", dense];
        (resource, any::<u16>(), any::<bool>()).prop_filter_map("no name", |(resource, number, data)| {
            if data { VolumeName::data(&resource, number).ok() } else { VolumeName::metadata(&resource).ok() }
        })
    }

    proptest! {
        #[test]
        fn every_name_is_one_that_lvm_takes(group in "[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]{0,70}", volume in any_volume()) {
            prop_assume!(valid_volume_group(&group).is_ok());
            let name = lv_name(&group, &volume);
            prop_assert!(!name.starts_with('-') && name != "." && name != "..");
            prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "+_.-".contains(c)));
            prop_assert!(!RESERVED_BEGINNINGS.iter().any(|word| name.starts_with(word)), "{}", name);
            prop_assert!(!RESERVED_WORDS.iter().any(|word| name.contains(&format!("_{word}"))), "{}", name);
            prop_assert!(mapped_length(&group) + 1 + mapped_length(&name) <= MAPPED_MAX);
        }

        #[test]
        fn no_two_volumes_share_a_name(a in any_volume(), b in any_volume()) {
            let name = lv_name("drbdpool", &a);
            prop_assert_eq!(name == lv_name("drbdpool", &b), a == b);
            // The way back exists for all that are not cut.
            if name.len() < 60 {
                prop_assert_eq!(name.replace('+', ""), a.to_string());
            }
        }
    }
}
