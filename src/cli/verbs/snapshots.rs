//! Snapshots.

use std::time::Duration;

use crate::api::{
    AddSnapshot, CloneResource, Done, ListSchedules, ListSnapshots, RemoveSnapshot, RestoreSnapshot, RollbackSnapshot,
    ScheduleSnapshots, Service, Snapshot,
};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::lists::LISTING;
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::cli::snapshot_lists::{SCHEDULES, SNAPSHOT_PARTS, SNAPSHOTS};
use crate::cli::span::Span;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::units::Name;

use super::resources::{or_none, single};

/// How long a snapshot may take: where pools share no blocks it is a copy.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

const SNAPSHOT: Takes = Takes::Text("SNAPSHOT");

const OF: &[Arg] = &[Arg::options("resources", Some('R'), Takes::Resource, "Of these resources only")];

const PARTS: &[Arg] = &[
    Arg::options("resources", Some('R'), Takes::Resource, "Of these resources only"),
    Arg::options("nodes", Some('N'), Takes::Node, "On these nodes only"),
];

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "add-snapshot",
        aliases: &["ns", "create-snapshot", "cs", "new-snapshot", "as"],
        category: Category::Snapshots,
        short: "Take a snapshot of a resource",
        long: "It is of all volumes at one moment, the same on every node that has a part of it: writes wait while it is taken, and \
               what was answered before is in it. Every node with an up-to-date replica gets a part unless nodes are named; one where \
               that fails has none. Thin pools, and directories on file systems that share blocks (xfs, btrfs), take it at once; \
               elsewhere files are copied, and writes wait for that for as long as the copy goes on: a node that does not answer for 5 seconds, \
               or does nothing of its part for 20, is not waited for. Classic LVM volumes are given room for a copy of all their blocks.",
        args: &[&[
            Arg::place("name", SNAPSHOT, "What it shall be called"),
            Arg::place("resource", Takes::Resource, "The resource"),
            Arg::optional_places("node", Takes::Node, "The nodes [default: those with an up-to-date replica]"),
        ]],
        examples: &[
            Example { line: "add-snapshot monday web", does: "Take the snapshot monday of web" },
            Example { line: "add-snapshot monday web beta", does: "Take it on beta only" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(add(session, given)),
    },
    Verb {
        name: "list-snapshots",
        aliases: &["s", "snapshots"],
        category: Category::Snapshots,
        short: "List the snapshots",
        long: "With -m the fields of a line are: resource, snapshot.",
        args: &[LISTING, OF],
        examples: &[Example { line: "list-snapshots -R web", does: "List the snapshots of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list(session, given)),
    },
    Verb {
        name: "list-snapshot-assignments",
        aliases: &["sa", "snapshot-assignments"],
        category: Category::Snapshots,
        short: "List which snapshot is on which node",
        long: "With -m the fields of a line are: resource, snapshot, node, current flags, target flags.",
        args: &[LISTING, PARTS],
        examples: &[Example { line: "list-snapshot-assignments -N beta", does: "List the snapshots on beta" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list_parts(session, given)),
    },
    Verb {
        name: "remove-snapshot",
        aliases: &["delete-snapshot", "ds"],
        category: Category::Snapshots,
        short: "Remove snapshots of a resource",
        long: "One that is being restored from, or read, stays until that is done.",
        args: &[&[
            Arg::place("resource", Takes::Resource, "The resource"),
            Arg::places("name", SNAPSHOT, "The snapshots"),
            Arg::flag("force", Some('f'), "Taken for the sake of old scripts"),
        ]],
        examples: &[Example { line: "remove-snapshot web monday", does: "Remove the snapshot monday of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(remove(session, given)),
    },
    Verb {
        name: "remove-snapshot-assignment",
        aliases: &["rsa", "delete-snapshot-assignment", "dsa"],
        category: Category::Snapshots,
        short: "Remove the part of a snapshot that a node has",
        long: "The snapshot goes with its last part.",
        args: &[&[
            Arg::place("resource", Takes::Resource, "The resource"),
            Arg::place("name", SNAPSHOT, "The snapshot"),
            Arg::place("node", Takes::Node, "The node"),
            Arg::flag("force", Some('f'), "Taken for the sake of old scripts"),
        ]],
        examples: &[Example { line: "remove-snapshot-assignment web monday beta", does: "Remove monday of web from beta" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(remove_part(session, given)),
    },
    Verb {
        name: "restore-snapshot",
        aliases: &["rs"],
        category: Category::Snapshots,
        short: "Make a new resource of a snapshot",
        long: "It has a replica wherever the snapshot has a part, or on the nodes that are named, all of them up to date from the start, \
               with the options of the resource that the snapshot is of. That stays as it is.",
        args: &[&[
            Arg::place("new", Takes::Text("NEW"), "What the new resource shall be called"),
            Arg::place("resource", Takes::Resource, "The resource that the snapshot is of"),
            Arg::place("name", SNAPSHOT, "The snapshot"),
            Arg::optional_places("node", Takes::Node, "The nodes [default: all that have a part of it]"),
        ]],
        examples: &[Example { line: "restore-snapshot web-monday web monday", does: "Make web-monday of monday of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(restore(session, given)),
    },
    Verb {
        name: "rollback-snapshot",
        aliases: &["rollback"],
        category: Category::Snapshots,
        short: "Make a resource what it was at a snapshot",
        long: "Nobody may use the resource, on any node. What was written since the snapshot is lost; the snapshot stays. A replica on a \
               node that has no part of it gets everything by a resync, and so does one whose node is away and comes back. Not for \
               classic LVM volumes: restore theirs as another resource.",
        args: &[&[Arg::place("resource", Takes::Resource, "The resource"), Arg::place("name", SNAPSHOT, "The snapshot")]],
        examples: &[Example { line: "rollback-snapshot web monday", does: "Make web what it was" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(roll_back(session, given)),
    },
    Verb {
        name: "clone",
        aliases: &["clone-resource"],
        category: Category::Snapshots,
        short: "Make a new resource that has what another has now",
        long: "As a snapshot that is taken, restored, and removed when the last replica is made.",
        args: &[&[
            Arg::place("resource", Takes::Resource, "The resource to be copied"),
            Arg::place("new", Takes::Text("NEW"), "What the new one shall be called"),
            Arg::optional_places("node", Takes::Node, "The nodes [default: those with an up-to-date replica]"),
        ]],
        examples: &[Example { line: "clone web web-test", does: "Make web-test, which has what web has" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(clone(session, given)),
    },
    Verb {
        name: "schedule-snapshots",
        aliases: &[],
        category: Category::Snapshots,
        short: "Take snapshots of a resource by themselves",
        long: "They are called auto-DATE-TIME (in universal time), and the oldest go when there are more than are kept; others are not \
               counted and stay. What is missed, because no node could take it, is not made up for: the next one is. A schedule begins \
               when it is set, and goes on when it is set again with the same time between two.",
        args: &[&[
            Arg::place("resource", Takes::Resource, "The resource"),
            Arg::option("every", None, Takes::Span, "The time between two, as in 30m, 24h or 7d"),
            Arg::option("keep", None, Takes::Count, "How many stay [default: 7]"),
            Arg::flag("off", None, "Take no more; those that were taken stay"),
        ]],
        examples: &[
            Example { line: "schedule-snapshots web --every 1h --keep 24", does: "Take one an hour, and keep a day's" },
            Example { line: "schedule-snapshots web --off", does: "Take no more" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(schedule(session, given)),
    },
    Verb {
        name: "list-schedules",
        aliases: &["schedules"],
        category: Category::Snapshots,
        short: "List when snapshots are taken by themselves",
        long: "With -m the fields of a line are: resource, seconds between two, how many stay, when the last one was taken (or empty) and \
               when the next is due, in seconds since 1970.",
        args: &[LISTING],
        examples: &[Example { line: "list-schedules", does: "List the schedules" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list_schedules(session, given)),
    },
];

async fn add(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let request = AddSnapshot { resource: given.one("resource"), snapshot: named(given, "name")?, nodes: given.many("node") };
    let taken = session.client.clone().patience(PATIENCE).add_snapshot(request).await?;
    if session.output.format != Format::Json {
        let nodes: Vec<&str> = taken.nodes.iter().map(Name::as_str).collect();
        session.output.note(format_args!("Taken on {}; writes waited for {} ms", nodes.join(", "), taken.held));
    }
    session.output.done(&taken, &taken.notes)
}

/// A name that is no resource's or node's, and so is read here.
fn named(given: Given<'_>, id: &str) -> Result<Name, Failure> {
    read(&given.one::<String>(id))
}

fn read(text: &str) -> Result<Name, Failure> {
    text.parse().map_err(|error: crate::units::NameError| Failure::usage(error, "choose another name"))
}

async fn all(session: &Session<'_>, given: Given<'_>) -> Result<Vec<Snapshot>, Failure> {
    let only: Vec<Name> = given.many("resources");
    let mut all = or_none(session.client.list_snapshots(ListSnapshots { resource: single(&only) }).await)?;
    all.retain(|one| only.is_empty() || only.contains(&one.resource));
    Ok(all)
}

async fn list(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    SNAPSHOTS.print(&session.output, given, all(session, given).await?)
}

async fn list_parts(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let only: Vec<Name> = given.many("nodes");
    let mut parts = Vec::new();
    for snapshot in all(session, given).await? {
        let wanted = snapshot.nodes.iter().filter(|node| only.is_empty() || only.contains(node));
        parts.extend(wanted.map(|node| Snapshot { nodes: vec![node.clone()], ..snapshot.clone() }));
    }
    SNAPSHOT_PARTS.print(&session.output, given, parts)
}

async fn remove(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let resource: Name = given.one("resource");
    let names: Vec<String> = given.many("name");
    session.confirm(format!("You are going to remove snapshot {} of {resource}.", names.join(", ")))?;
    let mut all = Done::default();
    for name in names {
        let request = RemoveSnapshot { resource: resource.clone(), snapshot: read(&name)?, node: None };
        all.notes.extend(session.client.remove_snapshot(request).await?.notes);
    }
    session.output.done(&all, &all.notes)
}

async fn remove_part(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resource, node): (Name, Name) = (given.one("resource"), given.one("node"));
    let snapshot = named(given, "name")?;
    session.confirm(format!("You are going to remove snapshot {snapshot} of {resource} from {node}."))?;
    let done = session.client.remove_snapshot(RemoveSnapshot { resource, snapshot, node: Some(node) }).await?;
    session.output.done(&done, &done.notes)
}

async fn restore(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (source, nodes) = (given.one("resource"), given.many("node"));
    let request = RestoreSnapshot { resource: named(given, "new")?, source, snapshot: named(given, "name")?, nodes };
    let placement = session.client.clone().patience(PATIENCE).restore_snapshot(request).await?;
    session.output.done(&placement, &placement.notes)
}

async fn roll_back(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resource, snapshot): (Name, Name) = (given.one("resource"), named(given, "name")?);
    session.confirm(format!(
        "You are going to make {resource} what it was at snapshot {snapshot}.\nWhat was written since then is lost."
    ))?;
    let done = session.client.clone().patience(PATIENCE).rollback_snapshot(RollbackSnapshot { resource, snapshot }).await?;
    session.output.done(&done, &done.notes)
}

async fn clone(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let request = CloneResource { source: given.one("resource"), resource: named(given, "new")?, nodes: given.many("node") };
    let placement = session.client.clone().patience(PATIENCE).clone_resource(request).await?;
    session.output.done(&placement, &placement.notes)
}

async fn schedule(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let every = given.maybe::<Span>("every").map(|Span(seconds)| seconds);
    match (every, given.flag("off")) {
        (None, false) => return Err(Failure::usage("how often?", "write --every 1h, or --off for no more")),
        (Some(_), true) => return Err(Failure::usage("snapshots, or none?", "write --every or --off")),
        _ => {}
    }
    let request = ScheduleSnapshots { resource: given.one("resource"), every, keep: given.maybe("keep") };
    let done = session.client.schedule_snapshots(request).await?;
    session.output.done(&done, &done.notes)
}

async fn list_schedules(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    SCHEDULES.print(&session.output, given, session.client.list_schedules(ListSchedules {}).await?)
}
