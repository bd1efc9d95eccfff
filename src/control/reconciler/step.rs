//! One resource's name on this node: from what is there to what shall be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::storage::{self, blocking};
use super::{Open, Opened};
use crate::cluster::{Assignment, Cluster, Command, Leftover, LeftoverId, Resource, Source};
use crate::control::consensus::ProposeError;
use crate::control::node::{Node, PATIENCE};
use crate::control::replica::ReplicaPlan;
use crate::runtime::{Peer, PlaneError, ReplicaStorage, ResourceSettings, ResourceSpec, Timeouts};
use crate::units::{Name, OnNoQuorum, ReplicaId, ResourceId, VolumeId};

pub(super) struct Step<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) open: &'a Opened,
    pub(super) model: &'a Cluster,
    /// Whether storage was created or removed on the way.
    pub(super) storage_changed: bool,
}

impl Step<'_> {
    /// Does what there is to do for a name; an error says why it could not be done.
    pub(super) async fn take(&mut self, name: &Name) -> Result<(), String> {
        let resource = self.model.names.get(name).and_then(|id| self.model.resources.get(id)).cloned();
        let assigned = resource.as_ref().filter(|resource| resource.assignments.contains_key(&self.node.me));
        for stranger in self.open.of_name(name) {
            if assigned.is_none_or(|resource| resource.id != stranger) {
                self.close(stranger).await?;
            }
        }
        if let Some(resource) = assigned
            && let Some(Open { replica: Some(open), .. }) = self.open.get(resource.id)
            && resource.assignments[&self.node.me].replica != Some(open)
        {
            // Another replica is to take its place, perhaps under the very same paths.
            self.close(resource.id).await?;
        }
        let leftovers: Vec<(LeftoverId, Leftover)> = self
            .model
            .leftovers_of(self.node.me)
            .filter(|(_, leftover)| leftover.name == *name)
            .map(|(id, leftover)| (id, leftover.clone()))
            .collect();
        if let Some(resource) = assigned
            && let Some(assignment) = resource.assignments.get(&self.node.me)
            && (assignment.is_diskless() || assignment.created)
            && (self.open.get(resource.id).is_some() || !lags(resource, assignment))
        {
            // Before single volumes are removed, the data plane has to let go of them.
            self.serve(resource, assignment, &leftovers).await?;
        }
        let mut left = Ok(());
        for (id, leftover) in &leftovers {
            let removed = self.remove(*id, leftover).await;
            left = left.and(removed);
        }
        match assigned {
            // When the leftovers' confirmation is in the model, there is a next step. What is on a disk that is gone waits for that, and is in
            // nobody's way meanwhile.
            Some(resource) if leftovers.is_empty() => self.provide(resource).await,
            Some(resource) if leftovers.iter().all(|(_, one)| self.is_out_of_the_way(resource, one)) => {
                self.provide(resource).await?;
                left.map_err(|why| format!("what is left of a former replica is deleted later: {why}"))
            }
            _ => left,
        }
    }

    /// Whether storage that is to be deleted cannot be mistaken for that of the resource: all its pools are others, and none of them can be
    /// used. (Two pools that can be used may be parts of one volume group, where a name is there once.)
    fn is_out_of_the_way(&self, resource: &Resource, leftover: &Leftover) -> bool {
        let assignment = &resource.assignments[&self.node.me];
        let (failing, volumes) = (self.node.board.pool_failures(), resource.volumes.keys());
        let used: Vec<&Name> = assignment.places.pools(volumes, true).collect();
        let mut left = leftover.places.pools(leftover.volumes.iter(), leftover.metadata);
        left.all(|pool| !used.contains(&pool) && (failing.contains_key(pool) || self.node.pool(pool).is_none()))
    }

    /// Creates or grows a replica.
    async fn provide(&mut self, resource: &Arc<Resource>) -> Result<(), String> {
        let assignment = &resource.assignments[&self.node.me];
        let Some(replica) = assignment.replica else { return Ok(()) };
        let wanted: BTreeMap<VolumeId, u64> = resource.volumes.iter().map(|(&id, volume)| (id, volume.target)).collect();
        let name = resource.name.clone();
        let node = self.node.clone();
        let volumes = if !assignment.created {
            let fresh = self.confirmed(resource.id, |present| !present.created && present.replica == Some(replica)).await?;
            let Assignment { places, source, adopts, .. } = fresh.assignments[&self.node.me].clone();
            let sizes = self.first_sizes(source.as_ref(), wanted)?;
            let plan = self.plan(&fresh, sizes.clone());
            // Where several are in sync from the start, or none was ever written, they have to be equal from the first byte.
            let zero = plan.up_to_date && fresh.record.as_ref().is_some_and(|record| record.in_sync.len() > 1);
            self.storage_changed = true;
            let origin = storage::Origin { zero, source, adopts };
            blocking(move || storage::create(&node, &name, &plan, &places, &origin)).await?;
            sizes
        } else if wanted.iter().any(|(volume, bytes)| assignment.volumes.get(volume).is_none_or(|has| has < bytes)) {
            let fresh = self.confirmed(resource.id, |present| present.replica == Some(replica)).await?;
            let Assignment { volumes: present, places, .. } = fresh.assignments[&self.node.me].clone();
            let sizes = wanted.clone();
            self.storage_changed = true;
            blocking(move || storage::grow(&node, &name, &present, &sizes, &places)).await?;
            wanted
        } else {
            return Ok(());
        };
        self.propose(Command::ConfirmReplica { node: self.node.me, resource: resource.id, replica, volumes }).await
    }

    /// The volumes that a replica begins with, and their sizes in bytes: those that the resource shall have, and where it is made of a
    /// snapshot those that this has, as they were. What came to the resource since, a part of a volume perhaps, comes to the replica when
    /// it is there.
    fn first_sizes(&self, source: Option<&Source>, wanted: BTreeMap<VolumeId, u64>) -> Result<BTreeMap<VolumeId, u64>, String> {
        let Some(source) = source else { return Ok(wanted) };
        let mut snapshots = self.model.resources.values().flat_map(|resource| resource.snapshots.values());
        let taken = snapshots.find(|snapshot| snapshot.id == source.snapshot);
        let taken = taken.ok_or_else(|| format!("the snapshot '{}' that it is made of is gone", source.stored))?;
        let still = taken.volumes.iter().filter(|(volume, _)| wanted.contains_key(volume));
        Ok(still.map(|(&volume, &bytes)| (volume, bytes)).collect())
    }

    fn plan(&self, resource: &Resource, volumes: BTreeMap<VolumeId, u64>) -> ReplicaPlan {
        let assignment = &resource.assignments[&self.node.me];
        let record = resource.record.clone().filter(|_| assignment.initially_in_sync);
        ReplicaPlan {
            cluster: self.node.cluster,
            resource: resource.id,
            node: self.node.me,
            replica: assignment.replica.expect("the caller saw it"),
            incarnation: assignment.incarnation,
            up_to_date: assignment.initially_in_sync,
            record,
            volumes,
            peers: resource.replicas().filter(|&peer| peer != self.node.me).collect(),
        }
    }

    /// Opens a resource, or changes it to what it shall be.
    async fn serve(
        &mut self,
        resource: &Arc<Resource>,
        assignment: &Assignment,
        leftovers: &[(LeftoverId, Leftover)],
    ) -> Result<(), String> {
        // The storage of a former replica under this name is still there: nothing may be opened beside it.
        let former = |leftover: &Leftover| Some(leftover.replica) != assignment.replica;
        if leftovers.iter().any(|(_, one)| former(one) && !self.is_out_of_the_way(resource, one)) {
            return Ok(());
        }
        let settings = self.settings(resource);
        let storage = match assignment.replica {
            Some(_) => {
                let (node, name) = (self.node.clone(), resource.name.clone());
                // A volume that other replicas do not have yet is not served, and not opened: what is opened is kept as long as it is served.
                let served = assignment.volumes.iter().filter(|(volume, _)| settings.volumes.contains_key(volume));
                let volumes: BTreeMap<VolumeId, u64> = served.map(|(&volume, &bytes)| (volume, bytes)).collect();
                let places = assignment.places.clone();
                // The data plane lays its maps out anew when volumes have changed, from where they are now.
                let same = self.open.get(resource.id).is_some_and(|open| open.settings.volumes == settings.volumes);
                let sizes = (!same).then(|| settings.volumes.clone());
                let find = move || {
                    if let Some(sizes) = sizes {
                        storage::room_for_maps(&node, &name, &sizes, &places)?;
                    }
                    storage::find(&node, &name, &volumes, &places)
                };
                Some(blocking(find).await?)
            }
            None => None,
        };
        match self.open.get(resource.id) {
            Some(open) if open.storage.is_some() != storage.is_some() => {
                // From or to diskless: another kind of engine.
                self.close(resource.id).await?;
                self.open(resource, settings, (assignment.replica, storage)).await
            }
            Some(open) if open.settings == settings && open.storage == storage => Ok(()),
            Some(open) => {
                let new_storage = storage.clone().filter(|_| open.storage != storage);
                let configured = self.node.plane.configure(resource.id, settings.clone(), new_storage).await;
                if let Err(PlaneError::NotOpen(_)) = configured {
                    self.open.set(resource.id, None);
                }
                configured.map_err(|error| format!("it cannot be changed: {error}"))?;
                self.open.set(resource.id, Some(Open { name: resource.name.clone(), settings, replica: open.replica, storage }));
                Ok(())
            }
            None => self.open(resource, settings, (assignment.replica, storage)).await,
        }
    }

    async fn open(
        &mut self,
        resource: &Resource,
        settings: ResourceSettings,
        (replica, storage): (Option<ReplicaId>, Option<ReplicaStorage>),
    ) -> Result<(), String> {
        let spec = ResourceSpec {
            cluster: self.node.cluster,
            resource: resource.id,
            name: resource.name.clone(),
            me: self.node.me,
            settings: settings.clone(),
            storage: storage.clone(),
        };
        self.node.plane.open(spec).await.map_err(|error| format!("it cannot be started: {error}"))?;
        self.open.set(resource.id, Some(Open { name: resource.name.clone(), settings, replica, storage }));
        Ok(())
    }

    /// Takes a resource down that is not this node's any more. Its clients were asked about when that was decided.
    async fn close(&mut self, resource: ResourceId) -> Result<(), String> {
        match self.node.plane.close(resource, true).await {
            Ok(()) | Err(PlaneError::NotOpen(_)) => {
                self.open.set(resource, None);
                self.node.board.note(resource, None);
                Ok(())
            }
            Err(error) => Err(format!("it cannot be stopped: {error}")),
        }
    }

    /// Deletes what is left over, if the cluster still says so.
    async fn remove(&mut self, id: LeftoverId, leftover: &Leftover) -> Result<(), String> {
        let now = self.node.consensus.read(PATIENCE).await.map_err(|error| error.to_string())?;
        if now.leftovers.get(&id) != Some(leftover) {
            return Ok(());
        }
        let (node, gone) = (self.node.clone(), leftover.clone());
        self.storage_changed = true;
        blocking(move || storage::remove(&node, &gone)).await?;
        self.propose(Command::ConfirmLeftover { node: self.node.me, leftover: id }).await
    }

    /// The resource as the cluster knows it now, if its assignment to this node is still `as_seen`.
    async fn confirmed(&self, resource: ResourceId, as_seen: impl Fn(&Assignment) -> bool) -> Result<Arc<Resource>, String> {
        let now = self.node.consensus.read(PATIENCE).await.map_err(|error| error.to_string())?;
        let present = now.resources.get(&resource).filter(|r| r.assignments.get(&self.node.me).is_some_and(&as_seen));
        let clash = |r: &Resource| {
            let mut left = now.leftovers_of(self.node.me).filter(|(_, leftover)| leftover.name == r.name);
            left.any(|(_, leftover)| !self.is_out_of_the_way(r, leftover))
        };
        match present {
            Some(resource) if !clash(resource) => Ok(resource.clone()),
            _ => Err("the cluster has changed its mind meanwhile".to_owned()),
        }
    }

    async fn propose(&self, command: Command) -> Result<(), String> {
        match self.node.consensus.propose(command, PATIENCE).await {
            // What was confirmed is not asked for any more.
            Ok(_) | Err(ProposeError::Refused(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn settings(&self, resource: &Resource) -> ResourceSettings {
        let options = self.model.options(resource);
        let others = resource.assignments.iter().filter(|(node, _)| **node != self.node.me);
        let peers = others.filter_map(|(node, assignment)| {
            let name = self.model.nodes.get(node)?.name.clone();
            let (diskful, leaving) = (!assignment.is_diskless(), assignment.leaving);
            let paused = resource.paused.holds(*node) || resource.paused.holds(self.node.me);
            let apart = resource.are_apart(*node, self.node.me);
            Some((*node, Peer { name, diskful, leaving, paused, apart }))
        });
        let volumes = resource.volumes.iter().filter(|(_, volume)| volume.bytes > 0).map(|(&id, volume)| (id, volume.bytes));
        ResourceSettings {
            peers: peers.collect(),
            volumes: volumes.collect(),
            protocol: options.protocol,
            authority: options.quorum,
            io_fails_after: match options.on_no_quorum {
                OnNoQuorum::SuspendIo => None,
                OnNoQuorum::IoError => Some(options.peer_timeout + FAIL_OVER),
            },
            after_split_brain: options.after_split_brain,
            resync_max: options.resync_max,
            timeouts: Timeouts {
                heartbeat: options.heartbeat,
                lease: options.lease,
                reconnect: options.reconnect,
                peer_silent: options.peer_timeout,
            },
        }
    }
}

/// Whether a replica lacks what the others have: a volume, or a part of one. That is one that was just made, of a snapshot or while the
/// others grew, and it grows before it is opened.
fn lags(resource: &Resource, assignment: &Assignment) -> bool {
    if assignment.is_diskless() {
        return false;
    }
    let has = |volume: &VolumeId| assignment.volumes.get(volume).copied().unwrap_or(0);
    resource.volumes.iter().any(|(id, volume)| has(id) < volume.bytes)
}

/// How long I/O waits for a quorum beyond a silent peer's time before it fails, where it is to. A fail-over with an election of the cluster's
/// leader has its place in it: who would get errors then could as well have no replicas.
const FAIL_OVER: Duration = Duration::from_secs(5);
