//! What no daemon can be asked for, because it makes or is the daemon: `init`, `join`, `recover` and `daemon`.
//!
//! The command line fills in these values and calls the [`Setup`] it was given; the control plane implements it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::metadata::{MetadataOf, MetadataReport, RestoreMetadata};
use super::operations::Promise;
use super::status::Done;
use crate::units::{Name, PoolKind};

/// The folder that everything a node owns hangs below: `etc/blkrep.toml`, `var/lib/blkrep`, `run/blkrep` and `var/log`. It is `/` for
/// the machine's one ordinary node, and a folder of its own for each of several nodes on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The root of a machine's one ordinary node.
    pub const DEFAULT: &str = "/";

    /// The root `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The node's own settings: its name, addresses, ports and pool.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("etc/blkrep.toml")
    }

    /// The node's part of the cluster's state, and its keys.
    pub fn state(&self) -> PathBuf {
        self.0.join("var/lib/blkrep")
    }

    /// The sockets and the process id, gone after a restart of the machine.
    pub fn run(&self) -> PathBuf {
        self.0.join("run/blkrep")
    }

    /// The socket of the API; only its owner may open it.
    pub fn api_socket(&self) -> PathBuf {
        self.run().join("api.sock")
    }

    /// The root whose [`api_socket`](Self::api_socket) this is.
    pub fn of_api_socket(socket: &Path) -> Option<Self> {
        let root = Self::new(socket.ancestors().nth(3)?);
        (root.api_socket() == socket).then_some(root)
    }

    /// The socket for NBD clients of this machine.
    pub fn nbd_socket(&self) -> PathBuf {
        self.run().join("nbd.sock")
    }

    /// The process id of the daemon that runs.
    pub fn pid_file(&self) -> PathBuf {
        self.run().join("blkrep.pid")
    }

    /// Where a daemon that was started in the background writes its log.
    pub fn log_file(&self) -> PathBuf {
        self.0.join("var/log/blkrep.log")
    }

    /// The file pool's directory, where no other pool was named.
    pub fn file_pool(&self) -> PathBuf {
        self.state().join("pool")
    }

    /// Whether this is the root of the machine's one ordinary daemon, that a service manager may look after.
    pub fn is_default(&self) -> bool {
        self.0 == Path::new(Self::DEFAULT)
    }
}

/// The ports that a node uses unless others are named.
pub mod ports {
    /// Between nodes: drbdmanage's.
    pub const PEERS: u16 = 6999;
    /// NBD's, as registered with IANA.
    pub const NBD: u16 = 10809;
}

/// What is a node's own affair; kept in its [`config_file`](Root::config_file), and read by the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// Its root.
    pub root: Root,
    /// Where it listens for peers, and NBD clients.
    pub listen: Listen,
    /// Its storage; `None` chooses: the volume group `drbdpool` where there is one, else files in [`Root::file_pool`].
    pub pool: Option<PoolChoice>,
    /// Whether it has no storage at all: a witness.
    pub witness: bool,
    /// Where the Docker plugin listens; `None` for no plugin.
    pub docker: Option<PathBuf>,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Its address for peers; `None`: `init` takes the address of the default route, `join` what `add-node` was told.
    pub address: Option<IpAddr>,
    /// Its port for peers; `None`: `init` takes [`ports::PEERS`], `join` what `add-node` was told.
    pub port: Option<u16>,
    /// Where NBD clients reach it.
    pub nbd: NbdChoice,
}

/// Where NBD clients reach a node, its unix socket apart, which is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NbdChoice {
    /// On the machine itself: 127.0.0.1, or the node's own address when that is a loopback one.
    #[default]
    Usual,
    /// There. Anything but a loopback address wants TLS.
    At(SocketAddr),
    /// Nowhere else.
    SocketOnly,
}

impl NbdChoice {
    /// The address to listen on, of a node whose address for peers is `address`.
    pub fn on(self, address: IpAddr) -> Option<SocketAddr> {
        match self {
            Self::Usual if address.is_loopback() => Some(SocketAddr::new(address, ports::NBD)),
            Self::Usual => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports::NBD)),
            Self::At(socket) => Some(socket),
            Self::SocketOnly => None,
        }
    }
}

/// A pool, as an operator names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolChoice {
    /// How it stores.
    pub kind: PoolKind,
    /// The volume group, `group/thinpool`, or the directory.
    pub location: String,
}

/// Makes a new cluster with this node as its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// The node.
    pub local: NodeOptions,
    /// Its name; `None` for the host's name.
    pub name: Option<Name>,
    /// Whether an earlier cluster's state below the root is wiped. Volumes of it are kept where they are.
    pub force: bool,
}

/// Makes this node a member of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinOptions {
    /// The node.
    pub local: NodeOptions,
    /// A member: address and port.
    pub contact: SocketAddr,
    /// The token that `add-node` printed.
    pub token: String,
    /// Whether an earlier cluster's state below the root is wiped.
    pub force: bool,
}

impl std::fmt::Debug for JoinOptions {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinOptions").field("local", &self.local).field("contact", &self.contact).finish_non_exhaustive()
    }
}

/// Restarts the control plane from this node's state alone, after its other voters are lost for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverOptions {
    /// The node's root.
    pub root: Root,
}

/// Makes a volume group, or a thin pool in one, of empty devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatePoolOptions {
    /// What it shall be.
    pub pool: PoolChoice,
    /// The devices.
    pub devices: Vec<PathBuf>,
}

/// Runs a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonOptions {
    /// Its root.
    pub root: Root,
}

/// Keeps one attachment alive; the daemon starts it as a process of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperOptions {
    /// The node's root.
    pub root: Root,
    /// The attachment's directory.
    pub directory: PathBuf,
    /// How long the device's users wait for a daemon that is away before they get errors.
    pub patience: Duration,
}

/// Runs in Docker's managed plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayOptions {
    /// Where Docker asks.
    pub listen: PathBuf,
    /// The daemon's socket for Docker, as the plugin sees it.
    pub socket: PathBuf,
    /// A directory of the node that holds what the daemon has mounted, and where the plugin sees it.
    pub node: (PathBuf, PathBuf),
    /// Where the plugin shows volumes to Docker.
    pub volumes: PathBuf,
}

/// What `init` and `join` made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Founded {
    /// The node's name.
    pub node: Name,
    /// Its address for peers.
    pub address: SocketAddr,
    /// The cluster's id, in hexadecimal.
    pub cluster: String,
    /// Its storage, in words: `volume group drbdpool`, `files in /var/lib/blkrep/pool`.
    pub pool: String,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// A listening socket that this process was started with.
#[derive(Debug)]
pub enum Listener {
    /// Of a path.
    Unix(UnixListener),
    /// Of an address and port.
    Tcp(TcpListener),
}

/// What the control plane offers without a daemon. `init`, `join` and `recover` refuse while a daemon runs below the root,
/// and leave a root that a daemon can be started on.
pub trait Setup: Send + Sync {
    /// Makes a new cluster.
    fn init(&self, options: InitOptions) -> Promise<'_, Founded>;

    /// Joins a cluster.
    fn join(&self, options: JoinOptions) -> Promise<'_, Founded>;

    /// Restarts the control plane from one node's state, and says in notes what may be lost.
    fn recover(&self, options: RecoverOptions) -> Promise<'_, Founded>;

    /// The listening sockets that whoever started this process has opened for it (sd_listen_fds(3)); none the second time.
    fn listeners(&self) -> Result<Vec<Listener>, ApiError>;

    /// Makes a volume group, or a thin pool in one, of devices that hold nothing; others are refused by what is on them. It is
    /// nobody's pool yet.
    fn create_pool(&self, options: CreatePoolOptions) -> Promise<'_, ()>;

    /// What a replica's metadata says. As with all that concerns metadata, nobody uses it meanwhile: a node whose replica is asked for
    /// is stopped.
    fn metadata_report(&self, root: Root, of: MetadataOf) -> Promise<'_, MetadataReport>;

    /// A replica's metadata as a document, which [`metadata_restore`](Self::metadata_restore) takes. Refused when it is damaged.
    fn metadata_dump(&self, root: Root, of: MetadataOf) -> Promise<'_, String>;

    /// Writes metadata from a document, durable when this returns. Unless the document is said to be exact, everything counts as dirty
    /// for every peer and the data as an old state: what came after it is not in it.
    fn metadata_restore(&self, asked: RestoreMetadata) -> Promise<'_, Done>;

    /// Runs the daemon until it is told to end: by a signal or by [`shutdown`](super::Service::shutdown).
    fn daemon(&self, options: DaemonOptions) -> Promise<'_, ()>;

    /// Keeps an attachment alive until it is told to end, by SIGTERM.
    fn attach_helper(&self, options: HelperOptions) -> Promise<'_, ()>;

    /// Passes Docker's questions on to the node's daemon until the process is ended.
    fn docker_relay(&self, options: RelayOptions) -> Promise<'_, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_node_is_below_its_root() {
        let root = Root::new("/tmp/n");
        for path in [root.config_file(), root.api_socket(), root.nbd_socket(), root.pid_file(), root.log_file(), root.file_pool()]
        {
            assert!(path.starts_with(root.path()));
        }
        assert!(!root.is_default());
        assert_eq!(Root::of_api_socket(&root.api_socket()), Some(root));
        assert_eq!(Root::of_api_socket(Path::new("/run/blkrep/api.sock")), Some(Root::new(Root::DEFAULT)));
        assert_eq!(Root::of_api_socket(Path::new("/api.sock")), None);
        assert!(Root::new(Root::DEFAULT).is_default());
    }
}
