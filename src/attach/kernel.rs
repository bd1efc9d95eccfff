//! The kernel's NBD client: devices that it makes of connected sockets, by generic netlink.
//!
//! A device belongs to the kernel: it outlives whoever has made it. It is known by an identifier that it is given, never by its
//! number alone, which is another's as soon as it is free.
//!
//! # Time-outs
//!
//! - *A connection that has broken.* Requests wait for a new one, for as long as the terms say; then all of them fail. What was sent
//!   on the old one and not answered is sent again only when a request's timer fires: [`RETRY`] after it was sent, and so on.
//! - *A request that is not answered, on a connection that lives.* With one socket it waits: I/O that is suspended is no failure.
//!   With several, the kernel insists on taking the connection for dead after [`SLOW`], and sends the request on another.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use super::netlink::{Attributes, Family, Netlink, attributes, word};
use crate::nbd::TransmissionFlags;
use crate::ring::os::make_block_node;

/// The driver, as the running kernel has it.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    family: Family,
}

/// What a device is to be.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes of a logical block.
    pub block_bytes: u32,
    /// What the server can do.
    pub flags: TransmissionFlags,
    /// How long requests wait for a connection that broke.
    pub patience: Duration,
    /// What it is found by.
    pub backend: String,
}

impl Driver {
    /// Looks for the driver, and loads it where it is a module. `None` when this kernel, or this network namespace, has none that can
    /// be used.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub fn find() -> io::Result<Option<Self>> {
        static LOADED: Once = Once::new();
        if !has_identifiers() {
            return Ok(None);
        }
        let netlink = Netlink::open(Some(PATIENCE))?;
        let mut family = netlink.family(FAMILY)?;
        if family.is_none() && !Path::new("/sys/module/nbd").exists() {
            LOADED.call_once(load);
            family = netlink.family(FAMILY)?;
        }
        Ok(family.map(|family| Self { family }))
    }

    /// Makes a device of connections whose handshakes are done; its number. Blocks while the kernel does it.
    ///
    /// # Errors
    ///
    /// The kernel's: EPERM without the right to.
    pub fn connect(&self, sockets: &[UnixStream], terms: &Terms) -> io::Result<u32> {
        let mut asked = Attributes::default();
        asked.put_long(SIZE_BYTES, terms.bytes);
        asked.put_long(BLOCK_SIZE_BYTES, terms.block_bytes.into());
        // Always said, even when it is none: a device that had another user keeps that one's.
        asked.put_long(TIMEOUT, if sockets.len() > 1 { SLOW.as_secs() } else { 0 });
        asked.put_long(DEAD_CONN_TIMEOUT, terms.patience.as_secs());
        asked.put_long(SERVER_FLAGS, terms.flags.0.into());
        asked.put_long(CLIENT_FLAGS, 0);
        asked.nest(SOCKETS, &descriptors(sockets)?);
        asked.put(BACKEND_IDENTIFIER, &[terms.backend.as_bytes(), &[0]].concat());
        let told = self.ask(CONNECT, &asked)?.ok_or(io::ErrorKind::InvalidData)?;
        let index = attributes(&told).find_map(|(kind, value)| (kind == INDEX).then(|| word(value)).flatten());
        let index =
            index.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel does not tell the device's number"))?;
        tune(index, sockets.len());
        Ok(index)
    }

    /// Gives a device new connections, for as many as have broken. Those that it has no use for it closes.
    ///
    /// # Errors
    ///
    /// The kernel's: EINVAL when the device is another's now, or none.
    pub fn reconnect(&self, index: u32, backend: &str, sockets: &[UnixStream]) -> io::Result<()> {
        let mut asked = named(index, backend);
        asked.nest(SOCKETS, &descriptors(sockets)?);
        self.ask(RECONFIGURE, &asked)?;
        tune(index, sockets.len());
        Ok(())
    }

    /// Gives a device another size. It must have a connection that answers: the kernel waits for what is under way, and holds up
    /// every other user of the driver meanwhile.
    ///
    /// # Errors
    ///
    /// The kernel's: EINVAL when the device is another's now, or none.
    pub fn resize(&self, index: u32, backend: &str, bytes: u64) -> io::Result<()> {
        let mut asked = named(index, backend);
        asked.put_long(SIZE_BYTES, bytes);
        self.ask(RECONFIGURE, &asked).map(drop)
    }

    /// Ends a device: what is under way fails, and so does whatever comes. It is free when its last user has closed it.
    ///
    /// # Errors
    ///
    /// The kernel's: EINVAL when there is none.
    pub fn disconnect(&self, index: u32) -> io::Result<()> {
        let mut asked = Attributes::default();
        asked.put_word(INDEX, index);
        self.ask(DISCONNECT, &asked).map(drop)
    }

    fn ask(&self, command: u8, asked: &Attributes) -> io::Result<Option<Vec<u8>>> {
        let told = Netlink::open(Some(PATIENCE))?.ask(self.family.id, command, asked)?;
        Ok(told.map(|message| message.attributes))
    }
}

/// Hears of connections that break.
#[derive(Debug)]
pub struct Deaths {
    netlink: Netlink,
    family: u16,
}

impl Deaths {
    /// Those from now on; each wait takes at most `patience`.
    ///
    /// # Errors
    ///
    /// Those of the system calls.
    pub fn listen(driver: Driver, patience: Duration) -> io::Result<Self> {
        let netlink = Netlink::open(Some(patience))?;
        netlink.join(driver.family.group.ok_or(io::ErrorKind::Unsupported)?)?;
        Ok(Self { netlink, family: driver.family.id })
    }

    /// Waits for devices that have lost a connection. `None` when some may have been missed: any may have.
    ///
    /// # Errors
    ///
    /// TimedOut, and those of the system call.
    pub fn next(&self) -> io::Result<Option<Vec<u32>>> {
        match self.netlink.hear(self.family) {
            Ok(messages) => {
                let dead = messages.iter().filter(|message| message.command == LINK_DEAD);
                let index = |(kind, value): (u16, &[u8])| (kind == INDEX).then(|| word(value)).flatten();
                Ok(Some(dead.filter_map(|message| attributes(&message.attributes).find_map(index)).collect()))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The number of the device with this identifier, where there is one; `likely` is looked at first.
pub fn device_of(backend: &str, likely: &Path) -> Option<u32> {
    let is_it = |index: &u32| backend_of(*index).is_some_and(|text| text == backend);
    let first = likely.file_name().and_then(|name| number(name.to_str()?));
    let others =
        || fs::read_dir("/sys/block").into_iter().flatten().flatten().filter_map(|entry| number(entry.file_name().to_str()?));
    first.filter(is_it).or_else(|| others().find(is_it))
}

/// A device's identifier; `None` when it has none, or no user.
pub fn backend_of(index: u32) -> Option<String> {
    fs::read_to_string(facts(index).join("backend")).ok().map(|text| text.trim_end().to_owned())
}

/// The device's file, which is made where nobody else makes it.
///
/// # Errors
///
/// If it is not there and cannot be made.
pub fn path_of(index: u32) -> io::Result<PathBuf> {
    let path = PathBuf::from(format!("/dev/nbd{index}"));
    if !path.exists() {
        let numbers = fs::read_to_string(facts(index).join("dev"))?;
        let parsed = numbers.trim().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) = parsed.ok_or(io::ErrorKind::InvalidData)?;
        make_block_node(&path, major, minor)?;
    }
    Ok(path)
}

/// The device's size in bytes; 0 when it has no user.
///
/// # Errors
///
/// If there is no such device.
pub fn bytes_of(index: u32) -> io::Result<u64> {
    let sectors = fs::read_to_string(facts(index).join("size"))?;
    Ok(sectors.trim().parse::<u64>().map_err(io::Error::other)?.saturating_mul(512))
}

/// How many requests the device's connections were given that have not ended.
///
/// # Errors
///
/// If there is no such device.
pub fn under_way(index: u32) -> io::Result<u64> {
    let counts = fs::read_to_string(facts(index).join("inflight"))?;
    counts.split_whitespace().map(|count| count.parse::<u64>().map_err(io::Error::other)).sum()
}

fn number(name: &str) -> Option<u32> {
    name.strip_prefix("nbd")?.parse().ok()
}

fn facts(index: u32) -> PathBuf {
    PathBuf::from(format!("/sys/block/nbd{index}"))
}

/// Devices are known by identifiers since 5.14.
fn has_identifiers() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 14)
}

/// Loads the module; where there is none, or no right to, nothing changes.
fn load() {
    let mut modprobe = Command::new("modprobe");
    modprobe.args(["--quiet", "nbd"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match modprobe.status() {
        Ok(status) if status.success() => tracing::info!("the kernel's NBD client was loaded"),
        _ => tracing::debug!("the kernel's NBD client cannot be loaded"),
    }
}

/// Sets what netlink does not: where it cannot be set, things are slower.
fn tune(index: u32, sockets: usize) {
    let mut settings = vec![("max_sectors_kb", REQUEST_KIB.to_string())];
    if sockets == 1 {
        settings.push(("io_timeout", RETRY.as_millis().to_string()));
    }
    for (name, value) in settings {
        let path = facts(index).join("queue").join(name);
        if let Err(error) = fs::write(&path, value) {
            tracing::debug!(path = %path.display(), %error, "cannot be set");
        }
    }
}

fn named(index: u32, backend: &str) -> Attributes {
    let mut asked = Attributes::default();
    asked.put_word(INDEX, index);
    asked.put(BACKEND_IDENTIFIER, &[backend.as_bytes(), &[0]].concat());
    asked
}

fn descriptors(sockets: &[UnixStream]) -> io::Result<Attributes> {
    let mut all = Attributes::default();
    for socket in sockets {
        let mut one = Attributes::default();
        one.put_word(SOCKET_FD, u32::try_from(socket.as_fd().as_raw_fd()).map_err(io::Error::other)?);
        all.nest(SOCKET_ITEM, &one);
    }
    Ok(all)
}

/// When a request that was not answered is looked at: if its connection was replaced, it is sent again.
pub const RETRY: Duration = Duration::from_secs(3);
/// How long a request may take with several sockets before its connection is taken for dead.
pub const SLOW: Duration = Duration::from_secs(30);
/// How long the kernel may take for an answer, once it has begun to give it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request; the kernel's default is 128.
const REQUEST_KIB: u32 = 1024;

const FAMILY: &str = "nbd";
const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const RECONFIGURE: u8 = 3;
const LINK_DEAD: u8 = 4;
const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BLOCK_SIZE_BYTES: u16 = 3;
const TIMEOUT: u16 = 4;
const SERVER_FLAGS: u16 = 5;
const CLIENT_FLAGS: u16 = 6;
const SOCKETS: u16 = 7;
const DEAD_CONN_TIMEOUT: u16 = 8;
const BACKEND_IDENTIFIER: u16 = 10;
const SOCKET_ITEM: u16 = 1;
const SOCKET_FD: u16 = 1;
