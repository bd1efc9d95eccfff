//! A shard: one thread, one ring, and everything that belongs to its lanes.
//!
//! The loop, turn by turn: requests of other threads, completions, timers, what was left over; then the commands of the engines
//! that were touched, until they are quiet; then everything that is ready to be sent; then one system call, which submits all
//! of it and waits. Nothing in it blocks, locks or, on the path of a request, allocates.
//!
//! | file | what it is |
//! |---|---|
//! | [`asked`] | requests of the control plane |
//! | [`commands`] | the engines' events and commands |
//! | [`holds`] | writes that are held for a snapshot |
//! | [`published`] | statuses, for other threads |

mod asked;
mod commands;
mod holds;
mod operate;
mod published;

pub(super) use commands::Granted;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::engine::Command;
use crate::ring::{Completion, RingError, Slice};
use crate::units::{Instant, ResourceId};

use super::alarm::Alarms;
use super::board::Board;
use super::client::{Client, Job, Piece};
use super::disk::{DiskJob, Starved};
use super::inbox::{Mailbox, ReplyTo, Request};
use super::io::{Io, Token};
use super::peer::Peers;
use super::plane::PlaneEvent;
use super::resource::Resource;
use super::slab::{Key, Slab};

/// Where the events for the control plane go.
pub(super) type Events = Arc<dyn Fn(PlaneEvent) + Send + Sync>;

/// One thread's part of the data plane.
pub(super) struct Shard {
    pub(super) io: Io,
    pub(super) inbox: Receiver<Request>,
    /// The way back into the inbox, for attachments that are given up.
    pub(super) mailbox: Mailbox,
    pub(super) events: Events,
    pub(super) board: Arc<Board>,
    pub(super) resources: Slab<Resource>,
    pub(super) by_id: BTreeMap<ResourceId, Key>,
    pub(super) alarms: Alarms,
    /// Resources whose engine has commands.
    pub(super) dirty: VecDeque<Key>,
    /// Room for commands.
    pub(super) commands: Vec<Command>,
    pub(super) peers: Peers,
    pub(super) clients: Slab<Client>,
    pub(super) jobs: Slab<Job>,
    pub(super) pieces: Slab<Piece>,
    pub(super) disk_jobs: Slab<DiskJob>,
    /// Reads of whole blocks that are being hashed.
    pub(super) hashing: VecDeque<Key>,
    /// What waits for memory.
    pub(super) starved: VecDeque<Starved>,
    /// Connections that have something to send.
    pub(super) speaking: Vec<Speaker>,
    /// Connections that have more to be looked at than one turn allows.
    pub(super) busy: VecDeque<Speaker>,
    /// When statuses are published next, while there are any that were not.
    pub(super) publish_at: Option<Instant>,
    /// Resources with something to publish.
    pub(super) unpublished: Vec<Key>,
    /// When connections are looked over, while there are any.
    pub(super) patrol_at: Option<Instant>,
    /// Zeroes to be written where nothing else makes them.
    pub(super) zeroes: Slice,
    /// Room for replies that are not headers.
    pub(super) scratch: Vec<u8>,
    /// Who waits for the end.
    pub(super) ending: Option<ReplyTo<()>>,
    /// The end is to come at once.
    pub(super) abandoned: bool,
}

/// A connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speaker {
    /// An NBD client.
    Client(Key),
    /// A peer.
    Peer(Key),
}

/// How often connections are looked over for ones that do not read what they are sent.
const PATROL: Duration = Duration::from_secs(1);

/// How many zeroes are written at once where nothing else makes them.
const ZEROES: usize = 1 << 20;

impl Shard {
    /// A shard without resources.
    ///
    /// # Errors
    ///
    /// When its memory is too small for anything.
    pub(super) fn new(
        io: Io,
        inbox: Receiver<Request>,
        mailbox: Mailbox,
        events: Events,
        board: Arc<Board>,
    ) -> std::io::Result<Self> {
        let mut zeroes = io.memory.pool().try_allocate(ZEROES).ok_or(std::io::ErrorKind::OutOfMemory)?;
        zeroes.fill(0);
        Ok(Self {
            io,
            inbox,
            mailbox,
            events,
            board,
            resources: Slab::default(),
            by_id: BTreeMap::new(),
            alarms: Alarms::default(),
            dirty: VecDeque::new(),
            commands: Vec::new(),
            peers: Peers::default(),
            clients: Slab::default(),
            jobs: Slab::default(),
            pieces: Slab::default(),
            disk_jobs: Slab::default(),
            hashing: VecDeque::new(),
            starved: VecDeque::new(),
            speaking: Vec::new(),
            busy: VecDeque::new(),
            publish_at: None,
            unpublished: Vec::new(),
            patrol_at: None,
            zeroes: zeroes.freeze(),
            scratch: Vec::new(),
            ending: None,
            abandoned: false,
        })
    }

    /// Runs until it is told to end.
    ///
    /// # Errors
    ///
    /// When the ring is broken: nothing on this shard can go on.
    pub(super) fn run(mut self) -> Result<(), RingError> {
        loop {
            self.settle();
            if self.has_ended() {
                return Ok(());
            }
            let deadline = self.deadline();
            if self.io.turn(deadline)? {
                self.read_inbox();
            }
            while let Some(completion) = self.io.next() {
                self.completed(completion);
            }
            self.ring_alarms();
            self.go_on();
        }
    }

    /// Does everything that follows from what has happened, up to what the ring has to do.
    fn settle(&mut self) {
        self.run_commands();
        self.feed_starved();
        self.run_commands();
        while let Some(speaker) = self.speaking.pop() {
            match speaker {
                Speaker::Client(key) => self.send_to_client(key),
                Speaker::Peer(key) => self.send_to_peer(key),
            }
        }
        self.arm_patrol();
    }

    /// When the next turn must end at the latest.
    fn deadline(&self) -> Option<Instant> {
        if !self.busy.is_empty() || !self.hashing.is_empty() || !self.dirty.is_empty() {
            return Some(self.io.now);
        }
        let moments = [self.alarms.next(), self.peers.next_beat(), self.publish_at, self.patrol_at];
        moments.into_iter().flatten().min()
    }

    fn completed(&mut self, completion: Completion<Token>) {
        match completion.token {
            Token::ClientReceive(key) => self.client_received(key, completion),
            Token::ClientSend(key) => self.client_sent(key, completion),
            Token::ClientHangUp(key) => self.client_hung_up(key),
            Token::PeerReceive(key) => self.peer_received(key, completion),
            Token::PeerSend(key) => self.peer_sent(key, completion),
            Token::Disk(key) => self.disk_completed(key, completion),
        }
    }

    /// What the clock says.
    fn ring_alarms(&mut self) {
        let now = self.io.now;
        while let Some((key, at)) = self.alarms.pop(now) {
            self.alarm_rang(key, at);
        }
        if self.peers.next_beat().is_some_and(|at| at <= now) {
            self.beat();
        }
        if self.publish_at.is_some_and(|at| at <= now) {
            self.publish();
        }
        if self.patrol_at.is_some_and(|at| at <= now) {
            self.patrol();
        }
    }

    /// Goes on with what was left over.
    fn go_on(&mut self) {
        for _ in 0..self.busy.len() {
            match self.busy.pop_front() {
                Some(Speaker::Client(key)) => self.serve_client(key),
                Some(Speaker::Peer(key)) => self.hear_peer(key),
                None => break,
            }
        }
        self.hash_some();
    }

    fn arm_patrol(&mut self) {
        if self.patrol_at.is_none() && !self.clients.is_empty() {
            self.patrol_at = Some(self.io.now.after(PATROL));
        }
    }

    /// Looks for connections that do not read what they are sent.
    fn patrol(&mut self) {
        self.patrol_at = None;
        self.patrol_clients();
        self.arm_patrol();
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("resources", &self.resources.len())
            .field("clients", &self.clients.len())
            .finish_non_exhaustive()
    }
}
