//! Taking commands: every function here first checks, then changes.

mod adoption;
mod connections;
mod nodes;
mod pause;
mod pools;
mod record;
mod replace;
mod replicas;
mod resources;
mod snapshots;
mod verifies;

use adoption::Found;
use replicas::Choice;
use snapshots::Wanted;

use super::{Applied, Cluster, Command, Invitation, Refusal};

impl Cluster {
    /// Takes a command, or refuses it and stays as it was. The same commands in the same order lead to the same model on every
    /// node.
    pub fn apply(&mut self, command: Command) -> Result<Applied, Refusal> {
        let applied = self.dispatch(command)?;
        self.revision += 1;
        Ok(applied)
    }

    fn dispatch(&mut self, command: Command) -> Result<Applied, Refusal> {
        match command {
            Command::Init { .. } | Command::Restore(_) | Command::All(_) => {}
            _ if self.id.is_none() => return Err(Refusal::NotInitialised),
            _ => {}
        }
        match command {
            Command::Init { cluster, name, address, ports, kind, certificate } => {
                self.init(cluster, name, address, ports, kind, certificate)
            }
            Command::All(commands) => self.all(commands),
            Command::Restore(model) => {
                *self = Self { revision: self.revision, voters: self.voters.clone(), ..*model };
                Ok(Applied::Done)
            }
            Command::InviteNode { name, address, ports, kind, token, expires } => {
                self.invite_node(name, address, ports, kind, Invitation { token, expires })
            }
            Command::RenewInvitation { name, token, expires } => self.renew_invitation(&name, token, expires),
            Command::RedeemInvitation { name, token, address, ports, certificate, now } => {
                self.redeem_invitation(&name, token, address, ports, certificate, now)
            }
            Command::Announce { node, version, pool, pools } => self.announce(node, version, pool, pools),
            Command::AddPool { node, name, pool } => self.add_pool(node, name, pool),
            Command::RemovePool { node, name } => self.remove_pool(node, &name),
            Command::SetDefaultPool { node, name } => self.set_default_pool(node, name),
            Command::ModifyNode { name, address } => self.modify_node(&name, address),
            Command::RemoveNode { name, force, only, seed } => self.remove_node(&name, force, only.as_ref(), seed),
            Command::CreateResource { name, options, properties, now } => self.create_resource(name, &options, properties, now),
            Command::SetOptions { resource, options } => self.set_options(resource.as_ref(), &options),
            Command::SetProperties { resource, properties } => self.set_properties(&resource, properties),
            Command::RemoveResource { resource, force } => self.remove_resource(&resource, force),
            Command::AddVolume { resource, volume, bytes, pool } => self.add_volume(&resource, volume, bytes, pool),
            Command::Adopt { resource, node, pool, source, bytes, seed } => {
                self.adopt(&resource, Found { node, pool, source, bytes }, seed)
            }
            Command::SetMetadataPool { resource, pool } => self.set_metadata_pool(&resource, pool),
            Command::ResizeVolume { resource, volume, bytes } => self.resize_volume(&resource, volume, bytes),
            Command::RemoveVolume { resource, volume, force } => self.remove_volume(&resource, volume, force),
            Command::Deploy { resource, placement, avoid, keep, seed, pool } => {
                let choice = Choice { avoid: &avoid, keep: &keep, pool: pool.as_ref() };
                self.deploy(&resource, &placement, choice, seed)
            }
            Command::Assign { resource, node, diskless, seed, pool } => {
                self.assign(&resource, &node, diskless, seed, pool.as_ref())
            }
            Command::Unassign { resource, node, force, seed } => self.unassign(&resource, &node, force, seed),
            Command::ReplaceDisk { resource, node, pool, expect, seed } => {
                self.replace_disk(&resource, &node, pool.as_ref(), expect, seed)
            }
            Command::PauseResync { resource, node, pause: true } => self.pause_resync(&resource, node.as_ref()),
            Command::PauseResync { resource, node, pause: false } => self.resume_resync(&resource, node.as_ref()),
            Command::Disconnect { resource, node } => self.disconnect(&resource, &node),
            Command::Connect { resource, node } => self.connect(&resource, node.as_ref()),
            Command::Undeploy { resource, force } => self.undeploy(&resource, force),
            Command::AddSnapshot { resource, snapshot: name, nodes, purpose, taker, now } => {
                self.add_snapshot(&resource, Wanted { name, nodes: &nodes, purpose, taker, now })
            }
            Command::CompleteSnapshot { resource, snapshot, nodes } => self.complete_snapshot(resource, snapshot, &nodes),
            Command::AbandonSnapshot { resource, snapshot } => self.abandon_snapshot(resource, snapshot),
            Command::RemoveSnapshot { resource, snapshot, node } => self.remove_snapshot(&resource, &snapshot, node.as_ref()),
            Command::RestoreSnapshot { resource, source, snapshot, nodes, seed, now } => {
                self.restore_snapshot(resource, &source, &snapshot, &nodes, seed, now)
            }
            Command::RollBack { resource, snapshot, seed } => self.roll_back(&resource, &snapshot, seed),
            Command::ScheduleSnapshots { resource, schedule } => self.schedule_snapshots(&resource, schedule),
            Command::ScheduleVerify { resource, schedule } => self.schedule_verify(&resource, schedule),
            Command::NoteVerify { resource, now } => self.note_verify(resource, now),
            Command::ConfirmReplica { node, resource, replica, volumes } => {
                self.confirm_replica(node, resource, replica, volumes)
            }
            Command::ConfirmLeftover { node, leftover } => self.confirm_leftover(node, leftover),
            Command::EndRound { resource, round } => self.end_round(resource, round),
            Command::ChangeRecord { resource, expect, record } => self.change_record(resource, expect, record),
        }
    }

    /// All or none: on a copy, which is cheap, for resources are shared.
    fn all(&mut self, commands: Vec<Command>) -> Result<Applied, Refusal> {
        let mut trial = self.clone();
        let applied = commands.into_iter().map(|command| trial.dispatch(command)).collect::<Result<Vec<_>, _>>()?;
        *self = trial;
        Ok(Applied::All(applied))
    }
}
