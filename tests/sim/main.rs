//! Whole clusters in one thread, from one seed: the production engine, with disks, a network, an authority and clients that are made
//! here and can fail in every way that the seed asks for. Time is virtual; a seed always gives the same run.
//!
//!     cargo test --release --test sim -- --seeds 2000 --from 1     # many seeds
//!     cargo test --release --test sim -- --seed 17 --trace         # one, with a readable trace
//!     cargo test --release --test sim -- --from 1000000            # seeds from a million on take snapshots

#![expect(unreachable_pub, reason = "a test program has no users; pub says what its modules share")]

mod ambush;
mod authority;
mod chaos;
mod client;
mod disk;
mod holds;
mod invariants;
#[cfg(feature = "mutants")]
mod mutants;
mod network;
mod node;
mod oracle;
mod owner;
mod rng;
mod scenario;
mod storage;
mod world;

use std::process::ExitCode;
use std::time::Instant;

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
    let (mut passed, mut failed) = (0, 0);
    std::panic::set_hook(Box::new(|_| {}));
    let held = (holds::FROM..).take(if value("--from").is_none() { usize::try_from(count / 4).unwrap_or(0) } else { 0 });
    for seed in kept.chain(from..from + count).chain(held) {
        if began.elapsed().as_secs() >= seconds {
            break;
        }
        match run(seed, false) {
            Ok(()) => passed += 1,
            Err(why) => {
                failed += 1;
                println!("seed {seed}: {why}");
                if failed >= 10 {
                    break;
                }
            }
        }
    }
    println!("simulated clusters, seeds {from}.. in {:.1} s", began.elapsed().as_secs_f64());
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
