//! Nodes that join, sizes, records and backups that are refused.

use super::*;

#[test]
fn a_token_is_good_once_for_its_node_and_not_for_ever() {
    let mut cluster = cluster_with(&[10 * GIB], true);
    let kind = NodeKind::Storage;
    let invite = Command::InviteNode {
        name: name("n1"),
        address: address(1),
        ports: Ports::default(),
        kind,
        token: token(1),
        expires: NOW + 60,
    };
    cluster.apply(invite.clone()).unwrap();
    assert_eq!(cluster.apply(invite), Err(Refusal::NodeExists("n1".into())));
    assert_eq!(cluster.apply(redeem("n1", token(2), address(1), NOW)), Err(Refusal::WrongToken("n1".into())));
    assert_eq!(cluster.apply(redeem("n1", token(1), address(1), NOW + 60)), Err(Refusal::TokenExpired("n1".into())));
    let elsewhere = cluster.apply(redeem("n1", token(1), address(9), NOW)).unwrap_err();
    assert!(matches!(elsewhere, Refusal::WrongAddress { .. }));
    let renew = Command::RenewInvitation { name: name("n1"), token: token(3), expires: NOW + 90 };
    cluster.apply(renew).unwrap();
    assert_eq!(cluster.apply(redeem("n1", token(1), address(1), NOW)), Err(Refusal::WrongToken("n1".into())));
    cluster.apply(redeem("n1", token(3), address(1), NOW)).unwrap();
    assert_eq!(cluster.apply(redeem("n1", token(3), address(1), NOW)), Err(Refusal::TokenUsed("n1".into())));
}

#[test]
fn nodes_with_a_taken_name_or_address_are_refused() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB], true);
    let invite = |node: &str, address| Command::InviteNode {
        name: name(node),
        address,
        ports: Ports::default(),
        kind: NodeKind::Witness,
        token: token(1),
        expires: NOW,
    };
    assert_eq!(cluster.apply(invite("n1", address(7))), Err(Refusal::NodeExists("n1".into())));
    let taken = Refusal::AddressInUse(address(1).to_string(), "n1".into());
    assert_eq!(cluster.apply(invite("n7", address(1))), Err(taken));
    let anywhere = cluster.apply(invite("n7", IpAddr::V4(Ipv4Addr::UNSPECIFIED))).unwrap_err();
    assert!(matches!(anywhere, Refusal::BadAddress(_)));
}

#[test]
fn a_volume_has_its_new_size_once_every_replica_has_grown() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    confirm_all(&mut cluster, "web");
    let resize = |bytes| Command::ResizeVolume { resource: name("web"), volume: VolumeId(0), bytes };
    cluster.apply(resize(2 * GIB)).unwrap();
    let volume = |cluster: &Cluster| cluster.resource_named(&name("web")).unwrap().volumes[&VolumeId(0)];
    assert_eq!(volume(&cluster), Volume { bytes: GIB, target: 2 * GIB });
    confirm_all(&mut cluster, "web");
    assert_eq!(volume(&cluster), Volume { bytes: 2 * GIB, target: 2 * GIB });
    assert!(matches!(cluster.apply(resize(GIB)), Err(Refusal::Shrinks { .. })));
    for wrong in [0, 4097] {
        assert_eq!(cluster.apply(resize(wrong)), Err(Refusal::BadSize(wrong)));
    }
    assert!(matches!(cluster.apply(resize(Limits::VOLUME_BYTES + 4096)), Err(Refusal::TooLarge { .. })));
}

/// A node that is away keeps the volume at the size that all replicas have; it grows when the node has, or has no replica any more.
#[test]
fn a_node_that_is_away_keeps_a_volume_from_growing() {
    let mut cluster = cluster_with(&[10 * GIB, 10 * GIB, 10 * GIB], true);
    cluster.apply(create("web", GIB, 3)).unwrap();
    confirm_all(&mut cluster, "web");
    let web = cluster.resource_named(&name("web")).unwrap().clone();
    let volume = |cluster: &Cluster| cluster.resource_named(&name("web")).unwrap().volumes[&VolumeId(0)];
    let grow = |cluster: &mut Cluster, node: u32, bytes| {
        let (node, volumes) = (NodeId(node), BTreeMap::from([(VolumeId(0), bytes)]));
        let replica = web.assignments[&node].replica.unwrap();
        cluster.apply(Command::ConfirmReplica { node, resource: web.id, replica, volumes }).unwrap();
    };
    cluster.apply(Command::ResizeVolume { resource: name("web"), volume: VolumeId(0), bytes: 2 * GIB }).unwrap();
    for node in 0..2 {
        grow(&mut cluster, node, 2 * GIB);
        assert_eq!(volume(&cluster), Volume { bytes: GIB, target: 2 * GIB });
    }
    let mut back = cluster.clone();
    grow(&mut back, 2, 2 * GIB);
    assert_eq!(volume(&back), Volume { bytes: 2 * GIB, target: 2 * GIB });

    let (resource, node) = (name("web"), name("n2"));
    cluster.apply(Command::Unassign { resource, node, force: true, seed: Seed(3) }).unwrap();
    assert_eq!(volume(&cluster), Volume { bytes: 2 * GIB, target: 2 * GIB });
}

#[test]
fn a_record_that_does_not_follow_is_refused() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    cluster.apply(create("web", GIB, 2)).unwrap();
    let old = record(&cluster, "web");
    assert!(matches!(change(&mut cluster, "web", |next| next.number += 1), Err(Refusal::BadRecord(_))));
    assert!(matches!(change(&mut cluster, "web", |next| next.in_sync.clear()), Err(Refusal::BadRecord(_))));
    assert!(matches!(change(&mut cluster, "web", |next| next.primary = Some(NodeId(0))), Err(Refusal::BadRecord(_))));
    let stranger = change(&mut cluster, "web", |next| {
        next.in_sync.insert(NodeId(2), crate::units::Incarnation(1));
    });
    assert!(matches!(stranger, Err(Refusal::BadRecord(_))), "{stranger:?}");
    assert_eq!(record(&cluster, "web"), old);
    change(&mut cluster, "web", |_| ()).unwrap();
    let resource = cluster.resource_named(&name("web")).unwrap().id;
    let late = Command::ChangeRecord { resource, expect: old.id, record: old.next(RecordId(1)) };
    assert_eq!(cluster.apply(late), Err(Refusal::RecordIs(Box::new(record(&cluster, "web")))));
}

#[test]
fn who_decides_is_settled_when_the_first_replicas_are_made() {
    let mut cluster = cluster_with(&[10 * GIB; 2], true);
    let set = |quorum: &str| Command::SetOptions {
        resource: Some(name("web")),
        options: [("quorum".to_owned(), Some(quorum.to_owned()))].into(),
    };
    cluster.apply(create("web", GIB, 2)).unwrap();
    assert_eq!(record(&cluster, "web").authority, Authority::Off, "two nodes decide each for itself");
    assert_eq!(cluster.apply(set("majority")), Err(Refusal::QuorumIsSettled("web".to_owned())));
    cluster.apply(set("off")).unwrap();
}

#[test]
fn replicas_that_decide_alone_are_two_at_most() {
    let mut cluster = cluster_with(&[10 * GIB; 3], true);
    let options: BTreeMap<_, _> = [("quorum".to_owned(), Some("off".to_owned()))].into();
    let create = |replicas| {
        Command::All(vec![
            Command::CreateResource { name: name("web"), options: options.clone(), properties: BTreeMap::new(), now: NOW },
            Command::AddVolume { resource: name("web"), volume: None, bytes: GIB, pool: None },
            deploy("web", DeployCount::Total(replicas), 1),
        ])
    };
    let refused = Err(Refusal::TooManyAlone("web".to_owned()));
    assert_eq!(cluster.apply(create(3)), refused);
    cluster.apply(create(2)).unwrap();
    assert_eq!(cluster.apply(deploy("web", DeployCount::More(1), 2)), refused);
    cluster.apply(deploy("web", DeployCount::Total(2), 3)).unwrap();
}

#[test]
fn a_backup_of_a_newer_program_or_of_something_else_is_refused_by_name() {
    assert!(matches!(Cluster::decode(b"{}"), Err(SnapshotError::NotAModel)));
    assert!(matches!(Cluster::decode(b"blkrep-model 2\n{}"), Err(SnapshotError::TooNew(2))));
    assert!(matches!(Cluster::decode(b"blkrep-model 1\n{"), Err(SnapshotError::Damaged(_))));
}
