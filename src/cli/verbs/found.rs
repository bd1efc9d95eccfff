//! Making a cluster, and becoming a member of one: what no daemon can be asked for.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::api::setup::{Founded, InitOptions, JoinOptions, Listen, NbdChoice, NodeOptions, RecoverOptions, ports};
use crate::api::{ApiError, Code};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::cli::start;
use crate::cli::target::{Contact, PoolArgument};
use crate::units::Name;

/// Where Docker looks for plugins.
const DOCKER_SOCKET: &str = "/run/docker/plugins/blkrep.sock";

/// What `init` and `join` both want to know of the node.
const LOCAL: &[Arg] = &[
    Arg::option(
        "pool",
        None,
        Takes::Pool,
        "Its storage: lvm:GROUP, lvm-thin:GROUP/THINPOOL, file:DIRECTORY or file-thin:DIRECTORY [default: the volume \
         group drbdpool where there is one, else files in var/lib/blkrep/pool]",
    ),
    Arg::flag("no-storage", Some('s'), "It has no storage: it votes, and uses volumes of others"),
    Arg::option(
        "nbd",
        None,
        Takes::Socket,
        "Where NBD clients reach it over TCP [default: port 10809 of 127.0.0.1, or of the node's address when \
         that is a loopback one]",
    ),
    Arg::flag("no-nbd", None, "NBD clients reach it through its unix socket alone"),
    Arg::option(
        "docker-socket",
        None,
        Takes::Path,
        "Where the Docker plugin listens [default: /run/docker/plugins/blkrep.sock; with \
         another --root: nowhere]",
    ),
    Arg::flag("no-docker", None, "No Docker plugin"),
    Arg::flag("no-start", None, "Do not start the daemon"),
    Arg::flag("force", Some('f'), "Forget an earlier cluster; its volumes are left where they are, and not managed any more"),
];

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "init",
        aliases: &[],
        category: Category::Cluster,
        short: "Make a new cluster with this node as its first",
        long: "Draws the cluster's identity and its certificate authority, takes up the storage, and starts the daemon. The address \
               is the one that other nodes will reach this one by; without it, the address of the default route is taken.",
        args: &[
            &[
                Arg::optional_place("address", Takes::Address, "This node's address for its peers"),
                Arg::option("port", Some('p'), Takes::Port, "Its port for its peers [default: 6999]"),
                Arg::option("name", None, Takes::Node, "Its name [default: the host's]"),
            ],
            LOCAL,
        ],
        examples: &[
            Example { line: "init 10.43.100.2", does: "Make a cluster" },
            Example { line: "init --pool lvm-thin:vg0/thin 10.43.100.2", does: "Make one that stores in a thin pool" },
        ],
        runtime: Runtime::Daemon,
        run: |session, given| Box::pin(init(session, given)),
    },
    Verb {
        name: "join",
        aliases: &["join-cluster"],
        category: Category::Cluster,
        short: "Make this node a member of a cluster",
        long: "`blkrep add-node`, on a member, prints this command with its token. A token is good for one join, and only for some \
               time. With `--token -`, or without it, the token is read from standard input, so that it is not seen among the \
               processes' arguments.",
        args: &[
            &[
                Arg::place("contact", Takes::Contact, "A member of the cluster"),
                Arg::option("token", None, Takes::Text("TOKEN"), "The token; `-` reads it from standard input").default("-"),
                Arg::option(
                    "address",
                    None,
                    Takes::Address,
                    "This node's address for its peers [default: what add-node was told]",
                ),
                Arg::option("port", Some('p'), Takes::Port, "Its port for its peers [default: what add-node was told]"),
            ],
            LOCAL,
        ],
        examples: &[Example { line: "join 10.43.100.2 --token -", does: "Join the cluster of 10.43.100.2" }],
        runtime: Runtime::Daemon,
        run: |session, given| Box::pin(join(session, given)),
    },
    Verb {
        name: "recover",
        aliases: &[],
        category: Category::Cluster,
        short: "Go on from this node alone, after the others are lost",
        long: "Restarts the control plane from this node's state, for when most voters will never come back. Changes of the model that only they knew are lost: nodes, resources and \
               options that were changed last. Volumes and their data are not touched. Voters that come back nevertheless are \
               not members any more and must join anew.",
        args: &[&[Arg::flag("force", Some('f'), "Say that the others are lost for good; nothing is done without it")]],
        examples: &[Example { line: "recover --force", does: "Go on with this node's state" }],
        runtime: Runtime::Daemon,
        run: |session, given| Box::pin(recover(session, given)),
    },
];

async fn init(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let listen = listen(given, given.maybe("address"));
    let force = given.flag("force");
    let options = InitOptions { local: local(session, given, listen)?, name: given.maybe::<Name>("name"), force };
    if force {
        session.confirm(CAUTION)?;
    }
    let founded = session.setup.init(options).await?;
    finish(session, given, &founded).await
}

const CAUTION: &str = "\
You are going to initialize a new cluster.
CAUTION! Note that:
  * Any previous cluster information on this node is removed
  * Any remaining resources of a previous cluster that still exist on this
    node will no longer be managed";

async fn join(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let contact: Contact = given.one("contact");
    let listen = listen(given, given.maybe("address"));
    let local = local(session, given, listen)?;
    let force = given.flag("force");
    if force {
        session.confirm(CAUTION.replacen("initialize a new cluster", "join another cluster", 1))?;
    }
    let contact = SocketAddr::new(contact.address, contact.port.unwrap_or(ports::PEERS));
    let options = JoinOptions { local, contact, token: token(session, given)?, force };
    let founded = session.setup.join(options).await?;
    finish(session, given, &founded).await
}

async fn recover(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    if !given.flag("force") {
        let what = "changes that only the lost voters knew are lost with them";
        return Err(Failure::usage(what, "`blkrep recover --force` says that they will never come back"));
    }
    let founded = session.setup.recover(RecoverOptions { root: session.root.clone() }).await?;
    session.output.done(&founded, &founded.notes)
}

/// Starts the daemon, and tells what was made.
async fn finish(session: &Session<'_>, given: Given<'_>, founded: &Founded) -> Result<(), Failure> {
    if !given.flag("no-start") {
        start::daemon(session).await?;
        start::known(session, founded.node.as_str(), !given.flag("no-storage")).await;
    }
    if session.output.format != Format::Json {
        session.output.note(format_args!("Node {} at {}, storing in {}", founded.node, founded.address, founded.pool));
    }
    session.output.done(founded, &founded.notes)
}

fn listen(given: Given<'_>, address: Option<std::net::IpAddr>) -> Listen {
    let nbd = match given.maybe::<SocketAddr>("nbd") {
        _ if given.flag("no-nbd") => NbdChoice::SocketOnly,
        Some(socket) => NbdChoice::At(socket),
        None => NbdChoice::Usual,
    };
    Listen { address, port: given.maybe("port"), nbd }
}

/// A node below a root of its own leaves alone what there is one of on a machine, unless it is told otherwise.
fn local(session: &Session<'_>, given: Given<'_>, listen: Listen) -> Result<NodeOptions, Failure> {
    let usual = session.root.is_default().then(|| PathBuf::from(DOCKER_SOCKET));
    let docker = given.maybe::<PathBuf>("docker-socket").or(usual).filter(|_| !given.flag("no-docker"));
    let (pool, witness) = (given.maybe::<PoolArgument>("pool").map(|pool| pool.0), given.flag("no-storage"));
    if pool.is_some() && witness {
        return Err(Failure::usage("--pool and --no-storage contradict each other", "leave one of them out"));
    }
    Ok(NodeOptions { root: session.root.clone(), listen, pool, witness, docker })
}

fn token(session: &Session<'_>, given: Given<'_>) -> Result<String, Failure> {
    let token: String = given.one("token");
    if token != "-" {
        return Ok(token);
    }
    if std::io::stdin().is_terminal() {
        session.output.aside("Token: ");
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| Failure::io("cannot read the token", &error))?;
    match line.trim() {
        "" => {
            Err(ApiError::new(Code::Denied, "no token was given").hint("`blkrep howto-join NODE`, on a member, makes one").into())
        }
        token => Ok(token.to_owned()),
    }
}
