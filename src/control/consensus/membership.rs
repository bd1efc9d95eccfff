//! Who votes: the leader makes the Raft group what the model says.
//!
//! Every node that has joined follows the log. With fewer than three members one votes, so that the loss of another blocks
//! nothing; with three or four, three vote; with five or more, five.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers, Raft, RaftMetrics};
use tokio::time::{sleep, timeout};

use super::types::{Types, node_id, raft_id};
use super::{Consensus, Inner};
use crate::cluster::{Cluster, Node, NodeKind, NodeState};
use crate::units::NodeId;

/// Keeps the group as the model says while this node leads; ends with the last [`Consensus`].
pub(super) async fn keep(inner: Weak<Inner>) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let consensus = Consensus { inner };
        let changed = consensus.is_leader() && adjust(&consensus).await;
        drop(consensus);
        if !changed {
            sleep(INTERVAL).await;
        }
    }
}

/// One step towards what the model says; whether there was one to take.
async fn adjust(consensus: &Consensus) -> bool {
    let (raft, _) = consensus.life();
    let metrics = raft.metrics().borrow().clone();
    let model = consensus.model();
    let Some((what, change)) = next_change(&model, &metrics) else { return false };
    match timeout(PATIENCE, raft.change_membership(change, true)).await {
        Ok(Ok(_)) => {
            tracing::info!("{what}");
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "{what}: not now");
            false
        }
        Err(_) => {
            tracing::warn!("{what}: no majority answers");
            false
        }
    }
}

type Metrics = RaftMetrics<u64, BasicNode>;

fn next_change(model: &Cluster, metrics: &Metrics) -> Option<(String, ChangeMembers<u64, BasicNode>)> {
    let membership = metrics.membership_config.membership();
    model.id?;
    if let [_, .., last] = membership.get_joint_config().as_slice() {
        // A leader was lost half way: go the rest of it.
        return Some(("a change of voters is finished".into(), ChangeMembers::ReplaceAllVoters(last.clone())));
    }
    let present: BTreeMap<u64, &BasicNode> = membership.nodes().map(|(id, node)| (*id, node)).collect();
    let wanted: BTreeMap<u64, BasicNode> = model.nodes.values().filter(|n| n.certificate.is_some()).map(raft_node).collect();
    let missing = wanted.iter().find(|(id, node)| present.get(id) != Some(node));
    if let Some((&id, node)) = missing {
        let what = format!("node {id} at {} follows the control plane", node.addr);
        return Some((what, ChangeMembers::SetNodes(BTreeMap::from([(id, node.clone())]))));
    }
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let wanted_voters = choose_voters(model, metrics, &voters);
    if wanted_voters != voters && !wanted_voters.is_empty() {
        let names: Vec<String> = wanted_voters.iter().map(|&id| model.node_name(node_id(id))).collect();
        return Some((
            format!("voters of the control plane: {}", names.join(", ")),
            ChangeMembers::ReplaceAllVoters(wanted_voters),
        ));
    }
    let gone = present.keys().copied().find(|id| !wanted.contains_key(id) && !voters.contains(id));
    gone.map(|id| (format!("node {id} left the control plane"), ChangeMembers::RemoveNodes(BTreeSet::from([id]))))
}

fn raft_node(node: &Node) -> (u64, BasicNode) {
    (raft_id(node.id), BasicNode { addr: node.control().to_string() })
}

/// Present voters stay as long as they are members, the leader first; new ones must be up to date, witnesses first (they are
/// there to vote), then the oldest.
fn choose_voters(model: &Cluster, metrics: &Metrics, voters: &BTreeSet<u64>) -> BTreeSet<u64> {
    let members: Vec<&Node> = model.nodes.values().filter(|n| n.state == NodeState::Member && n.certificate.is_some()).collect();
    let count = match members.len() {
        0..=2 => 1,
        3 | 4 => 3,
        _ => 5,
    };
    let mut ranked: Vec<(bool, bool, bool, u64)> = members
        .iter()
        .map(|node| (raft_id(node.id), node.kind == NodeKind::Witness))
        .filter(|(id, _)| voters.contains(id) || is_up_to_date(metrics, *id))
        .map(|(id, witness)| (!voters.contains(&id), id != metrics.id, !witness, id))
        .collect();
    ranked.sort_unstable();
    let chosen: BTreeSet<u64> = ranked.iter().take(count).map(|(.., id)| *id).collect();
    // Two voters are worse than one: wait until the third is up to date. But a voter that left goes, whatever remains.
    let mut kept = voters.iter().filter(|id| chosen.contains(id));
    if chosen.len() == 2 && count == 3 && kept.clone().count() == voters.len() {
        return kept.by_ref().copied().collect();
    }
    if chosen.len() == 4 {
        return ranked.iter().take(3).map(|(.., id)| *id).collect();
    }
    chosen
}

/// Whether a follower has nearly all of the log, as the leader knows.
fn is_up_to_date(metrics: &Metrics, id: u64) -> bool {
    let last = metrics.last_log_index.unwrap_or(0);
    let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&id).copied().flatten());
    matched.is_some_and(|matched| matched.index + NEARLY >= last)
}

/// See [`Consensus::hand_over`].
pub(super) async fn hand_over(consensus: &Consensus) -> Option<NodeId> {
    let (raft, _) = consensus.life();
    let me = consensus.inner.setup.me;
    if !consensus.is_leader() || Consensus::voters(&raft) != BTreeSet::from([raft_id(me)]) {
        return None;
    }
    let heir = responsive(&raft, &consensus.model(), me).await?;
    match raft.change_membership(ChangeMembers::ReplaceAllVoters(BTreeSet::from([raft_id(heir)])), true).await {
        Ok(_) => {
            // The heir stands for election when it hears no more of this leader, but only once it has the last entry.
            let last = raft.metrics().borrow().last_log_index;
            await_match(&raft, raft_id(heir), last).await;
            Some(heir)
        }
        Err(error) => {
            tracing::warn!(%error, "the vote could not be handed over");
            None
        }
    }
}

/// A member that answers now: it has an entry that was written just for this.
async fn responsive(raft: &Raft<Types>, model: &Cluster, me: NodeId) -> Option<NodeId> {
    let members: Vec<NodeId> =
        model.nodes.values().filter(|n| n.state == NodeState::Member && n.id != me).map(|node| node.id).collect();
    if members.is_empty() {
        return None;
    }
    let present: BTreeMap<u64, BasicNode> = model.nodes.values().filter(|node| node.id == me).map(raft_node).collect();
    let probe = raft.change_membership(ChangeMembers::SetNodes(present), true).await.ok()?;
    let waits = members.iter().map(|&id| {
        Box::pin(async move {
            await_match(raft, raft_id(id), Some(probe.log_id.index)).await;
            id
        })
    });
    let mut waits: Vec<_> = waits.collect();
    std::future::poll_fn(|context| {
        for wait in &mut waits {
            if let std::task::Poll::Ready(id) = wait.as_mut().poll(context) {
                return std::task::Poll::Ready(Some(id));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

async fn await_match(raft: &Raft<Types>, id: u64, index: Option<u64>) {
    let mut metrics = raft.metrics();
    let reached = |metrics: &Metrics| {
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&id).copied().flatten());
        matched.map(|log| log.index) >= index
    };
    // A closed channel is a Raft that stopped: there is nothing to wait for.
    let _ = metrics.wait_for(reached).await;
}

const INTERVAL: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);
const NEARLY: u64 = 50;
