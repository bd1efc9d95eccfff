//! Nodes.

use std::net::IpAddr;
use std::time::Duration;

use crate::api::setup::ports;
use crate::api::state::NodeState;
use crate::api::{AddNode, ApiError, Code, HowtoJoin, JoinTicket, ListNodes, RemoveNode, Service};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::lists::{LISTING, NODES};
use crate::cli::output::{Format, SUCCESS};
use crate::cli::session::Session;
use crate::cli::span::{Span, written};
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::cli::{remote, wait};
use crate::units::Name;

use super::resources::each;

/// How long a node that has joined may take until it is online.
const PATIENCE: Duration = Duration::from_secs(30);

const VALID_FOR: Arg = Arg::option("valid-for", None, Takes::Span, "For how long the token is good: 1s to 30d").default("24h");

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "add-node",
        aliases: &["nn", "new-node", "an"],
        category: Category::Cluster,
        short: "Announce a new node, and have it join",
        long: "Where root may log in to the new node with ssh and no password, the join is done there at once. Otherwise the command \
               for it is printed: run it on the new node. Its token is good for one join, and only for some time; \
               `blkrep howto-join` makes another.",
        args: &[&[
            Arg::place("name", Takes::Node, "The new node's name"),
            Arg::place("address", Takes::Address, "Its address for its peers"),
            Arg::option("port", Some('p'), Takes::Port, "Its port for its peers [default: 6999]"),
            Arg::flag("no-storage", Some('s'), "It has no storage: it votes, and uses volumes of others"),
            Arg::flag("no-autojoin", Some('j'), "Do not try ssh"),
            VALID_FOR,
        ]],
        examples: &[
            Example { line: "add-node nodo2 10.43.100.3", does: "Add a second node" },
            Example {
                line: "add-node --no-storage --no-autojoin witness 10.43.100.4",
                does: "Add a third one that only votes, and print its join command",
            },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(add(session, given)),
    },
    Verb {
        name: "howto-join",
        aliases: &[],
        category: Category::Cluster,
        short: "Print the join command of a node once more",
        long: "For a node that was added and has not joined. The command has a new token; an earlier one of the same node ends.",
        args: &[&[Arg::place("node", Takes::Node, "The node"), VALID_FOR]],
        examples: &[
            Example { line: "howto-join nodo2", does: "Print the join command of nodo2" },
            Example { line: "howto-join nodo2 --valid-for 10m", does: "Print one that is good for ten minutes" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(howto_join(session, given)),
    },
    Verb {
        name: "modify-node",
        aliases: &["mn"],
        category: Category::Cluster,
        short: "Tell how a node's address or storage is changed",
        long: "They are part of what a node has joined with, and of its certificate, and do not change: the node leaves, and joins anew. \
               This tells the commands; nothing is done. Its replicas are made anew on it, so there have to be others.",
        args: &[&[
            Arg::place("name", Takes::Node, "The node"),
            Arg::option("address", None, Takes::Address, "The address that it is to have"),
            Arg::option("port", Some('p'), Takes::Port, "The port that it is to have"),
            Arg::flag("no-storage", Some('s'), "It is to have no storage"),
        ]],
        examples: &[Example { line: "modify-node nodo2 --address 10.43.100.7", does: "Tell how nodo2 gets that address" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(modify(session, given)),
    },
    Verb {
        name: "remove-node",
        aliases: &["rn", "delete-node", "dn"],
        category: Category::Cluster,
        short: "Take nodes out of the cluster",
        long: "A node that is removed is out at once: its peers do not talk to it any more. Its replicas are given up. The last \
               up-to-date replica of a resource is not given up without --force.",
        args: &[&[
            Arg::places("node", Takes::Node, "The nodes"),
            Arg::flag("force", Some('f'), "Also when that loses the last up-to-date replica of a resource"),
        ]],
        examples: &[Example { line: "remove-node nodo2", does: "Remove a node" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(remove(session, given)),
    },
    Verb {
        name: "list-nodes",
        aliases: &["n", "nodes"],
        category: Category::Cluster,
        short: "List the nodes",
        long: "Pool sizes are in MiB. With -m the fields of a line are: name, address family, address, pool size in KiB, free in KiB, \
               flags, site.",
        args: &[LISTING, &[Arg::options("nodes", Some('N'), Takes::Node, "These only")]],
        examples: &[
            Example { line: "list-nodes", does: "List the nodes" },
            Example { line: "list-nodes -s IP Vote", does: "List them with their addresses and votes" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list(session, given)),
    },
];

async fn add(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let address: IpAddr = given.one("address");
    let Span(valid_for) = given.one("valid-for");
    let (name, port, witness) = (given.one("name"), given.maybe("port"), given.flag("no-storage"));
    let request = AddNode { name, address, port, witness, valid_for: Some(valid_for) };
    let ticket = session.client.add_node(request).await?;
    let autojoin = !given.flag("no-autojoin") && session.output.format != Format::Json;
    if !autojoin || !remote::reachable(address).await {
        return announce(session, &ticket, true);
    }
    session.output.note(format_args!("Joining node {} by ssh", ticket.node));
    match remote::join(address, &ticket, given.flag("no-storage")).await {
        Ok(()) => joined(session, &ticket.node).await,
        Err(why) => {
            session.output.note(format_args!("The join by ssh failed: {why}"));
            announce(session, &ticket, true)
        }
    }
}

async fn howto_join(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let Span(valid_for) = given.one("valid-for");
    let ticket = session.client.howto_join(HowtoJoin { node: given.one("node"), valid_for: Some(valid_for) }).await?;
    if session.output.format != Format::Json {
        let warning = "IMPORTANT: Execute the following command only on node";
        session.output.note(format_args!("{warning} {}!", ticket.node));
    }
    announce(session, &ticket, false)
}

/// Prints the join command.
fn announce(session: &Session<'_>, ticket: &JoinTicket, added: bool) -> Result<(), Failure> {
    if session.output.format == Format::Json {
        return session.output.json(ticket);
    }
    if added {
        session.output.line(SUCCESS)?;
        session.output.line(format_args!("\nJoin command for node {}:", ticket.node))?;
    }
    session.output.line(join_command(ticket))?;
    session.output.note(format_args!("(good once, for {})", written(ticket.expires_in)));
    Ok(())
}

/// The command that makes a new node a member.
fn join_command(ticket: &JoinTicket) -> String {
    let contact = match ticket.contact.port() {
        ports::PEERS => ticket.contact.ip().to_string(),
        _ => ticket.contact.to_string(),
    };
    format!("blkrep join {contact} --token {}", ticket.token)
}

async fn joined(session: &Session<'_>, node: &Name) -> Result<(), Failure> {
    let online = wait::until(PATIENCE, async || {
        let nodes = session.client.list_nodes(ListNodes {}).await.ok()?;
        nodes.iter().any(|n| n.name == *node && n.state() == NodeState::Ok).then_some(())
    });
    match online.await {
        Some(()) => session.output.line(SUCCESS),
        None => Err(ApiError::new(Code::TimedOut, format_args!("node {node} has joined and is not online yet"))
            .hint(format_args!("`blkrep list-nodes` tells; on {node}, `blkrep ping` and the daemon's log"))
            .into()),
    }
}

async fn modify(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let name: Name = given.one("name");
    let nodes = session.client.list_nodes(ListNodes {}).await?;
    let Some(node) = nodes.iter().find(|node| node.name == name) else {
        return Err(ApiError::new(Code::NotFound, format_args!("there is no node '{name}'"))
            .hint("`blkrep list-nodes` shows the nodes")
            .into());
    };
    let address = given.maybe::<IpAddr>("address").unwrap_or(node.address);
    let port =
        given.maybe::<u16>("port").filter(|port| *port != ports::PEERS).map_or_else(String::new, |port| format!(" -p {port}"));
    let storage = if given.flag("no-storage") { " --no-storage" } else { "" };
    let message =
        format!("node '{name}' keeps what it has joined with: its address {}, port {} and storage", node.address, node.port);
    let way = format!(
        "once its resources have other up-to-date replicas: `blkrep remove-node {name}`, `blkrep add-node {name} {address}{port}{storage}`, \
         the join command that this prints with --force added, on {name}, and `blkrep assign-resource RES {name}`"
    );
    Err(ApiError::new(Code::BadRequest, message).hint(way).into())
}

async fn remove(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let nodes: Vec<Name> = given.many("node");
    let names: Vec<&str> = nodes.iter().map(Name::as_str).collect();
    session
        .confirm(format!("You are going to remove {} from the cluster.\nThe replicas there are given up.", names.join(", ")))?;
    each(session, &nodes, async |node| {
        session.client.remove_node(RemoveNode { node: node.clone(), force: given.flag("force") }).await
    })
    .await
}

async fn list(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let only: Vec<Name> = given.many("nodes");
    let mut nodes = session.client.list_nodes(ListNodes {}).await?;
    nodes.retain(|node| only.is_empty() || only.contains(&node.name));
    NODES.print(&session.output, given, nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_join_command_is_one_line() {
        let ticket = |contact: &str| JoinTicket {
            node: "beta".parse().unwrap(),
            contact: contact.parse().unwrap(),
            token: "t0k3n".to_owned(),
            expires_in: 3600,
        };
        assert_eq!(join_command(&ticket("10.43.100.2:6999")), "blkrep join 10.43.100.2 --token t0k3n");
        assert_eq!(join_command(&ticket("10.43.100.2:7000")), "blkrep join 10.43.100.2:7000 --token t0k3n");
        assert_eq!(join_command(&ticket("[fd00::2]:7000")), "blkrep join [fd00::2]:7000 --token t0k3n");
    }
}
