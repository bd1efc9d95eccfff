//! What replicas are told to do.

use crate::api::{Invalidate, ReplaceDisk, ScheduleVerify, Service, SteerResync, VerifyResource};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::cli::span::Span;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::units::Name;

/// The verbs.
pub(super) const VERBS: &[Verb] = &[REPLACE_DISK, INVALIDATE, RESYNC_PAUSE, RESYNC_RESUME, VERIFY];

const REPLACE_DISK: Verb = Verb {
    name: "replace-disk",
    aliases: &[],
    category: Category::Replicas,
    short: "Make a replica anew whose disk is lost",
    long: "What is left of the old replica is deleted; a new, empty one takes its place and gets a full resync. It goes to the pool of \
           the old one, which has to be usable again, or to another one of the node with --pool: then what was on a disk that does not come \
           back is in nobody's way. It is refused unless another replica says that it has everything, and while the node is primary: \
           use the volume on another node first. Without a majority the old replica has to say, too, that it has nothing more, or --force \
           gives that up.",
    args: &[&[
        Arg::place("resource", Takes::Resource, "The resource"),
        Arg::place("node", Takes::Node, "The node"),
        Arg::option("pool", None, Takes::PoolName, "The pool of the new replica [default: where the old one is]"),
        Arg::flag("force", Some('f'), "Also when clients are connected there, which are cut off, or it cannot say what it has"),
    ]],
    examples: &[
        Example { line: "replace-disk web beta", does: "Make the replica on beta anew, where it was" },
        Example { line: "replace-disk web beta --pool ssd", does: "Make it anew in another pool" },
    ],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(replace_disk(session, given)),
};

const INVALIDATE: Verb = Verb {
    name: "invalidate",
    aliases: &[],
    category: Category::Replicas,
    short: "Have a replica get everything anew from the others",
    long: "For a replica whose data is not to be trusted, where `blkrep verify --repair` is not enough. It is made anew where it is, as \
           `blkrep replace-disk` does, and gets a full resync: what it has is deleted, its parts of snapshots too. It is refused unless \
           another replica says that it has everything, and while the node is primary or has clients: use the volume on another node first.",
    args: &[&[
        Arg::place("resource", Takes::Resource, "The resource"),
        Arg::optional_place("node", Takes::Node, "The node [default: this one]"),
    ]],
    examples: &[Example { line: "invalidate web beta", does: "Give the replica on beta everything anew" }],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(invalidate(session, given)),
};

const OF: &[Arg] = &[
    Arg::place("resource", Takes::Resource, "The resource"),
    Arg::optional_place("node", Takes::Node, "To and from the replica on this node [default: all]"),
];

const RESYNC_PAUSE: Verb = Verb {
    name: "resync pause",
    aliases: &[],
    category: Category::Replicas,
    short: "Pause the resyncs of a resource",
    long: "No replica that lacks something is given any more of it, until `blkrep resync resume`; also after a restart of the daemons. One \
           whose resync has not begun stays whole, as old as it is; one that is half done stays Inconsistent, and gets what clients write. \
           Replicas in sync are not affected, and what a new primary makes equal on them is not paused: clients wait for that. \
           `blkrep status` tells of it.",
    args: &[OF],
    examples: &[
        Example { line: "resync pause web", does: "Pause all resyncs of web" },
        Example { line: "resync pause web beta", does: "Pause the one that brings the replica on beta up to date" },
    ],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(steer(session, given, true)),
};

const RESYNC_RESUME: Verb = Verb {
    name: "resync resume",
    aliases: &[],
    category: Category::Replicas,
    short: "Let the resyncs of a resource go on",
    long: "Without a node, all that were paused, by whatever name.",
    args: &[OF],
    examples: &[Example { line: "resync resume web", does: "Let all resyncs of web go on" }],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(steer(session, given, false)),
};

const VERIFY: Verb = Verb {
    name: "verify",
    aliases: &["verify-resource"],
    category: Category::Replicas,
    short: "Compare the replicas of a resource, block by block",
    long: "The primary compares its blocks with those of every connected replica in sync by their hashes, while clients go on; without \
           a primary, an up-to-date node becomes it. Writes that are under way are waited for, and told as no difference. resync-max \
           caps it. `blkrep status` shows how much of each replica is compared, how many blocks differ and where the first one is, until \
           the next verify or the end of the daemon there. It ends when the primary changes, and for a replica that is lost when that is. \
           With --repair what differs gets the primary's copy: with three or more copies where most have what the primary has, \
           where there are just two always, since clients have been reading the primary's. Without such a majority, also while one of three is \
           away, nothing is changed: verify again when all are in sync, or use the resource on another node, and verify it there. \
           With --every nothing is compared now, but from then on by itself, first when that time has gone by; what was missed is made up \
           for once, and set again with the same time it goes on. `blkrep status` tells when the last one began.",
    args: &[&[
        Arg::place("resource", Takes::Resource, "The resource"),
        Arg::flag("repair", None, "Give what differs the primary's copy, where most have the same"),
        Arg::flag("stop", None, "End the one that is under way"),
        Arg::option("every", None, Takes::Span, "Begin one by itself each time this has gone by, as in 24h or 7d"),
        Arg::flag("off", None, "Begin none by itself any more"),
    ]],
    examples: &[
        Example { line: "verify web", does: "Compare the replicas of web" },
        Example { line: "verify web --repair", does: "Make them equal, too" },
        Example { line: "verify web --every 7d --repair", does: "Do so once a week" },
    ],
    runtime: Runtime::Small,
    run: |session, given| Box::pin(verify(session, given)),
};

async fn replace_disk(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resource, node): (Name, Name) = (given.one("resource"), given.one("node"));
    session.confirm(format!("You are going to delete the replica of {resource} on {node}, and to make a new one."))?;
    let request = ReplaceDisk { resource, node, pool: given.maybe("pool"), force: given.flag("force") };
    let done = session.client.replace_disk(request).await?;
    session.output.done(&done, &done.notes)
}

async fn invalidate(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resource, node): (Name, Option<Name>) = (given.one("resource"), given.maybe("node"));
    let at = node.as_ref().map_or("this node", Name::as_str);
    session.confirm(format!(
        "You are going to delete what the replica of {resource} on {at} has, and to copy it from the others."
    ))?;
    let done = session.client.invalidate(Invalidate { resource, node }).await?;
    session.output.done(&done, &done.notes)
}

async fn steer(session: &Session<'_>, given: Given<'_>, pause: bool) -> Result<(), Failure> {
    let request = SteerResync { resource: given.one("resource"), node: given.maybe("node"), pause };
    let done = session.client.steer_resync(request).await?;
    session.output.done(&done, &done.notes)
}

async fn verify(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let every = given.maybe::<Span>("every").map(|Span(seconds)| seconds);
    match (every, given.flag("off")) {
        (None, false) => {}
        (every, off) => return schedule_verify(session, given, every, off).await,
    }
    let request = VerifyResource { resource: given.one("resource"), repair: given.flag("repair"), stop: given.flag("stop") };
    let done = session.client.verify_resource(request).await?;
    session.output.done(&done, &done.notes)
}

async fn schedule_verify(session: &Session<'_>, given: Given<'_>, every: Option<u64>, off: bool) -> Result<(), Failure> {
    let repair = given.flag("repair");
    if given.flag("stop") || (off && (every.is_some() || repair)) {
        return Err(Failure::usage(
            "verifies by themselves, or none?",
            "write --every, with --repair or without, or --off by itself",
        ));
    }
    let done = session.client.schedule_verify(ScheduleVerify { resource: given.one("resource"), every, repair }).await?;
    session.output.done(&done, &done.notes)
}
