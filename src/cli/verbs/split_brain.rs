//! What an operator does about a split brain.

use crate::api::{DiscardMyData, Service};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::units::Name;

/// The verbs.
pub(super) const VERBS: &[Verb] = &[DISCARD_MY_DATA];

const DISCARD_MY_DATA: Verb = Verb {
    name: "discard-my-data",
    aliases: &["resolve-split-brain"],
    category: Category::Replicas,
    short: "End a split brain: discard one side's data",
    long: "Two replicas under quorum=off that both went on without the other have diverged: `blkrep status` shows split-brain, and each keeps \
           what it has until an operator has chosen the side that loses, as with DRBD's `connect --discard-my-data`. What that node's replica \
           has had to itself is lost; the other side, which may be in use meanwhile, sends what either of them has written since they \
           parted, and nothing else. It is refused while the resource is in use on the node that loses, while the two are not \
           connected, and when the other side is not whole.",
    args: &[&[
        Arg::place("resource", Takes::Resource, "The resource"),
        Arg::optional_place("node", Takes::Node, "The node whose data is discarded [default: this one]"),
    ]],
    examples: &[Example { line: "discard-my-data web beta", does: "Keep what alpha has, and discard what only beta has" }],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(discard_my_data(session, given)),
};

async fn discard_my_data(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resource, node): (Name, Option<Name>) = (given.one("resource"), given.maybe("node"));
    let at = node.as_ref().map_or("this node", Name::as_str);
    session.confirm(format!(
        "You are going to discard what the replica of {resource} on {at} has had to itself since the split brain."
    ))?;
    let done = session.client.discard_my_data(DiscardMyData { resource, node }).await?;
    session.output.done(&done, &done.notes)
}
