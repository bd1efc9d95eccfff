//! Running LVM's command line: never a prompt, always a time-out, and errors that can be tried by hand.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::filter;
use super::report::VolumeGroup;
use super::reports::{Age, Reports, Share};
use crate::{CommandFailure, Outcome, PoolError};

/// How LVM's commands are run.
#[derive(Clone, Debug)]
pub struct LvmOptions {
    /// The program `lvm`; by default it is looked for in `$PATH` and where it usually is.
    pub program: Option<PathBuf>,
    /// Variables added to its environment, such as `LVM_SYSTEM_DIR`.
    pub environment: Vec<(OsString, OsString)>,
    /// How long a report may take.
    pub report_timeout: Duration,
    /// For how long what a report has told is good enough for whoever changes nothing.
    pub report_lifetime: Duration,
    /// How long a change may take. One that is stopped half way is dangerous: this is for what hangs, not for what is slow.
    pub change_timeout: Duration,
    /// How many bytes of a volume are zeroed between two notes of how far that is, a multiple of 4096. After a restart at most so many
    /// are zeroed again.
    pub zero_lap: u64,
}

impl Default for LvmOptions {
    fn default() -> Self {
        Self {
            program: None,
            environment: Vec::new(),
            report_timeout: Duration::from_secs(60),
            report_lifetime: Duration::from_secs(1),
            change_timeout: Duration::from_secs(300),
            // Minutes of a slow disk.
            zero_lap: 32 << 30,
        }
    }
}

/// LVM's command line on this machine.
#[derive(Debug)]
pub(super) struct Lvm {
    program: PathBuf,
    pub(super) options: LvmOptions,
    /// Whether LVM may talk to device-mapper.
    mapper: bool,
    filter: filter::Place,
    /// The program has run once.
    opened: bool,
    reports: Arc<Reports>,
}

/// How long a process that was told to end may take before it is made to. In the middle of a change LVM puts signals off, because
/// dying there could leave volumes suspended.
const GRACE: Duration = Duration::from_secs(5);

impl Lvm {
    pub(super) fn new(options: LvmOptions, mapper: bool) -> Result<Self, PoolError> {
        let program = options.program.clone().or_else(find_program).ok_or(PoolError::LvmMissing)?;
        let mut lvm = Self { program, options, mapper, filter: filter::Place::default(), opened: false, reports: Arc::default() };
        // Fails when neither is configured, which is what is usual.
        let timeout = lvm.options.report_timeout;
        let configured = lvm.output("lvmconfig", &["devices/filter", "devices/global_filter"], timeout)?;
        lvm.filter = filter::Place::beside(&String::from_utf8_lossy(&configured.stdout));
        lvm.reports = Reports::of(format!("{:?} {:?} {mapper} {:?}", lvm.program, lvm.options.environment, lvm.filter));
        lvm.opened = true;
        Ok(lvm)
    }

    /// Lets a volume group be in the report that all pools share, until the answer is dropped.
    pub(super) fn share(&self, name: &str) -> Share {
        self.reports.share(name)
    }

    /// A volume group that is shared.
    pub(super) fn shared_group(&self, name: &str, age: Age) -> Result<VolumeGroup, PoolError> {
        self.reports.group(self, name, age)
    }

    /// A volume group at this moment.
    pub(super) fn volume_group(&self, name: &str) -> Result<VolumeGroup, PoolError> {
        let args: Vec<_> = VolumeGroup::ARGUMENTS.split(' ').chain(["--", name]).collect();
        let args = self.arguments(&args);
        let output = self.output("fullreport", &args, self.options.report_timeout)?;
        if !output.status.success() {
            let failure = self.failure("fullreport", &args, &output);
            // The status is the same for a group that is not there and for one that could not be looked for.
            return Err(match failure.stderr.contains(&format!("Volume group \"{name}\" not found")) {
                true => PoolError::NoVolumeGroup { volume_group: name.to_owned() },
                false => failure.into(),
            });
        }
        VolumeGroup::parse(&output.stdout)
            .map_err(|why| PoolError::Report { command: self.command_line("fullreport", &args), why })
    }

    /// Those of these volume groups that LVM tells of, in one report, and whether it had nothing to complain of.
    pub(super) fn volume_groups(&self, names: &[&str]) -> Result<(Vec<VolumeGroup>, bool), PoolError> {
        let args: Vec<_> = VolumeGroup::ARGUMENTS.split(' ').chain(["--"]).chain(names.iter().copied()).collect();
        let args = self.arguments(&args);
        let output = self.output("fullreport", &args, self.options.report_timeout)?;
        let complete = output.status.success();
        match VolumeGroup::parse_all(&output.stdout) {
            Ok(groups) => Ok((groups, complete)),
            Err(_) if !complete => Ok((Vec::new(), false)),
            Err(why) => Err(PoolError::Report { command: self.command_line("fullreport", &args), why }),
        }
    }

    /// Runs a command that changes something.
    pub(super) fn change<S: AsRef<str>>(&self, subcommand: &str, args: &[S]) -> Result<(), PoolError> {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let args = self.arguments(&args);
        let output = self.output(subcommand, &args, self.options.change_timeout);
        // Whatever came of it.
        self.reports.forget();
        let output = output?;
        if output.status.success() { Ok(()) } else { Err(self.failure(subcommand, &args, &output).into()) }
    }

    /// Arguments with what every command gets, in front, where a `--` does not hide it.
    fn arguments(&self, args: &[&str]) -> Vec<String> {
        let mut all = Vec::new();
        if !self.mapper {
            all.extend(["--driverloaded", "n"].map(str::to_owned));
        }
        // What an administrator may have set for his own eyes must not change what is read here.
        let report = "report{compact_output=0 list_item_separator=\",\" binary_values_as_numeric=0}";
        all.extend(["--config".to_owned(), format!("{report} {}", self.filter.config())]);
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        all
    }

    fn output<S: AsRef<str>>(&self, subcommand: &str, args: &[S], timeout: Duration) -> Result<Output, PoolError> {
        let started = Instant::now();
        let answer = self.run(subcommand, args, timeout).map_err(|(outcome, stderr)| {
            let command = self.command_line(subcommand, args);
            // A program that was given and was never there is named below.
            let missing = matches!(&outcome, Outcome::NotRun(error) if error.kind() == io::ErrorKind::NotFound);
            if missing && self.opened {
                return PoolError::LvmMissing;
            }
            PoolError::from(Box::new(CommandFailure { command, outcome, stderr }))
        });
        let answered = answer.as_ref().ok();
        tracing::debug!(
            command = self.command_line(subcommand, args),
            status = answered.map(|output| output.status.to_string()),
            stderr = answered.map(|output| complaints(&output.stderr)),
            elapsed = ?started.elapsed(),
            "ran"
        );
        answer
    }

    fn run<S: AsRef<str>>(&self, subcommand: &str, args: &[S], timeout: Duration) -> Result<Output, (Outcome, String)> {
        let not_run = |error| (Outcome::NotRun(error), String::new());
        let args = [subcommand].into_iter().chain(args.iter().map(AsRef::as_ref));
        let mut expression = duct::cmd(&self.program, args)
            .stdin_null()
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            // Messages in the language that they are looked for in, and none about descriptors that are none of LVM's business.
            .env("LC_ALL", "C")
            .env("LVM_SUPPRESS_FD_WARNINGS", "1");
        for (name, value) in &self.options.environment {
            expression = expression.env(name, value);
        }
        let process = expression.start().map_err(not_run)?;
        if let Some(output) = process.wait_timeout(timeout).map_err(not_run)? {
            return Ok(output.clone());
        }
        tracing::warn!(subcommand, ?timeout, "a command of LVM's does not end and is stopped");
        for pid in process.pids() {
            // The process was not waited for yet, so its number is still its own.
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let mut ended = process.wait_timeout(GRACE).map_err(not_run)?.cloned();
        if ended.is_none() {
            let _ = process.kill();
            ended = process.wait_timeout(GRACE).map_err(not_run)?.cloned();
        }
        let stderr = ended.as_ref().map(|output| complaints(&output.stderr)).unwrap_or_default();
        Err((Outcome::TimedOut { after: timeout, gone: ended.is_some() }, stderr))
    }

    fn failure<S: AsRef<str>>(&self, subcommand: &str, args: &[S], output: &Output) -> Box<CommandFailure> {
        Box::new(CommandFailure {
            command: self.command_line(subcommand, args),
            outcome: Outcome::Exited(output.status.to_string()),
            stderr: complaints(&output.stderr),
        })
    }

    fn command_line<S: AsRef<str>>(&self, subcommand: &str, args: &[S]) -> String {
        let mut line = quote(&self.program.to_string_lossy());
        for arg in [subcommand].into_iter().chain(args.iter().map(AsRef::as_ref)) {
            line.push(' ');
            line.push_str(&quote(arg));
        }
        line
    }
}

/// The program, also for a daemon or user whose `$PATH` lacks the directories of the system's programs.
fn find_program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/run/current-system/sw/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|directory| directory.join("lvm")).find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    path.is_absolute() && path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// An argument as a shell would have to be given it.
fn quote(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+_.-/=:,@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) { arg.to_owned() } else { format!("'{}'", arg.replace('\'', r"'\''")) }
}

/// What LVM says at every turn and what is meant to be.
const ROUTINE: [&str; 3] = ["WARNING: Activation disabled.", "WARNING: This metadata update is NOT backed up", " not zeroed."];

/// What a command complained of, in one line of bearable length.
fn complaints(stderr: &[u8]) -> String {
    let stderr = String::from_utf8_lossy(stderr);
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<_> = lines.filter(|line| !ROUTINE.iter().any(|routine| line.contains(routine))).collect();
    let all = lines.join("; ");
    match all.char_indices().nth(2000) {
        Some((end, _)) => format!("{}…", &all[..end]),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::patience::patiently;

    /// LVM's command line, played by a shell script; `lvmconfig` answers as where nothing is configured.
    fn played(script: &str, timeout: Duration) -> (tempfile::TempDir, Lvm) {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("lvm it is");
        fs::write(&program, format!("#!/bin/sh\nif [ $1 = lvmconfig ]; then exit 5; fi\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let options =
            LvmOptions { program: Some(program), report_timeout: timeout, change_timeout: timeout, ..LvmOptions::default() };
        // A program that was just written may still be open in a process that another test is starting.
        let written = |error: &PoolError| error.to_string().contains("Text file busy");
        (directory, patiently(written, || Lvm::new(options.clone(), false)).unwrap())
    }

    fn failure(error: PoolError) -> CommandFailure {
        match error {
            PoolError::Command(failure) => *failure,
            error => panic!("{error}"),
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_failure_shows_the_command_its_status_and_its_complaints() {
        let script =
            "echo '  WARNING: Activation disabled. No device-mapper interaction.' >&2; echo '  It is broken.' >&2; exit 5";
        let (_directory, lvm) = played(script, LONG);
        let error = lvm.change("lvcreate", &["--yes", "--", "v g"]).unwrap_err().to_string();
        assert!(error.contains("lvm it is' lvcreate --driverloaded n --config 'report{"), "{error}");
        assert!(error.ends_with("--yes -- 'v g'' failed (exit status: 5): It is broken."), "{error}");
    }

    #[test]
    fn commands_have_no_input_a_plain_locale_and_quiet_descriptors() {
        let script = "if read line; then exit 1; fi; [ $LC_ALL$LVM_SUPPRESS_FD_WARNINGS = C1 ] || exit 2";
        let (_directory, lvm) = played(script, LONG);
        lvm.change::<&str>("lvcreate", &[]).unwrap();
    }

    #[test]
    fn a_command_that_hangs_is_ended_and_named_with_its_time() {
        let (directory, lvm) = played("echo $$ >\"$0.pid\"; echo 'Waiting.' >&2; exec sleep 600", Duration::from_secs(1));
        let error = lvm.change("lvcreate", &["x"]).unwrap_err();
        assert!(error.to_string().contains("lvcreate") && error.to_string().contains("did not end within 1s"), "{error}");
        let failure = failure(error);
        assert!(matches!(failure.outcome, Outcome::TimedOut { after, gone: true } if after == Duration::from_secs(1)));
        assert_eq!(failure.stderr, "Waiting.");
        let pid = fs::read_to_string(directory.path().join("lvm it is.pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "the process is gone");
    }

    #[test]
    fn a_command_that_does_not_want_to_end_is_killed() {
        let (_directory, lvm) = played("trap '' TERM; while :; do sleep 0.2; done", Duration::from_millis(500));
        let failure = failure(lvm.change("lvcreate", &["x"]).unwrap_err());
        assert!(matches!(failure.outcome, Outcome::TimedOut { gone: true, .. }), "{failure}");
    }

    #[test]
    fn a_group_that_is_not_there_is_told_from_one_that_cannot_be_read() {
        let absent = "echo '{\"report\": []}'; echo '  Volume group \"vg\" not found' >&2; exit 5";
        let (_directory, lvm) = played(absent, LONG);
        assert!(matches!(lvm.volume_group("vg"), Err(PoolError::NoVolumeGroup { .. })));
        let closed = "echo '{\"report\": []}'; echo '  /run/lock/lvm/V_vg: open failed: Permission denied' >&2; exit 5";
        let (_directory, lvm) = played(closed, LONG);
        assert!(lvm.volume_group("vg").unwrap_err().to_string().contains("Permission denied"));
        let (_directory, lvm) = played("echo nonsense", LONG);
        assert!(matches!(lvm.volume_group("vg"), Err(PoolError::Report { .. })));
    }

    #[test]
    fn every_command_is_told_what_not_to_look_at() {
        let script = "case \"$*\" in *'filter=['*'/dev/nbd'*) echo '{\"report\": []}';; *) exit 9;; esac";
        let (_directory, lvm) = played(script, LONG);
        lvm.change("lvcreate", &["--", "vg"]).unwrap();
        let report = lvm.volume_group("vg");
        assert!(matches!(report, Err(PoolError::Report { .. })), "it was run, and found nothing: {report:?}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let options = LvmOptions { program: Some("/nonexistent/lvm".into()), ..LvmOptions::default() };
        let error = Lvm::new(options, false).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/lvm") && error.to_string().contains("could not be run"), "{error}");
        assert!(PoolError::LvmMissing.to_string().contains("install lvm2"));
    }

    #[test]
    fn what_is_shown_can_be_given_to_a_shell() {
        assert_eq!(quote("-l"), "-l");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's [a] list"), r"'it'\''s [a] list'");
    }

    #[test]
    fn complaints_are_of_bearable_length() {
        assert!(complaints("ä".repeat(5000).as_bytes()).chars().count() == 2001);
        assert_eq!(complaints(b"  one\n\n  two\n"), "one; two");
    }
}
