//! Taking a snapshot: noted in the model, writes held, every replica in sync copied, writes released, and noted again.
//!
//! A node that falls silent while it copies, or whose copy does not go on, is not waited for: the snapshot goes on without its part.
//!
//! What happens when whoever does this dies on the way: writes begin again when the hold's time is over, and the snapshot, which the model
//! knows as unfinished, comes to nothing ([`keep`](super::keep)).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::part::{Errand, Holding, Part, Taken, send};
use super::watch;
use crate::api::{ApiError, Code};
use crate::cluster::{Applied, Cluster, Command, Purpose, Resource, Snapshot, SnapshotId};
use crate::control::local;
use crate::control::node::{Node, PATIENCE};
use crate::control::status;
use crate::units::{Name, NodeId, ResourceId, Role};

/// A snapshot that is wanted.
pub(super) struct Wanted {
    pub(super) resource: Name,
    pub(super) snapshot: Name,
    pub(super) nodes: Vec<Name>,
    pub(super) purpose: Purpose,
    /// What the cluster is asked for together with it.
    pub(super) then: Vec<Command>,
}

/// A snapshot that was taken.
pub(super) struct Done {
    pub(super) nodes: Vec<Name>,
    pub(super) held: Duration,
    pub(super) notes: Vec<String>,
}

/// Takes a snapshot; to its end, also when whoever asked for it does not wait for it.
pub(super) async fn take(node: &Arc<Node>, wanted: Wanted) -> Result<Done, ApiError> {
    let node = node.clone();
    let task = tokio::spawn(async move { run(&node, wanted).await });
    task.await.map_err(|error| ApiError::new(Code::Internal, error))?
}

async fn run(node: &Arc<Node>, wanted: Wanted) -> Result<Done, ApiError> {
    let _lead = node.taking.lead();
    let Wanted { resource, snapshot, nodes, purpose, then } = wanted;
    let (taker, now) = (node.me, local::now());
    let begin = Command::AddSnapshot { resource: resource.clone(), snapshot: snapshot.clone(), nodes, purpose, taker, now };
    let Applied::Snapshot(id) = node.consensus.propose(begin, PATIENCE).await? else { return Err(super::strange()) };
    let model = node.consensus.read(PATIENCE).await?;
    let present = model.resource_named(&resource)?.clone();
    let begun = present.snapshots.get(&snapshot).filter(|begun| begun.id == id).ok_or_else(super::strange)?;
    let taken = match copy(node, &model, &present, &snapshot, begun).await {
        Ok(taken) => taken,
        Err(error) => {
            abandon(node, present.id, id).await;
            return Err(error);
        }
    };
    let nodes: BTreeSet<NodeId> = taken.parts.keys().copied().collect();
    let complete = Command::CompleteSnapshot { resource: present.id, snapshot: id, nodes: nodes.clone() };
    let commands = std::iter::once(complete).chain(then).collect();
    if let Err(error) = node.consensus.propose(Command::All(commands), PATIENCE).await {
        abandon(node, present.id, id).await;
        return Err(error.into());
    }
    let names = nodes.iter().filter_map(|id| Some(model.nodes.get(id)?.name.clone())).collect();
    Ok(Done { nodes: names, held: taken.held, notes: taken.notes })
}

async fn abandon(node: &Arc<Node>, resource: ResourceId, snapshot: SnapshotId) {
    if let Err(error) = node.consensus.propose(Command::AbandonSnapshot { resource, snapshot }, PATIENCE).await {
        tracing::debug!(%resource, %error, "a snapshot that came to nothing could not be taken out of the model yet");
    }
}

/// What was copied.
struct Copied {
    parts: BTreeMap<NodeId, Taken>,
    held: Duration,
    notes: Vec<String>,
}

async fn copy(
    node: &Arc<Node>,
    model: &Cluster,
    resource: &Arc<Resource>,
    name: &Name,
    snapshot: &Snapshot,
) -> Result<Copied, ApiError> {
    let hold = Hold::begin(node, model, resource, snapshot).await?;
    let began = Instant::now();
    let mut copying = JoinSet::new();
    let mut notes = Vec::new();
    for (&at, places) in &snapshot.parts {
        if !hold.in_sync.contains(&at) {
            notes.push(format!("node '{}' has no part of it: its replica is not in sync", model.node_name(at)));
            continue;
        }
        let part = Part {
            resource: resource.id,
            name: resource.name.clone(),
            snapshot: snapshot.id,
            stored: snapshot.stored(name),
            volumes: snapshot.volumes.clone(),
            places: places.clone(),
            reign: hold.reign,
        };
        let node = node.clone();
        copying.spawn(async move { (at, take_at(&node, at, part).await) });
    }
    let mut parts = BTreeMap::new();
    let mut failure = None;
    while let Some(copied) = copying.join_next().await {
        match copied {
            Ok((at, Ok(taken))) => drop(parts.insert(at, taken)),
            Ok((at, Err(error))) => {
                notes.push(format!("node '{}' has no part of it: {error}", model.node_name(at)));
                failure = Some(error);
            }
            Err(error) => failure = Some(ApiError::new(Code::Internal, error)),
        }
    }
    let whole = hold.release().await;
    if parts.is_empty() {
        let nobody = || ApiError::new(Code::NoData, format_args!("no replica of '{}' there is in sync", resource.name));
        return Err(failure.unwrap_or_else(nobody));
    }
    if !whole {
        let message = format!("writes to '{}' could not be held long enough: its primary changed, or is gone", resource.name);
        return Err(ApiError::new(Code::InUse, message).hint("try again"));
    }
    let held = began.elapsed();
    for (at, taken) in parts.iter().filter(|(_, taken)| taken.copied > 0) {
        notes.push(format!(
            "node '{}' has copied {} bytes, for its pool shares none between volumes; writes waited for it",
            model.node_name(*at),
            taken.copied
        ));
    }
    Ok(Copied { parts, held, notes })
}

/// Has a node take its part. It may take long, but only while it goes on: writes wait for it.
async fn take_at(node: &Arc<Node>, at: NodeId, part: Part) -> Result<Taken, ApiError> {
    let watch = Errand::Watch { name: part.name.clone(), stored: part.stored.clone() };
    let look = || {
        let (node, watch) = (node.clone(), watch.clone());
        async move { send(&node, at, watch, watch::LOOK * 2).await }
    };
    tokio::select! {
        taken = send::<Taken>(node, at, Errand::Take(part), COPY) => taken,
        error = watch::standstill(look) => Err(error),
    }
}

/// Writes that are held, until this is released; or dropped, and a lease has gone by.
struct Hold {
    node: Arc<Node>,
    resource: ResourceId,
    hold: u64,
    at: NodeId,
    reign: u64,
    in_sync: BTreeSet<NodeId>,
    _renewing: JoinSet<()>,
}

impl Hold {
    /// Has the primary hold writes, or makes a node primary for it.
    async fn begin(node: &Arc<Node>, model: &Cluster, resource: &Resource, snapshot: &Snapshot) -> Result<Self, ApiError> {
        let reports = status::gather(node, model, Some(resource.id)).await;
        let role = |at: &NodeId| reports.get(at).and_then(|report| report.resources.get(&resource.id));
        let mut places: Vec<NodeId> = resource.replicas().collect();
        // The primary, or else one that can be: of these, one that has a part, and this node first.
        places.sort_by_key(|at| {
            let status = role(at);
            let primary = status.is_some_and(|status| status.role == Role::Primary);
            let good = status.is_some_and(|status| status.in_sync);
            (!primary, !good, !snapshot.parts.contains_key(at), *at != node.me)
        });
        let hold = u64::from_le_bytes(local::random_bytes());
        let mut refusal = ApiError::new(Code::NoData, format_args!("no replica of '{}' answers", resource.name));
        let mut tried = BTreeSet::new();
        let mut next = places.first().copied();
        while let Some(at) = next {
            tried.insert(at);
            let errand = Errand::Hold { resource: resource.id, hold, lease: LEASE };
            let answer = send::<Holding>(node, at, errand, LEASE + MARGIN).await;
            let elsewhere = match answer {
                Ok(Holding::Held { reign, in_sync }) => {
                    let _renewing = renew(node, at, resource.id, hold);
                    let (node, resource) = (node.clone(), resource.id);
                    return Ok(Self { node, resource, hold, at, reign, in_sync, _renewing });
                }
                Ok(Holding::Elsewhere(primary)) => Some(primary),
                Err(error) => {
                    refusal = error;
                    None
                }
            };
            let untried = |at: &NodeId| !tried.contains(at);
            next = elsewhere.filter(untried).or_else(|| places.iter().copied().find(|at| untried(at)));
        }
        Err(refusal)
    }

    /// Lets writes begin again; whether they were held until now.
    async fn release(self) -> bool {
        let errand = Errand::Release { resource: self.resource, hold: self.hold };
        send(&self.node, self.at, errand, PATIENCE).await.unwrap_or(false)
    }
}

/// Keeps a hold going for as long as the answer lives.
fn renew(node: &Arc<Node>, at: NodeId, resource: ResourceId, hold: u64) -> JoinSet<()> {
    let node = node.clone();
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            tokio::time::sleep(LEASE / 4).await;
            // One that does not arrive is made up for by the next, or the release tells.
            let _unheard: Result<(), ApiError> = send(&node, at, Errand::Renew { resource, hold, lease: LEASE }, LEASE / 4).await;
        }
    });
    task
}

/// How long writes are held when nobody asks for more: long enough for a node to become primary first.
const LEASE: Duration = Duration::from_secs(10);
/// What an answer may take besides.
const MARGIN: Duration = Duration::from_secs(2);
/// How long the copy of a replica may take that goes on.
const COPY: Duration = Duration::from_secs(15 * 60);
