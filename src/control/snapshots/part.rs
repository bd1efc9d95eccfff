//! A node's part in a snapshot: holding writes where it is primary, and copying its replica.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::{ApiError, Code};
use crate::cluster::{Cluster, Places, SnapshotId, SnapshotState};
use crate::control::net::Service;
use crate::control::node::Node;
use crate::control::reconciler::storage;
use crate::runtime::{HoldId, PlaneError};
use crate::units::{Name, NodeId, ResourceId, VolumeId};

/// What a node asks another, or itself, to do for a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are what an errand's words say")]
pub enum Errand {
    /// Let no write begin; answered by [`Holding`].
    Hold { resource: ResourceId, hold: u64, lease: Duration },
    /// Go on with that.
    Renew { resource: ResourceId, hold: u64, lease: Duration },
    /// Let them begin again; answered by whether they were held until now.
    Release { resource: ResourceId, hold: u64 },
    /// Take a part of a snapshot; answered by [`Taken`].
    Take(Part),
    /// Tell of that; answered by how often anything of it was done, or nothing when it is not under way.
    Watch { name: Name, stored: String },
}

/// How a hold is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are what the answer's words say")]
pub enum Holding {
    /// Writes are held, and these nodes have the same.
    Held { reign: u64, in_sync: BTreeSet<NodeId> },
    /// That node is primary.
    Elsewhere(NodeId),
}

/// A part of a snapshot that is to be taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The resource.
    pub resource: ResourceId,
    /// Its name.
    pub name: Name,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// What it is called in the pools.
    pub stored: String,
    /// Its volumes with their sizes in bytes.
    pub volumes: BTreeMap<VolumeId, u64>,
    /// Where they are.
    pub places: Places,
    /// The reign that holds writes.
    pub reign: u64,
}

/// A part that was taken.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Taken {
    /// So many bytes were copied, because the pool's volumes share nothing.
    pub copied: u64,
}

/// The parts that this node is taking: nothing of them is deleted meanwhile.
#[derive(Debug, Default)]
pub struct Taking {
    /// With how often anything of them was done.
    parts: Mutex<BTreeMap<(Name, String), Arc<AtomicU64>>>,
    /// How many snapshots this node has others take.
    leads: Mutex<usize>,
}

impl Taking {
    /// Whether a part is being taken.
    pub fn is_busy(&self, resource: &Name, stored: &str) -> bool {
        self.moves(resource, stored).is_some()
    }

    /// How often anything of a part was done that is being taken.
    fn moves(&self, resource: &Name, stored: &str) -> Option<u64> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(&(resource.clone(), stored.to_owned())).map(|moves| moves.load(Ordering::Relaxed))
    }

    /// Whether this node has others take snapshots.
    pub fn leads(&self) -> bool {
        *self.leads.lock().unwrap_or_else(PoisonError::into_inner) > 0
    }

    /// Notes that it does, until the answer is dropped.
    pub(super) fn lead(&self) -> Lead<'_> {
        *self.leads.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Lead(self)
    }
}

/// A snapshot that this node has others take.
pub(super) struct Lead<'a>(&'a Taking);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        *self.0.leads.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}

/// A part that is being taken, until this is dropped: by whoever does the copying, who goes on when nobody waits for it any more.
struct Busy {
    node: Arc<Node>,
    key: (Name, String),
    moves: Arc<AtomicU64>,
}

impl Busy {
    fn begin(node: &Arc<Node>, part: &Part) -> Self {
        let (key, moves) = ((part.name.clone(), part.stored.clone()), Arc::<AtomicU64>::default());
        node.taking.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), moves.clone());
        Self { node: node.clone(), key, moves }
    }

    fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.node.taking.parts.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Does another node's errand; the answer as JSON.
pub async fn run_errand(node: &Arc<Node>, request: &[u8]) -> Result<Vec<u8>, String> {
    let errand: Errand = serde_json::from_slice(request).map_err(|error| error.to_string())?;
    serde_json::to_vec(&run(node, errand).await).map_err(|error| error.to_string())
}

/// Has a node, this one or another, do an errand.
pub(super) async fn send<T: DeserializeOwned>(
    node: &Arc<Node>,
    to: NodeId,
    errand: Errand,
    patience: Duration,
) -> Result<T, ApiError> {
    let strange = |error: serde_json::Error| ApiError::new(Code::Internal, error);
    if to == node.me {
        return serde_json::from_value(run(node, errand).await?).map_err(strange);
    }
    let model = node.model();
    let peer = model.node(to)?;
    let request = serde_json::to_vec(&errand).map_err(strange)?;
    let answer = node.peers.ask(to, peer.control(), Service::Snapshots, &request, patience).await.map_err(|error| {
        ApiError::new(Code::Unreachable, format_args!("node '{}' cannot be asked: {error}", peer.name))
            .hint("`blkrep list-nodes` shows which nodes are online")
    })?;
    let answer: Result<serde_json::Value, ApiError> = serde_json::from_slice(&answer).map_err(strange)?;
    serde_json::from_value(answer?).map_err(strange)
}

async fn run(node: &Arc<Node>, errand: Errand) -> Result<serde_json::Value, ApiError> {
    let answer = match errand {
        Errand::Hold { resource, hold, lease } => serde_json::to_value(hold_here(node, resource, hold, lease).await?),
        Errand::Renew { resource, hold, lease } => {
            node.plane.renew_hold(resource, HoldId(hold), lease);
            serde_json::to_value(())
        }
        Errand::Release { resource, hold } => serde_json::to_value(node.plane.release_hold(resource, HoldId(hold)).await?),
        Errand::Take(part) => serde_json::to_value(take_here(node, part).await?),
        Errand::Watch { name, stored } => serde_json::to_value(node.taking.moves(&name, &stored)),
    };
    answer.map_err(|error| ApiError::new(Code::Internal, error))
}

async fn hold_here(node: &Arc<Node>, resource: ResourceId, hold: u64, lease: Duration) -> Result<Holding, ApiError> {
    match node.plane.hold(resource, HoldId(hold), lease).await {
        Ok(held) => Ok(Holding::Held { reign: held.reign, in_sync: held.in_sync }),
        Err(PlaneError::Busy(primary)) => Ok(Holding::Elsewhere(primary)),
        Err(error) => Err(error.into()),
    }
}

/// Copies this node's replica. Whoever asked has writes held; whether this replica has what the others have is looked at here, before and
/// after (rule H1).
async fn take_here(node: &Arc<Node>, part: Part) -> Result<Taken, ApiError> {
    let busy = Busy::begin(node, &part);
    // A question that comes late must not leave anything that nobody knows of.
    let model = node.consensus.read(ASK).await?;
    if !is_wanted(node.me, &model, &part) {
        return Err(ApiError::new(Code::NotFound, "the snapshot is not wanted any more"));
    }
    check(node, &part).await?;
    let asked = part.clone();
    let copying = move || {
        let Part { name, stored, volumes, places, .. } = &asked;
        // Whoever waited for it may have gone on without: what is left of a long copy is for nothing then.
        storage::snapshot(&busy.node, name, stored, volumes, places, &mut || {
            busy.moved();
            if is_wanted(busy.node.me, &busy.node.model(), &asked) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    };
    let copied = storage::blocking(copying).await.map_err(|why| ApiError::new(Code::Storage, why))?;
    check(node, &part).await?;
    Ok(Taken { copied })
}

/// Whether the cluster still wants a node's part of a snapshot.
fn is_wanted(me: NodeId, model: &Cluster, part: &Part) -> bool {
    let Ok(resource) = model.resource(part.resource) else { return false };
    let wanted = resource.snapshots.values().find(|one| one.id == part.snapshot && one.state == SnapshotState::Taking);
    wanted.is_some_and(|one| one.parts.contains_key(&me))
}

async fn check(node: &Arc<Node>, part: &Part) -> Result<(), ApiError> {
    let status = node.plane.look(part.resource).await?;
    if status.in_sync && status.record.map_or(0, |record| record.reign) == part.reign {
        return Ok(());
    }
    Err(ApiError::new(Code::NoData, "its replica is not in sync"))
}

/// How long the cluster may take to say that a snapshot is wanted.
const ASK: Duration = Duration::from_secs(5);
