//! The end of a split brain: the node whose data is discarded is told so.

use std::sync::Arc;

use super::node::Node;
use super::operate::{self, Errand, Wanted};
use crate::api::{ApiError, Code, DiscardMyData, Done};
use crate::cluster::Assignment;

/// Has a node discard what its replica has had to itself.
pub async fn discard_my_data(node: &Arc<Node>, asked: DiscardMyData) -> Result<Done, ApiError> {
    let model = node.model();
    let resource = model.resource_named(&asked.resource)?;
    let at = match &asked.node {
        Some(name) => model.node_named(name)?.id,
        None => node.me,
    };
    let name = model.node_name(at);
    if resource.assignments.get(&at).is_none_or(Assignment::is_diskless) {
        let message = format!("node '{name}' has no replica of '{}'", resource.name);
        return Err(ApiError::new(Code::NotFound, message)
            .hint(format_args!("`blkrep list-assignments -R {}` shows where its replicas are", resource.name)));
    }
    operate::send(node, at, Errand { resource: resource.id, wanted: Wanted::DiscardMyData }).await?;
    let note = format!(
        "node '{name}' discards what it has had of '{0}' to itself, and gets what the other side has; `blkrep status {0}` shows how far it is",
        resource.name
    );
    Ok(Done { notes: vec![note] })
}
