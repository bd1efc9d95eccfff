//! Attachments by the kernel's NBD client: the daemon opens the volume at its own socket, as any client does, and gives the open
//! connections to the kernel.
//!
//! Nothing of it lives in a process. When the daemon dies, the connections break, and what uses the device waits; the next daemon finds
//! the device by its identifier and gives it new connections. Everything here blocks.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::dial::{DialError, dial};
use super::kernel::{Driver, Terms, bytes_of, device_of, path_of, under_way};
use super::place::{Place, State};
use super::settle::settle;
use crate::nbd::TransmissionFlags;
use crate::nbd::client::Agreed;

/// Opens the volume and makes a device of it; the device. The place's state is stored, without one.
///
/// # Errors
///
/// What could not be done, in words. Then there is no device.
pub fn start(place: &Place, state: &State, socket: &Path, patience: Duration) -> Result<PathBuf, String> {
    let in_words = |doing: &'static str| move |error: io::Error| format!("{doing}: {error}");
    let driver = Driver::find().map_err(in_words("netlink"))?.ok_or(NO_DRIVER)?;
    let (sockets, agreed) = open(socket, state).map_err(|error| error.to_string())?;
    let mut flags = agreed.flags;
    if state.read_only {
        flags |= TransmissionFlags::READ_ONLY;
    }
    let terms = Terms { bytes: agreed.size, block_bytes: BLOCK, flags, patience, backend: state.backend() };
    let index = driver.connect(&sockets, &terms).map_err(in_words("the kernel's NBD client"))?;
    let shown = path_of(index).and_then(|device| show(place, state, &device).map(|()| device));
    shown.map_err(|error| {
        if let Err(error) = driver.disconnect(index) {
            tracing::warn!(index, %error, "a device that cannot be used stays");
        }
        format!("the device: {error}")
    })
}

/// What became of a device that had lost its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reconnected {
    /// It has them again.
    Yes,
    /// Not now.
    NotYet(String),
    /// It is never to have them: the volume is not what its users have in their caches. The device waits until it is ended.
    Fenced(String),
}

/// Gives a device new connections in the place of broken ones.
pub fn reconnect(place: &Place, state: &State, socket: &Path) -> Reconnected {
    let Some(index) = device_of(&state.backend(), &state.device) else { return Reconnected::Fenced("it is gone".into()) };
    let driver = match Driver::find() {
        Ok(Some(driver)) => driver,
        Ok(None) => return Reconnected::NotYet(NO_DRIVER.into()),
        Err(error) => return Reconnected::NotYet(error.to_string()),
    };
    let (sockets, agreed) = match open(socket, state) {
        Ok(open) => open,
        Err(DialError::NotNow(why)) => return Reconnected::NotYet(why),
        Err(DialError::Never(why)) => return Reconnected::Fenced(why),
    };
    if bytes_of(index).is_ok_and(|bytes| agreed.size < bytes) {
        return Reconnected::Fenced("the volume is smaller than it was".into());
    }
    let again = driver.reconnect(index, &state.backend(), &sockets);
    // The daemon may have died before it had noted which one it is.
    let shown = again.and_then(|()| path_of(index)).and_then(|device| match device == state.device {
        true => Ok(()),
        false => show(place, state, &device),
    });
    shown.map_or_else(|error| Reconnected::NotYet(error.to_string()), |()| Reconnected::Yes)
}

/// Ends a device whose users are to get errors: what is under way fails, and so does whatever comes. One that is gone is ended.
///
/// # Errors
///
/// What could not be done, in words: the device's users may still wait.
pub fn fence(state: &State) -> Result<(), String> {
    let backend = state.backend();
    let Some(index) = device_of(&backend, &state.device) else { return Ok(()) };
    let driver = Driver::find().map_err(|error| format!("netlink: {error}"))?.ok_or(NO_DRIVER)?;
    driver.disconnect(index).map_err(|error| format!("the kernel does not end /dev/nbd{index}: {error}"))?;
    let deadline = Instant::now() + FAIL;
    while device_of(&backend, &state.device) == Some(index) {
        match under_way(index) {
            Ok(0) | Err(_) => break,
            Ok(count) if Instant::now() > deadline => {
                return Err(format!("{count} requests on /dev/nbd{index} have not failed yet"));
            }
            Ok(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
    Ok(())
}

/// Gives a device its volume's size, when that has grown.
///
/// # Errors
///
/// The kernel's.
pub fn grow(state: &State, bytes: u64) -> io::Result<()> {
    let (backend, none) = (state.backend(), || io::Error::from(io::ErrorKind::NotFound));
    let index = device_of(&backend, &state.device).ok_or_else(none)?;
    Driver::find()?.ok_or_else(none)?.resize(index, &backend, bytes)
}

/// Ends a device: what its cache holds is written first, where it can be. A fenced one has nothing left to write, and might wait for
/// connections that it is never given.
///
/// # Errors
///
/// The kernel's; those of writing, when the device is gone all the same.
pub fn stop(place: &Place, state: &State) -> io::Result<()> {
    let synced = if place.is_fenced() { Ok(()) } else { settle(&state.device) };
    let end = |index| Driver::find()?.map_or(Ok(()), |driver| driver.disconnect(index));
    device_of(&state.backend(), &state.device).map_or(Ok(()), end)?;
    let deadline = Instant::now() + FREE;
    while device_of(&state.backend(), &state.device).is_some() {
        if Instant::now() > deadline {
            tracing::warn!(device = %state.device.display(), "somebody still has the device open; it fails from now on");
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    synced
}

/// Opens the export as often as the device has sockets.
fn open(socket: &Path, state: &State) -> Result<(Vec<UnixStream>, Agreed), DialError> {
    let export = state.export();
    let one = || dial(socket, &export, DIAL);
    // The first is what the attachment is admitted by; the others follow it together.
    let first = one()?;
    let others = thread::scope(|scope| {
        let dialling: Vec<_> = (1..state.sockets.max(1)).map(|_| scope.spawn(one)).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(DialError::NotNow("a thread has failed".into())))
        };
        dialling.into_iter().map(join).collect::<Result<Vec<_>, _>>()
    })?;
    let agreed = first.agreed.clone();
    let all: Vec<_> = std::iter::once(first).chain(others).collect();
    if all.iter().any(|open| !open.agreed.early.is_empty() || open.agreed.mode != Default::default()) {
        return Err(DialError::Never("the kernel cannot go on with what was negotiated".into()));
    }
    Ok((all.into_iter().map(|open| open.stream).collect(), agreed))
}

/// Notes which device it is.
fn show(place: &Place, state: &State, device: &Path) -> io::Result<()> {
    place.store(&State { device: device.to_owned(), ..state.clone() })?;
    let _ = fs::remove_file(place.link());
    symlink(device, place.link())
}

const BLOCK: u32 = 4096;
const NO_DRIVER: &str = "this kernel has no NBD client that can be used here; --via fuse does without";
/// How long the daemon may take for an answer: it waits for replicas before it opens a volume.
const DIAL: Duration = Duration::from_secs(30);
/// How long requests may take to fail when their device was ended.
const FAIL: Duration = Duration::from_secs(5);
/// How long a device that was ended may have users.
const FREE: Duration = Duration::from_secs(5);
