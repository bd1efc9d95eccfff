//! `init`, `join`, `recover` and `daemon`: what makes a node, and runs it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use drbdpool::PoolSpec;

use super::config::{Config, Membership, consensus_file, tls_directory, unusable};
use super::consensus::{Carried, CarryError, Consensus, Epoch, Setup as ConsensusSetup, Transport};
use super::daemon::{self, PlaneFactory};
use super::former::{Former, remove_leftovers};
use super::join::{Enter, ask_entry, ask_plan};
use super::local;
use super::metadata;
use super::tls::{Authority, Credentials};
use super::token::Token;
use crate::api::metadata::{MetadataOf, MetadataReport, RestoreMetadata};
use crate::api::setup::{
    CreatePoolOptions, DaemonOptions, Founded, HelperOptions, InitOptions, JoinOptions, Listener, NodeOptions, RecoverOptions,
    RelayOptions, Root, Setup, ports,
};
use crate::api::{ApiError, Code, Done, Promise};
use crate::cluster::{Command, NodeKind, Ports};
use crate::units::{ClusterId, Name, NodeId};

/// The control plane as the command line knows it.
pub struct Control {
    plane: PlaneFactory,
}

impl Control {
    /// A control plane whose daemons drive the data plane that `plane` makes.
    pub fn new(plane: PlaneFactory) -> Self {
        Self { plane }
    }
}

impl Setup for Control {
    fn init(&self, options: InitOptions) -> Promise<'_, Founded> {
        Box::pin(init(options))
    }

    fn join(&self, options: JoinOptions) -> Promise<'_, Founded> {
        Box::pin(join(options))
    }

    fn recover(&self, options: RecoverOptions) -> Promise<'_, Founded> {
        Box::pin(async move { recover(&options.root) })
    }

    fn listeners(&self) -> Result<Vec<Listener>, ApiError> {
        local::inherited_listeners()
    }

    fn create_pool(&self, options: CreatePoolOptions) -> Promise<'_, ()> {
        Box::pin(async move {
            let spec = local::pool_spec(&options.pool)?;
            Ok(drbdpool::create_pool(&spec, &options.devices)?)
        })
    }

    fn metadata_report(&self, root: Root, of: MetadataOf) -> Promise<'_, MetadataReport> {
        Box::pin(async move { metadata::report(&root, &of) })
    }

    fn metadata_dump(&self, root: Root, of: MetadataOf) -> Promise<'_, String> {
        Box::pin(async move { metadata::dump(&root, &of) })
    }

    fn metadata_restore(&self, asked: RestoreMetadata) -> Promise<'_, Done> {
        Box::pin(async move { metadata::restore(&asked) })
    }

    fn daemon(&self, options: DaemonOptions) -> Promise<'_, ()> {
        Box::pin(daemon::run(options.root, self.plane.clone()))
    }

    fn attach_helper(&self, options: HelperOptions) -> Promise<'_, ()> {
        Box::pin(crate::attach::helper::run(options))
    }

    fn docker_relay(&self, options: RelayOptions) -> Promise<'_, ()> {
        Box::pin(super::docker::relay(options))
    }
}

async fn init(options: InitOptions) -> Result<Founded, ApiError> {
    let InitOptions { local: node, name, force } = options;
    let name = name.map_or_else(local::host_name, Ok)?;
    let address = node.listen.address.map_or_else(local::default_address, Ok)?;
    let ports = local::ports(node.listen.port.unwrap_or(ports::PEERS), node.listen.nbd.on(address))?;
    let kind = if node.witness { NodeKind::Witness } else { NodeKind::Storage };
    let place = Place::prepare(&node, force, address, ports, kind)?;
    let cluster = ClusterId(u128::from_le_bytes(local::random_bytes()));
    let config = place.config(&node, name.clone());
    place
        .settle(&node.root, cluster, NodeId(0), async |place| {
            let authority = Authority::create(cluster)?;
            let (credentials, certificate) = own_certificate(&authority, cluster, &name, address)?;
            place.store(&node.root, &config, &credentials)?;
            let first = Command::Init { cluster, name: name.clone(), address, ports, kind, certificate };
            let setup = ConsensusSetup { me: NodeId(0), file: consensus_file(&node.root), transport: Arc::new(Alone) };
            let epoch = Epoch { number: 1, id: cluster.0 };
            Consensus::found(setup, epoch, SocketAddr::new(address, ports.control), first).await?.close().await;
            Membership { cluster, node: NodeId(0), told: Vec::new() }.store(&node.root)
        })
        .await
        .map(|(pool, notes)| founded(&config, cluster, pool, notes))
}

async fn join(options: JoinOptions) -> Result<Founded, ApiError> {
    let JoinOptions { local: node, contact, token, force } = options;
    refuse_member(&node.root, force)?;
    let token: Token = token.parse()?;
    let planned = ask_plan(contact, &token).await?;
    let address = node.listen.address.unwrap_or(planned.address);
    let ports = local::ports(node.listen.port.unwrap_or(planned.ports.control), node.listen.nbd.on(address))?;
    if node.witness && planned.kind == NodeKind::Storage {
        let message = format!("node '{}' was added as one with storage", token.node);
        return Err(ApiError::new(Code::BadRequest, message).hint("leave out --no-storage, or remove it and add it as a witness"));
    }
    let place = Place::prepare(&node, force, address, ports, planned.kind)?;
    let config = place.config(&node, token.node.clone());
    place
        .settle(&node.root, planned.cluster, planned.node, async |place| {
            let key = rcgen::KeyPair::generate().map_err(|error| ApiError::new(Code::Internal, error))?;
            let enter = Enter { address, ports, public_key: key.public_key_pem() };
            let welcome = ask_entry(contact, &token, enter).await?;
            let (ca, ca_key, certificate) = (welcome.ca, welcome.ca_key, welcome.certificate);
            place.store(&node.root, &config, &Credentials { ca, ca_key, certificate, key: key.serialize_pem() })?;
            Consensus::prepare(&consensus_file(&node.root), welcome.epoch)?;
            Membership { cluster: planned.cluster, node: planned.node, told: welcome.told }.store(&node.root)
        })
        .await
        .map(|(pool, notes)| founded(&config, planned.cluster, pool, notes))
}

fn recover(root: &Root) -> Result<Founded, ApiError> {
    let membership = Membership::load(root)?.ok_or_else(no_member)?;
    let config = Config::load(root)?;
    let _held = local::hold(root)?;
    let model = Consensus::recover(&consensus_file(root), u128::from_le_bytes(local::random_bytes()))?;
    let others: Vec<&str> =
        model.nodes.values().filter(|node| node.id != membership.node).map(|node| node.name.as_str()).collect();
    let mut notes = vec![
        format!("this node's model, of {} resources, is the cluster's now; later changes that it had not heard of are lost", {
            model.resources.len()
        }),
        "volumes and their data were not touched".to_owned(),
    ];
    if !others.is_empty() {
        notes.push(format!("still members, and followers when they return: {}", others.join(", ")));
        notes.push("remove those that are lost for good: `blkrep remove-node --force NODE`".to_owned());
    }
    let pool = config.pool.clone().unwrap_or_else(|| "no storage".to_owned());
    Ok(founded(&config, membership.cluster, pool, notes))
}

/// What was checked and opened of the machine before anything is changed for good.
struct Place {
    address: IpAddr,
    ports: Ports,
    kind: NodeKind,
    pool: Option<PoolSpec>,
    reason: Option<String>,
}

impl Place {
    /// Checks everything that can be checked without a change.
    fn prepare(node: &NodeOptions, force: bool, address: IpAddr, ports: Ports, kind: NodeKind) -> Result<Self, ApiError> {
        refuse_member(&node.root, force)?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(ApiError::new(Code::BadRequest, format_args!("{address} is not an address that other nodes can reach"))
                .hint("give the address of one of this machine's network interfaces"));
        }
        local::check_ports(address, ports, node.listen.nbd.on(address))?;
        let (pool, reason) = match kind {
            NodeKind::Storage => {
                let (spec, reason) = local::choose_pool(node.pool.as_ref(), &node.root)?;
                (Some(spec), reason)
            }
            NodeKind::Diskless | NodeKind::Witness => (None, None),
        };
        Ok(Self { address, ports, kind, pool, reason })
    }

    fn config(&self, node: &NodeOptions, name: Name) -> Config {
        Config {
            name,
            address: self.address,
            kind: self.kind,
            pool: self.pool.as_ref().map(ToString::to_string),
            nbd: node.listen.nbd.on(self.address),
            docker: node.docker.clone(),
            docker_defaults: BTreeMap::new(),
            ports: self.ports,
        }
    }

    /// Takes the pool and does `work`; when that fails, everything is as it was before.
    async fn settle(
        self,
        root: &Root,
        cluster: ClusterId,
        node: NodeId,
        work: impl AsyncFnOnce(&Self) -> Result<(), ApiError>,
    ) -> Result<(String, Vec<String>), ApiError> {
        let made = local::make_directories(root)?;
        let settled = self.settle_in(root, cluster, node, work).await;
        if settled.is_err() {
            // Best effort: what stays is not a member's without the membership file, and is written over the next time.
            let _ = std::fs::remove_file(root.state().join("lock"));
            made.undo();
        }
        let reason = self.reason.clone();
        settled.map(|pool| (pool, reason.into_iter().collect()))
    }

    async fn settle_in(
        &self,
        root: &Root,
        cluster: ClusterId,
        node: NodeId,
        work: impl AsyncFnOnce(&Self) -> Result<(), ApiError>,
    ) -> Result<String, ApiError> {
        let _held = local::hold(root)?;
        let mut former = Former::set_aside(root)?;
        let settled = self.settle_anew(root, cluster, node, &mut former, work).await;
        match &settled {
            Ok(_) => former.forget(),
            Err(_) => former.bring_back(),
        }
        settled
    }

    async fn settle_anew(
        &self,
        root: &Root,
        cluster: ClusterId,
        node: NodeId,
        former: &mut Former,
        work: impl AsyncFnOnce(&Self) -> Result<(), ApiError>,
    ) -> Result<String, ApiError> {
        let claimed = |spec: &PoolSpec| former.claim_pool(spec, cluster, node).map(|pool| (spec.clone(), pool));
        let pool = self.pool.as_ref().map(claimed).transpose()?;
        match work(self).await {
            Ok(()) => Ok(pool.map_or_else(|| "no storage".to_owned(), |(spec, _)| spec.to_string())),
            Err(error) => {
                local::release_pool(pool, cluster, node);
                remove_leftovers(root)?;
                let _ = std::fs::remove_file(root.config_file());
                Err(error)
            }
        }
    }

    fn store(&self, root: &Root, config: &Config, credentials: &Credentials) -> Result<(), ApiError> {
        let directory = tls_directory(root);
        credentials.store(&directory).map_err(|error| unusable(&directory, &error))?;
        config.store(root)
    }
}

fn refuse_member(root: &Root, force: bool) -> Result<(), ApiError> {
    if force || Membership::load(root)?.is_none() {
        return Ok(());
    }
    let name = Config::load(root).map_or_else(|_| "this node".to_owned(), |config| format!("node '{}'", config.name));
    Err(ApiError::new(Code::AlreadyInitialized, format_args!("{name} is a member of a cluster already"))
        .hint("--force makes it forget that cluster; its volumes stay where they are"))
}

/// Said wherever a membership is needed.
pub(super) fn no_member() -> ApiError {
    ApiError::new(Code::NotInitialized, "this node is not a member of a cluster")
        .hint("`blkrep init ADDRESS` makes a new cluster; `blkrep join`, with a token of `blkrep add-node`, joins one")
}

fn own_certificate(
    authority: &Authority,
    cluster: ClusterId,
    name: &Name,
    address: IpAddr,
) -> Result<(Credentials, crate::cluster::Certificate), ApiError> {
    let key = rcgen::KeyPair::generate().map_err(|error| ApiError::new(Code::Internal, error))?;
    let serial = u64::from_le_bytes(local::random_bytes());
    let issued = authority.issue(cluster, NodeId(0), name, address, &key.public_key_pem(), serial)?;
    let (ca, ca_key) = (authority.certificate.clone(), authority.key_pem());
    Ok((Credentials { ca, ca_key, certificate: issued.pem, key: key.serialize_pem() }, issued.certificate))
}

fn founded(config: &Config, cluster: ClusterId, pool: String, notes: Vec<String>) -> Founded {
    let address = SocketAddr::new(config.address, config.ports.control);
    Founded { node: config.name.clone(), address, cluster: cluster.to_string(), pool, notes }
}

/// The network of a node that founds a cluster: there is nobody else.
struct Alone;

impl Transport for Alone {
    fn call(&self, to: NodeId, _: SocketAddr, _: Vec<u8>, _: Duration) -> Carried<'_> {
        Box::pin(async move { Err(CarryError::Unreachable(to, "this node is alone".into())) })
    }
}
