//! Tending to the attachments that live: connections that broke are made anew, and what has grown is shown its new size.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use crate::api::{ApiError, Code, Via};
use crate::attach::direct::{self, Reconnected};
use crate::attach::filesystem::{self, MountedFileSystem};
use crate::attach::launch;
use crate::attach::place::{Place, State};
use crate::control::node::Node;

/// Whoever tends to an attachment does so alone; several are tended to at once.
#[derive(Debug, Default)]
pub(super) struct Tending {
    /// Which place it was, and how long to wait until it is tried again when all was not well.
    tasks: JoinSet<(PathBuf, Option<Duration>)>,
    /// Those that are being tended to, and those that could not be and wait for the next time.
    busy: BTreeMap<PathBuf, Option<(Instant, Duration)>>,
}

impl Tending {
    /// Begins with what has to be done for these.
    pub(super) fn look(&mut self, node: &Arc<Node>, living: &[(Place, State)]) {
        while let Some(done) = self.tasks.try_join_next() {
            if let Ok((place, pause)) = done {
                self.note(place, pause);
            }
        }
        let now = Instant::now();
        self.busy.retain(|path, pause| pause.is_none() || living.iter().any(|(place, _)| place.directory() == path));
        for (place, state) in living {
            let path = place.directory();
            let waits = match self.busy.get(path) {
                None => false,
                Some(None) => true,
                // Whoever waits for connections, or for errors, does not wait for a file system that cannot grow.
                Some(Some((until, _))) => *until > now && !is_broken(node, place, state) && !is_to_end(place, state),
            };
            if waits || !needs_something(node, place, state) {
                continue;
            }
            let paused = self.busy.insert(path.to_owned(), None).flatten().map_or(PAUSE / 2, |(_, pause)| pause);
            let (node, place, state) = (node.clone(), place.clone(), state.clone());
            self.tasks.spawn(async move {
                let well = tend(&node, &place, &state).await;
                (place.directory().to_owned(), (!well).then(|| (paused * 2).min(LONGEST)))
            });
        }
    }

    /// Waits until one is done with; for ever when there is none.
    pub(super) async fn done(&mut self) {
        match self.tasks.join_next().await {
            Some(Ok((place, pause))) => self.note(place, pause),
            Some(Err(error)) => tracing::error!(%error, "an attachment is not tended to"),
            None => std::future::pending().await,
        }
    }

    fn note(&mut self, place: PathBuf, pause: Option<Duration>) {
        match pause {
            None => drop(self.busy.remove(&place)),
            Some(pause) => drop(self.busy.insert(place, Some((Instant::now() + pause, pause)))),
        }
    }
}

fn needs_something(node: &Node, place: &Place, state: &State) -> bool {
    let lags = || has_grown(node, state).is_some() || (state.filled > 0 && bytes(&state.device) > state.filled);
    is_to_end(place, state) || is_broken(node, place, state) || (!place.is_fenced() && lags())
}

/// Whether it is fenced, whoever has found that, and its device may still have users that wait. A helper ends by itself.
fn is_to_end(place: &Place, state: &State) -> bool {
    state.via == Via::Nbd && place.is_fenced() && !place.is_ended(state)
}

fn is_broken(node: &Node, place: &Place, state: &State) -> bool {
    state.via == Via::Nbd && !node.attachments.links.is_whole(&state.backend()) && !place.is_fenced()
}

/// Whether all went well; else it is tried again.
async fn tend(node: &Arc<Node>, place: &Place, state: &State) -> bool {
    let fenced = is_broken(node, place, state) && !reconnect(node, place, state).await;
    if fenced || is_to_end(place, state) {
        return end(node, place, state).await;
    }
    let _turn = node.attachments.turn(&state.resource, state.volume).await;
    // It may have been detached meanwhile.
    let Ok(state) = place.state() else { return true };
    if let Some(bytes) = has_grown(node, &state)
        && let Err(error) = grow(place, &state, bytes).await
    {
        tracing::warn!(resource = %state.resource, volume = %state.volume, %error, "the device does not show how its volume has grown");
        return false;
    }
    match fill(place, &state).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(resource = %state.resource, volume = %state.volume, %error, "the file system does not fill its volume yet");
            false
        }
    }
}

/// Ends a fenced device: the kernel lets its users wait until it is told. Whether it did.
async fn end(node: &Arc<Node>, place: &Place, state: &State) -> bool {
    // Whoever is detaching it may wait for the device itself, and makes no other while it does.
    let _turn = timeout(TURN, node.attachments.turn(&state.resource, state.volume)).await;
    let of = state.clone();
    let ended = spawn_blocking(move || direct::fence(&of)).await.unwrap_or_else(|error| Err(error.to_string()));
    if let Err(why) = ended {
        tracing::warn!(resource = %state.resource, volume = %state.volume, %why, "the device is fenced and not ended yet");
        return false;
    }
    if place.is_alive() {
        tracing::error!(resource = %state.resource, volume = %state.volume, "the device fails until it is attached anew");
    }
    // If that cannot be noted, it is ended again: that changes nothing.
    let _ = place.note_ended(state);
    true
}

/// Gives a device of the kernel's connections again, until it has them or is gone; false when it is fenced.
async fn reconnect(node: &Arc<Node>, place: &Place, state: &State) -> bool {
    let links = node.attachments.links.clone();
    if let Err(error) = spawn_blocking(move || links.listen()).await.map_err(io::Error::other).flatten() {
        tracing::warn!(%error, "broken connections of NBD devices are not heard of");
    }
    let began = Instant::now();
    let mut pause = RETRY;
    while place.is_alive() && !place.is_fenced() {
        let turn = node.attachments.turn(&state.resource, state.volume).await;
        node.attachments.links.expect(&state.backend());
        let (of, at, socket) = (state.clone(), place.clone(), node.root.nbd_socket());
        let outcome = spawn_blocking(move || direct::reconnect(&at, &of, &socket)).await;
        drop(turn);
        match outcome.unwrap_or_else(|error| Reconnected::NotYet(error.to_string())) {
            Reconnected::Yes => {
                tracing::info!(resource = %state.resource, volume = %state.volume, waited = ?began.elapsed(), "connected again");
                return true;
            }
            Reconnected::Fenced(why) => {
                tracing::warn!(resource = %state.resource, volume = %state.volume, %why, "an attachment is fenced");
                let _ = place.fence();
                return false;
            }
            Reconnected::NotYet(why) => {
                node.attachments.links.lost(&state.backend());
                tracing::debug!(resource = %state.resource, %why, "no connection yet");
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
    true
}

/// The volume's size, where its device shows less.
fn has_grown(node: &Node, state: &State) -> Option<u64> {
    let status = node.plane.status().into_iter().find(|status| status.resource == state.id)?;
    // What is suspended would make the kernel wait, and everybody with it.
    let flows = status.suspended.is_empty();
    let volume = status.volumes.iter().find(|volume| volume.volume == state.volume)?;
    let shown = bytes(&state.device);
    (flows && shown > 0 && volume.bytes > shown).then_some(volume.bytes)
}

async fn grow(place: &Place, state: &State, bytes: u64) -> Result<(), ApiError> {
    match state.via {
        Via::Fuse => launch::tell_size(state)?,
        Via::Nbd => {
            let of = state.clone();
            let grown = timeout(GROW, spawn_blocking(move || direct::grow(&of, bytes))).await;
            grown.map_err(io::Error::other).and_then(|joined| joined.map_err(io::Error::other).flatten()).map_err(unable)?;
        }
    }
    let deadline = Instant::now() + GROW;
    while self::bytes(&state.device) < bytes {
        if Instant::now() > deadline || !place.is_alive() {
            return Err(ApiError::new(Code::TimedOut, "it did not take its new size in time"));
        }
        sleep(RETRY).await;
    }
    tracing::info!(resource = %state.resource, volume = %state.volume, bytes, "the device has grown");
    Ok(())
}

/// Lets the file system that blkrep has mounted fill its device.
async fn fill(place: &Place, state: &State) -> Result<(), ApiError> {
    let bytes = bytes(&state.device);
    if state.filled == 0 || bytes <= state.filled {
        return Ok(());
    }
    let Some(MountedFileSystem { path, kind, .. }) = filesystem::file_system_on(&state.device).map_err(unable)? else {
        return Ok(());
    };
    filesystem::grow(&state.device, kind, &path).await?;
    tracing::info!(resource = %state.resource, volume = %state.volume, bytes, "the file system has grown");
    place.store(&State { filled: bytes, ..state.clone() }).map_err(unable)
}

/// A block device's size in bytes; 0 when it cannot be told. Nothing is opened, and nothing waited for.
pub(super) fn bytes(device: &Path) -> u64 {
    let Some(name) = device.file_name() else { return 0 };
    let sectors = std::fs::read_to_string(Path::new("/sys/block").join(name).join("size"));
    sectors.ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0).saturating_mul(512)
}

fn unable(error: io::Error) -> ApiError {
    ApiError::new(Code::Io, error)
}

/// How long a change of the attachment is waited for before its fenced device is ended without it.
const TURN: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);
/// Until what went wrong is tried again, at first and at last.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How long a device may take for its new size.
const GROW: Duration = Duration::from_secs(10);
