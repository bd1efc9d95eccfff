//! Other nodes' clients at a primary (rule W7).
//!
//! A node whose requests are taken is a guest. It keeps the role here as a client of this node does, except that a guest which is a
//! member and the only user gets the role itself: its clients' requests then need one journey less.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::units::{Instant, Sharing};
use crate::wire::{Forwarded, Message, Origin};

use super::core::{Engine, Stopping};
use super::entry::{ABSENCE, Entrant, Visitor, Wish};
use super::event::{AttachError, BufferId, Command, Failure, Request};
use super::mutant::{Mutant, mutated};
use super::reign::{Asker, Pending, Phase, State};

/// How long a node that asked to be served counts, unless it asks again.
const VISIT: Duration = Duration::from_millis(600);

/// How long a guest is the only user before it gets the role.
const LINGER: Duration = Duration::from_secs(1);

/// The guests of a reign, by their place in the list of peers.
#[derive(Debug, Default)]
pub(super) struct Guests {
    by_peer: BTreeMap<usize, Guest>,
    /// Those whose connection has broken, how their clients share, and until when they keep others out.
    lost: BTreeMap<usize, (Sharing, Instant)>,
    /// One of them is the only user, and a member, since then.
    alone_since: Option<Instant>,
    /// The role is being given up for this one.
    pub(super) heir: Option<usize>,
    /// Guests that were told to look for the next primary, and how their clients share. Until the reign is over they are in the way of
    /// others as before: should it go on, they come back.
    dismissed: BTreeMap<usize, Sharing>,
    /// The last round in which guests were asked to answer, and who is let in after which.
    pub(super) round: u64,
    pub(super) entrants: BTreeMap<Entrant, u64>,
}

#[derive(Debug)]
struct Guest {
    session: u64,
    /// Requests that are not answered.
    open: BTreeSet<u64>,
    /// The last round that it has answered.
    met: u64,
    /// With whom its clients share.
    sharing: Sharing,
}

impl Guests {
    pub(super) fn peers(&self) -> impl Iterator<Item = usize> {
        self.by_peer.keys().copied()
    }

    /// A guest besides `but` with whom nobody may be there who shares so, or one that was and will be.
    pub(super) fn another(&self, but: Option<usize>, sharing: Sharing) -> Option<usize> {
        let dismissed = self.dismissed.iter().map(|(at, theirs)| (*at, *theirs)).filter(|_| !mutated(Mutant::DismissedIsGone));
        let mut all = self.by_peer.iter().map(|(at, guest)| (*at, guest.sharing)).chain(dismissed);
        all.find(|(at, theirs)| Some(*at) != but && !theirs.suits(sharing)).map(|(at, _)| at)
    }

    /// Those of whom nothing is heard, and how their clients share.
    pub(super) fn lost(&self, now: Instant) -> impl Iterator<Item = (usize, Sharing)> {
        self.lost.iter().filter(move |(_, (_, until))| *until > now).map(|(at, (sharing, _))| (*at, *sharing))
    }

    /// When the next of them keeps nobody out any more.
    pub(super) fn lost_due(&self, now: Instant) -> Option<Instant> {
        self.lost.values().map(|(_, until)| *until).filter(|until| *until > now).min()
    }

    /// Whether all but one have answered a round.
    pub(super) fn have_met(&self, round: u64, but: Option<usize>) -> bool {
        self.by_peer.iter().all(|(at, guest)| Some(*at) == but || guest.met >= round)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }

    /// Whether a guest waits for the answer to a request.
    pub(super) fn awaits(&self, peer: usize, origin: Option<&Origin>) -> bool {
        let guest = self.by_peer.get(&peer);
        guest.zip(origin).is_some_and(|(guest, origin)| guest.session == origin.session && guest.open.contains(&origin.seq))
    }

    /// Whether an answer of this session is waited for.
    pub(super) fn answer(&mut self, peer: usize, origin: &Origin) -> bool {
        let guest = self.by_peer.get_mut(&peer).filter(|guest| guest.session == origin.session);
        guest.is_some_and(|guest| guest.open.remove(&origin.seq))
    }
}

impl Engine {
    /// Another node asks to have its clients' requests taken. Without a primary this node becomes it, if it can.
    pub(super) fn asked_to_serve(&mut self, at: usize, session: u64, wish: Wish) {
        if self.stopping != Stopping::No {
            return self.send(at, Message::NotServing { session, why: "that node stops".into() });
        }
        let visitor = Visitor { session, wish, until: self.now.after(VISIT) };
        match self.reign.as_ref().map(|r| r.phase) {
            Some(Phase::SteppingDown) if self.reign.as_ref().is_some_and(|r| r.guests.heir == Some(at)) => {}
            Some(_) => drop(self.visitors.insert(at, visitor)),
            None => match self.promotable() {
                Ok(_) => drop(self.visitors.insert(at, visitor)),
                Err(AttachError::InUse(_)) if self.change.is_some() => drop(self.visitors.insert(at, visitor)),
                Err(why) => {
                    let why = match why {
                        AttachError::NoData(why) => why,
                        AttachError::InUse(node) => format!("node {node} is primary"),
                        AttachError::NoQuorum => "no authority answered in time".into(),
                        AttachError::ShuttingDown => "that node stops".into(),
                    };
                    self.send(at, Message::NotServing { session, why });
                }
            },
        }
    }

    /// Visitors that have not asked again have gone elsewhere.
    pub(super) fn forget_visitors(&mut self) {
        let now = self.now;
        self.visitors.retain(|_, visitor| visitor.until > now);
    }

    /// Takes a node's requests from now on.
    pub(super) fn welcome(&mut self, at: usize, session: u64, wish: Wish) {
        let Some(reign) = &mut self.reign else { return };
        if reign.guests.by_peer.get(&at).is_some_and(|guest| guest.session != session) {
            // It has given up what it asked before.
            self.guest_gone(at);
        }
        let Some(reign) = &mut self.reign else { return };
        if !reign.guests.by_peer.contains_key(&at) {
            // An answer that was given may have been lost with the connection: those are asked for again.
            let answered = reign.flights.answered_keys();
            let of = |p: &Pending| match (p.asker, p.origin) {
                (Asker::Guest { peer }, Some(origin)) if peer == at && origin.session == session => Some(origin.seq),
                _ => None,
            };
            // What it asked before its connection broke and what was begun is answered when it is done.
            let waiting = reign.requests.iter().filter(|(key, _)| !answered.contains(key));
            let open = waiting.filter_map(|(_, pending)| of(pending)).collect();
            // What it forwards from now on is of clients that are there.
            let met = reign.guests.round;
            reign.guests.by_peer.insert(at, Guest { session, open, met, sharing: wish.sharing });
        }
        reign.guests.lost.remove(&at);
        reign.guests.dismissed.remove(&at);
        let Wish { entry, sharing, .. } = wish;
        if let Some(guest) = reign.guests.by_peer.get_mut(&at) {
            guest.sharing = sharing;
        }
        let memory = self.applied.memory;
        // That this node is primary is heard before what follows from it.
        self.announce();
        self.send(at, Message::Serving { session, memory, entry, sharing });
    }

    /// A guest has answered: all that it forwarded before has arrived.
    pub(super) fn met(&mut self, at: usize, round: u64) {
        if let Some(guest) = self.reign.as_mut().and_then(|r| r.guests.by_peer.get_mut(&at)) {
            guest.met = guest.met.max(round);
        }
    }

    /// A guest's request. One that is being done is not begun again; one that was done is only answered.
    pub(super) fn forwarded(&mut self, at: usize, origin: Origin, what: Forwarded, payload: Option<BufferId>) {
        let serving = self.reign.as_mut().filter(|r| r.phase == Phase::Serving);
        let guest = serving.and_then(|r| r.guests.by_peer.get_mut(&at)).filter(|guest| guest.session == origin.session);
        let request = match what {
            Forwarded::Read { volume, offset, len } => payload.map(|buffer| Request::Read { volume, offset, len, buffer }),
            Forwarded::Write { volume, offset, len, fua } => {
                payload.map(|buffer| Request::Write { volume, offset, len, buffer, fua })
            }
            Forwarded::Zero { range, unmap, fua } => Some(Request::Zero { range, unmap, fua }),
            Forwarded::Flush => Some(Request::Flush),
        };
        let Some(guest) = guest else {
            self.out.extend(payload.map(Command::Release));
            return;
        };
        let Some(request) = request else {
            // There was no memory for what it writes or reads.
            self.send(at, Message::Busy { session: origin.session, seq: origin.seq });
            return;
        };
        if !guest.open.insert(origin.seq) {
            self.out.extend(payload.map(Command::Release));
            return;
        }
        let done = self.applied.knows(&origin) && !mutated(Mutant::ForwardedTwice);
        let asker = Asker::Guest { peer: at };
        let pending = Pending { asker, origin: Some(origin), done, request, state: State::Waiting, holds: false };
        let Some(reign) = &mut self.reign else { return };
        let key = reign.requests.insert(pending);
        self.enter(key);
    }

    /// A node is gone, or needs nothing more: what it asked for and was not begun is dropped. It sends that again, wherever it is served.
    pub(super) fn guest_gone(&mut self, at: usize) {
        self.visitors.remove(&at);
        if let Some(reign) = &mut self.reign {
            reign.guests.by_peer.remove(&at);
            reign.guests.dismissed.remove(&at);
            self.drop_waiting(|pending| matches!(pending.asker, Asker::Guest { peer } if peer == at));
        }
    }

    /// A node's connection has broken. Its clients are there still, and the next moment it may be back: who waits for them to go, waits
    /// for as long as a silent node is waited for, but is let in before its own patience ends.
    pub(super) fn guest_lost(&mut self, at: usize) {
        let until = self.now.after(self.settings.timeouts.peer_silent.min(ABSENCE));
        let Some(reign) = &mut self.reign else { return };
        let guests = &mut reign.guests;
        let sharing = guests.by_peer.get(&at).map(|guest| guest.sharing).or_else(|| guests.dismissed.get(&at).copied());
        if let Some(sharing) = sharing.filter(|sharing| *sharing != Sharing::Shared) {
            guests.lost.insert(at, (sharing, until));
        }
    }

    pub(super) fn unserved(&mut self, at: usize, session: u64) {
        if let Some(reign) = &mut self.reign {
            reign.guests.dismissed.remove(&at);
            if reign.guests.by_peer.get(&at).is_some_and(|guest| guest.session == session) {
                self.guest_gone(at);
            }
        }
        if self.visitors.get(&at).is_some_and(|visitor| visitor.session == session) {
            self.visitors.remove(&at);
        }
    }

    /// The role is given up: guests have to look for the next primary.
    pub(super) fn dismiss_guests(&mut self) {
        let guests = self.reign.as_mut().map(|r| std::mem::take(&mut r.guests.by_peer)).unwrap_or_default();
        for (at, Guest { session, sharing, .. }) in guests {
            if let Some(reign) = &mut self.reign {
                reign.guests.dismissed.insert(at, sharing);
            }
            // What was begun is answered before this is said, or asked again.
            self.drop_waiting(|pending| matches!(pending.asker, Asker::Guest { peer } if peer == at));
            self.send(at, Message::NotServing { session, why: String::new() });
        }
    }

    /// The guest that should have the role: the only user, with a replica that has everything, for a while.
    pub(super) fn consider_heir(&mut self) -> Option<usize> {
        let syncing = self.is_syncing();
        let users = !self.clients.is_empty() || !self.wanting.is_empty() || !self.visitors.is_empty();
        let record = self.record.as_ref()?;
        let reign = self.reign.as_ref()?;
        let only = match (reign.guests.by_peer.len(), reign.guests.by_peer.keys().next()) {
            (1, Some(&at)) => Some(at),
            _ => None,
        };
        let fit = only.filter(|&at| self.peers[at].data && self.peers[at].is_member_of(record));
        let fit = fit.filter(|_| {
            !users
                && !syncing
                && !self.has_hold()
                && !self.is_verifying()
                && self.change.is_none()
                && reign.phase == Phase::Serving
        });
        let now = self.now;
        let guests = &mut self.reign.as_mut()?.guests;
        if fit.is_none() {
            guests.alone_since = None;
            return None;
        }
        let since = *guests.alone_since.get_or_insert(now);
        fit.filter(|_| since.after(LINGER) <= now)
    }

    /// When a guest that is alone gets the role.
    pub(super) fn heir_due(&self) -> Option<Instant> {
        Some(self.reign.as_ref()?.guests.alone_since?.after(LINGER))
    }

    /// Tells whoever asked: a client here, or a guest. `read` is what was read for a guest.
    pub(super) fn tell(&mut self, asker: Asker, origin: Option<Origin>, result: Result<(), Failure>, read: Option<BufferId>) {
        match asker {
            Asker::Client { id, .. } => self.out.push(Command::Complete { id, result }),
            Asker::Guest { peer } => {
                let Some(origin) = origin else { return };
                // What this node could not do because it is not primary any more, another one will.
                let given_up = result == Err(Failure::ShuttingDown);
                let awaited = self.reign.as_mut().is_some_and(|r| r.guests.answer(peer, &origin));
                if awaited && !given_up {
                    let (session, seq) = (origin.session, origin.seq);
                    self.send_with(peer, Message::Answer { session, seq, result }, read.filter(|_| result.is_ok()));
                }
            }
        }
    }
}
