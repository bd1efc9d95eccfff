//! A peer, as an engine sees it.

use std::collections::BTreeMap;

use crate::units::{BlockRange, DiskState, Incarnation, Instant, NodeId, Record, Role, VolumeId, blocks_of};
use crate::wire::Standing;

use super::dirty::Dirty;
use super::flush::FlushAsked;
use super::mutant::{Mutant, mutated};
use super::resync::Sync;
use super::settings;
use super::standing::Gist;
use super::status::Connection;

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) settings: settings::Peer,
    /// There is a connection between the nodes.
    pub(super) link: bool,
    /// This engine's name for the session, and the peer's; 0 for none.
    pub(super) token: u64,
    pub(super) their_token: u64,
    /// What the peer has said of itself in this session.
    pub(super) standing: Option<Standing>,
    /// The standing that was last sent to it in this session.
    pub(super) told: Option<Gist>,
    pub(super) connection: Connection,
    pub(super) session: Session,
    /// It is sent writes. Set when its session is ready and its membership clear, so that nothing overtakes what it missed.
    pub(super) data: bool,
    /// When the connection was lost; `None` while there is one.
    pub(super) lost: Option<Instant>,
    /// It need not be waited for: it was silent too long, stops, or its disk failed.
    pub(super) hopeless: bool,
    /// It was connected in this engine's life.
    pub(super) seen: bool,
    /// The volumes that it said last it can take writes for, in bytes (rule V1).
    pub(super) volumes: BTreeMap<VolumeId, u64>,
    /// Primary: it is connected and lacks a volume, or a part of one, since then.
    pub(super) narrow: Option<Instant>,
    /// Primary: every write of this reign up to here is durable there.
    pub(super) durable: u64,
    /// Primary: the last write that was sent to it in this reign, and what it was to flush last.
    pub(super) sent: u64,
    pub(super) flush_asked: FlushAsked,
    /// Primary: it has reported as a member in this reign, and was not evicted since.
    pub(super) reported: bool,
    /// Blocks that it lacks or may lack.
    pub(super) dirty: Dirty,
    /// Primary: its resync.
    pub(super) sync: Option<Sync>,
    /// Replica: acknowledgements to be sent to it.
    pub(super) written: Vec<u64>,
    pub(super) received: Vec<u64>,
}

/// The session of a primary with a peer.
#[derive(Debug, Default)]
pub(super) enum Session {
    /// None, or not asked for.
    #[default]
    None,
    /// Asked to follow; its report so far.
    Opening { name: u64, report: Vec<BlockRange> },
    /// Open since then: a lease that was asked for later covers it.
    Ready { since: Instant },
}

impl Peer {
    pub(super) fn new(node: NodeId, settings: settings::Peer, dirty: Dirty) -> Self {
        Self {
            node,
            settings,
            link: false,
            token: 0,
            their_token: 0,
            standing: None,
            told: None,
            connection: Connection::Connecting,
            session: Session::None,
            data: false,
            lost: None,
            hopeless: false,
            seen: false,
            volumes: BTreeMap::new(),
            narrow: None,
            durable: 0,
            sent: 0,
            flush_asked: FlushAsked::default(),
            reported: false,
            dirty,
            sync: None,
            written: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Forgets the session, keeping what belongs to the peer itself.
    pub(super) fn reset_session(&mut self) {
        self.their_token = 0;
        self.standing = None;
        self.told = None;
        self.connection = Connection::Connecting;
        self.session = Session::None;
        self.data = false;
        self.written.clear();
        self.received.clear();
    }

    /// Whether both have introduced themselves and share a line of records.
    pub(super) fn is_connected(&self) -> bool {
        self.link && self.connection == Connection::Connected && self.standing.is_some()
    }

    /// Whether it follows this node as its primary.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.session, Session::Ready { .. })
    }

    /// Whether it can take writes in all of the range.
    pub(super) fn holds(&self, range: BlockRange) -> bool {
        self.volumes.get(&range.volume).is_some_and(|bytes| range.end() <= blocks_of(*bytes))
    }

    /// Whether it can take writes in all of these volumes.
    pub(super) fn holds_all(&self, volumes: &BTreeMap<VolumeId, u64>) -> bool {
        volumes.iter().all(|(volume, bytes)| self.volumes.get(volume).is_some_and(|theirs| theirs >= bytes))
    }

    /// Whether it says that it is primary.
    pub(super) fn is_primary(&self) -> bool {
        self.standing.as_ref().is_some_and(|s| s.role == Role::Primary)
    }

    /// Its disk, as it says.
    pub(super) fn disk(&self) -> Option<DiskState> {
        self.standing.as_ref().map(|s| s.replica.map_or(DiskState::Diskless, |r| r.disk))
    }

    /// Its incarnation, as it says.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        Some(self.standing.as_ref()?.replica?.incarnation)
    }

    /// Whether the replica that answers is the one that `record` has in sync, or its clean continuation (rule M3).
    pub(super) fn is_member_of(&self, record: &Record) -> bool {
        let Some(replica) = self.standing.as_ref().and_then(|s| s.replica) else { return false };
        let recorded = record.in_sync.get(&self.node);
        let alive = recorded == Some(&replica.incarnation) || recorded == Some(&replica.continues);
        (alive || recorded.is_some() && mutated(Mutant::MemberByName)) && replica.disk != DiskState::Failed
    }
}
