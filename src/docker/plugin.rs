//! What Docker's questions do.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::counts::Counts;
use super::options;
use crate::api::setup::Root;
use crate::api::state::AssignmentState;
use crate::api::{
    ApiError, Code, DockerSettings, DockerVolume, ListAttachments, ListDockerVolumes, Mount, RemoveResource, Service, Unmount,
};
use crate::attach::filesystem;
use crate::units::{Name, human};

/// The plugin of one node.
pub struct Plugin {
    service: Arc<dyn Service>,
    node: Name,
    defaults: BTreeMap<String, String>,
    mounts: PathBuf,
    counts: Counts,
    turns: Mutex<HashMap<Name, Arc<tokio::sync::Mutex<()>>>>,
}

impl Plugin {
    /// The plugin of `node` below `root`, which asks `service`, with the node's `defaults` for new volumes.
    ///
    /// # Errors
    ///
    /// If the defaults make no sense, or what a former daemon has noted cannot be read.
    pub fn new(root: &Root, node: Name, service: Arc<dyn Service>, defaults: BTreeMap<String, String>) -> Result<Self, ApiError> {
        options::parse(node.clone(), &BTreeMap::new(), &defaults)
            .map_err(|error| ApiError::new(error.code, format_args!("docker-defaults: {error}")).hint(&error.hint))?;
        let file = root.state().join("docker.json");
        let counts =
            Counts::load(file.clone()).map_err(|error| ApiError::new(Code::Io, format_args!("{}: {error}", file.display())))?;
        let mounts = std::path::absolute(root.run().join("docker")).map_err(|error| ApiError::new(Code::Io, error))?;
        Ok(Self { service, node, defaults, mounts, counts, turns: Mutex::default() })
    }

    /// Adds a volume; one that is there already is left as it is, as Docker expects.
    pub async fn create(&self, name: &Name, asked: &BTreeMap<String, String>) -> Result<(), ApiError> {
        let _turn = self.turn(name).await;
        let volume = options::parse(name.clone(), asked, &self.defaults)?;
        if self.find(name).await.is_ok() {
            return Ok(());
        }
        self.service.add_docker_volume(volume).await.map(drop)
    }

    /// Removes a volume that nobody uses.
    pub async fn remove(&self, name: &Name) -> Result<(), ApiError> {
        let _turn = self.turn(name).await;
        self.find(name).await?;
        let mounted = self.is_mounted(name).await?;
        if self.counts.users(name.as_str()) > 0 && mounted {
            return Err(ApiError::new(Code::InUse, format_args!("volume '{name}' is used by containers of this node")));
        }
        self.service.remove_resource(RemoveResource { resource: name.clone(), force: false }).await?;
        self.counts.forget(name.as_str()).map_err(unwritable)
    }

    /// All volumes, as Docker wants them listed.
    pub async fn list(&self) -> Result<Vec<Value>, ApiError> {
        let all = self.service.list_docker_volumes(ListDockerVolumes::default()).await?;
        Ok(all.iter().map(|volume| self.describe(volume, false)).collect())
    }

    /// A volume, with how it is.
    pub async fn inspect(&self, name: &Name) -> Result<Value, ApiError> {
        Ok(self.describe(&self.find(name).await?, true))
    }

    /// Where a volume is mounted; `None` when it is not, here.
    pub async fn path(&self, name: &Name) -> Result<Option<PathBuf>, ApiError> {
        self.find(name).await?;
        Ok(self.is_mounted(name).await?.then(|| self.data(name)))
    }

    /// Mounts a volume for the user of this id, if it is not mounted yet; the directory with its data.
    pub async fn mount(&self, name: &Name, user: &str) -> Result<PathBuf, ApiError> {
        let _turn = self.turn(name).await;
        let volume = self.find(name).await?;
        if !self.is_mounted(name).await? {
            self.counts.forget(name.as_str()).map_err(unwritable)?;
            self.mount_first(name, &volume.settings).await?;
        }
        let data = self.data(name);
        let made = make_data(&data, &volume.settings);
        let counted = made.and_then(|()| self.counts.add(name.as_str(), user));
        if let Err(error) = counted {
            if self.counts.users(name.as_str()) == 0 {
                self.unmount_last(name).await?;
            }
            return Err(ApiError::new(Code::Io, format_args!("{}: {error}", data.display())));
        }
        Ok(data)
    }

    /// Unmounts a volume when the user of this id was its last. What does not answer is left behind, to be unmounted when it does:
    /// Docker is not held up.
    pub async fn unmount(&self, name: &Name, user: &str) -> Result<(), ApiError> {
        let _turn = self.turn(name).await;
        match self.counts.remove(name.as_str(), user).map_err(unwritable)? {
            0 => self.unmount_last(name).await,
            _ => Ok(()),
        }
    }

    async fn mount_first(&self, name: &Name, settings: &DockerSettings) -> Result<(), ApiError> {
        let path = self.mounts.join(name.as_str());
        if matches!(filesystem::mounted_at(&path), Ok(Some(_))) {
            // Of an attachment that has died.
            filesystem::unmount(&path, true).await?;
        }
        let directory = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
        directory.map_err(|error| ApiError::new(Code::Io, format_args!("{}: {error}", path.display())))?;
        let mount = Mount {
            resource: name.clone(),
            volume: None,
            path,
            fs: Some(settings.fs),
            mkfs: true,
            mkfs_options: settings.mkfs_options.clone(),
            mount_options: settings.mount_options.clone(),
            read_only: false,
        };
        self.service.mount(mount).await.map(drop)
    }

    async fn unmount_last(&self, name: &Name) -> Result<(), ApiError> {
        let path = self.mounts.join(name.as_str());
        let unmount = |lazily| self.service.unmount(Unmount { path: path.clone(), lazily });
        let unmounted = match timeout(UNMOUNT, unmount(false)).await {
            Ok(Ok(_)) => Ok(()),
            // Somebody else has unmounted it.
            Ok(Err(error)) if error.code == Code::NotFound => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(volume = %name, %error, "unmounted as far as it can be; the rest follows when it answers");
                timeout(UNMOUNT, unmount(true)).await.unwrap_or_else(|_| Ok(Default::default())).map(drop)
            }
            Err(_) => {
                tracing::warn!(volume = %name, "the volume does not answer; its unmount goes on behind Docker's back");
                Ok(())
            }
        };
        // One that is busy stays; it is used again.
        let _ = std::fs::remove_dir(&path);
        unmounted
    }

    async fn find(&self, name: &Name) -> Result<DockerVolume, ApiError> {
        let found = self.service.list_docker_volumes(ListDockerVolumes { name: Some(name.clone()) }).await?;
        found.into_iter().next().ok_or_else(|| {
            ApiError::new(Code::NotFound, format_args!("resource '{name}' is not a Docker volume"))
                .hint("`docker volume create -d blkrep` makes one")
        })
    }

    /// Whether a volume is mounted for Docker, by an attachment that lives.
    async fn is_mounted(&self, name: &Name) -> Result<bool, ApiError> {
        let asked = ListAttachments { resource: Some(name.clone()), node: Some(self.node.clone()) };
        let path = self.mounts.join(name.as_str());
        Ok(self.service.list_attachments(asked).await?.iter().any(|one| one.mounts.contains(&path)))
    }

    /// The directory within the file system that containers see: what mkfs puts beside it they do not.
    fn data(&self, name: &Name) -> PathBuf {
        self.mounts.join(name.as_str()).join("data")
    }

    fn describe(&self, volume: &DockerVolume, whole: bool) -> Value {
        let name = &volume.resource.name;
        let mut told = json!({ "Name": name, "Mountpoint": self.mountpoint(name) });
        if !whole {
            return told;
        }
        let (state, detail) = volume.resource.state();
        let replicas: BTreeMap<String, String> = volume
            .resource
            .replicas
            .iter()
            .filter(|replica| !replica.diskless)
            .map(|replica| (replica.node.to_string(), in_words(volume.resource.assignment(replica))))
            .collect();
        let bytes: u64 = volume.resource.volumes.iter().map(|info| info.bytes).sum();
        let mut status = json!({
            "state": state,
            "size": human(bytes),
            "fs": volume.settings.fs,
            "replicas": replicas,
        });
        if let Some(group) = &volume.settings.group {
            status["group"] = json!(group);
        }
        if !detail.is_empty() {
            status["detail"] = json!(detail);
        }
        if let Some(primary) = &volume.resource.primary {
            status["primary"] = json!(primary);
        }
        told["Status"] = status;
        if let Some(created) = i64::try_from(volume.created).ok().and_then(|at| jiff::Timestamp::from_second(at).ok()) {
            told["CreatedAt"] = json!(created.to_string());
        }
        told
    }

    fn mountpoint(&self, name: &Name) -> String {
        let mounted = matches!(filesystem::mounted_at(&self.mounts.join(name.as_str())), Ok(Some(_)));
        if mounted { self.data(name).display().to_string() } else { String::new() }
    }

    async fn turn(&self, name: &Name) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(name.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

fn in_words((state, detail): (AssignmentState, String)) -> String {
    if detail.is_empty() { state.to_string() } else { format!("{state} ({detail})") }
}

/// Makes the directory that containers see, the first time. It gets its name when it has its owner: one that was left half way is made
/// again.
fn make_data(path: &Path, settings: &DockerSettings) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    let new = path.with_extension("new");
    match std::fs::DirBuilder::new().mode(0o755).create(&new) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => chown(&new, settings.uid, settings.gid)?,
    }
    let made = std::fs::File::open(&new)?;
    made.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}

fn unwritable(error: io::Error) -> ApiError {
    ApiError::new(Code::Io, format_args!("which containers use the volume cannot be noted: {error}"))
}

/// How long Docker waits for an unmount.
const UNMOUNT: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::api::FileSystem;

    #[test]
    fn a_directory_that_was_left_half_way_gets_its_owner() {
        let volume = tempfile::tempdir().unwrap();
        let data = volume.path().join("data");
        let me = rustix::process::getuid().as_raw();
        let settings = DockerSettings {
            fs: FileSystem::Ext4,
            mkfs_options: String::new(),
            mount_options: String::new(),
            uid: Some(if me == 0 { 33 } else { me }),
            gid: None,
            group: None,
        };
        std::fs::create_dir(volume.path().join("data.new")).unwrap();
        make_data(&data, &settings).unwrap();
        assert_eq!(Some(std::fs::metadata(&data).unwrap().uid()), settings.uid);
        assert_eq!(std::fs::read_dir(volume.path()).unwrap().count(), 1);
        std::fs::write(data.join("x"), "kept").unwrap();
        make_data(&data, &settings).unwrap();
        assert!(data.join("x").exists());
    }
}
