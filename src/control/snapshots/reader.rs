//! A snapshot read over NBD, by one client: not on the path of any write, and so by plain reads on threads that may block.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::control::nbd::{Stream, Wire};
use crate::control::node::Node;
use crate::control::reconciler::storage;
use crate::nbd::reply::{self, Status};
use crate::nbd::{Errno, Mode, Refusal, Request, request};
use crate::units::{Name, VolumeId};

/// What separates the snapshot's name in that of an export: `RES@SNAP`, `RES/VOL@SNAP`. No resource's name has it.
pub const MARK: char = '@';

/// A volume of a snapshot, as an export's name says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    resource: Name,
    volume: VolumeId,
    snapshot: Name,
}

/// A volume of a snapshot, open. It cannot be removed as long as this is there.
#[derive(Debug)]
pub struct Open {
    /// Each with its first byte in the file and its length.
    segments: Vec<(File, u64, u64)>,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Wanted {
    /// The volume that an export's name means; `None` when it means none of a snapshot.
    pub fn of(export: &str) -> Option<Self> {
        let (volume, snapshot) = export.split_once(MARK)?;
        let (resource, volume) = match volume.split_once('/') {
            Some((resource, volume)) => (resource, VolumeId(volume.parse().ok()?)),
            None => (volume, VolumeId(0)),
        };
        Some(Self { resource: resource.parse().ok()?, volume, snapshot: snapshot.parse().ok()? })
    }

    /// Its size in bytes, if this node has it.
    pub fn bytes(&self, node: &Node, model: &Cluster) -> Result<u64, Refusal> {
        let unknown = |error: crate::cluster::Refusal| Refusal::unknown(error.to_string());
        let resource = model.resource_named(&self.resource).map_err(unknown)?;
        let snapshot = resource.snapshot(&self.snapshot).map_err(unknown)?;
        if !snapshot.parts.contains_key(&node.me) {
            let there: Vec<String> = snapshot.parts.keys().map(|id| model.node_name(*id)).collect();
            let text = format!("snapshot '{}' of '{}' is on {}", self.snapshot, self.resource, there.join(", "));
            return Err(Refusal::unknown(text));
        }
        let missing = || Refusal::unknown(format!("snapshot '{}' has no volume {}", self.snapshot, self.volume));
        snapshot.volumes.get(&self.volume).copied().ok_or_else(missing)
    }

    /// Opens it for reading.
    pub async fn open(self, node: &Arc<Node>) -> Result<Open, Refusal> {
        let model = node.model();
        let bytes = self.bytes(node, &model)?;
        let failed = |why: String| Refusal::unknown(format!("snapshot '{}' cannot be read: {why}", self.snapshot));
        let unknown = |error: crate::cluster::Refusal| Refusal::unknown(error.to_string());
        let snapshot = model.resource_named(&self.resource).and_then(|resource| resource.snapshot(&self.snapshot));
        let snapshot = snapshot.map_err(unknown)?;
        let places = snapshot.parts[&node.me].clone();
        let (pools, name, volume, stored) = (node.clone(), self.resource.clone(), self.volume, snapshot.stored(&self.snapshot));
        let opening = move || {
            let device = storage::snapshot_device(&pools, &name, volume, &stored, &places)?;
            let open = |segment: &drbdpool::Segment| {
                let file = File::open(&segment.path).map_err(|error| format!("{}: {error}", segment.path.display()))?;
                if device.kind == drbdpool::DeviceKind::File {
                    // Whoever removes it has to have it for himself.
                    file.try_lock_shared().map_err(|error| format!("{}: {error}", segment.path.display()))?;
                }
                Ok((file, segment.start, segment.length))
            };
            let segments = device.segments.iter().map(open).collect::<Result<_, String>>()?;
            Ok(Open { segments, bytes })
        };
        storage::blocking(opening).await.map_err(failed)
    }
}

/// The exports of snapshots that this node has.
pub fn exports(node: &Node, model: &Cluster) -> Vec<String> {
    let mut names = Vec::new();
    for resource in model.resources.values() {
        for (name, snapshot) in resource.snapshots.iter().filter(|(_, one)| one.parts.contains_key(&node.me)) {
            if resource.snapshot(name).is_ok() {
                names.extend(snapshot.volumes.keys().map(|volume| match volume.0 {
                    0 => format!("{}{MARK}{name}", resource.name),
                    number => format!("{}/{number}{MARK}{name}", resource.name),
                }));
            }
        }
    }
    names
}

impl Open {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let (mut first, mut done) = (0, 0);
        for (file, start, length) in &self.segments {
            let at = offset + done as u64;
            if at < first + length && done < bytes.len() {
                let inside = at - first;
                let count = usize::try_from(length - inside).unwrap_or(usize::MAX).min(bytes.len() - done);
                file.read_exact_at(&mut bytes[done..done + count], start + inside)?;
                done += count;
            }
            first += length;
        }
        if done == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Serves a client until it goes.
///
/// # Errors
///
/// When it breaks off, or says what is no request.
pub(in crate::control) async fn serve<S: Wire>(
    mut stream: Stream<S>,
    mode: Mode,
    mut inbox: Vec<u8>,
    open: Open,
) -> io::Result<()> {
    let open = Arc::new(open);
    let mut buffer = vec![0; RECEIVED];
    let mut skip = 0;
    let mut out = Vec::new();
    loop {
        let skipped = inbox.len().min(skip);
        inbox.drain(..skipped);
        skip -= skipped;
        let decoded = if skip > 0 { None } else { request::decode(&inbox, &mode, open.bytes).map_err(io::Error::other)? };
        let Some(decoded) = decoded else {
            match stream.receive(&mut buffer).await? {
                0 => return Ok(()),
                count => inbox.extend_from_slice(&buffer[..count]),
            }
            continue;
        };
        inbox.drain(..decoded.taken);
        // What nobody may write is not kept.
        skip = usize::try_from(decoded.payload()).unwrap_or(usize::MAX);
        let tag = decoded.tag;
        match decoded.request {
            Ok(Request::Disconnect) => return Ok(()),
            Ok(Request::Read { offset, length, .. }) => match read(&open, offset, length).await {
                Ok(bytes) => {
                    out.extend_from_slice(&reply::data(&mode, tag, offset, length, true));
                    out.extend_from_slice(&bytes);
                }
                Err(_) => reply::error(&mode, tag, Errno::Io, "the snapshot cannot be read there", &mut out),
            },
            Ok(Request::BlockStatus { length, one, .. }) => {
                let mut status = Status::begin(&mode, tag, length, one, &mut out);
                status.push(length, 0);
                status.finish();
            }
            Ok(Request::Flush | Request::Cache { .. }) => out.extend_from_slice(&reply::done(&mode, tag)),
            Ok(Request::Write { .. } | Request::Trim { .. } | Request::WriteZeroes { .. }) => {
                reply::error(&mode, tag, Errno::Permission, "a snapshot is only read", &mut out);
            }
            Err(refusal) => reply::error(&mode, tag, refusal.errno, refusal.text, &mut out),
        }
        stream.send(&out).await?;
        out.clear();
    }
}

async fn read(open: &Arc<Open>, offset: u64, length: u32) -> io::Result<Vec<u8>> {
    let open = open.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        open.read(offset, &mut bytes).map(|()| bytes)
    });
    reading.await.map_err(io::Error::other)?
}

const RECEIVED: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_may_name_a_snapshot() {
        let wanted = |export: &str| Wanted::of(export).map(|w| (w.resource.to_string(), w.volume.0, w.snapshot.to_string()));
        assert_eq!(wanted("web@a.1"), Some(("web".to_owned(), 0, "a.1".to_owned())));
        assert_eq!(wanted("web/3@a"), Some(("web".to_owned(), 3, "a".to_owned())));
        for other in ["web", "web/1", "web@", "@a", "web/x@a", "web@a@b", "web@a/1"] {
            assert_eq!(wanted(other), None, "{other}");
        }
    }

    #[test]
    fn stretches_of_several_files_are_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            std::fs::write(dir.path().join(name), bytes).unwrap();
            File::open(dir.path().join(name)).unwrap()
        };
        let open = Open { segments: vec![(file("a", b"..abc"), 2, 3), (file("b", b"def"), 0, 3)], bytes: 6 };
        let read = |offset, count| {
            let mut bytes = vec![0; count];
            open.read(offset, &mut bytes).map(|()| String::from_utf8(bytes).unwrap())
        };
        assert_eq!(read(0, 6).unwrap(), "abcdef");
        assert_eq!(read(2, 2).unwrap(), "cd");
        assert_eq!(read(4, 2).unwrap(), "ef");
        assert!(read(5, 2).is_err());
    }
}
