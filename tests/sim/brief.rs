//! Brief visits: clients come for a few requests and go, or fall silent for longer than an extent stays hot, while one replica is away for long and
//! others for a moment. What a reign tells once, and what its end takes for granted, meets every kind of absence many times in a run.
//!
//! Only in seeds of [rows](super::row) that say so.

use super::ambush::{Ambush, Deed};
use super::chaos::Fault;
use super::rng::Rng;
use super::world::MS;

/// The kinds of a seed: short absences, and two others.
pub fn kinds(rng: &mut Rng) -> Vec<Fault> {
    let others = [Fault::Kill, Fault::Stop, Fault::DiskHangs, Fault::Pause, Fault::CutOff];
    let mut draw = || others[usize::try_from(rng.below(others.len() as u64)).expect("a few")];
    vec![Fault::Sever, draw(), draw()]
}

/// What is waited for in most of the seeds: that extents cool, that a target is given something, that sessions begin.
pub fn ambush(rng: &mut Rng) -> Option<Ambush> {
    use Deed::{KillBoth, KillHere, KillThere, OneAfterTheOther, Pause, Sever};
    let occasions =
        ["cool", "cooled", "detached", "detached", "sync write", "sync write", "sync ready", "open", "open", "settled"];
    let deeds = [KillHere, KillThere, KillThere, KillBoth, OneAfterTheOther, Sever, Sever, Pause];
    let wanted = occasions[usize::try_from(rng.below(occasions.len() as u64)).expect("a few")];
    let deed = deeds[usize::try_from(rng.below(deeds.len() as u64)).expect("a few")];
    let chance = [10, 40, 100][usize::try_from(rng.below(3)).expect("three")];
    rng.chance(75).then_some(Ambush { wanted, chance, deed, ready: 0 })
}

/// How many steps a client stays.
pub fn steps(rng: &mut Rng) -> u64 {
    rng.between(2, 40)
}

/// How long a client falls silent after a step; mostly it does not.
pub fn silence(rng: &mut Rng) -> u64 {
    if rng.chance(1) { rng.between(4_500, 6_500) * MS } else { 0 }
}
