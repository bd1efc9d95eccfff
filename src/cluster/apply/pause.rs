//! Resyncs that an operator pauses.

use crate::cluster::{Applied, Cluster, Paused, Refusal};
use crate::units::{Name, NodeId};

impl Cluster {
    pub(super) fn pause_resync(&mut self, name: &Name, node: Option<&Name>) -> Result<Applied, Refusal> {
        let id = self.resource_named(name)?.id;
        let at = node.map(|node| self.replica_named(name, node)).transpose()?;
        let paused = &mut self.resource_mut(id).paused;
        match at {
            Some(at) => paused.nodes.extend([at]),
            None => paused.all = true,
        }
        Ok(Applied::Done)
    }

    pub(super) fn resume_resync(&mut self, name: &Name, node: Option<&Name>) -> Result<Applied, Refusal> {
        let resource = self.resource_named(name)?;
        let (id, paused) = (resource.id, &resource.paused);
        let at = node.map(|node| self.replica_named(name, node)).transpose()?;
        match at {
            _ if *paused == Paused::default() => return Err(Refusal::NotPaused(name.to_string())),
            Some(_) if paused.all => return Err(Refusal::AllPaused(name.to_string())),
            Some(at) if !paused.nodes.contains(&at) => return Err(Refusal::NotPaused(name.to_string())),
            _ => {}
        }
        let paused = &mut self.resource_mut(id).paused;
        match at {
            Some(at) => paused.nodes.retain(|node| *node != at),
            None => *paused = Paused::default(),
        }
        Ok(Applied::Done)
    }

    /// The node, if it has a replica of the resource.
    fn replica_named(&self, name: &Name, node: &Name) -> Result<NodeId, Refusal> {
        let at = self.node_named(node)?.id;
        match self.resource_named(name)?.assignments.get(&at) {
            Some(assignment) if !assignment.is_diskless() => Ok(at),
            Some(_) => Err(Refusal::Diskless(name.to_string(), node.to_string())),
            None => Err(Refusal::NotAssigned(name.to_string(), node.to_string())),
        }
    }
}
