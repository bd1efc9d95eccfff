//! What replicas are told to do.

use crate::api::{Service, VerifyResource};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};

/// The verbs.
pub(super) const VERBS: &[Verb] = &[Verb {
    name: "verify",
    aliases: &["verify-resource"],
    category: Category::Replicas,
    short: "Compare the replicas of a resource, block by block",
    long: "The primary compares its blocks with those of every connected replica in sync by their hashes, while clients go on; without \
           a primary, an up-to-date node becomes it. Writes that are under way are waited for, and told as no difference. resync-max \
           caps it. `blkrep status` shows how much of each replica is compared, how many blocks differ and where the first one is, until \
           the next verify or the end of the daemon there. It ends when the primary changes, and for a replica that is lost when that is. \
           With --repair what differs gets the primary's copy: with three or more copies where most have what the primary has, \
           with two always, since clients have been reading the primary's. Where the primary is outvoted nothing is changed: \
           use the resource on another node, and verify it there.",
    args: &[&[
        Arg::place("resource", Takes::Resource, "The resource"),
        Arg::flag("repair", None, "Give what differs the primary's copy, where most have the same"),
        Arg::flag("stop", None, "End the one that is under way"),
    ]],
    examples: &[
        Example { line: "verify web", does: "Compare the replicas of web" },
        Example { line: "verify web --repair", does: "Make them equal, too" },
    ],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(verify(session, given)),
}];

async fn verify(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let request = VerifyResource { resource: given.one("resource"), repair: given.flag("repair"), stop: given.flag("stop") };
    let done = session.client.verify_resource(request).await?;
    session.output.done(&done, &done.notes)
}
