//! A new replica in the place of one whose disk is lost: not before another one is known to have everything.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::local;
use super::node::{Node, PATIENCE};
use super::removal;
use super::status::{self, Reports};
use super::unused::Part;
use crate::api::{ApiError, Code, Done, ReplaceDisk};
use crate::cluster::{Assignment, Cluster, Command, Resource};
use crate::units::{Authority, DiskState, NodeId, RecordId};

/// Has the cluster put a new, empty replica in the place of one.
pub async fn replace_disk(node: &Arc<Node>, asked: ReplaceDisk) -> Result<Done, ApiError> {
    let ReplaceDisk { resource: name, node: at, pool, force } = asked;
    let until = Instant::now() + SETTLING;
    let (leaving, expect) = loop {
        let model = node.consensus.read(PATIENCE).await?;
        let (resource, leaving) = (model.resource_named(&name)?, model.node_named(&at)?.id);
        if resource.assignments.get(&leaving).is_none_or(Assignment::is_diskless) {
            // The model says what is amiss.
            break (leaving, None);
        }
        let reports = status::gather(node, &model, Some(resource.id)).await;
        match judge(&model, &reports, resource, leaving, force) {
            // The record may have changed between the two looks.
            Err(error) if error.code == Code::NoData && Instant::now() < until => sleep(RETRY).await,
            judged => break (leaving, judged?),
        }
    };
    let command = Command::ReplaceDisk { resource: name.clone(), node: at.clone(), pool, expect, seed: local::random_seed() };
    let mut done = removal::take(node, &name, Part { at: Some(leaving), volume: None }, force, command).await?;
    done.notes
        .push(format!("node '{at}' makes a new replica and gets a full resync; `blkrep status {name}` shows how far it is"));
    Ok(done)
}

/// Looks whether another replica says that it has everything, by the record that counts; answers that record where a majority decides, so
/// that the model can refuse when it is another one by then.
///
/// Where the replicas decide alone, each may have gone on without the other and know of no newer record than its own: then the one that
/// leaves has to be heard, too.
fn judge(
    model: &Cluster,
    reports: &Reports,
    resource: &Resource,
    leaving: NodeId,
    force: bool,
) -> Result<Option<RecordId>, ApiError> {
    let (name, at) = (&resource.name, model.node_name(leaving));
    if !reports.contains_key(&leaving) {
        let message = format!("node '{at}' does not answer: it cannot make another replica of '{name}' now");
        return Err(ApiError::new(Code::Unreachable, message).hint(format_args!(
            "try again when `blkrep list-nodes` shows it online, or give its replica up: `blkrep unassign-resource {name} {at}`"
        )));
    }
    let told = |node: NodeId| reports.get(&node).and_then(|report| report.resources.get(&resource.id));
    let agreed = resource.record.as_ref().filter(|record| record.authority == Authority::Majority).map(|record| record.id);
    let counts = match (agreed, told(leaving)) {
        (Some(agreed), _) => Some(agreed),
        (None, Some(status)) => status.record.as_ref().map(|record| record.id),
        (None, None) if force => None,
        (None, None) => {
            let message = format!("node '{at}' cannot say whether its replica of '{name}' has what the others lack");
            return Err(ApiError::new(Code::NoData, message)
                .hint("bring its disk back to find out; with --force what only it may have is given up"));
        }
    };
    let has_all = |node: NodeId| {
        told(node).is_some_and(|status| {
            let same = counts.is_none() || status.record.as_ref().map(|record| record.id) == counts;
            status.in_sync && status.disk == DiskState::UpToDate && same
        })
    };
    if resource.replicas().any(|other| other != leaving && has_all(other)) {
        return Ok(agreed);
    }
    let message = format!("no other replica of '{name}' that answers has everything that the one on node '{at}' has");
    Err(ApiError::new(Code::NoData, message).hint(format_args!(
        "wait for the others and their resync (`blkrep list-assignments -R {name}`); when it says so of a disk that is lost, what is left is on \
         the others: bring their nodes back"
    )))
}

/// How long a change of the record is waited for that is on its way to those who are asked.
const SETTLING: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(250);
