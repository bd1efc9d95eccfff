//! Starting the daemon after `init` and `join`, so that the next command finds it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::exit::Failure;
use super::session::Session;
use super::wait;
use crate::api::state::NodeState;
use crate::api::{ApiError, Code, ListNodes, Node, Ping, Pong, Service};

/// How long a daemon may take until it answers: it waits for its storage, and a member for its cluster.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a new member may take to be known to the cluster with its storage.
const KNOWN_PATIENCE: Duration = Duration::from_secs(15);

/// How much of a log is shown when a daemon did not start.
const LOG_TAIL: u64 = 2000;

/// Starts the node's daemon, unless it runs already, and waits until it answers. The service manager does it where the package
/// installed a unit and this is the machine's ordinary node; else it runs in the background and writes its log below the node's
/// root.
pub(super) async fn daemon(session: &Session<'_>) -> Result<Pong, Failure> {
    if let Ok(pong) = session.client.ping(Ping {}).await {
        return Ok(pong);
    }
    let mut child = match session.root.is_default() && has_unit() {
        true => {
            systemctl(&["enable", "--now", "blkrep.service"])?;
            None
        }
        false => Some(spawn(session)?),
    };
    session.output.aside("Waiting for server: ");
    let answer = wait::until(PATIENCE, async || {
        session.output.aside(".");
        let ended = child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        match session.client.ping(Ping {}).await {
            Ok(pong) => Some(Some(pong)),
            Err(_) => ended.then_some(None),
        }
    });
    let answer = answer.await;
    session.output.aside("\n");
    answer.flatten().ok_or_else(|| did_not_start(&session.root.log_file(), child.is_some()))
}

/// Waits until the cluster knows this node and its storage, so that the next command, here or on another node, can count on it. A node
/// that needs longer comes later: what it waits for is told by `list-nodes`.
pub(super) async fn known(session: &Session<'_>, name: &str, has_storage: bool) {
    wait::until(KNOWN_PATIENCE, async || {
        let nodes = session.client.list_nodes(ListNodes {}).await.ok()?;
        let known =
            |node: &&Node| node.name.as_str() == name && node.state() == NodeState::Ok && (node.pool.is_some() || !has_storage);
        nodes.iter().find(known).map(|_| ())
    })
    .await;
}

fn spawn(session: &Session<'_>) -> Result<Child, Failure> {
    let log_file = session.root.log_file();
    let open = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_file);
    let log = open.map_err(|error| Failure::io(format_args!("cannot write {}", log_file.display()), &error))?;
    let error_log = log.try_clone().map_err(|error| Failure::io("cannot hand over the log", &error))?;
    let program = std::env::current_exe().map_err(|error| Failure::io("cannot find this program", &error))?;
    Command::new(program)
        .args(["daemon", "--detached", "--root"])
        .arg(session.root.path())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(error_log)
        .spawn()
        .map_err(|error| Failure::io("cannot start the daemon", &error))
}

/// Whether systemd runs this machine and knows the daemon.
fn has_unit() -> bool {
    let quiet = |command: &mut Command| command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    Path::new("/run/systemd/system").exists()
        && quiet(Command::new("systemctl").args(["cat", "blkrep.service"])).is_ok_and(|status| status.success())
}

fn systemctl(arguments: &[&str]) -> Result<(), Failure> {
    let run = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output();
    let output = run.map_err(|error| Failure::io("cannot run systemctl", &error))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ApiError::new(Code::Io, format_args!("systemctl {} failed: {told}", arguments.join(" ")))
        .hint("`journalctl -u blkrep` tells more; `blkrep daemon` runs it in the foreground")
        .into())
}

fn did_not_start(log_file: &Path, own: bool) -> Failure {
    let tail = if own { tail(log_file).unwrap_or_default() } else { String::new() };
    let message = format!("the daemon did not start{}{}", if tail.is_empty() { "" } else { "; its log ends with\n" }, tail);
    let hint = match own {
        true => format!("`blkrep daemon` runs it in the foreground; its log is {}", log_file.display()),
        false => "`systemctl status blkrep` and `journalctl -u blkrep` tell more".to_owned(),
    };
    ApiError::new(Code::Unreachable, message).hint(hint).into()
}

/// The last lines of a log.
fn tail(log_file: &Path) -> std::io::Result<String> {
    let mut file = File::open(log_file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    Ok(lines.into_iter().rev().map(|line| format!("    {line}\n")).collect::<String>().trim_end().to_owned())
}
