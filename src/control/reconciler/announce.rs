//! Tells the cluster of this node: that it is there, and how much room its pool has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{self, Command, FIRST_POOL, NodeKind, NodeState, PoolFill, PoolReport};
use crate::control::local;
use crate::control::node::{Node, PATIENCE};
use crate::units::Name;

/// When the node was announced last.
#[derive(Default)]
pub(super) struct Announcer {
    /// Storage was created or removed: the figures are news.
    pub(super) due: bool,
    last: Option<Instant>,
}

impl Announcer {
    /// Whether there is reason to look at the pools again.
    pub(super) fn is_due(&self, node: &Node) -> bool {
        let waited = self.last.is_none_or(|last| last.elapsed() >= INTERVAL);
        let impatient = is_joining(node.model().nodes.get(&node.me)) && self.last.is_none_or(|last| last.elapsed() >= RETRY);
        self.due || waited || impatient
    }

    /// Looks at the pools and tells the cluster what is news. A pool whose storage does not answer is waited for.
    pub(super) async fn announce(&mut self, node: &Arc<Node>) {
        let model = node.model();
        let known = model.nodes.get(&node.me);
        let joining = is_joining(known);
        self.last = Some(Instant::now());
        let mut reports = look(node, &wanted(node, known)).await;
        let same = known.is_some_and(|known| {
            let names = known.pools.keys().chain([&*FIRST_POOL]);
            names.into_iter().all(|name| !is_news(known.pool_report(name), reports.get(name), self.due))
        });
        if !joining && same {
            self.due = false;
            return;
        }
        let pool = reports.remove(&*FIRST_POOL);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let command = Command::Announce { node: node.me, version, pool, pools: reports };
        match node.consensus.propose(command, PATIENCE).await {
            Ok(_) => self.due = false,
            Err(error) => tracing::debug!(%error, "this node could not be announced"),
        }
    }
}

/// A node that has just joined does not find itself in its empty model; the cluster knows it.
fn is_joining(known: Option<&cluster::Node>) -> bool {
    known.is_none_or(|known| known.state == NodeState::Joining || known.version != env!("CARGO_PKG_VERSION"))
}

/// The pools that a node has, and what they are: the one of its own settings, and those that were added to it.
fn wanted(node: &Node, known: Option<&cluster::Node>) -> BTreeMap<Name, Option<String>> {
    if node.config.kind != NodeKind::Storage {
        return BTreeMap::new();
    }
    let added = known.into_iter().flat_map(|known| &known.pools).map(|(name, pool)| (name.clone(), Some(pool.spec.clone())));
    added.chain([(FIRST_POOL.clone(), node.config.pool.clone())]).collect()
}

/// The pools as they are; opens those where that failed before. All at once: one that does not answer keeps no other from being opened.
async fn look(node: &Arc<Node>, wanted: &BTreeMap<Name, Option<String>>) -> BTreeMap<Name, PoolReport> {
    let mut looks = JoinSet::new();
    for (name, spec) in wanted.clone() {
        let node = node.clone();
        looks.spawn_blocking(move || Some((name.clone(), look_at(&node, &name, spec.as_deref())?)));
    }
    let mut found = BTreeMap::new();
    while let Some(looked) = looks.join_next().await {
        found.extend(looked.ok().flatten());
    }
    found
}

fn look_at(node: &Arc<Node>, name: &Name, spec: Option<&str>) -> Option<PoolReport> {
    let report = open(node, name, spec).and_then(|pool| local::look(&*pool).map_err(|error| error.to_string()));
    let failure = match &report {
        Ok((_, trouble)) => trouble.clone(),
        Err(failure) => Some(failure.clone()),
    };
    if node.board.note_pool(name, failure.clone())
        && let Some(failure) = failure
    {
        tracing::warn!(pool = %name, %failure, "something is amiss with the pool");
    }
    Some(report.ok()?.0)
}

fn open(node: &Node, name: &Name, spec: Option<&str>) -> Result<Arc<dyn drbdpool::Pool>, String> {
    if let Some(pool) = node.pool(name) {
        return Ok(pool);
    }
    let spec = spec.ok_or("no pool is named in the node's settings")?;
    let spec = spec.parse().map_err(|error: drbdpool::PoolError| error.to_string())?;
    let pool: Arc<dyn drbdpool::Pool> = local::open_pool(&spec, node.cluster, node.me).map_err(|error| error.to_string())?.into();
    node.set_pool(name, Some(pool.clone()));
    // What waited for the pool need not wait any longer.
    node.board.kick.notify_one();
    Ok(pool)
}

/// Whether the cluster should hear of it. A file system's free space moves all the time; that alone is news only when it is much.
fn is_news(before: Option<&PoolReport>, now: Option<&PoolReport>, own_doing: bool) -> bool {
    match (before, now) {
        (Some(before), Some(now)) => {
            let threshold = if own_doing { 1 } else { (now.total / 100).max(64 << 20) };
            let same = PoolReport { free: now.free, fill: now.fill, ..before.clone() } == *now;
            let (filled, was) = (now.fill.map(levels), before.fill.map(levels));
            let moved = filled.zip(was).is_some_and(|(now, was)| now.0.abs_diff(was.0) >= 10 || now.1.abs_diff(was.1) >= 10);
            let times = |report: &PoolReport| Some(report.fill?.promises?.times);
            let other = filled.is_some() != was.is_some() || times(now) != times(before);
            !same || moved || other || before.free.abs_diff(now.free) >= threshold
        }
        (None, None) => false,
        _ => true,
    }
}

/// How full a thin pool is, in thousandths, of data and metadata.
fn levels(fill: PoolFill) -> (u16, u16) {
    (fill.data, fill.metadata.unwrap_or(0))
}

const INTERVAL: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(500);
