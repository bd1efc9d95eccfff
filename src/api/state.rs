//! The words for how things are, decided here for every list, table, script and plugin.
//!
//! | a resource is | when |
//! |---|---|
//! | `ok` | every assigned replica is up to date and connected to all others |
//! | `deploying` | replicas are still being made; those that exist are well |
//! | `syncing` | every replica is there, and a resync brings the last ones up to date |
//! | `degraded` | a replica is offline, failed, disconnected or behind; the data can be used |
//! | `undeployed` | it has no replicas: a definition only |
//! | `removing` | its replicas are being removed |
//! | `suspended` | I/O waits; the detail says for what |
//! | `no-data` | no up-to-date replica can be reached |
//! | `split-brain` | replicas have diverged, and an operator must decide |
//!
//! Of several that hold the last in the order `ok`, `deploying`, `syncing`, `degraded`, `suspended`, `no-data`,
//! `split-brain` is told; `removing` and `undeployed` leave no room for others.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::nodes::{Membership, Node};
use super::operate::Verify;
use super::status::{Connection, Pending, ReplicaStatus, ResourceStatus, Resync, Suspension};
use crate::units::{DiskState, Name, Role};

/// How much attention something wants; a table shows it as a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All is well.
    Normal,
    /// Something is going on, or redundancy is lost.
    Warning,
    /// Data cannot be used, or someone must act.
    Alert,
}

/// How a resource is. See the [module's table](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceState {
    /// Every assigned replica is up to date and connected.
    Ok,
    /// Replicas are still being made.
    Deploying,
    /// A resync brings the last replicas up to date.
    Syncing,
    /// A replica is offline, failed, disconnected or behind.
    Degraded,
    /// I/O waits.
    Suspended,
    /// No up-to-date replica can be reached.
    NoData,
    /// Replicas have diverged.
    SplitBrain,
    /// There are no replicas.
    Undeployed,
    /// The replicas are being removed.
    Removing,
}

impl ResourceState {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Deploying => "deploying",
            Self::Syncing => "syncing",
            Self::Degraded => "degraded",
            Self::Suspended => "suspended",
            Self::NoData => "no-data",
            Self::SplitBrain => "split-brain",
            Self::Undeployed => "undeployed",
            Self::Removing => "removing",
        }
    }

    /// How much attention it wants.
    pub const fn level(self) -> Level {
        match self {
            Self::Ok => Level::Normal,
            Self::Deploying | Self::Syncing | Self::Degraded | Self::Undeployed | Self::Removing => Level::Warning,
            Self::Suspended | Self::NoData | Self::SplitBrain => Level::Alert,
        }
    }

    /// Whether the resource can be read and written, now.
    pub const fn usable(self) -> bool {
        matches!(self, Self::Ok | Self::Deploying | Self::Syncing | Self::Degraded)
    }
}

impl fmt::Display for ResourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a resource is on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentState {
    /// Up to date and connected to every online peer.
    Ok,
    /// Uses the resource without a replica, and reaches it.
    Client,
    /// Being made.
    Deploying,
    /// Could not be made; it is tried again.
    Failing,
    /// The target of a resync.
    Syncing,
    /// Behind, or not known not to be, and no resync is going on.
    Outdated,
    /// Online, and a peer that is online too is not connected.
    Disconnected,
    /// The node does not answer.
    Offline,
    /// The disk failed.
    DiskFailed,
    /// I/O waits there.
    Suspended,
    /// Diverged from a peer.
    SplitBrain,
    /// Being removed.
    Removing,
}

impl AssignmentState {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Client => "client",
            Self::Deploying => "deploying",
            Self::Failing => "failing",
            Self::Syncing => "syncing",
            Self::Outdated => "outdated",
            Self::Disconnected => "disconnected",
            Self::Offline => "offline",
            Self::DiskFailed => "disk-failed",
            Self::Suspended => "suspended",
            Self::SplitBrain => "split-brain",
            Self::Removing => "removing",
        }
    }

    /// How much attention it wants.
    pub const fn level(self) -> Level {
        match self {
            Self::Ok | Self::Client => Level::Normal,
            Self::Deploying | Self::Syncing | Self::Removing | Self::Outdated | Self::Disconnected => Level::Warning,
            Self::Failing | Self::Offline | Self::DiskFailed | Self::Suspended | Self::SplitBrain => Level::Alert,
        }
    }
}

impl fmt::Display for AssignmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Online.
    Ok,
    /// Added; its join command was not run yet.
    Expected,
    /// Its daemon does not answer.
    Offline,
    /// Leaving the cluster.
    Removing,
}

impl NodeState {
    pub(super) fn of(node: &Node) -> Self {
        match node {
            Node { removing: true, .. } => Self::Removing,
            Node { membership: Membership::Expected, .. } => Self::Expected,
            Node { online: false, .. } => Self::Offline,
            Node { .. } => Self::Ok,
        }
    }

    /// The word, as drbdmanage has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Expected => "waiting for join",
            Self::Offline => "OFFLINE",
            Self::Removing => "pending actions: remove",
        }
    }

    /// How much attention it wants.
    pub const fn level(self) -> Level {
        match self {
            Self::Ok => Level::Normal,
            Self::Expected | Self::Removing => Level::Warning,
            Self::Offline => Level::Alert,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl ResourceStatus {
    /// How the resource is, and why in words (empty when `ok`).
    pub fn state(&self) -> (ResourceState, String) {
        if self.removing {
            return (ResourceState::Removing, String::new());
        }
        let wanted: Vec<&ReplicaStatus> =
            self.replicas.iter().filter(|r| !r.diskless && r.pending != Some(Pending::Remove)).collect();
        if wanted.is_empty() {
            return (ResourceState::Undeployed, String::new());
        }
        if let Some(parts) = self.split_brain() {
            return (ResourceState::SplitBrain, parts);
        }
        if let Some((node, why)) = self.suspension() {
            return (ResourceState::Suspended, format!("{node}: {why}"));
        }
        let states: Vec<(&ReplicaStatus, AssignmentState)> = wanted.iter().map(|r| (*r, self.assignment(r).0)).collect();
        if !wanted.iter().any(|r| r.disk == Some(DiskState::UpToDate)) {
            let (state, skip) =
                match states.iter().all(|(_, s)| matches!(s, AssignmentState::Deploying | AssignmentState::Failing)) {
                    true => (ResourceState::Deploying, AssignmentState::Ok),
                    false => (ResourceState::NoData, AssignmentState::Ok),
                };
            return (state, tell(&states, |s| s != skip));
        }
        if states.iter().any(|(_, s)| degrades(*s)) {
            return (ResourceState::Degraded, tell(&states, degrades));
        }
        if states.iter().any(|(_, s)| *s == AssignmentState::Syncing) {
            return (ResourceState::Syncing, self.progress());
        }
        if states.iter().any(|(_, s)| *s == AssignmentState::Deploying) {
            return (ResourceState::Deploying, tell(&states, |s| s == AssignmentState::Deploying));
        }
        (ResourceState::Ok, String::new())
    }

    /// How the resource is on one of its nodes, and why in words (empty when `ok`).
    pub fn assignment(&self, replica: &ReplicaStatus) -> (AssignmentState, String) {
        use AssignmentState as S;
        let plain = |state| (state, String::new());
        match replica {
            ReplicaStatus { pending: Some(Pending::Remove), failure, .. } => (S::Removing, failure.clone().unwrap_or_default()),
            ReplicaStatus { online: false, .. } => plain(S::Offline),
            ReplicaStatus { failure: Some(why), .. } => (S::Failing, why.clone()),
            ReplicaStatus { pending: Some(Pending::Deploy), .. } => plain(S::Deploying),
            _ => self.running(replica),
        }
    }

    /// The assignment of a node that is online and has nothing left to do.
    fn running(&self, replica: &ReplicaStatus) -> (AssignmentState, String) {
        use AssignmentState as S;
        let peers = |wanted: Connection| -> Option<String> {
            let online = |node: &Name| self.replicas.iter().any(|r| r.node == *node && r.online && r.pending.is_none());
            let found = replica.peers.iter().filter(|p| p.connection == wanted);
            let found = found.filter(|p| wanted != Connection::Connecting || online(&p.node));
            let names: Vec<&str> = found.map(|p| p.node.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        if let Some(with) = peers(Connection::SplitBrain) {
            return (S::SplitBrain, format!("with {with}"));
        }
        if let Some(why) = replica.suspended.iter().find(|s| lasts(s)) {
            return (S::Suspended, why.to_string());
        }
        if !replica.diskless {
            match replica.disk {
                Some(DiskState::UpToDate) => {}
                Some(DiskState::Failed | DiskState::Diskless) => return (S::DiskFailed, String::new()),
                disk => match self.resync_of(replica) {
                    Some(resync) => return (S::Syncing, percent(resync)),
                    None => return (S::Outdated, disk.map(|d| d.to_string()).unwrap_or_default()),
                },
            }
        }
        match peers(Connection::Refused).or_else(|| peers(Connection::Connecting)) {
            Some(from) => (S::Disconnected, format!("from {from}")),
            None if replica.diskless => (S::Client, String::new()),
            None => (S::Ok, String::new()),
        }
    }

    /// The resync that brings a replica up to date, as it or its source tells it.
    pub fn resync_of(&self, target: &ReplicaStatus) -> Option<Resync> {
        let own = target.peers.iter().filter_map(|p| p.resync).find(|r| !r.source);
        own.or_else(|| {
            let views = self.replicas.iter().filter(|r| r.online).flat_map(|r| &r.peers);
            views.filter(|p| p.node == target.node).filter_map(|p| p.resync).find(|r| r.source)
        })
    }

    /// What the latest verify has found of a replica.
    pub fn verify_of(&self, target: &ReplicaStatus) -> Option<Verify> {
        let views = self.replicas.iter().filter(|r| r.online).flat_map(|r| &r.peers);
        views.filter(|p| p.node == target.node).filter_map(|p| p.verify).max_by_key(|found| found.reign)
    }

    fn split_brain(&self) -> Option<String> {
        let mut nodes: Vec<&str> = Vec::new();
        for replica in self.replicas.iter().filter(|r| r.online) {
            for peer in replica.peers.iter().filter(|p| p.connection == Connection::SplitBrain) {
                nodes.extend([replica.node.as_str(), peer.node.as_str()]);
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        (!nodes.is_empty()).then(|| format!("between {}", nodes.join(" and ")))
    }

    /// The suspension that counts: the primary's, or anyone's when there is no primary.
    fn suspension(&self) -> Option<(&Name, &Suspension)> {
        let primaries = self.replicas.iter().any(|r| r.role == Some(Role::Primary));
        let counts = |r: &&ReplicaStatus| r.online && (!primaries || r.role == Some(Role::Primary));
        let mut waits = self.replicas.iter().filter(counts).flat_map(|r| r.suspended.iter().map(move |s| (&r.node, s)));
        waits.find(|(_, why)| lasts(why))
    }

    /// How far all resyncs of the resource are, together.
    fn progress(&self) -> String {
        let all = self.replicas.iter().filter(|r| r.disk != Some(DiskState::UpToDate)).filter_map(|r| self.resync_of(r));
        let sum = all.fold(Resync { source: true, total: 0, done: 0 }, |sum, one| Resync {
            source: true,
            total: sum.total + one.total,
            done: sum.done + one.done,
        });
        percent(sum)
    }
}

/// Whether a wait is worth telling as a state: those that end by themselves within moments are not.
fn lasts(why: &Suspension) -> bool {
    match why {
        Suspension::Authority | Suspension::NoData { .. } | Suspension::Waiting { .. } | Suspension::Failing => true,
        Suspension::Lease { .. } | Suspension::TakingOver | Suspension::Snapshot => false,
    }
}

/// Whether a replica in this state costs its resource redundancy.
fn degrades(state: AssignmentState) -> bool {
    use AssignmentState as S;
    matches!(state, S::Offline | S::Failing | S::DiskFailed | S::Outdated | S::Disconnected | S::Suspended)
}

/// "beta offline, gamma outdated"
fn tell(states: &[(&ReplicaStatus, AssignmentState)], told: impl Fn(AssignmentState) -> bool) -> String {
    let words: Vec<String> = states.iter().filter(|(_, s)| told(*s)).map(|(r, s)| format!("{} {s}", r.node)).collect();
    words.join(", ")
}

/// How far a resync is, in percent with one decimal, never rounded up to 100.
fn percent(resync: Resync) -> String {
    let tenths = u128::from(resync.done.min(resync.total)) * 1000 / u128::from(resync.total.max(1));
    format!("{}.{}%", tenths / 10, tenths % 10)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
