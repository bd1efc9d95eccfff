//! A resource's first replica, made of what a node has already.

use std::collections::BTreeMap;

use super::resources::check_size;
use crate::cluster::placement::{metadata_reserve, no_space, place, room};
use crate::cluster::{Applied, Cluster, NodeState, Refusal, Seed};
use crate::units::{Name, NodeId, VolumeId};

/// What is adopted, as its node found it.
pub(super) struct Found {
    pub(super) node: NodeId,
    pub(super) pool: Name,
    pub(super) source: String,
    pub(super) bytes: u64,
}

impl Cluster {
    /// Gives a resource without volumes one that exists on a node, which is in sync by itself: everybody else gets a full sync.
    pub(super) fn adopt(&mut self, name: &Name, found: Found, seed: Seed) -> Result<Applied, Refusal> {
        let Found { node, pool, source, bytes } = found;
        let resource = self.resource_named(name)?;
        let id = resource.id;
        if !resource.volumes.is_empty() || !resource.assignments.is_empty() {
            return Err(Refusal::NotNew(name.to_string()));
        }
        check_size(bytes)?;
        let on = self.node(node)?;
        match on.state {
            NodeState::Joining => return Err(Refusal::NotAMember(on.name.to_string())),
            NodeState::Leaving => return Err(Refusal::NodeLeaving(on.name.to_string())),
            NodeState::Member if !on.takes_replicas() => return Err(Refusal::NoPool(on.name.to_string())),
            NodeState::Member => {}
        }
        let metadata = resource.metadata_pool.as_ref().unwrap_or(&pool);
        for wanted in [&pool, metadata] {
            if !on.has_pool(wanted) {
                return Err(Refusal::NoSuchPool(on.name.to_string(), wanted.to_string()));
            }
            if on.pool_report(wanted).is_none() {
                return Err(Refusal::NoPool(place(on, wanted)));
            }
        }
        // The data is there: only the metadata takes space.
        let (needed, room) = (metadata_reserve(bytes), room(self, on, metadata));
        if needed > room {
            return Err(no_space(self, on, metadata, needed, room));
        }
        let volume = VolumeId(0);
        self.add_volume(name, Some(volume), bytes, None)?;
        self.place(id, &[node], Some(&pool), &mut seed.draws());
        let assignment = self.resource_mut(id).assignments.get_mut(&node).expect("it was just placed");
        assignment.volumes = BTreeMap::from([(volume, bytes)]);
        assignment.adopts = BTreeMap::from([(volume, source)]);
        Ok(Applied::Volume(volume))
    }
}
