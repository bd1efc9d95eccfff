//! What is due after an event, whatever that was.

use super::core::{Engine, Stopping};
use super::event::Command;
use super::link::Links;
use super::reign::Phase;

/// How often a look may follow a look. Each brings the resource a step further, and there are fewer steps than this between two
/// that need an event: the bound is there so that two looks which undo each other cost a pass, not the thread.
const LOOKS: usize = 16;

/// How far the resource is, as far as looking at it can change that without a word to anybody.
#[derive(PartialEq, Eq)]
struct Stage {
    stopping: Stopping,
    reign: Option<(u64, Phase, bool)>,
    /// Whether a round of flushes is wanted, and how many requests wait for one.
    flushes: (bool, usize),
    changing: bool,
    verifying: bool,
    promoting: bool,
    /// Whether there is a hold, and whether it lets no write begin.
    held: (bool, bool),
    starved: bool,
    hot: u64,
    ready: usize,
}

impl Engine {
    /// Does what is due, until nothing is. It is called after every event, so that no event has to know what else it may have
    /// made possible; and a look may make possible what an earlier one of the same pass would have done. One pass alone loses a
    /// wake-up: no event need ever follow the one that it was left for.
    pub(super) fn consider(&mut self, links: &Links) {
        for _ in 0..LOOKS {
            let (stage, told) = (self.stage(), self.out.len());
            self.look(links);
            // A lease is asked for by every look that finds none: that makes nothing possible before its answer is there.
            let acted = self.out[told..].iter().any(|command| !matches!(command, Command::AskLease(_)));
            if !acted && self.stage() == stage {
                return;
            }
        }
    }

    /// What a look changes without a command.
    fn stage(&self) -> Stage {
        let reign = self.reign.as_ref();
        Stage {
            stopping: self.stopping,
            reign: reign.map(|r| (r.number, r.phase, r.equal)),
            flushes: reign.map_or((false, 0), |r| (r.flushes.wanted, r.flushes.waiting.len())),
            changing: self.change.is_some(),
            verifying: self.is_verifying(),
            promoting: self.is_promoting(),
            held: (self.has_hold(), self.holds_writes()),
            starved: self.starved_since.is_some(),
            hot: self.store.as_ref().map_or(0, |s| s.activity.hot()),
            ready: self.ready.len(),
        }
    }

    /// Looks at the whole once and does what is due.
    fn look(&mut self, links: &Links) {
        self.consider_reshape();
        self.consider_discard(links);
        self.consider_follow();
        self.consider_outdated();
        self.refuse_impatient();
        self.forget_visitors();
        if self.reign.is_some() {
            self.consider_reign(links);
        } else {
            self.consider_promotion();
            self.consider_forward();
        }
        self.consider_promoting();
        self.consider_hold();
        self.consider_verify();
        self.consider_change(links);
        self.consider_no_quorum();
        self.consider_stop();
        self.write_activity(links);
        self.announce();
    }
}
