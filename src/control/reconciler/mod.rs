//! Makes this node what the model says, again and again.
//!
//! Whenever the model changes, and from time to time, every resource whose storage or use on this node is not as it should be is
//! taken up by a task of its own, a few at a time; what fails is told in the status and tried again, later and later. Each step may
//! be interrupted anywhere and begun anew. Resources of the same *name* are handled by one task, the leftovers of the old one
//! first: their storage has the same names.
//!
//! What destroys or creates asks the cluster first ([`Consensus::read`](super::consensus::Consensus::read)): this node's own model
//! may be older than what it did before a restart.

mod announce;
mod step;
pub(in crate::control) mod storage;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::node::Node;
use crate::cluster::{Cluster, OptionSet, Resource};
use crate::runtime::{ReplicaStorage, ResourceSettings};
use crate::units::{Name, ReplicaId, ResourceId};

/// Runs until it is dropped.
pub async fn run(node: Arc<Node>) {
    let mut reconciler = Reconciler { node: node.clone(), names: HashMap::new(), tasks: JoinSet::new(), open: Arc::default() };
    let mut model = node.consensus.watch();
    let mut announcing = JoinSet::new();
    // Not there while it announces.
    let mut announcer = Some(announce::Announcer::default());
    let mut storage_changed = false;
    loop {
        model.mark_unchanged();
        if let Some(mut one) = announcer.take_if(|one| storage_changed || one.is_due(&node)) {
            one.due |= std::mem::take(&mut storage_changed);
            let node = node.clone();
            announcing.spawn(async move {
                one.announce(&node).await;
                one
            });
            // What comes next finds the pools open, and as they are; one that does not answer keeps nobody waiting for long.
            if let Ok(Some(done)) = timeout(ANNOUNCED, announcing.join_next()).await {
                announcer = Some(done.unwrap_or_default());
            }
        }
        reconciler.start_due(&node.model());
        let routine = Instant::now() + INTERVAL;
        let next = reconciler.next_due().map_or(routine, |due| due.min(routine));
        tokio::select! {
            changed = model.changed() => match changed {
                // Changes come in bursts, and a look at thousands of resources is not for nothing.
                Ok(()) => tokio::time::sleep(BURST).await,
                Err(_) => return,
            },
            () = node.board.kick.notified() => {}
            () = tokio::time::sleep_until(next) => {}
            Some(done) = announcing.join_next() => announcer = Some(done.unwrap_or_default()),
            Some(done) = reconciler.tasks.join_next() => match done {
                Ok(done) => {
                    storage_changed |= done.storage_changed;
                    reconciler.finish(done);
                }
                Err(error) => tracing::error!(%error, "a step of the reconciler failed"),
            },
        }
    }
}

struct Reconciler {
    node: Arc<Node>,
    names: HashMap<Name, Progress>,
    tasks: JoinSet<Done>,
    open: Arc<Opened>,
}

/// What this node's data plane has open, as far as this reconciler opened it.
#[derive(Default)]
pub(super) struct Opened(Mutex<BTreeMap<ResourceId, Open>>);

/// An open resource.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) name: Name,
    pub(super) settings: ResourceSettings,
    pub(super) replica: Option<ReplicaId>,
    pub(super) storage: Option<ReplicaStorage>,
}

impl Opened {
    fn get(&self, id: ResourceId) -> Option<Open> {
        self.lock().get(&id).cloned()
    }

    fn set(&self, id: ResourceId, open: Option<Open>) {
        match open {
            Some(open) => self.lock().insert(id, open),
            None => self.lock().remove(&id),
        };
    }

    fn of_name(&self, name: &Name) -> Vec<ResourceId> {
        self.lock().iter().filter(|(_, open)| open.name == *name).map(|(&id, _)| id).collect()
    }

    fn names(&self) -> BTreeSet<Name> {
        self.lock().values().map(|open| open.name.clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ResourceId, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a name is.
#[derive(Default)]
struct Progress {
    busy: bool,
    /// What was made so last; nothing has to be done as long as the model says the same.
    settled: Option<Wanted>,
    failures: u32,
    retry: Option<Instant>,
}

/// All of the model that matters to a name on this node. Cheap to compare: unchanged resources are the same allocation.
#[derive(Clone)]
struct Wanted {
    resource: Option<Arc<Resource>>,
    leftovers: usize,
    common: OptionSet,
    nodes: usize,
}

impl Wanted {
    fn of(model: &Cluster, node: &Node, name: &Name) -> Self {
        let resource = model.names.get(name).and_then(|id| model.resources.get(id)).cloned();
        let leftovers = model.leftovers_of(node.me).filter(|(_, leftover)| leftover.name == *name).count();
        Self { resource, leftovers, common: model.common.clone(), nodes: model.nodes.len() }
    }

    fn is(&self, other: &Self) -> bool {
        let same = match (&self.resource, &other.resource) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same && self.leftovers == other.leftovers && self.common == other.common && self.nodes == other.nodes
    }
}

/// How a step ended.
struct Done {
    name: Name,
    wanted: Wanted,
    failure: Option<String>,
    storage_changed: bool,
}

impl Reconciler {
    fn start_due(&mut self, model: &Arc<Cluster>) {
        if model.id.is_none() {
            return;
        }
        let me = self.node.me;
        let mut names: BTreeSet<Name> = self.open.names();
        names.extend(model.resources.values().filter(|r| r.assignments.contains_key(&me)).map(|r| r.name.clone()));
        names.extend(model.leftovers_of(me).map(|(_, leftover)| leftover.name.clone()));
        self.names.retain(|name, progress| progress.busy || names.contains(name));
        for name in names {
            if self.tasks.len() >= AT_ONCE {
                return;
            }
            let wanted = Wanted::of(model, &self.node, &name);
            let progress = self.names.entry(name.clone()).or_default();
            if progress.busy || !progress.is_due(&wanted) {
                continue;
            }
            progress.busy = true;
            let (node, open, model) = (self.node.clone(), self.open.clone(), model.clone());
            self.tasks.spawn(async move {
                let mut step = step::Step { node: &node, open: &open, model: &model, storage_changed: false };
                let failure = step.take(&name).await.err();
                let storage_changed = step.storage_changed;
                Done { name, wanted, failure, storage_changed }
            });
        }
    }

    fn finish(&mut self, done: Done) {
        let Some(progress) = self.names.get_mut(&done.name) else { return };
        progress.busy = false;
        let resource = done.wanted.resource.as_ref().map(|resource| resource.id);
        // What is left over of a removed resource has no place in the status: the log has to do.
        let news = resource.map_or(progress.failures == 0, |id| self.node.board.note(id, done.failure.clone()));
        if let Some(failure) = done.failure.as_ref().filter(|_| news) {
            tracing::warn!(resource = %done.name, %failure, "not as it should be; it is tried again");
        }
        // Kept also after a failure: when the model changes, there is reason to try at once.
        progress.settled = Some(done.wanted);
        match done.failure {
            Some(_) => {
                let wait = FIRST_RETRY * 2u32.saturating_pow(progress.failures);
                progress.failures = progress.failures.saturating_add(1);
                progress.retry = Some(Instant::now() + wait.min(LAST_RETRY));
            }
            None => (progress.failures, progress.retry) = (0, None),
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.names.values().filter(|progress| !progress.busy).filter_map(|progress| progress.retry).min()
    }
}

impl Progress {
    fn is_due(&self, wanted: &Wanted) -> bool {
        let changed = self.settled.as_ref().is_none_or(|settled| !settled.is(wanted));
        changed || self.retry.is_some_and(|retry| retry <= Instant::now())
    }
}

const BURST: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_secs(5);
/// How long the rest waits for a look at the pools.
const ANNOUNCED: Duration = Duration::from_secs(3);
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// LVM's commands are slow, and one after the other anyway.
const AT_ONCE: usize = 8;
