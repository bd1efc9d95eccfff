//! LVM tags that say whose a volume group or logical volume is.

use crate::{Identity, SnapshotName, VolumeName};

const CLUSTER: &str = "blkrep.cluster=";
const NODE: &str = "blkrep.node=";
const OWNER: &str = "blkrep.owner=";
const VOLUME: &str = "blkrep.volume=";
const ZEROED: &str = "blkrep.zeroed=";
const SNAPSHOT: &str = "blkrep.snapshot=";
const OVERSUBSCRIPTION: &str = "blkrep.oversubscription=";

/// The tag of a volume that is being restored and is not complete.
pub(super) const RESTORING: &str = "blkrep.restoring";

/// Whether a logical volume is being restored and is not complete.
pub(super) fn is_restoring(tags: &[String]) -> bool {
    tags.iter().any(|tag| tag == RESTORING)
}

/// The tags of a volume group or thin pool.
pub(super) fn of_owner(identity: &Identity) -> [String; 2] {
    [format!("{CLUSTER}{}", identity.cluster()), format!("{NODE}{}", identity.node())]
}

/// Whether a volume group or thin pool is nobody's.
pub(super) fn is_unowned(tags: &[String]) -> bool {
    owner_tags(tags).next().is_none()
}

/// Whose a volume group or thin pool is, for a message.
pub(super) fn owner(tags: &[String]) -> String {
    let value = |key| tags.iter().find_map(|tag| tag.strip_prefix(key)).unwrap_or("?");
    format!("node {} of cluster {}", value(NODE), value(CLUSTER))
}

/// The command, `vgchange` or `lvchange`, that makes a volume group or thin pool nobody's.
pub(super) fn removal(change: &str, name: &str, tags: &[String]) -> String {
    let deletions: String = owner_tags(tags).map(|tag| format!("--deltag {tag} ")).collect();
    format!("{change} {deletions}{name}")
}

/// The tag that says how many times its size a thin pool may promise.
pub(super) fn oversubscribed(times: u32) -> String {
    format!("{OVERSUBSCRIPTION}{times}")
}

/// How many times its size a thin pool may promise, if it says.
pub(super) fn oversubscription(tags: &[String]) -> Option<u32> {
    tags.iter().find_map(|tag| tag.strip_prefix(OVERSUBSCRIPTION)?.parse().ok())
}

fn owner_tags(tags: &[String]) -> impl Iterator<Item = &String> {
    tags.iter().filter(|tag| tag.starts_with(CLUSTER) || tag.starts_with(NODE))
}

/// The tags of a new logical volume: whose and which it is, and that nothing of it was zeroed.
///
/// The owner is repeated on each, so that volumes that another cluster left in a group do not pass to the next.
pub(super) fn of_volume(identity: &Identity, volume: &VolumeName) -> [String; 3] {
    [owned(identity), format!("{VOLUME}{volume}"), zeroed_to(0)]
}

/// Which volume a logical volume is, if it is `identity`'s.
pub(super) fn volume_of(tags: &[String], identity: &Identity) -> Option<VolumeName> {
    let ours = owned(identity);
    if tags.contains(&ours) { tags.iter().find_map(|tag| tag.strip_prefix(VOLUME))?.parse().ok() } else { None }
}

/// Whose a logical volume is, for a message; `None` when it is nobody's.
pub(super) fn owner_of_volume(tags: &[String]) -> Option<String> {
    let (cluster, node) = tags.iter().find_map(|tag| tag.strip_prefix(OWNER))?.split_once('/')?;
    Some(format!("node {node} of cluster {cluster}"))
}

/// Whether a tag is one of those that make a logical volume somebody's volume.
pub(super) fn is_of_volume(tag: &str) -> bool {
    [OWNER, VOLUME, ZEROED, SNAPSHOT].iter().any(|key| tag.starts_with(key)) || tag == RESTORING
}

/// The tags of a snapshot: whose and which it is. A tag may have no `@`, and names have no colon.
pub(super) fn of_snapshot(identity: &Identity, snapshot: &SnapshotName) -> [String; 2] {
    [owned(identity), format!("{SNAPSHOT}{}:{}", snapshot.volume(), snapshot.name())]
}

/// Which snapshot a logical volume is, if it is one of `identity`'s.
pub(super) fn snapshot_of(tags: &[String], identity: &Identity) -> Option<SnapshotName> {
    let ours = owned(identity);
    let (volume, name) = tags.iter().find_map(|tag| tag.strip_prefix(SNAPSHOT))?.split_once(':')?;
    if tags.contains(&ours) { SnapshotName::new(volume.parse().ok()?, name).ok() } else { None }
}

fn owned(identity: &Identity) -> String {
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
        let tags = [of_owner(&identity("c1", "0")).to_vec(), vec!["site=a".to_owned()]].concat();
        assert!(!is_unowned(&tags) && !is_unowned(&tags[1..2]));
        assert!(is_unowned(&tags[2..]) && is_unowned(&[]));
        assert_eq!(owner(&tags), "node 0 of cluster c1");
        assert_eq!(removal("vgchange", "vg", &tags), "vgchange --deltag blkrep.cluster=c1 --deltag blkrep.node=0 vg");
    }

    #[test]
    fn a_snapshot_is_found_by_its_owner_and_name_and_is_no_volume() {
        let ours = identity("c1", "0");
        let snapshot: SnapshotName = "web_00@x".parse().unwrap();
        let tags = of_snapshot(&ours, &snapshot);
        assert_eq!(snapshot_of(&tags, &ours), Some(snapshot));
        assert_eq!((snapshot_of(&tags, &identity("c1", "1")), snapshot_of(&tags[1..], &ours)), (None, None));
        assert_eq!(volume_of(&tags, &ours), None);
        assert!(tags.iter().all(|tag| !tag.contains('@')), "LVM takes no such tag");
    }

    #[test]
    fn how_much_a_thin_pool_promises_stands_on_it() {
        assert_eq!(oversubscription(&["x".to_owned(), oversubscribed(4)]), Some(4));
        assert_eq!(oversubscription(&["blkrep.oversubscription=-1".to_owned()]), None);
    }

    #[test]
    fn what_was_zeroed_is_the_largest_number_that_was_noted() {
        let volume = VolumeName::data("web", 1).unwrap();
        assert_eq!(zeroed(&of_volume(&identity("c", "0"), &volume)), Some(0));
        assert_eq!(zeroed(&[zeroed_to(4096), zeroed_to(0)]), Some(4096));
        assert_eq!(zeroed(&["blkrep.zeroed=all".to_owned()]), None);
    }
}
