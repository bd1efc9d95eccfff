//! Verifies that begin by themselves.
//!
//! The leader of the cluster's control plane looks at the schedules. One that is due begins once, however many were missed, and the model is told,
//! so that the next leader does not begin it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::local;
use super::node::{Node, PATIENCE};
use super::operate;
use crate::api::{ApiError, Done, ScheduleVerify};
use crate::cluster::{Command, Resource, VerifySchedule};
use crate::units::ResourceId;

/// Sets when the replicas of a resource are compared by themselves.
pub async fn schedule(node: &Arc<Node>, asked: ScheduleVerify) -> Result<Done, ApiError> {
    let ScheduleVerify { resource, every, repair } = asked;
    let schedule = every.map(|every| VerifySchedule { every, repair, since: local::now(), last: None });
    node.consensus.propose(Command::ScheduleVerify { resource, schedule }, PATIENCE).await?;
    Ok(Done::default())
}

/// Runs until it is dropped.
pub async fn keep(node: Arc<Node>) {
    let mut waiting: BTreeMap<ResourceId, Instant> = BTreeMap::new();
    loop {
        sleep(INTERVAL).await;
        if node.consensus.leader() != Some(node.me) {
            continue;
        }
        waiting.retain(|_, until| *until > Instant::now());
        let (model, now) = (node.model(), local::now());
        // One replica alone has nothing to be compared with.
        let pair = |resource: &Resource| resource.replicas().count() > 1;
        let due = |resource: &&Arc<Resource>| pair(resource) && resource.verifies.is_some_and(|schedule| schedule.is_due(now));
        // One after the other: what begins a verify does not wait for its end.
        for resource in model.resources.values().filter(due) {
            if !waiting.contains_key(&resource.id) && begin(&node, resource).await.is_err() {
                waiting.insert(resource.id, Instant::now() + RETRY);
            }
        }
    }
}

/// Begins one and takes note of it.
async fn begin(node: &Arc<Node>, resource: &Resource) -> Result<(), ()> {
    let repair = resource.verifies.is_some_and(|schedule| schedule.repair);
    let at = operate::begin_verify(node, resource, repair).await.map_err(|error| {
        tracing::warn!(resource = %resource.name, %error, "a scheduled verify could not begin; it is tried again in {RETRY:?}");
    })?;
    tracing::info!(resource = %resource.name, node = %node.model().node_name(at), "a scheduled verify has begun");
    let command = Command::NoteVerify { resource: resource.id, now: local::now() };
    node.consensus.propose(command, PATIENCE).await.map(drop).map_err(|error| {
        tracing::warn!(resource = %resource.name, %error, "that a verify has begun could not be noted; it may begin again");
    })
}

/// How often schedules are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again. One that an operator has begun may well be under way.
const RETRY: Duration = Duration::from_secs(5 * 60);
