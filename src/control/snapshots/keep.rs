//! Snapshots that are taken by themselves, and those that were broken off.
//!
//! The leader of the cluster's control plane looks at the schedules. One that is due is taken once, however many were missed. What a node had
//! not finished when it died is cleared away by itself when it is back, or by the leader after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::take::{self, Wanted};
use crate::cluster::{Cluster, Command, Purpose, Resource, Schedule, Snapshot, SnapshotState};
use crate::control::local;
use crate::control::node::{Node, PATIENCE};
use crate::units::Name;

/// Runs until it is dropped.
pub async fn keep(node: Arc<Node>) {
    let mut busy = BTreeSet::new();
    let mut waiting: BTreeMap<Name, Instant> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        sleep(INTERVAL).await;
        while let Some(Ok((name, failed))) = tasks.try_join_next() {
            busy.remove(&name);
            if failed {
                waiting.insert(name, Instant::now() + RETRY);
            }
        }
        clear(&node).await;
        if node.consensus.leader() != Some(node.me) {
            continue;
        }
        waiting.retain(|_, until| *until > Instant::now());
        let (model, now) = (node.model(), local::now());
        for resource in model.resources.values().filter(|resource| is_due(resource, now)) {
            if !waiting.contains_key(&resource.name) && busy.insert(resource.name.clone()) {
                let (node, name) = (node.clone(), resource.name.clone());
                tasks.spawn(async move {
                    let failed = take_one(&node, &name, now).await;
                    (name, failed)
                });
            }
        }
    }
}

/// Whether a schedule wants a snapshot that there is not.
fn is_due(resource: &Resource, now: u64) -> bool {
    let due = resource.schedule.and_then(|schedule| schedule.last_due(now));
    due.is_some_and(|due| last(resource).is_none_or(|last| last < due))
}

/// When the last one of a schedule was taken, in seconds since 1970.
pub(super) fn last(resource: &Resource) -> Option<u64> {
    scheduled(resource).map(|(_, one)| one.created).max()
}

fn scheduled(resource: &Resource) -> impl Iterator<Item = (&Name, &Snapshot)> {
    resource.snapshots.iter().filter(|(_, one)| one.purpose == Purpose::Scheduled)
}

/// Takes what is due, and removes what is too old; whether that failed.
async fn take_one(node: &Arc<Node>, name: &Name, now: u64) -> bool {
    let Some(snapshot) = name_of(now) else { return true };
    let wanted = Wanted { resource: name.clone(), snapshot, nodes: Vec::new(), purpose: Purpose::Scheduled, then: Vec::new() };
    if let Err(error) = take::take(node, wanted).await {
        tracing::warn!(resource = %name, %error, "a scheduled snapshot could not be taken; it is tried again");
        return true;
    }
    let Ok(model) = node.consensus.read(PATIENCE).await else { return false };
    for snapshot in surplus(&model, name) {
        let (resource, node_only) = (name.clone(), None);
        let command = Command::RemoveSnapshot { resource, snapshot: snapshot.clone(), node: node_only };
        if let Err(error) = node.consensus.propose(command, PATIENCE).await {
            tracing::info!(resource = %name, %snapshot, %error, "an old snapshot stays for now");
        }
    }
    false
}

/// What a schedule has taken and does not keep, oldest first.
fn surplus(model: &Cluster, name: &Name) -> Vec<Name> {
    let Ok(resource) = model.resource_named(name) else { return Vec::new() };
    let Some(Schedule { keep, .. }) = resource.schedule else { return Vec::new() };
    let ready = scheduled(resource).filter(|(_, one)| one.state == SnapshotState::Ready);
    let mut all: Vec<(u64, &Name)> = ready.map(|(name, one)| (one.created, name)).collect();
    all.sort_unstable();
    let count = all.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    all.into_iter().take(count).map(|(_, name)| name.clone()).collect()
}

/// What a scheduled snapshot is called: the moment, in universal time.
fn name_of(now: u64) -> Option<Name> {
    let moment = jiff::Timestamp::from_second(i64::try_from(now).ok()?).ok()?;
    moment.strftime("auto-%Y%m%d-%H%M%S").to_string().parse().ok()
}

/// Clears away what was broken off.
async fn clear(node: &Arc<Node>) {
    let seen = node.model();
    let late = local::now().saturating_sub(BROKEN_OFF);
    let leads = node.consensus.leader() == Some(node.me);
    let any = |model: &Cluster| {
        let mut open = if node.taking.leads() { Vec::new() } else { model.unfinished_by(node.me) };
        open.extend(if leads { model.unfinished_since(late) } else { Vec::new() });
        open
    };
    if any(&seen).is_empty() || node.taking.leads() {
        return;
    }
    // What this node begins from here on is not in the model that is asked for.
    let Ok(model) = node.consensus.read(PATIENCE).await else { return };
    for (resource, snapshot) in any(&model) {
        tracing::info!(%resource, "a snapshot that was broken off is cleared away");
        if let Err(error) = node.consensus.propose(Command::AbandonSnapshot { resource, snapshot }, PATIENCE).await {
            tracing::debug!(%resource, %error, "it is tried again");
        }
    }
}

/// How often schedules are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long after a failure a snapshot is tried for again.
const RETRY: Duration = Duration::from_secs(30);
/// After so many seconds whoever was taking a snapshot is not any more.
const BROKEN_OFF: u64 = 20 * 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SnapshotId;
    use crate::control::testing::model_with;
    use crate::units::{NodeId, ResourceId};

    fn resource(schedule: Schedule, taken: &[u64]) -> Resource {
        let mut resource = Resource::clone(&model_with(ResourceId(1), 0).resources[&ResourceId(1)]);
        resource.schedule = Some(schedule);
        for (id, &created) in (1..).zip(taken) {
            let (state, purpose) = (SnapshotState::Ready, Purpose::Scheduled);
            let (volumes, parts) = (BTreeMap::new(), BTreeMap::new());
            let one = Snapshot { id: SnapshotId(id), created, state, volumes, parts, purpose, taker: NodeId(0) };
            resource.snapshots.insert(name_of(created).unwrap(), one);
        }
        resource
    }

    #[test]
    fn what_was_missed_is_made_up_for_once() {
        let schedule = Schedule { every: 3600, keep: 2, since: 1000 };
        assert!(!is_due(&resource(schedule, &[]), 1000), "an hour has to go by first");
        assert!(!is_due(&resource(schedule, &[]), 4599));
        assert!(is_due(&resource(schedule, &[]), 4600));
        assert!(!is_due(&resource(schedule, &[4601]), 8199));
        let away = 1000 + 50 * 3600 + 10;
        assert!(is_due(&resource(schedule, &[4601]), away));
        assert!(!is_due(&resource(schedule, &[4601, away]), away + 5), "one, not forty-nine");
    }

    #[test]
    fn the_oldest_go() {
        let schedule = Schedule { every: 3600, keep: 2, since: 0 };
        let mut model = model_with(ResourceId(1), 0);
        model.resources.insert(ResourceId(1), Arc::new(resource(schedule, &[3600, 7200, 10800, 14400])));
        let gone: Vec<String> = surplus(&model, &"web".parse().unwrap()).iter().map(ToString::to_string).collect();
        assert_eq!(gone, ["auto-19700101-010000", "auto-19700101-020000"]);
    }
}
