//! The process that keeps an attachment alive.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use super::file::{FILE, VolumeFile};
use super::link::{Link, Terms};
use super::place::Place;
use super::settle::settle;
use crate::api::setup::HelperOptions;
use crate::api::{ApiError, Code};
use crate::ring::loopback::{LoopDevice, LoopOptions};

/// What a helper tells whoever started it, as one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The block device is there.
    Device(PathBuf),
    /// There will be none, and why.
    Failed(String),
}

/// An attachment that is served by this process.
pub struct Helper {
    place: Place,
    link: Link,
    session: BackgroundSession,
    device: LoopDevice,
    // Last: whoever gets the lock finds nothing of this process.
    _lock: fs::File,
}

impl Helper {
    /// Opens the volume that the place's state names, mounts it as a file and makes that a block device.
    pub fn start(place: Place, socket: PathBuf, patience: Duration) -> Result<Self, String> {
        let in_words = |doing: &'static str| move |error: io::Error| format!("{doing}: {error}");
        let lock = place.lock().map_err(in_words("the attachment's lock"))?;
        let lock = lock.ok_or("another process serves this attachment already")?;
        let mut state = place.state().map_err(in_words("the attachment's state"))?;
        stay_alive();
        let link = Link::open(Terms { socket, export: state.export(), patience }).map_err(|error| error.to_string())?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(format!("blkrep:{}/{}", state.resource, state.volume)),
            MountOption::Subtype("blkrep".to_owned()),
            if state.read_only { MountOption::RO } else { MountOption::RW },
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoExec,
        ];
        config.acl = SessionACL::Owner;
        let served = VolumeFile::new(link.clone(), state.read_only);
        let session = fuser::spawn_mount(served, place.mount_point(), &config).map_err(in_words("FUSE"))?;
        let device = match make_device(&place, state.read_only) {
            Ok(device) => device,
            Err(error) => {
                let _ = session.umount_and_join();
                link.close();
                return Err(format!("the loop device: {error}"));
            }
        };
        state.device = device.path().to_owned();
        state.pid = std::process::id();
        state.resizable = true;
        place.store(&state).map_err(in_words("the attachment's state"))?;
        let _ = fs::remove_file(place.link());
        symlink(device.path(), place.link()).map_err(in_words("the link to the device"))?;
        Ok(Self { place, link, session, device, _lock: lock })
    }

    /// The block device.
    pub fn device(&self) -> PathBuf {
        self.device.path().to_owned()
    }

    /// Lets the device show how the volume has grown.
    pub fn grow(&self) -> io::Result<()> {
        let bytes = self.link.measure().map_err(io::Error::other)?;
        // What the kernel knows of the file is forgotten and asked for again; then the device looks at the file.
        self.session.notifier().inval_inode(FILE, ATTRIBUTES_ONLY, 0)?;
        let seen = fs::metadata(self.place.file())?.len();
        self.device.resize()?;
        tracing::info!(bytes, seen, "the volume has grown");
        Ok(())
    }

    /// Ends the attachment: what the device's cache holds is written, the device goes, the volume is closed.
    pub fn end(self) -> io::Result<()> {
        let Self { place, link, session, device, _lock } = self;
        // A volume that fails is given up all the same.
        let name = device.path().to_owned();
        let synced = settle(&name);
        drop(device);
        let gone = wait_until_free(&name);
        if !gone {
            tracing::warn!(device = %name.display(), "somebody still has the device open; it fails from now on");
        }
        let unmounted = session.umount_and_join();
        link.close();
        place.remove()?;
        synced.and(unmounted)
    }
}

/// Runs a helper until it is told to end, by SIGTERM. SIGHUP tells it that the volume has grown. What it could not do, it tells on standard output.
pub async fn run(options: HelperOptions) -> Result<(), ApiError> {
    let failed = |error: io::Error| ApiError::new(Code::Io, format_args!("the attachment: {error}"));
    // Fails only for the leader of a process group, who has nobody to be detached from.
    let _ = rustix::process::setsid();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut grown = signal(SignalKind::hangup()).map_err(failed)?;
    let socket = options.root.nbd_socket();
    let start = move || Helper::start(Place::at(options.directory), socket, options.patience);
    let started = spawn_blocking(start).await.map_err(|error| failed(io::Error::other(error)))?;
    let helper = match started {
        Ok(helper) => helper,
        Err(why) => return tell(&Told::Failed(why)).map_err(failed),
    };
    tell(&Told::Device(helper.device())).map_err(failed)?;
    let helper = Arc::new(helper);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = grown.recv() => {
                let growing = helper.clone();
                if let Err(error) = spawn_blocking(move || growing.grow()).await.map_err(io::Error::other).flatten() {
                    tracing::warn!(%error, "the device does not show how the volume has grown");
                }
            }
        }
    }
    let helper = Arc::into_inner(helper).expect("nobody else has it between two signals");
    spawn_blocking(move || helper.end()).await.map_err(io::Error::other).flatten().map_err(failed)
}

/// Tells the process that started this one, over standard output.
pub fn tell(told: &Told) -> io::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    let mut out = io::stdout();
    out.write_all(&line)?;
    out.flush()
}

fn make_device(place: &Place, read_only: bool) -> io::Result<LoopDevice> {
    let file = OpenOptions::new().read(true).write(!read_only).open(place.file())?;
    LoopDevice::attach(&file, LoopOptions { block_bytes: BLOCK, read_only })
}

/// The device is free when its last user has closed it: a program that looks at every new device may be that.
fn wait_until_free(device: &std::path::Path) -> bool {
    let Some(name) = device.file_name() else { return true };
    let backing = PathBuf::from("/sys/block").join(name).join("loop/backing_file");
    let deadline = Instant::now() + FREE;
    while backing.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    !backing.exists()
}

/// The kernel would choose this process when memory is short, and every file system on the device would be lost with it.
fn stay_alive() {
    // Without the right to, the system's choice stands.
    let _ = fs::write("/proc/self/oom_score_adj", "-900");
    // Nor may memory for serving the device be waited for until the device has taken what is to be written to it.
    let _ = rustix::process::configure_io_flusher_behavior(true);
}

/// Of an inode that is to be forgotten: none of its contents.
const ATTRIBUTES_ONLY: i64 = -1;
const BLOCK: u32 = 4096;
const FREE: Duration = Duration::from_secs(5);
