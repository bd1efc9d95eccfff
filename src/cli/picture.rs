//! The status for people.
//!
//! ```text
//! cluster 5f0c...  3 of 3 nodes online, led by alpha
//!
//! web  syncing (42.3%)  10 GiB, protocol C, quorum majority
//!   alpha  Primary    UpToDate      2 clients
//!   beta   Secondary  UpToDate
//!   gamma  Secondary  Inconsistent  [========>           ] 42.3% of 2.84 GiB, 112 MiB/s, 0:15 left
//! ```

use std::time::Duration;

use super::pace::Pace;
use super::span::{moment, written};
use super::table::paint;
use crate::api::state::{AssignmentState, Level, NodeState, ResourceState};
use crate::api::{
    ClusterStatus, Fill, Node, Pool, Quorum, ReplicaStatus, ResourceStatus, Resync, Verify, VerifySchedule, VerifyState,
    VolumeInfo,
};
use crate::units::{DiskState, Name, human};

/// How many characters the bar of a resync has.
const BAR: usize = 20;

/// The whole status, each line ended.
pub(super) fn status(status: &ClusterStatus, pace: &Pace, colours: bool) -> String {
    let mut out = header(status, colours);
    if status.resources.is_empty() {
        out.push_str("\nno resources\n");
    }
    for resource in &status.resources {
        out.push('\n');
        out.push_str(&one(resource, pace, colours));
    }
    out
}

fn header(status: &ClusterStatus, colours: bool) -> String {
    let online = status.nodes.iter().filter(|node| node.online).count();
    let level = if online == status.nodes.len() { Level::Normal } else { Level::Alert };
    let nodes = tint(&format!("{online} of {} nodes online", status.nodes.len()), level, colours);
    let leader = match &status.leader {
        Some(leader) => format!("led by {leader}"),
        None => tint("no leader: nothing can be changed now", Level::Alert, colours),
    };
    let away = status.nodes.iter().filter(|node| node.state() != NodeState::Ok);
    let away: String =
        away.map(|node| format!("  {}: {}\n", node.name, tint(node.state().as_str(), node.state().level(), colours))).collect();
    let pools: String = status.nodes.iter().map(|node| failures(node, colours) + &fullness(node, colours)).collect();
    format!("cluster {}  {nodes}, {leader}\n{away}{pools}", status.cluster)
}

/// What is amiss with a node's pools.
fn failures(node: &Node, colours: bool) -> String {
    let line = |(pool, failure): (&Name, &String)| {
        let words = tint(&format!("pool '{pool}' is failing"), Level::Alert, colours);
        format!("  {}: {words}: {failure}\n", node.name)
    };
    node.pool_failures.iter().map(line).collect()
}

/// What there is to say of a node's thin pools that will be full before long.
fn fullness(node: &Node, colours: bool) -> String {
    let line = |pool: &Pool| {
        let fill = pool.fill.filter(Fill::is_high)?;
        let level = if fill.is_critical() { Level::Alert } else { Level::Warning };
        let words = tint(&format!("pool {} is {fill}", pool.location), level, colours);
        Some(format!("  {}: {words}; writes fail when it is full\n", node.name))
    };
    node.pool.iter().chain(node.pools.values()).filter_map(line).collect()
}

/// A resource: a line of its own, and one for each node.
fn one(resource: &ResourceStatus, pace: &Pace, colours: bool) -> String {
    let (state, detail) = resource.state();
    let state_words = if detail.is_empty() { state.to_string() } else { format!("{state} ({detail})") };
    let mut out = format!("{}  {}  {}\n", resource.name, tint(&state_words, state.level(), colours), facts(resource));
    let rows: Vec<[String; 3]> = resource.replicas.iter().map(left_columns).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let (nodes, roles, disks) = (width(0), width(1), width(2));
    for (replica, [node, role, disk]) in resource.replicas.iter().zip(&rows) {
        let disk = tint(&format!("{disk:disks$}"), disk_level(replica), colours);
        let line = format!("  {node:nodes$}  {role:roles$}  {disk}  {}", remarks(resource, replica, pace, colours));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.extend(resource.volumes.iter().filter_map(growing));
    let old = |replica: &ReplicaStatus| matches!(replica.disk, Some(DiskState::Outdated | DiskState::Inconsistent));
    if state == ResourceState::NoData && resource.replicas.iter().any(|r| !r.online) && resource.replicas.iter().any(old) {
        out += &format!(
            "  start the nodes that are offline; if they are lost for good, `blkrep promote {} NODE --force` goes on with what NODE has, and what only \
             they have is lost\n",
            resource.name
        );
    }
    if state == ResourceState::SplitBrain {
        out += &format!(
            "  each side has written something that the other lacks: `blkrep discard-my-data {} NODE` ends it, and what only that node has is lost\n",
            resource.name
        );
    }
    out
}

/// What a volume that grows waits for.
fn growing(volume: &VolumeInfo) -> Option<String> {
    let growth = volume.growth.as_ref()?;
    let names: Vec<&str> = growth.awaits.iter().map(Name::as_str).collect();
    let awaits = if names.is_empty() { "all nodes".to_owned() } else { names.join(", ") };
    Some(format!("  volume {} grows to {} when it has grown on {awaits}\n", volume.volume, human(growth.bytes)))
}

/// Size, protocol and quorum.
fn facts(resource: &ResourceStatus) -> String {
    let bytes = resource.volumes.iter().map(|volume| volume.bytes).sum();
    let volumes = match resource.volumes.len() {
        0 => "no volumes".to_owned(),
        1 => human(bytes),
        many => format!("{} in {many} volumes", human(bytes)),
    };
    let quorum = match (resource.options.quorum, resource.majority) {
        (Quorum::Auto, true) => "majority (auto)",
        (Quorum::Auto, false) => "off (auto)",
        (_, true) => "majority",
        (_, false) => "off",
    };
    let plain = if resource.options.peer_tls { "" } else { ", peer-tls off" };
    // A pause that holds nothing up now will hold up the next resync.
    let mut replicas = resource.replicas.iter().filter(|replica| !replica.diskless).peekable();
    let paused = replicas.peek().is_some() && replicas.all(|replica| replica.resync_paused);
    let paused = if paused { ", all resyncs paused" } else { "" };
    let verifies = resource.verifies.as_ref().map(scheduled).unwrap_or_default();
    format!("{volumes}, protocol {}, quorum {quorum}{plain}{verifies}{paused}", resource.options.protocol)
}

/// `, verified and repaired every 7d (last 2026-03-01 02:00:00Z)`
fn scheduled(schedule: &VerifySchedule) -> String {
    let repaired = if schedule.repair { " and repaired" } else { "" };
    let last = schedule.last.map(|last| format!(" (last {})", moment(last))).unwrap_or_default();
    format!(", verified{repaired} every {}{last}", written(schedule.every))
}

fn left_columns(replica: &ReplicaStatus) -> [String; 3] {
    let unknown = || "-".to_owned();
    let disk = match replica.disk {
        _ if !replica.online => "-".to_owned(),
        Some(DiskState::Diskless) if replica.diskless => "client".to_owned(),
        disk => disk.map_or_else(unknown, |disk| disk.to_string()),
    };
    [replica.node.to_string(), replica.role.map_or_else(unknown, |role| role.to_string()), disk]
}

fn disk_level(replica: &ReplicaStatus) -> Level {
    match replica.disk {
        Some(DiskState::UpToDate) => Level::Normal,
        Some(DiskState::Diskless) if replica.diskless => Level::Normal,
        Some(DiskState::Failed) => Level::Alert,
        _ => Level::Warning,
    }
}

/// What is wrong or going on, and who uses it.
fn remarks(resource: &ResourceStatus, replica: &ReplicaStatus, pace: &Pace, colours: bool) -> String {
    let (state, detail) = resource.assignment(replica);
    let mut remarks: Vec<String> = Vec::new();
    match (state, resource.resync_of(replica)) {
        (AssignmentState::Ok | AssignmentState::Client, _) => {}
        (AssignmentState::Syncing, Some(resync)) => remarks.push(progress(resource, replica, resync, pace)),
        (AssignmentState::Outdated, _) if replica.disk == Some(DiskState::Outdated) => {}
        _ if detail.is_empty() => remarks.push(tint(state.as_str(), state.level(), colours)),
        _ => remarks.push(tint(&format!("{state}: {detail}"), state.level(), colours)),
    }
    // What is in sync waits for nothing.
    if replica.resync_paused && !matches!(state, AssignmentState::Ok) {
        remarks.push(tint("resync paused by an operator", Level::Warning, colours));
    }
    if replica.disconnected {
        remarks.push(tint("disconnected by an operator", Level::Warning, colours));
    }
    if let Some(found) = resource.verify_of(replica) {
        let level = if found.different > 0 { Level::Alert } else { Level::Normal };
        remarks.push(tint(&verified(&found), level, colours));
    }
    match replica.clients {
        0 => {}
        1 => remarks.push("1 client".to_owned()),
        many => remarks.push(format!("{many} clients")),
    }
    remarks.join(", ")
}

/// `verifying, 42.3%: 3 blocks differed, the first at byte 4096 of volume 0; given to the resync`
fn verified(found: &Verify) -> String {
    let tenths = u128::from(found.done.min(found.total)) * 1000 / u128::from(found.total.max(1));
    let share = format!("{}.{}%", tenths / 10, tenths % 10);
    let mut text = match found.state {
        VerifyState::Running => format!("verifying, {share}"),
        VerifyState::Done => "verified".to_owned(),
        VerifyState::Broken => format!("verify ended at {share}"),
    };
    let blocks = |count: u64| if count == 1 { "1 block".to_owned() } else { format!("{count} blocks") };
    match (found.different, found.first) {
        (0, _) | (_, None) => text += ": no difference",
        (count, Some((volume, at))) => {
            text += &format!(": {} differed, the first at byte {at} of volume {volume}", blocks(count))
        }
    }
    if found.repair && found.different > 0 {
        let left = found.different - found.repaired.min(found.different);
        text += &match left {
            0 => "; given to the resync".to_owned(),
            left => format!(
                "; {} left as they are, for no majority of the replicas has what the primary has: verify again when all are \
                 in sync, or with another primary",
                blocks(left)
            ),
        };
    }
    if found.unread > 0 {
        text += &format!("; {} could not be read there", blocks(found.unread));
    }
    text
}

/// `[========>           ] 42.3% of 2.84 GiB, 112 MiB/s, 0:15 left`
fn progress(resource: &ResourceStatus, replica: &ReplicaStatus, resync: Resync, pace: &Pace) -> String {
    let mut text = format!("{} of {}", bar(resync), human(resync.total));
    if let Some(speed) = pace.speed(&resource.name, &replica.node) {
        text += &format!(", {}/s", human(speed));
    }
    if let Some(left) = pace.left(&resource.name, &replica.node, resync) {
        text += &format!(", {} left", clock(left));
    }
    text
}

/// `[========>           ] 42.3%`
pub(super) fn bar(resync: Resync) -> String {
    let (done, total) = (u128::from(resync.done.min(resync.total)), u128::from(resync.total.max(1)));
    let filled = usize::try_from(done * BAR as u128 / total).unwrap_or(BAR);
    let tip = if filled < BAR { ">" } else { "" };
    let tenths = done * 1000 / total;
    format!("[{:<BAR$}] {}.{}%", "=".repeat(filled) + tip, tenths / 10, tenths % 10)
}

/// `0:15`, `2:03:00`
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

fn tint(text: &str, level: Level, colours: bool) -> String {
    paint(text, colours.then_some(level))
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
