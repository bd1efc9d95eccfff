//! Snapshots: asked for, listed, removed, restored, rolled back to.
//!
//! | file | what it is |
//! |---|---|
//! | [`take`] | one who takes a snapshot, and has the others take their parts |
//! | [`part`] | a node's part |
//! | [`keep`] | schedules, and what was broken off |
//! | [`made`] | what becomes of replicas that are to be made of one |
//! | [`watch`] | how long a node's part is waited for |
//! | [`reader`] | a snapshot read over NBD |

pub mod keep;
mod made;
pub mod part;
pub mod reader;
mod take;
mod watch;

use std::sync::Arc;

use self::made::placed;
use self::take::Wanted;
use super::local;
use super::node::{Node, PATIENCE};
use super::removal;
use super::unused::Part;
use crate::api::{
    self, AddSnapshot, ApiError, CloneResource, Code, Done, ListSnapshots, Placement, RemoveSnapshot, RestoreSnapshot,
    RollbackSnapshot, ScheduleSnapshots, SnapshotSchedule, TakenSnapshot, VolumeInfo,
};
use crate::cluster::{Cluster, Command, Purpose, Resource, Schedule, Snapshot, SnapshotState};
use crate::units::{Name, VolumeId};

/// Takes a snapshot.
pub async fn add(node: &Arc<Node>, asked: AddSnapshot) -> Result<TakenSnapshot, ApiError> {
    let AddSnapshot { resource, snapshot, nodes } = asked;
    let wanted = Wanted { resource, snapshot, nodes, purpose: Purpose::Asked, then: Vec::new() };
    let done = take::take(node, wanted).await?;
    let held = u64::try_from(done.held.as_millis()).unwrap_or(u64::MAX);
    Ok(TakenSnapshot { nodes: done.nodes, held, notes: done.notes })
}

/// The snapshots, by resource and age.
pub fn list(node: &Node, asked: &ListSnapshots) -> Result<Vec<api::Snapshot>, ApiError> {
    let model = node.model();
    if let Some(name) = &asked.resource {
        model.resource_named(name)?;
    }
    let wanted = |resource: &&Arc<Resource>| asked.resource.as_ref().is_none_or(|name| resource.name == *name);
    let mut all: Vec<api::Snapshot> = Vec::new();
    for resource in model.names.values().filter_map(|id| model.resources.get(id)).filter(wanted) {
        let of = resource.snapshots.iter().map(|(name, one)| shown(&model, resource, name, one));
        let mut of: Vec<api::Snapshot> = of.collect();
        of.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        all.extend(of);
    }
    Ok(all)
}

fn shown(model: &Cluster, resource: &Resource, name: &Name, snapshot: &Snapshot) -> api::Snapshot {
    let volume = |(&volume, &bytes): (&VolumeId, &u64)| VolumeInfo { volume, bytes, making: false, growth: None, minor: None };
    api::Snapshot {
        resource: resource.name.clone(),
        name: name.clone(),
        created: snapshot.created,
        state: match snapshot.state {
            SnapshotState::Taking => api::SnapshotState::Taking,
            SnapshotState::Ready => api::SnapshotState::Ok,
        },
        scheduled: snapshot.purpose == Purpose::Scheduled,
        nodes: snapshot.parts.keys().filter_map(|id| Some(model.nodes.get(id)?.name.clone())).collect(),
        volumes: snapshot.volumes.iter().map(volume).collect(),
    }
}

/// Removes a snapshot, or a node's part of it.
pub async fn remove(node: &Arc<Node>, asked: RemoveSnapshot) -> Result<Done, ApiError> {
    let RemoveSnapshot { resource, snapshot, node: at } = asked;
    node.consensus.propose(Command::RemoveSnapshot { resource, snapshot, node: at }, PATIENCE).await?;
    Ok(Done::default())
}

/// Makes a resource of a snapshot.
pub async fn restore(node: &Arc<Node>, asked: RestoreSnapshot) -> Result<Placement, ApiError> {
    let RestoreSnapshot { resource, source, snapshot, nodes } = asked;
    let (seed, now) = (local::random_seed(), local::now());
    let command = Command::RestoreSnapshot { resource: resource.clone(), source, snapshot, nodes, seed, now };
    node.consensus.propose(command, PATIENCE).await?;
    placed(node, &resource).await
}

/// Puts what a snapshot has in the place of its resource's data, if nobody uses that.
pub async fn roll_back(node: &Arc<Node>, asked: RollbackSnapshot) -> Result<Done, ApiError> {
    let RollbackSnapshot { resource, snapshot } = asked;
    node.consensus.read(PATIENCE).await?.resource_named(&resource)?.snapshot(&snapshot)?;
    let command = Command::RollBack { resource: resource.clone(), snapshot, seed: local::random_seed() };
    let mut done = removal::take(node, &resource, Part::default(), false, command).await?;
    let model = node.consensus.read(PATIENCE).await?;
    let anew = model.resource_named(&resource)?;
    let partless = anew.replicas().filter(|node| !anew.assignments[node].initially_in_sync);
    done.notes.extend(partless.map(|node| {
        let node = model.node_name(node);
        format!("node '{node}' has no part of the snapshot, and gets everything from the others")
    }));
    done.notes.extend(placed(node, &resource).await?.notes);
    Ok(done)
}

/// Makes a resource that has what another has at this moment. The snapshot that it is made of goes when the last replica is there.
pub async fn clone(node: &Arc<Node>, asked: CloneResource) -> Result<Placement, ApiError> {
    let CloneResource { source, resource, nodes } = asked;
    let model = node.consensus.read(PATIENCE).await?;
    if model.names.contains_key(&resource) {
        return Err(crate::cluster::Refusal::ResourceExists(resource.to_string()).into());
    }
    let now = local::now();
    let random = u32::from_le_bytes(local::random_bytes());
    let snapshot: Name = format!("clone-{random:08x}").parse().map_err(|error| ApiError::new(Code::Internal, error))?;
    let restore = Command::RestoreSnapshot {
        resource: resource.clone(),
        source: source.clone(),
        snapshot: snapshot.clone(),
        nodes: Vec::new(),
        seed: local::random_seed(),
        now,
    };
    let wanted = Wanted { resource: source, snapshot, nodes, purpose: Purpose::Copied, then: vec![restore] };
    let taken = take::take(node, wanted).await?;
    let mut placement = placed(node, &resource).await?;
    placement.notes.splice(0..0, taken.notes);
    Ok(placement)
}

/// Sets when snapshots of a resource are taken by themselves.
pub async fn schedule(node: &Arc<Node>, asked: ScheduleSnapshots) -> Result<Done, ApiError> {
    let ScheduleSnapshots { resource, every, keep } = asked;
    let schedule = match (every, keep) {
        (None, _) => None,
        (Some(every), keep) => Some(Schedule { every, keep: keep.unwrap_or(KEEP), since: local::now() }),
    };
    node.consensus.propose(Command::ScheduleSnapshots { resource, schedule }, PATIENCE).await?;
    Ok(Done::default())
}

/// The schedules.
pub fn schedules(node: &Node) -> Vec<SnapshotSchedule> {
    let (model, now) = (node.model(), local::now());
    let shown = |resource: &Arc<Resource>| {
        let Schedule { every, keep, since } = resource.schedule?;
        let last = keep::last(resource);
        let due = resource.schedule?.last_due(now).filter(|due| last.is_none_or(|last| last < *due));
        let next = due.unwrap_or_else(|| since + (now.saturating_sub(since) / every + 1) * every);
        Some(SnapshotSchedule { resource: resource.name.clone(), every, keep, last, next })
    };
    model.names.values().filter_map(|id| shown(model.resources.get(id)?)).collect()
}

fn strange() -> ApiError {
    ApiError::new(Code::Internal, "the cluster's answer is not of the kind that was asked for")
}

/// How many scheduled snapshots stay when nobody says.
const KEEP: u32 = 7;
