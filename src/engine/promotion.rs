//! Becoming primary: who may, when, and why not (rules P1, M3, M8, Q1, Q7).

use std::time::Duration;

use crate::units::{DiskState, Incarnation, Instant, NodeId, Record};
use crate::wire::Message;

use super::change::Purpose;
use super::core::{Engine, Stopping};
use super::event::{AttachError, ClientId, Command};
use super::link::Links;
use super::mutant::{Mutant, mutated};
use super::peer::Peer;
use super::reign::Phase;

/// How often a primary elsewhere is asked for the role.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long an empty-handed primary keeps the role, so that a client that comes back at once finds it.
const LINGER: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) fn detach(&mut self, links: &Links, client: ClientId) {
        self.wanting.remove(&client);
        if self.clients.remove(&client) {
            self.drop_requests_of(client);
        }
        if self.store.is_none() && self.clients.is_empty() {
            // A node without a replica takes no side of a fork but that of its clients.
            (0..self.peers.len()).for_each(|at| self.meet(links, at));
        }
    }

    /// A secondary looks whether it should be primary: for a client, or to bring another replica up to date (rule M8).
    pub(super) fn consider_promotion(&mut self) {
        if self.stopping != Stopping::No {
            return;
        }
        let needed = self.is_role_wanted() || self.has_hold() || self.is_verifying() || self.is_promoting();
        let idle = self.ops.disk_is_idle() || mutated(Mutant::PromoteUndrained);
        if self.change.is_some() || self.is_discarding() || !(needed || self.has_sync_duty()) || !idle {
            // What was submitted under an older reign is drained first (rule F4): nothing of it may land on top of the new one's data.
            return;
        }
        if self.store.as_ref().is_some_and(|s| !s.superblock_is_stored()) && !mutated(Mutant::PromoteUnstored) {
            // It may be Inconsistent on disk as yet (rule R4): if it were the only member then and crashed, nobody could be promoted.
            return;
        }
        match self.forced().map_or_else(|| self.promotable(), Ok) {
            Ok(in_sync) => {
                let Some(record) = &self.record else { return };
                let mut next = record.next(self.ids.record());
                next.primary = Some(self.id.node);
                next.reign =
                    if mutated(Mutant::OldReignGoesOn) && record.primary == next.primary { record.reign } else { next.number };
                next.in_sync = in_sync;
                next.unwritten = true;
                self.propose(next, Purpose::Reign);
            }
            Err(AttachError::InUse(node)) if !self.wanting.is_empty() || !self.clients.is_empty() => self.ask_for_role(node),
            Err(_) => {}
        }
    }

    /// Whether clients need this node to be primary, as far as they may.
    ///
    /// Where nodes decide alone, clients that were let in while another node was primary do not take the role from it when it is out of
    /// sight: it may well go on, and each side would write (rule Q2). Only its own word ends its reign for them, or its return as a secondary. A
    /// client that comes anew decides as it does without forwarding.
    fn is_role_wanted(&self) -> bool {
        let anew = !self.wanting.is_empty() || self.visitors.values().any(|visitor| visitor.wish.waits);
        let before = !self.clients.is_empty() || !self.visitors.is_empty();
        anew || before && (self.is_over() || mutated(Mutant::GuestsDecide))
    }

    /// Whether the last primary's reign is over, or somebody else decides about that.
    pub(super) fn is_over(&self) -> bool {
        let primary = self.record.as_ref().and_then(|r| r.primary);
        let seen = |node| self.peer_at(node).is_some_and(|at| self.peers[at].is_connected());
        !self.is_off() || primary.is_none_or(|node| node == self.id.node || seen(node))
    }

    /// Whether this node may become primary, and with which in-sync set; else why not.
    pub(super) fn promotable(&self) -> Result<crate::units::Membership, AttachError> {
        let no_data = |why: String| Err(AttachError::NoData(why));
        let (Some(record), Some(store)) = (&self.record, &self.store) else {
            return no_data("this node has no replica that was ever in sync".into());
        };
        if !self.record_read {
            return Err(AttachError::NoQuorum);
        }
        if store.failed || store.superblock.inconsistent && !mutated(Mutant::PromoteAnybody) {
            return no_data(format!("the replica on this node is {}", store.disk()));
        }
        let alive = |p: &&Peer| p.is_connected() && p.is_primary();
        if let Some(peer) = self.peers.iter().find(alive) {
            if !self.am_member() {
                // It has to be brought up to date first, by that very primary.
                return no_data(format!("node {} brings the replica on this node up to date", peer.settings.name));
            }
            return Err(AttachError::InUse(peer.node));
        }
        if let Some(peer) = self.follow.primary {
            return Err(AttachError::InUse(self.peers[peer].node));
        }
        if self.primary_may_return() > Some(self.now) {
            return no_data("the primary was lost a moment ago and may come back".into());
        }
        if self.am_member() || mutated(Mutant::PromoteAnybody) {
            return self.as_member(record);
        }
        self.as_last_of_all(record)
    }

    /// Until when a primary whose connection has just broken is given the time to come back. Without it every short break would be a
    /// race for the role, and a live primary with clients could lose it.
    pub(super) fn primary_may_return(&self) -> Option<Instant> {
        let primary = self.record.as_ref()?.primary.filter(|p| *p != self.id.node)?;
        let peer = &self.peers[self.peer_at(primary)?];
        if peer.hopeless || peer.is_connected() {
            return None;
        }
        let grace = self.settings.timeouts.reconnect * 4;
        Some(peer.lost.unwrap_or(self.started).after(grace))
    }

    /// A member that did not restart uncleanly has everything. One that stopped while others went on does not know whether they
    /// wrote (rule Q7).
    fn as_member(&self, record: &Record) -> Result<crate::units::Membership, AttachError> {
        let store = self.store.as_ref().expect("a member has a replica");
        if store.superblock.outdated && self.is_off() {
            let missing = self.missing(record);
            if !missing.is_empty() {
                let why = format!("this replica stopped while others went on; it has to meet {missing} first");
                return Err(AttachError::NoData(why));
            }
        }
        let mut in_sync = record.in_sync.clone();
        in_sync.insert(self.id.node, store.superblock.incarnation);
        for peer in self.peers.iter().filter(|p| p.is_connected() && p.is_member_of(record)) {
            in_sync.extend(peer.incarnation().map(|i| (peer.node, i)));
        }
        Ok(in_sync)
    }

    /// Every member has restarted uncleanly: then, and only when all of them are there to be asked, the copy of one that has heard of the
    /// last reign stands, the last primary's before others', the lowest node's before higher ones' (rule M3).
    fn as_last_of_all(&self, record: &Record) -> Result<crate::units::Membership, AttachError> {
        let missing = self.missing(record);
        if !record.in_sync.contains_key(&self.id.node) {
            return Err(AttachError::NoData("the replica on this node is not in sync".into()));
        }
        if !missing.is_empty() && !mutated(Mutant::LastOfSome) {
            let why = format!("this node was not stopped cleanly; it waits for {missing}");
            return Err(AttachError::NoData(why));
        }
        let good = self.peers.iter().find(|p| p.is_connected() && p.is_member_of(record));
        if let Some(peer) = good {
            return Err(AttachError::NoData(format!("the newest data is on node {}", peer.settings.name)));
        }
        // A disk that was replaced has nothing, and one that holds an old image has not heard of the last reign: neither stands for the
        // replica that the record means, though it was the primary's.
        let heard = |node: NodeId| self.synced_of(node) >= Some(record.reign) || mutated(Mutant::LastPrimaryWhatever);
        let able =
            record.in_sync.keys().copied().filter(|&n| self.synced_of(n).is_some() || mutated(Mutant::LastPrimaryWhatever));
        let chosen = able.max_by_key(|&node| (heard(node), record.primary == Some(node), std::cmp::Reverse(node)));
        if chosen != Some(self.id.node) {
            return Err(AttachError::NoData("another node was the last primary; attach there first".into()));
        }
        let incarnation = self.store.as_ref().map_or(Incarnation(0), |s| s.superblock.incarnation);
        Ok([(self.id.node, incarnation)].into())
    }

    /// The number of the last record that had a node's replica in sync, as its metadata says.
    fn synced_of(&self, node: NodeId) -> Option<u64> {
        if node == self.id.node {
            return self.store.as_ref()?.superblock.synced.map(|(number, _)| number);
        }
        let replica = self.peers[self.peer_at(node)?].standing.as_ref()?.replica?;
        replica.synced.map(|point| point.number)
    }

    /// The names of the other members that are not connected.
    fn missing(&self, record: &Record) -> String {
        let away =
            |node: &&NodeId| **node != self.id.node && self.peer_at(**node).is_none_or(|at| !self.peers[at].is_connected());
        let name = |node: &NodeId| match self.settings.peers.get(node) {
            Some(peer) => peer.name.to_string(),
            None => format!("node {node}"),
        };
        record.in_sync.keys().filter(away).map(name).collect::<Vec<_>>().join(", ")
    }

    /// Whether a connected replica needs to be brought up to date, or the record names one that is to go, and it falls to this node to
    /// see to that: there is no primary, and no connected node with a lower number could.
    fn has_sync_duty(&self) -> bool {
        let Some(record) = &self.record else { return false };
        let needs = |p: &Peer| {
            let same = p.standing.as_ref().and_then(|s| s.record.as_ref()).map(|r| r.id) == Some(record.id)
                || p.standing.as_ref().is_some_and(|s| s.record.is_none());
            let awaited = p.settings.diskful && !p.settings.leaving && !p.settings.paused;
            awaited && p.is_connected() && same && !p.is_member_of(record) && p.disk() > Some(DiskState::Failed)
        };
        let leaves = |node: &NodeId| *node != self.id.node && self.settings.peers.get(node).is_none_or(|peer| peer.leaving);
        let removed = record.in_sync.keys().any(leaves);
        if !removed && !self.peers.iter().any(needs) {
            return false;
        }
        let lower = |p: &Peer| p.node < self.id.node && !p.settings.leaving && p.is_connected() && p.is_member_of(record);
        !self.am_member() || !self.peers.iter().any(lower)
    }

    /// Asks a primary that nobody uses to give the role up.
    fn ask_for_role(&mut self, node: NodeId) {
        let Some(at) = self.peer_at(node) else { return };
        if self.peers[at].standing.as_ref().is_some_and(|s| s.in_use) {
            // It takes this node's requests.
            return;
        }
        if self.asked_elsewhere.is_none_or(|until| until <= self.now) {
            self.asked_elsewhere = Some(self.now.after(ASK_AGAIN));
            self.send(at, Message::StepDown);
        }
    }

    /// The primary is in use on another node, and keeps the role: it takes this node's requests.
    pub(super) fn in_use_elsewhere(&mut self, at: usize) {
        if let Some(standing) = &mut self.peers[at].standing {
            standing.in_use = true;
        }
    }

    pub(super) fn asked_to_step_down(&mut self, at: usize) {
        // A hold is over in a moment, and whoever asks for the role asks again.
        let Some(reign) = self.reign.as_mut().filter(|_| self.hold.is_none()) else { return };
        let guests = !reign.guests.is_empty() || !self.visitors.is_empty();
        if self.clients.is_empty() && self.wanting.is_empty() && !guests {
            // The linger is for clients of this node; another node's client has come. It goes before a comparison, too.
            reign.yield_role = true;
            self.give_up_verify();
        } else {
            self.send(at, Message::InUse);
        }
    }

    /// Tells clients that have waited long enough why they cannot attach.
    pub(super) fn refuse_impatient(&mut self) {
        let late: Vec<ClientId> = self.wanting.iter().filter(|(_, w)| w.until <= self.now).map(|(c, _)| *c).collect();
        if late.is_empty() {
            return;
        }
        let why = match self.promotable() {
            _ if self.reign.as_ref().is_some_and(|r| r.phase == Phase::Serving) => {
                AttachError::NoData("what clients that are gone have written is still under way".into())
            }
            Err(_) if !self.forward.why.is_empty() => AttachError::NoData(self.forward.why.clone()),
            Err(why) => why,
            Ok(_) if self.is_off() => AttachError::NoData("a peer has not answered".into()),
            Ok(_) => AttachError::NoQuorum,
        };
        for client in late {
            self.wanting.remove(&client);
            self.out.push(Command::Attached { client, result: Err(why.clone()) });
        }
    }

    /// A primary that nobody needs gives the role up (after a while, or at once when somebody else wants it).
    pub(super) fn consider_idleness(&mut self) {
        let syncing = self.is_syncing();
        let used = self.is_in_use() || self.has_hold() || self.is_verifying();
        let stopping = self.stopping != Stopping::No;
        let now = self.now;
        if let Some(heir) = self.consider_heir().filter(|_| !stopping) {
            return self.step_down_for(heir);
        }
        if stopping && self.reign.as_ref().is_some_and(|r| r.phase != Phase::TakingOver) {
            self.dismiss_guests();
        }
        let Some(reign) = &mut self.reign else { return };
        if used && !stopping {
            reign.idle_since = None;
            reign.yield_role = false;
        } else if reign.phase == Phase::Serving {
            let since = *reign.idle_since.get_or_insert(now);
            let linger = !syncing && since.after(LINGER) <= now;
            if linger || reign.yield_role || stopping {
                reign.step_down();
            }
        }
    }

    /// The role goes to the only node whose clients use the resource.
    fn step_down_for(&mut self, heir: usize) {
        self.dismiss_guests();
        if let Some(reign) = &mut self.reign {
            reign.guests.heir = Some(heir);
            reign.step_down();
        }
    }

    /// When the role is given up unless somebody comes.
    pub(super) fn linger_until(&self) -> Option<Instant> {
        let reign = self.reign.as_ref()?;
        let syncing = self.is_syncing();
        (!syncing && reign.phase == Phase::Serving).then(|| reign.idle_since.map(|since| since.after(LINGER)))?
    }
}
