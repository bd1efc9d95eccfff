//! LVM tags that say whose a volume group or logical volume is.

use crate::{Identity, VolumeName};

const CLUSTER: &str = "blkrep.cluster=";
const NODE: &str = "blkrep.node=";
const OWNER: &str = "blkrep.owner=";
const VOLUME: &str = "blkrep.volume=";
const ZEROED: &str = "blkrep.zeroed=";

/// The tags of a volume group.
pub(super) fn of_group(identity: &Identity) -> [String; 2] {
    [format!("{CLUSTER}{}", identity.cluster()), format!("{NODE}{}", identity.node())]
}

/// Whether a volume group is nobody's.
pub(super) fn group_is_unowned(tags: &[String]) -> bool {
    owner_tags(tags).next().is_none()
}

/// Whose a volume group is, for a message.
pub(super) fn owner_of_group(tags: &[String]) -> String {
    let value = |key| tags.iter().find_map(|tag| tag.strip_prefix(key)).unwrap_or("?");
    format!("node {} of cluster {}", value(NODE), value(CLUSTER))
}

/// The command that makes a volume group nobody's.
pub(super) fn removal(volume_group: &str, tags: &[String]) -> String {
    let deletions: String = owner_tags(tags).map(|tag| format!("--deltag {tag} ")).collect();
    format!("vgchange {deletions}{volume_group}")
}

fn owner_tags(tags: &[String]) -> impl Iterator<Item = &String> {
    tags.iter().filter(|tag| tag.starts_with(CLUSTER) || tag.starts_with(NODE))
}

/// The tags of a new logical volume: whose and which it is, and that nothing of it was zeroed.
///
/// The owner is repeated on each, so that volumes that another cluster left in a group do not pass to the next.
pub(super) fn of_volume(identity: &Identity, volume: &VolumeName) -> [String; 3] {
    [owner(identity), format!("{VOLUME}{volume}"), zeroed_to(0)]
}

/// Which volume a logical volume is, if it is `identity`'s.
pub(super) fn volume_of(tags: &[String], identity: &Identity) -> Option<VolumeName> {
    let ours = owner(identity);
    if tags.contains(&ours) { tags.iter().find_map(|tag| tag.strip_prefix(VOLUME))?.parse().ok() } else { None }
}

fn owner(identity: &Identity) -> String {
    format!("{OWNER}{}/{}", identity.cluster(), identity.node())
}

/// Up to which byte a logical volume was zeroed before its first use; `None` if its beginning never was looked after.
pub(super) fn zeroed(tags: &[String]) -> Option<u64> {
    tags.iter().filter_map(|tag| tag.strip_prefix(ZEROED)?.parse().ok()).max()
}

/// The tag that says that.
pub(super) fn zeroed_to(bytes: u64) -> String {
    format!("{ZEROED}{bytes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cluster: &str, node: &str) -> Identity {
        Identity::new(cluster, node).unwrap()
    }

    #[test]
    fn a_volume_is_found_by_its_owner_and_name_alone() {
        let ours = identity("c1", "0");
        let volume = VolumeName::data("web", 1).unwrap();
        let tags = of_volume(&ours, &volume);
        assert_eq!(volume_of(&tags, &ours), Some(volume.clone()));
        assert_eq!(volume_of(&tags, &identity("c1", "1")), None);
        assert_eq!(volume_of(&tags, &identity("c2", "0")), None);
        assert_eq!(volume_of(&tags[1..], &ours), None, "no owner");
        assert_eq!(volume_of(&tags[..1], &ours), None, "no name");
        assert_eq!(volume_of(&[tags[0].clone(), "blkrep.volume=../x".to_owned()], &ours), None, "no volume's name");
    }

    #[test]
    fn a_groups_owner_is_named_with_the_way_to_end_it() {
        let tags = [of_group(&identity("c1", "0")).to_vec(), vec!["site=a".to_owned()]].concat();
        assert!(!group_is_unowned(&tags) && !group_is_unowned(&tags[1..2]));
        assert!(group_is_unowned(&tags[2..]) && group_is_unowned(&[]));
        assert_eq!(owner_of_group(&tags), "node 0 of cluster c1");
        assert_eq!(removal("vg", &tags), "vgchange --deltag blkrep.cluster=c1 --deltag blkrep.node=0 vg");
    }

    #[test]
    fn what_was_zeroed_is_the_largest_number_that_was_noted() {
        let volume = VolumeName::data("web", 1).unwrap();
        assert_eq!(zeroed(&of_volume(&identity("c", "0"), &volume)), Some(0));
        assert_eq!(zeroed(&[zeroed_to(4096), zeroed_to(0)]), Some(4096));
        assert_eq!(zeroed(&["blkrep.zeroed=all".to_owned()]), None);
    }
}
