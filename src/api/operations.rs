//! The table of operations.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::routing::{MethodFilter, get, on};
use serde::Serialize;

use super::client::Client;
use super::error::ApiError;
use super::server::{no_such_method, no_such_path, read};
use super::*;

/// An answer that is on its way.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// A line of the table of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// `GET` for a read, with the request in the query; `POST` for a change, with the request as JSON.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// The name, also that of the method of [`Service`].
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
}

macro_rules! operation_table {
    ($( $(#[doc = $doc:literal])+ $method:ident $path:literal $name:ident($request:ty) -> $answer:ty; )+) => {
        /// What a daemon can be asked. Each method is one operation; its documentation says what a success means.
        ///
        /// A refusal means that nothing was changed, unless its code is [`Code::TimedOut`] or [`Code::Unreachable`].
        pub trait Service: Send + Sync + 'static {
            $( $(#[doc = $doc])+ fn $name(&self, request: $request) -> Promise<'_, $answer>; )+
        }

        /// Every operation, in the order of the table.
        pub const OPERATIONS: &[Operation] = &[$( Operation {
            method: stringify!($method), path: $path, name: stringify!($name), summary: concat!($($doc),+).trim_ascii(),
        } ),+];

        /// Serves a service: every operation at its path, and the table itself at `/v1`.
        pub fn routes(service: Arc<dyn Service>) -> Router {
            Router::new()
                .route("/v1", get(async || Json(OPERATIONS)))
                $( .route($path, on(MethodFilter::$method, async |State(service): State<Arc<dyn Service>>, request: Request| {
                    let request = read::<$request>(request).await?;
                    service.$name(request).await.map(Json)
                })) )+
                .fallback(no_such_path)
                .method_not_allowed_fallback(no_such_method)
                .with_state(service)
        }

        impl Service for Client {
            $( fn $name(&self, request: $request) -> Promise<'_, $answer> {
                Box::pin(async move { self.call(Method::$method, $path, &request).await })
            } )+
        }
    };
}

operation_table! {
    /// Whether the daemon is there, and which version it is.
    GET "/v1/ping" ping(Ping) -> Pong;
    /// The nodes, the resources and all their replicas, in full.
    GET "/v1/status" status(AskStatus) -> ClusterStatus;
    /// Ends the daemon cleanly; answered before it goes.
    POST "/v1/shutdown" shutdown(Shutdown) -> Done;

    /// The nodes.
    GET "/v1/nodes" list_nodes(ListNodes) -> Vec<Node>;
    /// Announces a node, and answers what it needs to join.
    POST "/v1/nodes/add" add_node(AddNode) -> JoinTicket;
    /// A new token for a node that was announced and has not joined.
    POST "/v1/nodes/howto-join" howto_join(HowtoJoin) -> JoinTicket;
    /// Takes a node out of the cluster.
    POST "/v1/nodes/remove" remove_node(RemoveNode) -> Done;
    /// The pools of every node.
    GET "/v1/pools" list_pools(ListPools) -> Vec<NodePool>;
    /// Adds a pool to the node that is asked.
    POST "/v1/pools/add" add_pool(AddPool) -> Done;
    /// Takes a pool that nothing is in from the node that is asked.
    POST "/v1/pools/remove" remove_pool(RemovePool) -> Done;
    /// Chooses the pool that volumes go to when nobody says, on the node that is asked.
    POST "/v1/pools/default" default_pool(DefaultPool) -> Done;
    /// How large a volume could be, at a redundancy.
    GET "/v1/free-space" list_free_space(ListFreeSpace) -> FreeSpace;

    /// The resources, a line each.
    GET "/v1/resources" list_resources(ListResources) -> Vec<Resource>;
    /// Defines a resource.
    POST "/v1/resources/add" add_resource(AddResource) -> Done;
    /// Removes a resource, its volumes and its replicas.
    POST "/v1/resources/remove" remove_resource(RemoveResource) -> Done;
    /// Sets how many replicas a resource has.
    POST "/v1/resources/deploy" deploy_resource(DeployResource) -> Placement;
    /// Takes a resource's replicas away and keeps its definition.
    POST "/v1/resources/undeploy" undeploy_resource(UndeployResource) -> Done;

    /// The volumes.
    GET "/v1/volumes" list_volumes(ListVolumes) -> Vec<Volume>;
    /// Adds a volume, and its resource when there is none.
    POST "/v1/volumes/add" add_volume(AddVolume) -> AddedVolume;
    /// Makes a volume, and its resource, of a logical volume or file that the node that is asked has.
    POST "/v1/volumes/adopt" adopt_volume(AdoptVolume) -> AddedVolume;
    /// Grows a volume on every replica of its resource.
    POST "/v1/volumes/resize" resize_volume(ResizeVolume) -> ResizedVolume;
    /// Removes a volume from every replica of its resource.
    POST "/v1/volumes/remove" remove_volume(RemoveVolume) -> Done;

    /// The snapshots.
    GET "/v1/snapshots" list_snapshots(ListSnapshots) -> Vec<Snapshot>;
    /// Takes a snapshot of a resource, of all its volumes at one moment.
    POST "/v1/snapshots/add" add_snapshot(AddSnapshot) -> TakenSnapshot;
    /// Removes a snapshot, or a node's part of it.
    POST "/v1/snapshots/remove" remove_snapshot(RemoveSnapshot) -> Done;
    /// Makes a resource of a snapshot.
    POST "/v1/snapshots/restore" restore_snapshot(RestoreSnapshot) -> Placement;
    /// Puts what a snapshot has in the place of its resource's data.
    POST "/v1/snapshots/rollback" rollback_snapshot(RollbackSnapshot) -> Done;
    /// Makes a resource that has what another has at this moment.
    POST "/v1/resources/clone" clone_resource(CloneResource) -> Placement;
    /// When snapshots are taken by themselves.
    GET "/v1/snapshots/schedules" list_schedules(ListSchedules) -> Vec<SnapshotSchedule>;
    /// Has snapshots of a resource taken by themselves, or no more.
    POST "/v1/snapshots/schedule" schedule_snapshots(ScheduleSnapshots) -> Done;

    /// Which resource is on which node.
    GET "/v1/assignments" list_assignments(ListAssignments) -> Vec<Assignment>;
    /// Puts a replica of a resource on a node.
    POST "/v1/assignments/add" assign_resource(AssignResource) -> Done;
    /// Takes a resource's replica from a node.
    POST "/v1/assignments/remove" unassign_resource(UnassignResource) -> Done;
    /// Puts a new, empty replica in the place of one whose disk is lost.
    POST "/v1/assignments/replace-disk" replace_disk(ReplaceDisk) -> Done;
    /// Has a replica get everything from the others, whatever it has.
    POST "/v1/assignments/invalidate" invalidate(Invalidate) -> Done;
    /// Ends a split brain: discards what a replica has had to itself.
    POST "/v1/assignments/discard-my-data" discard_my_data(DiscardMyData) -> Done;
    /// Pauses resyncs of a resource, or lets them go on.
    POST "/v1/resources/resync" steer_resync(SteerResync) -> Done;
    /// Makes a node primary.
    POST "/v1/resources/promote" promote(Promote) -> Done;
    /// Has the primary give up the role.
    POST "/v1/resources/demote" demote(Demote) -> Done;
    /// Keeps a node from talking to the others about a resource.
    POST "/v1/resources/disconnect" disconnect(Disconnect) -> Done;
    /// Lets nodes talk to the others about a resource again.
    POST "/v1/resources/connect" connect(Connect) -> Done;
    /// Compares the replicas of a resource, or ends that.
    POST "/v1/resources/verify" verify_resource(VerifyResource) -> Done;
    /// Has the replicas of a resource compared by themselves, or no more.
    POST "/v1/resources/verify/schedule" schedule_verify(ScheduleVerify) -> Done;

    /// The Docker volumes.
    GET "/v1/docker/volumes" list_docker_volumes(ListDockerVolumes) -> Vec<DockerVolume>;
    /// Adds a resource with one volume, for Docker; its file system is made when it is mounted for the first time.
    POST "/v1/docker/volumes/add" add_docker_volume(AddDockerVolume) -> AddedVolume;

    /// The volumes that are block devices, node by node.
    GET "/v1/attachments" list_attachments(ListAttachments) -> Vec<Attachment>;
    /// Makes a volume a block device of a node.
    POST "/v1/attachments/add" attach(Attach) -> Attachment;
    /// Takes a volume's block device away.
    POST "/v1/attachments/remove" detach(Detach) -> Done;
    /// Mounts a volume's file system on this node; makes it first on a new volume, when that is asked for.
    POST "/v1/mounts/add" mount(Mount) -> Mounted;
    /// Unmounts a volume's file system from this node.
    POST "/v1/mounts/remove" unmount(Unmount) -> Done;

    /// The options of the cluster or of a resource.
    GET "/v1/options" list_options(ListOptions) -> Options;
    /// Changes options of the cluster or of a resource.
    POST "/v1/options/set" set_options(SetOptions) -> Done;
}
