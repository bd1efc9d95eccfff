//! A replica that is made of what a node had already.

use super::*;

fn adopt(resource: &str, node: u32, bytes: u64) -> Command {
    let (resource, node, pool, source) = (name(resource), NodeId(node), FIRST_POOL.clone(), "vg0/old".to_owned());
    Command::Adopt { resource, node, pool, source, bytes, seed: Seed(5) }
}

fn define(resource: &str) -> Command {
    Command::CreateResource { name: name(resource), options: BTreeMap::new(), properties: BTreeMap::new(), now: NOW }
}

#[test]
fn what_is_adopted_is_in_sync_alone_and_takes_no_space_and_the_next_replica_gets_a_full_sync() {
    // Less free than the volume has: it is there already.
    let mut cluster = cluster_with(&[GIB, 10 * GIB], true);
    cluster.apply(Command::All(vec![define("web"), adopt("web", 0, 2 * GIB), deploy("web", DeployCount::Total(2), 3)])).unwrap();
    let resource = cluster.resource_named(&name("web")).unwrap();
    assert_eq!(resource.volumes[&VolumeId(0)].target, 2 * GIB);
    let [first, second] = [0, 1].map(|node| &resource.assignments[&NodeId(node)]);
    assert_eq!((first.adopts[&VolumeId(0)].as_str(), first.initially_in_sync), ("vg0/old", true));
    assert!(second.adopts.is_empty() && !second.initially_in_sync, "pools that give zeroes make no difference");
    assert_eq!(record(&cluster, "web").in_sync.keys().collect::<Vec<_>>(), [&NodeId(0)]);
    assert_eq!(promised(&cluster, NodeId(0), &FIRST_POOL), metadata_reserve(2 * GIB));
    confirm_all(&mut cluster, "web");
    let resource = cluster.resource_named(&name("web")).unwrap();
    assert!(resource.assignments[&NodeId(0)].adopts.is_empty(), "from now on it is like any other");
    assert_eq!(resource.volumes[&VolumeId(0)].bytes, 2 * GIB);
}

#[test]
fn what_was_to_be_adopted_is_given_back_and_not_deleted_until_the_replica_is_confirmed() {
    let mut cluster = cluster_with(&[10 * GIB; 2], true);
    cluster.apply(Command::All(vec![define("web"), adopt("web", 0, GIB)])).unwrap();
    let mut kept = cluster.clone();
    kept.apply(Command::RemoveResource { resource: name("web"), force: false }).unwrap();
    let (_, left) = kept.leftovers_of(NodeId(0)).next().unwrap();
    assert_eq!(left.adopts.get(&VolumeId(0)).map(String::as_str), Some("vg0/old"));
    confirm_all(&mut cluster, "web");
    cluster.apply(Command::RemoveResource { resource: name("web"), force: false }).unwrap();
    let (_, left) = cluster.leftovers_of(NodeId(0)).next().unwrap();
    assert!(left.adopts.is_empty(), "a replica that was is removed with its data");
}

#[test]
fn only_a_new_resource_can_adopt_and_only_where_its_metadata_fits() {
    let mut cluster = cluster_with(&[10 * GIB, 1 << 20], true);
    cluster.apply(create("db", GIB, 1)).unwrap();
    cluster.apply(define("web")).unwrap();
    let before = cluster.clone();
    assert_eq!(cluster.apply(adopt("db", 0, GIB)), Err(Refusal::NotNew("db".into())));
    assert_eq!(cluster.apply(adopt("none", 0, GIB)), Err(Refusal::NoSuchResource("none".into())));
    assert_eq!(cluster.apply(adopt("web", 0, 5000)), Err(Refusal::BadSize(5000)));
    assert!(matches!(cluster.apply(adopt("web", 1, GIB)), Err(Refusal::NoSpaceOn { .. })));
    assert!(matches!(cluster.apply(adopt("web", 7, GIB)), Err(Refusal::NoSuchNode(_))));
    assert_eq!(cluster, before, "a refusal changes nothing");
}
