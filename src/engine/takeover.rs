//! A reign from its first moment to its last (rules P1 to P6, F3).

use crate::units::{Record, Role};
use crate::wire::{Message, Report};

use super::change::Purpose;
use super::core::{Engine, Stopping};
use super::event::{BufferId, Command, Failure};
use super::link::Links;
use super::mutant::{Mutant, mutated};
use super::peer::Session;
use super::reign::{Asker, Phase, Reign};
use super::requests::{range_of, release_buffer};
use super::store::Then;

impl Engine {
    /// The record names this node primary: a reign begins.
    pub(super) fn begin_reign(&mut self, links: &Links, old: Option<&Record>) {
        let record = self.record.clone().expect("a record was just granted");
        self.before_reign(links, old, &record);
        self.unsettled.begin_reign();
        if let Some(store) = &mut self.store {
            store.activity.begin_reign();
        }
        self.reign = Some(Box::new(Reign::new(record.reign, self.now)));
        // What this node may have and others have not, or the reverse: its memory, and where its own log says so (rules P2, P5).
        let mine = self.unsettled.all().filter(|_| !mutated(Mutant::OwnMemoryIgnored)).collect::<Vec<_>>();
        let suspects: Vec<_> = self.within_volumes(&mine);
        let hot = if mutated(Mutant::HotIsCleanForAbsent) { Vec::new() } else { self.hot_ranges() };
        for peer in &mut self.peers {
            peer.session = Session::None;
            peer.data = false;
            peer.durable = 0;
            peer.sent = 0;
            peer.reported = false;
            peer.sync = None;
            let member = record.in_sync.contains_key(&peer.node);
            if member {
                // A member has everything but the last writes of the reign before; old bits are of its absences before that.
                peer.dirty.clear_all();
            }
            let ranges = if member { suspects.iter() } else { hot.iter() };
            ranges.chain(suspects.iter()).for_each(|range| peer.dirty.set(*range));
        }
        self.refresh_ack_set();
        self.begin_applied(record.reign);
        self.adopt_forwarded();
    }

    /// An older primary that this node followed may still hold a lease, and must hear that its reign is over.
    fn before_reign(&mut self, links: &Links, old: Option<&Record>, record: &Record) {
        let new = std::mem::replace(&mut self.record, old.cloned());
        self.fence(links, record);
        self.record = new;
        self.stop_following();
    }

    fn hot_ranges(&self) -> Vec<crate::units::BlockRange> {
        let Some(store) = &self.store else { return Vec::new() };
        let range = |e: crate::units::Extent| e.range(super::core::volume_blocks(&self.settings, e.volume));
        store.activity.hot_extents().into_iter().filter_map(range).collect()
    }

    /// Everything a primary looks after, in order of what the next step may need.
    pub(super) fn consider_reign(&mut self, links: &Links) {
        self.refresh_ack_set();
        self.open_sessions();
        self.consider_membership();
        self.consider_serving();
        self.admit_waiting();
        // Before resyncs: they wait until the members are equal (rule R6).
        self.consider_equal();
        self.consider_syncs();
        self.consider_admission();
        self.retry_held();
        self.consider_unread();
        self.consider_idleness();
        self.consider_cooling();
        self.consider_flush();
        self.consider_step_down();
        self.tell_settled();
        self.consider_reads(links);
    }

    /// Asks every connected replica that goes by the same record to follow.
    fn open_sessions(&mut self) {
        let id = self.record.as_ref().map(|r| r.id);
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            let idle = matches!(peer.session, Session::None);
            let fits = peer.holds_all(&self.settings.volumes);
            let same = idle && peer.standing.as_ref().and_then(|s| s.record.as_ref()).map(|r| r.id) == id;
            let able = peer.disk() > Some(crate::units::DiskState::Failed) && !peer.is_primary();
            let opens = same && peer.is_connected() && able;
            peer.narrow = (opens && !fits).then(|| peer.narrow.unwrap_or(self.now));
            if opens && fits {
                let session = self.ids.draw();
                peer.session = Session::Opening { name: session, report: Vec::new() };
                let record = self.record.clone().expect("a primary has a record");
                self.send(at, Message::Open { session, record });
            }
        }
    }

    /// A message to a primary from a replica.
    pub(super) fn hear(&mut self, at: usize, reign: u64, message: Message, payload: Option<BufferId>) {
        let current = self.reign.as_ref().is_some_and(|r| r.number == reign || mutated(Mutant::HearAnybody));
        if !current || matches!(self.peers[at].session, Session::None) {
            self.out.extend(payload.map(Command::Release));
            return;
        }
        match message {
            Message::ReportRanges { session, ranges } => {
                if let Session::Opening { name, report } = &mut self.peers[at].session
                    && *name == session
                {
                    report.extend(ranges);
                }
            }
            Message::Report(report) => self.reported(at, report),
            _ if !self.peers[at].is_ready() => self.out.extend(payload.map(Command::Release)),
            Message::Written { seqs } => self.written_by(at, &seqs),
            Message::Received { seqs } => self.received_by(at, &seqs),
            Message::Flushed { id, durable } => self.flushed_by(at, id, durable),
            Message::ReadReply { id, ok } => self.remote_read_done(at, id, ok, payload),
            Message::SyncReady => self.sync_ready(at),
            Message::Hashes { id, hashes } => self.hashes_of(at, id, hashes),
            Message::Cooled { id } => self.cooled_by(at, id),
            Message::AdmitStored { id } => self.admit_stored(at, id),
            other => debug_assert!(false, "{other:?} is not for a primary"),
        }
    }

    /// A replica follows. What it said decides what it lacks (rules M5, P2, M6).
    fn reported(&mut self, at: usize, report: Report) {
        let Some(record) = self.record.clone() else { return };
        let ranges = match &mut self.peers[at].session {
            Session::Opening { name, report: ranges } if *name == report.session => std::mem::take(ranges),
            _ => return,
        };
        if record.reign != self.reign.as_ref().map_or(0, |r| r.number) {
            return;
        }
        let ranges = self.within_volumes(&ranges);
        let peer = &mut self.peers[at];
        peer.session = Session::Ready { since: self.now };
        let incarnation = peer.incarnation();
        let again = std::mem::replace(&mut peer.reported, true);
        let member = peer.is_member_of(&record);
        if member && again {
            // A short break, perhaps with a clean restart: nothing was decided in between, so what it has not acknowledged is all that it
            // may lack (rule W6).
        } else if member {
            self.lease_until(report.lease_left);
            if !mutated(Mutant::ReportsIgnored) {
                self.unite(&ranges);
            }
        } else {
            ranges.iter().for_each(|range| self.peers[at].dirty.set(*range));
            if !self.bitmap_serves(at) && !mutated(Mutant::BitmapServesAll) {
                self.peers[at].dirty.fill();
            }
        }
        let recorded = record.in_sync.get(&self.peers[at].node);
        // Until all are equal, the receiver may lack what this node has (rule P2).
        self.tell_applied(at, mutated(Mutant::AppliedUnequal));
        if member && (recorded == incarnation.as_ref() || mutated(Mutant::RestartNotRenewed)) {
            self.resume(at);
        }
    }

    fn lease_until(&mut self, left: u64) {
        let until = self.now.after(std::time::Duration::from_nanos(left));
        self.follow.lease_until = self.follow.lease_until.max(Some(until));
    }

    /// A member's memory of the reign before: those blocks are made equal on all members, with this node's copy, and are dirty for
    /// everybody else (rule P2).
    fn unite(&mut self, ranges: &[crate::units::BlockRange]) {
        for range in ranges {
            self.unsettled.note_older(*range);
            for peer in self.peers.iter_mut().filter(|p| p.settings.diskful) {
                peer.dirty.set(*range);
            }
        }
        if let Some(reign) = self.reign.as_mut().filter(|_| !ranges.is_empty()) {
            reign.equal = false;
            reign.uniting += 1;
            // The member will forget them when all are equal; those who are away must not depend on this node's memory then.
            let reign = reign.number;
            if mutated(Mutant::UnitedUnstored) {
                self.united(reign);
            } else {
                self.store_maps(Then::United { reign });
            }
        }
    }

    pub(super) fn united(&mut self, number: u64) {
        if let Some(reign) = self.reign.as_mut().filter(|r| r.number == number) {
            reign.uniting -= 1;
        }
    }

    /// Whether the bits kept for a replica say all that it lacks: it was in sync at their base or later (rule M6).
    fn bitmap_serves(&self, at: usize) -> bool {
        let peer = &self.peers[at];
        let synced = peer.standing.as_ref().and_then(|s| s.replica).and_then(|r| r.synced);
        let slot = self.store.as_ref().and_then(|s| s.superblock.peers.iter().find(|p| p.node == peer.node));
        match (synced, slot.and_then(|s| s.base)) {
            (Some(synced), Some((number, id))) => {
                let on_line = !self.is_off() || synced.id == id || self.is_ancestor(synced.id);
                synced.number >= number && on_line
            }
            _ => false,
        }
    }

    fn is_ancestor(&self, id: crate::units::RecordId) -> bool {
        self.lineage.contains(&id) || self.record.as_ref().is_some_and(|r| r.id == id)
    }

    /// Serves when every member has reported or was evicted, and every older lease has ended.
    fn consider_serving(&mut self) {
        let Some(record) = &self.record else { return };
        let reported =
            |node: &crate::units::NodeId| *node == self.id.node || self.peer_at(*node).is_some_and(|at| self.peers[at].data);
        let all = record.in_sync.keys().all(reported);
        let leased = self.follow.lease_until.is_some_and(|until| until > self.now) && !mutated(Mutant::SkipLeaseWait);
        let Some(reign) = self.reign.as_mut().filter(|r| r.phase == Phase::TakingOver) else { return };
        if !all || leased || reign.uniting > 0 {
            return;
        }
        reign.phase = Phase::Serving;
        self.follow.lease_until = None;
    }

    /// Whether a member lacks blocks that another has.
    pub(super) fn members_are_unequal(&self) -> bool {
        let Some(record) = &self.record else { return false };
        self.peers.iter().any(|p| record.in_sync.contains_key(&p.node) && !p.dirty.is_clear())
    }

    /// When all members are equal and that is durable, what was remembered from older reigns can be forgotten everywhere (rule P4).
    fn consider_equal(&mut self) {
        let unequal = self.members_are_unequal();
        let Some(reign) = self.reign.as_mut().filter(|r| r.phase != Phase::TakingOver && !r.equal) else { return };
        let equalizing = reign.chunks.keys().next().is_some();
        if unequal || equalizing {
            reign.equal_from = None;
            return;
        }
        match reign.equal_from {
            None => {
                // One whole round that begins from now on.
                reign.equal_from = Some(reign.flushes.ended + u64::from(reign.flushes.is_running()));
                reign.flushes.wanted = true;
            }
            Some(from) if reign.flushes.ended > from || mutated(Mutant::EqualUnflushed) => {
                reign.equal = true;
                self.unsettled.settle_older();
                for at in 0..self.peers.len() {
                    self.tell_equal(at);
                }
            }
            Some(_) => {}
        }
    }

    /// Tells a member that nothing of older reigns need be remembered. A target remembers until its admission (rule M5).
    pub(super) fn tell_equal(&mut self, at: usize) {
        let Some(seq) = self.reign.as_ref().filter(|r| r.equal).map(|r| r.settled) else { return };
        let member = self.record.as_ref().is_some_and(|r| r.in_sync.contains_key(&self.peers[at].node));
        if member && self.peers[at].data {
            self.tell_applied(at, true);
            self.send(at, Message::Settled { seq, older: true });
        }
    }

    /// Gives the role up when nothing is in flight, all is durable and cold (rules P4 and W5).
    fn consider_step_down(&mut self) {
        let hot = self.store.as_ref().is_some_and(|s| !s.failed && s.activity.hot() > 0);
        let stopping = self.stopping != Stopping::No;
        let used = !self.clients.is_empty() || !self.wanting.is_empty() || !self.visitors.is_empty();
        let wanted_again = !stopping && (used || self.has_hold() || self.is_verifying());
        let Some(reign) = self.reign.as_mut().filter(|r| r.phase == Phase::SteppingDown) else { return };
        if self.change.is_some() {
            return;
        }
        if wanted_again {
            reign.phase = Phase::Serving;
            reign.idle_since = None;
            reign.guests.heir = None;
            self.admit_waiting();
            return;
        }
        let quiet = reign.flights.is_empty()
            && reign.requests.is_empty()
            && reign.chunks.is_empty()
            && reign.cooling.is_none()
            && reign.equal;
        let flushed = reign.flushes.ended > reign.step_down_from && !self.unsettled.has_current();
        let flushed = flushed || mutated(Mutant::StepDownUnflushed);
        if !quiet || !flushed || hot {
            return;
        }
        let Some(record) = self.record.clone() else { return };
        let mut next = record.next(self.ids.record());
        next.primary = None;
        // The lease is dropped before anybody is told: from here on nothing is read (rule F3).
        self.propose(next, Purpose::StepDown);
    }

    /// The record names no primary: this node is a secondary now.
    pub(super) fn stepped_down(&mut self) {
        self.end_reign();
    }

    /// Another node's reign has begun: what this one has not completed is unknown to its clients.
    pub(super) fn depose(&mut self) {
        if self.reign.is_some() && !mutated(Mutant::NeverDeposed) {
            self.fail_everything();
            self.drop_clients();
            self.end_reign();
        }
    }

    fn end_reign(&mut self) {
        let Some(reign) = self.reign.take() else { return };
        let mut reign = *reign;
        // What was not confirmed durable on a replica is dirty for it: the next reign, here perhaps, begins without the windows.
        let mut folded = false;
        for peer in self.peers.iter_mut().filter(|p| p.data && !mutated(Mutant::WindowNotFolded)) {
            for range in self.unsettled.since(peer.durable) {
                peer.dirty.set(range);
                folded = true;
            }
        }
        if folded {
            self.store_maps(Then::Nothing);
        }
        for seq in reign.flights.seqs() {
            if let Some(flight) = reign.flights.remove(seq) {
                if let super::flights::What::Data(buffer) = flight.what {
                    self.out.push(Command::Release(buffer));
                }
                if let (true, Some(store)) = (flight.holds, &mut self.store) {
                    store.activity.release(flight.range);
                }
            }
        }
        for key in reign.chunks.keys().collect::<Vec<_>>() {
            self.out.extend(reign.chunks.remove(key).and_then(|c| c.buffer).map(Command::Release));
        }
        for peer in &mut self.peers {
            peer.session = Session::None;
            peer.data = false;
            peer.sync = None;
            peer.reported = false;
        }
    }

    /// Fails every request that is not answered. Writes in flight go on: whether they count is for the next primary to find out.
    pub(super) fn fail_everything(&mut self) {
        let Some(reign) = &mut self.reign else { return };
        let keys: Vec<u64> = reign.requests.keys().collect();
        let flying: Vec<u64> = {
            let flights = &mut reign.flights;
            flights.seqs().into_iter().filter(|&s| flights.get_mut(s).is_some_and(|f| !f.answered)).collect()
        };
        for &seq in &flying {
            if let Some(flight) = reign.flights.get_mut(seq) {
                flight.answered = true;
            }
        }
        reign.order.clear();
        reign.held.clear();
        reign.heating.clear();
        reign.latched.clear();
        reign.remote.clear();
        reign.unread.clear();
        reign.unleased.clear();
        for key in keys {
            let Some(reign) = &mut self.reign else { return };
            let Some(pending) = reign.requests.remove(key) else { continue };
            let flying = pending.state == super::reign::State::Flying;
            if let (false, true, Some(store)) = (flying, pending.holds, &mut self.store) {
                store.activity.release(range_of(&pending.request).expect("only what changes blocks holds extents hot").0);
            }
            if !flying {
                release_buffer(&mut self.out, &pending.request);
            }
            // A guest asks the next primary.
            if let Asker::Client { id, .. } = pending.asker {
                self.out.push(Command::Complete { id, result: Err(Failure::Io) });
            }
        }
        // Of those that were on their way nowhere, because the disk has failed and there is no other, nothing else will tell the end.
        for seq in flying {
            self.check_flight(seq);
        }
    }

    /// This node's role.
    pub(super) fn role(&self) -> Role {
        if self.reign.is_some() { Role::Primary } else { Role::Secondary }
    }
}
