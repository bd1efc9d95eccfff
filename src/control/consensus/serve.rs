//! Answering other nodes.

use std::time::Duration;

use openraft::Snapshot;

use super::types::{Ask, Envelope, Outcome, Reply, decode, encode};
use super::{Consensus, Epoch, Leading, ProposeError};
use crate::units::NodeId;

impl Consensus {
    /// Answers what `from`, a node of the cluster, has asked through its [`Transport`](super::Transport).
    ///
    /// # Errors
    /// When the request cannot be read; the connection is then best closed.
    pub async fn answer(&self, from: NodeId, request: &[u8]) -> Result<Vec<u8>, String> {
        let Envelope { epoch, body } = decode::<Envelope<Ask>>(request)?;
        let reply = match self.enter(from, epoch, &body).await {
            Ok(()) => {
                if matches!(body, Ask::Append(_) | Ask::Snapshot { .. }) {
                    *super::lock(&self.inner.heard) = Some((from, tokio::time::Instant::now()));
                }
                self.reply(body).await?
            }
            Err(mine) => Reply::WrongEpoch(mine),
        };
        Ok(encode(&reply))
    }

    /// Whether both are of one epoch; follows a later one that a leader or candidate speaks of.
    async fn enter(&self, from: NodeId, theirs: Epoch, ask: &Ask) -> Result<(), Epoch> {
        let mine = self.epoch();
        if theirs == mine {
            return Ok(());
        }
        let from_group = matches!(ask, Ask::Append(_) | Ask::Vote(_) | Ask::Snapshot { .. });
        if theirs.number > mine.number && from_group {
            return match self.follow(theirs).await {
                Ok(()) if self.epoch() == theirs => Ok(()),
                Ok(()) => Err(self.epoch()),
                Err(error) => {
                    tracing::error!(%error, "cannot follow the later epoch of the control plane");
                    Err(mine)
                }
            };
        }
        tracing::debug!(%from, theirs = theirs.number, mine = mine.number, "a node of another epoch asked");
        Err(mine)
    }

    async fn reply(&self, ask: Ask) -> Result<Reply, String> {
        let (raft, _) = self.life();
        Ok(match ask {
            Ask::Append(rpc) => Reply::Append(raft.append_entries(rpc).await),
            Ask::Vote(rpc) => Reply::Vote(raft.vote(rpc).await),
            Ask::Snapshot { vote, meta, model } => {
                let snapshot = Snapshot { meta, snapshot: Box::new(model.into_bytes()) };
                Reply::Snapshot(raft.install_full_snapshot(vote, snapshot).await)
            }
            Ask::Propose(_) | Ask::ReadIndex if !matches!(self.leading(&raft), Leading::Me) => Reply::NotLeader,
            Ask::Propose(command) => match self.propose_here(command).await {
                Ok(applied) => Reply::Proposed(Outcome(Some(Ok(applied)))),
                Err(ProposeError::Refused(refusal)) => Reply::Proposed(Outcome(Some(Err(refusal)))),
                Err(ProposeError::NoLeader(_)) => Reply::NotLeader,
                Err(ProposeError::Unknown | ProposeError::Stopped(_)) => Reply::Proposed(Outcome(None)),
            },
            Ask::ReadIndex => match tokio::time::timeout(FORWARDED, raft.ensure_linearizable()).await {
                Ok(Ok(log)) => Reply::ReadIndex(log.map_or(0, |log| log.index)),
                Ok(Err(_)) | Err(_) => Reply::NotLeader,
            },
        })
    }

    /// Takes a forwarded command, or says that this node does not lead: never forwards it again.
    async fn propose_here(&self, command: crate::cluster::Command) -> Result<crate::cluster::Applied, ProposeError> {
        let (raft, _) = self.life();
        match tokio::time::timeout(FORWARDED, raft.client_write(command)).await {
            Ok(Ok(response)) => Ok(response.data.0.ok_or(ProposeError::Unknown)??),
            Ok(Err(error)) if super::types::not_leader(&error) => Err(ProposeError::NoLeader(String::new())),
            Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
            Err(_) => Err(ProposeError::Unknown),
        }
    }
}

/// How long a forwarded request may wait for a majority.
const FORWARDED: Duration = Duration::from_secs(10);
