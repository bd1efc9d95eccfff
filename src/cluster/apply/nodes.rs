//! Nodes: invited, joined, announced, removed.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{
    Applied, Certificate, Cluster, Invitation, Limits, Node, NodeKind, NodeState, PoolReport, Ports, Refusal, Seed, TokenHash,
};
use crate::units::{ClusterId, Name, NodeId, ResourceId};

impl Cluster {
    pub(super) fn init(
        &mut self,
        cluster: ClusterId,
        name: Name,
        address: IpAddr,
        ports: Ports,
        kind: NodeKind,
        certificate: Certificate,
    ) -> Result<Applied, Refusal> {
        if self.id.is_some() {
            return Err(Refusal::AlreadyInitialised);
        }
        self.check_address(address, ports, None)?;
        self.id = Some(cluster);
        self.next_resource = 1;
        let id = self.add_node(name, address, ports, kind, None);
        let node = self.nodes.get_mut(&id).expect("it was just added");
        node.certificate = Some(certificate);
        Ok(Applied::Node(id))
    }

    pub(super) fn invite_node(
        &mut self,
        name: Name,
        address: IpAddr,
        ports: Ports,
        kind: NodeKind,
        invitation: Invitation,
    ) -> Result<Applied, Refusal> {
        if self.node_named(&name).is_ok() {
            return Err(Refusal::NodeExists(name.into()));
        }
        if self.nodes.len() >= Limits::NODES {
            return Err(Refusal::TooManyNodes(Limits::NODES));
        }
        self.check_address(address, ports, None)?;
        Ok(Applied::Node(self.add_node(name, address, ports, kind, Some(invitation))))
    }

    pub(super) fn renew_invitation(&mut self, name: &Name, token: TokenHash, expires: u64) -> Result<Applied, Refusal> {
        let node = self.node_named(name)?;
        if node.state != NodeState::Joining {
            return Err(Refusal::TokenUsed(name.to_string()));
        }
        let id = node.id;
        self.node_mut(id).invitation = Some(Invitation { token, expires });
        Ok(Applied::Node(id))
    }

    pub(super) fn redeem_invitation(
        &mut self,
        name: &Name,
        token: TokenHash,
        address: IpAddr,
        ports: Ports,
        certificate: Certificate,
        now: u64,
    ) -> Result<Applied, Refusal> {
        let id = self.check_invitation(name, token, address, now)?;
        self.check_address(address, ports, Some(id))?;
        let node = self.node_mut(id);
        node.invitation = None;
        node.ports = ports;
        node.certificate = Some(certificate);
        Ok(Applied::Node(id))
    }

    /// Whether the token lets `name` in from `address` at `now` (seconds since 1970), and as which node.
    pub fn check_invitation(&self, name: &Name, token: TokenHash, address: IpAddr, now: u64) -> Result<NodeId, Refusal> {
        let node = self.node_named(name)?;
        let Some(invitation) = &node.invitation else {
            return Err(Refusal::TokenUsed(name.to_string()));
        };
        if invitation.token != token {
            return Err(Refusal::WrongToken(name.to_string()));
        }
        if now >= invitation.expires {
            return Err(Refusal::TokenExpired(name.to_string()));
        }
        if node.address != address {
            let (invited, from) = (node.address.to_string(), address.to_string());
            return Err(Refusal::WrongAddress { name: name.to_string(), invited, from });
        }
        Ok(node.id)
    }

    pub(super) fn announce(
        &mut self,
        id: NodeId,
        version: String,
        pool: Option<PoolReport>,
        mut pools: BTreeMap<Name, PoolReport>,
    ) -> Result<Applied, Refusal> {
        self.node(id)?;
        let node = self.node_mut(id);
        node.version = version;
        node.pool = if node.kind == NodeKind::Storage { pool } else { None };
        for (name, known) in &mut node.pools {
            known.report = pools.remove(name);
        }
        if node.state == NodeState::Joining {
            node.state = NodeState::Member;
            node.invitation = None;
        }
        Ok(Applied::Done)
    }

    pub(super) fn modify_node(&mut self, name: &Name, address: IpAddr) -> Result<Applied, Refusal> {
        let node = self.node_named(name)?;
        let (id, ports) = (node.id, node.ports);
        self.check_address(address, ports, Some(id))?;
        self.node_mut(id).address = address;
        Ok(Applied::Done)
    }

    pub(super) fn remove_node(
        &mut self,
        name: &Name,
        force: bool,
        only: Option<&BTreeSet<ResourceId>>,
        seed: Seed,
    ) -> Result<Applied, Refusal> {
        let (id, state) = self.node_named(name).map(|node| (node.id, node.state))?;
        if self.nodes.values().filter(|n| n.state == NodeState::Member).all(|n| n.id == id) && state == NodeState::Member {
            return Err(Refusal::LastNode(name.to_string()));
        }
        let held: Vec<ResourceId> = self.resources.values().filter(|r| r.assignments.contains_key(&id)).map(|r| r.id).collect();
        if let Some(&more) = held.iter().find(|resource| only.is_some_and(|only| !only.contains(resource))) {
            return Err(Refusal::Overtaken(self.resources[&more].name.to_string()));
        }
        for &resource in &held {
            self.check_unassign(resource, id, force)?;
        }
        let mut draws = seed.draws();
        for &resource in &held {
            self.take_away(resource, id, force, &mut draws);
        }
        if force || state == NodeState::Joining {
            self.drop_node(id);
        } else {
            self.node_mut(id).state = NodeState::Leaving;
            self.drop_leavers();
        }
        Ok(Applied::Done)
    }

    /// Drops every leaving node that holds nothing any more.
    pub(super) fn drop_leavers(&mut self) {
        let leaving = self.nodes.values().filter(|node| node.state == NodeState::Leaving).map(|node| node.id);
        let done: Vec<NodeId> = leaving
            .filter(|&id| {
                self.leftovers_of(id).next().is_none() && self.resources.values().all(|r| !r.assignments.contains_key(&id))
            })
            .collect();
        for id in done {
            self.drop_node(id);
        }
    }

    pub(super) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("the caller looked it up")
    }

    fn drop_node(&mut self, id: NodeId) {
        self.nodes.remove(&id);
        self.leftovers.retain(|_, leftover| leftover.node != id);
    }

    fn add_node(&mut self, name: Name, address: IpAddr, ports: Ports, kind: NodeKind, invitation: Option<Invitation>) -> NodeId {
        let id = NodeId(self.next_node);
        self.next_node += 1;
        let state = NodeState::Joining;
        let (certificate, pool, version) = (None, None, String::new());
        let (pools, default_pool) = (BTreeMap::new(), None);
        let node = Node { id, name, address, ports, kind, state, invitation, certificate, pool, pools, default_pool, version };
        self.nodes.insert(id, node);
        id
    }

    /// Whether a node (other than `except`) may have this address. Nodes may share one where their ports differ, which is
    /// what several nodes on one machine do; a node that has not joined yet has not told its ports.
    fn check_address(&self, address: IpAddr, ports: Ports, except: Option<NodeId>) -> Result<(), Refusal> {
        if address.is_unspecified() || address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
            return Err(Refusal::BadAddress(address.to_string()));
        }
        let clash = self.nodes.values().find(|node| {
            let same_ports = node.ports.control == ports.control || node.ports.replication == ports.replication;
            Some(node.id) != except && node.address == address && same_ports
        });
        match clash {
            Some(node) => Err(Refusal::AddressInUse(address.to_string(), node.name.to_string())),
            None => Ok(()),
        }
    }
}
