//! Pools that come and go while the node runs. It is the node itself that is asked: nobody else can see its devices.

use std::sync::Arc;

use drbdpool::PoolSpec;

use super::consensus::ProposeError;
use super::local;
use super::node::{Node, PATIENCE};
use crate::api::{AddPool, ApiError, Code, Done, RemovePool};
use crate::cluster::{Command, NodeKind, NodePool};
use crate::units::Name;

/// Claims a pool for this node and has the cluster know it. It is nobody's again when the cluster refuses.
pub(super) async fn add(node: &Arc<Node>, asked: AddPool) -> Result<Done, ApiError> {
    if node.config.kind != NodeKind::Storage {
        let message = format!("node '{}' has no storage", node.config.name);
        return Err(ApiError::new(Code::BadRequest, message).hint("remove it and join it again without --no-storage"));
    }
    let model = node.consensus.read(PATIENCE).await?;
    if model.node(node.me)?.has_pool(&asked.name) {
        return Err(crate::cluster::Refusal::PoolExists(node.config.name.to_string(), asked.name.to_string()).into());
    }
    let spec = local::pool_spec(&asked.pool)?;
    let (opened, report) = {
        let (node, spec) = (node.clone(), spec.clone());
        let claim = move || {
            let pool = local::claim_pool(&spec, node.cluster, node.me, asked.oversubscription)?;
            let report = local::report(&*pool)?;
            Ok::<_, ApiError>((pool, report))
        };
        tokio::task::spawn_blocking(claim).await.map_err(|error| ApiError::new(Code::Internal, error))??
    };
    let name = asked.name.clone();
    let added = NodePool { spec: spec.to_string(), report: Some(report) };
    let mut commands = vec![Command::AddPool { node: node.me, name: name.clone(), pool: added }];
    if asked.default {
        commands.push(Command::SetDefaultPool { node: node.me, name: name.clone() });
    }
    if let Err(error) = node.consensus.propose(Command::All(commands), PATIENCE).await {
        // When nobody answered it may have been taken all the same: then the pool stays this node's, and the announcer opens it.
        if let ProposeError::Refused(_) = &error {
            let (cluster, me) = (node.cluster, node.me);
            let undo = move || local::release_pool(Some((spec, opened)), cluster, me);
            if tokio::task::spawn_blocking(undo).await.is_err() {
                tracing::warn!(pool = %name, "the pool keeps this node's mark");
            }
        }
        return Err(error.into());
    }
    node.set_pool(&name, Some(opened.into()));
    node.board.kick.notify_one();
    Ok(Done::default())
}

/// Takes an empty pool from this node. Its storage stays, and is nobody's.
pub(super) async fn remove(node: &Arc<Node>, asked: RemovePool) -> Result<Done, ApiError> {
    let model = node.consensus.read(PATIENCE).await?;
    let spec = model.node(node.me)?.pools.get(&asked.name).map(|pool| pool.spec.clone());
    node.consensus.propose(Command::RemovePool { node: node.me, name: asked.name.clone() }, PATIENCE).await?;
    node.board.note_pool(&asked.name, None);
    let (node, name) = (node.clone(), asked.name);
    let release = move || release(&node, &name, spec.as_deref());
    let notes = tokio::task::spawn_blocking(release).await.map_err(|error| ApiError::new(Code::Internal, error))?;
    Ok(Done { notes })
}

/// Takes the node's mark off a pool; what the operator should know when that cannot be done.
fn release(node: &Node, name: &Name, spec: Option<&str>) -> Vec<String> {
    node.set_pool(name, None);
    let Some(spec) = spec.and_then(|spec| spec.parse::<PoolSpec>().ok()) else { return Vec::new() };
    let identity = drbdpool::Identity::new(node.cluster.to_string(), node.me.to_string());
    match identity.and_then(|identity| drbdpool::release(&spec, &identity)) {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!("{spec} keeps this node's mark: {error}")],
    }
}
