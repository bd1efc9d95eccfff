//! Why the model refuses a command.

use serde::{Deserialize, Serialize};

use crate::units::{Record, VolumeId, human, human_up};

/// Why a command was refused. It changed nothing. The text says what is wrong; [`hint`](Self::hint) what to do next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum Refusal {
    #[error("this cluster exists already")]
    AlreadyInitialised,
    #[error("this cluster has not been initialised")]
    NotInitialised,

    #[error("there is no node '{0}'")]
    NoSuchNode(String),
    #[error("there is a node named '{0}' already")]
    NodeExists(String),
    #[error("the address {0} is that of node '{1}' already")]
    AddressInUse(String, String),
    #[error("{0} is not an address that other nodes can reach")]
    BadAddress(String),
    #[error("a cluster has at most {0} nodes")]
    TooManyNodes(usize),
    #[error("node '{0}' has joined already: its token was used")]
    TokenUsed(String),
    #[error("the token is not the one of node '{0}'")]
    WrongToken(String),
    #[error("the token of node '{0}' has expired")]
    TokenExpired(String),
    #[error("the token is for node '{name}' at {invited}, not at {from}")]
    WrongAddress { name: String, invited: String, from: String },
    #[error("node '{0}' is not a member yet")]
    NotAMember(String),
    #[error("node '{0}' is being removed")]
    NodeLeaving(String),
    #[error("node '{0}' is the last one")]
    LastNode(String),
    #[error("node '{0}' has no storage pool")]
    NoPool(String),
    #[error("node '{0}' has no pool '{1}'")]
    NoSuchPool(String, String),
    #[error("node '{0}' has a pool '{1}' already")]
    PoolExists(String, String),
    #[error("pool '{pool}' of node '{node}' still holds resource '{resource}'")]
    PoolInUse { node: String, pool: String, resource: String },
    #[error("the pool 'default' of node '{0}' is the one that it was made with and stays")]
    FirstPool(String),

    #[error("there is no resource '{0}'")]
    NoSuchResource(String),
    #[error("there is a resource named '{0}' already")]
    ResourceExists(String),
    #[error("resource '{0}' has no volume {1}")]
    NoSuchVolume(String, VolumeId),
    #[error("resource '{0}' has a volume {1} already")]
    VolumeExists(String, VolumeId),
    #[error("resource '{0}' has volumes or replicas: only a new one can begin with what a node has")]
    NotNew(String),
    #[error("resource '{0}' has no volumes")]
    NoVolumes(String),
    #[error("a resource has at most {0} volumes")]
    TooManyVolumes(usize),
    #[error("{0} bytes is no size for a volume")]
    BadSize(u64),
    #[error("{} are more than a volume can have, which is {}", human_up(*bytes), human(*max))]
    TooLarge { bytes: u64, max: u64 },
    #[error("volume {volume} of '{resource}' has {} and cannot shrink to {}", human_up(*present), human(*wanted))]
    Shrinks { resource: String, volume: VolumeId, present: u64, wanted: u64 },
    #[error("{0}")]
    BadOption(String),
    #[error("{0}")]
    BadProperty(String),

    #[error("{wanted} replicas were asked for, and {available} node(s) have the storage pools for them")]
    TooFewNodes { wanted: usize, available: usize },
    #[error("a resource has at most {0} replicas")]
    TooManyReplicas(usize),
    #[error("the replicas of resource '{0}' decide alone (quorum=off): it can have two")]
    TooManyAlone(String),
    #[error(
        "{} do not fit on {wanted} node(s): {fitting} have so much room, and the most is {} on '{best}'{}", human_up(*needed), human(*most),
        promises(*most, limit.as_ref(), None)
    )]
    NoSpace {
        needed: u64,
        wanted: usize,
        fitting: usize,
        most: u64,
        best: String,
        /// What limits the room of the best one, if its pool is thin.
        #[serde(default)]
        limit: Option<ThinLimit>,
    },
    #[error(
        "{} do not fit on node '{node}', which has room for {}{}", human_up(*needed), human(*room), promises(*room, limit.as_ref(), *thin)
    )]
    NoSpaceOn {
        node: String,
        needed: u64,
        room: u64,
        /// The pool's size, if it is thin.
        #[serde(default)]
        thin: Option<u64>,
        /// What limits the room then, if its node says.
        #[serde(default)]
        limit: Option<ThinLimit>,
    },
    #[error("resource '{0}' is assigned to node '{1}' already")]
    Assigned(String, String),
    #[error("resource '{0}' is not assigned to node '{1}'")]
    NotAssigned(String, String),
    #[error("node '{1}' uses resource '{0}' without a replica")]
    Diskless(String, String),
    #[error("the replica of resource '{0}' on node '{1}' is being removed or replaced already")]
    ReplicaLeaves(String, String),
    #[error("no such resync of resource '{0}' is paused")]
    NotPaused(String),
    #[error("all resyncs of resource '{0}' are paused")]
    AllPaused(String),
    #[error("no such node is disconnected from the others for resource '{0}'")]
    NotDisconnected(String),
    #[error("resource '{0}' has only its replica on node '{1}'")]
    LastReplica(String, String),
    #[error("resource '{0}' has its only up-to-date replica on node '{1}'")]
    LastUpToDate(String, String),
    #[error("resource '{0}' is in use on node '{1}'")]
    InUse(String, String),
    #[error("resource '{0}' was changed or came into use while its removal was decided")]
    Overtaken(String),
    #[error("resource '{0}' has replicas: who decides about them was settled when they were made")]
    QuorumIsSettled(String),
    #[error("{0} fewer replicas than now would leave resource '{1}' with none")]
    NoneWouldRemain(usize, String),

    #[error("resource '{0}' has no snapshot '{1}'")]
    NoSuchSnapshot(String, String),
    #[error("resource '{0}' has a snapshot '{1}' already")]
    SnapshotExists(String, String),
    #[error("resource '{0}' has {1} snapshots, and may not have more")]
    TooManySnapshots(String, usize),
    #[error("snapshot '{1}' of resource '{0}' is still being taken")]
    SnapshotUnfinished(String, String),
    #[error("resource '{2}' is still being made of snapshot '{1}' of resource '{0}'")]
    SnapshotInUse(String, String, String),
    #[error("snapshot '{0}' is not on node '{1}'")]
    SnapshotNotThere(String, String),
    #[error("resource '{0}' has {1} snapshot(s)")]
    HasSnapshots(String, usize),
    #[error("resource '{0}' is still being made")]
    NotMadeYet(String),
    #[error("the replica of resource '{0}' on node '{1}' is not UpToDate")]
    NotUpToDate(String, String),
    #[error("volume {1} of resource '{0}' is newer than snapshot '{2}'")]
    VolumeIsNewer(String, VolumeId, String),
    #[error("snapshot '{0}' cannot be without its volume on node '{1}', where it is a classic LVM snapshot")]
    NeedsItsVolume(String, String),
    #[error("snapshots cannot be taken more often than every {shortest} seconds, and 1 to {most} of them can be kept")]
    BadSchedule { shortest: u64, most: u32 },
    #[error("verifies cannot begin more often than every {shortest} seconds")]
    VerifyTooOften { shortest: u64 },

    #[error("the record is another one")]
    RecordIs(Box<Record>),
    #[error("the proposed record does not follow the present one: {0}")]
    BadRecord(String),
    #[error("the confirmation is of something that the model does not know")]
    Stale,
}

/// What limits the room in a thin pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThinLimit {
    /// Its size in bytes.
    pub size: u64,
    /// How many times that it may promise.
    pub times: u32,
    /// What it has promised already, in bytes: to volumes, to snapshots, and to what is still being made.
    pub promised: u64,
}

impl ThinLimit {
    /// What it may promise in all, in bytes.
    fn bytes(&self) -> u64 {
        self.size.saturating_mul(self.times.into())
    }
}

/// What kind of refusal, for exit codes and HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The named thing is not there.
    NotFound,
    /// It is there already.
    Exists,
    /// The argument is wrong whatever the state.
    Invalid,
    /// There is no room.
    NoSpace,
    /// The state does not allow it: in use, the last copy, not ready.
    Conflict,
    /// The one who asks may not.
    Denied,
}

impl Refusal {
    /// What kind it is.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::NoSuchNode(_)
            | Self::NoSuchPool(..)
            | Self::NoSuchResource(_)
            | Self::NoSuchVolume(..)
            | Self::NoSuchSnapshot(..)
            | Self::SnapshotNotThere(..)
            | Self::NotAssigned(..) => RefusalKind::NotFound,
            Self::AlreadyInitialised
            | Self::NodeExists(_)
            | Self::PoolExists(..)
            | Self::AddressInUse(..)
            | Self::ResourceExists(_)
            | Self::VolumeExists(..)
            | Self::NotNew(_)
            | Self::SnapshotExists(..)
            | Self::Assigned(..) => RefusalKind::Exists,
            Self::BadAddress(_)
            | Self::TooManyNodes(_)
            | Self::TooManyVolumes(_)
            | Self::BadSize(_)
            | Self::TooLarge { .. }
            | Self::Shrinks { .. }
            | Self::BadOption(_)
            | Self::BadProperty(_)
            | Self::TooManyReplicas(_)
            | Self::TooManySnapshots(..)
            | Self::BadSchedule { .. }
            | Self::VerifyTooOften { .. }
            | Self::NoneWouldRemain(..) => RefusalKind::Invalid,
            Self::TooFewNodes { .. } | Self::NoSpace { .. } | Self::NoSpaceOn { .. } | Self::NoPool(_) => RefusalKind::NoSpace,
            Self::TokenUsed(_) | Self::WrongToken(_) | Self::TokenExpired(_) | Self::WrongAddress { .. } => RefusalKind::Denied,
            Self::NotInitialised
            | Self::NotAMember(_)
            | Self::NodeLeaving(_)
            | Self::LastNode(_)
            | Self::NoVolumes(_)
            | Self::Diskless(..)
            | Self::ReplicaLeaves(..)
            | Self::NotPaused(_)
            | Self::AllPaused(_)
            | Self::NotDisconnected(_)
            | Self::LastReplica(..)
            | Self::LastUpToDate(..)
            | Self::TooManyAlone(_)
            | Self::InUse(..)
            | Self::PoolInUse { .. }
            | Self::FirstPool(_)
            | Self::Overtaken(_)
            | Self::QuorumIsSettled(_)
            | Self::SnapshotUnfinished(..)
            | Self::SnapshotInUse(..)
            | Self::HasSnapshots(..)
            | Self::NotMadeYet(_)
            | Self::NotUpToDate(..)
            | Self::VolumeIsNewer(..)
            | Self::NeedsItsVolume(..)
            | Self::RecordIs(_)
            | Self::BadRecord(_)
            | Self::Stale => RefusalKind::Conflict,
        }
    }

    /// What to do next; empty where the message says all there is.
    pub fn hint(&self) -> String {
        match self {
            Self::AlreadyInitialised => "to start afresh on a node, `blkrep init --force` makes it forget this cluster".into(),
            Self::NotInitialised => "run `blkrep init ADDRESS`, or `blkrep join` to join another node's cluster".into(),
            Self::NoSuchNode(_) => "`blkrep list-nodes` shows the nodes; `blkrep add-node NAME ADDRESS` adds one".into(),
            Self::NodeExists(name) => format!("choose another name, or remove the node first: `blkrep remove-node {name}`"),
            Self::AddressInUse(..) => "give the new node's own address, or another --port if several nodes share one".into(),
            Self::BadAddress(_) => "give the address of one of the node's network interfaces".into(),
            Self::TooManyNodes(_) => "remove a node that is not needed any more".into(),
            Self::TokenUsed(name) => {
                format!("if the node was lost or reinstalled, remove it (`blkrep remove-node --force {name}`) and add it again")
            }
            Self::WrongToken(name) | Self::TokenExpired(name) => {
                format!("a new one is printed by `blkrep howto-join {name}` on any member")
            }
            Self::WrongAddress { name, .. } => {
                format!("join with the address the node was added with, or remove it (`blkrep remove-node {name}`) and add it anew")
            }
            Self::NotAMember(name) => format!("run the command that `blkrep howto-join {name}` prints on that node"),
            Self::NodeLeaving(name) => {
                format!("wait until it is gone from `blkrep list-nodes`, or cut it off: `blkrep remove-node --force {name}`")
            }
            Self::LastNode(_) => "to use the node for another cluster, `blkrep init --force` or `blkrep join --force` there make it forget this one".into(),
            Self::NoPool(name) => {
                format!("create its volume group or directory pool and restart the daemon on '{name}', or choose another node")
            }
            Self::NoSuchPool(..) => "`blkrep list-pools` shows the pools; `blkrep add-pool NAME SPEC`, on the node, adds one".into(),
            Self::PoolExists(..) => "choose another name, or remove that one first: `blkrep remove-pool NAME`".into(),
            Self::PoolInUse { node, resource, .. } => {
                format!("take the replica away first (`blkrep unassign-resource {resource} {node}`); what was removed is gone in a moment")
            }
            Self::FirstPool(_) => "`blkrep default-pool NAME` has volumes go elsewhere".into(),
            Self::NoSuchResource(_) => "`blkrep list-resources` shows the resources".into(),
            Self::ResourceExists(_) => "choose another name".into(),
            Self::NoSuchVolume(..) => "`blkrep list-volumes` shows the volumes".into(),
            Self::VolumeExists(..) => "choose another number, or leave it out".into(),
            Self::NotNew(_) => "choose another name".into(),
            Self::NoVolumes(name) => format!("add one first: `blkrep add-volume {name} SIZE`"),
            Self::TooManyVolumes(_) => "create another resource".into(),
            Self::BadSize(_) => "give a size above zero, in whole blocks of 4 KiB".into(),
            Self::TooLarge { .. } => "create several volumes".into(),
            Self::Shrinks { .. } => "volumes only grow; create a smaller one and copy the data".into(),
            Self::BadOption(_) => "`blkrep list-options RESOURCE` shows the options and their values".into(),
            Self::BadProperty(_) => String::new(),
            Self::TooFewNodes { .. } => "ask for fewer, or add a node: `blkrep add-node NAME ADDRESS`".into(),
            Self::TooManyReplicas(_) => "ask for fewer".into(),
            Self::TooManyAlone(_) => {
                "take one away first (`blkrep unassign-resource`); a resource that is made where there are three nodes decides by majority and can have more".into()
            }
            Self::NoSpaceOn { thin: Some(_), .. } | Self::NoSpace { limit: Some(_), .. } => {
                "add storage to the pool, use another one (`blkrep list-pools`), or ask for a smaller size; how many times its size a pool may \
                 promise is set as it is added (`blkrep add-pool --oversubscription TIMES`): an empty one can be removed and added with another limit"
                    .into()
            }
            Self::NoSpace { .. } | Self::NoSpaceOn { .. } => {
                "free or add space (`blkrep list-pools` shows it, and what is amiss with a pool), or ask for fewer replicas or a smaller size".into()
            }
            Self::QuorumIsSettled(_) => {
                "make another resource, set its quorum before it gets a volume (`blkrep add-resource`, `blkrep set-options`), and copy the data"
                    .into()
            }
            Self::Assigned(..) => "`blkrep list-assignments` shows where it is".into(),
            Self::NotAssigned(resource, node) => format!("assign it with `blkrep assign-resource {resource} {node}`"),
            Self::Diskless(resource, node) => format!("give it one: `blkrep assign-resource {resource} {node}`"),
            Self::ReplicaLeaves(resource, _) => {
                format!("`blkrep status {resource}` shows how far it is; it goes on when the primary and its node answer")
            }
            Self::NotDisconnected(resource) => format!("`blkrep status {resource}` shows which are"),
            Self::NotPaused(resource) => format!("`blkrep status {resource}` shows which are"),
            Self::AllPaused(resource) => {
                format!("let all go on (`blkrep resync resume {resource}`), and pause others by their nodes")
            }
            Self::LastReplica(resource, _) => {
                format!(
                    "add a replica elsewhere first (`blkrep assign-resource {resource} NODE`), or remove the resource; --force gives the data up"
                )
            }
            Self::LastUpToDate(..) => {
                "wait for the resync of the others (`blkrep list-assignments`); --force gives the data up".into()
            }
            Self::InUse(_, node) => format!("unmount it and disconnect its clients on '{node}' first"),
            Self::Overtaken(resource) => format!("look at it (`blkrep list-assignments {resource}`) and try again"),
            Self::NoneWouldRemain(_, resource) => format!("to remove its data, use `blkrep undeploy-resource {resource}`"),
            Self::NoSuchSnapshot(resource, _) | Self::SnapshotNotThere(resource, _) => {
                format!("`blkrep list-snapshots {}` shows the snapshots", resource.split('@').next().unwrap_or_default())
            }
            Self::SnapshotExists(..) => "choose another name".into(),
            Self::TooManySnapshots(resource, _) => format!("remove some: `blkrep remove-snapshot {resource} SNAPSHOT`"),
            Self::SnapshotUnfinished(..) => "try again in a moment; what was broken off goes by itself".into(),
            Self::SnapshotInUse(_, _, user) => {
                format!("wait until all its replicas are there (`blkrep list-assignments {user}`), or remove it")
            }
            Self::HasSnapshots(resource, _) => {
                format!("remove them first (`blkrep list-snapshots {resource}`, `blkrep remove-snapshot {resource} SNAPSHOT`)")
            }
            Self::NotMadeYet(resource) | Self::NotUpToDate(resource, _) => {
                format!("wait until it is (`blkrep list-assignments {resource}`)")
            }
            Self::VolumeIsNewer(resource, _, snapshot) => {
                format!("remove the volume, or restore elsewhere: `blkrep restore-snapshot NEW {resource} {snapshot}`")
            }
            Self::NeedsItsVolume(..) => "restore it as another resource: `blkrep restore-snapshot NEW RESOURCE SNAPSHOT`".into(),
            Self::BadSchedule { .. } => "name both within that, as in `--every 24h --keep 7`".into(),
            Self::VerifyTooOften { .. } => "name a longer time, as in `--every 7d`".into(),
            Self::RecordIs(_) | Self::BadRecord(_) | Self::Stale => String::new(),
        }
    }
}

/// Why a thin pool has room for so many bytes and no more; `thin` is the size of one whose node does not say.
fn promises(room: u64, limit: Option<&ThinLimit>, thin: Option<u64>) -> String {
    match (limit, thin) {
        (Some(limit), _) => {
            let ThinLimit { size, times, promised } = limit;
            let most = limit.bytes();
            let why = if room == 0 && *promised < most {
                "; it promises nothing more while it is nearly full or lacks a disk"
            } else {
                ""
            };
            format!(
                ": its thin pool has {}, may promise {times} times that, which is {}, and has promised {}{why}",
                human(*size),
                human(most),
                human_up(*promised)
            )
        }
        (None, Some(size)) => format!(
            ": a thin pool promises as many times its size of {} as it was added with, and nothing more when it is nearly full",
            human(size)
        ),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_thin_pools_limit_is_told_in_numbers() {
        let refused = |room, promised| {
            let limit = Some(ThinLimit { size: 10 * GIB, times: 3, promised });
            Refusal::NoSpaceOn { node: "n1, pool thin".into(), needed: 8 * GIB, room, thin: Some(10 * GIB), limit }
        };
        let told = refused(5 * GIB, 25 * GIB);
        assert_eq!(
            told.to_string(),
            "8 GiB do not fit on node 'n1, pool thin', which has room for 5 GiB: its thin pool has 10 GiB, may promise 3 times that, \
             which is 30 GiB, and has promised 25 GiB"
        );
        assert!(told.hint().contains("add-pool --oversubscription TIMES"), "{}", told.hint());
        assert!(
            refused(0, 25 * GIB)
                .to_string()
                .ends_with("25 GiB; it promises nothing more while it is nearly full or lacks a disk")
        );
        assert!(refused(0, 30 * GIB).to_string().ends_with("has promised 30 GiB"));
    }

    /// What a node of an earlier version says, or has written down.
    #[test]
    fn a_refusal_without_the_limit_can_be_read() {
        let told = r#"{"NoSpaceOn":{"node":"n1","needed":8192,"room":4096,"thin":1048576}}"#;
        let refusal: Refusal = serde_json::from_str(told).unwrap();
        assert!(refusal.to_string().contains("as many times its size of 1 MiB as it was added with"), "{refusal}");
        let told = r#"{"NoSpace":{"needed":8192,"wanted":2,"fitting":1,"most":4096,"best":"n1"}}"#;
        let refusal: Refusal = serde_json::from_str(told).unwrap();
        assert!(refusal.to_string().ends_with("the most is 4 KiB on 'n1'"), "{refusal}");
    }
}
