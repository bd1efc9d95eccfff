//! The file that says whose a directory is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Identity, OVERSUBSCRIPTION, PoolError, Unclaimed};

/// The marker's name. No volume's name begins with a dot.
pub(super) const MARKER: &str = ".blkrep-pool";

/// The marker while it is written.
const UNFINISHED: &str = ".blkrep-pool.new";

/// The version of the directory's layout that this code reads and writes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Marker {
    format: u32,
    #[serde(flatten)]
    owner: Identity,
    /// How many times its size a thin pool promises; absent in those that were made before there were any.
    #[serde(default = "usual_oversubscription")]
    oversubscription: u32,
}

fn usual_oversubscription() -> u32 {
    OVERSUBSCRIPTION
}

/// Makes sure that a directory, which the caller has locked, is `identity`'s. An empty one is made so if `unclaimed` says so.
/// Answers how many times its size it promises if it is thin.
pub(super) fn check_or_claim(
    directory: &Path,
    handle: &File,
    identity: &Identity,
    unclaimed: Unclaimed,
) -> Result<u32, PoolError> {
    let path = directory.join(MARKER);
    let promises = match (fs::read(&path), unclaimed) {
        (Ok(bytes), _) => check(directory, &bytes, identity)?,
        (Err(error), Unclaimed::Refuse) if error.kind() == io::ErrorKind::NotFound => {
            return Err(PoolError::Unclaimed {
                pool: format!("the directory {}", directory.display()),
                wanted: identity.to_string(),
                why: format!("it has no file {MARKER}: is its file system mounted?"),
            });
        }
        (Err(error), Unclaimed::Claim { oversubscription }) if error.kind() == io::ErrorKind::NotFound => {
            if !is_empty(directory)? {
                return Err(PoolError::NotAPool { directory: directory.to_owned(), marker: MARKER });
            }
            write(directory, identity, oversubscription)?;
            oversubscription
        }
        (Err(error), _) => return Err(PoolError::io("read", &path)(error)),
    };
    // Also for a marker that was there: its writer may have died just before this.
    handle.sync_all().map_err(PoolError::io("flush", directory))?;
    Ok(promises)
}

/// Makes a directory nobody's.
pub(super) fn remove(directory: &Path, handle: &File) -> Result<(), PoolError> {
    let path = directory.join(MARKER);
    fs::remove_file(&path).map_err(PoolError::io("remove", &path))?;
    handle.sync_all().map_err(PoolError::io("flush", directory))
}

fn check(directory: &Path, bytes: &[u8], identity: &Identity) -> Result<u32, PoolError> {
    let path = directory.join(MARKER);
    let unreadable = |why: String| PoolError::io("understand", &path)(io::Error::new(io::ErrorKind::InvalidData, why));
    let marker: Marker = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
    if marker.format != FORMAT {
        return Err(unreadable(format!("it has format {}; this version knows format {FORMAT}", marker.format)));
    }
    if marker.owner != *identity {
        return Err(PoolError::OtherOwner {
            pool: format!("the directory {}", directory.display()),
            owner: marker.owner.to_string(),
            wanted: identity.to_string(),
            remedy: format!("move what is in {} elsewhere, the file {MARKER} included", directory.display()),
        });
    }
    Ok(marker.oversubscription)
}

/// Whether nobody has put anything there. A file system's own directory and the beginnings of a marker do not count.
fn is_empty(directory: &Path) -> Result<bool, PoolError> {
    for entry in fs::read_dir(directory).map_err(PoolError::io("list", directory))? {
        let entry = entry.map_err(PoolError::io("list", directory))?;
        if entry.file_name() != "lost+found" && entry.file_name() != UNFINISHED {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the marker so that it is there in full or not at all.
fn write(directory: &Path, identity: &Identity, oversubscription: u32) -> Result<(), PoolError> {
    let unfinished = directory.join(UNFINISHED);
    let marker = Marker { format: FORMAT, owner: identity.clone(), oversubscription };
    let text = serde_json::to_string_pretty(&marker).expect("a marker is numbers and strings") + "\n";
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, directory.join(MARKER))
        });
    written.map_err(PoolError::io("write", &unfinished))
}
