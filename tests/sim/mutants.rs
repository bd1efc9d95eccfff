//! The test of the tests: every deliberate bug of [`Mutant`] has to be found.
//!
//!     cargo test --release --features mutants --test sim -- --mutants             # all of them, in a process each
//!     cargo test --release --features mutants --test sim -- --mutant SkipLeaseWait --seeds 5000
//!     cargo test --release --features mutants --test sim -- --mutant SkipLeaseWait --seed 17 --trace
//!
//! A mutant names the seed that found it when the table was made, which is tried first; should a change of the simulator have moved it, it
//! is searched for. One that is claimed to be dangerous has to be caught by a promise that was broken, not because nothing went on.

use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use blkrep::engine::{Mutant, choose};

/// What a mutant breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// A promise: data is lost, stale or different, or could be after the next fault.
    Promise,
    /// Progress: something waits for ever.
    Progress,
}
use Harm::{Progress, Promise};

/// The mutants, the seed to begin with, and the harm that each has to do.
const TABLE: &[(Mutant, u64, Harm)] = &[
    (Mutant::AckOwnWrite, 1, Promise),
    (Mutant::FlushMembersOnly, 1, Promise),
    (Mutant::FlushSkipsOwnDisk, 1, Promise),
    (Mutant::FuaIsWritten, 1, Promise),
    (Mutant::FlushOvertakes, 1, Promise),
    (Mutant::FlushJoinsLate, 1, Promise),
    (Mutant::SendCold, 1, Promise),
    (Mutant::ApplyCold, 1, Promise),
    (Mutant::LogFailureIgnored, 1, Promise),
    (Mutant::OwnWriteFailureIgnored, 1, Promise),
    (Mutant::WriteFailureIgnored, 1, Promise),
    (Mutant::FlushFailureIgnored, 1, Promise),
    (Mutant::AbandonStored, 1, Promise),
    (Mutant::AbandonOwn, 1, Progress),
    (Mutant::OwnWordCounts, 1, Promise),
    (Mutant::KeepSelf, 1, Progress),
    (Mutant::AskTheSameAgain, 1, Progress),
    (Mutant::WritesOverlap, 1, Promise),
    (Mutant::ReadsOvertake, 1, Promise),
    (Mutant::CoolUnflushed, 1, Promise),
    (Mutant::CoolWithoutBits, 1, Promise),
    (Mutant::CoolWithoutWindows, 1, Promise),
    (Mutant::CoolAfterDiskless, 1, Promise),
    (Mutant::CoolOwnEarly, 1, Promise),
    (Mutant::CoolEarly, 1, Promise),
    (Mutant::NotSentAgain, 1, Promise),
    (Mutant::DeadRequestsLive, 1, Promise),
    (Mutant::ObeyAnybody, 1, Promise),
    (Mutant::HearAnybody, 1, Promise),
    (Mutant::ReadUnleased, 1, Promise),
    (Mutant::LeaseFromPong, 1, Promise),
    (Mutant::LeaseBeforeSession, 1, Promise),
    (Mutant::SkipLeaseWait, 1, Promise),
    (Mutant::RestartForgetsLease, 1, Promise),
    (Mutant::CloseEndsLease, 1, Promise),
    (Mutant::ReportUndrained, 1, Promise),
    (Mutant::PromoteUndrained, 1, Promise),
    (Mutant::CompleteBeforeEvicted, 1, Promise),
    (Mutant::BitsAtRequest, 1, Promise),
    (Mutant::ForgetWindow, 1, Promise),
    (Mutant::ProposedNotAwaited, 1, Promise),
    (Mutant::UnknownIsNo, 1, Promise),
    (Mutant::TrustCrashed, 1, Promise),
    (Mutant::MemberByName, 1, Promise),
    (Mutant::LastOfSome, 1, Promise),
    (Mutant::LastPrimaryWhatever, 1, Promise),
    (Mutant::RestartNotRenewed, 1, Promise),
    (Mutant::AdmitDirty, 1, Promise),
    (Mutant::AdmitUnflushed, 1, Promise),
    (Mutant::AdmitEmptyHanded, 1, Promise),
    (Mutant::AdmitWithoutWindows, 1, Promise),
    (Mutant::AdmitUnstored, 1, Promise),
    (Mutant::AdmitWithoutBases, 1, Promise),
    (Mutant::ReportNothing, 1, Promise),
    (Mutant::ForgetBeforeAdmission, 1, Promise),
    (Mutant::BitmapServesAll, 1, Promise),
    (Mutant::BaseOfTheNode, 1, Promise),
    (Mutant::SlotKeepsBase, 1, Promise),
    (Mutant::BelieveStrangers, 1, Promise),
    (Mutant::PromoteAnybody, 1, Promise),
    (Mutant::OwnMemoryIgnored, 1, Promise),
    (Mutant::ReportsIgnored, 1, Promise),
    (Mutant::ServeUnequal, 1, Promise),
    (Mutant::FlushUnequal, 1, Promise),
    (Mutant::SettleWritten, 1, Promise),
    (Mutant::EqualUnflushed, 1, Promise),
    (Mutant::StepDownUnflushed, 1, Promise),
    (Mutant::UnitedUnstored, 1, Promise),
    (Mutant::HotIsClean, 1, Promise),
    (Mutant::HotIsCleanForAbsent, 1, Promise),
    (Mutant::NeverDeposed, 1, Promise),
    (Mutant::WindowNotStored, 1, Promise),
    (Mutant::WindowNotFolded, 1, Promise),
    (Mutant::EqualNotInWindow, 1, Promise),
    (Mutant::ClearWhenSent, 1, Promise),
    (Mutant::ChunksCross, 1, Promise),
    (Mutant::PartialBlocks, 1, Promise),
    (Mutant::NeverInconsistent, 1, Promise),
    (Mutant::ReadyEarly, 1, Promise),
    (Mutant::BitsNotReported, 1, Promise),
    (Mutant::OldReignGoesOn, 1, Promise),
    (Mutant::ForkByNumber, 1, Promise),
    (Mutant::NeverLatched, 1, Promise),
    (Mutant::LatchUnstored, 1, Promise),
    (Mutant::GrantEachOther, 1, Promise),
    (Mutant::NeverWithdrawn, 1, Progress),
    (Mutant::NeverOutdated, 1, Promise),
    (Mutant::AdmittedKnowsFirst, 1, Promise),
    (Mutant::BystanderStays, 1, Progress),
    (Mutant::LeavingForgotten, 1, Progress),
];

/// How many seeds a mutant may survive, from the first that is tried.
const SEARCH: u64 = 2_000;

/// Runs one mutant. The kind of harm and the first line of what was found are on one line of the output.
pub fn run_one(name: &str, from: Option<u64>, count: Option<u64>, seed: Option<u64>, trace: bool) -> ExitCode {
    let Some(&(mutant, first, harm)) = TABLE.iter().find(|(m, ..)| format!("{m:?}") == name) else {
        println!("there is no mutant {name:?}; there are: {:?}", TABLE.iter().map(|(m, ..)| *m).collect::<Vec<_>>());
        return ExitCode::FAILURE;
    };
    choose(Some(mutant));
    if let Some(seed) = seed {
        println!("{:?}", super::run(seed, trace));
        return ExitCode::SUCCESS;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let (from, count) = (from.unwrap_or(first), count.unwrap_or(SEARCH));
    let others = std::iter::once(from).chain(1..count);
    for (tried, seed) in others.enumerate() {
        let Err(why) = super::run(seed, false) else { continue };
        let found = kind_of(&why);
        // What merely stands still has not shown that a promise is at stake.
        if harm == Progress || found == Promise {
            let line: String = why.lines().next().unwrap_or_default().chars().take(150).collect();
            println!("found {} {seed} {line}", tried + 1);
            return ExitCode::SUCCESS;
        }
    }
    println!("survived {count} seeds from {from}");
    ExitCode::FAILURE
}

fn kind_of(why: &str) -> Harm {
    let stall = why.starts_with("did not converge") || why.contains("could not be read in the end");
    if stall { Progress } else { Promise }
}

/// Runs all of them, two at a time, and prints the table.
pub fn run_all() -> ExitCode {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<(usize, bool, String)>> = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((mutant, ..)) = TABLE.get(at) else { return };
                    let (ok, text) = in_a_process(*mutant);
                    rows.lock().expect("a table").push((at, ok, text));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("a table");
    rows.sort_unstable();
    for (at, ok, text) in &rows {
        println!("{:6} {:26} {text}", if *ok { "found" } else { "ALIVE" }, format!("{:?}", TABLE[*at].0));
    }
    let alive = rows.iter().filter(|(_, ok, _)| !ok).count();
    println!("{} mutants in {:.1} s", TABLE.len(), began.elapsed().as_secs_f64());
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
