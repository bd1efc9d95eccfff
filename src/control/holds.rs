//! Clients that wait at the door while it is decided whether a resource may be taken away.
//!
//! A removal asks the nodes whether anybody uses the resource, and then has the cluster take it away. What a node answers has to be
//! still true when that happens, or a client that attached in between loses what it has written. So a node that is asked first
//! *holds* the resource: nobody is attached any more, and then it counts. The hold is good for one round of the resource
//! ([`Resource::round`](crate::cluster::Resource::round)), and it ends
//!
//! - when the one who decides says that nothing comes of it, or
//! - when the model is in another round: something was taken away, or another node has come to the resource and the removal is
//!   void, or
//! - after a while, because whoever decided may be dead; but not before the cluster has ended the round, so that what was decided
//!   in it cannot be carried out any more. Only here a client may wait long: until there is a leader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::consensus::ProposeError;
use super::node::{Node, PATIENCE};
use crate::attach::launch;
use crate::attach::place::State as Attachment;
use crate::cluster::{Cluster, Command};
use crate::runtime::Clients;
use crate::units::{ResourceId, VolumeId};

/// What a node that decides about a removal asks another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldRequest {
    /// Let no client in, and count those that are in: answered by a number.
    Hold {
        /// The resource.
        resource: ResourceId,
        /// Its round.
        round: u64,
        /// Random; names the decision.
        decision: u64,
        /// How long the decision may take.
        patience: Duration,
        /// The volume that is to be taken away, whose clients alone count; absent: everything.
        #[serde(default)]
        volume: Option<VolumeId>,
    },
    /// Nothing comes of it.
    Release {
        /// The resource.
        resource: ResourceId,
        /// The decision.
        decision: u64,
    },
}

/// What is held on a node, and who is about to be attached.
#[derive(Debug, Default)]
pub struct Holds {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The round in which each decision holds its resource.
    held: BTreeMap<(ResourceId, u64), u64>,
    entering: Clients,
}

/// A client that is being attached: until the data plane counts it, this does.
#[derive(Debug)]
pub struct Entering<'a> {
    holds: &'a Holds,
    volume: (ResourceId, VolumeId),
}

impl Holds {
    /// Lets a client of a volume try to attach; `None` while its resource is held, as far as `model` knows.
    pub fn enter(&self, resource: ResourceId, volume: VolumeId, model: &Cluster) -> Option<Entering<'_>> {
        let mut state = self.lock();
        // A model that lags behind has an older round, which ends no hold.
        let present = model.resources.get(&resource).map_or(0, |resource| resource.round);
        let of_resource = state.held.range((resource, 0)..=(resource, u64::MAX));
        if of_resource.map(|(_, &round)| round).any(|round| round >= present) {
            return None;
        }
        let volume = (resource, volume);
        *state.entering.entry(volume).or_default() += 1;
        Some(Entering { holds: self, volume })
    }

    /// Holds a resource, and counts who is on the way to it, or to the one volume.
    fn hold(&self, resource: ResourceId, volume: Option<VolumeId>, round: u64, decision: u64) -> usize {
        let mut state = self.lock();
        state.held.insert((resource, decision), round);
        count(&state.entering, resource, volume)
    }

    fn release(&self, resource: ResourceId, decision: u64) {
        self.lock().held.remove(&(resource, decision));
    }

    fn is_held_by(&self, resource: ResourceId, decision: u64) -> bool {
        self.lock().held.contains_key(&(resource, decision))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        let mut state = self.holds.lock();
        match state.entering.get_mut(&self.volume) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(state.entering.remove(&self.volume)),
        }
    }
}

/// The clients of a resource, or of one of its volumes.
fn count(clients: &Clients, resource: ResourceId, volume: Option<VolumeId>) -> usize {
    let of_resource = clients.range((resource, VolumeId(0))..=(resource, VolumeId(u16::MAX)));
    of_resource.filter(|((_, id), _)| volume.is_none_or(|volume| volume == *id)).map(|(_, count)| count).sum()
}

/// How many attachments here are of a resource, or of one of its volumes. They outlive their connections: while the daemon has just
/// started, or the resource is opened anew, none of them is a client.
fn attached(node: &Node, resource: ResourceId, volume: Option<VolumeId>) -> Result<usize, String> {
    let living = launch::living(&node.root).map_err(|error| format!("what is attached there is not known: {error}"))?;
    let is_of = |state: &Attachment| state.id == resource && volume.is_none_or(|volume| volume == state.volume);
    Ok(living.iter().filter(|(place, state)| is_of(state) && !place.is_fenced()).count())
}

/// Answers a request on this node: the number of clients, 0 for a release.
pub async fn answer(node: &Arc<Node>, request: HoldRequest) -> Result<usize, String> {
    match request {
        HoldRequest::Hold { resource, round, decision, patience, volume } => {
            let entering = node.holds.hold(resource, volume, round, decision);
            let node = node.clone();
            // After those that are entering were counted: one of them is counted twice rather than not at all.
            let clients = node.plane.clients().await.map_err(|error| error.to_string());
            let attached = attached(&node, resource, volume);
            tokio::spawn(async move { expire(&node, resource, round, decision, patience).await });
            Ok((entering + count(&clients?, resource, volume)).max(attached?))
        }
        HoldRequest::Release { resource, decision } => {
            node.holds.release(resource, decision);
            Ok(0)
        }
    }
}

/// Ends a hold that nobody has ended.
async fn expire(node: &Arc<Node>, resource: ResourceId, round: u64, decision: u64, patience: Duration) {
    sleep(patience.min(LONGEST)).await;
    while node.holds.is_held_by(resource, decision) {
        if let Ok(model) = node.consensus.read(PATIENCE).await
            && model.resources.get(&resource).is_none_or(|resource| resource.round != round)
        {
            // Carried out, or void: as a rule.
            return node.holds.release(resource, decision);
        }
        match node.consensus.propose(Command::EndRound { resource, round }, PATIENCE).await {
            // Refused: the round is over, or the resource is gone.
            Ok(_) | Err(ProposeError::Refused(_)) => return node.holds.release(resource, decision),
            Err(error) => tracing::warn!(%resource, %error, "clients have to wait: it is not known whether it is being removed"),
        }
        sleep(RETRY).await;
    }
}

const LONGEST: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::model_with;

    const WEB: ResourceId = ResourceId(1);
    const FIRST: VolumeId = VolumeId(0);

    #[test]
    fn a_hold_keeps_clients_out_for_its_round_and_counts_those_on_their_way() {
        let holds = Holds::default();
        let entering = holds.enter(WEB, FIRST, &model_with(WEB, 3)).unwrap();
        assert_eq!(holds.hold(WEB, None, 3, 7), 1, "the one that is on its way");
        drop(entering);
        assert!(holds.enter(WEB, FIRST, &model_with(WEB, 3)).is_none());
        assert!(holds.enter(WEB, FIRST, &model_with(WEB, 2)).is_none(), "a model that lags behind ends no hold");
        assert!(holds.enter(ResourceId(2), FIRST, &model_with(WEB, 3)).is_some(), "others are not held");
        assert!(holds.enter(WEB, FIRST, &model_with(WEB, 4)).is_some(), "the round is over");
        assert_eq!(holds.hold(WEB, None, 4, 8), 0, "nobody is on his way any more");
    }

    #[test]
    fn for_a_volume_its_own_clients_count() {
        let holds = Holds::default();
        let _entering = holds.enter(WEB, VolumeId(1), &model_with(WEB, 3)).unwrap();
        let count = |volume| holds.hold(WEB, volume, 3, 7);
        assert_eq!((count(Some(VolumeId(1))), count(Some(FIRST)), count(None)), (1, 0, 1));
    }

    #[test]
    fn each_decision_ends_its_own_hold() {
        let holds = Holds::default();
        holds.hold(WEB, None, 3, 7);
        holds.hold(WEB, None, 3, 8);
        holds.release(WEB, 7);
        assert!(holds.enter(WEB, FIRST, &model_with(WEB, 3)).is_none());
        holds.release(WEB, 8);
        assert!(holds.enter(WEB, FIRST, &model_with(WEB, 3)).is_some());
    }
}
