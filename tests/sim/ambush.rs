//! Faults at the moment at which they hurt: a seed chooses what it waits for, and strikes when it happens.

use blkrep::wire::Message;

use super::world::{Happening, MS, World};

/// What is waited for, and what is done then.
#[derive(Debug, Clone)]
pub struct Ambush {
    /// The name of a message that arrives, or of something else that happens.
    pub wanted: &'static str,
    /// Of a hundred occasions, how many are taken.
    pub chance: u64,
    pub deed: Deed,
    /// When it may strike again.
    pub ready: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The node where it happens is killed.
    KillHere,
    /// The node that caused it is killed.
    KillThere,
    KillBoth,
    KillAll,
    /// Here first, there a moment later.
    OneAfterTheOther,
    Sever,
    Stop,
    /// The process gets no time for longer than a lease.
    Pause,
}

/// What can be waited for.
pub const OCCASIONS: &[&str] = &[
    "attached",
    "granted",
    "written",
    "flushed",
    "hello",
    "standing",
    "open",
    "report",
    "fenced",
    "leaving",
    "flush",
    "settled",
    "sync begin",
    "sync ready",
    "sync write",
    "hashes",
    "cool",
    "cooled",
    "admit",
    "admit stored",
    "record",
    "propose",
    "accepted",
    "serve",
    "serving",
    "not serving",
    "forward",
    "answer",
    "origin",
    "applied",
    "meet",
];

/// A message's name among the occasions.
pub fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "hello",
        Message::Standing(_) => "standing",
        Message::Open { .. } => "open",
        Message::Report(_) => "report",
        Message::Fenced { .. } => "fenced",
        Message::Leaving => "leaving",
        Message::Flush { .. } => "flush",
        Message::Settled { .. } => "settled",
        Message::SyncBegin => "sync begin",
        Message::SyncReady => "sync ready",
        Message::Write(write) if write.sync => "sync write",
        Message::Hashes { .. } => "hashes",
        Message::Cool { .. } => "cool",
        Message::Cooled { .. } => "cooled",
        Message::Admit { .. } => "admit",
        Message::AdmitStored { .. } => "admit stored",
        Message::Record { .. } => "record",
        Message::Propose { .. } => "propose",
        Message::Accepted { .. } => "accepted",
        Message::Serve { .. } => "serve",
        Message::Serving { .. } => "serving",
        Message::NotServing { .. } => "not serving",
        Message::Forward { .. } => "forward",
        Message::Answer { .. } => "answer",
        Message::Origin { .. } => "origin",
        Message::Applied { .. } => "applied",
        Message::Meet { .. } => "meet",
        _ => "",
    }
}

impl World {
    /// Something happens at a node, caused by another one, or by itself.
    pub fn spring(&mut self, what: &'static str, here: usize, there: usize) {
        let Some(ambush) = self.ambush.as_ref().filter(|a| a.wanted == what && a.ready <= self.now && !self.quiet) else {
            return;
        };
        let (chance, deed) = (ambush.chance, ambush.deed);
        if !self.rng.chance(chance) {
            return;
        }
        let ready = self.now + self.rng.between(300, 3_000) * MS;
        self.ambush.as_mut().expect("just found").ready = ready;
        self.say(|| format!("an ambush at {what:?}: {deed:?} at n{here}, n{there}"));
        let other = if here == there { (here + 1) % self.nodes.len() } else { there };
        match deed {
            Deed::KillHere => self.doom(here, 0),
            Deed::KillThere => self.doom(there, 0),
            Deed::KillBoth => [here, other].into_iter().for_each(|at| self.doom(at, 0)),
            Deed::KillAll => (0..self.nodes.len()).for_each(|at| self.doom(at, 0)),
            Deed::OneAfterTheOther => {
                self.doom(here, 0);
                let later = self.rng.between(20, 1_200) * MS;
                self.doom(other, later);
            }
            Deed::Sever if self.majority || self.manners.forks => self.sever(here, other, None),
            Deed::Sever => self.doom(there, 0),
            Deed::Stop => {
                self.soon((0, 2 * MS), Happening::Stop { at: there });
                let back = self.now + self.rng.between(100, 8_000) * MS;
                self.at(back, Happening::Restart { at: there });
            }
            Deed::Pause => {
                let time = self.rng.between(100, 1_500) * MS;
                self.pause(there, time);
            }
        }
    }

    fn doom(&mut self, at: usize, later: u64) {
        let power = self.rng.chance(65);
        let when = self.now + later + self.rng.below(3 * MS);
        self.at(when, Happening::Kill { at, power });
        let back = when + self.rng.between(1, 1_500) * MS;
        self.at(back, Happening::Restart { at });
    }
}
