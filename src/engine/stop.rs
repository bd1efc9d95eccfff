//! A clean end (rules M3 and Q7): the role is given up, everything drained, flushed and stored, and the superblock says so. A life that
//! begins after that continues this one.

use std::time::Duration;

use crate::wire::Message;

use super::core::{Engine, Stopping};
use super::event::{AttachError, Command, DiskIo, DiskOutcome};
use super::mutant::{Mutant, mutated};
use super::ops::Op;
use super::store::Then;

/// How long a primary tries to give its role up before it stops as it is: without an authority it cannot.
const PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn stop(&mut self) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Draining;
        self.stop_by = Some(self.now.after(PATIENCE));
        for client in std::mem::take(&mut self.wanting).into_keys() {
            self.attached(client, Err(AttachError::ShuttingDown));
        }
        self.drop_forwarded();
        if !self.clients.is_empty() {
            self.out.push(Command::DropClients);
            for client in std::mem::take(&mut self.clients) {
                self.drop_requests_of(client);
            }
        }
    }

    pub(super) fn consider_stop(&mut self) {
        if matches!(self.stopping, Stopping::Flushing | Stopping::Storing) && !self.has_disk() {
            // What was being stored last is forgotten with the disk.
            return self.ended(false);
        }
        if self.stopping != Stopping::Draining {
            return;
        }
        let late = self.stop_by.is_some_and(|by| by <= self.now);
        if (self.reign.is_some() || self.change.is_some()) && !late {
            return;
        }
        if self.reign.is_some() || self.change.is_some() {
            // Somebody may still count on this node's word: the next life must not pass for a continuation of this one.
            self.ended(false);
            return;
        }
        if self.follow.primary.is_some() || !self.left {
            self.leave_peers();
        }
        if self.ops.disk_is_idle() {
            self.stopping = Stopping::Flushing;
            if self.has_disk() {
                self.ops.disk(&mut self.out, Op::LastFlush, DiskIo::Flush);
            } else {
                self.ended(false);
            }
        }
    }

    /// Nobody need wait for this node.
    fn leave_peers(&mut self) {
        self.left = true;
        // Another member stays: it may go on, and only it knows whether it did (rule Q7).
        let record = self.record.clone();
        let stays = |p: &super::peer::Peer| p.is_connected() && record.as_ref().is_some_and(|r| p.is_member_of(r));
        let others = self.peers.iter().any(stays);
        for peer in 0..self.peers.len() {
            if self.peers[peer].their_token != 0 {
                self.send_acknowledgements(peer);
                self.send(peer, Message::Leaving);
            }
        }
        self.stop_following();
        let off = self.is_off();
        if let Some(store) = self.store.as_mut().filter(|_| others && off) {
            store.superblock.outdated = !mutated(Mutant::NeverOutdated);
        }
    }

    pub(super) fn last_flush_done(&mut self, outcome: &DiskOutcome) {
        if *outcome == DiskOutcome::Failed {
            self.ended(false);
        } else if self.stopping == Stopping::Flushing {
            self.stopping = Stopping::Storing;
            self.store_maps(Then::LastMaps);
        }
    }

    pub(super) fn last_maps_stored(&mut self) {
        if let Some(store) = &mut self.store {
            store.superblock.clean = true;
            store.store_superblock(Then::Ended, &mut self.ops, &mut self.out);
        }
    }

    pub(super) fn ended(&mut self, clean: bool) {
        if self.stopping != Stopping::Stopped {
            self.stopping = Stopping::Stopped;
            self.fail_everything();
            self.out.push(Command::Stopped { clean });
        }
    }

    /// A replica that stopped while others went on has met one of them again, and they go by the same record: nothing was missed, or
    /// it is being made up for.
    pub(super) fn consider_outdated(&mut self) {
        let Some(record) = &self.record else { return };
        let same = |p: &super::peer::Peer| {
            p.is_connected()
                && p.is_member_of(record)
                && p.standing.as_ref().and_then(|s| s.record.as_ref()).map(|r| r.id) == Some(record.id)
        };
        let met = self.stopping == Stopping::No && self.am_member() && self.peers.iter().any(same);
        if let Some(store) = self.store.as_mut().filter(|s| met && s.superblock.outdated) {
            store.superblock.outdated = false;
            store.store_superblock(Then::Nothing, &mut self.ops, &mut self.out);
        }
    }
}
