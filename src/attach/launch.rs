//! The daemon's side of attachments: starting helpers, knowing which live, ending them, and taking away what killed ones left.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::direct;
use super::helper::Told;
use super::place::{Place, State};
use crate::api::setup::Root;
use crate::api::{ApiError, Code, Via};
use crate::ring::loopback::is_claimed;

/// Makes an attachment: starts its helper and waits until the block device is there.
///
/// # Errors
///
/// What the helper could not do. Then nothing is left of it.
pub async fn start(root: &Root, state: &State, patience: Duration) -> Result<PathBuf, ApiError> {
    let place = Place::of(root, &state.resource, state.volume);
    clear(&place).map_err(|error| unusable(&place, &error))?;
    place.make().and_then(|()| place.store(state)).map_err(|error| unusable(&place, &error))?;
    let started = match state.via {
        Via::Fuse => run_helper(root, &place, patience).await,
        Via::Nbd => connect(root, &place, state, patience).await,
    };
    if started.is_err() {
        let _ = clear(&place);
    }
    started
}

/// Has the kernel make the device.
async fn connect(root: &Root, place: &Place, state: &State, patience: Duration) -> Result<PathBuf, ApiError> {
    let (place, state, socket) = (place.clone(), state.clone(), root.nbd_socket());
    let started = spawn_blocking(move || direct::start(&place, &state, &socket, patience)).await;
    let started = started.unwrap_or_else(|error| Err(error.to_string()));
    started.map_err(|why| ApiError::new(failure_code(&why), format_args!("the volume cannot be attached: {why}")))
}

async fn run_helper(root: &Root, place: &Place, patience: Duration) -> Result<PathBuf, ApiError> {
    let failed = |why: String| ApiError::new(Code::Io, format_args!("the volume cannot be attached: {why}"));
    let log = OpenOptions::new().create(true).append(true).open(place.log()).map_err(|error| unusable(place, &error))?;
    let mut command = Command::new(program().map_err(|error| failed(error.to_string()))?);
    command.arg("--root").arg(root.path()).arg("attach-helper").arg(place.directory());
    command.arg("--patience").arg(patience.as_secs().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(|error| failed(format!("its helper cannot be started: {error}")))?;
    let output = child.stdout.take().expect("standard output is piped");
    let mut line = String::new();
    let told = timeout(START, BufReader::new(output).read_line(&mut line)).await;
    match told.map(|_| serde_json::from_str(&line)) {
        Ok(Ok(Told::Device(device))) => {
            // It outlives this process; while this lives, it has to be waited for at its end.
            tokio::spawn(async move { child.wait().await });
            Ok(device)
        }
        Ok(Ok(Told::Failed(why))) => {
            let _ = child.wait().await;
            Err(ApiError::new(failure_code(&why), format_args!("the volume cannot be attached: {why}")))
        }
        Ok(Err(_)) => {
            let _ = child.kill().await;
            Err(failed(format!("its helper ended early{}", tail(&place.log()))))
        }
        Err(_) => {
            let _ = child.kill().await;
            Err(ApiError::new(Code::TimedOut, "the volume was not attached in time").hint("`blkrep status` tells how it is"))
        }
    }
}

/// The attachments that live on this node, with their places.
pub fn living(root: &Root) -> io::Result<Vec<(Place, State)>> {
    let places = Place::all(root)?.into_iter().filter(Place::is_alive);
    // One that is going just now has no state any more.
    let known = places.filter_map(|place| place.state().ok().map(|state| (place, state)));
    Ok(known.filter(|(_, state)| !state.device.as_os_str().is_empty()).collect())
}

/// Ends an attachment.
///
/// # Errors
///
/// [`Code::InUse`] when its device is mounted or otherwise taken; [`Code::TimedOut`] when it does not end.
pub async fn stop(place: &Place) -> Result<(), ApiError> {
    let Ok(state) = place.state() else { return clear(place).map_err(|error| unusable(place, &error)) };
    if !place.is_alive() {
        return clear(place).map_err(|error| unusable(place, &error));
    }
    if let Ok(true) = is_claimed(&state.device) {
        let message = format!("{} is in use: mounted, or part of another device", state.device.display());
        return Err(ApiError::new(Code::InUse, message).hint("unmount it first; `lsblk` shows what uses it"));
    }
    if state.via == Via::Nbd {
        let (device, at, stopping) = (state.device.display().to_string(), place.clone(), state.clone());
        return match timeout(STOP, spawn_blocking(move || direct::stop(&at, &stopping))).await {
            Err(_) => {
                let message = format!("what {device} holds in its cache cannot be written");
                Err(ApiError::new(Code::TimedOut, message).hint("it waits for the volume: `blkrep status` tells for what"))
            }
            Ok(stopped) => {
                // A volume that fails is given up all the same.
                stopped.map_err(io::Error::other).flatten().unwrap_or_else(|error| tracing::warn!(%device, %error, "ended"));
                clear(place).map_err(|error| unusable(place, &error))
            }
        };
    }
    let pid = i32::try_from(state.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return Err(ApiError::new(Code::InUse, "the volume is just being attached")) };
    // The helper lives, so the number is its own.
    kill_process(pid, Signal::TERM).map_err(|error| unusable(place, &error.into()))?;
    let deadline = Instant::now() + STOP;
    while place.is_alive() {
        if Instant::now() > deadline {
            let message = format!("the helper of {}/{} does not end", state.resource, state.volume);
            return Err(ApiError::new(Code::TimedOut, message).hint("it waits for the volume: `blkrep status` tells for what"));
        }
        sleep(Duration::from_millis(5)).await;
    }
    clear(place).map_err(|error| unusable(place, &error))
}

/// Tells an attachment's helper that the volume has grown.
///
/// # Errors
///
/// If the helper is of an older version, which does not know how to grow.
pub fn tell_size(state: &State) -> Result<(), ApiError> {
    let pid = i32::try_from(state.pid).ok().and_then(Pid::from_raw).filter(|_| state.resizable);
    let pid = pid.ok_or_else(|| {
        ApiError::new(Code::Io, format_args!("the helper of {} is too old to let it grow", state.device.display()))
            .hint("detach the volume and attach it again")
    })?;
    kill_process(pid, Signal::HUP).map_err(|error| ApiError::new(Code::Io, error))
}

/// Lets everything fail that waits for a helper which cannot end because of it.
pub fn break_off(place: &Place) {
    // It is in use, so it stays mounted; but its file system is aborted, which is what is wanted.
    let _ = unmount(place.mount_point(), UnmountFlags::FORCE);
}

/// Takes away what a helper that was killed has left.
pub fn clear_away(place: &Place) {
    if let Err(error) = clear(place) {
        tracing::debug!(place = %place.directory().display(), %error, "what a helper has left cannot be taken away yet");
    }
}

/// Removes a place that has no helper. The device goes by itself when its last user closes it.
fn clear(place: &Place) -> io::Result<()> {
    if !place.directory().exists() {
        return Ok(());
    }
    let _lock = match place.lock() {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(io::ErrorKind::ResourceBusy.into()),
        // Its helper has just removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // Nothing answers there any more: what still uses it gets errors already.
    while unmount(place.mount_point(), UnmountFlags::DETACH).is_ok() {}
    place.remove()
}

/// This program; after an upgrade, the one that took its place.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    Ok(match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    })
}

fn failure_code(why: &str) -> Code {
    if why.contains("in use on node") { Code::InUse } else { Code::Io }
}

fn unusable(place: &Place, error: &io::Error) -> ApiError {
    ApiError::new(Code::Io, format_args!("{}: {error}", place.directory().display()))
}

/// The last line of a log, in words.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().map(|line| format!(": {line}")).unwrap_or_default()
}

/// How long a helper may take until there is a device: the daemon may have to wait for replicas.
const START: Duration = Duration::from_secs(40);
/// How long a helper may take to end: it writes what the device's cache holds.
const STOP: Duration = Duration::from_secs(30);
