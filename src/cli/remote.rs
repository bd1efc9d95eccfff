//! Doing a join on the new node, over ssh.

use std::net::IpAddr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::api::JoinTicket;

/// Whether root may log in at `address` without being asked for anything.
pub(super) async fn reachable(address: IpAddr) -> bool {
    let mut ssh = ssh(address);
    ssh.arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ssh.status().await.is_ok_and(|status| status.success())
}

/// Runs the join there. The token goes through standard input: it is not seen among the processes' arguments.
pub(super) async fn join(address: IpAddr, ticket: &JoinTicket, witness: bool) -> Result<(), String> {
    let mut ssh = ssh(address);
    ssh.arg(command(ticket, witness)).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = ssh.spawn().map_err(|error| format!("cannot run ssh: {error}"))?;
    let mut input = child.stdin.take().expect("standard input is piped");
    // A remote side that does not read its token tells why on its standard error.
    let _ = input.write_all(format!("{}\n", ticket.token).as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await.map_err(|error| format!("ssh: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn command(ticket: &JoinTicket, witness: bool) -> String {
    format!("blkrep join {} --token -{}", ticket.contact, if witness { " --no-storage" } else { "" })
}

/// `BLKREP_SSH` names another program than ssh.
fn ssh(address: IpAddr) -> Command {
    let program = std::env::var_os("BLKREP_SSH").unwrap_or_else(|| "ssh".into());
    let mut command = Command::new(program);
    command.args(["-oBatchMode=yes", "-oConnectTimeout=2"]).arg(format!("root@{address}")).kill_on_drop(true);
    command
}
