//! Whole clusters, each in one thread and from one seed: the production engine, with disks, a network, an authority and clients that are made
//! here and can fail in every way that the seed asks for. Time is virtual; a seed always gives the same run.
//!
//!     cargo test --release --test sim -- --seeds 2000 --from 1     # many seeds
//!     cargo test --release --test sim -- --seed 17 --trace         # one, with a readable trace
//!     cargo test --release --test sim -- --from 500000             # from here on they are verified, too; row.rs has the other rows

#![expect(unreachable_pub, reason = "a test program has no users; pub says what its modules share")]

mod ambush;
mod authority;
mod brief;
mod chaos;
mod client;
mod disk;
mod holds;
mod invariants;
#[cfg(feature = "mutants")]
mod mutants;
mod network;
mod node;
mod operator;
mod oracle;
mod owner;
mod resolve;
mod rng;
mod row;
mod scenario;
mod sharing;
mod storage;
mod verify;
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// After so many failures there is enough to look at.
const FAILURES_MAX: usize = 10;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value =
        |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)).and_then(|v| v.parse::<u64>().ok());
    let trace = args.iter().any(|a| a == "--trace");
    #[cfg(feature = "mutants")]
    if args.iter().any(|a| a == "--mutants") {
        return mutants::run_all(args.iter().any(|a| a == "--all"));
    }
    #[cfg(feature = "mutants")]
    if let Some(name) = args.iter().position(|a| a == "--mutant").and_then(|at| args.get(at + 1)) {
        return mutants::run_one(name, value("--from"), value("--seeds"), value("--seed"), trace);
    }
    if let Some(seed) = value("--seed") {
        return match run(seed, trace) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                println!("seed {seed}: {why}");
                ExitCode::FAILURE
            }
        };
    }
    let (from, count) = (value("--from").unwrap_or(1), value("--seeds").unwrap_or(200));
    let seconds = value("--seconds").unwrap_or(u64::MAX);
    let kept = scenario::KEPT.iter().copied().filter(|_| value("--from").is_none());
    let began = Instant::now();
    std::panic::set_hook(Box::new(|_| {}));
    let share = |row: &row::Row| (row.from..).take(usize::try_from(count / row.share).unwrap_or(0));
    let rows = row::ROWS.iter().skip(1).filter(|_| value("--from").is_none());
    let seeds: Vec<u64> = kept.chain(from..from + count).chain(rows.flat_map(share)).collect();
    let (passed, failed) = run_all(&seeds, || began.elapsed().as_secs() >= seconds);
    println!("simulated clusters, seeds {from}.. in {:.1} s", began.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs seeds on all cores, in their order, until there are none, it is `late` or ten have failed: how many passed and failed.
fn run_all(seeds: &[u64], late: impl Fn() -> bool + Sync) -> (usize, usize) {
    let (next, passed, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let worker = || {
        while !late() && failed.load(Ordering::Relaxed) < FAILURES_MAX {
            let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match run(seed, false) {
                Ok(()) => passed.fetch_add(1, Ordering::Relaxed),
                Err(why) => {
                    println!("seed {seed}: {why}");
                    failed.fetch_add(1, Ordering::Relaxed)
                }
            };
        }
    };
    std::thread::scope(|scope| {
        (0..std::thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(worker)));
    });
    (passed.into_inner(), failed.into_inner())
}

/// Runs one seed. A panic in the engine is a failure of the seed like any other.
fn run(seed: u64, trace: bool) -> Result<(), String> {
    if trace {
        return scenario::run(seed, true);
    }
    std::panic::catch_unwind(|| scenario::run(seed, false)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}
