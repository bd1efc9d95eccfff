//! The replication protocol by itself, without the program: everything that can happen to a small cluster is visited, and in every
//! state what `src/docs/durability.md` promises is asked for. Then one rule at a time is left out, and a violation has to be found.
//!
//!     cargo test --release --test model                             # all configurations, all mutants
//!     cargo test --release --test model -- --mutant CoolUnflushed   # one, with the shortest way to the violation
//!     cargo test --release --test model -- --only three             # the configurations of that name

#![expect(unreachable_pub, reason = "a test program has no users; pub says what its modules share")]

mod alone;
mod alone_records;
mod cluster;
mod configurations;
mod faults;
mod follow;
mod membership;
mod promise;
mod promotion;
mod resync;
mod rules;
mod search;
mod settle;
mod show;
mod state;
mod symmetry;
mod writing;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use configurations::{ALL, Configuration, of};
use rules::{CASES, Case};
use search::Outcome;

/// What is searched: the rules as they are, or with one left out.
struct Job {
    configuration: Configuration,
    case: Option<&'static Case>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)).cloned();
    let (mutant, only) = (value("--mutant"), value("--only"));
    let began = Instant::now();
    let mut jobs: Vec<Job> = Vec::new();
    if mutant.is_none() {
        let chosen = ALL.iter().filter(|c| only.as_ref().is_none_or(|name| c.name().contains(name.as_str())));
        jobs.extend(chosen.map(|c| Job { configuration: *c, case: None }));
    }
    if only.is_none() {
        let chosen = CASES.iter().filter(|c| mutant.as_ref().is_none_or(|name| format!("{:?}", c.mutant) == *name));
        jobs.extend(chosen.map(|case| Job { configuration: of(case), case: Some(case) }));
    }
    let failed = run_all(&jobs, mutant.is_some());
    println!("the protocol by itself, in {:.1} s", began.elapsed().as_secs_f64());
    println!("{} passed, {failed} failed", jobs.len() - failed);
    if failed == 0 && !jobs.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Two searches at a time, each in a thread of its own; told in the order of the jobs. Returns how many went wrong.
fn run_all(jobs: &[Job], traced: bool) -> usize {
    let next = AtomicUsize::new(0);
    let told = Mutex::new(Told { lines: jobs.iter().map(|_| None).collect(), printed: 0, failed: 0 });
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { return };
                    let began = Instant::now();
                    let outcome = job.configuration.search();
                    let result = tell(job, &outcome, began.elapsed().as_secs_f64(), traced);
                    told.lock().expect("no thread panics").finish(at, result);
                }
            });
        }
    });
    told.into_inner().expect("no thread panics").failed
}

struct Told {
    lines: Vec<Option<String>>,
    printed: usize,
    failed: usize,
}

impl Told {
    fn finish(&mut self, at: usize, (right, text): (bool, String)) {
        self.failed += usize::from(!right);
        self.lines[at] = Some(text);
        while let Some(Some(text)) = self.lines.get(self.printed) {
            println!("{text}");
            self.printed += 1;
        }
    }
}

/// One line for a search, and the way to a violation that should not be there, or that was asked for. And whether all is well.
fn tell(job: &Job, outcome: &Outcome, seconds: f64, traced: bool) -> (bool, String) {
    let Outcome { states, transitions, depth, found, cut } = outcome;
    let place = job.configuration.name();
    let what = found.as_ref().map_or("nothing", |found| found.violation);
    let (right, mut line) = match job.case {
        None => {
            let line =
                format!("{place:28} {states:>9} states {transitions:>10} transitions, {depth:>3} steps deep, {seconds:5.1} s");
            (found.is_none() && !cut, if *cut { format!("{line}: not all of them") } else { line })
        }
        Some(case) => {
            let wanted = case.redundant.is_none();
            let name = format!("{:?}", case.mutant);
            let line = format!("{name:24} {} {place:28} {states:>9} states {seconds:5.1} s: {what}", case.rule);
            let why = case.redundant.map(|why| format!(" ({why})")).unwrap_or_default();
            (found.is_some() == wanted, line + &why)
        }
    };
    if !right {
        line += "   <-- WRONG";
    }
    if let Some(found) = found.as_ref().filter(|_| !right || job.case.is_none() || traced) {
        let case = job.case.map_or("the rules as they are", |case| case.what);
        line += &format!("\n  {case}: {}\n    {}", found.violation, found.trace.join("\n    "));
    }
    (right, line)
}

const THREADS: usize = 2;
