//! Nodes that use a resource without a replica because a client came there: the use ends some time after the last client has gone.
//!
//! A client's node that does not have the resource is made a user of it in the model. Each user costs a connection to every replica, so one
//! that was made that way is noted, durably and before it is made, and taken away again. What an operator has assigned stays.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::UnassignResource;
use crate::attach::place::Place;
use crate::cluster::{Command, Refusal as ModelRefusal, Resource};
use crate::control::consensus::ProposeError;
use crate::control::node::{Node, PATIENCE};
use crate::control::tls::write_private;
use crate::control::{local, removal};
use crate::nbd::Refusal;
use crate::units::ResourceId;

/// What this node uses for its clients' sake alone.
#[derive(Debug)]
pub struct Visits {
    directory: PathBuf,
}

impl Visits {
    /// The notes in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn note(&self, resource: ResourceId) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        write_private(&self.file(resource), b"")
    }

    fn forget(&self, resource: ResourceId) {
        if let Err(error) = fs::remove_file(self.file(resource)) {
            tracing::debug!(%resource, %error, "the note of a use stays");
        }
    }

    fn is_noted(&self, resource: ResourceId) -> bool {
        self.file(resource).exists()
    }

    fn file(&self, resource: ResourceId) -> PathBuf {
        self.directory.join(resource.to_string())
    }
}

/// Makes this node a user of a resource for a client that has come.
pub async fn begin(node: &Arc<Node>, resource: &Resource) -> Result<(), Refusal> {
    let cannot = |why: String| Refusal::unknown(format!("'{}' cannot be used on this node: {why}", resource.name));
    let visits = &node.attachments.visits;
    let noted = visits.is_noted(resource.id);
    visits.note(resource.id).map_err(|error| cannot(format!("that cannot be noted: {error}")))?;
    let (name, seed) = (node.config.name.clone(), local::random_seed());
    let command = Command::Assign { resource: resource.name.clone(), node: name, diskless: true, seed, pool: None };
    match node.consensus.propose(command, PATIENCE).await {
        Ok(_) => Ok(()),
        Err(ProposeError::Refused(ModelRefusal::Assigned(..))) => {
            // Somebody has assigned it meanwhile, on purpose.
            if !noted {
                visits.forget(resource.id);
            }
            Ok(())
        }
        Err(error) => Err(cannot(error.to_string())),
    }
}

/// Ends uses that nobody needs, until it is dropped.
pub async fn keep(node: Arc<Node>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle = BTreeMap::new();
    loop {
        look.tick().await;
        self::look(&node, &mut idle, IDLE).await;
    }
}

/// Ends what has been idle for so long. `idle` says since when each is.
pub async fn look(node: &Arc<Node>, idle: &mut BTreeMap<ResourceId, Instant>, patience: Duration) {
    let model = node.model();
    let used: Vec<ResourceId> = node.plane.status().iter().filter(|s| s.clients > 0).map(|s| s.resource).collect();
    // Attachments outlive their connections; those that are to come back have none at times.
    let places = Place::all(&node.root).unwrap_or_default();
    let attached: Vec<ResourceId> = places.iter().filter_map(|place| Some(place.state().ok()?.id)).collect();
    let persistent = node.attachments.persistent.all();
    let visits = &node.attachments.visits;
    let noted = model.resources.values().filter(|resource| visits.is_noted(resource.id));
    let is_kept = |resource: &Resource| persistent.values().any(|asked| asked.resource == resource.name);
    let needless: Vec<Arc<Resource>> =
        noted.filter(|r| !used.contains(&r.id) && !attached.contains(&r.id) && !is_kept(r)).cloned().collect();
    idle.retain(|id, _| needless.iter().any(|resource| resource.id == *id));
    for resource in needless {
        if idle.entry(resource.id).or_insert_with(Instant::now).elapsed() < patience {
            continue;
        }
        if !resource.assignments.get(&node.me).is_some_and(|mine| mine.is_diskless()) {
            // It has a replica by now, or was taken away.
            visits.forget(resource.id);
            continue;
        }
        let gone = UnassignResource { resource: resource.name.clone(), node: node.config.name.clone(), force: false };
        match removal::unassign(node, gone).await {
            Ok(_) => {
                tracing::info!(resource = %resource.name, "not used on this node any more");
                visits.forget(resource.id);
            }
            Err(error) => {
                tracing::debug!(resource = %resource.name, %error, "cannot be taken from this node yet");
                idle.insert(resource.id, Instant::now());
            }
        }
    }
}

const LOOK: Duration = Duration::from_secs(2);
/// How long nobody may have used it: longer than a command may take that makes the use.
const IDLE: Duration = Duration::from_secs(15);
