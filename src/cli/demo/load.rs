//! Writing a volume, and reading it again, with the ledger kept.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::JoinSet;

use super::ledger::{BYTES, Ledger, Random, Write, Wrong};
use crate::cli::nbd::client::Volume;

/// How many writes are in flight at a time.
const DEPTH: usize = 16;

/// How many blocks a read of [`verify`] has.
const READ: usize = 256;

/// The ledger, kept by everyone who writes.
#[derive(Clone)]
pub(super) struct Books(Arc<Mutex<Ledger>>);

impl Books {
    /// The books of a volume of zeroes.
    pub(super) fn new(bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Ledger::new(bytes))))
    }

    /// Opens the ledger.
    pub(super) fn open(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Writes, and acknowledges or gives up.
    async fn write(&self, volume: &Volume, write: Write) -> io::Result<()> {
        let result = volume.write(write.offset(), &write.data()).await;
        match &result {
            Ok(()) => self.open().acknowledge(write),
            Err(_) => self.open().give_up(write),
        }
        result
    }
}

/// Writes 1 to 16 blocks here and there, until the connection ends. Returns when no write is in flight any more.
pub(super) async fn scatter(volume: Arc<Volume>, books: Books) {
    let mut workers = JoinSet::new();
    for worker in 0..DEPTH {
        let (volume, books) = (volume.clone(), books.clone());
        workers.spawn(async move {
            let mut random = Random::new(worker as u64);
            loop {
                let count = 1 + random.below(16);
                let begun = {
                    let mut ledger = books.open();
                    let first = random.below(ledger.blocks());
                    ledger.begin(first, count)
                };
                match begun {
                    None => tokio::task::yield_now().await,
                    Some(write) if books.write(&volume, write).await.is_err() => return,
                    Some(_) => {}
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

/// Writes every block once, from the first to the last.
pub(super) async fn sweep(volume: Arc<Volume>, books: Books) -> io::Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let blocks = books.open().blocks();
    let mut workers = JoinSet::new();
    for _ in 0..DEPTH {
        let (volume, books, next) = (volume.clone(), books.clone(), next.clone());
        workers.spawn(async move {
            loop {
                let first = next.fetch_add(16, Ordering::Relaxed);
                if first >= blocks {
                    return Ok(());
                }
                let begun = books.open().begin(first, 16.min(blocks - first));
                let write = begun.ok_or_else(|| io::Error::other("a block is being written by someone else"))?;
                books.write(&volume, write).await?;
            }
        });
    }
    finish(workers).await
}

/// Reads the whole volume, and checks every block. Returns how many bytes were read.
pub(super) async fn verify(volume: Arc<Volume>, books: Books) -> io::Result<u64> {
    let (next, read) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let blocks = books.open().blocks();
    let mut workers = JoinSet::new();
    for _ in 0..4 {
        let (volume, books, next, read) = (volume.clone(), books.clone(), next.clone(), read.clone());
        workers.spawn(async move {
            loop {
                let first = next.fetch_add(READ, Ordering::Relaxed);
                if first >= blocks {
                    return Ok(());
                }
                let length = READ.min(blocks - first) * BYTES;
                let data = volume.read((first * BYTES) as u64, u32::try_from(length).map_err(io::Error::other)?).await?;
                check(&books, first, &data).map_err(io::Error::other)?;
                read.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
        });
    }
    finish(workers).await?;
    Ok(read.load(Ordering::Relaxed))
}

fn check(books: &Books, first: usize, data: &[u8]) -> Result<(), Wrong> {
    let mut ledger = books.open();
    data.chunks(BYTES).enumerate().try_for_each(|(at, block)| ledger.check(first + at, block))
}

async fn finish(mut workers: JoinSet<io::Result<()>>) -> io::Result<()> {
    while let Some(worker) = workers.join_next().await {
        worker.map_err(io::Error::other)??;
    }
    Ok(())
}
