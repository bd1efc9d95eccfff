//! Taking away: from a resource, from a node, a node itself.

use std::sync::Arc;

use super::consensus::ProposeError;
use super::local;
use super::node::{Node, PATIENCE};
use super::status::{self, Reports};
use super::unused::{Part, Unused};
use crate::api::{ApiError, Done, RemoveNode, UnassignResource};
use crate::cluster::{Cluster, Command, Refusal, Resource};
use crate::units::{Authority, DiskState, Name, NodeId};

/// Has the cluster take a command that takes something away from a resource, the part that is told; unless forced, only
/// when nobody uses that.
pub async fn take(node: &Arc<Node>, name: &Name, part: Part, force: bool, command: Command) -> Result<Done, ApiError> {
    let mut attempts = 0;
    loop {
        let model = node.consensus.read(PATIENCE).await?;
        let resource = model.resource_named(name)?;
        if force {
            let reports = status::gather(node, &model, Some(resource.id)).await;
            let concerned = resource.assignments.keys().copied().filter(|id| part.at.is_none_or(|at| at == *id));
            let away = concerned.filter(|id| !reports.contains_key(id));
            node.consensus.propose(command, PATIENCE).await?;
            return Ok(told(&model, away));
        }
        refuse_snapshots(resource, part.at, &command)?;
        let unused = Unused::verify(node, &model, resource, part).await?;
        let away = unused.away.clone();
        attempts += 1;
        match Unused::settle(&[unused], node, command.clone()).await {
            Ok(()) => return Ok(told(&model, away.into_iter())),
            // One that is gone by now is told by its name in the next round.
            Err(ProposeError::Refused(Refusal::Overtaken(_) | Refusal::NoSuchResource(_))) if attempts < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes a resource from a node.
pub async fn unassign(node: &Arc<Node>, asked: UnassignResource) -> Result<Done, ApiError> {
    let UnassignResource { resource, node: from, force } = asked;
    let model = node.consensus.read(PATIENCE).await?;
    let at = model.node_named(&from)?.id;
    if !force {
        let present = model.resource_named(&resource)?;
        let reports = status::gather(node, &model, Some(present.id)).await;
        refuse_last(&model, &reports, present, at)?;
    }
    let command = Command::Unassign { resource: resource.clone(), node: from, force, seed: local::random_seed() };
    take(node, &resource, Part { at: Some(at), volume: None }, force, command).await
}

/// Takes a node out of the cluster.
pub async fn remove_node(node: &Arc<Node>, asked: RemoveNode) -> Result<Done, ApiError> {
    let RemoveNode { node: name, force } = asked;
    let model = node.consensus.read(PATIENCE).await?;
    let (at, seed) = (model.node_named(&name)?.id, local::random_seed());
    let reports = status::gather(node, &model, None).await;
    let mut done = told(&model, [at].into_iter().filter(|id| !reports.contains_key(id)));
    if force {
        done.notes.push(format!("what '{name}' holds stays on it: `blkrep init --force` or `join --force` there forget it"));
        node.consensus.propose(Command::RemoveNode { name, force, only: None, seed }, PATIENCE).await?;
        return Ok(done);
    }
    let held: Vec<&Arc<Resource>> = model.resources.values().filter(|held| held.assignments.contains_key(&at)).collect();
    held.iter().try_for_each(|resource| refuse_last(&model, &reports, resource, at))?;
    let mut unused = Vec::new();
    for resource in &held {
        match Unused::verify(node, &model, resource, Part { at: Some(at), volume: None }).await {
            Ok(one) => unused.push(one),
            Err(refusal) => {
                Unused::release_all(&unused, node).await;
                return Err(refusal);
            }
        }
    }
    let only = Some(held.iter().map(|resource| resource.id).collect());
    Unused::settle(&unused, node, Command::RemoveNode { name, force, only, seed }).await?;
    Ok(done)
}

/// Refuses to take snapshots away together with their resource, or the only part of one with a replica.
fn refuse_snapshots(resource: &Resource, at: Option<NodeId>, command: &Command) -> Result<(), Refusal> {
    let gone = match (command, at) {
        (Command::RollBack { .. }, _) => 0,
        (_, None) => resource.snapshots.len(),
        (_, Some(at)) => resource.snapshots.values().filter(|one| one.parts.keys().all(|node| *node == at)).count(),
    };
    if gone > 0 { Err(Refusal::HasSnapshots(resource.name.to_string(), gone)) } else { Ok(()) }
}

/// Refuses to take away what may be the last up-to-date data. Where a majority decides the model knows; else the replicas do.
fn refuse_last(model: &Cluster, reports: &Reports, resource: &Resource, leaving: NodeId) -> Result<(), Refusal> {
    let holds = resource.assignments.get(&leaving).is_some_and(|a| a.replica.is_some() && a.created);
    if !holds || model.options(resource).quorum == Authority::Majority {
        return Ok(());
    }
    let good = |node: NodeId| {
        let status = reports.get(&node).and_then(|report| report.resources.get(&resource.id));
        status.is_some_and(|status| status.disk == DiskState::UpToDate)
    };
    if resource.replicas().any(|other| other != leaving && good(other)) {
        return Ok(());
    }
    Err(Refusal::LastUpToDate(resource.name.to_string(), model.node_name(leaving)))
}

/// What the one who removes something should know of nodes that are away.
fn told(model: &Cluster, away: impl Iterator<Item = NodeId>) -> Done {
    let tell = |id| format!("node '{}' is offline; its replicas are removed when it returns", model.node_name(id));
    Done { notes: away.map(tell).collect() }
}

/// How often a removal is decided anew when nodes keep coming to the resource meanwhile.
const ATTEMPTS: usize = 3;
