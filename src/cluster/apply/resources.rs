//! Resources, their volumes, options and properties.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cluster::placement::{no_space, room};
use crate::cluster::{Applied, Cluster, Limits, NodeState, OptionSet, Paused, Refusal, Resource, Volume};
use crate::units::{Authority, BLOCK, Name, NodeId, ResourceId, VolumeId};

impl Cluster {
    pub(super) fn create_resource(
        &mut self,
        name: Name,
        options: &BTreeMap<String, Option<String>>,
        properties: BTreeMap<String, String>,
        now: u64,
    ) -> Result<Applied, Refusal> {
        if self.names.contains_key(&name) {
            return Err(Refusal::ResourceExists(name.into()));
        }
        let mut options = OptionSet::default().with(options)?;
        options.over(&self.common.over(&super::super::Options::default())).check()?;
        check_properties(&properties)?;
        // Fixed at creation: a third voter that arrives later must not silently change who decides on existing data.
        // Members, not voters: of three of them, each votes as soon as it is up to date, a moment after it has joined.
        let members = self.nodes.values().filter(|node| node.state == NodeState::Member).count();
        let by_members = if members >= 3 { Authority::Majority } else { Authority::Off };
        options.quorum = options.quorum.or(self.common.quorum).or(Some(by_members));
        let id = ResourceId(self.next_resource);
        self.next_resource += 1;
        Arc::make_mut(&mut self.names).insert(name.clone(), id);
        let (volumes, assignments) = (BTreeMap::new(), BTreeMap::new());
        let resource = Resource {
            id,
            name,
            volumes,
            options,
            assignments,
            record: None,
            round: 0,
            created: now,
            properties,
            pools: BTreeMap::new(),
            metadata_pool: None,
            snapshots: BTreeMap::new(),
            schedule: None,
            verifies: None,
            paused: Paused::default(),
            disconnected: BTreeSet::new(),
        };
        self.resources.insert(id, Arc::new(resource));
        Ok(Applied::Resource(id))
    }

    pub(super) fn set_options(
        &mut self,
        resource: Option<&Name>,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Applied, Refusal> {
        match resource {
            Some(name) => {
                let resource = self.resource_named(name)?;
                let mut options = resource.options.with(changes)?;
                // There is always an answer to who decides: unsetting it keeps the present one.
                options.quorum = options.quorum.or(resource.options.quorum);
                if resource.record.is_some() && options.quorum != resource.options.quorum {
                    // The replicas go by their records, and a record's authority is changed by the engine alone (rule Q6).
                    return Err(Refusal::QuorumIsSettled(name.to_string()));
                }
                options.over(&self.common.over(&super::super::Options::default())).check()?;
                let id = resource.id;
                self.resource_mut(id).options = options;
            }
            None => {
                let common = self.common.with(changes)?;
                let base = common.over(&super::super::Options::default());
                base.check()?;
                for resource in self.resources.values() {
                    resource.options.over(&base).check()?;
                }
                self.common = common;
            }
        }
        Ok(Applied::Done)
    }

    pub(super) fn set_properties(
        &mut self,
        resource: &Name,
        changes: BTreeMap<String, Option<String>>,
    ) -> Result<Applied, Refusal> {
        let resource = self.resource_named(resource)?;
        let mut properties = resource.properties.clone();
        for (key, value) in changes {
            match value {
                Some(value) => properties.insert(key, value),
                None => properties.remove(&key),
            };
        }
        check_properties(&properties)?;
        let id = resource.id;
        self.resource_mut(id).properties = properties;
        Ok(Applied::Done)
    }

    pub(super) fn remove_resource(&mut self, name: &Name, force: bool) -> Result<Applied, Refusal> {
        let id = self.check_unused(name, force)?;
        self.check_parts_unused(id, None)?;
        self.leave_all(id);
        self.resources.remove(&id);
        Arc::make_mut(&mut self.names).remove(name);
        self.drop_leavers();
        Ok(Applied::Done)
    }

    pub(super) fn end_round(&mut self, id: ResourceId, round: u64) -> Result<Applied, Refusal> {
        let resource = self.resource(id)?;
        if resource.round != round {
            return Err(Refusal::Overtaken(resource.name.to_string()));
        }
        self.resource_mut(id).round += 1;
        Ok(Applied::Done)
    }

    pub(super) fn add_volume(
        &mut self,
        name: &Name,
        volume: Option<VolumeId>,
        bytes: u64,
        pool: Option<Name>,
    ) -> Result<Applied, Refusal> {
        check_size(bytes)?;
        let resource = self.resource_named(name)?;
        if resource.volumes.len() >= Limits::VOLUMES {
            return Err(Refusal::TooManyVolumes(Limits::VOLUMES));
        }
        let volume = match volume {
            Some(volume) if resource.volumes.contains_key(&volume) => {
                return Err(Refusal::VolumeExists(name.to_string(), volume));
            }
            Some(volume) => volume,
            None => (0..).map(VolumeId).find(|v| !resource.volumes.contains_key(v)).expect("there are fewer than 65536"),
        };
        let id = resource.id;
        let usual = |id: &NodeId| pool.clone().or_else(|| Some(self.nodes.get(id)?.usual_pool().clone()));
        let placed: Vec<(NodeId, Name)> = resource.replicas().filter_map(|id| Some((id, usual(&id)?))).collect();
        self.check_room(&placed, bytes)?;
        let resource = self.resource_mut(id);
        for (node, pool) in &placed {
            resource.assignments.get_mut(node).expect("it is a replica's").places.put(volume, pool);
        }
        resource.pools.extend(pool.map(|pool| (volume, pool)));
        // On replicas that exist it has yet to be made: it is exported when all of them have it.
        resource.volumes.insert(volume, Volume { bytes: 0, target: bytes });
        settle_sizes(resource);
        Ok(Applied::Volume(volume))
    }

    pub(super) fn resize_volume(&mut self, name: &Name, volume: VolumeId, bytes: u64) -> Result<Applied, Refusal> {
        check_size(bytes)?;
        let resource = self.resource_named(name)?;
        let present = *resource.volumes.get(&volume).ok_or_else(|| Refusal::NoSuchVolume(name.to_string(), volume))?;
        if bytes < present.target {
            return Err(Refusal::Shrinks { resource: name.to_string(), volume, present: present.target, wanted: bytes });
        }
        let placed: Vec<(NodeId, Name)> =
            resource.replicas().map(|id| (id, resource.assignments[&id].places.of(volume).clone())).collect();
        self.check_room(&placed, bytes - present.target)?;
        let id = resource.id;
        let resource = self.resource_mut(id);
        resource.volumes.insert(volume, Volume { target: bytes, ..present });
        settle_sizes(resource);
        Ok(Applied::Done)
    }

    pub(super) fn remove_volume(&mut self, name: &Name, volume: VolumeId, force: bool) -> Result<Applied, Refusal> {
        let resource = self.resource_named(name)?;
        if !resource.volumes.contains_key(&volume) {
            return Err(Refusal::NoSuchVolume(name.to_string(), volume));
        }
        if !resource.snapshots.is_empty() {
            return Err(Refusal::HasSnapshots(name.to_string(), resource.snapshots.len()));
        }
        let id = self.check_unused(name, force)?;
        if self.resources[&id].volumes.len() == 1 {
            // Replicas of nothing are of no use: the last volume takes them, and their metadata, along.
            self.leave_all(id);
            let resource = self.resource_mut(id);
            resource.assignments.clear();
            resource.paused = Paused::default();
            resource.disconnected.clear();
            resource.record = None;
        } else {
            let nodes: Vec<NodeId> = self.resources[&id].assignments.keys().copied().collect();
            for node in nodes {
                self.leave(id, node, BTreeSet::from([volume]), false);
            }
        }
        let resource = self.resource_mut(id);
        resource.volumes.remove(&volume);
        resource.pools.remove(&volume);
        for assignment in resource.assignments.values_mut() {
            assignment.volumes.remove(&volume);
            assignment.places.volumes.remove(&volume);
            assignment.adopts.remove(&volume);
        }
        self.drop_leavers();
        Ok(Applied::Done)
    }

    /// Refuses while the model knows a primary, unless forced. With `quorum=off` it knows none; whoever proposes asks the nodes.
    pub(super) fn check_unused(&self, name: &Name, force: bool) -> Result<ResourceId, Refusal> {
        let resource = self.resource_named(name)?;
        match resource.known_primary() {
            Some(primary) if !force => Err(Refusal::InUse(name.to_string(), self.node_name(primary))),
            _ => Ok(resource.id),
        }
    }

    pub(super) fn resource_mut(&mut self, id: ResourceId) -> &mut Resource {
        Arc::make_mut(self.resources.get_mut(&id).expect("the caller looked it up"))
    }

    /// Whether every node has room for `more` bytes in its pool.
    fn check_room(&self, placed: &[(NodeId, Name)], more: u64) -> Result<(), Refusal> {
        let needed = more.saturating_add(more / 32768 * 7);
        for (node, pool) in placed.iter().filter_map(|(id, pool)| Some((self.nodes.get(id)?, pool))) {
            if !node.has_pool(pool) {
                return Err(Refusal::NoSuchPool(node.name.to_string(), pool.to_string()));
            }
            let room = room(self, node, pool);
            if node.pool_report(pool).is_some() && needed > room {
                return Err(no_space(self, node, pool, needed, room));
            }
        }
        Ok(())
    }
}

/// Lets each volume have the size that all replicas have reached.
pub(super) fn settle_sizes(resource: &mut Resource) {
    for (id, volume) in &mut resource.volumes {
        let replicas = resource.assignments.values().filter(|a| a.created && !a.leaving);
        let smallest = replicas.map(|a| a.volumes.get(id).copied().unwrap_or(0)).min();
        let reached = smallest.map_or(volume.target, |bytes| bytes.min(volume.target));
        volume.bytes = volume.bytes.max(reached);
    }
}

pub(super) fn check_size(bytes: u64) -> Result<(), Refusal> {
    if bytes == 0 || !bytes.is_multiple_of(BLOCK) {
        Err(Refusal::BadSize(bytes))
    } else if bytes > Limits::VOLUME_BYTES {
        Err(Refusal::TooLarge { bytes, max: Limits::VOLUME_BYTES })
    } else {
        Ok(())
    }
}

fn check_properties(properties: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if properties.len() > Limits::PROPERTIES {
        return Err(Refusal::BadProperty(format!("a resource has at most {} properties", Limits::PROPERTIES)));
    }
    for (key, value) in properties {
        if key.is_empty() || key.len() + value.len() > Limits::PROPERTY_BYTES {
            let key: String = key.chars().take(40).collect();
            return Err(Refusal::BadProperty(format!(
                "property '{key}' is empty or longer than {} bytes with its value",
                Limits::PROPERTY_BYTES
            )));
        }
    }
    Ok(())
}
