//! The redb file: log entries by index, and a few named values. Every commit is an fsync.
//!
//! How far the log is committed changes with every command and need not be durable: a file of its own holds it, so that a node that was
//! killed knows its model again at once, before it has met anyone. Losing it costs that knowledge until a leader tells.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Epoch;
use super::types::{decode, encode};
use crate::cluster::Cluster;

/// Why the control plane's store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be read or written.
    #[error("the control plane's store {0}: {1}; check the disk, or restore the file from another node by joining again")]
    File(PathBuf, String),
    /// It is there already, or not there.
    #[error("the control plane's store {0} {1}")]
    Presence(PathBuf, &'static str),
    /// What is in it cannot be read.
    #[error("the control plane's store is damaged: {0}; remove this node from the cluster and join it again")]
    Damaged(String),
    /// Raft refused to start from it.
    #[error("Raft cannot start: {0}")]
    Raft(String),
}

impl StoreError {
    pub(super) fn task(error: &tokio::task::JoinError) -> Self {
        Self::Raft(error.to_string())
    }
}

pub(super) struct Db {
    db: Database,
    path: PathBuf,
    committed: Committed,
}

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

/// The named values.
pub(super) mod key {
    pub(in super::super) const EPOCH: &str = "epoch";
    pub(in super::super) const VOTE: &str = "vote";
    pub(in super::super) const PURGED: &str = "purged";
    pub(in super::super) const SNAPSHOT_META: &str = "snapshot-meta";
    pub(in super::super) const SNAPSHOT: &str = "snapshot";
    pub(in super::super) const RESTORE: &str = "restore";
}

type Write<'a> = dyn FnMut(&redb::WriteTransaction) -> Result<(), redb::Error> + 'a;

impl Db {
    /// A new file of this epoch; refused when there is one.
    pub(super) fn create(path: &Path, epoch: Epoch) -> Result<(), StoreError> {
        if path.exists() {
            return Err(StoreError::Presence(path.to_owned(), "is there already; this node is a member of a cluster"));
        }
        let unusable = |error: String| StoreError::File(path.to_owned(), error);
        // Whatever the mask says: the model is nobody else's to read or to write.
        let private = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        private.map_err(|error| unusable(error.to_string()))?;
        let db = Database::create(path).map_err(|error| unusable(error.to_string()))?;
        let db = Self { db, path: path.to_owned(), committed: Committed::open(path)? };
        db.wipe(epoch, None)
    }

    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Presence(path.to_owned(), "is missing; was it deleted? remove this node and join it again"));
        }
        let db = Database::open(path).map_err(|error| StoreError::File(path.to_owned(), error.to_string()))?;
        Ok(Self { db, path: path.to_owned(), committed: Committed::open(path)? })
    }

    pub(super) fn epoch(&self) -> Result<Epoch, StoreError> {
        self.value(key::EPOCH)?.ok_or_else(|| StoreError::Damaged("it has no epoch".into()))
    }

    /// Forgets everything and begins an epoch, from `model` if there is one.
    pub(super) fn wipe(&self, epoch: Epoch, model: Option<&Cluster>) -> Result<(), StoreError> {
        // First: a log that is empty has nothing committed.
        self.committed.clear()?;
        let (epoch, model) = (encode(&epoch), model.map(Cluster::encode));
        self.write(&mut |tx| {
            tx.delete_table(LOG)?;
            tx.delete_table(VALUES)?;
            tx.open_table(LOG)?;
            let mut values = tx.open_table(VALUES)?;
            values.insert(key::EPOCH, epoch.as_slice())?;
            if let Some(model) = &model {
                values.insert(key::RESTORE, model.as_slice())?;
            }
            Ok(())
        })
    }

    /// The model that this node has yet to restore.
    pub(super) fn restore(&self) -> Result<Option<Cluster>, StoreError> {
        let bytes = self.bytes(key::RESTORE)?;
        bytes.map(|bytes| Cluster::decode(&bytes).map_err(|error| StoreError::Damaged(error.to_string()))).transpose()
    }

    pub(super) fn clear_restore(&self) -> Result<(), StoreError> {
        self.write(&mut |tx| tx.open_table(VALUES)?.remove(key::RESTORE).map(drop).map_err(Into::into))
    }

    pub(super) fn value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let bytes = self.bytes(key)?;
        bytes.map(|bytes| decode(&bytes).map_err(|error| StoreError::Damaged(format!("{key}: {error}")))).transpose()
    }

    pub(super) fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|tx| Ok(tx.open_table(VALUES)?.get(key)?.map(|value| value.value().to_vec())))
    }

    /// How far the log is known to be committed, as far as that was noted.
    pub(super) fn committed<T: DeserializeOwned>(&self) -> Option<T> {
        self.committed.read()
    }

    /// Notes how far the log is committed. It outlives the process at once, and the machine a moment later.
    pub(super) fn note_committed<T: Serialize>(&self, committed: &T) -> Result<(), StoreError> {
        self.committed.write(committed)
    }

    /// Sets values together.
    pub(super) fn set(&self, values: &[(&str, &[u8])]) -> Result<(), StoreError> {
        self.write(&mut |tx| {
            let mut table = tx.open_table(VALUES)?;
            for (key, value) in values {
                table.insert(*key, *value)?;
            }
            Ok(())
        })
    }

    /// Log entries of these indices that are there, in order.
    pub(super) fn entries(&self, range: (std::ops::Bound<u64>, std::ops::Bound<u64>)) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(LOG)?;
            let rows = table.range(range)?;
            rows.map(|row| Ok(row?.1.value().to_vec())).collect()
        })
    }

    pub(super) fn last_entry(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|tx| Ok(tx.open_table(LOG)?.last()?.map(|(_, value)| value.value().to_vec())))
    }

    pub(super) fn append(&self, entries: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
        self.write(&mut |tx| {
            let mut table = tx.open_table(LOG)?;
            for (index, entry) in entries {
                table.insert(index, entry.as_slice())?;
            }
            Ok(())
        })
    }

    /// Removes the entries from `index` on.
    pub(super) fn truncate(&self, index: u64) -> Result<(), StoreError> {
        self.write(&mut |tx| Ok(tx.open_table(LOG)?.retain_in(index.., |_, _| false)?))
    }

    /// Removes the entries up to `index`, and notes it.
    pub(super) fn purge<T: Serialize>(&self, index: u64, upto: &T) -> Result<(), StoreError> {
        let upto = encode(upto);
        self.write(&mut |tx| {
            tx.open_table(VALUES)?.insert(key::PURGED, upto.as_slice())?;
            Ok(tx.open_table(LOG)?.retain_in(..=index, |_, _| false)?)
        })
    }

    fn read<T>(&self, body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let result = self.db.begin_read().map_err(redb::Error::from).and_then(|tx| body(&tx));
        result.map_err(|error| self.failed(&error))
    }

    fn write(&self, body: &mut Write<'_>) -> Result<(), StoreError> {
        let commit = |body: &mut Write<'_>| -> Result<(), redb::Error> {
            let tx = self.db.begin_write()?;
            body(&tx)?;
            Ok(tx.commit()?)
        };
        commit(body).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &redb::Error) -> StoreError {
        StoreError::File(self.path.clone(), error.to_string())
    }
}

/// The file that notes how far the log is committed: a checksum, a length, and JSON, in place.
struct Committed {
    file: File,
    path: PathBuf,
}

const COMMITTED_BYTES: usize = 512;

impl Committed {
    fn open(store: &Path) -> Result<Self, StoreError> {
        let path = store.with_extension("committed");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(|error| StoreError::File(path.clone(), error.to_string()))?, path })
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.file.set_len(0).and_then(|()| self.file.sync_all()).map_err(|error| self.failed(&error))
    }

    fn write<T: Serialize>(&self, value: &T) -> Result<(), StoreError> {
        let json = encode(value);
        let length = u32::try_from(json.len()).expect("a log id is short");
        let mut bytes = Vec::with_capacity(COMMITTED_BYTES);
        bytes.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&json);
        bytes.resize(COMMITTED_BYTES, 0);
        self.file.write_all_at(&bytes, 0).map_err(|error| self.failed(&error))
    }

    /// Whatever cannot be read was not noted.
    fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let mut bytes = [0; COMMITTED_BYTES];
        self.file.read_exact_at(&mut bytes, 0).ok()?;
        let (head, rest) = bytes.split_at(8);
        let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let json = rest.get(..usize::try_from(number(4)?).ok()?)?;
        if crc32fast::hash(json) != number(0)? { None } else { decode(json).ok() }
    }

    fn failed(&self, error: &std::io::Error) -> StoreError {
        StoreError::File(self.path.clone(), error.to_string())
    }
}
