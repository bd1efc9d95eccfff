//! Nodes: what there is to know about one, and how one comes and goes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::pools::Pool;
use super::state::NodeState;
use crate::units::{Name, NodeId};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// Its id, never used again.
    pub id: NodeId,
    /// Where its peers reach it.
    pub address: IpAddr,
    /// The port that goes with it.
    pub port: u16,
    /// What it is to the cluster's decisions.
    pub membership: Membership,
    /// Whether its daemon answers.
    pub online: bool,
    /// Whether it was asked to leave.
    pub removing: bool,
    /// The pool that it was made with; `None` on a witness, and while it is not known.
    pub pool: Option<Pool>,
    /// The pools that were added to it, by name, those that are known.
    #[serde(default)]
    pub pools: BTreeMap<Name, Pool>,
    /// What is amiss with pools of it, by name; `default` is the one that it was made with.
    #[serde(default)]
    pub pool_failures: BTreeMap<Name, String>,
    /// The version of its program; `None` while it has not told.
    pub version: Option<String>,
}

impl Node {
    /// The node's state in a word.
    pub fn state(&self) -> NodeState {
        NodeState::of(self)
    }
}

/// What a node is to the cluster's decisions (Raft).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Membership {
    /// Added, and has not run its join command yet.
    Expected,
    /// Follows, without a vote.
    Learner,
    /// Votes.
    Voter,
    /// Votes, and leads now.
    Leader,
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Expected => "expected",
            Self::Learner => "learner",
            Self::Voter => "voter",
            Self::Leader => "leader",
        })
    }
}

/// Asks for every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListNodes {}

/// Announces a node. It becomes a member when it runs the join command of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddNode {
    /// Its name.
    pub name: Name,
    /// Where its peers will reach it.
    pub address: IpAddr,
    /// The port that goes with it; the asked node's own when absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// Whether it has no storage and only votes (and may use volumes).
    #[serde(default)]
    pub witness: bool,
    /// For how many seconds the token is good, 1 to 30 days of them; a day when absent.
    #[serde(default)]
    pub valid_for: Option<u64>,
}

/// Asks for a new join token for a node that was added and has not joined. Earlier tokens of that node end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HowtoJoin {
    /// The node.
    pub node: Name,
    /// As of [`AddNode`].
    #[serde(default)]
    pub valid_for: Option<u64>,
}

/// What a new node needs to join, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTicket {
    /// The node that it is for.
    pub node: Name,
    /// A member that the new node can ask: address and port.
    pub contact: std::net::SocketAddr,
    /// The secret: good for one join, and carries the fingerprint of the cluster's CA.
    pub token: String,
    /// For how many seconds the token is good.
    pub expires_in: u64,
}

impl fmt::Debug for JoinTicket {
    /// Without the token: a ticket that finds its way into a log must not let anyone in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTicket").field("node", &self.node).field("contact", &self.contact).finish_non_exhaustive()
    }
}

/// Takes a node out of the cluster: its replicas go elsewhere or away first. It is a member no more at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveNode {
    /// The node.
    pub node: Name,
    /// Also when a replica on it is the last with the newest data.
    #[serde(default)]
    pub force: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tickets_debug_form_keeps_the_secret() {
        let ticket = JoinTicket {
            node: "beta".parse().unwrap(),
            contact: "10.0.0.1:6999".parse().unwrap(),
            token: "s3cr3t".to_owned(),
            expires_in: 60,
        };
        assert!(!format!("{ticket:?}").contains("s3cr3t"));
    }
}
