//! A node that is kept from talking to the others about a resource: refused where somebody would wait for what it has, or for what they have.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::node::{Node, PATIENCE};
use super::status::{self, Reports};
use crate::api::{ApiError, Code, Disconnect, Done};
use crate::cluster::{Cluster, Command, Resource};
use crate::engine::ResourceStatus;
use crate::units::{Authority, DiskState, NodeId, Role};

/// Disconnects a node from the others, as far as a resource goes.
pub async fn disconnect(node: &Arc<Node>, asked: Disconnect) -> Result<Done, ApiError> {
    let Disconnect { resource: name, node: at, force } = asked;
    let model = node.consensus.read(PATIENCE).await?;
    let resource = model.resource_named(&name)?;
    let id = model.node_named(&at)?.id;
    if !force {
        refuse_stranded(&model, resource, &status::gather(node, &model, Some(resource.id)).await, id)?;
    }
    let replica = resource.assignments.get(&id).is_some_and(|assignment| !assignment.is_diskless());
    let alone = model.options(resource).quorum == Authority::Off;
    node.consensus.propose(Command::Disconnect { resource: name.clone(), node: at.clone() }, PATIENCE).await?;
    let mut notes = Vec::new();
    if replica {
        notes.push(format!(
            "what is written elsewhere does not reach the replica on '{at}', nor what is written there the others, until `blkrep connect \
             {name} {at}`"
        ));
    }
    if replica && alone {
        notes.push(format!(
            "nodes decide alone about '{name}' (quorum=off): when it is written to on both sides, connecting them finds a split brain"
        ));
    }
    Ok(Done { notes })
}

/// Refuses to part those who use a resource from the primary that serves them, and a primary from all data that is up to date.
fn refuse_stranded(model: &Cluster, resource: &Resource, reports: &Reports, at: NodeId) -> Result<(), ApiError> {
    let name = &resource.name;
    let of = |node: &NodeId| reports.get(node).and_then(|report| report.resources.get(&resource.id));
    let nodes: BTreeSet<NodeId> = resource.assignments.keys().copied().collect();
    let Some(primary) = nodes.iter().find(|node| of(node).is_some_and(|status| status.role == Role::Primary)).copied() else {
        return Ok(());
    };
    let near = |node: &NodeId| *node == primary || *node != at && primary != at && !resource.are_apart(primary, *node);
    let used = |node: &NodeId| of(node).is_some_and(|status| status.clients > 0);
    if let Some(user) = nodes.iter().find(|node| used(node) && !near(node)) {
        let (user, primary) = (model.node_name(*user), model.node_name(primary));
        let message = format!("resource '{name}' is in use on node '{user}', by way of node '{primary}'");
        return Err(ApiError::new(Code::InUse, message).hint(format_args!(
            "end its use there first (`blkrep list-attachments`); --force has its clients wait until the two are connected again"
        )));
    }
    let whole = |status: &ResourceStatus| status.disk == DiskState::UpToDate && status.in_sync;
    if !nodes.iter().any(|node| near(node) && of(node).is_some_and(whole)) && nodes.iter().any(used) {
        let message = format!("node '{}' would be without any replica of '{name}' that is up to date", model.node_name(primary));
        return Err(ApiError::new(Code::NoData, message).hint(format_args!(
            "`blkrep status {name}` shows who has one; --force has its clients wait until they are connected again"
        )));
    }
    Ok(())
}
