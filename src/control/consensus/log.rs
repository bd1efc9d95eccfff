//! openraft's log on redb.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};

use super::db::{Db, StoreError, key};
use super::types::{Types, decode, encode};

/// The log. Writes wait for the disk on a blocking thread.
#[derive(Clone)]
pub(super) struct LogStore {
    db: Arc<Db>,
}

impl LogStore {
    pub(super) fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        body: impl FnOnce(&Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StorageError<u64>> {
        let db = self.db.clone();
        let done = tokio::task::spawn_blocking(move || body(&db)).await;
        done.map_err(|error| write_error(&error))?.map_err(|error| write_error(&error))
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Types>>, StorageError<u64>> {
        let owned = |bound: Bound<&u64>| match bound {
            Bound::Included(&index) => Bound::Included(index),
            Bound::Excluded(&index) => Bound::Excluded(index),
            Bound::Unbounded => Bound::Unbounded,
        };
        let rows = self.db.entries((owned(range.start_bound()), owned(range.end_bound()))).map_err(|error| read_error(&error))?;
        let entries: Result<Vec<_>, String> = rows.iter().map(|row| decode(row)).collect();
        entries.map_err(|error| read_error(&StoreError::Damaged(error)))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<u64>> {
        let read = || -> Result<LogState<Types>, StoreError> {
            let last_purged_log_id: Option<LogId<u64>> = self.db.value(key::PURGED)?;
            let last = self.db.last_entry()?;
            let last = last.map(|row| decode::<Entry<Types>>(&row).map_err(StoreError::Damaged)).transpose()?;
            Ok(LogState { last_purged_log_id, last_log_id: last.map(|entry| entry.log_id).or(last_purged_log_id) })
        };
        read().map_err(|error| read_error(&error))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let vote = encode(vote);
        self.blocking(move |db| db.set(&[(key::VOTE, &vote)])).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        self.db.value(key::VOTE).map_err(|error| read_error(&error))
    }

    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), StorageError<u64>> {
        self.db.note_committed(&committed).map_err(|error| write_error(&error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        let committed: Option<LogId<u64>> = self.db.committed::<Option<LogId<u64>>>().flatten();
        // After a loss of power the note may speak of a log that was there before: of a wiped one, say.
        let last = self.get_log_state().await?.last_log_id;
        Ok(committed.filter(|committed| Some(*committed) <= last))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let rows: Vec<(u64, Vec<u8>)> = entries.into_iter().map(|entry| (entry.log_id.index, encode(&entry))).collect();
        self.blocking(move |db| db.append(&rows)).await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.blocking(move |db| db.truncate(log_id.index)).await
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        self.blocking(move |db| db.purge(log_id.index, &log_id)).await
    }
}

pub(super) fn read_error(error: &StoreError) -> StorageError<u64> {
    StorageIOError::read_logs(openraft::AnyError::error(error.to_string())).into()
}

pub(super) fn write_error(error: &dyn std::error::Error) -> StorageError<u64> {
    StorageIOError::write_logs(openraft::AnyError::error(error.to_string())).into()
}
