//! What becomes of replicas that are to be made of a snapshot: told in the answer, for each node has its own part, and may lack it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::{ApiError, Placement};
use crate::cluster::{Cluster, Resource};
use crate::control::node::{Node, PATIENCE};
use crate::control::status::{self, Reports};
use crate::units::{Name, NodeId};

/// Where a resource is, once its replicas that can be made are, with notes of the others; those that cannot are not waited for.
pub(super) async fn placed(node: &Arc<Node>, name: &Name) -> Result<Placement, ApiError> {
    let deadline = Instant::now() + MADE;
    let mut look = Instant::now() + FIRST;
    loop {
        let model = node.consensus.read(PATIENCE).await?;
        let resource = model.resource_named(name)?;
        let lacking: Vec<NodeId> = resource.replicas().filter(|node| !resource.assignments[node].created).collect();
        let now = Instant::now();
        if lacking.is_empty() || now >= look {
            let reports = if lacking.is_empty() { Reports::new() } else { status::gather(node, &model, Some(resource.id)).await };
            let hopeless = |node: &NodeId| reports.get(node).is_none_or(|report| report.failures.contains_key(&resource.id));
            if now >= deadline || lacking.iter().all(hopeless) {
                let notes = lacking.iter().map(|node| lack(&model, resource, *node, &reports)).collect();
                let nodes = resource.replicas().filter_map(|id| Some(model.nodes.get(&id)?.name.clone())).collect();
                return Ok(Placement { nodes, notes });
            }
            look = now + AGAIN;
        }
        sleep(LOOK).await;
    }
}

/// Why a replica is not there.
fn lack(model: &Cluster, resource: &Resource, node: NodeId, reports: &Reports) -> String {
    let name = model.node_name(node);
    match reports.get(&node).map(|report| report.failures.get(&resource.id)) {
        None => format!("node '{name}' is offline; its replica is made when it returns"),
        Some(Some(why)) => format!("node '{name}' cannot make its replica: {why}"),
        Some(None) => {
            format!("node '{name}' is making its replica still; `blkrep status {}` tells when it is there", resource.name)
        }
    }
}

/// How long replicas may take to be made before the answer does not wait for them any more.
const MADE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// When nodes are asked why theirs is not there yet, and how often.
const FIRST: Duration = Duration::from_millis(1500);
const AGAIN: Duration = Duration::from_secs(1);
