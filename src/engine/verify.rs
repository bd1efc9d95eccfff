//! Verify: whether the replicas in sync are the same, and making them so (rules R7 and R8).
//!
//! ```text
//!            asked for                served, members equal          every block compared,
//!               │       ┌────────┐         ┌─────────┐               or nobody left to compare with
//!               └──────▶│ wanted │────────▶│ running │────────────────────────▶ over
//!                       └────────┘         └─────────┘
//! ```
//!
//! The primary takes a few hundred KiB at a time, as a reader that waits for the writes before it and holds up those behind it, and
//! compares its own hashes with everybody's. It costs no page of any map and ends with the reign: what was found so far is told, and whoever
//! wants to know the rest asks again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::units::{BLOCK, BlockRange, Instant, NodeId, VolumeId, blocks_of};
use crate::wire::{BlockHash, Message};

use super::core::{Engine, Stopping};
use super::event::{AttachError, DiskIo, DiskOutcome};
use super::mutant::{Mutant, mutated};
use super::operate::{AskId, OperateError};
use super::ops::Op;
use super::reign::Phase;
use super::status::{VerifyState, VerifyStatus};

/// The blocks that are compared at a time: 256 KiB.
const PIECE: u64 = 64;

/// Pieces under way: enough to keep disks busy while hashes travel, few enough to leave them to clients.
const PIECES_MAX: usize = 4;

/// How long it may take until this node is primary and the members are equal.
const PATIENCE: Duration = Duration::from_secs(10);

/// The verify that is under way, or was the last one, in this engine's life.
#[derive(Debug, Default)]
pub(super) struct Verify {
    stage: Stage,
    repair: bool,
    /// What is compared next.
    cursor: Option<(VolumeId, u64)>,
    /// With a rate cap: when the next piece may begin.
    paced: Instant,
    tallies: BTreeMap<NodeId, VerifyStatus>,
    pieces: [Option<Piece>; PIECES_MAX],
    /// Counts the pieces of all runs: an answer to an old one is told from that to a new one.
    named: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing is to be compared.
    #[default]
    Over,
    /// Whoever asked waits for it to begin.
    Wanted { id: AskId, until: Instant },
    /// In a reign of that number.
    Running { reign: u64 },
}

/// Blocks that are being compared.
#[derive(Debug)]
struct Piece {
    range: BlockRange,
    /// Names it for the local disk.
    name: u64,
    /// Names it for the replicas; 0 before its turn.
    question: u64,
    mine: Option<Vec<BlockHash>>,
    /// Whoever was asked, with the answer.
    theirs: BTreeMap<usize, Option<Vec<BlockHash>>>,
}

impl Piece {
    fn is_answered(&self) -> bool {
        self.mine.is_some() && self.theirs.values().all(Option::is_some)
    }
}

/// A piece's key in the order of requests: the highest odd numbers, which no resync chunk has.
fn order_key(place: usize) -> u64 {
    u64::MAX - 2 * place as u64
}

/// The piece whose turn a key names, if it is one's.
fn place_of(chunk: u64) -> Option<usize> {
    (0..PIECES_MAX).find(|&place| order_key(place) >> 1 == chunk)
}

impl Engine {
    pub(super) fn verify(&mut self, id: AskId, repair: bool) {
        if self.stopping != Stopping::No {
            return self.operated(id, Err(OperateError::ShuttingDown));
        }
        if self.verify.stage != Stage::Over {
            let why = "a verify of it is under way; `blkrep status` shows how far it is, `blkrep verify --stop` ends it";
            return self.operated(id, Err(OperateError::Refused(why.to_owned())));
        }
        self.verify.stage = Stage::Wanted { id, until: self.now.after(PATIENCE) };
        self.verify.repair = repair;
    }

    pub(super) fn stop_verify(&mut self, id: AskId) {
        let result = if self.verify.stage == Stage::Over {
            let elsewhere = self.follow.primary.map(|at| OperateError::Elsewhere(self.peers[at].node));
            let why = "no verify of it is under way; `blkrep status` shows what the last one has found";
            Err(elsewhere.unwrap_or_else(|| OperateError::Refused(why.to_owned())))
        } else {
            self.give_up_verify();
            Ok(())
        };
        self.operated(id, result);
    }

    /// Whether this node has to be primary, or stay so, to compare. Whoever wants the role gets it nevertheless.
    pub(super) fn is_verifying(&self) -> bool {
        self.verify.stage != Stage::Over
    }

    /// When something is due for it.
    pub(super) fn verify_due(&self) -> Option<Instant> {
        match self.verify.stage {
            Stage::Over => None,
            Stage::Wanted { until, .. } => Some(until),
            Stage::Running { .. } => Some(self.verify.paced),
        }
    }

    /// What was found of a peer's replica.
    pub(super) fn verified(&self, node: NodeId) -> Option<VerifyStatus> {
        self.verify.tallies.get(&node).copied()
    }

    /// Ends it where it is.
    pub(super) fn give_up_verify(&mut self) {
        if let Stage::Wanted { id, .. } = self.verify.stage {
            self.operated(id, Err(OperateError::Refused("it was given up: another node is to be primary".to_owned())));
        }
        self.end_verify();
    }

    fn end_verify(&mut self) {
        self.verify.stage = Stage::Over;
        for tally in self.verify.tallies.values_mut().filter(|tally| tally.state == VerifyState::Running) {
            tally.state = VerifyState::Broken;
        }
        (0..PIECES_MAX).for_each(|place| self.drop_piece(place));
    }

    fn drop_piece(&mut self, place: usize) {
        if self.verify.pieces[place].take().is_some() {
            self.leave(order_key(place));
        }
    }

    /// A volume goes: nothing of it is compared any more.
    pub(super) fn drop_pieces_in(&mut self, volume: VolumeId) {
        for place in 0..PIECES_MAX {
            if self.verify.pieces[place].as_ref().is_some_and(|piece| piece.range.volume == volume) {
                self.drop_piece(place);
            }
        }
    }

    /// Brings it on its way, or to its end.
    pub(super) fn consider_verify(&mut self) {
        match self.verify.stage {
            Stage::Over => {}
            Stage::Wanted { id, until } => self.verify_wanted(id, until),
            Stage::Running { reign } => self.verify_running(reign),
        }
    }

    fn verify_wanted(&mut self, id: AskId, until: Instant) {
        let refusal = match &self.reign {
            _ if self.stopping != Stopping::No => Some(OperateError::ShuttingDown),
            Some(reign) if reign.phase == Phase::Serving && (reign.equal || mutated(Mutant::VerifyUnequal)) => {
                let number = reign.number;
                return self.begin_verify(id, number);
            }
            None if self.change.is_none() => match self.promotable() {
                Err(AttachError::InUse(node)) => Some(OperateError::Elsewhere(node)),
                _ => None,
            },
            _ => None,
        };
        let refusal = refusal.or_else(|| (until <= self.now).then(|| self.why_not_primary()));
        if let Some(refusal) = refusal {
            self.verify.stage = Stage::Over;
            self.operated(id, Err(refusal));
        }
    }

    fn begin_verify(&mut self, id: AskId, reign: u64) {
        let there: Vec<usize> = (0..self.peers.len()).filter(|&at| self.is_comparable(at)).collect();
        if there.is_empty() || !(self.has_disk() && self.am_member()) {
            self.verify.stage = Stage::Over;
            let why = "there are no two connected replicas in sync to be compared; `blkrep status` shows who is missing";
            return self.operated(id, Err(OperateError::Refused(why.to_owned())));
        }
        let total = self.settings.volumes.keys().map(|volume| self.blocks_to_compare(*volume)).sum::<u64>() * BLOCK;
        let tally = VerifyStatus { reign, total, repair: self.verify.repair, ..VerifyStatus::default() };
        self.verify.tallies = there.into_iter().map(|at| (self.peers[at].node, tally)).collect();
        self.verify.cursor = self.settings.volumes.keys().next().map(|volume| (*volume, 0));
        self.verify.paced = self.now;
        self.verify.stage = Stage::Running { reign };
        self.operated(id, Ok(()));
    }

    /// Whether a peer's replica is to have what this node's has.
    fn is_comparable(&self, at: usize) -> bool {
        let peer = &self.peers[at];
        peer.data && self.record.as_ref().is_some_and(|record| peer.is_member_of(record))
    }

    fn blocks_to_compare(&self, volume: VolumeId) -> u64 {
        self.volume_bytes(volume).map_or(0, blocks_of)
    }

    fn verify_running(&mut self, number: u64) {
        let serves = self.reign.as_ref().is_some_and(|reign| reign.number == number && reign.phase == Phase::Serving);
        if !serves || self.stopping != Stopping::No || !(self.has_disk() && self.am_member()) {
            return self.end_verify();
        }
        self.verify_without_the_lost();
        if !self.verify.tallies.values().any(|tally| tally.state == VerifyState::Running) {
            return self.end_verify();
        }
        while let Some(place) = self.free_place() {
            let Some(range) = self.next_piece() else { break };
            self.verify.named += 1;
            let piece = Piece { range, name: self.verify.named, question: 0, mine: None, theirs: BTreeMap::new() };
            self.verify.pieces[place] = Some(piece);
            if let Some(nanos) = range.bytes().saturating_mul(1_000_000_000).checked_div(self.settings.resync_max) {
                self.verify.paced = self.verify.paced.max(self.now).after(Duration::from_nanos(nanos));
            }
            let Some(reign) = &mut self.reign else { return };
            if reign.order.enter(order_key(place), range, false) || mutated(Mutant::VerifyCrosses) {
                self.piece_turn(place);
            }
        }
        if self.verify.cursor.is_none() && self.verify.pieces.iter().all(Option::is_none) {
            for tally in self.verify.tallies.values_mut().filter(|tally| tally.state == VerifyState::Running) {
                tally.state = VerifyState::Done;
            }
            self.verify.stage = Stage::Over;
        }
    }

    /// Whoever was lost, or is no member any more, is not waited for. One that comes back is resynced, and is not compared in this run.
    fn verify_without_the_lost(&mut self) {
        for at in 0..self.peers.len() {
            let node = self.peers[at].node;
            if self.is_comparable(at) {
                continue;
            }
            if let Some(tally) = self.verify.tallies.get_mut(&node).filter(|tally| tally.state == VerifyState::Running) {
                tally.state = VerifyState::Broken;
            }
            for place in 0..PIECES_MAX {
                let asked = self.verify.pieces[place].as_mut().is_some_and(|piece| piece.theirs.remove(&at).is_some());
                if asked {
                    self.compare_piece(place);
                }
            }
        }
    }

    fn free_place(&self) -> Option<usize> {
        self.verify.pieces.iter().position(Option::is_none).filter(|_| self.verify.paced <= self.now)
    }

    /// The next blocks in the order of volumes; the cursor is past them then.
    fn next_piece(&mut self) -> Option<BlockRange> {
        while let Some((volume, first)) = self.verify.cursor {
            let blocks = self.blocks_to_compare(volume);
            if first < blocks {
                let count = PIECE.min(blocks - first);
                self.verify.cursor = Some((volume, first + count));
                return Some(BlockRange { volume, first, count });
            }
            let after = self.settings.volumes.keys().find(|next| **next > volume);
            self.verify.cursor = after.map(|next| (*next, 0));
        }
        None
    }

    /// A piece's turn has come, if the key of a chunk is one's. Returns whether it is.
    pub(super) fn is_piece_turn(&mut self, chunk: u64) -> bool {
        let place = place_of(chunk);
        if let Some(place) = place {
            self.piece_turn(place);
        }
        place.is_some()
    }

    /// Nothing changes the blocks of a piece until it is compared: everybody hashes what it has.
    fn piece_turn(&mut self, place: usize) {
        let Some((range, name)) = self.verify.pieces[place].as_ref().map(|piece| (piece.range, piece.name)) else { return };
        let running = |at: &usize| {
            let tally = self.verify.tallies.get(&self.peers[*at].node);
            tally.is_some_and(|tally| tally.state == VerifyState::Running) && self.is_comparable(*at)
        };
        let asked: Vec<usize> = (0..self.peers.len()).filter(running).filter(|&at| self.peers[at].holds(range)).collect();
        let Some(question) = self.reign.as_mut().map(|reign| reign.name()) else { return };
        if let Some(piece) = &mut self.verify.pieces[place] {
            piece.question = question;
            piece.theirs = asked.iter().map(|&at| (at, None)).collect();
        }
        asked.into_iter().for_each(|at| self.send(at, Message::Hash { id: question, range }));
        self.ops.disk(&mut self.out, Op::VerifyHash { piece: name }, DiskIo::Hash { range });
    }

    pub(super) fn piece_hashed(&mut self, name: u64, outcome: DiskOutcome) {
        let DiskOutcome::Hashed(hashes) = outcome else {
            self.disk_failed();
            return;
        };
        let of = |piece: &Option<Piece>| piece.as_ref().is_some_and(|piece| piece.name == name);
        let Some(place) = self.verify.pieces.iter().position(of) else { return };
        if let Some(piece) = &mut self.verify.pieces[place] {
            piece.mine = Some(hashes);
        }
        self.compare_piece(place);
    }

    /// A replica's hashes; none when it could not read the blocks.
    pub(super) fn piece_hashes_of(&mut self, at: usize, question: u64, hashes: Vec<BlockHash>) {
        let of = |piece: &Option<Piece>| piece.as_ref().is_some_and(|piece| piece.question == question && question != 0);
        let Some(place) = self.verify.pieces.iter().position(of) else { return };
        if let Some(answer) = self.verify.pieces[place].as_mut().and_then(|piece| piece.theirs.get_mut(&at)) {
            *answer = Some(hashes);
        }
        self.compare_piece(place);
    }

    /// When all have answered: counts what differs, and has it repaired before anything else touches these blocks.
    fn compare_piece(&mut self, place: usize) {
        let Some(piece) = self.verify.pieces[place].take_if(|piece| piece.is_answered()) else { return };
        let mine = piece.mine.unwrap_or_default();
        for (n, block) in (0..piece.range.count).enumerate() {
            let block = BlockRange { first: piece.range.first + block, count: 1, ..piece.range };
            // What is being made equal at this moment differs for a reason that is known.
            let known = |at: usize| self.peers[at].dirty.meets(block) && !mutated(Mutant::VerifyUnequal);
            let copies: Vec<(usize, Option<bool>)> = (piece.theirs.iter().filter(|(at, _)| !known(**at)))
                .map(|(&at, hashes)| (at, hashes.as_ref().and_then(|hashes| hashes.get(n)).map(|hash| mine.get(n) == Some(hash))))
                .collect();
            self.count_block(block, &copies);
        }
        let asked: Vec<NodeId> = piece.theirs.keys().map(|&at| self.peers[at].node).collect();
        for (node, tally) in self.verify.tallies.iter_mut().filter(|(_, tally)| tally.state == VerifyState::Running) {
            tally.done += piece.range.bytes();
            tally.unread += if asked.contains(node) { 0 } else { piece.range.count };
        }
        self.leave(order_key(place));
    }

    /// Whether each of the others has what this node has in a block; `None` when it could not say.
    fn count_block(&mut self, block: BlockRange, copies: &[(usize, Option<bool>)]) {
        let told = copies.iter().filter(|(_, same)| same.is_some()).count();
        let agree = copies.iter().filter(|(_, same)| *same == Some(true)).count();
        // Of two copies neither has a majority: whoever asks for the repair decides, for what clients have been reading. A third one that is
        // away now, or not in sync, is a copy, too, and may have what the other has.
        let replicas = self.peers.iter().filter(|peer| peer.settings.diskful).count() + 1;
        let two = told == 1 && (replicas == 2 || mutated(Mutant::TwoOfThree));
        let decided = two || (agree + 1) * 2 > told + 1 || mutated(Mutant::RepairOutvoted);
        let repairs = self.verify.repair && decided;
        for &(at, same) in copies.iter().filter(|(_, same)| *same != Some(true)) {
            let Some(tally) = self.verify.tallies.get_mut(&self.peers[at].node) else { continue };
            if same.is_none() {
                tally.unread += 1;
                continue;
            }
            tally.different += 1;
            let place = (block.volume, block.first * BLOCK);
            // Pieces end in any order.
            tally.first = Some(tally.first.map_or(place, |first| first.min(place)));
            if repairs {
                tally.repaired += 1;
                self.repair(at, block);
            }
        }
    }

    /// A member gets this node's copy of a block, as if a takeover had left it unequal: nobody reads or writes it meanwhile, and neither a
    /// flush, a snapshot nor the end of the reign passes it by (rule P3).
    fn repair(&mut self, at: usize, block: BlockRange) {
        if mutated(Mutant::RepairForgotten) {
            return;
        }
        self.peers[at].dirty.set(block);
        if let Some(reign) = &mut self.reign {
            reign.equal = false;
            reign.equal_from = None;
        }
    }
}
