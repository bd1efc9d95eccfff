//! The test of the tests: every deliberate bug of [`Mutant`] has to be found.
//!
//!     cargo test --release --features mutants --test sim -- --mutants             # all of them, in a process each
//!     cargo test --release --features mutants --test sim -- --mutant SkipLeaseWait --seeds 5000
//!     cargo test --release --features mutants --test sim -- --mutant SkipLeaseWait --seed 17 --trace
//!
//! A mutant names the seed that found it when the table was made, which is tried first; should a change of the simulator have moved it, it
//! is searched for. It has to be caught by a promise that was broken: that nothing goes on any more has not shown that data is at stake.

use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use blkrep::engine::{Mutant, choose};

use super::row::{self, BRIEF, FORKED, HELD, SHARED, VERIFIED};

/// The mutants that have to be found, each with the seed that is tried first.
const TABLE: &[(Mutant, u64)] = &[
    (Mutant::AckOwnWrite, 1),
    (Mutant::FlushSkipsOwnDisk, 2),
    (Mutant::FuaIsWritten, 1),
    (Mutant::FlushOvertakes, 9),
    (Mutant::FlushJoinsLate, 9),
    (Mutant::SendCold, 14),
    (Mutant::ApplyCold, 2),
    (Mutant::WritesOverlap, 1),
    (Mutant::ReadsOvertake, 16),
    (Mutant::CoolUnflushed, 23),
    (Mutant::CoolWithoutBits, 16),
    (Mutant::NotSentAgain, 5),
    (Mutant::ObeyAnybody, 57),
    (Mutant::ReadUnleased, 70),
    (Mutant::CompleteBeforeEvicted, 8),
    (Mutant::TrustCrashed, 45),
    (Mutant::MemberByName, 2),
    (Mutant::LastOfSome, 99),
    (Mutant::AdmitDirty, 8),
    (Mutant::AdmitUnflushed, 193),
    (Mutant::AdmitEmptyHanded, 4),
    (Mutant::PromoteAnybody, 1),
    (Mutant::SettleWritten, 29),
    (Mutant::ChunksCross, 16),
    (Mutant::PartialBlocks, 1),
    (Mutant::BitmapServesAll, 38),
    (Mutant::HotIsCleanForAbsent, 4),
    (Mutant::ForkByNumber, 80),
    (Mutant::CoolEarly, 132),
    (Mutant::CoolOwnEarly, 16),
    (Mutant::ReportNothing, 58),
    (Mutant::WindowNotStored, 976),
    (Mutant::CoolWithoutWindows, 988),
    (Mutant::OwnWriteFailureIgnored, 97),
    (Mutant::TargetBeforeMembers, BRIEF.from + 301),
    (Mutant::HoldUndrained, HELD.from + 5),
    (Mutant::HoldSkipsVolume, HELD.from),
    (Mutant::HoldNeverEnds, HELD.from),
    (Mutant::HoldAlwaysWhole, HELD.from + 8),
    (Mutant::VerifyCrosses, VERIFIED.from + 1),
    (Mutant::RepairOutvoted, VERIFIED.from + 4),
    (Mutant::RepairForgotten, VERIFIED.from + 1),
    (Mutant::CoolWithoutTheAway, BRIEF.from + 570),
    (Mutant::AdmitUnstored, BRIEF.from + 47),
    (Mutant::BitsAtRequest, BRIEF.from + 5),
    (Mutant::UnknownIsNo, BRIEF.from + 280),
    (Mutant::FlushMembersOnly, BRIEF.from + 34),
    (Mutant::DeadRequestsLive, BRIEF.from + 2),
    (Mutant::ReportUndrained, BRIEF.from + 80),
    (Mutant::ForgetWindow, BRIEF.from + 43),
    (Mutant::ProposedNotAwaited, BRIEF.from + 1780),
    (Mutant::AdmitWithoutWindows, BRIEF.from + 646),
    (Mutant::OwnMemoryIgnored, BRIEF.from + 276),
    (Mutant::ReportsIgnored, BRIEF.from + 581),
    (Mutant::HotIsClean, BRIEF.from + 31),
    (Mutant::EqualNotInWindow, BRIEF.from + 43),
    (Mutant::EvictOneByOne, BRIEF.from + 1307),
    (Mutant::StoredForAnother, BRIEF.from + 6008),
    (Mutant::BothDiscard, FORKED.from + 251),
    (Mutant::ForwardedTwice, 42),
    (Mutant::PartOfListCounts, 3207),
    (Mutant::AppliedForgotten, 103),
    (Mutant::OriginIgnored, 103),
    (Mutant::EnterUnmet, 7),
    (Mutant::ForwardAnsweredEarly, 1),
    (Mutant::BarNobody, SHARED.from + 3),
    (Mutant::FailedFlightsLeave, SHARED.from + 288),
    (Mutant::ApartGoesOn, SHARED.from + 3168),
];

/// Mutants for which no seed is known yet: `--mutants --all` looks for them, too. One that stays alive for long means that a fault or an
/// invariant is missing. (What is in neither list is for the engine's own tests.)
const SOUGHT: &[Mutant] = &[
    Mutant::WriteFailureIgnored,
    Mutant::FlushFailureIgnored,
    Mutant::OwnWordCounts,
    Mutant::PromoteUndrained,
    Mutant::CoolDuringAdmission,
    Mutant::StepDownUnflushed,
    Mutant::NeverDeposed,
    Mutant::ReadyEarly,
    Mutant::ServeUnequal,
    Mutant::LogFailureIgnored,
    Mutant::AbandonStored,
    Mutant::CoolAfterDiskless,
    Mutant::CoolAgainWritten,
    Mutant::HearAnybody,
    Mutant::LeaseFromPong,
    Mutant::LeaseBeforeSession,
    Mutant::SkipLeaseWait,
    Mutant::RestartForgetsLease,
    Mutant::CloseEndsLease,
    Mutant::BeginUndrained,
    Mutant::OtherLifeAnswers,
    Mutant::LastPrimaryWhatever,
    Mutant::RestartNotRenewed,
    Mutant::AdmitWithoutBases,
    Mutant::ForgetBeforeAdmission,
    Mutant::BaseOfTheNode,
    Mutant::FlushUnequal,
    Mutant::EqualUnflushed,
    Mutant::UnitedUnstored,
    Mutant::WindowNotFolded,
    Mutant::ClearWhenSent,
    Mutant::NeverInconsistent,
    Mutant::BitsNotReported,
    Mutant::OldReignGoesOn,
    Mutant::NeverLatched,
    Mutant::LatchUnstored,
    Mutant::LatchForgotten,
    Mutant::GrantEachOther,
    Mutant::NeverWithdrawn,
    Mutant::NeverOutdated,
    Mutant::AdmittedKnowsFirst,
    Mutant::BystanderStays,
    Mutant::NarrowSession,
    Mutant::HoldUnequal,
    Mutant::FencedWithoutWindow,
    Mutant::UnheardIsUnclean,
    Mutant::RefuseKnown,
    Mutant::PromoteUnstored,
    Mutant::VerifyUnequal,
    Mutant::AppliedUnequal,
    Mutant::DismissedIsGone,
    Mutant::SentAgainToAnybody,
    Mutant::GuestsDecide,
    Mutant::AbortedChunksLeave,
    Mutant::HeldOvertaken,
    Mutant::TwoOfThree,
    Mutant::AnswerBefore,
    Mutant::BystandersShare,
];

/// How many seeds a mutant may survive, from the first that is tried.
const SEARCH: u64 = 2_000;

/// Runs one mutant. How many seeds it took, which one it was, and the first line of what was found are one line of the output.
pub fn run_one(name: &str, from: Option<u64>, count: Option<u64>, seed: Option<u64>, trace: bool) -> ExitCode {
    let Some((mutant, first)) = all().find(|(m, _)| format!("{m:?}") == name) else {
        println!("there is no mutant {name:?}; there are: {:?}", all().map(|(m, _)| m).collect::<Vec<_>>());
        return ExitCode::FAILURE;
    };
    choose(Some(mutant));
    if let Some(seed) = seed {
        println!("{:?}", super::run(seed, trace));
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let (from, count) = (from.unwrap_or(first), count.unwrap_or(SEARCH));
    let row = row::of(from).from.max(1);
    for (tried, seed) in std::iter::once(from).chain(row..row + count - 1).enumerate() {
        let Err(why) = super::run(seed, false) else { continue };
        if !is_stall(&why) {
            let line: String = why.lines().next().unwrap_or_default().chars().take(150).collect();
            println!("found {} {seed} {line}", tried + 1);
            return ExitCode::SUCCESS;
        }
    }
    println!("survived {count} seeds from {from}");
    ExitCode::FAILURE
}

fn all() -> impl Iterator<Item = (Mutant, u64)> {
    TABLE.iter().copied().chain(SOUGHT.iter().map(|m| (*m, if *m == Mutant::VerifyUnequal { VERIFIED.from } else { 1 })))
}

fn is_stall(why: &str) -> bool {
    why.starts_with("did not converge") || why.contains("could not be read in the end")
}

/// Runs all of them, as many at a time as there are cores, and prints the table.
pub fn run_all(sought: bool) -> ExitCode {
    let mutants: Vec<Mutant> = all().map(|(m, _)| m).take(if sought { usize::MAX } else { TABLE.len() }).collect();
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<(usize, bool, String)>> = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(at) else { return };
                    let (ok, text) = in_a_process(*mutant);
                    rows.lock().expect("a table").push((at, ok, text));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("a table");
    rows.sort_unstable();
    for (at, ok, text) in &rows {
        println!("{:6} {:26} {text}", if *ok { "found" } else { "ALIVE" }, format!("{:?}", mutants[*at]));
    }
    let alive = rows.iter().filter(|(_, ok, _)| !ok).count();
    println!("{} mutants in {:.1} s", mutants.len(), began.elapsed().as_secs_f64());
    println!("{} passed, {alive} failed", rows.len() - alive);
    if alive == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn in_a_process(mutant: Mutant) -> (bool, String) {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args(["--mutant", &format!("{mutant:?}")]).stdin(Stdio::null()).output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned();
            (output.status.success(), text.strip_prefix("found ").unwrap_or(&text).to_owned())
        }
        Err(why) => (false, why.to_string()),
    }
}
