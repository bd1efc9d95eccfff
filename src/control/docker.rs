//! Docker volumes in the model: resources with a note of what Docker's users asked for. And the socket that Docker asks at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::daemon::serve_router;
use super::node::{Node, PATIENCE};
use super::unused::Part;
use super::{local, options, removal, status};
use crate::api::setup::RelayOptions;
use crate::api::state::ResourceState;
use crate::api::{
    AddDockerVolume, AddedVolume, ApiError, Code, DockerSettings, DockerVolume, ListDockerVolumes, Service, Spread,
};
use crate::cluster::{Cluster, Command, DeployCount, Placement, Resource};
use crate::docker::plugin::Plugin;
use crate::docker::relay::RelayPlaces;
use crate::units::{BLOCK, Name, VolumeId, human_up};

/// Serves Docker's questions at a socket until it is dropped; says why when it cannot.
pub async fn serve(path: PathBuf, node: Arc<Node>, service: Arc<dyn Service>) {
    let (name, defaults) = (node.config.name.clone(), node.config.docker_defaults.clone());
    let plugin = match Plugin::new(&node.root, name, service, defaults) {
        Ok(plugin) => Arc::new(plugin),
        Err(error) => return tracing::error!(%error, hint = error.hint, "there is no Docker plugin"),
    };
    let bound = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| super::nbd::bind_unix(&path));
    match bound {
        Ok(listener) => {
            let _gone = Gone(path);
            serve_router(listener, crate::docker::server::routes(plugin)).await;
        }
        Err(error) => tracing::warn!(path = %path.display(), %error, "there is no Docker plugin"),
    }
}

/// Serves Docker's questions in its managed plugin, by passing them on, until the process is ended.
pub async fn relay(options: RelayOptions) -> Result<(), ApiError> {
    let RelayOptions { listen, socket, node, volumes } = options;
    let bound = listen.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| super::nbd::bind_unix(&listen));
    let listener = bound.map_err(|error| super::config::unusable(&listen, &error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| ApiError::new(Code::Io, error))?;
    tokio::select! {
        () = serve_router(listener, crate::docker::relay::routes(RelayPlaces { socket, node, volumes })) => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Takes the socket away: Docker looks for plugins that are there.
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        // What is not there need not go.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Adds a Docker volume, and waits until it can be used. Volumes of a new group that are added on several nodes at one moment come to lie
/// together all the same: the first in the log keeps its place, and the others are put there.
pub async fn add(node: &Arc<Node>, asked: AddDockerVolume) -> Result<AddedVolume, ApiError> {
    let grouping = if asked.settings.group.is_some() { Some(GROUPING.lock().await) } else { None };
    let mut moves = 0;
    let bytes = loop {
        let bytes = propose(node, &asked).await?;
        let Some(group) = &asked.settings.group else { break bytes };
        let model = node.consensus.read(PATIENCE).await?;
        let mine = model.resource_named(&asked.name).map(|mine| places(&model, mine));
        if moves == MOVES || mine.is_ok_and(|mine| nodes_of(&model, group).is_none_or(|nodes| nodes == mine)) {
            break bytes;
        }
        moves += 1;
        // Nobody was told of it yet; whoever uses it all the same keeps it.
        let remove = Command::RemoveResource { resource: asked.name.clone(), force: true };
        match removal::take(node, &asked.name, Part::default(), false, remove).await {
            Ok(_) => {}
            Err(error) if error.code == Code::NotFound => {}
            Err(error) if error.code == Code::InUse => break bytes,
            Err(error) => return Err(error),
        }
    };
    drop(grouping);
    let nodes = settle(node, &asked.name).await?;
    Ok(AddedVolume { volume: VolumeId(0), bytes, nodes })
}

/// Puts a Docker volume into the model; its size.
async fn propose(node: &Arc<Node>, asked: &AddDockerVolume) -> Result<u64, ApiError> {
    let model = node.consensus.read(PATIENCE).await?;
    if let Ok(resource) = model.resource_named(&asked.name) {
        let (message, hint) = match settings(resource) {
            Some(_) => (format!("there is a volume '{}' already", asked.name), "`docker volume inspect` shows it"),
            None => (format!("there is a resource '{}', which is not Docker's", asked.name), "choose another name"),
        };
        return Err(ApiError::new(Code::AlreadyExists, message).hint(hint));
    }
    let bytes = asked.bytes.checked_next_multiple_of(BLOCK).ok_or_else(|| {
        ApiError::new(Code::BadRequest, format_args!("{} are more than a volume can have", human_up(asked.bytes)))
    })?;
    let placement = match asked.settings.group.as_ref().and_then(|group| nodes_of(&model, group)) {
        Some(nodes) => beside(nodes, &asked.spread)?,
        None => place(&model, asked.spread.clone()),
    };
    let note = serde_json::to_string(&asked.settings).map_err(|error| ApiError::new(Code::Internal, error))?;
    let resource = asked.name.clone();
    let create = Command::CreateResource {
        name: resource.clone(),
        options: options::changes(&asked.options, &[]),
        properties: BTreeMap::from([(NOTE.to_owned(), note)]),
        now: local::now(),
    };
    let volume = Command::AddVolume { resource: resource.clone(), volume: Some(VolumeId(0)), bytes, pool: asked.pool.clone() };
    let (avoid, keep) = (status::silent(node, &model).await, BTreeSet::new());
    let deploy = Command::Deploy { resource: resource.clone(), placement, avoid, keep, seed: local::random_seed(), pool: None };
    node.consensus.propose(Command::All(vec![create, volume, deploy]), PATIENCE).await?;
    Ok(bytes)
}

/// The Docker volumes.
pub async fn list(node: &Arc<Node>, asked: ListDockerVolumes) -> Result<Vec<DockerVolume>, ApiError> {
    let mut model = node.model();
    if let Some(name) = &asked.name
        && model.resource_named(name).is_err()
        && let Ok(newer) = node.consensus.read(PATIENCE).await
    {
        // Made on another node a moment ago.
        model = newer;
    }
    let only = asked.name.as_ref().map(|name| model.resource_named(name)).transpose()?;
    let reports = status::gather(node, &model, only.map(|resource| resource.id)).await;
    let tell = |resource: &Arc<Resource>| {
        let settings = settings(resource)?;
        Some(DockerVolume { resource: status::resource(&model, resource, &reports), created: resource.created, settings })
    };
    Ok(match only {
        Some(resource) => tell(resource).into_iter().collect(),
        None => model.resources.values().filter_map(tell).collect(),
    })
}

/// What Docker's user asked for; `None` of a resource that is not Docker's.
fn settings(resource: &Resource) -> Option<DockerSettings> {
    serde_json::from_str(resource.properties.get(NOTE)?).ok()
}

/// The nodes with replicas of the volumes of a group, in order: of the first in the log, should they differ by now. `None` when there is no
/// such volume.
fn nodes_of(model: &Cluster, group: &Name) -> Option<Vec<Name>> {
    let is_of = |resource: &&Arc<Resource>| settings(resource).is_some_and(|settings| settings.group.as_ref() == Some(group));
    let oldest = model.resources.values().filter(is_of).min_by_key(|resource| resource.id)?;
    let nodes = places(model, oldest);
    (!nodes.is_empty()).then_some(nodes)
}

/// The nodes with replicas of a resource, in order.
fn places(model: &Cluster, resource: &Resource) -> Vec<Name> {
    let mut nodes: Vec<Name> = resource.replicas().filter_map(|node| Some(model.nodes.get(&node)?.name.clone())).collect();
    nodes.sort();
    nodes
}

/// Places a volume beside the others of its group, which is refused where something else was asked for.
fn beside(nodes: Vec<Name>, spread: &Spread) -> Result<Placement, ApiError> {
    let fits = match spread {
        Spread::Usual => true,
        Spread::Count(count) => usize::try_from(*count) == Ok(nodes.len()),
        Spread::Nodes(asked) => asked.iter().collect::<BTreeSet<_>>() == nodes.iter().collect(),
    };
    if fits {
        return Ok(Placement::Nodes(nodes));
    }
    let there = nodes.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    Err(ApiError::new(Code::BadRequest, format_args!("volume option group: its volumes lie on {there}"))
        .hint("leave out nodes and replicas, or choose another group"))
}

fn place(model: &Cluster, spread: Spread) -> Placement {
    let count = |count: usize| Placement::Count(DeployCount::Total(count));
    match spread {
        Spread::Usual => count(model.nodes.values().filter(|node| node.takes_replicas()).count().clamp(1, 2)),
        Spread::Count(number) => count(usize::try_from(number).unwrap_or(usize::MAX)),
        Spread::Nodes(nodes) => Placement::Nodes(nodes),
    }
}

/// Waits until a new resource is well, or can at least be used and does not get better for a while; the nodes with replicas.
async fn settle(node: &Arc<Node>, name: &Name) -> Result<Vec<Name>, ApiError> {
    let began = Instant::now();
    loop {
        let model = node.model();
        if let Ok(resource) = model.resource_named(name) {
            let reports = status::gather(node, &model, Some(resource.id)).await;
            let now = status::resource(&model, resource, &reports);
            let good = match now.state().0 {
                ResourceState::Ok | ResourceState::Syncing => true,
                ResourceState::Degraded => began.elapsed() > LULL,
                _ => false,
            };
            let exported = resource.volumes.values().all(|volume| volume.bytes > 0);
            if good && exported {
                return Ok(now.replicas.into_iter().filter(|replica| !replica.diskless).map(|replica| replica.node).collect());
            }
            if began.elapsed() > SETTLE {
                let (state, detail) = now.state();
                let message = format!("volume '{name}' was added and is {state} still: {detail}");
                return Err(ApiError::new(Code::TimedOut, message).hint("`blkrep status` tells how far it is"));
            }
        } else if began.elapsed() > SETTLE {
            return Err(ApiError::new(Code::TimedOut, format_args!("volume '{name}' was added, and is not known here yet")));
        }
        sleep(LOOK).await;
    }
}

/// Held while a volume is added to a group: the next one has to see where it went.
static GROUPING: Mutex<()> = Mutex::const_new(());
/// How often a volume is put where its group has just begun on another node: the first in the log is that once.
const MOVES: u32 = 3;
/// The property with Docker's note.
const NOTE: &str = "docker";
const LOOK: Duration = Duration::from_millis(20);
/// How long a new volume that is degraded may take to become well before it is taken for that.
const LULL: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(60);
