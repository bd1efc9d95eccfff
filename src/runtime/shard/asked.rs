//! What the control plane asks.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{ClientId, Event, Settings};
use crate::ring::Disk;
use crate::units::{ResourceId, Sharing, VolumeId};

use super::Shard;
use crate::runtime::Engine;
use crate::runtime::alarm::Alarm;
use crate::runtime::inbox::{OpenDisks, Opening, ReplyTo, Request};
use crate::runtime::plane::{Clients, OpenExport, PlaneError, lane_of};
use crate::runtime::resource::{Attachment, Disks, Resource};
use crate::runtime::slab::Key;

impl Shard {
    /// Answers everything in the inbox.
    pub(super) fn read_inbox(&mut self) {
        while let Ok(request) = self.inbox.try_recv() {
            self.asked(request);
        }
    }

    fn asked(&mut self, request: Request) {
        match request {
            Request::Open(opening, reply) => answer(reply, self.open(*opening)),
            Request::Configure { resource, settings, disks, reply } => {
                self.configure(resource, *settings, disks, reply);
            }
            Request::Duplicate { resource, reply } => answer(reply, self.duplicate(resource)),
            Request::Close { resource, force, reply } => self.close(resource, force, reply),
            Request::Attach { resource, volume, read_only, sharing, reply } => {
                self.attach(resource, volume, read_only, sharing, reply)
            }
            Request::Detach { resource, client } => self.detach(resource, client),
            Request::Serve { resource, client, volume, bytes, socket } => {
                self.welcome(resource, client, volume, bytes, *socket);
            }
            Request::Hold { resource, id, lease, reply } => self.hold(resource, id, lease, reply),
            Request::RenewHold { resource, id, lease } => self.renew_hold(resource, id, lease),
            Request::ReleaseHold { resource, id, reply } => self.release_hold(resource, id, reply),
            Request::Operate { resource, operation, reply } => self.operate(resource, operation, reply),
            Request::Look { resource, reply } => answer(reply, self.look(resource)),
            Request::Clients(reply) => answer(reply, Ok(self.count_clients())),
            Request::Link(link) => self.link(*link),
            Request::Answer { resource, ticket, answer } => {
                if let Some(&key) = self.by_id.get(&resource) {
                    self.feed(key, Event::Answer { ticket, answer });
                }
            }
            Request::Shutdown(reply) => self.shut_down(reply),
            Request::Abandon => self.abandoned = true,
        }
    }

    fn open(&mut self, opening: Opening) -> Result<(), PlaneError> {
        let Opening { name, identity, settings, replica } = opening;
        let id = identity.resource;
        if self.ending.is_some() {
            return Err(PlaneError::ShuttingDown);
        }
        if self.by_id.contains_key(&id) {
            return Err(PlaneError::Storage(format!("resource {id} is open already; close it first")));
        }
        let lane = lane_of(id);
        let (replica, disks) = replica.map_or((None, None), |(loaded, disks)| (Some(loaded), Some(Disks::from(disks))));
        let engine = Engine::start(identity, settings.clone(), replica, self.io.now);
        let resource = Resource {
            id,
            name,
            lane,
            engine,
            settings,
            disks,
            closed_there: BTreeSet::new(),
            guests: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_client: 1,
            configuring: Vec::new(),
            holding: BTreeMap::new(),
            releasing: BTreeMap::new(),
            operating: BTreeMap::new(),
            next_ask: 1,
            closing: Vec::new(),
            disk_jobs: 0,
            stopped: false,
            dirty: true,
            alarm: Alarm::default(),
            unpublished: false,
            gist: None,
        };
        let key = self.resources.insert(resource);
        self.by_id.insert(id, key);
        self.dirty.push_back(key);
        self.peers_changed(key, &BTreeMap::new());
        self.feed(key, Event::Timeout);
        // At once: whoever opened it may look for it.
        self.publish_one(key);
        Ok(())
    }

    fn configure(&mut self, id: ResourceId, settings: Settings, disks: Option<OpenDisks>, reply: ReplyTo<()>) {
        let key = match self.find(id) {
            Ok(key) => key,
            Err(error) => return answer(reply, Err(error)),
        };
        let Some(resource) = self.resources.get_mut(key) else { return };
        if let (Some(mine), Some(disks)) = (&mut resource.disks, disks) {
            mine.replace(disks);
        }
        let has = |volume| resource.disks.as_ref().is_none_or(|disks| disks.volumes.contains_key(volume));
        if let Some(missing) = settings.volumes.keys().find(|volume| !has(volume)) {
            // An engine that believed in it would take the first write to it for a failure of the disk.
            return answer(reply, Err(PlaneError::Storage(format!("volume {missing} has no storage on this node"))));
        }
        resource.configuring.push(reply);
        let before = std::mem::replace(&mut resource.settings, settings.clone());
        self.feed(key, Event::Configure(settings));
        self.peers_changed(key, &before.peers);
    }

    fn duplicate(&mut self, id: ResourceId) -> Result<Option<OpenDisks>, PlaneError> {
        let key = self.find(id)?;
        let disks = self.resources.get(key).and_then(|resource| resource.disks.as_ref());
        let copy = |disk: &Disk| disk.duplicate().map_err(|error| PlaneError::Storage(error.to_string()));
        let Some(disks) = disks else { return Ok(None) };
        let volumes = disks.volumes.iter().map(|(&volume, disk)| Ok((volume, copy(disk)?)));
        Ok(Some(OpenDisks { metadata: copy(&disks.metadata)?, volumes: volumes.collect::<Result<_, PlaneError>>()? }))
    }

    fn close(&mut self, id: ResourceId, force: bool, reply: ReplyTo<()>) {
        let key = match self.find(id) {
            Ok(key) => key,
            Err(error) => return answer(reply, Err(error)),
        };
        let Some(resource) = self.resources.get_mut(key) else { return };
        if resource.in_use() > 0 && !force {
            return answer(reply, Err(PlaneError::InUse(resource.in_use())));
        }
        let first = resource.closing.is_empty();
        resource.closing.push(reply);
        if first {
            self.feed(key, Event::Stop);
        }
    }

    fn attach(&mut self, id: ResourceId, volume: VolumeId, read_only: bool, sharing: Sharing, reply: ReplyTo<OpenExport>) {
        let found = self.find(id).and_then(|key| match self.resources.get_mut(key) {
            Some(resource) if resource.settings.volumes.contains_key(&volume) => Ok((key, resource)),
            _ => Err(PlaneError::NotOpen(id)),
        });
        let (key, resource) = match found {
            Ok(found) => found,
            Err(error) => return answer(reply, Err(error)),
        };
        if !resource.closing.is_empty() {
            return answer(reply, Err(PlaneError::ShuttingDown));
        }
        let client = ClientId(resource.next_client);
        resource.next_client += 1;
        resource.clients.insert(client, Attachment::Asking { volume, read_only, reply });
        self.fence_clients_gone(key);
        self.feed(key, Event::AttachAs(client, sharing));
    }

    fn count_clients(&self) -> Clients {
        let mut all = Clients::new();
        for (_, resource) in self.resources.iter() {
            for attachment in resource.clients.values() {
                *all.entry((resource.id, attachment.volume())).or_default() += 1;
            }
        }
        all
    }

    fn shut_down(&mut self, reply: ReplyTo<()>) {
        self.ending = Some(reply);
        let keys: Vec<Key> = self.by_id.values().copied().collect();
        for key in keys {
            if self.resources.get(key).is_some_and(|resource| resource.closing.is_empty()) {
                self.feed(key, Event::Stop);
            }
        }
    }

    /// Whether the end was asked for and everything is stopped. Answers whoever asked.
    pub(super) fn has_ended(&mut self) -> bool {
        let ended = self.ending.is_some() && self.resources.is_empty();
        if ended && let Some(reply) = self.ending.take() {
            self.close_links();
            answer(reply, Ok(()));
        }
        ended || self.abandoned
    }

    pub(in crate::runtime) fn find(&self, id: ResourceId) -> Result<Key, PlaneError> {
        self.by_id.get(&id).copied().ok_or(PlaneError::NotOpen(id))
    }
}

/// Answers; nobody may be waiting any more.
pub(super) fn answer<T>(reply: ReplyTo<T>, result: Result<T, PlaneError>) {
    let _unheard = reply.send(result);
}
