//! The verbs that part a node from the others, and let it come back.

use crate::api::{Connect, Disconnect, Service};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};

/// The verbs.
pub(super) const VERBS: &[Verb] = &[DISCONNECT, CONNECT];

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

async fn disconnect(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let request = Disconnect { resource: given.one("resource"), node: given.one("node"), force: given.flag("force") };
    let done = session.client.disconnect(request).await?;
    session.output.done(&done, &done.notes)
}

async fn connect(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let done = session.client.connect(Connect { resource: given.one("resource"), node: given.maybe("node") }).await?;
    session.output.done(&done, &done.notes)
}
