//! The role at an operator's word.

use std::sync::Arc;

use super::node::Node;
use super::operate::{self, Errand, Outcome, Wanted};
use super::status::{self, Reports};
use crate::api::{ApiError, Code, Demote, Done, Promote};
use crate::cluster::{Assignment, Cluster, Resource};
use crate::units::{NodeId, Role};

/// Makes a node primary; by force also with a replica that is not up to date.
pub async fn promote(node: &Arc<Node>, asked: Promote) -> Result<Done, ApiError> {
    let Promote { resource: name, node: at, force } = asked;
    let model = node.model();
    let resource = model.resource_named(&name)?;
    let at = at.as_ref().map_or(Ok(node.me), |at| model.node_named(at).map(|node| node.id))?;
    if resource.assignments.get(&at).is_none_or(Assignment::is_diskless) {
        let message = format!("node '{}' has no replica of '{name}'", model.node_name(at));
        return Err(ApiError::new(Code::NotFound, message)
            .hint(format_args!("`blkrep list-assignments -R {name}` shows where its replicas are")));
    }
    let reports = status::gather(node, &model, Some(resource.id)).await;
    if force {
        refuse_better(&model, resource, &reports, at)?;
    }
    let way_out = |error: ApiError| {
        match error.code {
        Code::NoData if !force => error.hint(format_args!(
            "start the nodes that are offline (`blkrep status {name}`); --force goes on with what it has when those that have more are lost for good"
        )),
        _ => error,
    }
    };
    let errand = Errand { resource: resource.id, wanted: Wanted::Promote { force } };
    let outcome = operate::send(node, at, errand).await.map_err(way_out)?;
    if let Outcome::Elsewhere(primary) = outcome {
        let message = format!("node '{}' is primary for '{name}'", model.node_name(primary));
        return Err(ApiError::new(Code::InUse, message).hint(format_args!("`blkrep demote {name}`, when nobody uses it")));
    }
    let at = model.node_name(at);
    Ok(Done { notes: vec![format!("node '{at}' is primary for '{name}', and stays so for as long as somebody uses it")] })
}

/// Has the primary give up the role.
pub async fn demote(node: &Arc<Node>, asked: Demote) -> Result<Done, ApiError> {
    let model = node.model();
    let resource = model.resource_named(&asked.resource)?;
    let reports = status::gather(node, &model, Some(resource.id)).await;
    let Some(primary) = primary(resource, &reports) else {
        return Err(ApiError::new(Code::NotFound, format_args!("no node that answers is primary for '{}'", resource.name))
            .hint(format_args!("`blkrep status {}` shows the roles", resource.name)));
    };
    operate::send(node, primary, Errand { resource: resource.id, wanted: Wanted::Demote }).await?;
    Ok(Done { notes: vec![format!("node '{}' gives the role up", model.node_name(primary))] })
}

fn primary(resource: &Resource, reports: &Reports) -> Option<NodeId> {
    let of = |node: &NodeId| reports.get(node).and_then(|report| report.resources.get(&resource.id));
    resource.assignments.keys().copied().find(|node| of(node).is_some_and(|status| status.role == Role::Primary))
}

/// Refuses force while a node answers whose replica is in sync by the newest record: the node that is promoted may not see it, but this one does.
fn refuse_better(model: &Cluster, resource: &Resource, reports: &Reports, at: NodeId) -> Result<(), ApiError> {
    let shown = status::resource(model, resource, reports);
    let whole = |one: &&crate::api::ReplicaStatus| {
        let up_to_date = one.disk == Some(crate::units::DiskState::UpToDate);
        one.online && one.node_id != at && (up_to_date || one.role == Some(Role::Primary))
    };
    let Some(better) = shown.replicas.iter().find(whole) else { return Ok(()) };
    let message = format!("node '{}' answers, and has newer data of '{}'", better.node, resource.name);
    Err(ApiError::new(Code::InUse, message).hint(format_args!(
        "use it there; if that is not to count any more, take it away first (`blkrep unassign-resource {} {}`)",
        resource.name, better.node
    )))
}
