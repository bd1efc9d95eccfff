//! Making sure that nobody uses a resource, and that nobody can come to use it before something is taken away from it.
//!
//! Every node that has the resource is asked at this moment and holds it ([`holds`]); what a status said a moment ago
//! does not count. A node that is there and does not answer may have clients, so nothing is taken away; one that is not there at
//! all, where nothing accepts a connection at its address, does not keep a resource for ever: what it has is removed when it returns.
//! The removal itself is refused by the model unless the resource is still in the round in which it was asked about.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::consensus::ProposeError;
use super::holds::{self, HoldRequest};
use super::local;
use super::net::Service;
use super::node::{self, Node};
use crate::api::{ApiError, Code};
use crate::cluster::{self, Cluster, Command, Resource};
use crate::units::{NodeId, ResourceId, VolumeId};

/// What is to be taken away of a resource, whose users are asked for; everything by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// What the one node has of it.
    pub at: Option<NodeId>,
    /// The one volume.
    pub volume: Option<VolumeId>,
}

/// A resource that nobody uses, held on every node that could be asked, until it is settled or released or, in the end, until the nodes ask the
/// cluster.
#[derive(Debug)]
pub struct Unused {
    resource: ResourceId,
    round: u64,
    decision: u64,
    asked: Vec<cluster::Node>,
    /// The nodes that are not there.
    pub away: Vec<NodeId>,
}

impl Unused {
    /// Makes sure that nobody uses that part of a resource.
    ///
    /// # Errors
    ///
    /// Who uses it, or which node does not answer; then nothing is held any more.
    pub async fn verify(node: &Arc<Node>, model: &Cluster, resource: &Resource, part: Part) -> Result<Self, ApiError> {
        let mut unused = Self::of(model, resource, part.at);
        let answers = unused.ask(node, part.volume).await;
        let used = answers.iter().find_map(|(id, answer)| match answer {
            Answer::Clients(clients) if *clients > 0 => Some(in_use(model, resource, part.volume, *id, *clients)),
            _ => None,
        });
        let silent = || {
            answers.iter().find_map(|(id, answer)| match answer {
                Answer::Silent(why) => Some(silent(model, resource, *id, why)),
                _ => None,
            })
        };
        match used.or_else(silent) {
            Some(refusal) => {
                unused.release(node).await;
                Err(refusal)
            }
            None => {
                unused.away = answers.iter().filter(|(_, answer)| matches!(answer, Answer::Away)).map(|(id, _)| *id).collect();
                Ok(unused)
            }
        }
    }

    /// Asks who uses a resource, and holds it on every node: also answers the nodes that have clients, or may have some.
    pub async fn look(node: &Arc<Node>, model: &Cluster, resource: &Resource) -> (Self, BTreeSet<NodeId>) {
        let unused = Self::of(model, resource, None);
        let answers = unused.ask(node, None).await;
        let used = answers.into_iter().filter(|(_, answer)| !matches!(answer, Answer::Clients(0) | Answer::Away));
        (unused, used.map(|(id, _)| id).collect())
    }

    /// Has the cluster take a command that takes something away from these, or lets clients in again when it is refused, such as by
    /// [`Refusal::Overtaken`](crate::cluster::Refusal::Overtaken): a client may have come. Of one whose fate is unknown the nodes
    /// have to find out.
    pub async fn settle(these: &[Self], node: &Arc<Node>, command: Command) -> Result<(), ProposeError> {
        let conditions = these.iter().map(|one| Command::EndRound { resource: one.resource, round: one.round });
        let commands = conditions.chain([command]).collect();
        let proposed = node.consensus.propose(Command::All(commands), node::PATIENCE).await;
        if let Err(ProposeError::Refused(_)) = &proposed {
            Self::release_all(these, node).await;
        }
        proposed.map(drop)
    }

    /// Lets clients in again to all of these; for a removal that was not proposed.
    pub async fn release_all(these: &[Self], node: &Arc<Node>) {
        for one in these {
            one.release(node).await;
        }
    }

    fn of(model: &Cluster, resource: &Resource, at: Option<NodeId>) -> Self {
        let concerned = resource.assignments.keys().filter(|id| at.is_none_or(|at| at == **id));
        let asked = concerned.filter_map(|id| model.nodes.get(id)).cloned().collect();
        let decision = u64::from_le_bytes(local::random_bytes());
        Self { resource: resource.id, round: resource.round, decision, asked, away: Vec::new() }
    }

    async fn release(&self, node: &Arc<Node>) {
        let request = HoldRequest::Release { resource: self.resource, decision: self.decision };
        self.tell(node, request).await;
    }

    async fn ask(&self, node: &Arc<Node>, volume: Option<VolumeId>) -> Vec<(NodeId, Answer)> {
        let (resource, round, decision) = (self.resource, self.round, self.decision);
        self.tell(node, HoldRequest::Hold { resource, round, decision, patience: HOLD, volume }).await
    }

    async fn tell(&self, node: &Arc<Node>, request: HoldRequest) -> Vec<(NodeId, Answer)> {
        let mut asked = JoinSet::new();
        for peer in &self.asked {
            let (node, peer) = (node.clone(), peer.clone());
            asked.spawn(async move { (peer.id, tell(&node, &peer, request).await) });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(id, _)| *id);
        answers
    }
}

#[derive(Debug)]
enum Answer {
    Clients(usize),
    /// It is there, and did not say.
    Silent(String),
    /// It is not there.
    Away,
}

async fn tell(node: &Arc<Node>, peer: &cluster::Node, request: HoldRequest) -> Answer {
    if peer.id == node.me {
        return holds::answer(node, request).await.map_or_else(Answer::Silent, Answer::Clients);
    }
    if peer.certificate.is_none() {
        // It has never joined.
        return Answer::Away;
    }
    let body = serde_json::to_vec(&request).expect("a request can be written as JSON");
    let answer = node.peers.ask(peer.id, peer.control(), Service::Holds, &body, PATIENCE).await;
    let answer = answer.map_err(|error| error.to_string());
    match answer.and_then(|answer| serde_json::from_slice(&answer).map_err(|error| error.to_string())) {
        Ok(clients) => Answer::Clients(clients),
        // A node that is slow, or stopped, still has its port.
        Err(why) if node.peers.is_there(peer.control()).await => Answer::Silent(why),
        Err(why) => {
            tracing::debug!(node = %peer.name, %why, "not there to be asked");
            Answer::Away
        }
    }
}

fn in_use(model: &Cluster, resource: &Resource, volume: Option<VolumeId>, node: NodeId, clients: usize) -> ApiError {
    let (resource, node) = (&resource.name, model.node_name(node));
    let what = volume.map_or_else(|| format!("resource '{resource}'"), |volume| format!("volume {volume} of '{resource}'"));
    ApiError::new(Code::InUse, format_args!("{what} is in use: {clients} client(s) on node '{node}'"))
        .hint("unmount it and disconnect its clients first, or cut them off with --force")
}

fn silent(model: &Cluster, resource: &Resource, node: NodeId, why: &str) -> ApiError {
    let (resource, node) = (&resource.name, model.node_name(node));
    let message = format!("node '{node}' does not say whether resource '{resource}' has clients there: {why}");
    ApiError::new(Code::Unreachable, message).hint("try again when it answers; --force goes on without, and cuts its clients off")
}

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a node holds a resource before it asks the cluster to end the round: longer than a decision takes.
const HOLD: Duration = Duration::from_secs(20);
