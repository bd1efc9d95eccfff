//! Reads that a peer does for a primary whose own disk has failed: the client sees nothing of it.

use crate::units::BlockRange;
use crate::wire::Message;

use super::core::Engine;
use super::event::{BufferId, Command, Failure};
use super::mutant::{Mutant, mutated};
use super::peerset::PeerSet;

/// A read by a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemoteRead {
    /// The request.
    pub(super) key: u64,
    /// The blocks that are read.
    pub(super) range: BlockRange,
    /// Where bytes of them are wanted, and which.
    pub(super) into: BufferId,
    pub(super) from_at: u64,
    pub(super) into_at: u64,
    pub(super) len: u64,
    /// The peer that was asked.
    pub(super) peer: Option<usize>,
    /// Those that could not.
    pub(super) tried: PeerSet,
}

impl Engine {
    /// Asks a member of the in-sync set. While one of them is away the read waits, as writes do: it comes back, or it is evicted. When all have
    /// said that they cannot, the request fails.
    pub(super) fn read_remotely(&mut self, mut read: RemoteRead) {
        let Some(record) = &self.record else { return };
        let able = |p: &super::peer::Peer| p.data && record.in_sync.contains_key(&p.node);
        let member = self.peers_that(able).iter().find(|&at| !read.tried.contains(at));
        let others = record.in_sync.keys().filter_map(|node| self.peer_at(*node));
        let away = others.into_iter().any(|at| !read.tried.contains(at));
        let fails = !away || self.fails_io();
        let Some(reign) = &mut self.reign else { return };
        read.peer = member;
        if let Some(peer) = member {
            let id = reign.name();
            reign.remote.insert(id, read);
            self.send(peer, Message::Read { id, range: read.range });
        } else if fails {
            self.fail(read.key, Failure::Io);
        } else {
            reign.unread.push(read);
        }
    }

    /// Asks again for what nobody was there to be asked for.
    pub(super) fn consider_unread(&mut self) {
        let Some(reign) = &mut self.reign else { return };
        for read in std::mem::take(&mut reign.unread) {
            if self.reign.as_ref().is_some_and(|r| r.requests.get(read.key).is_some()) {
                self.read_remotely(read);
            }
        }
    }

    pub(super) fn remote_read_done(&mut self, peer: usize, id: u64, ok: bool, payload: Option<BufferId>) {
        let read = self.reign.as_mut().and_then(|r| r.remote.remove(&id));
        match (read.filter(|r| r.peer == Some(peer)), payload) {
            (Some(read), Some(from)) if ok => {
                let alive = self.reign.as_ref().is_some_and(|r| r.requests.get(read.key).is_some());
                if alive {
                    let RemoteRead { into, from_at, into_at, len, .. } = read;
                    self.out.push(Command::Copy { from, from_at, into, into_at, len });
                }
                self.out.push(Command::Release(from));
                self.remote_part_done(read.key);
            }
            (read, payload) => {
                self.out.extend(payload.map(Command::Release));
                if let Some(mut read) = read {
                    if !mutated(Mutant::AskTheSameAgain) {
                        read.tried.insert(peer);
                    }
                    self.read_remotely(read);
                }
            }
        }
    }

    fn remote_part_done(&mut self, key: u64) {
        let edges = self.reign.as_ref().and_then(|r| r.requests.get(key)).map(|p| p.state);
        match edges {
            Some(super::reign::State::Edges(_)) => self.edge_done(key, &super::DiskOutcome::Done(None)),
            Some(super::reign::State::Reading) => self.read_done(key, &super::DiskOutcome::Done(None)),
            _ => {}
        }
    }

    /// Asks somebody else for what a lost peer was asked for.
    pub(super) fn reread_from_others(&mut self, peer: usize) {
        let Some(reign) = &mut self.reign else { return };
        let lost: Vec<u64> = reign.remote.iter().filter(|(_, r)| r.peer == Some(peer)).map(|(id, _)| *id).collect();
        let lost: Vec<RemoteRead> = lost.into_iter().filter_map(|id| reign.remote.remove(&id)).collect();
        lost.into_iter().for_each(|read| self.read_remotely(read));
    }
}
