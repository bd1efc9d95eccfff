//! Volumes as block devices of this node, and of others that are asked to.

pub mod inside;
mod keep;
mod links;
mod mounts;
mod persistent;
mod tend;
pub mod uses;
pub mod visits;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

use super::local;
use super::net::Service;
use super::node::Node;
use crate::api::setup::Root;
use crate::api::{ApiError, Attach, Attachment, Code, Detach, Done, ListAttachments, Via};
use crate::attach::place::{Place, State};
use crate::attach::{filesystem, launch};
use crate::units::{Name, NodeId, Sharing, VolumeId};
use inside::Inside;
use links::Links;
use persistent::Persistent;
use uses::Uses;
use visits::Visits;

pub use keep::keep;
pub use mounts::{mount, unmount};

type Turn = Arc<tokio::sync::Mutex<()>>;

/// What a node knows of its attachments, beside what is written in their places.
#[derive(Debug)]
pub struct Book {
    /// How often clients have used the resources here.
    pub uses: Uses,
    /// The attachments that are in.
    inside: Inside,
    /// What is used here without a replica, for clients that came.
    visits: Visits,
    /// The kernel's devices that have their connections.
    links: Arc<Links>,
    /// Volumes that are just being mounted, which have a device that nobody has taken yet.
    mounting: Mutex<BTreeSet<(Name, VolumeId)>>,
    /// One change of a volume's attachment at a time.
    turns: Mutex<HashMap<(Name, VolumeId), Turn>>,
    /// Those that come back after a restart of the machine.
    persistent: Persistent,
}

impl Book {
    /// The book of the node in `root`.
    pub fn new(root: &Root) -> Self {
        let state = root.state();
        Self {
            uses: Uses::new(state.join("uses")),
            inside: Inside::default(),
            visits: Visits::new(state.join("visits")),
            links: Arc::default(),
            mounting: Mutex::default(),
            turns: Mutex::default(),
            persistent: Persistent::load(state.join("attachments.json")),
        }
    }

    /// Notes that a volume is being mounted, until the answer is dropped; `None` when somebody does already.
    fn mounting(&self, resource: &Name, volume: VolumeId) -> Option<Mounting<'_>> {
        let key = (resource.clone(), volume);
        let new = self.mounting.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        new.then_some(Mounting { book: self, key })
    }

    fn is_mounting(&self, resource: &Name, volume: VolumeId) -> bool {
        self.mounting.lock().unwrap_or_else(PoisonError::into_inner).contains(&(resource.clone(), volume))
    }

    async fn turn(&self, resource: &Name, volume: VolumeId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry((resource.clone(), volume)).or_default().clone()
        };
        turn.lock_owned().await
    }
}

/// A volume that is being mounted.
struct Mounting<'a> {
    book: &'a Book,
    key: (Name, VolumeId),
}

impl Drop for Mounting<'_> {
    fn drop(&mut self) {
        self.book.mounting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// What a node asks another to do.
#[derive(Serialize, Deserialize)]
pub enum Errand {
    /// Attach there.
    Attach(Attach),
    /// Detach there.
    Detach(Detach),
    /// Tell what is attached there.
    List,
}

/// Does another node's errand; the answer as JSON.
pub async fn run_errand(node: &Arc<Node>, request: &[u8]) -> Result<Vec<u8>, String> {
    let errand: Errand = serde_json::from_slice(request).map_err(|error| error.to_string())?;
    let answer = match errand {
        Errand::Attach(asked) => serde_json::to_vec(&attach_here(node, &asked, Role::Asked).await),
        Errand::Detach(asked) => serde_json::to_vec(&detach_here(node, &asked).await),
        Errand::List => serde_json::to_vec(&list_here(node)),
    };
    answer.map_err(|error| error.to_string())
}

/// Makes a block device, on the node that is named.
pub async fn attach(node: &Arc<Node>, mut asked: Attach) -> Result<Attachment, ApiError> {
    match elsewhere(node, asked.node.take())? {
        Some(there) => send(node, there, &Errand::Attach(asked), PATIENCE).await,
        None => attach_here(node, &asked, Role::Asked).await,
    }
}

/// Takes a block device away, on the node that is named.
pub async fn detach(node: &Arc<Node>, mut asked: Detach) -> Result<Done, ApiError> {
    match elsewhere(node, asked.node.take())? {
        Some(there) => send(node, there, &Errand::Detach(asked), PATIENCE).await,
        None => detach_here(node, &asked).await,
    }
}

/// The block devices of all nodes that answer.
pub async fn list(node: &Arc<Node>, asked: ListAttachments) -> Result<Vec<Attachment>, ApiError> {
    let model = node.model();
    if let Some(name) = &asked.node {
        model.node_named(name)?;
    }
    let mut all = list_here(node)?;
    let mut answers = JoinSet::new();
    let wanted = |name: &Name| asked.node.as_ref().is_none_or(|only| only == name);
    for peer in model.nodes.values().filter(|peer| peer.id != node.me && peer.certificate.is_some() && wanted(&peer.name)) {
        let (node, there) = (node.clone(), peer.id);
        answers.spawn(async move { send::<Vec<Attachment>>(&node, there, &Errand::List, LIST).await });
    }
    while let Some(answer) = answers.join_next().await {
        // One that is away tells nothing.
        if let Ok(Ok(theirs)) = answer {
            all.extend(theirs);
        }
    }
    all.retain(|one| asked.resource.as_ref().is_none_or(|name| one.resource == *name));
    all.retain(|one| asked.node.as_ref().is_none_or(|name| one.node == *name));
    all.sort_by(|a, b| (&a.resource, a.volume, &a.node).cmp(&(&b.resource, b.volume, &b.node)));
    Ok(all)
}

/// Another node's number; `None` for this node.
fn elsewhere(node: &Node, name: Option<Name>) -> Result<Option<NodeId>, ApiError> {
    let Some(name) = name else { return Ok(None) };
    let id = node.model().node_named(&name)?.id;
    Ok((id != node.me).then_some(id))
}

async fn send<T: serde::de::DeserializeOwned>(
    node: &Arc<Node>,
    to: NodeId,
    errand: &Errand,
    patience: Duration,
) -> Result<T, ApiError> {
    let model = node.model();
    let peer = model.node(to)?;
    let request = serde_json::to_vec(errand).map_err(|error| ApiError::new(Code::Internal, error))?;
    let answer = node.peers.ask(to, peer.control(), Service::Attachments, &request, patience).await.map_err(|error| {
        ApiError::new(Code::Unreachable, format_args!("node '{}' cannot be asked: {error}", peer.name))
            .hint("`blkrep list-nodes` shows which nodes are online")
    })?;
    let answer: Result<T, ApiError> = serde_json::from_slice(&answer).map_err(|error| ApiError::new(Code::Internal, error))?;
    answer
}

/// Why something is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It was asked for.
    Asked,
    /// A mount needs it, and takes it away again.
    ForMount,
}

async fn attach_here(node: &Arc<Node>, asked: &Attach, role: Role) -> Result<Attachment, ApiError> {
    let volume = asked.volume.unwrap_or(VolumeId(0));
    let _turn = node.attachments.turn(&asked.resource, volume).await;
    let id = find(node, &asked.resource, volume).await?;
    let place = Place::of(&node.root, &asked.resource, volume);
    if place.is_alive()
        && let Ok(state) = place.state()
    {
        return again(node, asked, role, &place, state);
    }
    let via = way(node, asked).await?;
    let token = format!("{:032x}", u128::from_le_bytes(local::random_bytes()));
    let state = State {
        resource: asked.resource.clone(),
        id,
        volume,
        read_only: asked.read_only,
        exclusive: asked.exclusive,
        for_mount: role == Role::ForMount,
        via,
        sockets: asked.sockets.unwrap_or(1),
        filled: 0,
        resizable: false,
        token,
        pid: 0,
        device: PathBuf::new(),
    };
    node.attachments.links.expect(&state.backend());
    let started = launch::start(&node.root, &state, HELPER_PATIENCE).await;
    let device = started.inspect_err(|_| node.attachments.links.lost(&state.backend()))?;
    if asked.persistent {
        let persistent = Attach { volume: Some(volume), node: None, ..asked.clone() };
        node.attachments.persistent.set(&asked.resource, volume, Some(persistent))?;
    }
    tracing::info!(resource = %asked.resource, %volume, device = %device.display(), "attached");
    Ok(tell(node, &State { device, ..state }))
}

/// What is to make the device: what was asked for, or else the kernel where it can.
async fn way(node: &Arc<Node>, asked: &Attach) -> Result<Via, ApiError> {
    let bad = |why: String| Err(ApiError::new(Code::BadRequest, why));
    match (asked.via, asked.sockets) {
        (Some(Via::Fuse), Some(_)) => return bad("only the kernel's NBD client has several sockets".to_owned()),
        (_, Some(count)) if !(1..=MAX_SOCKETS).contains(&count) => {
            return bad(format!("{count} sockets are too few or too many: there may be 1 to {MAX_SOCKETS}"));
        }
        (Some(Via::Fuse), None) => return Ok(Via::Fuse),
        _ => {}
    }
    let links = node.attachments.links.clone();
    let found = tokio::task::spawn_blocking(move || links.listen()).await.map_err(std::io::Error::other).flatten();
    let why = match found {
        Ok(true) => return Ok(Via::Nbd),
        Ok(false) => "this kernel, or this network namespace, has none".to_owned(),
        Err(error) => error.to_string(),
    };
    if asked.via.is_none() && asked.sockets.is_none() {
        return Ok(Via::Fuse);
    }
    Err(ApiError::new(Code::BadRequest, format_args!("the kernel's NBD client cannot be used: {why}"))
        .hint("`modprobe nbd` loads it, on Linux 5.14 or later; --via fuse does without"))
}

/// What is attached already is good enough, or in the way.
fn again(node: &Arc<Node>, asked: &Attach, role: Role, place: &Place, state: State) -> Result<Attachment, ApiError> {
    let in_use = |why: &str| {
        let message =
            format!("volume {}/{} is attached already as {}, {why}", state.resource, state.volume, state.device.display());
        ApiError::new(Code::InUse, message).hint("`blkrep detach` takes that away")
    };
    if role == Role::ForMount && state.sharing() == Sharing::Shared {
        let error = in_use("where other nodes may attach it and write, too, under the file system");
        return Err(error.hint(format_args!(
            "`blkrep detach {name}`, and mount it then; or `blkrep attach --exclusive {name}` before it is mounted",
            name = state.resource
        )));
    }
    if asked.persistent && state.for_mount {
        return Err(
            in_use("for a mount, and goes with it").hint("`blkrep umount`, then attach it, and mount what stays attached")
        );
    }
    if role == Role::Asked && (asked.exclusive || state.exclusive) {
        return Err(in_use("and one of the two wants it alone"));
    }
    if asked.read_only != state.read_only {
        return Err(in_use(if state.read_only { "read-only" } else { "for writing" }));
    }
    if place.is_fenced() {
        return Err(in_use("and was used on another node since"));
    }
    if asked.via.is_some_and(|via| via != state.via) || asked.sockets.is_some_and(|count| count != state.sockets) {
        return Err(in_use("in another way"));
    }
    if asked.persistent {
        let persistent = Attach { volume: Some(state.volume), node: None, ..asked.clone() };
        node.attachments.persistent.set(&state.resource, state.volume, Some(persistent))?;
    }
    Ok(tell(node, &state))
}

async fn detach_here(node: &Arc<Node>, asked: &Detach) -> Result<Done, ApiError> {
    let volume = asked.volume.unwrap_or(VolumeId(0));
    let _turn = node.attachments.turn(&asked.resource, volume).await;
    let place = Place::of(&node.root, &asked.resource, volume);
    let was_persistent = node.attachments.persistent.has(&asked.resource, volume);
    if !place.directory().exists() && !was_persistent {
        return Err(ApiError::new(
            Code::NotFound,
            format_args!("volume {}/{volume} is not attached on this node", asked.resource),
        )
        .hint("`blkrep list-attachments` shows what is"));
    }
    launch::stop(&place).await?;
    node.attachments.persistent.set(&asked.resource, volume, None)?;
    tracing::info!(resource = %asked.resource, %volume, "detached");
    Ok(Done::default())
}

fn list_here(node: &Arc<Node>) -> Result<Vec<Attachment>, ApiError> {
    let living = launch::living(&node.root).map_err(|error| super::config::unusable(&node.root.run(), &error))?;
    Ok(living.iter().map(|(_, state)| tell(node, state)).collect())
}

fn tell(node: &Node, state: &State) -> Attachment {
    Attachment {
        node: node.config.name.clone(),
        resource: state.resource.clone(),
        volume: state.volume,
        device: state.device.clone(),
        via: state.via,
        read_only: state.read_only,
        exclusive: state.exclusive,
        persistent: node.attachments.persistent.has(&state.resource, state.volume),
        mounts: filesystem::mounts_of(&state.device).unwrap_or_default(),
    }
}

/// The resource's id, when it has the volume; what this node has not heard of it asks the cluster for.
async fn find(node: &Node, resource: &Name, volume: VolumeId) -> Result<crate::units::ResourceId, ApiError> {
    let look = |model: &crate::cluster::Cluster| -> Result<_, ApiError> {
        let found = model.resource_named(resource)?;
        let present = found.volumes.contains_key(&volume);
        present.then_some(found.id).ok_or_else(|| {
            ApiError::new(Code::NotFound, format_args!("resource '{resource}' has no volume {volume}"))
                .hint("`blkrep list-volumes` shows which there are")
        })
    };
    match look(&node.model()) {
        Ok(id) => Ok(id),
        Err(refusal) => match node.consensus.read(super::node::PATIENCE).await {
            Ok(model) => look(&model),
            Err(_) => Err(refusal),
        },
    }
}

/// How long a device's users wait for a daemon that is away before they get errors.
const HELPER_PATIENCE: Duration = Duration::from_secs(300);
/// The most sockets that a device may have.
const MAX_SOCKETS: u32 = 16;
/// How long another node may take to attach.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long another node may take to tell.
const LIST: Duration = Duration::from_secs(2);
