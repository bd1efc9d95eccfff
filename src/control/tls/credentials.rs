//! A node's certificates and keys on disk.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a node needs to prove itself and to let others in; all PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The authority's certificate.
    pub ca: String,
    /// The authority's key.
    pub ca_key: String,
    /// The node's certificate.
    pub certificate: String,
    /// The node's key.
    pub key: String,
}

const FILES: [&str; 4] = ["ca.crt", "ca.key", "node.crt", "node.key"];

impl Credentials {
    /// Writes them into a directory, each durable before this returns.
    pub fn store(&self, directory: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let contents = [&self.ca, &self.ca_key, &self.certificate, &self.key];
        for (name, content) in FILES.iter().zip(contents) {
            write_private(&directory.join(name), content.as_bytes())?;
        }
        fs::File::open(directory)?.sync_all()
    }

    /// Reads them from a directory.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        Ok(Self { ca: read(FILES[0])?, ca_key: read(FILES[1])?, certificate: read(FILES[2])?, key: read(FILES[3])? })
    }
}

impl std::fmt::Debug for Credentials {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Replaces a file as a whole, readable for its owner alone.
pub(in super::super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let scratch = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&scratch)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&scratch, path)?;
    path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}
