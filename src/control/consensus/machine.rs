//! The model as openraft's state machine. It lives in memory; snapshots of it are durable.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StoredMembership,
};
use tokio::sync::watch;

use super::db::{Db, StoreError, key};
use super::lock;
use super::log::{read_error, write_error};
use super::types::{Outcome, Types, decode, encode, node_id};
use crate::cluster::Cluster;

/// What the rest of the program sees of the state machine, across epochs.
#[derive(Default)]
pub(super) struct Shared {
    /// The model.
    pub(super) model: watch::Sender<Arc<Cluster>>,
    /// The index of the last log entry in it.
    pub(super) applied: watch::Sender<Option<u64>>,
}

/// The state machine.
pub(super) struct Machine {
    db: Arc<Db>,
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    cluster: Arc<Cluster>,
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
}

impl State {
    fn apply(&mut self, entry: Entry<Types>) -> Outcome {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Outcome(None),
            EntryPayload::Normal(command) => Outcome(Some(Arc::make_mut(&mut self.cluster).apply(command))),
            EntryPayload::Membership(membership) => {
                // A joint configuration is a step on the way: only its successor says who votes.
                if let [voters] = membership.get_joint_config().as_slice() {
                    let voters: BTreeSet<_> = voters.iter().copied().map(node_id).collect();
                    Arc::make_mut(&mut self.cluster).note_voters(voters);
                }
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Outcome(None)
            }
        }
    }

    fn restored(db: &Db) -> Result<Self, StoreError> {
        let Some((meta, bytes)) = stored(db)? else { return Ok(Self::default()) };
        let cluster = Cluster::decode(&bytes).map_err(|error| StoreError::Damaged(error.to_string()))?;
        Ok(Self { cluster: Arc::new(cluster), applied: meta.last_log_id, membership: meta.last_membership })
    }
}

impl Machine {
    /// The state machine as of the last snapshot; openraft applies the rest of the log.
    pub(super) fn load(db: Arc<Db>, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let state = State::restored(&db)?;
        let machine = Self { db, shared, state: Arc::new(Mutex::new(state)) };
        machine.publish();
        Ok(machine)
    }

    fn publish(&self) {
        let state = lock(&self.state).clone();
        // A node that follows a new epoch starts from nothing: what it knew stays in sight until it knows better.
        if state.cluster.id.is_some() {
            self.shared.model.send_replace(state.cluster);
        }
        self.shared.applied.send_replace(state.applied.map(|log| log.index));
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        let state = lock(&self.state);
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let outcomes = {
            let mut state = lock(&self.state);
            entries.into_iter().map(|entry| state.apply(entry)).collect()
        };
        self.publish();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { db: self.db.clone(), state: lock(&self.state).clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError<u64>> {
        let cluster = Cluster::decode(&snapshot).map_err(|error| read_error(&StoreError::Damaged(error.to_string())))?;
        keep(self.db.clone(), meta, *snapshot).await?;
        *lock(&self.state) =
            State { cluster: Arc::new(cluster), applied: meta.last_log_id, membership: meta.last_membership.clone() };
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        let stored = stored(&self.db).map_err(|error| read_error(&error))?;
        Ok(stored.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(bytes) }))
    }
}

/// Writes down one moment of the model.
pub(super) struct Builder {
    db: Arc<Db>,
    state: State,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let index = self.state.applied.map_or(0, |log| log.index);
        let meta = SnapshotMeta {
            last_log_id: self.state.applied,
            last_membership: self.state.membership.clone(),
            snapshot_id: format!("{index}-{}", self.state.cluster.revision),
        };
        let bytes = self.state.cluster.encode();
        keep(self.db.clone(), &meta, bytes.clone()).await?;
        Ok(Snapshot { meta, snapshot: Box::new(bytes) })
    }
}

/// The model at the end of a closed log, uncommitted entries included, and the last index.
pub(super) fn replay(db: &Db) -> Result<(Cluster, Option<u64>), StoreError> {
    let mut state = State::restored(db)?;
    let from = state.applied.map_or(std::ops::Bound::Unbounded, |log| std::ops::Bound::Excluded(log.index));
    for row in db.entries((from, std::ops::Bound::Unbounded))? {
        state.apply(decode(&row).map_err(StoreError::Damaged)?);
    }
    let pending = db.restore()?;
    let cluster = if state.cluster.id.is_some() { Arc::unwrap_or_clone(state.cluster) } else { pending.unwrap_or_default() };
    Ok((cluster, state.applied.map(|log| log.index)))
}

type Stored = (SnapshotMeta<u64, BasicNode>, Vec<u8>);

fn stored(db: &Db) -> Result<Option<Stored>, StoreError> {
    let Some(meta) = db.value(key::SNAPSHOT_META)? else { return Ok(None) };
    let bytes = db.bytes(key::SNAPSHOT)?.ok_or_else(|| StoreError::Damaged("a snapshot has no contents".into()))?;
    Ok(Some((meta, bytes)))
}

async fn keep(db: Arc<Db>, meta: &SnapshotMeta<u64, BasicNode>, bytes: Vec<u8>) -> Result<(), StorageError<u64>> {
    let meta = encode(meta);
    let write = move || db.set(&[(key::SNAPSHOT_META, &meta), (key::SNAPSHOT, &bytes)]);
    let written = tokio::task::spawn_blocking(write).await;
    written.map_err(|error| write_error(&error))?.map_err(|error| write_error(&error))
}
