//! What an operator wants of a resource that is the primary's to do: the primary is looked for, or a node is made primary for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::net::Service;
use super::node::Node;
use super::status;
use crate::api::{ApiError, Code, Done, VerifyResource};
use crate::cluster::Resource;
use crate::runtime::{Operation, PlaneError};
use crate::units::{NodeId, ResourceId, Role};

/// What a node asks another, or itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Errand {
    pub(super) resource: ResourceId,
    pub(super) wanted: Wanted,
}

/// What it is to do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Wanted {
    Verify { repair: bool },
    StopVerify,
    DiscardMyData,
    Promote { force: bool },
    Demote,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// It has begun.
    Begun,
    /// That node is primary.
    Elsewhere(NodeId),
}

/// Begins to compare the replicas of a resource, or ends it.
pub async fn verify(node: &Arc<Node>, asked: VerifyResource) -> Result<Done, ApiError> {
    let VerifyResource { resource, repair, stop } = asked;
    if repair && stop {
        let message = "a verify that is to be stopped repairs nothing";
        return Err(ApiError::new(Code::BadRequest, message).hint("leave --repair or --stop out"));
    }
    let model = node.model();
    let resource = model.resource_named(&resource)?.clone();
    let wanted = if stop { Wanted::StopVerify } else { Wanted::Verify { repair } };
    let at = at_primary(node, &resource, wanted).await?;
    let name = model.node_name(at);
    let note = match wanted {
        Wanted::Verify { .. } => format!(
            "node '{name}' compares the other replicas with its own; `blkrep status {}` shows how far it is",
            resource.name
        ),
        _ => format!("node '{name}' compares no more"),
    };
    Ok(Done { notes: vec![note] })
}

/// Begins to compare the replicas of a resource. Answers which node does.
pub(super) async fn begin_verify(node: &Arc<Node>, resource: &Resource, repair: bool) -> Result<NodeId, ApiError> {
    at_primary(node, resource, Wanted::Verify { repair }).await
}

/// Has the primary do it; without one, the first node that can be primary. Answers which it was.
async fn at_primary(node: &Arc<Node>, resource: &Resource, wanted: Wanted) -> Result<NodeId, ApiError> {
    let model = node.model();
    let reports = status::gather(node, &model, Some(resource.id)).await;
    let mut places: Vec<NodeId> = resource.replicas().collect();
    places.sort_by_key(|at| {
        let status = reports.get(at).and_then(|report| report.resources.get(&resource.id));
        let primary = status.is_some_and(|status| status.role == Role::Primary);
        (!primary, !status.is_some_and(|status| status.in_sync), *at != node.me)
    });
    let mut refusal = ApiError::new(Code::NoData, format_args!("no replica of '{}' answers", resource.name))
        .hint("`blkrep list-nodes` shows which nodes are online, `blkrep deploy-resource` makes replicas");
    let mut tried = BTreeSet::new();
    let mut next = places.first().copied();
    while let Some(at) = next {
        tried.insert(at);
        let elsewhere = match send(node, at, Errand { resource: resource.id, wanted }).await {
            Ok(Outcome::Begun) => return Ok(at),
            Ok(Outcome::Elsewhere(primary)) => Some(primary),
            Err(error) if error.code == Code::InUse => return Err(error),
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

/// Has a node, this one or another, do an errand.
pub(super) async fn send(node: &Arc<Node>, to: NodeId, errand: Errand) -> Result<Outcome, ApiError> {
    let strange = |error: serde_json::Error| ApiError::new(Code::Internal, error);
    if to == node.me {
        return run(node, errand).await;
    }
    let model = node.model();
    let peer = model.node(to)?;
    let request = serde_json::to_vec(&errand).map_err(strange)?;
    let answer = node.peers.ask(to, peer.control(), Service::Operations, &request, PATIENCE).await.map_err(|error| {
        ApiError::new(Code::Unreachable, format_args!("node '{}' cannot be asked: {error}", peer.name))
            .hint("`blkrep list-nodes` shows which nodes are online")
    })?;
    serde_json::from_slice::<Result<Outcome, ApiError>>(&answer).map_err(strange)?
}

/// Does an errand of another node.
pub async fn run_errand(node: &Arc<Node>, request: &[u8]) -> Result<Vec<u8>, String> {
    let errand = serde_json::from_slice(request).map_err(|error| error.to_string())?;
    serde_json::to_vec(&run(node, errand).await).map_err(|error| error.to_string())
}

async fn run(node: &Arc<Node>, errand: Errand) -> Result<Outcome, ApiError> {
    let operation = match errand.wanted {
        Wanted::Verify { repair } => Operation::Verify { repair },
        Wanted::StopVerify => Operation::StopVerify,
        Wanted::DiscardMyData => Operation::DiscardMyData,
        Wanted::Promote { force } => Operation::Promote { force },
        Wanted::Demote => Operation::Demote,
    };
    match node.plane.operate(errand.resource, operation).await {
        Ok(()) => Ok(Outcome::Begun),
        Err(PlaneError::Busy(primary)) => Ok(Outcome::Elsewhere(primary)),
        Err(error) => Err(error.into()),
    }
}

/// An engine answers within ten seconds, whatever it waits for.
const PATIENCE: Duration = Duration::from_secs(12);
