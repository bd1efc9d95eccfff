//! Stories of the whole room: planes in this process, clients on socket pairs, storage in files.
#![expect(clippy::cast_possible_truncation, reason = "patterns")]

mod limits;
mod replication;
mod requests;
mod secured;
mod tools;

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::engine::ResourceStatus;
use crate::format::{NewReplica, PeerSlot, SLOTS_DEFAULT, Step, area_len, create};
use crate::nbd::client::{Body, decode, request};
use crate::nbd::{Action, BlockSizes, Export, Mode, Negotiation, Purpose, Request, TlsPolicy};
use crate::units::{
    Authority, ClusterId, Incarnation, NodeId, Protocol, Record, RecordId, ReplicaId, ResourceId, Sharing, VolumeId,
};

const RESOURCE: ResourceId = ResourceId(1);
const VOLUME: VolumeId = VolumeId(0);
const CLUSTER: ClusterId = ClusterId(77);

const ONE_SHARD: PlaneOptions = PlaneOptions { shards: 1, memory: 0 };

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One node of a cluster of one.
struct Node {
    id: NodeId,
    folder: TempDir,
    plane: Arc<Plane>,
    events: Arc<Mutex<Vec<PlaneEvent>>>,
}

impl Node {
    fn start(id: u32, options: PlaneOptions) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let plane = Plane::start(options, move |event| heard.lock().unwrap().push(event)).unwrap();
        Self { id: NodeId(id), folder: tempfile::tempdir().unwrap(), plane: Arc::new(plane), events }
    }

    /// A node that serves one volume of so many bytes.
    fn serving(bytes: u64) -> Self {
        let node = Self::start(0, ONE_SHARD);
        let spec = node.spec(RESOURCE, bytes);
        node.create(&spec);
        wait(node.plane.open(spec)).unwrap();
        node
    }

    /// Two nodes, not connected, that have a replica of one volume each, in sync.
    fn pair(bytes: u64) -> [Self; 2] {
        [0, 1].map(|id| {
            let node = Self::start(id, ONE_SHARD);
            let spec = node.spec_with_peers(RESOURCE, bytes, &[NodeId(1 - id)]);
            node.create(&spec);
            wait(node.plane.open(spec)).unwrap();
            node
        })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn spec(&self, resource: ResourceId, bytes: u64) -> ResourceSpec {
        self.spec_with_peers(resource, bytes, &[])
    }

    fn spec_with_peers(&self, resource: ResourceId, bytes: u64, peers: &[NodeId]) -> ResourceSpec {
        let peer = |&node: &NodeId| {
            (node, Peer { name: format!("n{node}").parse().unwrap(), diskful: true, leaving: false, paused: false, apart: false })
        };
        let volumes = [(VOLUME, bytes)].into();
        let metadata = self.folder.path().join("metadata");
        let storage = ReplicaStorage {
            metadata: Backing::whole(metadata, area_len(&volumes, SLOTS_DEFAULT)),
            volumes: [(VOLUME, Backing::whole(self.data(), bytes.next_multiple_of(4096)))].into(),
        };
        let settings = ResourceSettings {
            peers: peers.iter().map(peer).collect(),
            volumes,
            protocol: Protocol::C,
            authority: Authority::Off,
            io_fails_after: None,
            after_split_brain: crate::units::AfterSplitBrain::default(),
            resync_max: 0,
            timeouts: Timeouts::default(),
        };
        let name = format!("r{}", resource.0).parse().unwrap();
        ResourceSpec { cluster: CLUSTER, resource, name, me: self.id, settings, storage: Some(storage) }
    }

    /// Makes the files of a replica that is in sync.
    fn create(&self, spec: &ResourceSpec) {
        let storage = spec.storage.as_ref().unwrap();
        for backing in storage.volumes.values().chain([&storage.metadata]) {
            let segment = &backing.segments[0];
            File::create(&segment.path).unwrap().set_len(segment.length).unwrap();
        }
        let incarnation = |node: NodeId| Incarnation(u64::from(node.0) + 100);
        let peers: Vec<NodeId> = spec.settings.peers.keys().copied().collect();
        let members = peers.iter().chain([&spec.me]).map(|&node| (node, incarnation(node))).collect();
        let new = NewReplica {
            cluster: spec.cluster,
            resource: spec.resource,
            node: spec.me,
            replica: ReplicaId(u64::from(spec.me.0) + 1),
            incarnation: incarnation(spec.me),
            record: Some(Record::first(RecordId(5), members, Authority::Off)),
            synced: Some((1, RecordId(5))),
            peers: peers.into_iter().map(|node| PeerSlot { node, base: Some((1, RecordId(5))) }).collect(),
            volumes: spec.settings.volumes.clone(),
            slots: SLOTS_DEFAULT,
        };
        let area = OpenOptions::new().write(true).open(&storage.metadata.segments[0].path).unwrap();
        for step in create(&new).unwrap() {
            if let Step::Write { at, bytes } = step {
                area.write_all_at(&bytes, at).unwrap();
            }
        }
    }

    /// A connected client in a mode, past its negotiation.
    fn client(&self, mode: Mode) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let export = wait(self.plane.attach(RESOURCE, VOLUME, mode.read_only, Sharing::Shared)).unwrap();
        let socket = Socket { fd: OwnedFd::from(theirs), tls: None, early: Vec::new() };
        self.plane.serve(export, ClientSocket { socket, mode: mode.clone(), name: "test".to_owned(), asks_again: false });
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        ours.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { socket: ours, mode, next: 1, inbox: Vec::new() }
    }

    /// Listens on a unix socket and serves whoever comes, as the control plane does.
    fn listen(&self) -> PathBuf {
        let path = self.folder.path().join("nbd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let plane = Arc::clone(&self.plane);
        // It ends with the process.
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                negotiate(&plane, socket);
            }
        });
        path
    }

    /// Whether such an event was told.
    fn was_told(&self, such: impl FnMut(&PlaneEvent) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(such)
    }

    fn status(&self) -> ResourceStatus {
        self.plane.status().into_iter().find(|status| status.resource == RESOURCE).unwrap()
    }
}

/// Drives one handshake to its end.
fn negotiate(plane: &Plane, mut socket: UnixStream) {
    let mut talk = Negotiation::new(TlsPolicy::Off);
    let mut attached = None;
    loop {
        match talk.poll() {
            Action::Send(bytes) => drop(socket.write_all(&bytes)),
            Action::Receive => {
                let mut bytes = [0; 4096];
                match socket.read(&mut bytes) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => talk.feed(&bytes[..count]),
                }
            }
            Action::List => talk.listed(Ok(&[])),
            Action::Open { purpose, .. } => {
                let export = wait(plane.attach(RESOURCE, VOLUME, false, Sharing::Shared)).unwrap();
                let size = export.bytes;
                attached = (purpose == Purpose::Serve).then_some(export);
                let (name, description) = ("r1".to_owned(), String::new());
                talk.opened(Ok(Export { name, description, size, read_only: false, blocks: BlockSizes::default() }));
            }
            Action::Done { mode, early, .. } => {
                let socket = Socket { fd: OwnedFd::from(socket), tls: None, early };
                let client = ClientSocket { socket, mode, name: "unix".to_owned(), asks_again: false };
                return plane.serve(attached.take().unwrap(), client);
            }
            Action::StartTls | Action::Close(_) => return,
        }
    }
}

/// An NBD client.
struct Client {
    socket: UnixStream,
    mode: Mode,
    next: u64,
    inbox: Vec<u8>,
}

impl Client {
    fn send(&mut self, wanted: &Request, payload: &[u8]) -> u64 {
        let cookie = self.next;
        self.next += 1;
        let mut bytes = request(&self.mode, cookie, wanted).to_vec();
        bytes.extend_from_slice(payload);
        self.socket.write_all(&bytes).unwrap();
        cookie
    }

    /// The next chunk of a reply to whatever request, whose data has `expected` bytes.
    fn receive(&mut self, expected: usize) -> (u64, Result<Vec<u8>, u32>) {
        loop {
            if let Some((used, reply)) = decode(&self.inbox, &self.mode).unwrap() {
                self.inbox.drain(..used);
                let result = match reply.body {
                    Body::Done => Ok(if self.mode.structured { Vec::new() } else { self.take(expected) }),
                    Body::Data { length, .. } => Ok(self.take(length as usize)),
                    Body::Failed { errno, .. } => Err(errno.code()),
                    other => panic!("{other:?}"),
                };
                return (reply.cookie, result);
            }
            self.more();
        }
    }

    fn more(&mut self) {
        let mut bytes = vec![0; 1 << 16];
        let count = self.socket.read(&mut bytes).expect("the server answers in time");
        assert!(count > 0, "the server has closed the connection");
        self.inbox.extend_from_slice(&bytes[..count]);
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.inbox.len() < count {
            self.more();
        }
        self.inbox.drain(..count).collect()
    }

    fn ask(&mut self, wanted: &Request, payload: &[u8], expected: usize) -> Result<Vec<u8>, u32> {
        let cookie = self.send(wanted, payload);
        let (answered, result) = self.receive(expected);
        assert_eq!(answered, cookie);
        result
    }

    fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        self.ask(&Request::Read { offset, length, dont_fragment: false }, &[], length as usize).unwrap()
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap();
        assert_eq!(self.ask(&Request::Write { offset, length, fua: false }, bytes, 0), Ok(Vec::new()));
    }

    fn flush(&mut self) {
        assert_eq!(self.ask(&Request::Flush, &[], 0), Ok(Vec::new()));
    }

    /// Whether the server closes the connection in time, without another byte.
    fn is_cut(&mut self) -> bool {
        let mut byte = [0];
        match self.socket.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Runs a future to its end.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it takes too long") })
}

/// Waits until something is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "still waiting until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
