//! The cluster's answers to the data plane's questions about records.

use std::sync::Arc;
use std::time::Duration;

use super::consensus::ProposeError;
use super::node::Node;
use crate::cluster::{Command, Refusal};
use crate::runtime::{Answer, Ticket};
use crate::units::{Record, RecordId, ResourceId};

/// Answers a proposal, on a task of its own.
pub fn propose(node: &Arc<Node>, resource: ResourceId, ticket: Ticket, expect: RecordId, record: Record) {
    let node = node.clone();
    tokio::spawn(async move {
        let proposed = node.consensus.propose(Command::ChangeRecord { resource, expect, record }, PATIENCE).await;
        let answer = match proposed {
            Ok(_) => Answer::Granted,
            Err(ProposeError::Refused(Refusal::RecordIs(record))) => Answer::Is(*record),
            Err(ProposeError::Refused(Refusal::NoSuchResource(_))) => Answer::Gone,
            Err(ProposeError::Refused(refusal)) => {
                tracing::error!(%resource, %refusal, "the data plane's proposal was refused");
                present(&node, resource).await
            }
            Err(ProposeError::NoLeader(_) | ProposeError::Unknown | ProposeError::Stopped(_)) => Answer::Unknown,
        };
        node.plane.answer(resource, ticket, answer);
    });
}

/// Answers a question for the record, on a task of its own.
pub fn read(node: &Arc<Node>, resource: ResourceId, ticket: Ticket) {
    let node = node.clone();
    tokio::spawn(async move {
        let answer = present(&node, resource).await;
        node.plane.answer(resource, ticket, answer);
    });
}

async fn present(node: &Node, resource: ResourceId) -> Answer {
    match node.consensus.read(PATIENCE).await {
        Ok(model) => match model.resources.get(&resource).and_then(|resource| resource.record.clone()) {
            Some(record) => Answer::Is(record),
            None => Answer::Gone,
        },
        Err(_) => Answer::Unknown,
    }
}

/// Longer than an election; the engine asks again when nothing is known.
const PATIENCE: Duration = Duration::from_secs(3);
