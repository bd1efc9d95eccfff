//! A resource on its shard.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{AskId, ClientId, Held, HoldId, Settings, Suspension};
use crate::ring::Disk;
use crate::units::{DiskState, Instant, Name, NodeId, ResourceId, Role, VolumeId};

use super::Engine;
use super::alarm::Alarm;
use super::inbox::{OpenDisks, ReplyTo};
use super::plane::{Lane, OpenExport};
use super::slab::Key;

/// A resource, its engine and its storage.
#[derive(Debug)]
pub(super) struct Resource {
    pub(super) id: ResourceId,
    pub(super) name: Name,
    pub(super) lane: Lane,
    pub(super) engine: Engine,
    pub(super) settings: Settings,
    pub(super) disks: Option<Disks>,
    /// Connected peers that do not have the resource open.
    pub(super) closed_there: BTreeSet<NodeId>,
    /// Who is attached or about to be.
    pub(super) clients: BTreeMap<ClientId, Attachment>,
    /// Who pays for the memory of other nodes' requests here.
    pub(super) guests: BTreeMap<NodeId, Key>,
    /// The number of the next client.
    pub(super) next_client: u64,
    /// Who waits until its engine goes by what was configured.
    pub(super) configuring: Vec<ReplyTo<()>>,
    /// Who waits until writes are held, and until they are not any more.
    pub(super) holding: BTreeMap<HoldId, ReplyTo<Held>>,
    pub(super) releasing: BTreeMap<HoldId, ReplyTo<bool>>,
    /// Who waits until what he wants has begun.
    pub(super) operating: BTreeMap<AskId, ReplyTo<()>>,
    pub(super) next_ask: u64,
    /// Who waits for the end.
    pub(super) closing: Vec<ReplyTo<()>>,
    /// Operations on its disks.
    pub(super) disk_jobs: usize,
    /// It has stopped and goes when its disks are idle.
    pub(super) stopped: bool,
    /// Whether its commands are to be taken.
    pub(super) dirty: bool,
    /// When its engine wants to be called.
    pub(super) alarm: Alarm,
    /// Whether something has happened since its status was published.
    pub(super) unpublished: bool,
    /// What was last published.
    pub(super) gist: Option<Gist>,
}

/// A client's attachment.
#[derive(Debug)]
pub(super) enum Attachment {
    /// The engine is asked.
    Asking { volume: VolumeId, read_only: bool, reply: ReplyTo<OpenExport> },
    /// It was granted; the client is on its way.
    Granted(VolumeId),
    /// The client is connected.
    Connected(VolumeId, Key),
}

/// The part of a status whose change an operator wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gist {
    pub(super) role: Role,
    pub(super) primary: Option<NodeId>,
    pub(super) disk: DiskState,
    pub(super) peers: Vec<(NodeId, crate::engine::Connection, Option<DiskState>)>,
    pub(super) suspended: Vec<std::mem::Discriminant<Suspension>>,
}

/// The storage of a replica on the thread that uses it.
#[derive(Debug)]
pub(super) struct Disks {
    pub(super) metadata: Disk,
    pub(super) volumes: BTreeMap<VolumeId, Disk>,
}

impl From<OpenDisks> for Disks {
    fn from(open: OpenDisks) -> Self {
        let volumes = open.volumes.into_iter().map(|(volume, disk)| (volume, disk.into())).collect();
        Self { metadata: open.metadata.into(), volumes }
    }
}

impl Disks {
    /// Takes over disks that were opened anew, some of them perhaps the same files. Operations in flight keep the old ones open; volumes
    /// that are not among them stay until the engine does without.
    pub(super) fn replace(&mut self, open: OpenDisks) {
        let before = std::mem::replace(self, open.into());
        for (volume, disk) in before.volumes {
            self.volumes.entry(volume).or_insert(disk);
        }
    }
}

impl Attachment {
    /// The connection, when there is one.
    pub(super) fn connection(&self) -> Option<Key> {
        match self {
            Self::Connected(_, key) => Some(*key),
            _ => None,
        }
    }

    /// The volume that it is of.
    pub(super) fn volume(&self) -> VolumeId {
        match self {
            Self::Asking { volume, .. } | Self::Granted(volume) | Self::Connected(volume, _) => *volume,
        }
    }
}

impl Resource {
    /// Whether the engine is to hear of a peer: it has not been told that the two are apart.
    pub(super) fn talks_to(&self, peer: NodeId) -> bool {
        self.settings.peers.get(&peer).is_some_and(|peer| !peer.apart)
    }

    /// How many clients are connected or about to be.
    pub(super) fn in_use(&self) -> usize {
        self.clients.len()
    }

    /// The engine's deadline.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.engine.timeout()
    }
}
