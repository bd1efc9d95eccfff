//! Clients' requests at the primary, from arrival to answer (rules W1, W2, W4, P3, F2).

use crate::units::{BLOCK, BlockRange, Instant};

use super::core::Engine;
use super::event::{ClientId, Command, DiskIo, DiskOutcome, Failure, Request, RequestId};
use super::flights::{Cause, What};
use super::link::Links;
use super::mutant::{Mutant, mutated};
use super::ops::Op;
use super::peer::Session;
use super::peerset::PeerSet;
use super::reign::{Asker, Pending, Phase, Reign, State};
use super::remote::RemoteRead;
use super::reshape::Room;

/// Keys in the order table: requests are even, resync chunks odd.
pub(super) fn order_key(request: u64) -> u64 {
    request << 1
}

impl Engine {
    pub(super) fn request(&mut self, id: RequestId, client: ClientId, request: Request) {
        let known = self.clients.contains(&client);
        if known && self.reign.is_none() {
            return self.forward(id, client, request);
        }
        if !known {
            release_buffer(&mut self.out, &request);
            self.out.push(Command::Complete { id, result: Err(Failure::ShuttingDown) });
            return;
        }
        let reign = self.reign.as_mut().expect("checked");
        let key = reign.requests.insert(Pending {
            asker: Asker::Client { id, client },
            origin: None,
            done: false,
            request,
            state: State::Waiting,
            holds: false,
        });
        self.enter(key);
    }

    /// Gives a request its place among those that touch the same blocks.
    pub(super) fn enter(&mut self, key: u64) {
        if self.fails_io() {
            self.fail(key, Failure::Io);
            return;
        }
        let Some((range, exclusive)) = self.range_of(key) else {
            let reign = self.reign.as_mut().expect("requests belong to a reign");
            reign.requests.get_mut(key).expect("it was just entered").state = State::Flushing;
            reign.flushes.waiting.push(key);
            return;
        };
        let room = self.room_for(range);
        if room == Room::Nowhere {
            self.fail(key, Failure::Io);
            return;
        }
        let withheld = self.is_withheld(exclusive, range.volume) || room == Room::Awaited;
        let taking_over = self.reign.as_ref().is_some_and(|r| r.phase == Phase::TakingOver);
        if withheld || self.is_unequal(range) || taking_over || self.is_behind_held(range, exclusive) {
            self.reign.as_mut().expect("requests belong to a reign").held.push(key);
            return;
        }
        let reign = self.reign.as_mut().expect("requests belong to a reign");
        if reign.order.enter(order_key(key), range, exclusive) {
            self.begin(key);
        }
    }

    /// Whether an earlier request for some of these blocks is held. What came first goes first, though it waits for other blocks: a guest that
    /// has let a client go says nothing of what that has sent, and whoever comes next must find it done or not (rule W7).
    fn is_behind_held(&self, range: BlockRange, exclusive: bool) -> bool {
        let Some(reign) = self.reign.as_ref().filter(|_| !mutated(Mutant::HeldOvertaken)) else { return false };
        let conflicts = |request: &Request| range_of(request).is_some_and(|(r, e)| (e || exclusive) && r.overlaps(&range));
        reign.held.iter().filter_map(|&key| reign.requests.get(key)).any(|pending| conflicts(&pending.request))
    }

    /// Tries requests again that waited for their blocks to be equal everywhere.
    pub(super) fn retry_held(&mut self) {
        let Some(reign) = &mut self.reign else { return };
        if reign.phase != Phase::TakingOver && !reign.held.is_empty() {
            std::mem::take(&mut reign.held).into_iter().for_each(|key| self.enter(key));
        }
    }

    /// Whether a member of the in-sync set lacks blocks of the range (rule P3).
    pub(super) fn is_unequal(&self, range: BlockRange) -> bool {
        let Some(reign) = self.reign.as_ref().filter(|_| !mutated(Mutant::ServeUnequal)) else { return false };
        let Some(record) = &self.record else { return false };
        !reign.equal && self.peers.iter().any(|p| record.in_sync.contains_key(&p.node) && p.dirty.meets(range))
    }

    /// The blocks that a request touches and whether it changes them; `None` for a flush.
    fn range_of(&self, key: u64) -> Option<(BlockRange, bool)> {
        range_of(&self.reign.as_ref()?.requests.get(key)?.request)
    }

    /// A request's turn has come.
    fn begin(&mut self, key: u64) {
        let Some(reign) = &mut self.reign else { return };
        let Some(pending) = reign.requests.get_mut(key) else { return };
        if pending.done {
            return self.done_before(key);
        }
        match pending.request {
            Request::Read { volume, offset, len, buffer } => {
                pending.state = State::Reading;
                self.read(key, BlockRange::covering(volume, offset, len), buffer);
            }
            Request::Write { volume, offset, len, buffer, .. } => {
                let range = BlockRange::covering(volume, offset, len);
                let edges = edges(range, offset, len);
                pending.state = State::Edges(u8::try_from(edges.iter().flatten().count()).expect("a range has two ends"));
                for edge in edges.into_iter().flatten() {
                    self.read_edge(key, buffer, range, edge);
                }
                self.edges_ready(key);
            }
            Request::Zero { .. } => self.heat(key),
            Request::Flush => unreachable!("a flush has no turn"),
        }
    }

    /// A request that an older primary has done: its blocks are equal on all members by now. It may have to be made durable still.
    fn done_before(&mut self, key: u64) {
        let Some(reign) = &mut self.reign else { return };
        let Some(pending) = reign.requests.get_mut(key) else { return };
        if let Request::Write { fua: true, .. } | Request::Zero { fua: true, .. } = pending.request {
            pending.state = State::Flushing;
            reign.flushes.waiting.push(key);
        } else {
            self.finish(key, Ok(()));
        }
    }

    fn read(&mut self, key: u64, range: BlockRange, buffer: super::BufferId) {
        if self.has_disk() && self.am_member() {
            let io = DiskIo::Read { range, buffer: Some(buffer), detect_zeroes: false };
            self.ops.disk(&mut self.out, Op::Read { request: key }, io);
        } else {
            self.read_remotely(RemoteRead {
                key,
                range,
                into: buffer,
                from_at: 0,
                into_at: 0,
                len: range.bytes(),
                peer: None,
                tried: PeerSet::default(),
            });
        }
    }

    /// Reads the part of an end block that a write does not cover: the primary ships whole blocks.
    fn read_edge(&mut self, key: u64, buffer: super::BufferId, range: BlockRange, edge: Edge) {
        let block = BlockRange { first: range.first + edge.block, count: 1, ..range };
        if !(self.has_disk() && self.am_member()) {
            let into_at = edge.block * BLOCK + edge.from;
            let (from_at, len) = (edge.from, edge.len);
            self.read_remotely(RemoteRead {
                key,
                range: block,
                into: buffer,
                from_at,
                into_at,
                len,
                peer: None,
                tried: PeerSet::default(),
            });
            return;
        }
        let io = DiskIo::ReadEdge { range: block, buffer, block_in_buffer: edge.block, from: edge.from, len: edge.len };
        self.ops.disk(&mut self.out, Op::Edge { request: key }, io);
    }

    pub(super) fn edge_done(&mut self, key: u64, outcome: &DiskOutcome) {
        if *outcome == DiskOutcome::Failed {
            self.disk_failed();
            let Some(pending) = self.reign.as_ref().and_then(|r| r.requests.get(key)) else { return };
            let Request::Write { volume, offset, len, buffer, .. } = pending.request else { return };
            // Which of the two edges it was does not matter: both are read again, from a peer.
            let range = BlockRange::covering(volume, offset, len);
            for edge in edges(range, offset, len).into_iter().flatten() {
                self.count_edges(key, 1);
                self.read_edge(key, buffer, range, edge);
            }
        }
        self.count_edges(key, -1);
        self.edges_ready(key);
    }

    fn count_edges(&mut self, key: u64, change: i8) {
        let pending = self.reign.as_mut().and_then(|r| r.requests.get_mut(key));
        if let Some(State::Edges(left)) = pending.map(|p| &mut p.state) {
            *left = left.saturating_add_signed(change);
        }
    }

    fn edges_ready(&mut self, key: u64) {
        let Some(pending) = self.reign.as_ref().and_then(|r| r.requests.get(key)) else { return };
        if pending.state == State::Edges(0) {
            self.heat(key);
        }
    }

    /// Makes the extents of a write hot before it is sent or applied (rule W2).
    fn heat(&mut self, key: u64) {
        let Some((range, _)) = self.range_of(key) else { return };
        let reign = self.reign.as_mut().expect("requests belong to a reign");
        let pending = reign.requests.get_mut(key).expect("checked");
        pending.state = State::Heating;
        // A primary whose own disk has failed has no log; the replicas' logs say where they may differ.
        let store = self.store.as_mut().filter(|s| !s.failed);
        pending.holds = store.is_some();
        if store.is_none_or(|s| s.activity.hold(range, 0)) || mutated(Mutant::SendCold) {
            self.launch(key);
        } else {
            reign.heating.push_back(key);
        }
    }

    /// A page of the activity map is durable: goes on with what waited for it.
    pub(super) fn activity_written(&mut self) {
        self.apply_waiting();
        let Some(reign) = &mut self.reign else { return };
        for key in std::mem::take(&mut reign.heating) {
            let Some((range, _)) = self.range_of(key) else { continue };
            if self.store.as_ref().is_none_or(|s| s.failed || s.activity.is_durable(range)) {
                self.launch(key);
            } else {
                self.reign.as_mut().expect("checked").heating.push_back(key);
            }
        }
    }

    /// Numbers a write and puts it on its way, everywhere at once.
    pub(super) fn launch(&mut self, key: u64) {
        if self.latch(key) {
            return;
        }
        let Some((range, _)) = self.range_of(key) else { return };
        let reign = self.reign.as_mut().expect("requests belong to a reign");
        let pending = reign.requests.get_mut(key).expect("checked");
        pending.state = State::Flying;
        let holds = pending.holds;
        let (what, fua) = match pending.request {
            Request::Write { buffer, fua, .. } => (What::Data(buffer), fua),
            Request::Zero { unmap, fua, .. } => (What::Zeroes { unmap }, fua),
            Request::Read { .. } | Request::Flush => unreachable!("only what changes blocks is launched"),
        };
        self.fly(Cause::Client(key), range, what, fua, holds);
    }

    /// Gives up a place in the order and begins what waited for it.
    pub(super) fn leave(&mut self, order_key: u64) {
        let mut ready = Vec::new();
        if let Some(reign) = &mut self.reign {
            reign.order.release(order_key, &mut ready);
        }
        for key in ready {
            if key & 1 == 0 { self.begin(key >> 1) } else { self.chunk_turn(key >> 1) }
        }
    }

    pub(super) fn read_done(&mut self, key: u64, outcome: &DiskOutcome) {
        if *outcome == DiskOutcome::Failed {
            self.disk_failed();
            let range = self.range_of(key);
            let request = self.reign.as_ref().and_then(|r| r.requests.get(key)).map(|p| p.request);
            if let (Some((range, _)), Some(Request::Read { buffer, .. })) = (range, request) {
                self.read(key, range, buffer);
            }
        } else if let Some(reign) = &mut self.reign {
            reign.unleased.push(key);
        }
    }

    /// Answers reads whose data was read, when every member of the ack set has granted a lease that is still good (rule F2).
    pub(super) fn consider_reads(&mut self, links: &Links) {
        let Some(reign) = &self.reign else { return };
        if reign.unleased.is_empty() {
            return;
        }
        let without: Vec<usize> = reign.ack.iter().filter(|&peer| !self.has_lease(links, peer)).collect();
        if without.is_empty() || mutated(Mutant::ReadUnleased) {
            let reign = self.reign.as_mut().expect("checked");
            for key in std::mem::take(&mut reign.unleased) {
                self.finish(key, Ok(()));
            }
            return;
        }
        for peer in without {
            let node = self.peers[peer].node;
            let ask = Command::AskLease(node);
            if self.peers[peer].is_ready() && !self.out.contains(&ask) {
                self.out.push(ask);
            }
        }
    }

    fn has_lease(&self, links: &Links, peer: usize) -> bool {
        self.has_lease_at(links, peer, self.now)
    }

    pub(super) fn has_lease_at(&self, links: &Links, peer: usize, now: Instant) -> bool {
        let Session::Ready { since } = self.peers[peer].session else { return false };
        let asked = links.get(&self.peers[peer].node).and_then(super::link::Link::lease_from);
        let covers = |asked| asked >= since || mutated(Mutant::LeaseBeforeSession);
        asked.is_some_and(|asked| covers(asked) && now < asked.after(self.settings.timeouts.lease))
    }

    /// Answers a request that changed nothing, and forgets it.
    pub(super) fn finish(&mut self, key: u64, result: Result<(), Failure>) {
        let Some(pending) = self.reign.as_mut().and_then(|r| r.requests.remove(key)) else { return };
        let read = if let Request::Read { buffer, .. } = pending.request { Some(buffer) } else { None };
        self.tell(pending.asker, pending.origin, result, read);
        release_buffer(&mut self.out, &pending.request);
        self.leave(order_key(key));
    }

    /// Fails a request that was not launched.
    pub(super) fn fail(&mut self, key: u64, failure: Failure) {
        let Some(reign) = &mut self.reign else { return };
        reign.heating.retain(|&k| k != key);
        reign.unleased.retain(|&k| k != key);
        self.finish(key, Err(failure));
    }

    /// Drops the requests of a client that is gone, as far as they were not started (rule W7).
    pub(super) fn drop_requests_of(&mut self, client: ClientId) {
        if mutated(Mutant::DeadRequestsLive) {
            return;
        }
        self.drop_forwarded_of(client);
        self.drop_waiting(|pending| matches!(pending.asker, Asker::Client { client: of, .. } if of == client));
    }

    /// Drops requests that were not started.
    pub(super) fn drop_waiting(&mut self, is_such: impl Fn(&Pending) -> bool) {
        let Some(reign) = &mut self.reign else { return };
        let of_client = |reign: &Reign, key: &u64| reign.requests.get(*key).is_some_and(&is_such);
        let waiting = |reign: &Reign, key: &u64| reign.requests.get(*key).is_some_and(|p| p.state == State::Waiting);
        let keys: Vec<u64> = reign.requests.keys().filter(|k| of_client(reign, k) && waiting(reign, k)).collect();
        reign.held.retain(|k| !keys.contains(k));
        for key in keys {
            // One that is dropped may let another begin.
            if self.reign.as_ref().is_some_and(|r| waiting(r, &key)) {
                self.finish(key, Err(Failure::ShuttingDown));
            }
        }
    }
}

/// The blocks that a request touches, and whether it changes them; `None` for a flush.
pub(super) fn range_of(request: &Request) -> Option<(BlockRange, bool)> {
    match *request {
        Request::Read { volume, offset, len, .. } => Some((BlockRange::covering(volume, offset, len), false)),
        Request::Write { volume, offset, len, .. } => Some((BlockRange::covering(volume, offset, len), true)),
        Request::Zero { range, .. } => Some((range, true)),
        Request::Flush => None,
    }
}

pub(super) fn release_buffer(out: &mut Vec<Command>, request: &Request) {
    match *request {
        Request::Read { buffer, .. } | Request::Write { buffer, .. } => out.push(Command::Release(buffer)),
        Request::Zero { .. } | Request::Flush => {}
    }
}

/// Bytes of an end block that a write does not cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    /// The block, counted from the range's first.
    block: u64,
    from: u64,
    len: u64,
}

/// The edges of a write: before its first byte and after its last.
fn edges(range: BlockRange, offset: u64, len: u64) -> [Option<Edge>; 2] {
    let (head, tail) = (offset % BLOCK, (offset + len) % BLOCK);
    let (head, tail) = if mutated(Mutant::PartialBlocks) { (0, 0) } else { (head, tail) };
    let first = (head != 0).then_some(Edge { block: 0, from: 0, len: head });
    let last = (tail != 0).then_some(Edge { block: range.count - 1, from: tail, len: BLOCK - tail });
    [first, last]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::VolumeId;

    #[test]
    fn an_unaligned_write_reads_what_it_leaves_of_its_end_blocks() {
        let v = VolumeId(0);
        let of = |offset, len| edges(BlockRange::covering(v, offset, len), offset, len);
        assert_eq!(of(0, 8192), [None, None]);
        assert_eq!(of(100, 200), [Some(Edge { block: 0, from: 0, len: 100 }), Some(Edge { block: 0, from: 300, len: 3796 }),]);
        assert_eq!(of(4096, 4097), [None, Some(Edge { block: 1, from: 1, len: 4095 })]);
    }
}
