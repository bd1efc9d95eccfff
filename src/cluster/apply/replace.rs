//! Another replica in the place of one whose disk is lost.

use super::replicas::new_assignment;
use crate::cluster::placement::place;
use crate::cluster::{Applied, Assignment, Cluster, NodeState, Places, Refusal, Resource, Seed, Successor};
use crate::units::{Authority, Name, NodeId, RecordId};

impl Cluster {
    /// The old replica goes as any that is taken away: with a primary that counts on it, only once that has dropped it from the record
    /// (rule M8). The new one was never in sync, and has another identity (rule M7): no bitmap that was kept for the old one serves it.
    pub(super) fn replace_disk(
        &mut self,
        name: &Name,
        node: &Name,
        pool: Option<&Name>,
        expect: Option<RecordId>,
        seed: Seed,
    ) -> Result<Applied, Refusal> {
        let (resource, node) = (self.resource_named(name)?, self.node_named(node)?);
        let (id, at) = (resource.id, node.id);
        let names = || (name.to_string(), node.name.to_string());
        let Some(present) = resource.assignments.get(&at) else {
            let (resource, node) = names();
            return Err(Refusal::NotAssigned(resource, node));
        };
        if present.is_diskless() {
            let (resource, node) = names();
            return Err(Refusal::Diskless(resource, node));
        }
        if present.leaving {
            let (resource, node) = names();
            return Err(Refusal::ReplicaLeaves(resource, node));
        }
        if present.source.is_some() || !present.adopts.is_empty() {
            return Err(Refusal::NotMadeYet(name.to_string()));
        }
        match node.state {
            NodeState::Joining => return Err(Refusal::NotAMember(node.name.to_string())),
            NodeState::Leaving => return Err(Refusal::NodeLeaving(node.name.to_string())),
            NodeState::Member => {}
        }
        let majority = resource.record.as_ref().filter(|record| record.authority == Authority::Majority);
        if majority.is_some_and(|record| Some(record.id) != expect) {
            return Err(Refusal::Overtaken(name.to_string()));
        }
        self.check_unassign(id, at, false)?;
        let places = if pool.is_some() { resource.places_on(node, pool) } else { present.places.clone() };
        if pool.is_some() {
            self.check_fits(resource, node, &places)?;
        } else if let Some(lost) = places.pools(resource.volumes.keys(), true).find(|pool| node.pool_report(pool).is_none()) {
            // Where the old replica is there is room, once that is deleted; but for a pool that is gone itself.
            return Err(Refusal::NoPool(place(node, lost)));
        }
        let mut draws = seed.draws();
        let next = Successor { replica: draws.replica(), incarnation: draws.incarnation(), pool: pool.cloned() };
        self.take_away(id, at, false, &mut draws);
        let resource = self.resource_mut(id);
        resource.round += 1;
        match resource.assignments.get_mut(&at) {
            Some(leaving) => leaving.successor = Some(next),
            None => drop(resource.assignments.insert(at, made_of(next, places))),
        }
        Ok(Applied::Done)
    }

    /// What takes the place of a replica that is leaving.
    pub(in crate::cluster) fn successor_of(&self, resource: &Resource, node: NodeId) -> Option<Assignment> {
        let leaving = resource.assignments.get(&node)?;
        let next = leaving.successor.clone()?;
        let places = match &next.pool {
            Some(pool) => resource.places_on(self.nodes.get(&node)?, Some(pool)),
            None => leaving.places.clone(),
        };
        Some(made_of(next, places))
    }
}

/// A replica that was never in sync.
fn made_of(next: Successor, places: Places) -> Assignment {
    Assignment { places, ..new_assignment(Some(next.replica), next.incarnation, false) }
}
