//! Agreement on the model: openraft over redb, hidden behind a [`Consensus`] that speaks of commands and nodes only.
//!
//! Log, vote and snapshots are durable (fsync) in one redb file before they are answered. The model itself lives in memory and is
//! rebuilt at start from the last snapshot and the log, so for a moment after a start it can be older than it was before: readers
//! that destroy something ask with [`Consensus::read`].
//!
//! openraft draws its election time-out once per process, so that two survivors of three can draw the same and split the vote
//! for ever; each node therefore has a window of its own, by its id.
//!
//! An [`Epoch`] names one life of the Raft group. `recover --force` begins another from one node's model; a node that is asked by
//! a member of a newer epoch forgets its log and follows.
//!
//! Architecture invariant: no other file of the program names openraft or redb.

mod db;
mod log;
mod machine;
mod membership;
mod network;
mod serve;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::{BasicNode, Config, Raft, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use self::db::Db;
use self::log::LogStore;
use self::machine::{Machine, Shared};
use self::network::Factory;
use self::types::{Ask, Envelope, Outcome, Reply, Types};
use crate::cluster::{Applied, Cluster, Command, Refusal};
use crate::units::NodeId;

pub use self::db::StoreError;

/// Carries a request to a node and brings its answer back.
pub trait Transport: Send + Sync + 'static {
    /// Asks `to`, which was last known at `address`; gives up after `patience`.
    fn call(&self, to: NodeId, address: SocketAddr, request: Vec<u8>, patience: Duration) -> Carried<'_>;
}

/// An answer that is on its way.
pub type Carried<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, CarryError>> + Send + 'a>>;

/// Why no answer came.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CarryError {
    /// The request was not sent.
    #[error("node {0} cannot be reached: {1}")]
    Unreachable(NodeId, String),
    /// It was sent, and may have been carried out.
    #[error("node {0} did not answer: {1}")]
    NoAnswer(NodeId, String),
}

/// One life of the Raft group. A greater number is a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counts `recover --force`.
    pub number: u64,
    /// Tells two recoveries of the same number apart.
    pub id: u128,
}

/// Why a command was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// The model refused it; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody could take it; nothing was changed.
    #[error("the cluster's control plane has no leader: {0}")]
    NoLeader(String),
    /// No answer came in time; it may still be taken.
    #[error("the cluster's control plane did not answer in time; the change may still happen")]
    Unknown,
    /// This node's store failed or is closed.
    #[error("the control plane of this node has stopped: {0}")]
    Stopped(String),
}

/// What a node needs to take part.
#[derive(Clone)]
pub struct Setup {
    /// This node.
    pub me: NodeId,
    /// The redb file.
    pub file: PathBuf,
    /// How it reaches the others.
    pub transport: Arc<dyn Transport>,
}

/// This node's part in the agreement. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    setup: Setup,
    db: Arc<Db>,
    shared: Arc<Shared>,
    /// The running Raft and its epoch; replaced when a newer epoch is followed.
    life: Mutex<(Raft<Types>, Epoch)>,
    /// Which leader was heard of last, and when.
    heard: Mutex<Option<(NodeId, Instant)>>,
    /// One change of epoch at a time.
    following: tokio::sync::Mutex<()>,
    background: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl Consensus {
    /// Creates the file of a node that founds a cluster, and waits until the first command is taken.
    pub async fn found(setup: Setup, epoch: Epoch, address: SocketAddr, first: Command) -> Result<Self, ProposeError> {
        let founded = async {
            Db::create(&setup.file, epoch)?;
            Self::start(setup.clone()).await
        };
        let consensus = founded.await.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        consensus.begin(address, first).await?;
        Ok(consensus)
    }

    /// Creates the file of a node that joins, for [`open`](Self::open) to open.
    pub fn prepare(file: &Path, epoch: Epoch) -> Result<(), StoreError> {
        Db::create(file, epoch)
    }

    /// Opens the file of a node that was founded or prepared, and takes part.
    pub async fn open(setup: Setup, address: SocketAddr) -> Result<Self, ProposeError> {
        let consensus = Self::start(setup).await.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        let pending = consensus.inner.db.restore().map_err(|error| ProposeError::Stopped(error.to_string()))?;
        if let Some(model) = pending {
            consensus.begin(address, Command::Restore(Box::new(model))).await?;
            consensus.inner.db.clear_restore().map_err(|error| ProposeError::Stopped(error.to_string()))?;
        }
        Ok(consensus)
    }

    /// The model at the end of the log of a *closed* file, committed or not: what this node may have agreed to.
    pub fn logged(file: &Path) -> Result<Cluster, StoreError> {
        Ok(machine::replay(&Db::open(file)?)?.0)
    }

    /// Begins a new epoch from what a *closed* file knows: everything in its log, committed or not, as a leader elected from it
    /// would. Answers the model; the next [`open`](Self::open) restores it as the group's only voter.
    pub fn recover(file: &Path, id: u128) -> Result<Cluster, StoreError> {
        let db = Db::open(file)?;
        let (cluster, _) = machine::replay(&db)?;
        let epoch = Epoch { number: db.epoch()?.number + 1, id };
        db.wipe(epoch, Some(&cluster))?;
        Ok(cluster)
    }

    /// Has the cluster take a command: here when this node leads, else forwarded. Waits up to `patience` for a leader.
    pub async fn propose(&self, command: Command, patience: Duration) -> Result<Applied, ProposeError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (raft, epoch) = self.life();
            let why = match self.leading(&raft) {
                Leading::Me => match timeout(left, raft.client_write(command.clone())).await {
                    Err(_) => return Err(ProposeError::Unknown),
                    Ok(Ok(response)) => return Ok(response.data.0.ok_or(ProposeError::Unknown)??),
                    Ok(Err(error)) if types::not_leader(&error) => "it is changing".to_owned(),
                    Ok(Err(error)) => return Err(ProposeError::Stopped(error.to_string())),
                },
                Leading::Other(leader, address) => {
                    match self.ask(leader, address, epoch, Ask::Propose(command.clone()), left).await {
                        Ok(Reply::Proposed(Outcome(Some(outcome)))) => return Ok(outcome?),
                        Ok(Reply::NotLeader) => "it is changing".to_owned(),
                        Err(CarryError::NoAnswer(..)) | Ok(Reply::Proposed(Outcome(None))) => return Err(ProposeError::Unknown),
                        Ok(_) => "the leader is of another epoch".to_owned(),
                        Err(error @ CarryError::Unreachable(..)) => error.to_string(),
                    }
                }
                Leading::Nobody(reason) => reason,
            };
            if Instant::now() + RETRY >= deadline {
                return Err(ProposeError::NoLeader(why));
            }
            sleep(RETRY).await;
        }
    }

    /// The model with every command in it that was taken before this call, anywhere.
    pub async fn read(&self, patience: Duration) -> Result<Arc<Cluster>, ProposeError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.read_index(left).await {
                Ok(index) => {
                    let mut applied = self.inner.shared.applied.subscribe();
                    let left = deadline.saturating_duration_since(Instant::now());
                    return match timeout(left, applied.wait_for(|applied| *applied >= Some(index))).await {
                        Ok(Ok(_)) => Ok(self.model()),
                        _ => Err(ProposeError::NoLeader("this node is behind it".into())),
                    };
                }
                Err(why) if Instant::now() + RETRY >= deadline => return Err(ProposeError::NoLeader(why)),
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// The index that the log has reached for certain, or why nobody can tell.
    async fn read_index(&self, patience: Duration) -> Result<u64, String> {
        let (raft, epoch) = self.life();
        match self.leading(&raft) {
            Leading::Me => match timeout(patience, raft.ensure_linearizable()).await {
                Ok(Ok(log)) => Ok(log.map_or(0, |log| log.index)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no majority of voters answers".into()),
            },
            Leading::Other(leader, address) => match self.ask(leader, address, epoch, Ask::ReadIndex, patience).await {
                Ok(Reply::ReadIndex(index)) => Ok(index),
                Ok(_) => Err("it is changing".into()),
                Err(error) => Err(error.to_string()),
            },
            Leading::Nobody(why) => Err(why),
        }
    }

    /// The model as this node knows it now.
    pub fn model(&self) -> Arc<Cluster> {
        self.inner.shared.model.borrow().clone()
    }

    /// The model, whenever it changes. It is never seen without a cluster's id once it had one.
    pub fn watch(&self) -> watch::Receiver<Arc<Cluster>> {
        self.inner.shared.model.subscribe()
    }

    /// The node that leads, as far as this node knows; `None` when there is none, or it has lost its majority.
    pub fn leader(&self) -> Option<NodeId> {
        match self.leading(&self.life().0) {
            Leading::Me => Some(self.inner.setup.me),
            Leading::Other(leader, _) => {
                // A follower without a vote goes on believing in a leader that is gone.
                let heard = *lock(&self.inner.heard);
                heard.is_some_and(|(from, when)| from == leader && when.elapsed() < LEADER_LOST).then_some(leader)
            }
            Leading::Nobody(_) => None,
        }
    }

    /// Whether this node leads.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.inner.setup.me)
    }

    /// The epoch, which a joining node has to be told.
    pub fn epoch(&self) -> Epoch {
        self.life().1
    }

    /// Gives the vote to another member when this node is the only voter and another one is up to date, so that the model can be
    /// changed while this node is down. Answers who has it now.
    pub async fn hand_over(&self, patience: Duration) -> Option<NodeId> {
        timeout(patience, membership::hand_over(self)).await.ok().flatten()
    }

    /// Stops taking part. What was answered is durable.
    pub async fn shutdown(&self) {
        let tasks = std::mem::take(&mut *lock(&self.inner.background));
        for task in tasks {
            task.abort();
            // An aborted task ends with an error by design.
            let _ = task.await;
        }
        let (raft, _) = self.life();
        if let Err(error) = raft.shutdown().await {
            tracing::warn!(%error, "the Raft task did not end cleanly");
        }
    }

    /// Stops taking part, and waits until the file can be opened again, by this process or another.
    pub async fn close(self) {
        self.shutdown().await;
        let file = self.inner.setup.file.clone();
        drop(self);
        // openraft's tasks let go of the store a moment after they have ended, and closing it takes a moment, too. Something that
        // hangs must not keep a process from its exit, though.
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_free = || {
            tokio::task::spawn_blocking({
                let file = file.clone();
                move || Db::open(&file).is_ok()
            })
        };
        while !is_free().await.unwrap_or(true) && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn start(setup: Setup) -> Result<Self, StoreError> {
        let file = setup.file.clone();
        let db = tokio::task::spawn_blocking(move || Db::open(&file)).await.map_err(|error| StoreError::task(&error))??;
        let db = Arc::new(db);
        let shared = Arc::new(Shared::default());
        let epoch = db.epoch()?;
        let raft = raise(&setup, &db, &shared, epoch).await?;
        let inner = Inner {
            setup,
            db,
            shared,
            life: Mutex::new((raft, epoch)),
            heard: Mutex::default(),
            following: tokio::sync::Mutex::new(()),
            background: Mutex::default(),
        };
        let consensus = Self { inner: Arc::new(inner) };
        let keeper = tokio::spawn(membership::keep(Arc::downgrade(&consensus.inner)));
        lock(&consensus.inner.background).push(keeper);
        Ok(consensus)
    }

    /// Makes this node the group's first voter and has it take the first command.
    async fn begin(&self, address: SocketAddr, first: Command) -> Result<(), ProposeError> {
        let (raft, _) = self.life();
        let node = BasicNode { addr: address.to_string() };
        let only = std::collections::BTreeMap::from([(types::raft_id(self.inner.setup.me), node)]);
        match raft.initialize(only).await {
            // It was begun before, and interrupted before the first command was taken.
            Ok(()) | Err(openraft::error::RaftError::APIError(openraft::error::InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(ProposeError::Stopped(error.to_string())),
        }
        match self.propose(first, Duration::from_secs(20)).await {
            Ok(_) | Err(ProposeError::Refused(Refusal::AlreadyInitialised)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Forgets this node's log and follows a later epoch.
    async fn follow(&self, epoch: Epoch) -> Result<(), StoreError> {
        let _one = self.inner.following.lock().await;
        let (old, present) = self.life();
        if present.number >= epoch.number {
            return Ok(());
        }
        tracing::warn!(from = present.number, to = epoch.number, "following a later epoch of the control plane");
        if let Err(error) = old.shutdown().await {
            tracing::warn!(%error, "the Raft task did not end cleanly");
        }
        let db = self.inner.db.clone();
        let wiped = tokio::task::spawn_blocking(move || db.wipe(epoch, None)).await;
        wiped.map_err(|error| StoreError::task(&error))??;
        let raft = raise(&self.inner.setup, &self.inner.db, &self.inner.shared, epoch).await?;
        *lock(&self.inner.life) = (raft, epoch);
        Ok(())
    }

    fn life(&self) -> (Raft<Types>, Epoch) {
        lock(&self.inner.life).clone()
    }

    fn leading(&self, raft: &Raft<Types>) -> Leading {
        let me = types::raft_id(self.inner.setup.me);
        let metrics = raft.metrics();
        let metrics = metrics.borrow();
        match metrics.current_leader {
            Some(leader) if leader == me => match metrics.millis_since_quorum_ack {
                Some(since) if since > QUORUM_LOST_MS => {
                    Leading::Nobody(format!("no majority of voters answered for {since} ms"))
                }
                _ => Leading::Me,
            },
            Some(leader) => {
                let node = types::node_id(leader);
                let noted = metrics.membership_config.membership().get_node(&leader).and_then(|node| node.addr.parse().ok());
                let modelled = self.inner.shared.model.borrow().nodes.get(&node).map(crate::cluster::Node::control);
                match modelled.or(noted) {
                    Some(address) => Leading::Other(node, address),
                    None => Leading::Nobody(format!("the address of its leader, node {node}, is not known")),
                }
            }
            None => Leading::Nobody("none was elected yet".into()),
        }
    }

    async fn ask(&self, to: NodeId, at: SocketAddr, epoch: Epoch, ask: Ask, patience: Duration) -> Result<Reply, CarryError> {
        let request = types::encode(&Envelope { epoch, body: ask });
        let answer = self.inner.setup.transport.call(to, at, request, patience).await?;
        types::decode(&answer).map_err(|error| CarryError::NoAnswer(to, error))
    }

    fn voters(raft: &Raft<Types>) -> BTreeSet<u64> {
        raft.metrics().borrow().membership_config.membership().voter_ids().collect()
    }
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Consensus(node {})", self.inner.setup.me)
    }
}

/// Who leads, from this node's view.
enum Leading {
    Me,
    Other(NodeId, SocketAddr),
    Nobody(String),
}

async fn raise(setup: &Setup, db: &Arc<Db>, shared: &Arc<Shared>, epoch: Epoch) -> Result<Raft<Types>, StoreError> {
    let machine = Machine::load(db.clone(), shared.clone())?;
    let factory = Factory { transport: setup.transport.clone(), shared: shared.clone(), epoch };
    let raft = Raft::new(types::raft_id(setup.me), Arc::new(config(setup.me)), factory, LogStore::new(db.clone()), machine).await;
    raft.map_err(|error| StoreError::Raft(error.to_string()))
}

fn config(me: NodeId) -> Config {
    let rank = u64::from(me.0 % ELECTION_WINDOWS);
    let election_timeout_min = ELECTION_BASE_MS + rank * ELECTION_WINDOW_MS;
    Config {
        cluster_name: "blkrep".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min,
        election_timeout_max: election_timeout_min + ELECTION_WINDOW_MS,
        install_snapshot_timeout: 30_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(2000),
        replication_lag_threshold: 4000,
        max_in_snapshot_log_to_keep: 500,
        ..Config::default()
    }
}

/// A panic elsewhere leaves nothing half-done behind these locks: they guard single assignments.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const RETRY: Duration = Duration::from_millis(50);
const HEARTBEAT_MS: u64 = 75;
/// A leader is missed for a lease and a time-out of about this each, before another stands for election: at least seven heartbeats.
const ELECTION_BASE_MS: u64 = 250;
const ELECTION_WINDOW_MS: u64 = 60;
/// Nodes whose ids differ by a multiple of this share a window; more voters than five there never are.
const ELECTION_WINDOWS: u32 = 12;
/// A leader that heard of no majority for so long does not take commands: they would hang.
const QUORUM_LOST_MS: u64 = 1200;
/// A leader that is silent for so long, twenty heartbeats, is not shown as one any more.
const LEADER_LOST: Duration = Duration::from_millis(20 * HEARTBEAT_MS);
