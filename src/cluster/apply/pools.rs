//! The pools of nodes.

use crate::cluster::{Applied, Cluster, FIRST_POOL, NodeKind, NodePool, Refusal};
use crate::units::{Name, NodeId};

impl Cluster {
    pub(super) fn add_pool(&mut self, id: NodeId, name: Name, pool: NodePool) -> Result<Applied, Refusal> {
        let node = self.node(id)?;
        let node_name = node.name.to_string();
        if node.kind != NodeKind::Storage {
            return Err(Refusal::NoPool(node_name));
        }
        if node.has_pool(&name) {
            return Err(Refusal::PoolExists(node_name, name.to_string()));
        }
        self.node_mut(id).pools.insert(name, pool);
        Ok(Applied::Done)
    }

    pub(super) fn remove_pool(&mut self, id: NodeId, name: &Name) -> Result<Applied, Refusal> {
        let node = self.node(id)?;
        let names = (node.name.to_string(), name.to_string());
        if *name == *FIRST_POOL {
            return Err(Refusal::FirstPool(names.0));
        }
        if !node.has_pool(name) {
            return Err(Refusal::NoSuchPool(names.0, names.1));
        }
        let placed = self.resources.values().find(|resource| {
            let replica = resource.assignments.get(&id).filter(|assignment| assignment.replica.is_some());
            let next = replica.and_then(|a| a.successor.as_ref()).is_some_and(|next| next.pool.as_ref() == Some(name));
            next || replica.is_some_and(|a| a.places.pools(resource.volumes.keys(), true).any(|pool| pool == name))
        });
        // What is left over is in the pool until the node has removed it.
        let left = || self.leftovers_of(id).find(|(_, l)| l.places.pools(l.volumes.iter(), l.metadata).any(|pool| pool == name));
        if let Some(holds) = placed.map(|r| r.name.to_string()).or_else(|| left().map(|(_, l)| l.name.to_string())) {
            return Err(Refusal::PoolInUse { node: names.0, pool: names.1, resource: holds });
        }
        let node = self.node_mut(id);
        node.pools.remove(name);
        node.default_pool = node.default_pool.take().filter(|default| default != name);
        Ok(Applied::Done)
    }

    pub(super) fn set_default_pool(&mut self, id: NodeId, name: Name) -> Result<Applied, Refusal> {
        let node = self.node(id)?;
        if !node.has_pool(&name) {
            return Err(Refusal::NoSuchPool(node.name.to_string(), name.to_string()));
        }
        self.node_mut(id).default_pool = Some(name).filter(|name| *name != *FIRST_POOL);
        Ok(Applied::Done)
    }

    pub(super) fn set_metadata_pool(&mut self, resource: &Name, pool: Option<Name>) -> Result<Applied, Refusal> {
        let id = self.resource_named(resource)?.id;
        self.resource_mut(id).metadata_pool = pool;
        Ok(Applied::Done)
    }
}
