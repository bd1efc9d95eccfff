//! The engines' events and commands.

use crate::engine::{AttachError, ClientId, Command, Event};
use crate::units::Instant;

use super::Shard;
use crate::runtime::inbox::Request;
use crate::runtime::plane::{OpenExport, PlaneError, PlaneEvent};
use crate::runtime::resource::{Attachment, Resource};
use crate::runtime::slab::Key;

impl Shard {
    /// Tells an engine what has happened.
    pub(in crate::runtime) fn feed(&mut self, key: Key, event: Event) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        resource.engine.handle(self.io.now, self.peers.links(resource.lane), event);
        if !resource.dirty {
            resource.dirty = true;
            self.dirty.push_back(key);
        }
    }

    /// Runs the commands of the engines that were touched, until they are quiet.
    pub(super) fn run_commands(&mut self) {
        let mut commands = std::mem::take(&mut self.commands);
        while let Some(key) = self.dirty.pop_front() {
            let Some(resource) = self.resources.get_mut(key) else { continue };
            resource.dirty = false;
            resource.engine.take_commands(&mut commands);
            for command in commands.drain(..) {
                self.run_command(key, command);
            }
            self.look_at(key);
        }
        self.commands = commands;
    }

    fn run_command(&mut self, key: Key, command: Command) {
        match command {
            Command::Complete { id, result } => self.complete(id, result),
            Command::Send { to, reign, message, payload } => self.say(key, to, reign, message, payload),
            Command::Disk { op, io } => self.start_disk(key, op, io),
            Command::Copy { from, from_at, into, into_at, len } => self.io.memory.copy(from, from_at, into, into_at, len),
            Command::Release(buffer) => self.io.memory.release(buffer),
            Command::Meta { op, at, bytes } => self.start_meta(key, op, at, bytes),
            Command::AskLease(peer) => self.ask_lease(key, peer),
            Command::Attached { client, result } => self.attached(key, client, result),
            Command::DropClients => self.drop_clients(key, |client| !matches!(client, Attachment::Asking { .. })),
            Command::Propose { ticket, expect, record } => {
                self.ask_control(key, |resource| PlaneEvent::Propose { resource, ticket, expect, record });
            }
            Command::ReadRecord { ticket } => self.ask_control(key, |resource| PlaneEvent::ReadRecord { resource, ticket }),
            Command::Held { id, result } => self.held(key, id, result),
            Command::Released { id, whole } => self.released(key, id, whole),
            Command::Operated { id, result } => self.operated(key, id, result),
            Command::Configured => self.configured(key),
            Command::Stopped { clean } => self.stopped(key, clean),
        }
    }

    /// An engine goes by what was configured: disks that it does not use any more are closed.
    fn configured(&mut self, key: Key) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        if let Some(disks) = &mut resource.disks {
            disks.volumes.retain(|volume, _| resource.settings.volumes.contains_key(volume));
        }
        for reply in resource.configuring.drain(..) {
            let _unheard = reply.send(Ok(()));
        }
    }

    /// What follows once an engine is quiet: its deadline, its status, perhaps its end.
    fn look_at(&mut self, key: Key) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        let timeout = resource.timeout();
        self.alarms.set(&mut resource.alarm, key, timeout);
        if !resource.unpublished {
            resource.unpublished = true;
            self.unpublished.push(key);
            self.arm_publishing();
        }
        self.end_if_idle(key);
    }

    pub(super) fn alarm_rang(&mut self, key: Key, at: Instant) {
        let now = self.io.now;
        let Some(resource) = self.resources.get_mut(key) else { return };
        resource.alarm.rang(at);
        match resource.timeout() {
            Some(timeout) if timeout <= now => self.feed(key, Event::Timeout),
            later => self.alarms.set(&mut resource.alarm, key, later),
        }
    }

    fn ask_control(&mut self, key: Key, event: impl FnOnce(crate::units::ResourceId) -> PlaneEvent) {
        if let Some(resource) = self.resources.get(key) {
            (self.events)(event(resource.id));
        }
    }

    /// An engine has answered an attach.
    fn attached(&mut self, key: Key, client: ClientId, result: Result<(), AttachError>) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        let Some(attachment) = resource.clients.get_mut(&client) else { return };
        if !matches!(attachment, Attachment::Asking { .. }) {
            return;
        }
        let granted = Attachment::Granted(attachment.volume());
        let Attachment::Asking { volume, read_only, reply } = std::mem::replace(attachment, granted) else { return };
        let answer = match (result, resource.engine.volume_bytes(volume)) {
            (Ok(()), Some(bytes)) => {
                let attachment = Box::new(Granted { mailbox: self.mailbox.clone(), resource: key, client: Some(client) });
                Ok(OpenExport { resource: resource.id, volume, bytes, read_only, attachment })
            }
            (Ok(()), None) => Err(PlaneError::NotOpen(resource.id)),
            (Err(error), _) => Err(refusal(error)),
        };
        let refused = answer.is_err();
        // When nobody waits any more, dropping the export ends the attachment.
        let _unheard = reply.send(answer);
        if refused {
            self.detach(key, client);
        }
    }

    /// A client is gone, or never came.
    pub(in crate::runtime) fn detach(&mut self, key: Key, client: ClientId) {
        if self.resources.get_mut(key).is_some_and(|resource| resource.clients.remove(&client).is_some()) {
            self.feed(key, Event::Detach(client));
        }
    }

    /// Ends the sessions of such clients. One that the engine has not answered yet has none to lose.
    fn drop_clients(&mut self, key: Key, are_such: impl Fn(&Attachment) -> bool) {
        let Some(resource) = self.resources.get(key) else { return };
        let such = resource.clients.iter().filter(|(_, attachment)| are_such(attachment));
        let clients: Vec<_> = such.map(|(&id, attachment)| (id, attachment.connection())).collect();
        for (id, connection) in clients {
            match connection {
                Some(connection) => self.close_client(connection, &"the resource does not serve clients here any more"),
                None => self.detach(key, id),
            }
        }
    }

    fn stopped(&mut self, key: Key, clean: bool) {
        let Some(resource) = self.resources.get_mut(key) else { return };
        tracing::debug!(resource = %resource.name, clean, "stopped");
        resource.stopped = true;
        if !clean {
            tracing::warn!(resource = %resource.name, "stopped, but its metadata could not be marked clean; it will be checked at its next start");
        }
    }

    /// Ends a resource whose engine has stopped when the last operation on its disks is done: only then are they unlocked.
    pub(in crate::runtime) fn end_if_idle(&mut self, key: Key) {
        if self.resources.get(key).is_none_or(|resource| !resource.stopped || resource.disk_jobs > 0) {
            return;
        }
        self.drop_clients(key, |_| true);
        let Some(resource) = self.resources.remove(key) else { return };
        self.by_id.remove(&resource.id);
        self.board.remove(resource.id);
        let Resource { closing, disks, name, guests, .. } = resource;
        drop(disks);
        guests.into_values().for_each(|account| self.io.memory.close_account(account));
        tracing::debug!(resource = %name, "closed");
        for reply in closing {
            let _unheard = reply.send(Ok(()));
        }
    }
}

/// What holds an attachment until its client comes.
#[derive(Debug)]
pub(in crate::runtime) struct Granted {
    mailbox: crate::runtime::inbox::Mailbox,
    resource: Key,
    client: Option<ClientId>,
}

impl Granted {
    /// The client has come: the resource and the number of its attachment, and where to tell.
    pub(in crate::runtime) fn redeem(mut self) -> Option<(Key, ClientId, crate::runtime::inbox::Mailbox)> {
        self.client.take().map(|client| (self.resource, client, self.mailbox.clone()))
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.mailbox.post(Request::Detach { resource: self.resource, client });
        }
    }
}

fn refusal(error: AttachError) -> PlaneError {
    match error {
        AttachError::InUse(node) => PlaneError::Busy(node),
        AttachError::NoData(help) => PlaneError::NoData(help),
        AttachError::NoQuorum => PlaneError::NoQuorum("no authority answered in time".to_owned()),
        AttachError::ShuttingDown => PlaneError::ShuttingDown,
    }
}
