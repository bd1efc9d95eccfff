//! Assignments: deployed, confirmed, taken away.

use std::collections::{BTreeMap, BTreeSet};

use super::resources::settle_sizes;
use crate::cluster::placement::{choose, needs, no_space, place, room};
use crate::cluster::seed::Draws;
use crate::cluster::{
    Applied, Assignment, Cluster, DeployCount, Leftover, LeftoverId, Limits, Node, NodeState, Paused, Placement, Places, Refusal,
    Resource, Seed,
};
use crate::units::{Authority, Incarnation, Membership, Name, NodeId, Record, ReplicaId, ResourceId, VolumeId};

/// What a placement has to heed besides the count.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    /// Nodes that come last.
    pub(super) avoid: &'a BTreeSet<NodeId>,
    /// Nodes whose replicas stay.
    pub(super) keep: &'a BTreeSet<NodeId>,
    /// The pool of new replicas.
    pub(super) pool: Option<&'a Name>,
}

impl Cluster {
    pub(super) fn deploy(
        &mut self,
        name: &Name,
        placement: &Placement,
        choice: Choice<'_>,
        seed: Seed,
    ) -> Result<Applied, Refusal> {
        let resource = self.resource_named(name)?;
        let id = resource.id;
        let mut draws = seed.draws();
        let pool = choice.pool;
        match self.resolve(resource, placement, choice)? {
            Move::Add(nodes) => {
                self.check_alone(&self.resources[&id], nodes.len())?;
                for &node in &nodes {
                    self.check_target(&self.resources[&id], node, pool)?;
                }
                self.place(id, &nodes, pool, &mut draws);
            }
            Move::Drop(nodes) => {
                for &node in &nodes {
                    self.check_unassign(id, node, false)?;
                }
                for &node in &nodes {
                    self.take_away(id, node, false, &mut draws);
                }
            }
        }
        Ok(Applied::Deployed(self.resources[&id].replicas().collect()))
    }

    pub(super) fn assign(
        &mut self,
        name: &Name,
        node: &Name,
        diskless: bool,
        seed: Seed,
        pool: Option<&Name>,
    ) -> Result<Applied, Refusal> {
        let resource = self.resource_named(name)?;
        let (id, node) = (resource.id, self.node_named(node)?);
        let target = node.id;
        match resource.assignments.get(&target) {
            Some(present) if diskless || !present.is_diskless() => {
                return Err(Refusal::Assigned(name.to_string(), node.name.to_string()));
            }
            _ => {}
        }
        let mut draws = seed.draws();
        if diskless {
            if node.state == NodeState::Leaving {
                return Err(Refusal::NodeLeaving(node.name.to_string()));
            }
            let resource = self.resource_mut(id);
            resource.assignments.insert(target, new_assignment(None, Incarnation(0), false));
            resource.round += 1;
        } else {
            self.check_alone(resource, 1)?;
            self.check_target(resource, target, pool)?;
            self.place(id, &[target], pool, &mut draws);
        }
        Ok(Applied::Deployed(self.resources[&id].assignments.keys().copied().collect()))
    }

    pub(super) fn unassign(&mut self, name: &Name, node: &Name, force: bool, seed: Seed) -> Result<Applied, Refusal> {
        let (id, node) = (self.resource_named(name)?.id, self.node_named(node)?.id);
        self.check_unassign(id, node, force)?;
        self.take_away(id, node, force, &mut seed.draws());
        self.drop_leavers();
        Ok(Applied::Done)
    }

    pub(super) fn undeploy(&mut self, name: &Name, force: bool) -> Result<Applied, Refusal> {
        let id = self.check_unused(name, force)?;
        self.check_parts_unused(id, None)?;
        self.leave_all(id);
        let resource = self.resource_mut(id);
        resource.assignments.clear();
        resource.paused = Paused::default();
        resource.disconnected.clear();
        resource.record = None;
        self.drop_leavers();
        Ok(Applied::Done)
    }

    pub(super) fn confirm_replica(
        &mut self,
        node: NodeId,
        resource: ResourceId,
        replica: ReplicaId,
        volumes: BTreeMap<VolumeId, u64>,
    ) -> Result<Applied, Refusal> {
        let assignment = self.resources.get(&resource).and_then(|r| r.assignments.get(&node)).ok_or(Refusal::Stale)?;
        if assignment.replica != Some(replica) {
            return Err(Refusal::Stale);
        }
        let made_of = assignment.source.clone();
        let resource = self.resource_mut(resource);
        let known: BTreeMap<VolumeId, u64> = volumes.into_iter().filter(|(id, _)| resource.volumes.contains_key(id)).collect();
        let assignment = resource.assignments.get_mut(&node).expect("it was just looked up");
        assignment.created = true;
        assignment.volumes = known;
        assignment.source = None;
        assignment.adopts.clear();
        settle_sizes(resource);
        if let Some(source) = made_of {
            self.made_of(&source);
        }
        Ok(Applied::Done)
    }

    pub(super) fn confirm_leftover(&mut self, node: NodeId, leftover: LeftoverId) -> Result<Applied, Refusal> {
        match self.leftovers.get(&leftover) {
            Some(present) if present.node == node => self.leftovers.remove(&leftover),
            _ => return Err(Refusal::Stale),
        };
        self.drop_leavers();
        Ok(Applied::Done)
    }

    /// Whether a resource may be taken from a node.
    pub(super) fn check_unassign(&self, id: ResourceId, node: NodeId, force: bool) -> Result<(), Refusal> {
        let resource = self.resource(id)?;
        let names = || (resource.name.to_string(), self.node_name(node));
        let Some(assignment) = resource.assignments.get(&node) else {
            let (resource, node) = names();
            return Err(Refusal::NotAssigned(resource, node));
        };
        if force {
            return Ok(());
        }
        self.check_parts_unused(id, Some(node))?;
        let (name, node_name) = names();
        if resource.known_primary() == Some(node) {
            return Err(Refusal::InUse(name, node_name));
        }
        if assignment.is_diskless() || assignment.leaving {
            return Ok(());
        }
        if resource.replicas().all(|other| other == node) {
            return Err(Refusal::LastReplica(name, node_name));
        }
        let others_up_to_date = match &resource.record {
            Some(record) if record.authority == Authority::Majority => {
                resource.replicas().any(|other| other != node && record.in_sync.contains_key(&other))
            }
            // The replicas know; the model can only see to it that another one exists.
            _ => resource.assignments.iter().any(|(&other, a)| other != node && a.created && !a.leaving) || !assignment.created,
        };
        if others_up_to_date { Ok(()) } else { Err(Refusal::LastUpToDate(name, node_name)) }
    }

    /// Takes a resource from a node, as far as it was checked. A replica that the record names as in sync while there is a
    /// primary goes only once the primary has dropped it from the record (rule M8); with `force`, or without a primary, the
    /// model drops it itself, under a new record, so that nothing counts on it any more.
    pub(super) fn take_away(&mut self, id: ResourceId, node: NodeId, force: bool, draws: &mut Draws) {
        let resource = self.resource_mut(id);
        let Some(assignment) = resource.assignments.get_mut(&node) else { return };
        assignment.successor = None;
        if let Some(record) = resource.record.as_mut().filter(|record| record.authority == Authority::Majority) {
            let named = record.in_sync.contains_key(&node);
            if named && record.primary.is_some() && !force {
                assignment.leaving = true;
                return;
            }
            if named || record.primary == Some(node) {
                let mut next = record.next(draws.record());
                next.in_sync.remove(&node);
                next.primary = next.primary.filter(|&primary| primary != node);
                *record = next;
            }
        }
        self.drop_assignment(id, node);
    }

    /// Drops an assignment, leaves its storage to the node to delete, and puts its successor in its place.
    pub(super) fn drop_assignment(&mut self, id: ResourceId, node: NodeId) {
        let volumes = self.resources[&id].volumes.keys().copied().collect();
        self.leave(id, node, volumes, true);
        self.leave_parts(id, node);
        let next = self.successor_of(&self.resources[&id], node);
        let resource = self.resource_mut(id);
        resource.assignments.remove(&node);
        resource.paused.nodes.remove(&node);
        resource.disconnected.remove(&node);
        resource.assignments.extend(next.map(|next| (node, next)));
        if resource.replicas().next().is_none() {
            resource.record = None;
        }
        settle_sizes(resource);
    }

    /// Leaves all replicas of a resource to their nodes to delete.
    pub(super) fn leave_all(&mut self, id: ResourceId) {
        let resource = &self.resources[&id];
        let volumes: BTreeSet<VolumeId> = resource.volumes.keys().copied().collect();
        let nodes: Vec<NodeId> = resource.assignments.keys().copied().collect();
        for node in nodes {
            self.leave(id, node, volumes.clone(), true);
            self.leave_parts(id, node);
        }
    }

    /// Leaves a node's parts of snapshots with the replica that was just left.
    fn leave_parts(&mut self, id: ResourceId, node: NodeId) {
        let parts = self.take_parts(id, node);
        if let Some(leftover) = self.leftovers.values_mut().next_back().filter(|last| (last.resource, last.node) == (id, node)) {
            leftover.snapshots = parts;
        }
    }

    /// Leaves storage to a node to delete. Also that of a replica which is not confirmed: it may exist in part.
    pub(super) fn leave(&mut self, id: ResourceId, node: NodeId, volumes: BTreeSet<VolumeId>, metadata: bool) {
        let resource = &self.resources[&id];
        let Some(assignment) = resource.assignments.get(&node) else { return };
        let Some(replica) = assignment.replica else { return };
        let (places, name, snapshots) = (assignment.places.clone(), resource.name.clone(), Vec::new());
        let adopts = assignment.adopts.iter().filter(|(volume, _)| volumes.contains(volume));
        let adopts = adopts.map(|(&volume, source)| (volume, source.clone())).collect();
        let leftover = Leftover { node, resource: id, name, replica, volumes, metadata, places, snapshots, adopts };
        self.leftovers.insert(LeftoverId(self.next_leftover), leftover);
        self.next_leftover += 1;
    }

    fn resolve(&self, resource: &Resource, placement: &Placement, choice: Choice<'_>) -> Result<Move, Refusal> {
        let present = resource.replicas().count();
        let count = match placement {
            Placement::Nodes(names) => {
                let mut nodes = Vec::new();
                for name in names {
                    let node = self.node_named(name)?.id;
                    if !nodes.contains(&node) && !resource.replicas().any(|has| has == node) {
                        nodes.push(node);
                    }
                }
                return Ok(Move::Add(nodes));
            }
            Placement::Count(DeployCount::Total(count)) => *count,
            Placement::Count(DeployCount::More(more)) => present.saturating_add(*more),
            Placement::Count(DeployCount::Fewer(fewer)) => present.saturating_sub(*fewer),
        };
        if count == 0 {
            return Err(Refusal::NoneWouldRemain(present, resource.name.to_string()));
        }
        if count > Limits::REPLICAS {
            return Err(Refusal::TooManyReplicas(Limits::REPLICAS));
        }
        if count >= present {
            if resource.volumes.is_empty() {
                return Err(Refusal::NoVolumes(resource.name.to_string()));
            }
            choose(self, resource, count - present, choice.avoid, choice.pool).map(Move::Add)
        } else {
            self.least_useful(resource, present - count, choice.keep).map(Move::Drop)
        }
    }

    /// Which replicas to give up: none to keep, the primary's last, first those that are not up to date, then those on the fullest
    /// nodes.
    fn least_useful(&self, resource: &Resource, count: usize, keep: &BTreeSet<NodeId>) -> Result<Vec<NodeId>, Refusal> {
        let in_sync = |node: &NodeId| resource.record.as_ref().is_some_and(|record| record.in_sync.contains_key(node));
        let free = |node: &NodeId| self.nodes.get(node).and_then(|n| n.pool_report(n.usual_pool())).map_or(0, |pool| pool.free);
        let mut nodes: Vec<NodeId> = resource.replicas().filter(|node| !keep.contains(node)).collect();
        if let Some(user) = keep.iter().find(|_| nodes.len() < count) {
            return Err(Refusal::InUse(resource.name.to_string(), self.node_name(*user)));
        }
        nodes.sort_by_key(|node| (resource.known_primary() == Some(*node), in_sync(node), free(node), std::cmp::Reverse(*node)));
        nodes.truncate(count);
        Ok(nodes)
    }

    /// Replicas that decide alone are two at most, those that are leaving included: they still vote.
    fn check_alone(&self, resource: &Resource, more: usize) -> Result<(), Refusal> {
        let authority = resource.record.as_ref().map_or_else(|| self.options(resource).quorum, |record| record.authority);
        let present = resource.assignments.values().filter(|assignment| !assignment.is_diskless()).count();
        match authority {
            Authority::Off if more > 0 && present + more > Limits::ALONE => Err(Refusal::TooManyAlone(resource.name.to_string())),
            Authority::Off | Authority::Majority => Ok(()),
        }
    }

    fn check_target(&self, resource: &Resource, id: NodeId, pool: Option<&Name>) -> Result<(), Refusal> {
        let node = self.node(id)?;
        if resource.volumes.is_empty() {
            return Err(Refusal::NoVolumes(resource.name.to_string()));
        }
        if resource.replicas().count() >= Limits::REPLICAS {
            return Err(Refusal::TooManyReplicas(Limits::REPLICAS));
        }
        match node.state {
            NodeState::Joining => return Err(Refusal::NotAMember(node.name.to_string())),
            NodeState::Leaving => return Err(Refusal::NodeLeaving(node.name.to_string())),
            NodeState::Member if !node.takes_replicas() => return Err(Refusal::NoPool(node.name.to_string())),
            NodeState::Member => {}
        }
        self.check_fits(resource, node, &resource.places_on(node, pool))
    }

    /// Whether a new replica finds its pools on a node, and room in them.
    pub(super) fn check_fits(&self, resource: &Resource, node: &Node, places: &Places) -> Result<(), Refusal> {
        for (pool, needed) in needs(&resource.targets(), places, true) {
            if !node.has_pool(&pool) {
                return Err(Refusal::NoSuchPool(node.name.to_string(), pool.to_string()));
            }
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

    /// Gives `nodes` a replica. The first ones of a resource make its first record: all of them are in sync when every pool
    /// gives zeroes, for then they are equal; else only the first is. A later one waits for the primary's full sync.
    pub(super) fn place(&mut self, id: ResourceId, nodes: &[NodeId], pool: Option<&Name>, draws: &mut Draws) {
        let placed: Vec<(NodeId, Places)> =
            nodes.iter().filter_map(|id| self.nodes.get(id)).map(|n| (n.id, self.resources[&id].places_on(n, pool))).collect();
        let zeroed = placed.iter().all(|(node, places)| {
            let volumes = self.resources[&id].volumes.keys();
            places.pools(volumes, false).all(|pool| self.nodes[node].pool_report(pool).is_some_and(|pool| pool.zeroed))
        });
        let authority = self.options(&self.resources[&id]).quorum;
        let resource = self.resource_mut(id);
        resource.round += 1;
        let is_first = resource.record.is_none();
        let mut in_sync = Membership::new();
        for (at, (node, places)) in placed.into_iter().enumerate() {
            let (replica, incarnation) = (draws.replica(), draws.incarnation());
            let has_all = is_first && (zeroed || at == 0);
            if has_all {
                in_sync.insert(node, incarnation);
            }
            resource.assignments.insert(node, Assignment { places, ..new_assignment(Some(replica), incarnation, has_all) });
        }
        if is_first && !nodes.is_empty() {
            resource.record = Some(Record::first(draws.record(), in_sync, authority));
        }
    }
}

/// What a placement comes to.
enum Move {
    Add(Vec<NodeId>),
    Drop(Vec<NodeId>),
}

pub(super) fn new_assignment(replica: Option<ReplicaId>, incarnation: Incarnation, initially_in_sync: bool) -> Assignment {
    let (created, volumes, leaving) = (false, BTreeMap::new(), false);
    let (places, source, adopts, successor) = (Places::default(), None, BTreeMap::new(), None);
    Assignment { replica, incarnation, initially_in_sync, created, volumes, leaving, places, source, adopts, successor }
}
