//! File systems of volumes, mounted on this node.
//!
//! Whether a volume has its file system is a note of the cluster's, made in two steps: *making* before mkfs begins, the kind when it is
//! done. Nobody mounts a volume that is *making*; so one that is found so was left half way, and is made again. One that blkrep has
//! made, or once mounted, is never made again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Mounting, Role, attach_here, detach_here, tend};
use crate::api::{ApiError, Attach, Code, Detach, Done, FileSystem, Mount, Mounted, Unmount};
use crate::attach::filesystem::{self, MountOptions};
use crate::attach::launch;
use crate::attach::place::{Place, State};
use crate::cluster::Command;
use crate::control::node::{Node, PATIENCE};
use crate::ring::loopback::is_claimed;
use crate::units::{Name, VolumeId};

/// Mounts a volume's file system, which is made first when that is asked for and the volume is new.
pub async fn mount(node: &Arc<Node>, asked: Mount) -> Result<Mounted, ApiError> {
    check_directory(&asked.path)?;
    let bad = |why: String| ApiError::new(Code::BadRequest, why);
    filesystem::check_mount_options(&asked.mount_options).map_err(bad)?;
    filesystem::check_mkfs_options(&asked.mkfs_options).map_err(bad)?;
    let volume = asked.volume.unwrap_or(VolumeId(0));
    let busy = || ApiError::new(Code::InUse, format_args!("volume {}/{volume} is just being mounted", asked.resource));
    let _mounting = alone(node, &asked.resource, volume).await.ok_or_else(busy)?;
    if let Some(state) = attached(node, &asked.resource, volume)
        && let Some(at) = filesystem::mounts_of(&state.device).unwrap_or_default().first()
    {
        let message = format!("volume {}/{volume} is mounted already, at {}", asked.resource, at.display());
        return Err(ApiError::new(Code::InUse, message).hint("`mount --bind` shows it at another place, too"));
    }
    let attach = Attach {
        resource: asked.resource.clone(),
        volume: Some(volume),
        node: None,
        read_only: asked.read_only,
        exclusive: false,
        persistent: false,
        via: None,
        sockets: None,
    };
    let attachment = attach_here(node, &attach, Role::ForMount).await?;
    // After a mount that has just ended, whoever was being started at that moment may have a copy of it still.
    until_released(&attachment.device).await;
    let mounted = mount_device(node, &asked, volume, &attachment.device).await;
    if mounted.is_err() && attached(node, &asked.resource, volume).is_some_and(|state| state.for_mount) {
        let detach = Detach { resource: asked.resource.clone(), volume: Some(volume), node: None };
        if let Err(error) = detach_here(node, &detach).await {
            tracing::warn!(resource = %asked.resource, %error, "what could not be mounted stays attached");
        }
    }
    mounted
}

/// Unmounts what is mounted at a directory, and takes the device away that was made for it.
pub async fn unmount(node: &Arc<Node>, asked: Unmount) -> Result<Done, ApiError> {
    let mounted = filesystem::mounted_at(&asked.path).map_err(|error| ApiError::new(Code::Io, error))?;
    let living = launch::living(&node.root).unwrap_or_default();
    let of = |device: &Path| living.iter().map(|(_, state)| state).find(|state| state.device == device).cloned();
    let Some(state) = mounted.as_deref().and_then(of) else {
        if let Some(device) = mounted {
            let message =
                format!("{} is mounted at {}, which is no volume that is attached", device.display(), asked.path.display());
            let hint = format!("if it was one whose attachment has died, `umount {}` unmounts it", asked.path.display());
            return Err(ApiError::new(Code::NotFound, message).hint(hint));
        }
        let message = format!("no volume is mounted at {}", asked.path.display());
        return Err(ApiError::new(Code::NotFound, message).hint("`blkrep list-attachments` shows where volumes are mounted"));
    };
    filesystem::unmount(&asked.path, asked.lazily).await?;
    note_filled(node, &state.resource, state.volume, 0);
    if state.for_mount && filesystem::mounts_of(&state.device).unwrap_or_default().is_empty() {
        let released = until_released(&state.device).await;
        if !released {
            // It follows when whoever has it lets go; see `keep`.
            let note = format!("{} is held still, by a mount in another namespace", state.device.display());
            return Ok(Done { notes: vec![note] });
        }
        let detach = Detach { resource: state.resource.clone(), volume: Some(state.volume), node: None };
        let detached = detach_here(node, &detach).await;
        // `keep` may have found it unmounted first, and have taken it away.
        let left = attached(node, &state.resource, state.volume).is_some();
        if let (Err(error), true) = (detached, left && !asked.lazily) {
            return Err(error);
        }
    }
    Ok(Done::default())
}

/// Waits until a device that was unmounted here is free: a container that is just being started has a copy of every mount for a moment.
async fn until_released(device: &Path) -> bool {
    let deadline = Instant::now() + RELEASE;
    while let Ok(true) = is_claimed(device) {
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(10)).await;
    }
    true
}

async fn mount_device(node: &Arc<Node>, asked: &Mount, volume: VolumeId, device: &Path) -> Result<Mounted, ApiError> {
    let note = Note::of(node, &asked.resource, volume);
    let found = match note.value(node).as_deref() {
        // It was never mounted: whatever there is of it is what was left half way.
        Some(MAKING) if asked.mkfs => None,
        Some(MAKING) => return Err(not_made(asked, volume, "making its file system was left half way")),
        _ => filesystem::probe(device).await?,
    };
    let (kind, made) = match found {
        Some(found) => (known(&found, asked, volume)?, false),
        None if !asked.mkfs || asked.read_only => return Err(not_made(asked, volume, "it holds no file system")),
        None => (make(node, asked, volume, device, &note).await?, true),
    };
    if !asked.read_only {
        filesystem::check(device, kind).await?;
    }
    let options = MountOptions { read_only: asked.read_only, options: asked.mount_options.clone() };
    filesystem::mount(device, kind, &asked.path, &options).await?;
    if !asked.read_only
        && let Err(error) = filesystem::grow(device, kind, &asked.path).await
    {
        tracing::warn!(resource = %asked.resource, %error, "the file system does not fill its volume");
    }
    if !asked.read_only {
        // From now on it grows with its volume.
        note_filled(node, &asked.resource, volume, tend::bytes(device));
    }
    Ok(Mounted { device: device.to_owned(), fs: kind, made })
}

/// Notes which size of its device the mounted file system fills; 0 for no file system.
fn note_filled(node: &Node, resource: &Name, volume: VolumeId, filled: u64) {
    let place = Place::of(&node.root, resource, volume);
    let noted = place.state().and_then(|state| place.store(&State { filled, ..state }));
    if let Err(error) = noted {
        tracing::warn!(%resource, %volume, %error, "the file system will not grow with its volume");
    }
}

async fn make(node: &Arc<Node>, asked: &Mount, volume: VolumeId, device: &Path, note: &Note) -> Result<FileSystem, ApiError> {
    let kind = asked.fs.unwrap_or(FileSystem::Ext4);
    if let Some(before) = note.value(node).filter(|value| value != MAKING) {
        let message =
            format!("volume {}/{volume} had {before}, and its beginning is gone: nothing is made over it", asked.resource);
        return Err(ApiError::new(Code::Storage, message).hint("restore it, or remove the volume and add it again"));
    }
    let blank = note.value(node).is_some() || filesystem::is_blank(device, tend::bytes(device)).await?;
    if !blank {
        let message = format!("volume {}/{volume} holds data, and no file system: nothing is made over it", asked.resource);
        let hint = "if it may go, make the file system yourself on the device that `blkrep attach` gives, or remove the volume and add it again";
        return Err(ApiError::new(Code::InUse, message).hint(hint));
    }
    note.set(node, MAKING).await?;
    filesystem::make(device, kind, &asked.mkfs_options).await?;
    let found = filesystem::probe(device).await?;
    if found.as_deref() != Some(kind.as_str()) {
        // It stays new: one that was told to try only, say.
        let message = format!("mkfs.{kind} has made no {kind} with the options '{}'", asked.mkfs_options);
        return Err(ApiError::new(Code::BadRequest, message).hint("leave out what keeps it from writing, such as -n or -N"));
    }
    note.set(node, kind.as_str()).await?;
    tracing::info!(resource = %asked.resource, %volume, %kind, "made a file system");
    Ok(kind)
}

/// The file system that was found, when blkrep knows its kind and it is the one that was asked for.
fn known(found: &str, asked: &Mount, volume: VolumeId) -> Result<FileSystem, ApiError> {
    let name = format!("{}/{volume}", asked.resource);
    let kind: FileSystem = found.parse().map_err(|_| {
        ApiError::new(Code::InUse, format_args!("volume {name} holds {found}, which blkrep does not mount"))
            .hint("`blkrep attach` makes it a block device to be mounted by hand")
    })?;
    match asked.fs {
        Some(wanted) if wanted != kind => {
            Err(ApiError::new(Code::InUse, format_args!("volume {name} holds {kind}, not {wanted}"))
                .hint(format_args!("ask for {kind}")))
        }
        _ => Ok(kind),
    }
}

fn not_made(asked: &Mount, volume: VolumeId, why: &str) -> ApiError {
    let message = format!("volume {}/{volume} cannot be mounted: {why}", asked.resource);
    ApiError::new(Code::NotFound, message).hint("--mkfs makes one on a new volume")
}

fn attached(node: &Node, resource: &Name, volume: VolumeId) -> Option<State> {
    let living = launch::living(&node.root).unwrap_or_default();
    living.into_iter().map(|(_, state)| state).find(|state| state.resource == *resource && state.volume == volume)
}

/// Waits until nobody else mounts the volume.
async fn alone<'n>(node: &'n Node, resource: &Name, volume: VolumeId) -> Option<Mounting<'n>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mounting = node.attachments.mounting(resource, volume);
        if mounting.is_some() || Instant::now() > deadline {
            return mounting;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// A directory that something can be mounted at.
fn check_directory(path: &Path) -> Result<(), ApiError> {
    let at = path.display();
    let bad = |why: &str, hint: String| Err(ApiError::new(Code::BadRequest, format_args!("{at} {why}")).hint(hint));
    if !path.is_absolute() {
        return bad("does not begin with '/'", "name the directory from '/' on".to_owned());
    }
    if !path.exists() {
        return bad("is not there", format!("`mkdir -p {at}` makes it"));
    }
    if !path.is_dir() {
        return bad("is no directory", "a file system is mounted at a directory".to_owned());
    }
    match filesystem::mounted_at(path) {
        Ok(Some(what)) => bad(
            "has something mounted on it already",
            format!("it is {}; unmount that, or choose another directory", what.display()),
        ),
        _ => Ok(()),
    }
}

/// The cluster's note on a volume's file system: its kind, or that it is being made.
struct Note {
    resource: Name,
    key: String,
}

impl Note {
    fn of(_: &Node, resource: &Name, volume: VolumeId) -> Self {
        Self { resource: resource.clone(), key: format!("filesystem/{volume}") }
    }

    fn value(&self, node: &Node) -> Option<String> {
        node.model().resource_named(&self.resource).ok()?.properties.get(&self.key).cloned()
    }

    async fn set(&self, node: &Node, value: &str) -> Result<(), ApiError> {
        let properties = BTreeMap::from([(self.key.clone(), Some(value.to_owned()))]);
        node.consensus.propose(Command::SetProperties { resource: self.resource.clone(), properties }, PATIENCE).await?;
        Ok(())
    }
}

/// How long a device may be held by others after it was unmounted here.
const RELEASE: Duration = Duration::from_secs(10);
/// The note while mkfs runs.
const MAKING: &str = "making";
