//! Whether a volume was used elsewhere while an attachment had no connection.
//!
//! An attachment outlives its connection to the daemon: the kernel holds blocks of the volume in its caches, and writes that were not
//! answered are sent again. That is right only while nobody else has written. So every node counts, durably, how often it has let a
//! client use a resource; an attachment notes the others' counts when it is let in, and is admitted again only when they are what they
//! were. Mounts that only read are not counted: their exports take no writes, and nobody may write beside them. Of its own node's clients
//! an attachment knows all but those that are no attachments: these are counted by themselves, too.
//!
//! A node that cannot be asked does not matter: where it may have newer data, the engine does not let this node be primary without it.
//! What such a node did while this daemon could see it is noted then ([`watch`]).
//!
//! An attachment that shares its volume, and is in, suffers others beside it: see [`super::inside`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::inside::{self, Seen, Verdict};
use crate::attach::place::{Place, State};
use crate::control::node::Node;
use crate::control::status;
use crate::control::tls::write_private;
use crate::engine::{Connection, ResourceStatus};
use crate::nbd::Refusal;
use crate::units::{Name, NodeId, ResourceId, Sharing, VolumeId};

/// Whose uses are counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum By {
    /// All clients of this node: what other nodes are told.
    Anybody,
    /// Those that are no attachments: what its own attachments compare.
    Strangers,
}

/// How often this node has let clients use its resources.
#[derive(Debug)]
pub struct Uses {
    directory: PathBuf,
    known: Mutex<Counts>,
}

type Counts = BTreeMap<(ResourceId, By), u64>;

impl Uses {
    /// The counts in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, known: Mutex::default() }
    }

    /// How often a resource was used.
    ///
    /// # Errors
    ///
    /// The count cannot be read. It is not 0 then: attachments of other nodes would take that for a use.
    pub fn of(&self, resource: ResourceId, by: By) -> io::Result<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.known_in(&mut known, resource, by)
    }

    fn known_in(&self, known: &mut Counts, resource: ResourceId, by: By) -> io::Result<u64> {
        if let Some(count) = known.get(&(resource, by)) {
            return Ok(*count);
        }
        let count = self.load(resource, by)?;
        known.insert((resource, by), count);
        Ok(count)
    }

    /// The counts of those that were used, and those whose counts cannot be read.
    pub fn all(&self, of: impl Iterator<Item = ResourceId>) -> (BTreeMap<ResourceId, u64>, BTreeSet<ResourceId>) {
        let (mut counts, mut unread) = (BTreeMap::new(), BTreeSet::new());
        for resource in of {
            match self.of(resource, By::Anybody) {
                Ok(0) => {}
                Ok(count) => drop(counts.insert(resource, count)),
                Err(error) => {
                    tracing::warn!(
                        %resource, %error,
                        "how often a resource was used here cannot be told, and attachments wait for that; if the file is damaged, detach the \
                         resource's volumes on all nodes, and remove it"
                    );
                    unread.insert(resource);
                }
            }
        }
        (counts, unread)
    }

    /// Counts one use more. When this returns, the count is durable.
    pub fn count(&self, resource: ResourceId, by: By) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.known_in(&mut known, resource, by)? + 1;
        fs::create_dir_all(&self.directory)?;
        write_private(&self.file(resource, by), format!("{next}\n").as_bytes())?;
        known.insert((resource, by), next);
        Ok(())
    }

    fn load(&self, resource: ResourceId, by: By) -> io::Result<u64> {
        let file = self.file(resource, by);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().map_err(|error| named(io::Error::new(io::ErrorKind::InvalidData, error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(named(error)),
        }
    }

    fn file(&self, resource: ResourceId, by: By) -> PathBuf {
        self.directory.join(match by {
            By::Anybody => resource.to_string(),
            By::Strangers => format!("{resource}.strangers"),
        })
    }
}

/// Counts a client that is no attachment.
pub async fn note(node: &Arc<Node>, resource: ResourceId) -> Result<(), Refusal> {
    count(node, resource, &[By::Strangers, By::Anybody]).await
}

async fn count(node: &Arc<Node>, resource: ResourceId, by: &'static [By]) -> Result<(), Refusal> {
    let node = node.clone();
    let count = move || by.iter().try_for_each(|by| node.attachments.uses.count(resource, *by));
    let counted = tokio::task::spawn_blocking(count);
    let counted = counted.await.map_err(io::Error::other).flatten();
    counted.map_err(|error| Refusal::unknown(format!("the use of the volume cannot be noted: {error}")))
}

/// With whom the attachment of a volume shares it.
pub fn sharing(node: &Node, resource: &Name, volume: VolumeId) -> Sharing {
    Place::of(&node.root, resource, volume).state().map(|state| state.sharing()).unwrap_or_default()
}

/// Admits the attachment with this token, whose node is primary now: for the first time, or again when nobody else has used the volume.
pub async fn admit(node: &Arc<Node>, resource: ResourceId, volume: VolumeId, token: &str) -> Result<(), Refusal> {
    let gone = || Refusal::policy("there is no such attachment any more");
    let name = node.model().resource(resource).map_err(|_| gone())?.name.clone();
    let place = Place::of(&node.root, &name, volume);
    let state = place.state().map_err(|_| gone())?;
    if state.token != token || state.id != resource {
        return Err(gone());
    }
    if place.seen().is_some() {
        // What the data plane tells of its connections may be that much older than the attaching that it has just granted.
        sleep(STATUS_AGE).await;
    }
    let inside = &node.attachments.inside;
    let dropped = status_of(node, resource).map_or(0, |status| status.dropped);
    if state.sharing() != Sharing::Alone && !place.is_fenced() && inside.is_in(token, dropped) {
        return Ok(());
    }
    let seen = others(node, resource).await.map_err(|silent| {
        let silent = node.model().node_name(silent);
        Refusal::unknown(format!(
            "node '{silent}' does not tell whether it has used the volume, and is asked again; if it stays so, its log says why"
        ))
    })?;
    match compare(&place, &state, &counts(&seen)) {
        Ok(first) => {
            // Whoever only reads makes nothing old that others hold.
            if first && state.sharing() != Sharing::Readers {
                count(node, resource, &[By::Anybody]).await?;
            }
            inside.admitted(token, dropped);
            Ok(())
        }
        Err(by) => {
            let by = by.map_or_else(|| "another node".to_owned(), |by| format!("node '{}'", node.model().node_name(by)));
            Err(Refusal::policy(format!("the volume was used on {by} meanwhile; detach it and attach it again")))
        }
    }
}

/// Looks for uses elsewhere of what is attached here: to know of them when the other node is gone.
pub async fn watch(node: &Arc<Node>, attached: &[(Place, State)]) {
    let known: Vec<String> =
        Place::all(&node.root).unwrap_or_default().iter().filter_map(|at| Some(at.state().ok()?.token)).collect();
    node.attachments.inside.retain(|token| known.iter().any(|one| one == token));
    let seen = others_of_all(node, attached.iter().map(|(_, state)| state.id)).await;
    for (place, state) in attached {
        let Some(seen) = seen.get(&state.id) else { continue };
        let Some(noted) = place.seen() else { continue };
        if let Verdict::In(beside) = beside(node, state, &noted, seen) {
            note_beside(place, state, noted, &beside, seen);
        } else if compare(place, state, &counts(seen)).is_err() {
            tracing::debug!(resource = %state.resource, volume = %state.volume, "an attached volume is used elsewhere");
        }
    }
}

/// The [`others`] of several resources, where they can be told. All are asked at once: a node that is silent would be waited for as often
/// as there are attachments, and nobody would tend them meanwhile.
async fn others_of_all(
    node: &Arc<Node>,
    resources: impl Iterator<Item = ResourceId>,
) -> BTreeMap<ResourceId, BTreeMap<NodeId, Seen>> {
    let mut asked = JoinSet::new();
    for resource in resources.collect::<BTreeSet<_>>() {
        let node = node.clone();
        asked.spawn(async move { (resource, others(&node, resource).await) });
    }
    let told = asked.join_all().await;
    told.into_iter().filter_map(|(resource, seen)| Some((resource, seen.ok()?))).collect()
}

/// Whoever uses a volume beside an attachment that shares it.
fn beside(node: &Node, state: &State, noted: &BTreeMap<NodeId, u64>, seen: &BTreeMap<NodeId, Seen>) -> Verdict {
    let status = status_of(node, state.id).filter(|_| state.sharing() != Sharing::Alone);
    status.map_or(Verdict::Out, |status| {
        node.attachments.inside.look(&state.token, Instant::now(), inside::standing(&status), noted, seen)
    })
}

/// Notes the counts of those that have come beside an attachment, and of nodes that are new to it.
fn note_beside(
    place: &Place,
    state: &State,
    mut noted: BTreeMap<NodeId, u64>,
    beside: &BTreeMap<NodeId, u64>,
    seen: &BTreeMap<NodeId, Seen>,
) {
    let before = noted.clone();
    noted.extend(beside);
    for (node, told) in seen {
        noted.entry(*node).or_insert(told.count);
    }
    if noted == before || place.is_fenced() {
        return;
    }
    if let Err(error) = place.note_seen(&noted) {
        tracing::warn!(resource = %state.resource, volume = %state.volume, %error, "who uses it, too, cannot be noted");
    }
}

/// Compares the others' counts with those that an attachment has noted, and notes those that are new to it. Whether it is the first
/// time; or the node that has used the volume.
fn compare(place: &Place, state: &State, seen: &BTreeMap<NodeId, u64>) -> Result<bool, Option<NodeId>> {
    let store = |counts: &BTreeMap<NodeId, u64>| place.note_seen(counts).map_err(|_| None);
    let Some(mut noted) = place.seen() else {
        store(seen)?;
        return Ok(true);
    };
    if place.is_fenced() {
        return Err(None);
    }
    let changed = seen.iter().find(|(node, now)| noted.get(node).is_some_and(|then| then != *now));
    if let Some((by, _)) = changed {
        tracing::warn!(resource = %state.resource, volume = %state.volume, %by, "an attachment is fenced: another node has used the volume");
        let _ = place.fence();
        return Err(Some(*by));
    }
    let before = noted.len();
    for (node, count) in seen {
        noted.entry(*node).or_insert(*count);
    }
    if noted.len() > before {
        store(&noted)?;
    }
    Ok(false)
}

/// The counts of all other nodes that answer, and this node's of strangers; or a node that cannot say, or does not though this one is
/// connected to it for the resource.
async fn others(node: &Arc<Node>, resource: ResourceId) -> Result<BTreeMap<NodeId, Seen>, NodeId> {
    let mut peers = status_of(node, resource).into_iter().flat_map(|status| status.peers);
    let reports = status::gather(node, &node.model(), Some(resource)).await;
    if let Some(silent) = peers.find(|peer| peer.connection == Connection::Connected && !reports.contains_key(&peer.node)) {
        return Err(silent.node);
    }
    if let Some((unread, _)) = reports.iter().find(|(_, report)| report.unread_uses.contains(&resource)) {
        return Err(*unread);
    }
    let theirs = reports.iter().filter(|(peer, _)| **peer != node.me);
    let seen = |report: &status::Report| Seen {
        count: report.uses.get(&resource).copied().unwrap_or(0),
        under: report.resources.get(&resource).and_then(inside::under),
    };
    let mut all: BTreeMap<NodeId, Seen> = theirs.map(|(peer, report)| (*peer, seen(report))).collect();
    let count = node.attachments.uses.of(resource, By::Strangers).map_err(|_| node.me)?;
    all.insert(
        node.me,
        Seen { count, under: reports.get(&node.me).and_then(|mine| mine.resources.get(&resource)).and_then(inside::under) },
    );
    Ok(all)
}

fn counts(seen: &BTreeMap<NodeId, Seen>) -> BTreeMap<NodeId, u64> {
    seen.iter().map(|(node, seen)| (*node, seen.count)).collect()
}

fn status_of(node: &Node, resource: ResourceId) -> Option<ResourceStatus> {
    node.plane.status().into_iter().find(|status| status.resource == resource)
}

/// How old the data plane's status may be, and some more.
pub(super) const STATUS_AGE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: ResourceId = ResourceId(3);

    #[test]
    fn counts_outlive_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let uses = Uses::new(directory.path().join("uses"));
        assert_eq!(uses.of(WEB, By::Anybody).unwrap(), 0);
        uses.count(WEB, By::Anybody).unwrap();
        uses.count(WEB, By::Anybody).unwrap();
        uses.count(WEB, By::Strangers).unwrap();
        assert_eq!((uses.of(WEB, By::Anybody).unwrap(), uses.of(WEB, By::Strangers).unwrap()), (2, 1));
        let again = Uses::new(directory.path().join("uses"));
        again.count(WEB, By::Anybody).unwrap();
        assert_eq!(again.of(WEB, By::Strangers).unwrap(), 1);
        assert_eq!(again.all([WEB, ResourceId(9)].into_iter()), ([(WEB, 3)].into(), BTreeSet::new()));
    }

    /// Taken for 0 it would be a use to those that had noted another count, and come to that very count again by and by.
    #[test]
    fn a_count_that_cannot_be_read_is_not_0() {
        let directory = tempfile::tempdir().unwrap();
        let uses = Uses::new(directory.path().to_owned());
        uses.count(WEB, By::Anybody).unwrap();
        let (file, aside) = (uses.file(WEB, By::Anybody), directory.path().join("aside"));
        fs::rename(&file, &aside).unwrap();
        fs::create_dir(&file).unwrap();
        let again = Uses::new(directory.path().to_owned());
        assert!(again.count(WEB, By::Anybody).is_err() && again.of(WEB, By::Anybody).is_err());
        assert_eq!(again.all([WEB].into_iter()), (BTreeMap::new(), [WEB].into()));
        fs::remove_dir(&file).unwrap();
        fs::rename(&aside, &file).unwrap();
        assert_eq!(again.of(WEB, By::Anybody).unwrap(), 1);
        fs::write(&file, "").unwrap();
        assert!(
            Uses::new(directory.path().to_owned()).of(WEB, By::Anybody).is_err(),
            "an empty file is none that was written here"
        );
    }

    #[test]
    fn a_volume_that_another_node_has_used_is_not_admitted_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::at(directory.path());
        let state = State::sample("web", WEB, VolumeId(0));
        let counts = |all: &[(u32, u64)]| all.iter().map(|&(node, count)| (NodeId(node), count)).collect::<BTreeMap<_, _>>();
        assert_eq!(compare(&place, &state, &counts(&[(1, 5)])), Ok(true));
        assert_eq!(compare(&place, &state, &counts(&[(1, 5)])), Ok(false));
        // A node that was away comes back with whatever it had counted.
        assert_eq!(compare(&place, &state, &counts(&[(1, 5), (2, 8)])), Ok(false));
        assert_eq!(compare(&place, &state, &counts(&[])), Ok(false));
        assert_eq!(compare(&place, &state, &counts(&[(1, 5), (2, 9)])), Err(Some(NodeId(2))));
        // For good, even when that node cannot be asked any more.
        assert_eq!(compare(&place, &state, &counts(&[(1, 5)])), Err(None));
    }
}
