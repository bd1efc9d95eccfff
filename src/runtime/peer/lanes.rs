//! Which peers there are on which lane.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Link, Links, Timeouts};
use crate::units::{Instant, NodeId};

use super::Connection;
use crate::runtime::plane::{LANES, Lane};
use crate::runtime::shard::Shard;
use crate::runtime::slab::{Key, Slab};

/// The connections of a shard's lanes.
#[derive(Debug)]
pub(in crate::runtime) struct Peers {
    /// One for each lane of the cluster; those of other shards stay empty.
    lanes: Vec<LaneState>,
    connections: Slab<Connection>,
    /// When something is to be looked at next.
    next_beat: Option<Instant>,
}

#[derive(Debug, Default)]
struct LaneState {
    links: Links,
    connections: BTreeMap<NodeId, Key>,
    /// Peers that the control plane was asked for.
    wanted: BTreeSet<NodeId>,
    /// Resources that wait for a lease.
    asking: BTreeMap<NodeId, Vec<Key>>,
}

impl Default for Peers {
    fn default() -> Self {
        let lanes = (0..LANES).map(|_| LaneState::default()).collect();
        Self { lanes, connections: Slab::default(), next_beat: None }
    }
}

impl Peers {
    /// What is known of the leases on a lane.
    pub(in crate::runtime) fn links(&self, lane: Lane) -> &Links {
        &self.lanes[usize::from(lane.0)].links
    }

    /// When [`Shard::beat`] is to be called.
    pub(in crate::runtime) fn next_beat(&self) -> Option<Instant> {
        self.next_beat
    }

    pub(super) fn set_next_beat(&mut self, at: Option<Instant>) {
        self.next_beat = at;
    }

    pub(super) fn connection(&self, lane: Lane, peer: NodeId) -> Option<Key> {
        self.lane(lane).connections.get(&peer).copied()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Connection> {
        self.connections.get(key)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    /// Every connection.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.connections.iter().map(|(key, _)| key).collect()
    }

    /// The heartbeats of a connection.
    pub(super) fn link(&mut self, key: Key) -> Option<(&mut Connection, &mut Link)> {
        let connection = self.connections.get_mut(key)?;
        let link = self.lanes[usize::from(connection.lane.0)].links.get_mut(&connection.peer)?;
        Some((connection, link))
    }

    pub(super) fn connect(&mut self, connection: Connection, now: Instant) -> Key {
        let (lane, peer) = (connection.lane, connection.peer);
        let key = self.connections.insert(connection);
        let of = self.lane_mut(lane);
        of.links.entry(peer).or_insert_with(|| Link::new(now)).connected(now);
        of.connections.insert(peer, key);
        of.wanted.remove(&peer);
        key
    }

    pub(super) fn disconnect(&mut self, key: Key) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        let lane = self.lane_mut(connection.lane);
        if let Some(link) = lane.links.get_mut(&connection.peer) {
            link.disconnected();
        }
        lane.connections.remove(&connection.peer);
        lane.asking.remove(&connection.peer);
        Some(connection)
    }

    /// Notes that a peer is asked for; whether it was not yet.
    pub(super) fn want(&mut self, lane: Lane, peer: NodeId) -> bool {
        self.lane_mut(lane).wanted.insert(peer)
    }

    /// A resource waits for a lease.
    pub(super) fn ask(&mut self, lane: Lane, peer: NodeId, resource: Key) {
        let asking = self.lane_mut(lane).asking.entry(peer).or_default();
        if !asking.contains(&resource) {
            asking.push(resource);
        }
    }

    /// The resources that waited for the lease.
    pub(super) fn take_asking(&mut self, lane: Lane, peer: NodeId) -> Vec<Key> {
        self.lane_mut(lane).asking.get_mut(&peer).map(std::mem::take).unwrap_or_default()
    }

    fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[usize::from(lane.0)]
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[usize::from(lane.0)]
    }
}

impl Shard {
    /// The quickest of the times of the resources that use a connection.
    pub(super) fn quickest(&self, lane: Lane, peer: NodeId) -> Timeouts {
        let times = self.users(lane, peer).filter_map(|key| self.resources.get(key)).map(|resource| resource.settings.timeouts);
        times.reduce(quicker).unwrap_or_default()
    }

    /// Takes over the times of the resources of a lane as they are now.
    pub(super) fn hurry(&mut self, lane: Lane) {
        for key in self.peers.keys() {
            let Some(connection) = self.peers.get(key).filter(|connection| connection.lane == lane) else { continue };
            let timeouts = self.quickest(lane, connection.peer);
            if let Some(connection) = self.peers.get_mut(key) {
                connection.timeouts = timeouts;
            }
        }
        self.beat();
    }
}

fn quicker(one: Timeouts, other: Timeouts) -> Timeouts {
    Timeouts {
        heartbeat: one.heartbeat.min(other.heartbeat),
        lease: one.lease.min(other.lease),
        reconnect: one.reconnect.min(other.reconnect),
        peer_silent: one.peer_silent.min(other.peer_silent),
    }
}
