//! Any commands in any order keep the invariants.

use super::*;

/// Commands over few names, so that they meet.
fn any_command() -> impl Strategy<Value = Command> {
    let resource = || (0..4u8).prop_map(|n| name(&format!("r{n}")));
    let node = || (0..5u8).prop_map(|n| name(&format!("n{n}")));
    let seed = || any::<u128>().prop_map(Seed);
    let bytes = || prop_oneof![Just(0), Just(4097), Just(GIB), Just(3 * GIB), Just(1 << 51)];
    let volume = || (0..3u16).prop_map(VolumeId);
    prop_oneof![
        (node(), 0..5u8).prop_map(|(name, n)| Command::InviteNode {
            name,
            address: address(n),
            ports: Ports::default(),
            kind: if n == 4 { NodeKind::Witness } else { NodeKind::Storage },
            token: token(n),
            expires: NOW + 1
        }),
        (node(), 0..5u8, 0..3u64).prop_map(|(node, n, late)| redeem(node.as_str(), token(n), address(n), NOW + late)),
        (0..8u32, any::<bool>(), 0..20u64).prop_map(|(id, zeroed, free)| Command::Announce {
            node: NodeId(id),
            version: String::new(),
            pool: pool(free * GIB, zeroed),
            pools: pool(free * GIB, !zeroed).map(|report| (name("ssd"), report)).into_iter().collect(),
        }),
        (0..8u32, any::<bool>()).prop_map(|(id, zeroed)| Command::AddPool {
            node: NodeId(id),
            name: name("ssd"),
            pool: NodePool { spec: "lvm:ssd".into(), report: pool(9 * GIB, zeroed) },
        }),
        (0..8u32, any::<bool>()).prop_map(|(id, add)| match add {
            true => Command::SetDefaultPool { node: NodeId(id), name: name("ssd") },
            false => Command::RemovePool { node: NodeId(id), name: name("ssd") },
        }),
        (resource(), ssd()).prop_map(|(resource, pool)| Command::SetMetadataPool { resource, pool }),
        (node(), any::<bool>(), seed()).prop_map(|(name, force, seed)| Command::RemoveNode { name, force, only: None, seed }),
        (resource(), 1..3usize).prop_map(|(r, n)| create(r.as_str(), GIB, n)),
        (resource(), any::<bool>()).prop_map(|(resource, force)| Command::RemoveResource { resource, force }),
        (resource(), proptest::option::of(volume()), bytes(), ssd())
            .prop_map(|(resource, volume, bytes, pool)| Command::AddVolume { resource, volume, bytes, pool }),
        (resource(), volume(), bytes()).prop_map(|(resource, volume, bytes)| Command::ResizeVolume { resource, volume, bytes }),
        (resource(), volume(), any::<bool>()).prop_map(|(resource, volume, force)| Command::RemoveVolume {
            resource,
            volume,
            force
        }),
        (resource(), 0..4usize, seed(), ssd()).prop_map(|(resource, n, seed, pool)| Command::Deploy {
            resource,
            placement: Placement::Count(DeployCount::Total(n)),
            avoid: BTreeSet::new(),
            keep: BTreeSet::new(),
            seed,
            pool
        }),
        (resource(), node(), any::<bool>(), seed(), ssd()).prop_map(|(resource, node, diskless, seed, pool)| Command::Assign {
            resource,
            node,
            diskless,
            seed,
            pool
        }),
        (resource(), node(), any::<bool>(), seed()).prop_map(|(resource, node, force, seed)| Command::Unassign {
            resource,
            node,
            force,
            seed
        }),
        (resource(), any::<bool>()).prop_map(|(resource, force)| Command::Undeploy { resource, force }),
        (resource(), proptest::option::of(node()), any::<bool>()).prop_map(|(resource, node, pause)| Command::PauseResync {
            resource,
            node,
            pause
        }),
        (resource(), node()).prop_map(|(resource, node)| Command::Disconnect { resource, node }),
        (resource(), proptest::option::of(node())).prop_map(|(resource, node)| Command::Connect { resource, node }),
        (resource(), node(), seed(), ssd()).prop_map(|(resource, node, seed, pool)| Command::ReplaceDisk {
            resource,
            node,
            pool,
            expect: None,
            seed
        }),
    ]
}

/// What nodes and engines say: made up from the present model, so that it is mostly accepted.
#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    ConfirmReplica(usize),
    ConfirmLeftover(usize),
    ChangeRecord { pick: usize, stale: bool, drop: Option<usize>, primary: Option<usize> },
}

fn any_step() -> impl Strategy<Value = Step> {
    let change = (any::<usize>(), any::<bool>(), any::<Option<usize>>(), any::<Option<usize>>());
    prop_oneof![
        4 => any_command().prop_map(Step::Command),
        1 => any::<usize>().prop_map(Step::ConfirmReplica),
        1 => any::<usize>().prop_map(Step::ConfirmLeftover),
        2 => change.prop_map(|(pick, stale, drop, primary)| Step::ChangeRecord { pick, stale, drop, primary }),
    ]
}

fn command_of(step: Step, cluster: &Cluster) -> Option<Command> {
    let pick_of = |pick: usize, len: usize| (len > 0).then(|| pick % len);
    match step {
        Step::Command(command) => Some(command),
        Step::ConfirmReplica(pick) => {
            let all: Vec<(ResourceId, NodeId, ReplicaId)> = cluster
                .resources
                .values()
                .flat_map(|r| r.assignments.iter().filter_map(|(&n, a)| Some((r.id, n, a.replica?))))
                .collect();
            let (resource, node, replica) = all[pick_of(pick, all.len())?];
            let volumes = cluster.resources[&resource].volumes.iter().map(|(&id, v)| (id, v.target)).collect();
            Some(Command::ConfirmReplica { node, resource, replica, volumes })
        }
        Step::ConfirmLeftover(pick) => {
            let (&leftover, present) = cluster.leftovers.iter().nth(pick_of(pick, cluster.leftovers.len())?)?;
            Some(Command::ConfirmLeftover { node: present.node, leftover })
        }
        Step::ChangeRecord { pick, stale, drop, primary } => {
            let resource = cluster.resources.values().nth(pick_of(pick, cluster.resources.len())?)?;
            let present = resource.record.as_ref()?;
            let mut next = present.next(RecordId(0));
            if let Some(node) = drop.and_then(|pick| next.in_sync.keys().nth(pick % next.in_sync.len().max(1)).copied()) {
                next.in_sync.remove(&node);
            }
            if let Some(node) = primary.and_then(|pick| resource.assignments.keys().nth(pick % resource.assignments.len().max(1)))
            {
                (next.primary, next.reign) = (Some(*node), next.number);
            }
            let expect = if stale { RecordId(!present.id.0) } else { present.id };
            Some(Command::ChangeRecord { resource: resource.id, expect, record: next })
        }
    }
}

/// Gives a command a seed that no other has, as the random ones are in real life, even after a failing case was shrunk.
fn draw_anew(command: &mut Command, at: u128) {
    match command {
        Command::All(commands) => commands.iter_mut().for_each(|command| draw_anew(command, at)),
        Command::RemoveNode { seed, .. }
        | Command::Deploy { seed, .. }
        | Command::Assign { seed, .. }
        | Command::Unassign { seed, .. }
        | Command::ReplaceDisk { seed, .. } => *seed = Seed(at),
        Command::ChangeRecord { record, .. } => record.id = RecordId(u64::try_from(at).unwrap()),
        _ => {}
    }
}

/// A pool that only some nodes have, or none.
fn ssd() -> impl Strategy<Value = Option<Name>> {
    proptest::option::weighted(0.2, Just(()).prop_map(|()| name("ssd")))
}

/// Everything that was ever given out.
#[derive(Default)]
struct Seen {
    nodes: BTreeMap<NodeId, Name>,
    resources: BTreeMap<ResourceId, Name>,
    replicas: BTreeMap<ReplicaId, (ResourceId, NodeId)>,
    leftovers: BTreeMap<LeftoverId, ReplicaId>,
    records: BTreeMap<ResourceId, Vec<RecordId>>,
}

impl Seen {
    fn check(&mut self, cluster: &Cluster) {
        for (id, node) in &cluster.nodes {
            assert_eq!(self.nodes.entry(*id).or_insert_with(|| node.name.clone()), &node.name, "a node's id was used again");
        }
        for (id, resource) in &cluster.resources {
            assert_eq!(self.resources.entry(*id).or_insert_with(|| resource.name.clone()), &resource.name);
            assert_eq!(cluster.names.get(&resource.name), Some(id));
            self.check_resource(cluster, resource);
        }
        assert_eq!(cluster.names.len(), cluster.resources.len());
        for (id, leftover) in &cluster.leftovers {
            assert_eq!(*self.leftovers.entry(*id).or_insert(leftover.replica), leftover.replica);
            let node = cluster.nodes.get(&leftover.node).expect("a leftover waits for a node that is gone");
            let mut pools = leftover.places.pools(leftover.volumes.iter(), leftover.metadata);
            assert!(pools.all(|pool| node.has_pool(pool)), "a leftover is in a pool that is gone");
        }
        let addresses: BTreeSet<_> = cluster.nodes.values().map(Node::control).collect();
        assert_eq!(addresses.len(), cluster.nodes.len(), "two nodes have one address");
    }

    fn check_resource(&mut self, cluster: &Cluster, resource: &Resource) {
        for (&node, assignment) in &resource.assignments {
            assert!(cluster.nodes.contains_key(&node), "a resource is assigned to a node that is gone");
            if let Some(replica) = assignment.replica {
                let place = (resource.id, node);
                assert_eq!(*self.replicas.entry(replica).or_insert(place), place, "a replica's id was used again");
                let mut pools = assignment.places.pools(resource.volumes.keys(), true);
                assert!(pools.all(|pool| cluster.nodes[&node].has_pool(pool)), "a replica is in a pool that is gone");
                let strangers = assignment.places.volumes.keys().find(|volume| !resource.volumes.contains_key(volume));
                assert_eq!(strangers, None, "a volume that is not there has a place");
            }
        }
        assert_eq!(resource.record.is_some(), resource.replicas().next().is_some(), "a record and replicas come together");
        let stray = resource.paused.nodes.iter().find(|node| !resource.assignments.contains_key(node));
        assert_eq!(stray, None, "a resync is paused of a replica that is gone");
        let stray = resource.disconnected.iter().find(|node| !resource.assignments.contains_key(node));
        assert_eq!(stray, None, "a node is disconnected that does not use it");
        if let Some(record) = &resource.record {
            let lineage = self.records.entry(resource.id).or_default();
            if lineage.last() != Some(&record.id) {
                assert!(!lineage.contains(&record.id), "a record's id was used again");
                lineage.push(record.id);
            }
            if record.authority == Authority::Majority {
                for node in record.in_sync.keys() {
                    assert!(resource.assignments.get(node).is_some_and(|a| a.replica.is_some()), "in sync without a replica");
                }
            }
        }
        for volume in resource.volumes.values() {
            assert!(volume.bytes <= volume.target && volume.target > 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_commands_keep_the_invariants(steps in proptest::collection::vec(any_step(), 1..120), many in any::<bool>()) {
        let mut cluster = cluster_with(if many { &[20 * GIB; 3] } else { &[20 * GIB; 2] }, true);
        let mut seen = Seen::default();
        seen.check(&cluster);
        for (at, step) in (1u128..).zip(steps) {
            let Some(mut command) = command_of(step, &cluster) else { continue };
            draw_anew(&mut command, at);
            let before = cluster.clone();
            let expected = match &command {
                Command::ChangeRecord { resource, expect, .. } => Some((*resource, *expect)),
                _ => None,
            };
            match cluster.apply(command) {
                Ok(_) => {
                    prop_assert_eq!(cluster.revision, before.revision + 1);
                    if let Some((resource, expect)) = expected {
                        let present = before.resources[&resource].record.as_ref().unwrap();
                        prop_assert!(present.id == expect, "a record was replaced that was not expected");
                    }
                }
                Err(refusal) => {
                    prop_assert_eq!(&cluster, &before, "a refusal changed the model: {}", refusal);
                    prop_assert!(!refusal.to_string().is_empty());
                }
            }
            seen.check(&cluster);
        }
        prop_assert_eq!(Cluster::decode(&cluster.encode()).unwrap(), cluster);
    }
}
