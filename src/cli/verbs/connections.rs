//! The verbs of roles and connections: who is primary, and who talks to whom.

use crate::api::{Connect, Demote, Disconnect, Promote, Service};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::units::Name;

/// The verbs.
pub(super) const VERBS: &[Verb] = &[PROMOTE, DEMOTE, DISCONNECT, CONNECT];

const PROMOTE: Verb = Verb {
    name: "promote",
    aliases: &["primary"],
    category: Category::Replicas,
    short: "Make a node primary",
    long: "Nobody needs it to use a volume: whoever opens it has a node made primary, the best one. The node keeps the role for a moment, and \
           then for as long as it is used. With --force a node whose replica is not up to date goes on with what it has, when the nodes that \
           have more are lost for good: what only they have is lost, also when they come back, for they get everything from this one then. \
           Make sure that they are off: one that goes on unseen serves its clients until it hears of this. Refused while a node \
           answers that has more.",
    args: &[&[
        Arg::place("resource", Takes::Resource, "The resource"),
        Arg::optional_place("node", Takes::Node, "The node [default: this one]"),
        Arg::flag("force", None, "Also with a replica that is not up to date"),
    ]],
    examples: &[
        Example { line: "promote web beta", does: "Make beta primary" },
        Example { line: "promote web beta --force", does: "Go on with what beta has; the nodes that had more are lost" },
    ],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(promote(session, given)),
};

const DEMOTE: Verb = Verb {
    name: "demote",
    aliases: &["secondary"],
    category: Category::Replicas,
    short: "Have the primary give up the role",
    long: "A primary that nobody uses does so by itself after a moment. Refused while somebody does.",
    args: &[&[Arg::place("resource", Takes::Resource, "The resource")]],
    examples: &[Example { line: "demote web", does: "Have the primary of web give up the role" }],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(demote(session, given)),
};

const DISCONNECT: Verb = Verb {
    name: "disconnect",
    aliases: &["disconnect-resource"],
    category: Category::Replicas,
    short: "Keep a node from talking to the others about a resource",
    long: "Until `blkrep connect`, also after a restart of the daemons. The replicas on the other side of a primary leave the in-sync set and \
           stay as they are; when they are connected again, they get what was written meanwhile. It is refused where a node with clients \
           would be parted from the primary that serves them, or the primary from all data that is up to date: with --force their I/O \
           waits until then. With quorum=off both sides may go on, and if both are written to, that is a split brain; with a majority only \
           the side of the record's in-sync set can. Other resources of the same nodes are not concerned. `blkrep status` tells of it.",
    args: &[&[
        Arg::place("resource", Takes::Resource, "The resource"),
        Arg::place("node", Takes::Node, "The node"),
        Arg::flag("force", None, "Also if clients have to wait then"),
    ]],
    examples: &[Example { line: "disconnect web beta", does: "Leave the replica of web on beta as it is for now" }],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(disconnect(session, given)),
};

const CONNECT: Verb = Verb {
    name: "connect",
    aliases: &["connect-resource"],
    category: Category::Replicas,
    short: "Let a node talk to the others about a resource again",
    long: "Its replica gets what was written meanwhile, or the others get it from there: only the blocks that differ. Without a node, all that \
           were disconnected.",
    args: &[&[
        Arg::place("resource", Takes::Resource, "The resource"),
        Arg::optional_place("node", Takes::Node, "The node [default: all]"),
    ]],
    examples: &[Example { line: "connect web beta", does: "Bring the replica of web on beta up to date again" }],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(connect(session, given)),
};

async fn promote(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resource, node, force): (Name, Option<Name>, bool) = (given.one("resource"), given.maybe("node"), given.flag("force"));
    if force {
        let at = node.as_ref().map_or("this node", Name::as_str);
        session.confirm(format!(
            "You are going to go on with what the replica of {resource} on {at} has.\nWhat only other nodes have is lost, also when they return."
        ))?;
    }
    let done = session.client.promote(Promote { resource, node, force }).await?;
    session.output.done(&done, &done.notes)
}

async fn demote(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let done = session.client.demote(Demote { resource: given.one("resource") }).await?;
    session.output.done(&done, &done.notes)
}

async fn disconnect(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let request = Disconnect { resource: given.one("resource"), node: given.one("node"), force: given.flag("force") };
    let done = session.client.disconnect(request).await?;
    session.output.done(&done, &done.notes)
}

async fn connect(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let done = session.client.connect(Connect { resource: given.one("resource"), node: given.maybe("node") }).await?;
    session.output.done(&done, &done.notes)
}
