//! Nodes of a demo: each a daemon of this same program, below a root of its own.

use std::fs::OpenOptions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::api::setup::Root;
use crate::api::state::NodeState;
use crate::api::{self, AddNode, ApiError, Client, Code, ListNodes, Membership, Ping, Service};
use crate::cli::exit::Failure;
use crate::cli::wait;
use crate::units::Name;

/// How long anything may take that usually takes a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a daemon may take to end after it was asked to.
const GOODBYE: Duration = Duration::from_secs(10);

/// A node.
pub(super) struct Node {
    pub(super) name: Name,
    pub(super) root: Root,
    pub(super) client: Client,
    address: SocketAddr,
    daemon: Option<Child>,
}

/// The nodes, and the directory that holds their roots.
pub(super) struct Nodes {
    pub(super) directory: PathBuf,
    pub(super) all: Vec<Node>,
    keep: bool,
}

impl Nodes {
    /// A directory for nodes. Nodes that are not kept end with this process.
    pub(super) fn new(keep: bool) -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("blkrep-demo-{}", std::process::id()));
        let made = std::fs::create_dir(&directory);
        made.map_err(|error| Failure::io(format_args!("cannot make {}", directory.display()), &error))?;
        Ok(Self { directory, all: Vec::new(), keep })
    }

    /// Makes a cluster of `names` and starts it.
    pub(super) async fn start(&mut self, names: &[&str]) -> Result<(), Failure> {
        for (number, name) in (1..).zip(names) {
            self.all.push(Node::plan(&self.directory, name, number)?);
            self.raise().await?;
        }
        self.all_vote().await
    }

    /// Makes the last node a member, and starts it.
    async fn raise(&mut self) -> Result<(), Failure> {
        let keep = self.keep;
        let (node, members) = self.all.split_last_mut().expect("a node was planned");
        match members.first() {
            None => node.init().await?,
            Some(first) => node.join(first).await?,
        }
        node.start(keep)?;
        node.answers().await
    }

    /// Waits until every node is online and votes: a resource of three voters is one that a majority decides about.
    async fn all_vote(&self) -> Result<(), Failure> {
        let vote = wait::until(PATIENCE, async || {
            let nodes = self.all[0].client.list_nodes(ListNodes {}).await.ok()?;
            let votes = |node: &api::Node| matches!(node.membership, Membership::Voter | Membership::Leader);
            let ready = nodes.iter().filter(|node| node.state() == NodeState::Ok && votes(node)).count();
            (ready == self.all.len()).then_some(())
        });
        vote.await.ok_or_else(|| late("the nodes did not find each other"))
    }

    /// The node of a name.
    pub(super) fn named(&self, name: &Name) -> &Node {
        self.all.iter().find(|node| node.name == *name).expect("the cluster has the demo's nodes only")
    }

    /// Kills a node as a crash would.
    pub(super) async fn kill(&mut self, name: &Name) -> Result<(), Failure> {
        let node = self.all.iter_mut().find(|node| node.name == *name).expect("the cluster has the demo's nodes only");
        let mut daemon = node.daemon.take().expect("it is running");
        daemon.kill().await.map_err(|error| Failure::io(format_args!("cannot kill {name}"), &error))
    }

    /// Starts a node again.
    pub(super) async fn restart(&mut self, name: &Name) -> Result<(), Failure> {
        let keep = self.keep;
        let node = self.all.iter_mut().find(|node| node.name == *name).expect("the cluster has the demo's nodes only");
        node.start(keep)?;
        node.answers().await
    }

    /// Ends every node, and removes what they have left.
    pub(super) async fn tidy_up(&mut self) -> Result<(), Failure> {
        self.stop().await;
        let removed = std::fs::remove_dir_all(&self.directory);
        removed.map_err(|error| Failure::io(format_args!("cannot remove {}", self.directory.display()), &error))
    }

    /// Ends every node in order.
    pub(super) async fn stop(&mut self) {
        for daemon in self.all.iter().filter_map(|node| node.daemon.as_ref()).filter_map(Child::id) {
            if let Some(pid) = i32::try_from(daemon).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        for mut daemon in self.all.iter_mut().filter_map(|node| node.daemon.take()) {
            if tokio::time::timeout(GOODBYE, daemon.wait()).await.is_err() {
                let _ = daemon.kill().await;
            }
        }
    }
}

impl Node {
    /// A node that is not made yet: an address of its own on the loopback, and a port that is free there.
    fn plan(directory: &Path, name: &str, number: u8) -> Result<Self, Failure> {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 77, number));
        let free = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| Failure::io(format_args!("cannot listen at {address}"), &error))?;
        let root = Root::new(directory.join(name));
        let client = Client::unix(root.api_socket()).patience(PATIENCE);
        let name = name.parse().expect("the demo's names are names");
        Ok(Self { name, root, client, address, daemon: None })
    }

    async fn init(&self) -> Result<(), Failure> {
        let (address, port) = (self.address.ip().to_string(), self.address.port().to_string());
        self.run(&["init", &address, "--port", &port, "--name", self.name.as_str(), "--no-nbd", "--no-start"], "").await
    }

    async fn join(&self, member: &Self) -> Result<(), Failure> {
        let (name, address) = (self.name.clone(), self.address.ip());
        let request = AddNode { name, address, port: Some(self.address.port()), witness: false, valid_for: None };
        let ticket = member.client.add_node(request).await?;
        self.run(&["join", &ticket.contact.to_string(), "--no-nbd", "--no-start"], &ticket.token).await
    }

    /// Runs this program to its end, with the node's root and `input` on its standard input.
    async fn run(&self, arguments: &[&str], input: &str) -> Result<(), Failure> {
        let pool = format!("file:{}", self.root.file_pool().display());
        let mut command = self.program()?;
        command.args(arguments).args(["--pool", &pool]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| Failure::io(format_args!("cannot run blkrep {}", arguments[0]), &error);
        let mut child = command.spawn().map_err(failed)?;
        let mut stdin = child.stdin.take().expect("standard input is piped");
        // One that does not read it tells why on its standard error.
        let _ = stdin.write_all(format!("{input}\n").as_bytes()).await;
        drop(stdin);
        let output = child.wait_with_output().await.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&output.stderr);
        let message = format!("blkrep {} failed on {}: {}", arguments[0], self.name, told.trim().trim_start_matches("blkrep: "));
        Err(ApiError::new(Code::Internal, message).into())
    }

    /// Starts the daemon. Unless it shall be kept, it ends with this process, however that ends.
    fn start(&mut self, keep: bool) -> Result<(), Failure> {
        let log_file = self.root.log_file();
        let failed = |error: std::io::Error| Failure::io(format_args!("cannot start {}", self.name), &error);
        let log = OpenOptions::new().create(true).append(true).open(log_file).map_err(failed)?;
        let mut command = self.program()?;
        command.args(["daemon", if keep { "--detached" } else { "--with-parent" }]);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log).kill_on_drop(!keep);
        self.daemon = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    async fn answers(&mut self) -> Result<(), Failure> {
        let answers = wait::until(PATIENCE, async || match self.client.ping(Ping {}).await {
            Ok(_) => Some(true),
            Err(_) => matches!(self.daemon.as_mut().map(Child::try_wait), Some(Ok(Some(_)))).then_some(false),
        });
        match answers.await {
            Some(true) => Ok(()),
            _ => Err(late(format_args!("the daemon of {} did not start", self.name))),
        }
    }

    fn program(&self) -> Result<Command, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::io("cannot find this program", &error))?;
        let mut command = Command::new(program);
        command.arg("--root").arg(self.root.path()).arg("--quiet").env_remove("BLKREP_ROOT");
        Ok(command)
    }
}

/// Something took longer than it may.
pub(super) fn late(what: impl std::fmt::Display) -> Failure {
    ApiError::new(Code::TimedOut, what).hint("the nodes' logs tell more").into()
}
