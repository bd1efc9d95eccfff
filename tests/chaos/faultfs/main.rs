//! A file system that fails on demand: what is below one folder, seen through another.
//!
//! It shows `BACKING` at `MOUNTPOINT` until its standard input ends. What it reads there, a line each, says what goes wrong; every
//! line is answered with `ok` or `error: …`:
//!
//! - `fail read|write|sync|any ERRNO PART`: such operations on paths that contain PART fail. ERRNO is a number.
//! - `hang PART`: operations on paths that contain PART wait.
//! - `kill PID before|after read|write|sync|name|any PART COUNT`: SIGKILL to a process, before or after its COUNTth such operation. A name
//!   is made, renamed or removed. What it is killed before is not done.
//! - `well`: none of that any more.
//! - `lose SEED`: loss of power. Of what was written and not synced each sector of 512 bytes stays or is what it was at the last
//!   sync, as the seed has it. Whoever had files open must be dead.
//! - `lose`: the same, and nothing stays.
//!
//! What is synced is a file's content. Names, sizes and modes are durable at once, as they nearly are on a file system with an ordered
//! journal; the space that a file grew by reads as zeroes when its content was lost.

mod faults;
mod files;
mod names;
mod volatile;

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

use faults::Faults;
use files::Mirror;
use rustix::process::Pid;
use volatile::Cache;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(backing), Some(mountpoint)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: faultfs BACKING MOUNTPOINT"));
    };
    let (faults, cache) = (Arc::new(Faults::default()), Arc::new(Cache::default()));
    let mut config = fuser::Config::default();
    config.mount_options = vec![fuser::MountOption::FSName("faultfs".to_owned()), fuser::MountOption::NoDev];
    config.acl = fuser::SessionACL::All;
    // Those that wait because of `hang` must not keep the others waiting.
    config.n_threads = Some(16);
    let session = fuser::spawn_mount(Mirror::new(backing, faults.clone(), cache.clone()), mountpoint, &config)?;
    answer("ok")?;
    for line in io::stdin().lock().lines() {
        match obey(&line?, &faults, &cache) {
            Ok(()) => answer("ok")?,
            Err(error) => answer(&format!("error: {error}"))?,
        }
    }
    faults.well();
    // Somebody may still have a file open: the mount goes with this process then.
    let _ = session.umount_and_join();
    Ok(())
}

fn answer(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

fn obey(line: &str, faults: &Faults, cache: &Cache) -> io::Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["fail", what, errno, part] => faults.fail(what, errno.parse().map_err(io::Error::other)?, part),
        ["hang", part] => faults.hang(part),
        ["well"] => faults.well(),
        ["kill", pid, when @ ("before" | "after"), what, part, count] => {
            let pid = Pid::from_raw(pid.parse().map_err(io::Error::other)?).ok_or_else(|| io::Error::other("no process"))?;
            faults.kill(pid, when == "after", what, part, count.parse().map_err(io::Error::other)?);
        }
        ["lose"] => cache.lose(None)?,
        ["lose", seed] => cache.lose(Some(seed.parse().map_err(io::Error::other)?))?,
        _ => return Err(io::Error::other(format!("unknown: {line}"))),
    }
    Ok(())
}
