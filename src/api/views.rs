//! The short forms of a status: what the lists show of it. A daemon gathers [`ResourceStatus`] and nothing else.

use super::assignments::{Assignment, Replicas};
use super::resources::{Resource, Volume};
use super::status::{Connection, Pending, ReplicaStatus, ResourceStatus};
use crate::units::DiskState;

impl ResourceStatus {
    /// The resource in one line.
    pub fn to_resource(&self) -> Resource {
        let (state, detail) = self.state();
        Resource { name: self.name.clone(), id: self.id, port: self.port, state, detail, volumes: self.volumes.clone() }
    }

    /// Its volumes. They share its state, for the resource is what replicates, once they are made.
    pub fn to_volumes(&self) -> Vec<Volume> {
        use super::state::ResourceState as S;
        let (all, why) = self.state();
        let volume = |info: &super::VolumeInfo| {
            let (state, detail) = match all {
                S::Ok | S::Syncing | S::Degraded if info.making => (S::Deploying, "being made".to_owned()),
                _ => (all, why.clone()),
            };
            let (resource, port) = (self.name.clone(), self.port);
            Volume { resource, port, resource_state: all, volume: info.clone(), state, detail }
        };
        self.volumes.iter().map(volume).collect()
    }

    /// Its replicas and users.
    pub fn to_assignments(&self) -> Vec<Assignment> {
        self.replicas.iter().map(|replica| self.to_assignment(replica)).collect()
    }

    fn to_assignment(&self, replica: &ReplicaStatus) -> Assignment {
        let (state, detail) = self.assignment(replica);
        let wanted = !self.removing && replica.pending != Some(Pending::Remove);
        Assignment {
            node: replica.node.clone(),
            node_id: replica.node_id,
            resource: self.name.clone(),
            diskless: replica.diskless,
            current: replica.present(),
            target: Replicas { deployed: wanted, connected: wanted },
            state,
            detail,
            volumes: self.volumes.clone(),
        }
    }
}

impl ReplicaStatus {
    /// What is there of the replica, as far as it is known.
    fn present(&self) -> Replicas {
        let disk = self.disk.is_some_and(|disk| disk != DiskState::Diskless);
        Replicas {
            deployed: self.online && self.pending != Some(Pending::Deploy) && (disk || self.diskless),
            connected: self.online && self.peers.iter().all(|peer| peer.connection == Connection::Connected),
        }
    }
}
