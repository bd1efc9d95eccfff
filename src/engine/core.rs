//! The engine itself: what it owns, and how an event finds its way.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::Loaded;
use crate::units::{Authority, DiskState, Instant, NodeId, Record, RecordId, ResourceId, Sharing, VolumeId, blocks_of};
use crate::wire::Message;

use super::activity::Activity;
use super::applied::Applied;
use super::change::{Change, Court};
use super::configure::Bitmaps;
use super::discard::{Discarding, Sides};
use super::entry::{Visitor, Wanting};
use super::event::{AttachError, ClientId, Command, DiskOutcome, Event, OpId};
use super::follow::Follow;
use super::forward::Forward;
use super::hold::Hold;
use super::ids::Ids;
use super::link::Links;
use super::mutant::{Mutant, mutated};
use super::ops::{Op, Ops};
use super::peer::Peer;
use super::peerset::{PEERS_MAX, PeerSet};
use super::promote::Promoting;
use super::reign::Reign;
use super::reshape::Reshape;
use super::settings::{Identity, Settings};
use super::store::{Store, Then};
use super::unsettled::Unsettled;
use super::verify::Verify;

/// One resource on one node.
///
/// The engine decides and does nothing: it has no clock, socket or disk. Drive it like this:
///
/// 1. [`start`](Self::start) it with what was read from the metadata area, if the node has a replica, and hand in a first
///    [`Event::Timeout`]: what can be done without anybody else is done then.
/// 2. For everything that happens call [`handle`](Self::handle) with the moment and the connections' leases. Moments never go back.
/// 3. After one or several events call [`take_commands`](Self::take_commands) and carry the commands out.
///    Acknowledgements are gathered until then, so that a batch of events costs one message.
/// 4. When [`timeout`](Self::timeout) has come, hand in [`Event::Timeout`].
///
/// Nothing is lost when a command is carried out late, only time. A command must not be left out, except that messages to a
/// peer whose connection is gone go nowhere.
#[derive(Debug)]
pub struct Engine {
    pub(super) id: Identity,
    pub(super) settings: Settings,
    pub(super) now: Instant,
    pub(super) started: Instant,
    pub(super) ids: Ids,
    pub(super) out: Vec<Command>,
    pub(super) ops: Ops,
    /// The local replica; `None` on a node without one.
    pub(super) store: Option<Store>,
    pub(super) record: Option<Record>,
    pub(super) lineage: Vec<RecordId>,
    /// No other node has heard of the present record, so that none can ever name it as an ancestor.
    pub(super) private: bool,
    /// The record before the present one, while a proposal of a peer may still be withdrawn.
    pub(super) before: Option<(Record, Vec<RecordId>)>,
    pub(super) peers: Vec<Peer>,
    pub(super) change: Option<Change>,
    pub(super) unsettled: Unsettled,
    /// What this node does as primary; `None` in a secondary.
    pub(super) reign: Option<Box<Reign>>,
    /// What this node does as a replica of another primary.
    pub(super) follow: Follow,
    pub(super) clients: BTreeSet<ClientId>,
    /// With whom they share; all of them with the same.
    pub(super) sharing: Sharing,
    /// Since when clients wait for what only a quorum allows, where they are to get errors then.
    pub(super) starved_since: Option<Instant>,
    /// How often the sessions of all clients were ended.
    pub(super) dropped: u64,
    /// What this node forwards for its clients while it is not primary.
    pub(super) forward: Forward,
    /// Nodes that want their clients' requests taken here.
    pub(super) visitors: BTreeMap<usize, Visitor>,
    /// Forwarded writes that were done here.
    pub(super) applied: Applied,
    /// Clients that wait to be let in.
    pub(super) wanting: BTreeMap<ClientId, Wanting>,
    /// Writes are held, or are to be.
    pub(super) hold: Option<Hold>,
    /// The replicas are compared, or were.
    pub(super) verify: Verify,
    /// The present record was learned from the cluster's authority in this life, or that is not needed.
    pub(super) record_read: bool,
    pub(super) read_again: Option<Instant>,
    /// A change by this node alone that needs no disk to be made.
    pub(super) own_grant_due: Option<RecordId>,
    /// Somebody else was asked to store the change that is under way.
    pub(super) asked_somebody: bool,
    /// What this node has is to be discarded for what a peer has; and a peer that discards what it has for this node's.
    pub(super) discarding: Option<Discarding>,
    /// An operator wants the role for this node.
    pub(super) promoting: Option<Promoting>,
    pub(super) kept_for: Option<usize>,
    /// What the sides of a split brain have told each other.
    pub(super) sides: Option<Sides>,
    /// An own proposal that is stored here, while the peers are asked.
    pub(super) own_stored: Option<RecordId>,
    /// Until when a clean end is tried for.
    pub(super) stop_by: Option<Instant>,
    /// The peers were told that this node stops.
    pub(super) left: bool,
    /// Until when a peer that was asked to step down is waited for.
    pub(super) asked_elsewhere: Option<Instant>,
    pub(super) stopping: Stopping,
    /// Continuations that had nothing to wait for.
    pub(super) ready: Vec<Then>,
    /// A change of the volumes that is on its way to the metadata, and how many there were.
    pub(super) reshape: Option<Reshape>,
    pub(super) shapes: u64,
    /// What was configured while one was under way.
    pub(super) next_settings: Option<Settings>,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Stopping {
    #[default]
    No,
    /// The primary role is being given up and what is under way drained.
    Draining,
    /// The last flush is under way.
    Flushing,
    /// The maps, then the superblock are being written.
    Storing,
    /// Told.
    Stopped,
}

impl Engine {
    /// An engine for a resource. `replica` is what [`crate::format`] has read from the metadata area.
    ///
    /// A replica that did not stop cleanly begins a new life that continues nothing (rule M3); that is written before anything else.
    ///
    /// # Panics
    ///
    /// When `settings` names more than 31 peers.
    pub fn start(id: Identity, settings: Settings, replica: Option<Loaded>, now: Instant) -> Self {
        assert!(settings.peers.len() <= PEERS_MAX, "a resource has at most {PEERS_MAX} peers");
        // Of two engines of one node none says what the other has said: the one before may have ended sessions, too.
        let dropped = (id.seed[0] ^ id.seed[1].rotate_left(32)) >> 1;
        let ids = Ids::new(id.seed);
        let mut engine = Self {
            id,
            settings,
            now,
            started: now,
            ids,
            out: Vec::new(),
            ops: Ops::default(),
            store: None,
            record: None,
            lineage: Vec::new(),
            private: false,
            before: None,
            peers: Vec::new(),
            change: None,
            unsettled: Unsettled::default(),
            reign: None,
            follow: Follow::default(),
            clients: BTreeSet::new(),
            sharing: Sharing::default(),
            starved_since: None,
            dropped,
            forward: Forward::default(),
            visitors: BTreeMap::new(),
            applied: Applied::default(),
            wanting: BTreeMap::new(),
            hold: None,
            verify: Verify::default(),
            record_read: false,
            read_again: None,
            own_grant_due: None,
            asked_somebody: false,
            discarding: None,
            promoting: None,
            kept_for: None,
            sides: None,
            own_stored: None,
            stop_by: None,
            left: false,
            asked_elsewhere: None,
            stopping: Stopping::No,
            ready: Vec::new(),
            reshape: None,
            shapes: 0,
            next_settings: None,
        };
        let mut bitmaps = BTreeMap::new();
        let wanted = engine.settings.volumes.clone();
        if let Some(loaded) = replica {
            // Its maps have the volumes as they were when they were last changed.
            engine.settings.volumes = loaded.superblock.regions.iter().map(|region| (region.volume, region.bytes)).collect();
            bitmaps = engine.adopt_replica(loaded);
        }
        engine.make_peers(&mut bitmaps);
        if let Some(store) = &mut engine.store {
            // Hot means that this replica may differ from anybody there (rule P5), and that it may have what others have not.
            let hot = if mutated(Mutant::HotIsClean) { Vec::new() } else { store.activity.hot_extents() };
            for range in hot.iter().filter_map(|e| e.range(volume_blocks(&engine.settings, e.volume))) {
                engine.unsettled.note_older(range);
                engine.peers.iter_mut().for_each(|peer| peer.dirty.set(range));
            }
            store.store_superblock(Then::Nothing, &mut engine.ops, &mut engine.out);
        }
        engine.begin_reshape(wanted);
        engine.read_record();
        engine
    }

    /// Takes over what was read from disk and begins a new life.
    fn adopt_replica(&mut self, loaded: Loaded) -> Bitmaps {
        let mut superblock = loaded.superblock;
        let recorded = superblock.record.as_ref().and_then(|r| r.in_sync.get(&superblock.node)).copied();
        let continued = recorded.filter(|r| *r == superblock.incarnation || *r == superblock.continues);
        let incarnation = self.ids.incarnation();
        // A life that ended cleanly may be named by a record that it had not heard of: that of its own admission.
        let last = if mutated(Mutant::UnheardIsUnclean) { incarnation } else { superblock.incarnation };
        superblock.continues =
            if superblock.clean || mutated(Mutant::TrustCrashed) { continued.unwrap_or(last) } else { incarnation };
        superblock.incarnation = incarnation;
        superblock.clean = false;
        self.record = superblock.record.clone();
        self.lineage = superblock.lineage.clone();
        let mut activity = Activity::default();
        let mut maps = loaded.activity;
        for region in &superblock.regions {
            if let Some(map) = maps.remove(&region.volume) {
                activity.add(*region, map);
            }
        }
        self.store = Some(Store::new(superblock, loaded.next_slot, activity));
        loaded.dirty
    }

    /// Something has happened at `now`, when the connections of this resource's lane are as `links` says.
    pub fn handle(&mut self, now: Instant, links: &Links, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Attach(client) => self.attach(client, Sharing::Shared),
            Event::AttachAs(client, sharing) => self.attach(client, sharing),
            Event::Detach(client) => self.detach(links, client),
            Event::Request { id, client, request } => self.request(id, client, request),
            Event::LinkUp(node) => self.link_up(node),
            Event::LinkDown { peer, silent } => self.link_down(peer, silent),
            Event::Message { from, reign, message, payload } => self.message(links, from, reign, message, payload),
            Event::DiskDone { op, outcome } => self.disk_done(op, outcome),
            Event::MetaDone { op, ok } => self.meta_done(links, op, ok),
            Event::Answer { ticket, answer } => self.answer(links, ticket, answer),
            Event::Configure(settings) => self.configure(settings),
            Event::Hold { id, lease } => self.hold(id, lease),
            Event::RenewHold { id, lease } => self.renew_hold(id, lease),
            Event::ReleaseHold(id) => self.release_hold(id),
            Event::Operate { id, operation } => self.operate(id, operation),
            Event::Stop => self.stop(),
            Event::Timeout | Event::LeaseRenewed => {}
        }
        self.consider(links);
    }

    /// Takes what is to be done, in order.
    pub fn take_commands(&mut self, into: &mut Vec<Command>) {
        for peer in 0..self.peers.len() {
            self.send_acknowledgements(peer);
        }
        into.append(&mut self.out);
    }

    fn disk_done(&mut self, op: OpId, outcome: DiskOutcome) {
        let Some(op) = self.ops.disk_done(op) else { return };
        match op {
            Op::Read { request } => self.read_done(request, &outcome),
            Op::Edge { request } => self.edge_done(request, &outcome),
            Op::Write { reign, seq } => self.local_write_done(reign, seq, &outcome),
            Op::Flush { reign, round } => self.local_flush_done(reign, round, &outcome),
            Op::Apply { peer, seq, held } => self.applied(peer, seq, held, &outcome),
            Op::PeerFlush { peer, id, durable } => self.peer_flushed(peer, id, durable, &outcome),
            Op::PeerRead { peer, id } => self.peer_read_done(peer, id, &outcome),
            Op::PeerHash { peer, id } => self.peer_hash_done(peer, id, outcome),
            Op::SyncRead { chunk, range } => self.sync_read_done(chunk, range, &outcome),
            Op::SyncHash { chunk } => self.sync_hash_done(chunk, outcome),
            Op::VerifyHash { piece } => self.piece_hashed(piece, outcome),
            Op::LastFlush => self.last_flush_done(&outcome),
            Op::Superblock | Op::ActivityPage { .. } | Op::DirtyPage | Op::Reshape => {
                unreachable!("a metadata operation is not one on data")
            }
        }
    }

    fn meta_done(&mut self, links: &Links, op: OpId, ok: bool) {
        let Some(op) = self.ops.meta_done(op) else { return };
        let Some(store) = &mut self.store else { return };
        if !ok && !mutated(Mutant::LogFailureIgnored) {
            // Without its metadata the replica cannot say what it may lack: it is not asked again (rule W3).
            self.disk_failed();
            return;
        }
        let then = match op {
            Op::Superblock => store.superblock_written(&mut self.ops, &mut self.out),
            Op::DirtyPage => store.dirty_page_written(&mut self.peers, &self.unsettled, &mut self.ops, &mut self.out),
            Op::Reshape => {
                self.reshape_part_written();
                Vec::new()
            }
            Op::ActivityPage { volume, page } => {
                store.activity.written(volume, page);
                self.activity_written();
                Vec::new()
            }
            _ => unreachable!("an operation on data is not one on metadata"),
        };
        then.into_iter().for_each(|then| self.then(links, then));
    }

    pub(super) fn write_activity(&mut self, links: &Links) {
        for then in std::mem::take(&mut self.ready) {
            self.then(links, then);
        }
        let Some(store) = &mut self.store else { return };
        if !store.failed {
            let then = store.write_activity(&mut self.ops, &mut self.out);
            then.into_iter().for_each(|then| self.then(links, then));
        }
    }

    /// Goes on after metadata has become durable.
    fn then(&mut self, links: &Links, then: Then) {
        match then {
            Then::Nothing => {}
            Then::Follow { session } => self.follow_stored(session),
            Then::Accept { peer, id } => self.send(peer, Message::Accepted { id }),
            Then::Grant { id } => self.own_grant(links, id),
            Then::SyncReady { peer } => self.send(peer, Message::SyncReady),
            Then::CoolNow { session, id } => self.cool_now(session, id),
            Then::Cooled { session, id } => self.tell_cooled(session, id),
            Then::AdmitMaps { peer, id } => self.admit_maps_stored(peer, id),
            Then::AdmitActivity { peer, id } => self.admit_activity_stored(peer, id),
            Then::AdmitStored { peer, id } => self.send(peer, Message::AdmitStored { id }),
            Then::CoolOwn { id } => self.cool_own(id),
            Then::United { reign } => self.united(reign),
            Then::Unlatch => self.unlatch(),
            Then::Reshaped => self.regions_named(),
            Then::LastMaps => self.last_maps_stored(),
            Then::Ended => self.ended(true),
        }
    }

    /// Stores the superblock with the present record in it.
    pub(super) fn store_record(&mut self, then: Then) -> bool {
        let Some(store) = &mut self.store else { return false };
        let superblock = &mut store.superblock;
        match &self.change {
            // An own proposal is on its way to this very place: it must not be overtaken by the record that it replaces.
            Some(Change { record, at: Court::Own { storing: true, .. }, .. }) => superblock.record = Some(record.clone()),
            _ => {
                superblock.record.clone_from(&self.record);
                superblock.lineage.clone_from(&self.lineage);
            }
        }
        if let (Some(record), Some(parted)) = (&superblock.record, &mut superblock.parted) {
            // Noted with the first write, in one with the record that says so (rule Q3).
            parted.written |= record.id != parted.id && !record.unwritten;
        }
        if let Some(record) = &self.record
            && let Some(&recorded) = record.in_sync.get(&superblock.node)
            && (recorded == superblock.incarnation || recorded == superblock.continues)
        {
            superblock.continues = recorded;
            superblock.synced = Some((record.number, record.id));
            superblock.inconsistent = false;
            // Whoever admits it after it has left goes on without it: that it was in sync a moment ago is no news (rule Q7).
            superblock.outdated &= self.left;
        }
        store.store_superblock(then, &mut self.ops, &mut self.out);
        true
    }

    /// Stores the dirty bitmaps, then goes on.
    pub(super) fn store_maps(&mut self, then: Then) {
        let Some(store) = self.store.as_mut().filter(|s| !s.failed) else { return };
        let ready = store.store_maps(then, &mut self.peers, &self.unsettled, &mut self.ops, &mut self.out);
        self.ready.extend(ready);
    }

    /// Sends a message within the present reign.
    pub(super) fn send(&mut self, peer: usize, message: Message) {
        self.send_with(peer, message, None);
    }

    /// Sends a message with a payload.
    pub(super) fn send_with(&mut self, peer: usize, message: Message, payload: Option<super::BufferId>) {
        let reign = self.record.as_ref().map_or(0, |r| r.reign);
        if self.peers[peer].link {
            self.out.push(Command::Send { to: self.peers[peer].node, reign, message, payload });
        }
    }

    /// Whether this node's replica is in the in-sync set in this life (rule M3).
    pub(super) fn am_member(&self) -> bool {
        let (Some(store), Some(record)) = (&self.store, &self.record) else { return false };
        let recorded = record.in_sync.get(&self.id.node);
        let alive = recorded == Some(&store.superblock.incarnation) || recorded == Some(&store.superblock.continues);
        (alive || recorded.is_some() && mutated(Mutant::MemberByName)) && !store.failed
    }

    /// Whether the local disk can be read and written.
    pub(super) fn has_disk(&self) -> bool {
        self.store.as_ref().is_some_and(|s| !s.failed)
    }

    /// The replica's disk state as an operator sees it.
    pub(super) fn disk_state(&self) -> DiskState {
        match &self.store {
            None => DiskState::Diskless,
            Some(store) => store.disk(),
        }
    }

    pub(super) fn peer_at(&self, node: NodeId) -> Option<usize> {
        self.peers.iter().position(|p| p.node == node)
    }

    /// The peers for which `holds` is true.
    pub(super) fn peers_that(&self, holds: impl Fn(&Peer) -> bool) -> PeerSet {
        self.peers.iter().enumerate().filter(|(_, p)| holds(p)).map(|(at, _)| at).collect()
    }

    pub(super) fn is_off(&self) -> bool {
        self.record.as_ref().map_or(self.settings.authority, |r| r.authority) == Authority::Off
    }

    /// The resource, for messages.
    pub fn resource(&self) -> ResourceId {
        self.id.resource
    }

    /// Refuses a client, or lets it in.
    pub(super) fn attached(&mut self, client: ClientId, result: Result<(), AttachError>) {
        if result.is_ok() {
            self.clients.insert(client);
        }
        self.out.push(Command::Attached { client, result });
    }
}

pub(super) fn volume_blocks(settings: &Settings, volume: VolumeId) -> u64 {
    settings.volumes.get(&volume).map_or(0, |&bytes| blocks_of(bytes))
}
