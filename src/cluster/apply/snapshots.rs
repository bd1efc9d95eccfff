//! Snapshots: taken, finished, removed, restored, rolled back to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::replicas::new_assignment;
use super::resources::settle_sizes;
use crate::cluster::placement::{needs, no_space, place, room};
use crate::cluster::seed::Draws;
use crate::cluster::{
    Applied, Assignment, Cluster, Leftover, LeftoverId, Limits, Paused, Places, Purpose, Refusal, Resource, Schedule, Seed,
    Snapshot, SnapshotId, SnapshotState, Source, StoredSnapshot, Volume,
};
use crate::units::{Authority, Membership, Name, NodeId, PoolKind, Record, ReplicaId, ResourceId, VolumeId};

/// A snapshot that is asked for.
pub(super) struct Wanted<'a> {
    pub(super) name: Name,
    /// On these nodes; on all that have a replica in sync when there are none.
    pub(super) nodes: &'a [Name],
    pub(super) purpose: Purpose,
    pub(super) taker: NodeId,
    pub(super) now: u64,
}

impl Cluster {
    pub(super) fn add_snapshot(&mut self, name: &Name, wanted: Wanted<'_>) -> Result<Applied, Refusal> {
        let resource = self.resource_named(name)?;
        if resource.snapshots.contains_key(&wanted.name) {
            return Err(Refusal::SnapshotExists(name.to_string(), wanted.name.to_string()));
        }
        if resource.snapshots.len() >= Limits::SNAPSHOTS {
            return Err(Refusal::TooManySnapshots(name.to_string(), Limits::SNAPSHOTS));
        }
        let volumes: BTreeMap<VolumeId, u64> = resource.volumes.iter().map(|(&id, volume)| (id, volume.bytes)).collect();
        if volumes.is_empty() {
            return Err(Refusal::NoVolumes(name.to_string()));
        }
        if volumes.values().any(|bytes| *bytes == 0) {
            return Err(Refusal::NotMadeYet(name.to_string()));
        }
        let parts = self.parts_for(resource, wanted.nodes, &volumes)?;
        for (node, places) in &parts {
            self.check_space(*node, places, &volumes, false)?;
        }
        let resource = resource.id;
        let id = SnapshotId(self.next_snapshot);
        self.next_snapshot += 1;
        let Wanted { name: snapshot, purpose, taker, now, .. } = wanted;
        let state = SnapshotState::Taking;
        let taken = Snapshot { id, created: now, state, volumes, parts, purpose, taker };
        self.resource_mut(resource).snapshots.insert(snapshot, taken);
        Ok(Applied::Snapshot(id))
    }

    /// Which replicas can have a part of a snapshot, and where.
    fn parts_for(
        &self,
        resource: &Resource,
        nodes: &[Name],
        volumes: &BTreeMap<VolumeId, u64>,
    ) -> Result<BTreeMap<NodeId, Places>, Refusal> {
        let whole =
            |a: &Assignment| a.created && volumes.iter().all(|(id, bytes)| a.volumes.get(id).is_some_and(|has| has >= bytes));
        // With `quorum=off` the replicas alone know; those that turn out not to be in sync get no part.
        let record = resource.record.as_ref().filter(|record| record.authority == Authority::Majority);
        let good = |node: NodeId| {
            let whole = resource.assignments.get(&node).is_some_and(whole);
            whole && record.is_none_or(|record| record.in_sync.contains_key(&node))
        };
        let mut parts = BTreeMap::new();
        for node in nodes {
            let node = self.node_named(node)?;
            let names = || (resource.name.to_string(), node.name.to_string());
            if !resource.replicas().any(|has| has == node.id) {
                let (resource, node) = names();
                return Err(Refusal::NotAssigned(resource, node));
            }
            if !good(node.id) {
                let (resource, node) = names();
                return Err(Refusal::NotUpToDate(resource, node));
            }
            parts.insert(node.id, resource.assignments[&node.id].places.clone());
        }
        if nodes.is_empty() {
            let all = resource.replicas().filter(|&node| good(node));
            parts.extend(all.map(|node| (node, resource.assignments[&node].places.clone())));
        }
        if parts.is_empty() { Err(Refusal::NotMadeYet(resource.name.to_string())) } else { Ok(parts) }
    }

    /// Whether a node has room for as much as these volumes once more, where they are; with metadata of their own if `replica`.
    fn check_space(
        &self,
        node: NodeId,
        places: &Places,
        volumes: &BTreeMap<VolumeId, u64>,
        replica: bool,
    ) -> Result<(), Refusal> {
        let node = self.node(node)?;
        for (pool, needed) in needs(volumes, places, replica) {
            if node.pool_report(&pool).is_none() {
                return Err(Refusal::NoPool(place(node, &pool)));
            }
            let room = room(self, node, &pool);
            if needed > room {
                return Err(no_space(self, node, &pool, needed, room));
            }
        }
        Ok(())
    }

    pub(super) fn complete_snapshot(
        &mut self,
        resource: ResourceId,
        id: SnapshotId,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<Applied, Refusal> {
        let (name, snapshot) = self.taking(resource, id)?;
        let failed: Vec<NodeId> = snapshot.parts.keys().copied().filter(|node| !nodes.contains(node)).collect();
        if failed.len() == snapshot.parts.len() {
            return Err(Refusal::Stale);
        }
        for node in failed {
            self.leave_part(resource, &name, node);
        }
        if let Some(snapshot) = self.resource_mut(resource).snapshots.get_mut(&name) {
            snapshot.state = SnapshotState::Ready;
        }
        Ok(Applied::Done)
    }

    pub(super) fn abandon_snapshot(&mut self, resource: ResourceId, id: SnapshotId) -> Result<Applied, Refusal> {
        let (name, _) = self.taking(resource, id)?;
        self.drop_snapshot(resource, &name);
        Ok(Applied::Done)
    }

    fn taking(&self, resource: ResourceId, id: SnapshotId) -> Result<(Name, &Snapshot), Refusal> {
        let resource = self.resources.get(&resource).ok_or(Refusal::Stale)?;
        let open = |(_, one): &(&Name, &Snapshot)| one.id == id && one.state == SnapshotState::Taking;
        resource.snapshots.iter().find(open).map(|(name, one)| (name.clone(), one)).ok_or(Refusal::Stale)
    }

    pub(super) fn remove_snapshot(&mut self, name: &Name, snapshot: &Name, node: Option<&Name>) -> Result<Applied, Refusal> {
        let resource = self.resource_named(name)?;
        let id = resource.id;
        let present = resource.snapshot(snapshot)?;
        let node = node.map(|node| self.node_named(node)).transpose()?.map(|node| node.id);
        if let Some(user) = self.user_of(present.id, node, None) {
            return Err(Refusal::SnapshotInUse(name.to_string(), snapshot.to_string(), user.to_string()));
        }
        match node {
            None => self.drop_snapshot(id, snapshot),
            Some(node) if present.parts.contains_key(&node) => {
                self.leave_part(id, snapshot, node);
                self.drop_partless(id);
            }
            Some(node) => {
                let (resource, node) = (format!("{name}@{snapshot}"), self.node_name(node));
                return Err(Refusal::SnapshotNotThere(resource, node));
            }
        }
        Ok(Applied::Done)
    }

    /// Removes a snapshot, and leaves its parts to their nodes to delete.
    pub(super) fn drop_snapshot(&mut self, resource: ResourceId, name: &Name) {
        let Some(snapshot) = self.resources[&resource].snapshots.get(name) else { return };
        let nodes: Vec<NodeId> = snapshot.parts.keys().copied().collect();
        for node in nodes {
            self.leave_part(resource, name, node);
        }
        self.resource_mut(resource).snapshots.remove(name);
    }

    fn leave_part(&mut self, resource: ResourceId, name: &Name, node: NodeId) {
        let Some(part) = self.resources[&resource].snapshots.get(name).and_then(|one| one.part(name, node)) else { return };
        let present = self.resource_mut(resource);
        if let Some(snapshot) = present.snapshots.get_mut(name) {
            snapshot.parts.remove(&node);
        }
        // The replica stays: it is told from one whose storage goes by being the same.
        let replica = present.assignments.get(&node).and_then(|a| a.replica).unwrap_or(ReplicaId(0));
        let (name, places, snapshots) = (present.name.clone(), part.places.clone(), vec![part]);
        let (volumes, metadata, adopts) = (BTreeSet::new(), false, BTreeMap::new());
        let left = Leftover { node, resource, name, replica, volumes, metadata, places, snapshots, adopts };
        self.leftovers.insert(LeftoverId(self.next_leftover), left);
        self.next_leftover += 1;
    }

    /// The parts of snapshots that a node has of a resource, which go with its replica.
    pub(super) fn take_parts(&mut self, resource: ResourceId, node: NodeId) -> Vec<StoredSnapshot> {
        let snapshots = &self.resources[&resource].snapshots;
        let parts: Vec<StoredSnapshot> = snapshots.iter().filter_map(|(name, one)| one.part(name, node)).collect();
        for snapshot in self.resource_mut(resource).snapshots.values_mut() {
            snapshot.parts.remove(&node);
        }
        self.drop_partless(resource);
        parts
    }

    fn drop_partless(&mut self, resource: ResourceId) {
        self.resource_mut(resource).snapshots.retain(|_, one| !one.parts.is_empty());
    }

    /// Refuses to take away parts of snapshots that something is still made of, on the node `on` or on all.
    pub(super) fn check_parts_unused(&self, resource: ResourceId, on: Option<NodeId>) -> Result<(), Refusal> {
        let resource = &self.resources[&resource];
        for (name, snapshot) in &resource.snapshots {
            if let Some(user) = self.user_of(snapshot.id, on, Some(resource.id)) {
                return Err(Refusal::SnapshotInUse(resource.name.to_string(), name.to_string(), user.to_string()));
            }
        }
        Ok(())
    }

    /// A replica was made of a snapshot: one that was there for nothing else goes when it was the last.
    pub(super) fn made_of(&mut self, source: &Source) {
        if self.user_of(source.snapshot, None, None).is_some() {
            return;
        }
        let done = self.resources.values().find_map(|resource| {
            let mut copied = resource.snapshots.iter().filter(|(_, one)| one.purpose == Purpose::Copied);
            copied.find(|(_, one)| one.id == source.snapshot).map(|(name, _)| (resource.id, name.clone()))
        });
        if let Some((resource, name)) = done {
            self.drop_snapshot(resource, &name);
        }
    }

    pub(super) fn restore_snapshot(
        &mut self,
        new: Name,
        source: &Name,
        snapshot: &Name,
        nodes: &[Name],
        seed: Seed,
        now: u64,
    ) -> Result<Applied, Refusal> {
        if self.names.contains_key(&new) {
            return Err(Refusal::ResourceExists(new.into()));
        }
        let of = self.resource_named(source)?.clone();
        let taken = of.snapshot(snapshot)?;
        let mut parts = taken.parts.clone();
        if !nodes.is_empty() {
            let wanted: Vec<NodeId> = nodes.iter().map(|node| Ok(self.node_named(node)?.id)).collect::<Result<_, Refusal>>()?;
            if let Some(node) = wanted.iter().find(|node| !parts.contains_key(node)) {
                return Err(Refusal::SnapshotNotThere(format!("{source}@{snapshot}"), self.node_name(*node)));
            }
            parts.retain(|node, _| wanted.contains(node));
        }
        for (node, places) in &parts {
            self.check_space(*node, places, &taken.volumes, true)?;
        }
        let id = ResourceId(self.next_resource);
        self.next_resource += 1;
        let mut resource = Resource {
            id,
            name: new.clone(),
            round: 0,
            created: now,
            snapshots: BTreeMap::new(),
            schedule: None,
            verifies: None,
            paused: Paused::default(),
            disconnected: BTreeSet::new(),
            ..Resource::clone(&of)
        };
        let from = Source { of: of.name.clone(), snapshot: taken.id, stored: taken.stored(snapshot) };
        begin_anew(&mut resource, taken, parts, &from, &mut seed.draws());
        Arc::make_mut(&mut self.names).insert(new, id);
        self.resources.insert(id, Arc::new(resource));
        Ok(Applied::Resource(id))
    }

    /// Gives a resource another identity, and as its data what a snapshot has. Nobody uses it; the caller has made sure.
    pub(super) fn roll_back(&mut self, name: &Name, snapshot: &Name, seed: Seed) -> Result<Applied, Refusal> {
        let resource = self.resource_named(name)?.clone();
        let taken = resource.snapshot(snapshot)?;
        if let Some((volume, _)) = resource.volumes.iter().find(|(id, _)| !taken.volumes.contains_key(id)) {
            return Err(Refusal::VolumeIsNewer(name.to_string(), *volume, snapshot.to_string()));
        }
        if let Some(node) = resource.assignments.iter().find(|(_, a)| a.source.is_some()).map(|(node, _)| *node) {
            return Err(Refusal::NotUpToDate(name.to_string(), self.node_name(node)));
        }
        let parts: BTreeMap<NodeId, Places> =
            resource.replicas().filter_map(|node| Some((node, taken.parts.get(&node)?.clone()))).collect();
        if parts.is_empty() {
            return Err(Refusal::SnapshotNotThere(format!("{name}@{snapshot}"), "any of its replicas".to_owned()));
        }
        for (node, places) in &parts {
            // A classic LVM snapshot has what its volume has changed, and goes with it.
            let thick = |pool: &Name| self.nodes[node].pool_report(pool).is_some_and(|pool| pool.kind == PoolKind::Lvm);
            if let Some(pool) = taken.volumes.keys().map(|volume| places.of(*volume)).find(|pool| thick(pool)) {
                return Err(Refusal::NeedsItsVolume(format!("{name}@{snapshot}"), place(&self.nodes[node], pool)));
            }
        }
        let former = resource.id;
        let volumes: BTreeSet<VolumeId> = resource.volumes.keys().copied().collect();
        for &node in resource.assignments.keys() {
            self.leave(former, node, volumes.clone(), true);
        }
        let id = ResourceId(self.next_resource);
        self.next_resource += 1;
        let mut next =
            Resource { id, round: 0, paused: Paused::default(), disconnected: BTreeSet::new(), ..Resource::clone(&resource) };
        let from = Source { of: name.clone(), snapshot: taken.id, stored: taken.stored(snapshot) };
        let mut draws = seed.draws();
        begin_anew(&mut next, taken, parts, &from, &mut draws);
        for (&node, present) in &resource.assignments {
            let successor = self.successor_of(&resource, node);
            let Some(old) = successor.as_ref().or(Some(present)).filter(|old| !old.leaving) else { continue };
            let fresh = || Assignment {
                places: old.places.clone(),
                ..new_assignment(old.replica.map(|_| draws.replica()), draws.incarnation(), false)
            };
            next.assignments.entry(node).or_insert_with(fresh);
        }
        settle_sizes(&mut next);
        self.resources.remove(&former);
        self.resources.insert(id, Arc::new(next));
        Arc::make_mut(&mut self.names).insert(name.clone(), id);
        self.drop_leavers();
        Ok(Applied::Resource(id))
    }

    /// What is set again with the same interval goes on, as a schedule of verifies does.
    pub(super) fn schedule_snapshots(&mut self, name: &Name, schedule: Option<Schedule>) -> Result<Applied, Refusal> {
        let id = self.resource_named(name)?.id;
        if let Some(schedule) = schedule {
            let most = u32::try_from(Limits::SNAPSHOTS / 2).unwrap_or(u32::MAX);
            if schedule.every < Schedule::SHORTEST || schedule.keep == 0 || schedule.keep > most {
                return Err(Refusal::BadSchedule { shortest: Schedule::SHORTEST, most });
            }
        }
        let before = self.resource_mut(id).schedule;
        let same = |new: &Schedule| before.filter(|old| old.every == new.every);
        self.resource_mut(id).schedule =
            schedule.map(|new| Schedule { since: same(&new).map_or(new.since, |old| old.since), ..new });
        Ok(Applied::Done)
    }
}

/// Replicas that are made of a snapshot's parts, all of them in sync in a first record.
fn begin_anew(resource: &mut Resource, snapshot: &Snapshot, parts: BTreeMap<NodeId, Places>, source: &Source, draws: &mut Draws) {
    // Who decides was settled when the resource was made.
    let authority = resource.options.quorum.unwrap_or(Authority::Off);
    resource.volumes = snapshot.volumes.iter().map(|(&id, &target)| (id, Volume { bytes: 0, target })).collect();
    resource.pools.retain(|volume, _| snapshot.volumes.contains_key(volume));
    resource.assignments = BTreeMap::new();
    let mut in_sync = Membership::new();
    for (node, places) in parts {
        let (replica, incarnation) = (draws.replica(), draws.incarnation());
        in_sync.insert(node, incarnation);
        let source = Some(source.clone());
        let assignment = Assignment { places, source, ..new_assignment(Some(replica), incarnation, true) };
        resource.assignments.insert(node, assignment);
    }
    resource.record = Some(Record::first(draws.record(), in_sync, authority));
    settle_sizes(resource);
}
