//! The operations of the API, on any node: reads from the model and the nodes' reports, changes as commands to the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use super::join::Doorkeeper;
use super::node::{Node, PATIENCE};
use super::status;
use super::unused::{Part, Unused};
use super::{
    attachments, connections, docker, local, operate, options, promote, removal, replace, snapshots, split_brain, verifies,
};
use crate::api::{
    AddDockerVolume, AddNode, AddPool, AddResource, AddSnapshot, AddVolume, AddedVolume, AdoptVolume, ApiError, AskStatus,
    AssignResource, Assignment, Attach, Attachment, CloneResource, ClusterStatus, Code, Connect, DefaultPool, Demote,
    DeployResource, Detach, DiscardMyData, Disconnect, DockerVolume, Done, FreeSpace, HowtoJoin, Invalidate, JoinTicket,
    ListAssignments, ListAttachments, ListDockerVolumes, ListFreeSpace, ListNodes, ListOptions, ListPools, ListResources,
    ListSchedules, ListSnapshots, ListVolumes, Mount, Mounted, NodePool, OptionValues, Options, Ping, Placement, Pong, Promise,
    Promote, Relative, RemoveNode, RemovePool, RemoveResource, RemoveSnapshot, RemoveVolume, ReplaceDisk, ResizeVolume,
    ResizedVolume, Resource, ResourceStatus, RestoreSnapshot, RollbackSnapshot, ScheduleSnapshots, ScheduleVerify, Service,
    SetOptions, Shutdown, Snapshot, SnapshotSchedule, SteerResync, TakenSnapshot, UnassignResource, UndeployResource, Unmount,
    VerifyResource, Volume, state,
};
use crate::cluster::{
    Applied, Cluster, Command, DeployCount, NodeState, Placement as Place, Resource as Modelled, largest_volume,
};
use crate::units::{Authority, BLOCK, Name, NodeId, human_up};

/// Answers the API's operations.
pub struct Operations {
    pub(super) node: Arc<Node>,
    doorkeeper: Arc<Doorkeeper>,
    stop: watch::Sender<bool>,
}

impl Operations {
    /// Operations of a running node; `stop` ends its daemon.
    pub fn new(node: Arc<Node>, doorkeeper: Arc<Doorkeeper>, stop: watch::Sender<bool>) -> Self {
        Self { node, doorkeeper, stop }
    }

    pub(super) async fn propose(&self, command: Command) -> Result<Applied, ApiError> {
        Ok(self.node.consensus.propose(command, PATIENCE).await?)
    }

    /// The model for a decision.
    pub(super) async fn agreed(&self) -> Result<Arc<Cluster>, ApiError> {
        Ok(self.node.consensus.read(PATIENCE).await?)
    }

    async fn statuses(&self, only: Option<&Name>) -> Result<Vec<ResourceStatus>, ApiError> {
        let model = self.node.model();
        let only = only.map(|name| model.resource_named(name)).transpose()?;
        let reports = status::gather(&self.node, &model, only.map(|resource| resource.id)).await;
        let tell = |resource: &Arc<Modelled>| status::resource(&model, resource, &reports);
        Ok(only.map_or_else(|| model.resources.values().map(tell).collect(), |resource| vec![tell(resource)]))
    }

    pub(super) fn placed(model: &Cluster, name: &Name) -> Vec<Name> {
        let replicas = model.resource_named(name).map(|resource| resource.replicas().collect::<Vec<_>>()).unwrap_or_default();
        replicas.iter().filter_map(|id| model.nodes.get(id)).map(|node| node.name.clone()).collect()
    }

    async fn add(&self, asked: AddVolume) -> Result<AddedVolume, ApiError> {
        let model = self.agreed().await?;
        let bytes = asked.bytes.checked_next_multiple_of(BLOCK).ok_or_else(|| {
            ApiError::new(Code::BadRequest, format_args!("{} are more than a volume can have", human_up(asked.bytes)))
        })?;
        refuse_unknown_pools(&model, asked.pool.iter().chain(&asked.metadata_pool))?;
        let mut commands = Vec::new();
        if model.resource_named(&asked.resource).is_err() {
            commands.push(Command::CreateResource {
                name: asked.resource.clone(),
                options: options::changes(&asked.options, &[]),
                properties: BTreeMap::new(),
                now: local::now(),
            });
        } else if asked.options != OptionValues::default() {
            let message = format!("resource '{}' exists: its options are not set by adding a volume", asked.resource);
            return Err(ApiError::new(Code::AlreadyExists, message).hint("`blkrep set-options --resource RES` sets them"));
        }
        commands.push(Command::AddVolume { resource: asked.resource.clone(), volume: asked.volume, bytes, pool: asked.pool });
        if let Some(pool) = asked.metadata_pool {
            commands.push(Command::SetMetadataPool { resource: asked.resource.clone(), pool: Some(pool) });
        }
        if let Some(count) = asked.deploy {
            let total = DeployCount::Total(usize::try_from(count).unwrap_or(usize::MAX));
            commands.push(self.deployment(&model, asked.resource.clone(), total, None).await);
        }
        let Applied::All(applied) = self.propose(Command::All(commands)).await? else { return Err(strange()) };
        let volume = applied.iter().find_map(|one| if let Applied::Volume(volume) = one { Some(*volume) } else { None });
        let model = self.agreed().await?;
        Ok(AddedVolume { volume: volume.ok_or_else(strange)?, bytes, nodes: Self::placed(&model, &asked.resource) })
    }

    /// The command for so many replicas, on nodes that answer if there are enough.
    pub(super) async fn deployment(&self, model: &Cluster, resource: Name, count: DeployCount, pool: Option<Name>) -> Command {
        let avoid = status::silent(&self.node, model).await;
        let (placement, keep) = (Place::Count(count), BTreeSet::new());
        Command::Deploy { resource, placement, avoid, keep, seed: local::random_seed(), pool }
    }

    async fn resize(&self, asked: ResizeVolume) -> Result<ResizedVolume, ApiError> {
        let ResizeVolume { resource, volume, bytes, by } = asked;
        let model = self.agreed().await?;
        let before =
            if by { model.resource_named(&resource)?.volumes.get(&volume).map_or(0, |present| present.target) } else { 0 };
        let bytes = before.checked_add(bytes).and_then(|bytes| bytes.checked_next_multiple_of(BLOCK)).ok_or_else(|| {
            ApiError::new(Code::BadRequest, format_args!("{} more are more than a volume can have", human_up(bytes)))
        })?;
        self.propose(Command::ResizeVolume { resource: resource.clone(), volume, bytes }).await?;
        let (model, silent) = (self.agreed().await?, status::silent(&self.node, &model).await);
        let away = |id: &NodeId| {
            let name = &model.nodes.get(id).filter(|_| silent.contains(id))?.name;
            Some(format!(
                "node '{name}' does not answer: the volume has its old size until it is back and its replica has grown, or is given up \
                 (`blkrep unassign-resource {resource} {name}`)"
            ))
        };
        let notes = model.resource_named(&resource)?.replicas().filter_map(|id| away(&id)).collect();
        Ok(ResizedVolume { bytes, notes })
    }

    async fn deploy(&self, asked: DeployResource) -> Result<Placement, ApiError> {
        let model = self.agreed().await?;
        let resource = model.resource_named(&asked.resource)?;
        refuse_unknown_pools(&model, &asked.pool)?;
        let (present, count) = (resource.replicas().count(), usize::try_from(asked.count).unwrap_or(usize::MAX));
        let (wanted, fewer) = match asked.relative {
            None => (DeployCount::Total(count), count < present),
            Some(Relative::More) => (DeployCount::More(count), false),
            Some(Relative::Fewer) => (DeployCount::Fewer(count), true),
        };
        let mut command = self.deployment(&model, asked.resource.clone(), wanted, asked.pool).await;
        if fewer {
            self.refuse_unwell(&model, resource).await?;
            let (held, used) = Unused::look(&self.node, &model, resource).await;
            if let Command::Deploy { keep, .. } = &mut command {
                *keep = used;
            }
            Unused::settle(&[held], &self.node, command).await?;
        } else {
            // What is more now may be fewer when it is taken: then there are others, and nobody was asked about those.
            let as_seen = Command::EndRound { resource: resource.id, round: resource.round };
            self.propose(Command::All(vec![as_seen, command])).await?;
        }
        let model = self.agreed().await?;
        if asked.with_clients {
            let resource = model.resource_named(&asked.resource)?;
            let others =
                model.nodes.values().filter(|n| n.state == NodeState::Member && !resource.assignments.contains_key(&n.id));
            for node in others {
                let (resource, node, seed) = (asked.resource.clone(), node.name.clone(), local::random_seed());
                self.propose(Command::Assign { resource, node, diskless: true, seed, pool: None }).await?;
            }
        }
        Ok(Placement { nodes: Self::placed(&model, &asked.resource), notes: Vec::new() })
    }

    /// Refuses to choose a replica to give up where the replicas alone know which is good, and they are not all.
    async fn refuse_unwell(&self, model: &Cluster, resource: &Arc<Modelled>) -> Result<(), ApiError> {
        if model.options(resource).quorum != Authority::Off {
            return Ok(());
        }
        let reports = status::gather(&self.node, model, Some(resource.id)).await;
        let (state, detail) = status::resource(model, resource, &reports).state();
        if state == state::ResourceState::Ok {
            return Ok(());
        }
        let message = format!("resource '{}' is {state} ({detail}): a replica less could be the wrong one", resource.name);
        Err(ApiError::new(Code::InUse, message).hint("wait until it is ok, or name the node: `blkrep unassign-resource`"))
    }

    async fn is_busy(&self) -> Result<usize, ApiError> {
        Ok(self.node.plane.clients().await?.values().sum())
    }
}

/// Refuses the name of a pool that no node has.
fn refuse_unknown_pools<'a>(model: &Cluster, names: impl IntoIterator<Item = &'a Name>) -> Result<(), ApiError> {
    let unknown = names.into_iter().find(|name| !model.nodes.values().any(|node| node.has_pool(name)));
    unknown.map_or(Ok(()), |name| {
        Err(ApiError::new(Code::NotFound, format_args!("no node has a pool '{name}'"))
            .hint("`blkrep list-pools` shows the pools; `blkrep add-pool NAME SPEC`, on a node, adds one"))
    })
}

fn strange() -> ApiError {
    ApiError::new(Code::Internal, "the cluster's answer is not of the kind that was asked for")
}

impl Service for Operations {
    fn ping(&self, _: Ping) -> Promise<'_, Pong> {
        let pong = Pong {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.config.name.clone(),
            pid: std::process::id(),
            nbd: self.node.config.nbd,
        };
        Box::pin(async { Ok(pong) })
    }

    fn status(&self, asked: AskStatus) -> Promise<'_, ClusterStatus> {
        Box::pin(async move {
            let model = self.node.model();
            let only = asked.resource.as_ref().map(|name| model.resource_named(name)).transpose()?;
            let reports = status::gather(&self.node, &model, only.map(|resource| resource.id)).await;
            Ok(status::cluster(&self.node, &model, &reports, only))
        })
    }

    fn shutdown(&self, asked: Shutdown) -> Promise<'_, Done> {
        Box::pin(async move {
            match self.is_busy().await? {
                clients if clients > 0 && !asked.force => {
                    Err(ApiError::new(Code::InUse, format_args!("{clients} client(s) are connected to this node"))
                        .hint("disconnect them first, or cut them off with --force"))
                }
                _ => {
                    self.stop.send_replace(true);
                    Ok(Done::default())
                }
            }
        })
    }

    fn list_nodes(&self, _: ListNodes) -> Promise<'_, Vec<crate::api::Node>> {
        Box::pin(async move {
            let model = self.node.model();
            let reports = status::gather(&self.node, &model, None).await;
            Ok(status::nodes(&model, &reports, self.node.consensus.leader()))
        })
    }

    fn add_node(&self, asked: AddNode) -> Promise<'_, JoinTicket> {
        Box::pin(self.doorkeeper.invite(asked))
    }

    fn howto_join(&self, asked: HowtoJoin) -> Promise<'_, JoinTicket> {
        Box::pin(self.doorkeeper.invite_again(asked))
    }

    fn remove_node(&self, asked: RemoveNode) -> Promise<'_, Done> {
        Box::pin(removal::remove_node(&self.node, asked))
    }

    fn list_pools(&self, asked: ListPools) -> Promise<'_, Vec<NodePool>> {
        Box::pin(async move {
            let model = self.node.model();
            if let Some(node) = &asked.node {
                model.node_named(node)?;
            }
            let reports = status::gather(&self.node, &model, None).await;
            let all = status::pools(&model, &reports).into_iter();
            Ok(all.filter(|pool| asked.node.as_ref().is_none_or(|node| pool.node == *node)).collect())
        })
    }

    fn add_pool(&self, asked: AddPool) -> Promise<'_, Done> {
        Box::pin(super::pools::add(&self.node, asked))
    }

    fn remove_pool(&self, asked: RemovePool) -> Promise<'_, Done> {
        Box::pin(super::pools::remove(&self.node, asked))
    }

    fn default_pool(&self, asked: DefaultPool) -> Promise<'_, Done> {
        Box::pin(async move {
            self.propose(Command::SetDefaultPool { node: self.node.me, name: asked.name }).await?;
            Ok(Done::default())
        })
    }

    fn list_free_space(&self, asked: ListFreeSpace) -> Promise<'_, FreeSpace> {
        Box::pin(async move {
            let model = self.node.model();
            let redundancy = usize::try_from(asked.redundancy).unwrap_or(usize::MAX);
            let largest = largest_volume(&model, redundancy).ok_or_else(|| {
                ApiError::new(Code::NoSpace, format_args!("there are not {redundancy} nodes with a storage pool"))
                    .hint("ask for another redundancy; `blkrep list-nodes` shows the nodes")
            })?;
            let total = model.nodes.values().flat_map(|node| node.pool_reports()).map(|(_, pool)| pool.total).sum();
            Ok(FreeSpace { largest, total })
        })
    }

    fn list_resources(&self, asked: ListResources) -> Promise<'_, Vec<Resource>> {
        Box::pin(
            async move { Ok(self.statuses(asked.resource.as_ref()).await?.iter().map(ResourceStatus::to_resource).collect()) },
        )
    }

    fn add_resource(&self, asked: AddResource) -> Promise<'_, Done> {
        Box::pin(async move {
            let options = options::changes(&asked.options, &[]);
            let (name, properties, now) = (asked.name, BTreeMap::new(), local::now());
            self.propose(Command::CreateResource { name, options, properties, now }).await?;
            Ok(Done::default())
        })
    }

    fn remove_resource(&self, asked: RemoveResource) -> Promise<'_, Done> {
        Box::pin(async move {
            // Nobody uses it, the nodes say: a primary that the record still names is one that has not stepped down yet.
            let command = Command::RemoveResource { resource: asked.resource.clone(), force: true };
            removal::take(&self.node, &asked.resource, Part::default(), asked.force, command).await
        })
    }

    fn deploy_resource(&self, asked: DeployResource) -> Promise<'_, Placement> {
        Box::pin(self.deploy(asked))
    }

    fn undeploy_resource(&self, asked: UndeployResource) -> Promise<'_, Done> {
        Box::pin(async move {
            let command = Command::Undeploy { resource: asked.resource.clone(), force: true };
            removal::take(&self.node, &asked.resource, Part::default(), asked.force, command).await
        })
    }

    fn list_volumes(&self, asked: ListVolumes) -> Promise<'_, Vec<Volume>> {
        Box::pin(async move {
            Ok(self.statuses(asked.resource.as_ref()).await?.iter().flat_map(ResourceStatus::to_volumes).collect())
        })
    }

    fn add_volume(&self, asked: AddVolume) -> Promise<'_, AddedVolume> {
        Box::pin(self.add(asked))
    }

    fn adopt_volume(&self, asked: AdoptVolume) -> Promise<'_, AddedVolume> {
        Box::pin(self.adopted(asked))
    }

    fn resize_volume(&self, asked: ResizeVolume) -> Promise<'_, ResizedVolume> {
        Box::pin(self.resize(asked))
    }

    fn remove_volume(&self, asked: RemoveVolume) -> Promise<'_, Done> {
        Box::pin(async move {
            let (resource, volume) = (asked.resource, asked.volume);
            let command = Command::RemoveVolume { resource: resource.clone(), volume, force: true };
            let part = Part { at: None, volume: Some(volume) };
            removal::take(&self.node, &resource, part, asked.force, command).await
        })
    }

    fn replace_disk(&self, asked: ReplaceDisk) -> Promise<'_, Done> {
        Box::pin(replace::replace_disk(&self.node, asked))
    }

    fn invalidate(&self, asked: Invalidate) -> Promise<'_, Done> {
        let Invalidate { resource, node } = asked;
        let node = node.unwrap_or_else(|| self.node.config.name.clone());
        Box::pin(replace::replace_disk(&self.node, ReplaceDisk { resource, node, pool: None, force: false }))
    }

    fn discard_my_data(&self, asked: DiscardMyData) -> Promise<'_, Done> {
        Box::pin(split_brain::discard_my_data(&self.node, asked))
    }

    fn steer_resync(&self, asked: SteerResync) -> Promise<'_, Done> {
        Box::pin(async move {
            let SteerResync { resource, node, pause } = asked;
            self.propose(Command::PauseResync { resource, node, pause }).await?;
            Ok(Done::default())
        })
    }

    fn promote(&self, asked: Promote) -> Promise<'_, Done> {
        Box::pin(promote::promote(&self.node, asked))
    }

    fn demote(&self, asked: Demote) -> Promise<'_, Done> {
        Box::pin(promote::demote(&self.node, asked))
    }

    fn disconnect(&self, asked: Disconnect) -> Promise<'_, Done> {
        Box::pin(connections::disconnect(&self.node, asked))
    }

    fn connect(&self, asked: Connect) -> Promise<'_, Done> {
        Box::pin(async move {
            let Connect { resource, node } = asked;
            self.propose(Command::Connect { resource, node }).await?;
            Ok(Done::default())
        })
    }

    fn schedule_verify(&self, asked: ScheduleVerify) -> Promise<'_, Done> {
        Box::pin(verifies::schedule(&self.node, asked))
    }

    fn verify_resource(&self, asked: VerifyResource) -> Promise<'_, Done> {
        Box::pin(operate::verify(&self.node, asked))
    }

    fn list_snapshots(&self, asked: ListSnapshots) -> Promise<'_, Vec<Snapshot>> {
        Box::pin(async move { snapshots::list(&self.node, &asked) })
    }

    fn add_snapshot(&self, asked: AddSnapshot) -> Promise<'_, TakenSnapshot> {
        Box::pin(snapshots::add(&self.node, asked))
    }

    fn remove_snapshot(&self, asked: RemoveSnapshot) -> Promise<'_, Done> {
        Box::pin(snapshots::remove(&self.node, asked))
    }

    fn restore_snapshot(&self, asked: RestoreSnapshot) -> Promise<'_, Placement> {
        Box::pin(snapshots::restore(&self.node, asked))
    }

    fn rollback_snapshot(&self, asked: RollbackSnapshot) -> Promise<'_, Done> {
        Box::pin(snapshots::roll_back(&self.node, asked))
    }

    fn clone_resource(&self, asked: CloneResource) -> Promise<'_, Placement> {
        Box::pin(snapshots::clone(&self.node, asked))
    }

    fn list_schedules(&self, _: ListSchedules) -> Promise<'_, Vec<SnapshotSchedule>> {
        Box::pin(async move { Ok(snapshots::schedules(&self.node)) })
    }

    fn schedule_snapshots(&self, asked: ScheduleSnapshots) -> Promise<'_, Done> {
        Box::pin(snapshots::schedule(&self.node, asked))
    }

    fn list_assignments(&self, asked: ListAssignments) -> Promise<'_, Vec<Assignment>> {
        Box::pin(async move {
            if let Some(node) = &asked.node {
                self.node.model().node_named(node)?;
            }
            let all = self.statuses(asked.resource.as_ref()).await?;
            let all = all.iter().flat_map(ResourceStatus::to_assignments);
            Ok(all.filter(|assignment| asked.node.as_ref().is_none_or(|node| assignment.node == *node)).collect())
        })
    }

    fn assign_resource(&self, asked: AssignResource) -> Promise<'_, Done> {
        Box::pin(async move {
            let (resource, node, diskless, pool) = (asked.resource, asked.node, asked.diskless, asked.pool);
            self.propose(Command::Assign { resource, node, diskless, seed: local::random_seed(), pool }).await?;
            Ok(Done::default())
        })
    }

    fn unassign_resource(&self, asked: UnassignResource) -> Promise<'_, Done> {
        Box::pin(removal::unassign(&self.node, asked))
    }

    fn list_docker_volumes(&self, asked: ListDockerVolumes) -> Promise<'_, Vec<DockerVolume>> {
        Box::pin(docker::list(&self.node, asked))
    }

    fn add_docker_volume(&self, asked: AddDockerVolume) -> Promise<'_, AddedVolume> {
        Box::pin(docker::add(&self.node, asked))
    }

    fn list_attachments(&self, asked: ListAttachments) -> Promise<'_, Vec<Attachment>> {
        Box::pin(attachments::list(&self.node, asked))
    }

    fn attach(&self, asked: Attach) -> Promise<'_, Attachment> {
        Box::pin(attachments::attach(&self.node, asked))
    }

    fn detach(&self, asked: Detach) -> Promise<'_, Done> {
        Box::pin(attachments::detach(&self.node, asked))
    }

    fn mount(&self, asked: Mount) -> Promise<'_, Mounted> {
        Box::pin(attachments::mount(&self.node, asked))
    }

    fn unmount(&self, asked: Unmount) -> Promise<'_, Done> {
        Box::pin(attachments::unmount(&self.node, asked))
    }

    fn list_options(&self, asked: ListOptions) -> Promise<'_, Options> {
        Box::pin(async move {
            let model = self.node.model();
            let common = options::values(&model.common);
            let Some(name) = asked.resource else {
                let effective = model.common.over(&crate::cluster::Options::default());
                return Ok(Options { common, resource: OptionValues::default(), effective: options::effective(&effective) });
            };
            let resource = model.resource_named(&name)?;
            let effective = options::effective(&model.options(resource));
            Ok(Options { common, resource: options::values(&resource.options), effective })
        })
    }

    fn set_options(&self, asked: SetOptions) -> Promise<'_, Done> {
        Box::pin(async move {
            let options = options::changes(&asked.set, &asked.unset);
            self.propose(Command::SetOptions { resource: asked.resource, options }).await?;
            Ok(Done::default())
        })
    }
}
