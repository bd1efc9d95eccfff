//! Nodes that an operator keeps from talking to the others about a resource.

use crate::cluster::{Applied, Cluster, Refusal};
use crate::units::Name;

impl Cluster {
    pub(super) fn disconnect(&mut self, name: &Name, node: &Name) -> Result<Applied, Refusal> {
        let (id, at) = (self.resource_named(name)?.id, self.node_named(node)?.id);
        if !self.resources[&id].assignments.contains_key(&at) {
            return Err(Refusal::NotAssigned(name.to_string(), node.to_string()));
        }
        self.resource_mut(id).disconnected.insert(at);
        Ok(Applied::Done)
    }

    pub(super) fn connect(&mut self, name: &Name, node: Option<&Name>) -> Result<Applied, Refusal> {
        let id = self.resource_named(name)?.id;
        let at = node.map(|node| self.node_named(node)).transpose()?.map(|node| node.id);
        let disconnected = &mut self.resource_mut(id).disconnected;
        let any = match at {
            Some(at) => disconnected.remove(&at),
            None => !std::mem::take(disconnected).is_empty(),
        };
        if any { Ok(Applied::Done) } else { Err(Refusal::NotDisconnected(name.to_string())) }
    }
}
