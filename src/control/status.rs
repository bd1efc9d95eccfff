//! How everything is: the model, and what each node's data plane says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::net::Service;
use super::node::Node;
use super::options;
use crate::api::{self, Membership, Pending};
use crate::cluster::{self, Cluster, FIRST_POOL, NodeState, Resource};
use crate::engine::{self, ResourceStatus as EngineStatus};
use crate::units::{Authority, DiskState, Name, NodeId, Record, ResourceId, Role, VolumeId};

/// What a node is asked by another for its status.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// One resource only; all when absent.
    pub resource: Option<ResourceId>,
}

/// What a node says of itself.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What its data plane has open.
    pub resources: BTreeMap<ResourceId, EngineStatus>,
    /// What could not be done there, the last time it was tried.
    pub failures: BTreeMap<ResourceId, String>,
    /// Why pools of it cannot be used.
    #[serde(default)]
    pub pool_failures: BTreeMap<Name, String>,
    /// How often it has let clients use its resources.
    #[serde(default)]
    pub uses: BTreeMap<ResourceId, u64>,
    /// Of which of them it cannot say so.
    #[serde(default)]
    pub unread_uses: BTreeSet<ResourceId>,
}

/// The reports of the nodes that answer.
pub type Reports = BTreeMap<NodeId, Report>;

impl Report {
    /// This node's.
    pub fn of(node: &Node, question: &Question) -> Self {
        let wanted = |id: ResourceId| question.resource.is_none_or(|only| only == id);
        let open = node.plane.status().into_iter().filter(|status| wanted(status.resource));
        let failures = node.board.failures().into_iter().filter(|(id, _)| wanted(*id));
        let resources: BTreeMap<_, _> = open.map(|status| (status.resource, status)).collect();
        let (uses, unread_uses) = node.attachments.uses.all(resources.keys().copied().chain(question.resource));
        Self { resources, failures: failures.collect(), pool_failures: node.board.pool_failures(), uses, unread_uses }
    }
}

/// Asks all nodes at once; those that do not answer at once count as offline.
pub async fn gather(node: &Arc<Node>, model: &Cluster, resource: Option<ResourceId>) -> Reports {
    let question = Question { resource };
    let mut reports = Reports::from([(node.me, Report::of(node, &question))]);
    let request: Arc<[u8]> = serde_json::to_vec(&question).expect("a question can be written as JSON").into();
    let mut asked = JoinSet::new();
    for peer in model.nodes.values().filter(|peer| peer.id != node.me && peer.certificate.is_some()) {
        let (peers, request, id, address) = (node.peers.clone(), request.clone(), peer.id, peer.control());
        asked.spawn(async move {
            let answer = peers.ask(id, address, Service::Node, &request, PATIENCE).await;
            (id, answer.map_err(|error| error.to_string()).and_then(|a| serde_json::from_slice(&a).map_err(|e| e.to_string())))
        });
    }
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok((id, Ok(report))) => drop(reports.insert(id, report)),
            Ok((id, Err(error))) => tracing::debug!(node = %id, %error, "no status"),
            Err(error) => tracing::error!(%error, "asking for a status failed"),
        }
    }
    reports
}

/// The nodes that do not answer at once.
pub async fn silent(node: &Arc<Node>, model: &Cluster) -> BTreeSet<NodeId> {
    let reports = gather(node, model, Some(NO_RESOURCE)).await;
    model.nodes.keys().copied().filter(|node| !reports.contains_key(node)).collect()
}

/// The whole status.
pub fn cluster(node: &Node, model: &Cluster, reports: &Reports, only: Option<&Arc<Resource>>) -> api::ClusterStatus {
    let leader = node.consensus.leader();
    let told = |resource: &Arc<Resource>| self::resource(model, resource, reports);
    api::ClusterStatus {
        cluster: node.cluster.to_string(),
        node: node.config.name.clone(),
        leader: leader.and_then(|id| model.nodes.get(&id)).map(|node| node.name.clone()),
        nodes: nodes(model, reports, leader),
        resources: only.map_or_else(|| model.resources.values().map(told).collect(), |resource| vec![told(resource)]),
    }
}

/// Every node.
pub fn nodes(model: &Cluster, reports: &Reports, leader: Option<NodeId>) -> Vec<api::Node> {
    let tell = |node: &cluster::Node| {
        let membership = match node.state {
            _ if leader == Some(node.id) => Membership::Leader,
            _ if model.voters.contains(&node.id) => Membership::Voter,
            NodeState::Joining => Membership::Expected,
            NodeState::Member | NodeState::Leaving => Membership::Learner,
        };
        api::Node {
            name: node.name.clone(),
            id: node.id,
            address: node.address,
            port: node.ports.control,
            membership,
            online: reports.contains_key(&node.id),
            removing: node.state == NodeState::Leaving,
            pool: node.pool.as_ref().map(pool),
            pools: node.pools.iter().filter_map(|(name, added)| Some((name.clone(), pool(added.report.as_ref()?)))).collect(),
            pool_failures: reports.get(&node.id).map(|report| report.pool_failures.clone()).unwrap_or_default(),
            version: Some(node.version.clone()).filter(|version| !version.is_empty()),
        }
    };
    model.nodes.values().map(tell).collect()
}

/// The pools of every node.
pub fn pools(model: &Cluster, reports: &Reports) -> Vec<api::NodePool> {
    let tell = |node: &cluster::Node| {
        let first = (node.kind == cluster::NodeKind::Storage).then(|| (FIRST_POOL.clone(), node.pool.as_ref().map(pool)));
        let added = node.pools.iter().map(|(name, added)| (name.clone(), added.report.as_ref().map(pool)));
        let report = reports.get(&node.id);
        let line = |(name, pool): (Name, Option<api::Pool>)| api::NodePool {
            node: node.name.clone(),
            usual: *node.usual_pool() == name,
            online: report.is_some(),
            failure: report.and_then(|report| report.pool_failures.get(&name).cloned()),
            spec: node.pools.get(&name).map(|added| added.spec.clone()),
            name,
            pool,
        };
        first.into_iter().chain(added).map(line).collect::<Vec<_>>()
    };
    model.nodes.values().flat_map(tell).collect()
}

/// A resource on all its nodes.
pub fn resource(model: &Cluster, resource: &Resource, reports: &Reports) -> api::ResourceStatus {
    let chosen = model.options(resource);
    let replicas = resource.assignments.iter().filter_map(|(node, assignment)| {
        let name = model.nodes.get(node)?.name.clone();
        let told = replica(model, resource, *node, name, assignment, reports.get(node));
        let behind =
            told.disk == Some(DiskState::UpToDate) && (is_left_out(resource, *node) || is_behind(resource.id, *node, reports));
        Some(if behind { api::ReplicaStatus { disk: Some(DiskState::Outdated), ..told } } else { told })
    });
    api::ResourceStatus {
        name: resource.name.clone(),
        id: resource.id,
        port: resource.assignments.keys().find_map(|node| model.nodes.get(node)).map_or(7000, |node| node.ports.replication),
        options: options::effective(&chosen),
        majority: chosen.quorum == Authority::Majority,
        primary: primary(resource, reports).and_then(|id| model.nodes.get(&id)).map(|node| node.name.clone()),
        removing: false,
        verifies: resource.verifies.map(|cluster::VerifySchedule { every, repair, last, .. }| api::VerifySchedule {
            every,
            repair,
            last,
        }),
        volumes: volumes(model, resource),
        replicas: replicas.collect(),
    }
}

/// Whether the record of the cluster's log, where that decides, does not have a node's replica in sync: also if nobody is there to say so.
fn is_left_out(resource: &Resource, node: NodeId) -> bool {
    let logged = resource.record.as_ref().filter(|record| record.authority == Authority::Majority);
    logged.is_some_and(|record| !record.in_sync.contains_key(&node))
}

/// Whether a replica whose own metadata finds nothing wrong with it has missed something: a replica in sync says so, and it is in sync by no
/// record that it knows itself, or only by one that came before.
fn is_behind(resource: ResourceId, node: NodeId, reports: &Reports) -> bool {
    let own = reports.get(&node).and_then(|own| own.resources.get(&resource));
    let mine = own.filter(|own| own.in_sync).and_then(|own| own.record.as_ref());
    let later = |record: &Record| {
        // Others may have gone a different way where no log decides.
        mine.is_none_or(|mine| record.parent == Some(mine.id))
    };
    let mut told = reports.values().filter_map(|report| report.resources.get(&resource)).filter(|status| status.in_sync);
    told.any(|status| status.record.as_ref().is_some_and(|record| !record.in_sync.contains_key(&node) && later(record)))
}

/// A resource's volumes.
fn volumes(model: &Cluster, resource: &Resource) -> Vec<api::VolumeInfo> {
    let growth = |id: VolumeId, target: u64| {
        let short = |node: &NodeId| resource.assignments[node].volumes.get(&id).is_none_or(|has| *has < target);
        let awaits: Vec<Name> =
            resource.replicas().filter(short).filter_map(|node| Some(model.nodes.get(&node)?.name.clone())).collect();
        api::Growth { bytes: target, awaits }
    };
    let tell = |(&id, volume): (_, &cluster::Volume)| {
        let bytes = if volume.bytes == 0 { volume.target } else { volume.bytes };
        let growth = (volume.bytes > 0 && volume.bytes < volume.target).then(|| growth(id, volume.target));
        api::VolumeInfo { volume: id, bytes, making: volume.bytes == 0, growth, minor: None }
    };
    resource.volumes.iter().map(tell).collect()
}

/// The primary, as the primary says; else as the model does.
fn primary(resource: &Resource, reports: &Reports) -> Option<NodeId> {
    let claims = |report: &Report| report.resources.get(&resource.id).is_some_and(|status| status.role == Role::Primary);
    reports.iter().find(|(_, report)| claims(report)).map(|(&node, _)| node).or_else(|| resource.known_primary())
}

fn replica(
    model: &Cluster,
    resource: &Resource,
    id: NodeId,
    node: Name,
    assignment: &cluster::Assignment,
    report: Option<&Report>,
) -> api::ReplicaStatus {
    let status = report.and_then(|report| report.resources.get(&resource.id));
    let diskless = assignment.is_diskless();
    let pending = if assignment.leaving {
        Some(if assignment.successor.is_some() { Pending::Deploy } else { Pending::Remove })
    } else {
        let made = diskless || (assignment.created && (report.is_none() || status.is_some()));
        (!made).then_some(Pending::Deploy)
    };
    let named = |id: &NodeId| model.nodes.get(id).map(|node| node.name.clone());
    let own = report.and_then(|report| report.failures.get(&resource.id).cloned());
    let pool = |report: &Report| {
        let mut used = assignment.places.pools(resource.volumes.keys(), true);
        used.find_map(|pool| report.pool_failures.get(pool).cloned())
    };
    let failure = own.or_else(|| report.filter(|_| !diskless).and_then(pool));
    api::ReplicaStatus {
        node,
        node_id: id,
        diskless,
        pending,
        failure,
        online: report.is_some(),
        role: status.map(|status| status.role),
        disk: status.map(|status| status.disk),
        clients: status.map_or(0, |status| status.clients),
        resync_paused: !diskless && resource.paused.holds(id),
        disconnected: resource.disconnected.contains(&id),
        suspended: status.map(|status| status.suspended.iter().map(|why| suspension(why, named)).collect()).unwrap_or_default(),
        peers: status.map(|status| status.peers.iter().filter_map(|peer| view(peer, named)).collect()).unwrap_or_default(),
    }
}

fn view(peer: &engine::PeerStatus, named: impl Fn(&NodeId) -> Option<Name>) -> Option<api::PeerView> {
    let connection = match peer.connection {
        engine::Connection::Connecting => api::Connection::Connecting,
        engine::Connection::Connected => api::Connection::Connected,
        engine::Connection::SplitBrain => api::Connection::SplitBrain,
        engine::Connection::Refused => api::Connection::Refused,
    };
    let resync = peer.resync.map(|r| api::Resync { source: r.source, total: r.total, done: r.done });
    let verify = peer.verify.map(verify);
    Some(api::PeerView { node: named(&peer.node)?, connection, disk: peer.disk, out_of_sync: peer.dirty, resync, verify })
}

fn verify(found: engine::VerifyStatus) -> api::Verify {
    api::Verify {
        state: match found.state {
            engine::VerifyState::Running => api::VerifyState::Running,
            engine::VerifyState::Done => api::VerifyState::Done,
            engine::VerifyState::Broken => api::VerifyState::Broken,
        },
        reign: found.reign,
        total: found.total,
        done: found.done,
        different: found.different,
        first: found.first,
        repair: found.repair,
        repaired: found.repaired,
        unread: found.unread,
    }
}

fn suspension(why: &engine::Suspension, named: impl Fn(&NodeId) -> Option<Name>) -> api::Suspension {
    match why {
        engine::Suspension::Waiting(node) => match named(node) {
            Some(node) => api::Suspension::Waiting { node },
            None => api::Suspension::Authority,
        },
        engine::Suspension::Authority => api::Suspension::Authority,
        engine::Suspension::Lease(milliseconds) => api::Suspension::Lease { milliseconds: *milliseconds },
        engine::Suspension::NoData(nodes) => api::Suspension::NoData { nodes: nodes.iter().filter_map(named).collect() },
        engine::Suspension::TakingOver => api::Suspension::TakingOver,
        engine::Suspension::Failing => api::Suspension::Failing,
        engine::Suspension::Snapshot => api::Suspension::Snapshot,
    }
}

fn pool(pool: &cluster::PoolReport) -> api::Pool {
    let fill = pool.fill.map(|fill| api::Fill { data: fill.data, metadata: fill.metadata });
    api::Pool { kind: pool.kind, location: pool.name.clone(), size: pool.total, free: pool.free, fill }
}

/// A node that takes longer is shown as offline: a listing is not worth more waiting.
const PATIENCE: Duration = Duration::from_secs(1);
/// No resource has it: asks a node for an answer and nothing else.
const NO_RESOURCE: ResourceId = ResourceId(0);
