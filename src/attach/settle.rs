//! Writing what a block device has in its cache, by a process of its own.
//!
//! Whoever waits for that cannot be ended before the volume answers, not even by SIGKILL, and keeps every file open that it has. It must
//! not be a thread of those that the volume's answers come through: a helper that is killed would wait for its own answers for ever,
//! and a daemon would keep its disks and sockets from the next one. A process of its own has nothing but the device.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Has a device's cache written, and its volume made durable. Blocks for as long as the volume takes.
///
/// # Errors
///
/// If the volume fails, or the program `sync` cannot be run.
pub fn settle(device: &Path) -> io::Result<()> {
    let done = Command::new("sync").arg(device).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    match done.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&done.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        settle(file.path()).unwrap();
        let missing = settle(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
    }
}
