//! What a node needs of its machine: its directory for itself, its addresses and ports, its pool, random numbers, the time.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use drbdpool::{Pool, PoolError, PoolSpec};
use rustix::fs::{FlockOperation, flock};

use super::config::unusable;
use crate::api::setup::{Listener, PoolChoice, Root};
use crate::api::{ApiError, Code};
use crate::cluster::{self, PoolReport, Ports, Seed};
use crate::ring;
use crate::units::{ClusterId, Name, NodeId, PoolKind};

/// A node's directory, held by this process alone until this is dropped.
#[derive(Debug)]
pub struct Held {
    _file: fs::File,
}

/// How long another process may keep the node's directory: a daemon that was killed a moment ago has it until its last I/O is done.
const DYING: Duration = Duration::from_secs(1);

/// Makes the node's directory this process's own; refused while another process has it.
pub fn hold(root: &Root) -> Result<Held, ApiError> {
    let path = root.state().join("lock");
    // Whoever could open it could lock it, and keep the daemon from starting.
    let options = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).clone();
    let file = options.open(&path).map_err(|e| unusable(&path, &e))?;
    let deadline = Instant::now() + DYING;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Held { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!("a daemon runs in {} already", root.path().display());
                return Err(
                    ApiError::new(Code::InUse, message).hint("`blkrep shutdown` ends it; `--root` names another directory")
                );
            }
            Err(error) => return Err(unusable(&path, &error.into())),
        }
    }
}

/// The directories that a node writes to, and which of them are new: those go again when nothing comes of it.
pub fn make_directories(root: &Root) -> Result<Made, ApiError> {
    let mut made = Made(Vec::new());
    let private = [root.state(), root.run()];
    let public = [root.config_file(), root.log_file()].map(|file| file.parent().expect("files are below the root").to_owned());
    for (path, mode) in private.into_iter().map(|p| (p, 0o700)).chain(public.into_iter().map(|p| (p, 0o755))) {
        let missing = path.ancestors().take_while(|ancestor| !ancestor.exists()).map(ToOwned::to_owned);
        made.0.extend(missing.collect::<Vec<_>>().into_iter().rev());
        let result = fs::DirBuilder::new().recursive(true).mode(mode).create(&path);
        if let Err(error) = result {
            made.undo();
            return Err(unusable(&path, &error));
        }
    }
    Ok(made)
}

/// New directories, outermost first.
#[derive(Debug)]
pub struct Made(Vec<std::path::PathBuf>);

impl Made {
    /// Removes those that are empty.
    pub fn undo(&self) {
        for path in self.0.iter().rev() {
            // One that is not empty belongs to somebody else by now.
            let _ = fs::remove_dir(path);
        }
    }
}

/// Whether the node can listen on these, said before anything is changed.
pub fn check_ports(address: IpAddr, ports: Ports, nbd: Option<SocketAddr>) -> Result<(), ApiError> {
    let peers = [ports.control, ports.replication].map(|port| SocketAddr::new(address, port));
    for socket in peers.into_iter().chain(nbd) {
        // Without SO_REUSEADDR this would refuse a port that only has connections of the past.
        super::net::bind(socket).map_err(|error| cannot_listen(socket, &error))?;
    }
    Ok(())
}

/// The sockets that this process was started with.
pub fn inherited_listeners() -> Result<Vec<Listener>, ApiError> {
    let listeners = ring::inherited_listeners().map_err(|error| {
        ApiError::new(Code::BadRequest, error)
            .hint("hand over sockets that listen for NBD clients and nothing else, or unset LISTEN_FDS (see sd_listen_fds(3))")
    })?;
    let own = listeners.into_iter().map(|listener| match listener {
        ring::Listener::Unix(listener) => Listener::Unix(listener),
        ring::Listener::Tcp(listener) => Listener::Tcp(listener),
    });
    Ok(own.collect())
}

/// Why a port cannot be listened on, in words.
pub fn cannot_listen(socket: SocketAddr, error: &io::Error) -> ApiError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ApiError::new(Code::Io, format_args!("port {} of {} is in use", socket.port(), socket.ip()))
            .hint(format_args!("`ss -ltnp 'sport = :{}'` shows by whom; --port chooses another", socket.port())),
        io::ErrorKind::AddrNotAvailable => {
            ApiError::new(Code::BadRequest, format_args!("{} is not an address of this machine", socket.ip()))
                .hint("`ip address` shows those that are")
        }
        _ => ApiError::new(Code::Io, format_args!("cannot listen on {socket}: {error}")),
    }
}

/// The ports of a node whose control port is this: replication is next to it.
pub fn ports(control: u16, nbd: Option<SocketAddr>) -> Result<Ports, ApiError> {
    let replication = control.checked_add(1).filter(|_| control > 0).ok_or_else(|| {
        ApiError::new(Code::BadRequest, format_args!("{control} cannot be the port: the next one is for replication"))
            .hint("choose one from 1 to 65534")
    })?;
    Ok(Ports { control, replication, nbd: nbd.map_or_else(|| Ports::default().nbd, |nbd| nbd.port()) })
}

/// This machine's name, as the name of a node.
pub fn host_name() -> Result<Name, ApiError> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.parse().map_err(|error| {
        ApiError::new(Code::BadRequest, format_args!("the host's name cannot be the node's: {error}"))
            .hint("give one with --name")
    })
}

/// The address that the default route begins at. No packet is sent.
pub fn default_address() -> Result<IpAddr, ApiError> {
    let route = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    route().map_err(|error| {
        ApiError::new(Code::BadRequest, format_args!("this machine has no default route to take the address of: {error}"))
            .hint("give the node's address")
    })
}

/// The pool that was named, or the one a node has by default, and why it is that one.
pub fn choose_pool(choice: Option<&PoolChoice>, root: &Root) -> Result<(PoolSpec, Option<String>), ApiError> {
    let Some(choice) = choice else {
        let found = drbdpool::detect_default(&absolute(root)?)?;
        return Ok((found.spec, Some(found.reason)));
    };
    Ok((pool_spec(choice)?, None))
}

/// What an operator named, as a pool.
pub fn pool_spec(choice: &PoolChoice) -> Result<PoolSpec, ApiError> {
    format!("{}:{}", choice.kind, choice.location).parse().map_err(|error| ApiError::new(Code::BadRequest, error))
}

/// Makes a pool this node's. A thin one promises at most `oversubscription` times its size.
pub fn claim_pool(
    spec: &PoolSpec,
    cluster: ClusterId,
    node: NodeId,
    oversubscription: Option<u32>,
) -> Result<Box<dyn Pool>, PoolError> {
    let times = oversubscription.unwrap_or(drbdpool::OVERSUBSCRIPTION);
    drbdpool::claim_with(spec, &identity(cluster, node)?, times)
}

/// A node as pools know it.
pub fn identity(cluster: ClusterId, node: NodeId) -> Result<drbdpool::Identity, PoolError> {
    drbdpool::Identity::new(cluster.to_string(), node.to_string())
}

/// Opens the pool that is this node's.
pub fn open_pool(spec: &PoolSpec, cluster: ClusterId, node: NodeId) -> Result<Box<dyn Pool>, ApiError> {
    let open = identity(cluster, node).and_then(|identity| drbdpool::open(spec, &identity));
    Ok(open?)
}

/// Takes a node's mark off its pool again, after nothing came of it.
pub fn release_pool(pool: Option<(PoolSpec, Box<dyn Pool>)>, cluster: ClusterId, node: NodeId) {
    let Some((spec, pool)) = pool else { return };
    drop(pool);
    if let Err(error) = identity(cluster, node).and_then(|identity| drbdpool::release(&spec, &identity)) {
        tracing::warn!(%error, "the pool keeps this node's mark");
    }
}

/// A pool as it is announced to the cluster.
pub fn report(pool: &dyn Pool) -> Result<PoolReport, PoolError> {
    look(pool).map(|(report, _)| report)
}

/// The same, and what is amiss with it all the same.
pub fn look(pool: &dyn Pool) -> Result<(PoolReport, Option<String>), PoolError> {
    let capacity = pool.capacity()?;
    let (name, kind, zeroed) = match pool.spec() {
        PoolSpec::Lvm { volume_group } => (volume_group.clone(), PoolKind::Lvm, false),
        PoolSpec::LvmThin { volume_group, thin_pool } => (format!("{volume_group}/{thin_pool}"), PoolKind::LvmThin, true),
        PoolSpec::File { directory } => (directory.display().to_string(), PoolKind::File, true),
        PoolSpec::FileThin { directory } => (directory.display().to_string(), PoolKind::FileThin, true),
    };
    let promises = capacity.promises.map(|promises| cluster::PoolPromises { times: promises.times, made: promises.made });
    let fill = capacity.fill.map(|fill| cluster::PoolFill { data: fill.data, metadata: fill.metadata, promises });
    Ok((PoolReport { name, kind, total: capacity.total, free: capacity.free, zeroed, fill }, capacity.trouble))
}

/// Lets the threads that the calling one starts serve block devices of this machine itself: their memory is never waited for until such
/// a device has taken what is to be written to it.
pub fn serve_own_machine() {
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::debug!(%error, "where memory is short, devices of this machine that this daemon serves may have to wait for each other");
    }
}

/// Random bits of the system's.
pub fn random_seed() -> Seed {
    Seed(u128::from_le_bytes(random_bytes()))
}

/// Random bytes of the system's.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn absolute(root: &Root) -> Result<std::path::PathBuf, ApiError> {
    let pool = root.file_pool();
    std::path::absolute(&pool).map_err(|error| unusable(&pool, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_waited_for_while_a_killed_daemon_lets_go_of_it_and_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::create_dir_all(root.state()).unwrap();
        let dying = hold(&root).unwrap();
        let next = thread::scope(|scope| {
            let next = scope.spawn(|| hold(&root));
            // The last I/O of the one that was killed.
            thread::sleep(Duration::from_millis(50));
            drop(dying);
            next.join().unwrap()
        });
        let _lives = next.unwrap();
        assert_eq!(hold(&root).unwrap_err().code, Code::InUse);
    }
}
