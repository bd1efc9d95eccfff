//! openraft's way to other nodes: the [`Transport`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{Fatal, NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, BasicNode, OptionalSend, Snapshot, Vote};

use super::machine::Shared;
use super::types::{Ask, Envelope, Reply, Types, decode, encode, node_id};
use super::{CarryError, Epoch, Transport};
use crate::cluster::Node;

/// Makes a [`Peer`] per node.
pub(super) struct Factory {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) shared: Arc<Shared>,
    pub(super) epoch: Epoch,
}

impl RaftNetworkFactory<Types> for Factory {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let (transport, shared) = (self.transport.clone(), self.shared.clone());
        Peer { target, noted: node.addr.clone(), transport, shared, epoch: self.epoch }
    }
}

/// The way to one node.
pub(super) struct Peer {
    target: u64,
    /// Its address when it was added.
    noted: String,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
    epoch: Epoch,
}

type RpcError = RPCError<u64, BasicNode, RaftError<u64>>;

impl Peer {
    async fn ask(&self, body: Ask, patience: Duration) -> Result<Reply, CarryError> {
        let node = node_id(self.target);
        // Its present address, where the model knows a newer one.
        let modelled = self.shared.model.borrow().nodes.get(&node).map(Node::control);
        let Some(address) = modelled.or_else(|| self.noted.parse().ok()) else {
            return Err(CarryError::Unreachable(node, format!("'{}' is no address", self.noted)));
        };
        let request = encode(&Envelope { epoch: self.epoch, body });
        let answer = self.transport.call(node, address, request, patience).await?;
        decode(&answer).map_err(|error| CarryError::NoAnswer(node, error))
    }

    fn remote(&self, error: RaftError<u64>) -> RpcError {
        RPCError::RemoteError(RemoteError::new(self.target, error))
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        match self.ask(Ask::Append(rpc), option.hard_ttl()).await.map_err(carried)? {
            Reply::Append(answer) => answer.map_err(|error| self.remote(error)),
            other => Err(stray(&other)),
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Result<VoteResponse<u64>, RpcError> {
        match self.ask(Ask::Vote(rpc), option.hard_ttl()).await.map_err(carried)? {
            Reply::Vote(answer) => answer.map_err(|error| self.remote(error)),
            other => Err(stray(&other)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let model = String::from_utf8(*snapshot.snapshot)
            .map_err(|error| StreamingError::Unreachable(Unreachable::new(&AnyError::error(error.to_string()))))?;
        let sent = self.ask(Ask::Snapshot { vote, meta: snapshot.meta, model }, option.hard_ttl());
        let answer = tokio::select! {
            answer = sent => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match answer {
            Ok(Reply::Snapshot(Ok(answer))) => Ok(answer),
            Ok(Reply::Snapshot(Err(fatal))) => Err(StreamingError::RemoteError(RemoteError::new(self.target, fatal))),
            Ok(other) => Err(StreamingError::Network(NetworkError::new(&stray_error(&other)))),
            Err(error) => Err(StreamingError::Unreachable(Unreachable::new(&error))),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(100)))
    }
}

fn carried(error: CarryError) -> RpcError {
    match error {
        CarryError::Unreachable(..) => RPCError::Unreachable(Unreachable::new(&error)),
        CarryError::NoAnswer(..) => RPCError::Network(NetworkError::new(&error)),
    }
}

fn stray(reply: &Reply) -> RpcError {
    RPCError::Unreachable(Unreachable::new(&stray_error(reply)))
}

fn stray_error(reply: &Reply) -> AnyError {
    AnyError::error(match reply {
        Reply::WrongEpoch(epoch) => format!("it is of epoch {} of the control plane", epoch.number),
        _ => "it answered something else than it was asked".to_owned(),
    })
}
