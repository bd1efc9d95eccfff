//! Where an attachment keeps its files: a directory of its own below `run/blkrep/attach`, gone after a restart of the machine as the
//! attachment itself is.
//!
//! - `lock`: held by the helper for as long as it lives (flock). Whoever can take it knows that there is no helper; who only looks takes
//!   it with others, for that moment, and makes none. (An attachment by the kernel's NBD client has none: it lives while the kernel
//!   has a device of its identifier.)
//! - `state.json`: what it is an attachment of.
//! - `seen.json`, `fenced`: what it knows of other nodes' uses of the volume.
//! - `ended`: the kernel was told that the device is fenced, and has failed what was under way.
//! - `fuse/volume`: the volume as a file.
//! - `device`: a link to the block device.
//! - `helper.log`: what the helper had to tell.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::kernel;
use crate::api::Via;
use crate::api::setup::Root;
use crate::units::{Name, NodeId, ResourceId, Sharing, VolumeId};

/// What an attachment is of, and how it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The resource's name.
    pub resource: Name,
    /// The resource: a new one of the same name is another.
    pub id: ResourceId,
    /// The volume.
    pub volume: VolumeId,
    /// Whether the device refuses writes.
    pub read_only: bool,
    /// Whether no other attachment of the volume may be made.
    pub exclusive: bool,
    /// Whether it was made for a mount, and goes with it.
    #[serde(default)]
    pub for_mount: bool,
    /// What makes the block device.
    #[serde(default)]
    pub via: Via,
    /// How many sockets the kernel's NBD client has.
    #[serde(default)]
    pub sockets: u32,
    /// Tells this attachment from every other.
    pub token: String,
    /// The size of the device that a file system was last known to fill which blkrep has mounted; 0 when it has mounted none.
    #[serde(default)]
    pub filled: u64,
    /// Whether the helper can be told that the volume has grown.
    #[serde(default)]
    pub resizable: bool,
    /// The helper's process id, for people, 0 without one; whether it lives tells the lock.
    #[serde(default)]
    pub pid: u32,
    /// The block device; empty until there is one.
    #[serde(default)]
    pub device: PathBuf,
}

impl State {
    /// The export's name for this attachment alone.
    pub fn export(&self) -> String {
        format!("{}/{};attachment={}", self.resource, self.volume, self.token)
    }

    /// With whom it shares the volume: a file system that is mounted suffers nobody who writes, and whoever writes one, nobody at all.
    pub fn sharing(&self) -> Sharing {
        match (self.exclusive, self.for_mount) {
            (true, _) => Sharing::Alone,
            (false, true) if self.read_only => Sharing::Readers,
            (false, true) => Sharing::Alone,
            (false, false) => Sharing::Shared,
        }
    }

    /// What the kernel knows its NBD device by, so that it is found again whatever has become of the daemon.
    pub fn backend(&self) -> String {
        format!("blkrep:{}/{}:{}", self.resource, self.volume, self.token)
    }
}

/// The directory of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// The place of a volume's attachment.
    pub fn of(root: &Root, resource: &Name, volume: VolumeId) -> Self {
        // No name has an '@'.
        Self(Self::all_below(root).join(format!("{resource}@{volume}")))
    }

    /// The place at this directory.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// Every place that is there, in no order.
    pub fn all(root: &Root) -> io::Result<Vec<Self>> {
        match fs::read_dir(Self::all_below(root)) {
            Ok(entries) => entries.map(|entry| Ok(Self(entry?.path()))).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn all_below(root: &Root) -> PathBuf {
        root.run().join("attach")
    }

    /// The volume whose attachment has its place here.
    pub fn volume(&self) -> Option<(Name, VolumeId)> {
        let (resource, volume) = self.0.file_name()?.to_str()?.split_once('@')?;
        Some((resource.parse().ok()?, VolumeId(volume.parse().ok()?)))
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Where the FUSE file system is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.0.join("fuse")
    }

    /// The volume as a file.
    pub fn file(&self) -> PathBuf {
        self.mount_point().join("volume")
    }

    /// The link to the block device.
    pub fn link(&self) -> PathBuf {
        self.0.join("device")
    }

    /// The helper's log.
    pub fn log(&self) -> PathBuf {
        self.0.join("helper.log")
    }

    /// Makes the directories.
    pub fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.mount_point())
    }

    /// Removes everything. The file system must be unmounted.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(self.mount_point()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What is written about the attachment.
    pub fn state(&self) -> io::Result<State> {
        Ok(serde_json::from_slice(&fs::read(self.0.join(STATE))?)?)
    }

    /// Writes it.
    pub fn store(&self, state: &State) -> io::Result<()> {
        let new = self.0.join("state.new");
        fs::write(&new, serde_json::to_vec(state)?)?;
        fs::rename(new, self.0.join(STATE))
    }

    /// The counts of other nodes' uses that the attachment has noted; `None` before it was admitted for the first time.
    pub fn seen(&self) -> Option<BTreeMap<NodeId, u64>> {
        serde_json::from_slice(&fs::read(self.0.join(SEEN)).ok()?).ok()
    }

    /// Notes them.
    pub fn note_seen(&self, counts: &BTreeMap<NodeId, u64>) -> io::Result<()> {
        let new = self.0.join("seen.new");
        fs::write(&new, serde_json::to_vec(counts)?)?;
        fs::rename(new, self.0.join(SEEN))
    }

    /// Notes that another node has used the volume: the attachment is never admitted again.
    pub fn fence(&self) -> io::Result<()> {
        fs::write(self.0.join(FENCED), b"")
    }

    /// Whether another node was seen to use the volume.
    pub fn is_fenced(&self) -> bool {
        self.0.join(FENCED).exists()
    }

    /// Notes that the kernel has ended the device of this fenced attachment. Without that note it is told again.
    pub fn note_ended(&self, state: &State) -> io::Result<()> {
        fs::write(self.0.join(ENDED), &state.token)
    }

    /// Whether the kernel has ended the device of this attachment: another may have taken its place.
    pub fn is_ended(&self, state: &State) -> bool {
        fs::read(self.0.join(ENDED)).is_ok_and(|token| token == state.token.as_bytes())
    }

    /// Takes the lock; `None` while another process has it, and not only for the moment of a look.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.0.join(LOCK))?;
        let deadline = Instant::now() + LOOKS;
        loop {
            if take(&file, FlockOperation::NonBlockingLockExclusive)? {
                return Ok(Some(file));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Whether a helper has the lock. Nothing is made for that: whoever removes the place may be half-way.
    fn is_locked(&self) -> bool {
        let looked = File::open(self.0.join(LOCK)).and_then(|file| take(&file, FlockOperation::NonBlockingLockShared));
        matches!(looked, Ok(false))
    }

    /// Whether the helper has been killed and cannot end: it waits for answers of its own, or a program that has its files still does.
    pub fn is_stuck(&self, state: &State) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", state.pid)).unwrap_or_default();
        state.via == Via::Fuse && state.pid > 0 && is_ending(&stat) && self.is_alive()
    }

    /// Whether there is an attachment: a helper that lives, or a device of the kernel's.
    pub fn is_alive(&self) -> bool {
        if !self.0.exists() {
            return false;
        }
        match self.state() {
            Ok(state) if state.via == Via::Nbd => kernel::device_of(&state.backend(), &state.device).is_some(),
            _ => self.is_locked(),
        }
    }
}

/// Takes a lock on the file; false when it cannot be had now.
fn take(file: &File, how: FlockOperation) -> io::Result<bool> {
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process is on its way out, by its line in /proc (proc_pid_stat(5)): dead and not all of its threads are, or exiting.
fn is_ending(stat: &str) -> bool {
    // Its name may have any signs.
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u32>().ok()).unwrap_or(0);
    fields.first() == Some(&"Z") || flags & PF_EXITING != 0
}

const PF_EXITING: u32 = 0x4;
/// For how long others may look at a lock that is to be taken, and how soon it is tried again.
const LOOKS: Duration = Duration::from_millis(100);
const AGAIN: Duration = Duration::from_millis(2);
const LOCK: &str = "lock";
const STATE: &str = "state.json";
const SEEN: &str = "seen.json";
const FENCED: &str = "fenced";
const ENDED: &str = "ended";

#[cfg(test)]
impl State {
    /// An attachment through FUSE whose helper nobody can find.
    pub(crate) fn sample(resource: &str, id: ResourceId, volume: VolumeId) -> Self {
        Self {
            resource: resource.parse().expect("a name"),
            id,
            volume,
            read_only: false,
            exclusive: false,
            for_mount: false,
            via: Via::Fuse,
            sockets: 1,
            filled: 0,
            resizable: false,
            token: "t".into(),
            pid: i32::MAX.unsigned_abs(),
            device: "/dev/loop0".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { exclusive: true, ..State::sample("web", ResourceId(7), VolumeId(1)) }
    }

    #[test]
    fn what_was_noted_of_an_attachment_is_not_true_of_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let (place, first) = (Place::at(directory.path()), state());
        assert!(!place.is_ended(&first));
        place.note_ended(&first).unwrap();
        assert!(place.is_ended(&first));
        assert!(!place.is_ended(&State { token: "u".into(), ..first }));
    }

    /// Else what is left of a place that is just being removed stays for ever.
    #[test]
    fn whoever_looks_for_a_helper_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::at(directory.path());
        assert!(!place.is_alive());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn whoever_looks_for_a_helper_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::at(directory.path());
        drop(place.lock().unwrap().unwrap());
        let looking = File::open(directory.path().join(LOCK)).unwrap();
        assert!(take(&looking, FlockOperation::NonBlockingLockShared).unwrap());
        assert!(!place.is_alive(), "another one that looks is no helper");
        let helper = std::thread::spawn(move || place.lock().unwrap().is_some());
        std::thread::sleep(AGAIN);
        drop(looking);
        assert!(helper.join().unwrap(), "the helper waits for that moment");
    }

    #[test]
    fn a_process_on_its_way_out_is_known() {
        assert!(!is_ending("7 (a ) Z b) S 1 7 7 0 -1 4194560 1 0"));
        assert!(is_ending("7 (blkrep) Z 1 7 7 0 -1 4194304 1 0"), "its other threads are not done");
        assert!(is_ending("7 (blkrep) D 1 7 7 0 -1 4194564 1 0"));
        assert!(!is_ending(""), "there is none");
    }

    #[test]
    fn an_attachment_is_found_again_and_known_to_live() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        assert_eq!(Place::all(&root).unwrap(), []);
        let place = Place::of(&root, &"web".parse().unwrap(), VolumeId(1));
        place.make().unwrap();
        assert_eq!(place.volume(), Some(("web".parse().unwrap(), VolumeId(1))));
        place.store(&state()).unwrap();
        assert_eq!(Place::all(&root).unwrap(), std::slice::from_ref(&place));
        assert_eq!(place.state().unwrap(), state());
        assert!(!place.is_alive());
        let held = place.lock().unwrap().unwrap();
        assert!(place.is_alive());
        drop(held);
        assert!(!place.is_alive());
        place.remove().unwrap();
        place.remove().unwrap();
        assert_eq!(Place::all(&root).unwrap(), []);
    }
}
