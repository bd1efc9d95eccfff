//! What the tests of several files share: a data plane that is all promises, and whole nodes of one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};

use super::daemon::{Daemon, Plane, PlaneFactory, PlaneSetup};
use super::replica::{FormatMaker, ReplicaMaker};
use super::setup::Control;
use crate::api::setup::{InitOptions, JoinOptions, Listen, NbdChoice, NodeOptions, PoolChoice, Root, Setup};
use crate::api::{AddNode, ApiError, Client, JoinTicket, Service};
use crate::cluster::{Certificate, Cluster, Command, NodeKind, Ports};
use crate::engine::{Connection, PeerStatus, ResourceStatus, VolumeStatus};
use crate::runtime::{
    Answer, ClientSocket, Clients, DataPlane, Held, HoldId, OpenExport, PeerLink, PlaneError, PlaneEvent, ReplicaStorage, Reply,
    ResourceSettings, ResourceSpec, Ticket,
};
use crate::units::{ClusterId, DiskState, PoolKind, ResourceId, Role, Sharing, VolumeId};

/// A data plane that notes what it is asked and reports every replica as what its metadata says.
pub(super) struct FakePlane {
    state: Mutex<State>,
    pub(super) events: UnboundedSender<PlaneEvent>,
}

#[derive(Default)]
struct State {
    open: BTreeMap<ResourceId, ResourceSpec>,
    /// Of which volumes the storage is open: those that came with storage, as long as they are served.
    disks: BTreeMap<ResourceId, BTreeSet<VolumeId>>,
    links: Vec<PeerLink>,
    clients: Vec<ClientSocket>,
    attached: BTreeMap<(ResourceId, VolumeId), Arc<()>>,
    exports: Vec<OpenExport>,
    answers: Vec<(ResourceId, Ticket, Answer)>,
    refuse_open: Option<String>,
}

impl FakePlane {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self, name: &str) -> Option<ResourceSettings> {
        self.state().open.values().find(|spec| spec.name.as_str() == name).map(|spec| spec.settings.clone())
    }

    pub(super) fn storage(&self, name: &str) -> Option<ReplicaStorage> {
        self.state().open.values().find(|spec| spec.name.as_str() == name).and_then(|spec| spec.storage.clone())
    }

    pub(super) fn take_links(&self) -> Vec<PeerLink> {
        std::mem::take(&mut self.state().links)
    }

    pub(super) fn take_clients(&self) -> Vec<ClientSocket> {
        std::mem::take(&mut self.state().clients)
    }

    pub(super) fn take_answers(&self) -> Vec<(ResourceId, Ticket, Answer)> {
        std::mem::take(&mut self.state().answers)
    }

    /// Ends the sessions of so many clients, once they were handed over.
    pub(super) async fn drop_clients(&self, count: usize) {
        eventually("the clients are handed over", async || self.state().exports.len() == count).await;
        self.state().exports.clear();
    }

    /// Has every start refused for this reason; `None` ends that.
    pub(super) fn refuse_open(&self, why: Option<&str>) {
        self.state().refuse_open = why.map(str::to_owned);
    }
}

fn reply<T: Send + 'static>(result: Result<T, PlaneError>) -> Reply<T> {
    Box::pin(std::future::ready(result))
}

impl DataPlane for FakePlane {
    fn open(&self, spec: ResourceSpec) -> Reply<()> {
        let mut state = self.state();
        if let Some(why) = &state.refuse_open {
            return reply(Err(PlaneError::Storage(why.clone())));
        }
        let disks = spec.storage.iter().flat_map(|storage| storage.volumes.keys().copied()).collect();
        state.disks.insert(spec.resource, disks);
        state.open.insert(spec.resource, spec);
        reply(Ok(()))
    }

    fn configure(&self, resource: ResourceId, settings: ResourceSettings, storage: Option<ReplicaStorage>) -> Reply<()> {
        let state = &mut *self.state();
        let Some(spec) = state.open.get_mut(&resource) else { return reply(Err(PlaneError::NotOpen(resource))) };
        let disks = state.disks.entry(resource).or_default();
        disks.extend(storage.iter().flat_map(|storage| storage.volumes.keys().copied()));
        if spec.storage.is_some() && !settings.volumes.keys().all(|volume| disks.contains(volume)) {
            return reply(Err(PlaneError::Storage("a volume has no storage".to_owned())));
        }
        disks.retain(|volume| settings.volumes.contains_key(volume));
        spec.settings = settings;
        if storage.is_some() {
            spec.storage = storage;
        }
        reply(Ok(()))
    }

    fn close(&self, resource: ResourceId, _: bool) -> Reply<()> {
        reply(self.state().open.remove(&resource).map(drop).ok_or(PlaneError::NotOpen(resource)))
    }

    fn attach(&self, resource: ResourceId, volume: VolumeId, read_only: bool, _: Sharing) -> Reply<OpenExport> {
        let mut state = self.state();
        let bytes = state.open.get(&resource).and_then(|spec| spec.settings.volumes.get(&volume)).copied();
        let mut attachment = || Box::new(state.attached.entry((resource, volume)).or_default().clone());
        let export = bytes.map(|bytes| OpenExport { resource, volume, bytes, read_only, attachment: attachment() });
        reply(export.ok_or(PlaneError::NotOpen(resource)))
    }

    fn serve(&self, export: OpenExport, client: ClientSocket) {
        let mut state = self.state();
        state.clients.push(client);
        state.exports.push(export);
    }

    fn link(&self, link: PeerLink) {
        self.state().links.push(link);
    }

    fn answer(&self, resource: ResourceId, ticket: Ticket, answer: Answer) {
        self.state().answers.push((resource, ticket, answer));
    }

    fn operate(&self, resource: ResourceId, _: crate::runtime::Operation) -> Reply<()> {
        reply(if self.state().open.contains_key(&resource) { Ok(()) } else { Err(PlaneError::NotOpen(resource)) })
    }

    fn hold(&self, resource: ResourceId, _: HoldId, _: Duration) -> Reply<Held> {
        let open = self.state().open.get(&resource).map(|spec| spec.settings.peers.keys().copied().chain([spec.me]).collect());
        reply(open.map(|in_sync| Held { reign: 0, in_sync }).ok_or(PlaneError::NotOpen(resource)))
    }

    fn renew_hold(&self, _: ResourceId, _: HoldId, _: Duration) {}

    fn release_hold(&self, resource: ResourceId, _: HoldId) -> Reply<bool> {
        reply(if self.state().open.contains_key(&resource) { Ok(true) } else { Err(PlaneError::NotOpen(resource)) })
    }

    fn look(&self, resource: ResourceId) -> Reply<ResourceStatus> {
        reply(self.state().open.get(&resource).map(status_of).ok_or(PlaneError::NotOpen(resource)))
    }

    fn status(&self) -> Vec<ResourceStatus> {
        self.state().open.values().map(status_of).collect()
    }

    fn clients(&self) -> Reply<Clients> {
        let state = self.state();
        let counted = state.attached.iter().map(|(&id, attached)| (id, Arc::strong_count(attached) - 1));
        reply(Ok(counted.filter(|(_, count)| *count > 0).collect()))
    }

    fn shutdown(&self) -> Reply<()> {
        self.state().open.clear();
        reply(Ok(()))
    }
}

fn status_of(spec: &ResourceSpec) -> ResourceStatus {
    let peer = |(&node, peer): (_, &crate::runtime::Peer)| PeerStatus {
        node,
        connection: Connection::Connected,
        disk: peer.diskful.then_some(DiskState::UpToDate),
        dirty: 0,
        resync: None,
        verify: None,
    };
    ResourceStatus {
        resource: spec.resource,
        role: Role::Secondary,
        primary: None,
        disk: if spec.storage.is_some() { DiskState::UpToDate } else { DiskState::Diskless },
        record: None,
        in_sync: spec.storage.is_some(),
        peers: spec.settings.peers.iter().map(peer).collect(),
        suspended: Vec::new(),
        clients: 0,
        dropped: 0,
        volumes: spec.settings.volumes.iter().map(|(&volume, &bytes)| VolumeStatus { volume, bytes }).collect(),
    }
}

/// Factories whose planes can be looked at.
#[derive(Clone, Default)]
pub(super) struct Fakes(Arc<Mutex<Vec<Arc<FakePlane>>>>);

impl Fakes {
    pub(super) fn factory(&self) -> PlaneFactory {
        let made = self.0.clone();
        Arc::new(move |setup: PlaneSetup| {
            let plane = Arc::new(FakePlane { state: Mutex::default(), events: setup.events });
            made.lock().unwrap_or_else(PoisonError::into_inner).push(plane.clone());
            Ok(Plane { plane, maker: Arc::new(FormatMaker) as Arc<dyn ReplicaMaker> })
        })
    }

    fn last(&self) -> Arc<FakePlane> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last().expect("one was made").clone()
    }
}

/// A node of a test: a directory, an address of this machine, and perhaps a daemon.
pub(super) struct TestNode {
    pub(super) name: String,
    pub(super) root: Root,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) fakes: Fakes,
    pub(super) daemon: Option<Daemon>,
}

impl TestNode {
    /// A node that has nothing yet.
    pub(super) fn new(dir: &Path, number: u8) -> Self {
        // Tests run at the same time: each node has ports of its own, besides an address.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let port =
            21000 + (u16::try_from(std::process::id() % 200).unwrap() * 100 + NEXT.fetch_add(2, Ordering::Relaxed) * 2) % 20000;
        let root = Root::new(dir.join(format!("n{number}")));
        let address = IpAddr::V4(Ipv4Addr::new(127, 77, 0, number));
        Self { name: format!("n{number}"), root, address, port, fakes: Fakes::default(), daemon: None }
    }

    pub(super) fn options(&self) -> NodeOptions {
        let location = self.root.path().join("pool").display().to_string();
        NodeOptions {
            root: self.root.clone(),
            listen: Listen { address: Some(self.address), port: Some(self.port), nbd: NbdChoice::SocketOnly },
            pool: Some(PoolChoice { kind: PoolKind::File, location }),
            witness: false,
            docker: None,
        }
    }

    pub(super) async fn init(&mut self) -> Result<(), ApiError> {
        let name = Some(self.name.parse().unwrap());
        let options = InitOptions { local: self.options(), name, force: false };
        Control::new(self.fakes.factory()).init(options).await?;
        self.start().await
    }

    pub(super) async fn join(&mut self, ticket: &JoinTicket) -> Result<(), ApiError> {
        let (contact, token) = (ticket.contact, ticket.token.clone());
        let options = JoinOptions { local: self.options(), contact, token, force: false };
        Control::new(self.fakes.factory()).join(options).await?;
        self.start().await
    }

    pub(super) async fn start(&mut self) -> Result<(), ApiError> {
        self.daemon = Some(Daemon::start(self.root.clone(), &self.fakes.factory()).await?);
        Ok(())
    }

    pub(super) async fn stop(&mut self) {
        self.daemon.take().expect("it runs").end().await;
    }

    pub(super) fn client(&self) -> Client {
        Client::unix(self.root.api_socket())
    }

    pub(super) fn plane(&self) -> Arc<FakePlane> {
        self.fakes.last()
    }

    pub(super) async fn ticket(&self, of: &Self) -> Result<JoinTicket, ApiError> {
        let (name, address) = (of.name.parse().unwrap(), of.address);
        self.client().add_node(AddNode { name, address, port: Some(of.port), witness: false, valid_for: None }).await
    }

    /// What is on disk, for "nothing was changed".
    pub(super) fn tree(&self) -> Vec<String> {
        fn walk(path: &Path, found: &mut Vec<String>) {
            let Ok(entries) = std::fs::read_dir(path) else { return };
            for entry in entries.flatten() {
                found.push(entry.path().display().to_string());
                walk(&entry.path(), found);
            }
        }
        let mut found = Vec::new();
        walk(self.root.path(), &mut found);
        found.sort();
        found
    }
}

/// A cluster of `count` running nodes that all see each other.
pub(super) async fn cluster(dir: &Path, count: u8) -> Vec<TestNode> {
    let mut nodes: Vec<TestNode> = (1..=count).map(|number| TestNode::new(dir, number)).collect();
    nodes[0].init().await.unwrap();
    for at in 1..nodes.len() {
        let ticket = nodes[0].ticket(&nodes[at]).await.unwrap();
        nodes[at].join(&ticket).await.unwrap();
    }
    for node in &nodes {
        let client = node.client();
        eventually("every node is online", async || {
            let seen = client.list_nodes(crate::api::ListNodes {}).await.unwrap_or_default();
            seen.len() == usize::from(count) && seen.iter().all(|node| node.online && node.pool.is_some())
        })
        .await;
    }
    nodes
}

/// A model with one resource, the first, in this round of removals.
pub(super) fn model_with(resource: ResourceId, round: u64) -> Cluster {
    let (name, certificate) = ("web".parse().unwrap(), Certificate { serial: String::new(), fingerprint: String::new() });
    let (address, ports, kind) = (IpAddr::V4(Ipv4Addr::LOCALHOST), Ports::default(), NodeKind::Storage);
    let mut model = Cluster::default();
    let cluster = ClusterId(1);
    model.apply(Command::Init { cluster, name: "n1".parse().unwrap(), address, ports, kind, certificate }).unwrap();
    let (options, properties) = (BTreeMap::new(), BTreeMap::new());
    model.apply(Command::CreateResource { name, options, properties, now: 1 }).unwrap();
    for round in 0..round {
        model.apply(Command::EndRound { resource, round }).unwrap();
    }
    model
}

/// Waits for something that has to come about.
pub(super) async fn eventually(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !reached().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// An address where nobody listens.
pub(super) fn nobody() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, 1, 1)), 9)
}
