//! Letting clients in, here and on nodes that forward (rule W7): not before everything has arrived that clients which are gone had sent.
//!
//! A client may lose its connection on one node and come back on another, which nobody can see: it has no identity. What the first node had
//! forwarded for it must not overtake what it asks for now. So before a client is let in, each guest is asked to answer once: whatever
//! that guest forwarded before has arrived then and has its place in the order, and what it had not forwarded of clients that are gone
//! it never will. A guest that does not answer is gone when its connection is, with all that was on its way.

use std::time::Duration;

use crate::units::{Instant, NodeId, Sharing};
use crate::wire::Message;

use super::core::{Engine, Stopping};
use super::event::{AttachError, ClientId, Command};
use super::mutant::{Mutant, mutated};
use super::reign::{Asker, Pending, Phase};

/// How long a client waits to be let in before it is told why not.
const ATTACH_PATIENCE: Duration = Duration::from_secs(10);

/// How many requests of clients that are gone may be under way when another client is let in.
pub const ORPHANS_MAX: usize = 64;

/// How long a client waits for others that are in its way: they may be about to go, as when a container moves (DRBD: auto-promote-timeout).
const BARRED_PATIENCE: Duration = Duration::from_secs(3);

/// For how long at most a node whose connection has broken keeps others out: whoever waits is let in then, and not told that it is in the way.
pub(super) const ABSENCE: Duration = Duration::from_secs(2);

/// A client that wants to be let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanting {
    since: Instant,
    /// When it is told why not.
    pub(super) until: Instant,
    /// Its number among those that came here.
    pub(super) entry: u64,
    /// With whom it shares.
    pub(super) sharing: Sharing,
}

/// What a node wants for its clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Wish {
    /// The last of its clients that wants to be let in, and whether one does.
    pub(super) entry: u64,
    pub(super) waits: bool,
    /// With whom they share.
    pub(super) sharing: Sharing,
}

/// Another node that wants its clients' requests taken here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor {
    pub(super) session: u64,
    pub(super) wish: Wish,
    /// It counts until then, unless it asks again.
    pub(super) until: Instant,
}

/// Who is let in after a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Entrant {
    Client(ClientId),
    Guest { peer: usize, session: u64, wish: Wish },
}

impl Engine {
    pub(super) fn attach(&mut self, client: ClientId, sharing: Sharing) {
        if self.stopping != Stopping::No {
            self.attached(client, Err(AttachError::ShuttingDown));
            return;
        }
        self.forward.entry += 1;
        // Whoever serves is asked at once.
        self.forward.again = None;
        let (since, entry) = (self.now, self.forward.entry);
        self.wanting.insert(client, Wanting { since, until: since.after(ATTACH_PATIENCE), entry, sharing });
    }

    /// Lets in whoever waits, when this node serves. While much is under way for clients that are gone they wait (rule W7): where I/O is
    /// suspended, one that gives up and comes back again and again would take all memory.
    pub(super) fn admit_waiting(&mut self) {
        let serving = self.reign.as_ref().is_some_and(|r| r.phase == Phase::Serving);
        if !serving || self.wanting.is_empty() && self.visitors.is_empty() {
            return;
        }
        self.forget_entrants();
        if self.has_many_orphans() {
            return;
        }
        for (client, wanting) in self.wanting.iter().map(|(client, wanting)| (*client, *wanting)).collect::<Vec<_>>() {
            if let Some(by) = self.barred_by(None, wanting.sharing) {
                self.refuse_barred(client, by);
            } else if self.may_enter(Entrant::Client(client)) {
                self.let_in(client);
            }
        }
        for (peer, visitor) in self.visitors.iter().map(|(at, visitor)| (*at, *visitor)).collect::<Vec<_>>() {
            let Visitor { session, wish, .. } = visitor;
            if let Some(by) = self.barred_by(Some(peer), wish.sharing) {
                self.visitors.remove(&peer);
                self.send(peer, Message::Barred { session, by });
            } else if self.may_enter(Entrant::Guest { peer, session, wish }) {
                self.visitors.remove(&peer);
                self.welcome(peer, session, wish);
            }
        }
        self.forget_entrants();
    }

    /// Who is in the way of a client, here or on the node `at`: somebody with whom it does not share.
    fn barred_by(&self, at: Option<usize>, sharing: Sharing) -> Option<NodeId> {
        if mutated(Mutant::BarNobody) {
            return None;
        }
        let here = match at {
            None => self.is_barred_here(sharing),
            Some(_) => self.shares().is_some_and(|ours| !ours.suits(sharing)),
        };
        let guest = || self.reign.as_ref().and_then(|r| r.guests.another(at, sharing));
        // One that lost its primary a moment ago and has not come here yet. Those that share with anybody are not waited for.
        let theirs = |peer: &super::peer::Peer| peer.standing.as_ref().filter(|_| peer.is_connected()).and_then(|s| s.sharing);
        let stands = |peer| {
            !mutated(Mutant::BystandersShare)
                && theirs(peer).is_some_and(|theirs| theirs != Sharing::Shared && !theirs.suits(sharing))
        };
        // One whose connection has just broken. When it is back it says itself how its clients share.
        let away = |peer: usize| !self.peers[peer].is_connected() && !self.peers[peer].hopeless;
        let lost = || {
            let mut lost = self.reign.as_ref()?.guests.lost(self.now);
            lost.find(|(peer, theirs)| Some(*peer) != at && away(*peer) && !theirs.suits(sharing)).map(|(peer, _)| peer)
        };
        let other = || (0..self.peers.len()).find(|&peer| Some(peer) != at && stands(&self.peers[peer]));
        if here { Some(self.id.node) } else { guest().or_else(lost).or_else(other).map(|peer| self.peers[peer].node) }
    }

    /// With whom the clients of this node share; `None` without any.
    pub(super) fn shares(&self) -> Option<Sharing> {
        (!self.clients.is_empty()).then_some(self.sharing)
    }

    /// Whether clients of this node are in the way of another one of it. Those that are to be alone are so together: the connections of a
    /// device, the next one of a device whose last one is broken, the volumes of a resource that are mounted here.
    pub(super) fn is_barred_here(&self, sharing: Sharing) -> bool {
        self.shares().is_some_and(|ours| ours != sharing)
    }

    /// A client is let in that waited.
    pub(super) fn let_in(&mut self, client: ClientId) {
        if let Some(wanting) = self.wanting.remove(&client) {
            self.sharing = wanting.sharing;
        }
        self.attached(client, Ok(()));
    }

    /// Tells a client who is in its way, when it has waited for a moment.
    pub(super) fn refuse_barred(&mut self, client: ClientId, by: NodeId) {
        if self.wanting.get(&client).is_some_and(|wanting| wanting.since.after(BARRED_PATIENCE) <= self.now) {
            self.wanting.remove(&client);
            self.attached(client, Err(AttachError::InUse(by)));
        }
    }

    /// When a client that cannot be let in is told so.
    pub(super) fn barred_due(&self) -> Option<Instant> {
        let due = self.wanting.values().map(|wanting| wanting.since.after(BARRED_PATIENCE));
        due.filter(|due| *due > self.now).min()
    }

    /// Ends the sessions of all clients: what they have not been answered is unknown to them. What of that was forwarded, or was to be, is
    /// given up first: it must not land over what they write when they come again (rule W7).
    pub(super) fn drop_clients(&mut self) {
        self.drop_forwarded();
        self.out.push(Command::DropClients);
        self.dropped += 1;
        self.clients.clear();
    }

    /// Whether every guest has answered since this one asked to be let in.
    fn may_enter(&mut self, entrant: Entrant) -> bool {
        let Some(reign) = &mut self.reign else { return false };
        let own = if let Entrant::Guest { peer, .. } = entrant { Some(peer) } else { None };
        let guests = &mut reign.guests;
        if let Some(&round) = guests.entrants.get(&entrant) {
            return guests.have_met(round, own);
        }
        guests.round += 1;
        let round = guests.round;
        let asked: Vec<usize> = guests.peers().filter(|at| Some(*at) != own).collect();
        if asked.is_empty() || mutated(Mutant::EnterUnmet) {
            return true;
        }
        guests.entrants.insert(entrant, round);
        for at in asked {
            self.send(at, Message::Meet { round });
        }
        false
    }

    /// Those that do not want to be let in any more.
    fn forget_entrants(&mut self) {
        let (wanting, visitors) = (&self.wanting, &self.visitors);
        let Some(reign) = &mut self.reign else { return };
        reign.guests.entrants.retain(|entrant, _| match *entrant {
            Entrant::Client(client) => wanting.contains_key(&client),
            Entrant::Guest { peer, session, wish } => {
                visitors.get(&peer).is_some_and(|visitor| (visitor.session, visitor.wish) == (session, wish))
            }
        });
    }

    /// Whether much is under way for clients and guests that are gone.
    fn has_many_orphans(&self) -> bool {
        let Some(reign) = &self.reign else { return false };
        let is_orphan = |pending: &Pending| match pending.asker {
            Asker::Client { client, .. } => !self.clients.contains(&client),
            Asker::Guest { peer } => !reign.guests.awaits(peer, pending.origin.as_ref()),
        };
        reign.requests.iter().filter(|(_, pending)| is_orphan(pending)).count() >= ORPHANS_MAX
    }
}
