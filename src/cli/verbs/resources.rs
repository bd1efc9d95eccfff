//! Resources and volumes.

use std::time::{Duration, Instant};

use crate::api::state::ResourceState;
use crate::api::{
    AddResource, AddVolume, ApiError, Code, Done, ListFreeSpace, ListResources, ListVolumes, RemoveResource, RemoveVolume,
    ResizeVolume, Service,
};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::lists::{LISTING, RESOURCES, VOLUMES};
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::cli::size::{Size, kib};
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::cli::target::Target;
use crate::cli::wait;
use crate::units::{Name, VolumeId, human};

use super::options::{RESOURCE_OPTIONS, values};

/// How long a new resource that is degraded may take to become well before it is taken for that.
const LULL: Duration = Duration::from_secs(3);

const ONLY_RESOURCES: &[Arg] = &[Arg::options("resources", Some('R'), Takes::Resource, "These only")];

const FORCE: Arg = Arg::flag("force", Some('f'), "Also when clients are connected, which are cut off");

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "add-volume",
        aliases: &["nv", "new-volume", "av"],
        category: Category::Volumes,
        short: "Add a volume, and its resource if that is new",
        long: "A number alone counts GiB; units are k, m, g, t and p (KiB, MiB ...), and kB, MB ... in thousands. With --deploy, \
               replicas are placed where space is. Without it, a new resource has no replicas yet: `blkrep deploy-resource` or \
               `blkrep assign-resource` make them. Where there are replicas, the command waits until the volume can be used.",
        args: &[
            &[
                Arg::place("name", Takes::Target, "The resource, and the volume's number when it shall not be the next one"),
                Arg::place("size", Takes::Size, "Its size"),
                Arg::option("deploy", Some('d'), Takes::Count, "How many replicas there shall be"),
                Arg::option(
                    "pool",
                    None,
                    Takes::PoolName,
                    "The pool that it goes to on every node [default: each node's default]",
                ),
                Arg::option(
                    "metadata-pool",
                    None,
                    Takes::PoolName,
                    "The pool that the metadata of new replicas goes to [default: that of the first volume]",
                ),
                Arg::option("wait", None, Takes::Number("SECONDS"), "How long to wait until it can be used").default("30"),
            ],
            RESOURCE_OPTIONS,
        ],
        examples: &[
            Example { line: "add-volume web 10GiB --deploy 2", does: "Make a volume with two replicas" },
            Example { line: "add-volume web 512m", does: "Add another volume to the same resource" },
            Example { line: "add-volume db 20GiB --deploy 2 --pool ssd", does: "Make a volume in the pools called ssd" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(add_volume(session, given)),
    },
    Verb {
        name: "resize-volume",
        aliases: &["resize"],
        category: Category::Volumes,
        short: "Grow a volume, while it is in use",
        long: "First the storage of every replica grows, then their metadata; when all of them have the new part, which reads as \
               zeroes, it can be used. Nothing stops meanwhile. While a node with a replica is away the volume has its old size, and grows \
               when that is back, or has no replica any more: the answer names it. Whoever connects from then on sees the new size; a client that is \
               connected knows the old one until it connects again (a kernel device or a container, when it is \
               attached anew), and then the file system is grown by its own tools. A volume cannot be made smaller.",
        args: &[&[
            Arg::place("name", Takes::Target, "The resource, or RES/VOL"),
            Arg::optional_place("volume", Takes::Volume, "The volume's number"),
            Arg::place("size", Takes::Size, "Its new size"),
            Arg::flag("by", None, "The size is what is added"),
            Arg::option("wait", None, Takes::Number("SECONDS"), "How long to wait until all replicas have it").default("30"),
        ]],
        examples: &[
            Example { line: "resize-volume web 20GiB", does: "Grow the volume of web to 20 GiB" },
            Example { line: "resize-volume web/1 512m --by", does: "Grow its volume 1 by 512 MiB" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(resize_volume(session, given)),
    },
    Verb {
        name: "remove-volume",
        aliases: &["rv", "delete-volume", "dv"],
        category: Category::Volumes,
        short: "Remove a volume and its data",
        long: "It is removed from every replica; a node that is away does it when it returns.",
        args: &[&[
            Arg::place("name", Takes::Target, "The resource, or RES/VOL"),
            Arg::optional_place("volume", Takes::Volume, "The volume's number"),
            FORCE,
        ]],
        examples: &[Example { line: "remove-volume web 1", does: "Remove the volume 1 of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(remove_volume(session, given)),
    },
    Verb {
        name: "list-volumes",
        aliases: &["v", "volumes"],
        category: Category::Volumes,
        short: "List the volumes",
        long: "With -m the fields of a line are: resource, its state, volume number, size in KiB, port, minor number, state.",
        args: &[LISTING, ONLY_RESOURCES],
        examples: &[Example { line: "list-volumes -R web", does: "List the volumes of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list_volumes(session, given)),
    },
    Verb {
        name: "add-resource",
        aliases: &["nr", "new-resource", "ar"],
        category: Category::Volumes,
        short: "Define a resource without volumes",
        long: "A resource is a group of volumes that are consistent with each other. `blkrep add-volume` defines it by the way.",
        args: &[&[Arg::place("name", Takes::Resource, "Its name")], RESOURCE_OPTIONS],
        examples: &[Example { line: "add-resource web --protocol A", does: "Define a resource that replicates asynchronously" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(add_resource(session, given)),
    },
    Verb {
        name: "remove-resource",
        aliases: &["rr", "delete-resource", "dr"],
        category: Category::Volumes,
        short: "Remove resources with all their volumes and data",
        long: "Nodes that are away do not hold it up: they remove their replicas when they return.",
        args: &[&[Arg::places("name", Takes::Resource, "The resources"), FORCE]],
        examples: &[Example { line: "remove-resource web", does: "Remove a resource" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(remove_resource(session, given)),
    },
    Verb {
        name: "list-resources",
        aliases: &["r", "resources"],
        category: Category::Volumes,
        short: "List the resources",
        long: "The states are: ok (every replica is up to date and connected), deploying, syncing, degraded (a replica is missing or \
               behind), undeployed (there are no replicas), removing, suspended (I/O waits), no-data (no up-to-date replica is \
               reachable) and split-brain. With -m the fields of a line are: name, port, state.",
        args: &[LISTING, ONLY_RESOURCES],
        examples: &[Example { line: "list-resources", does: "List the resources" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list_resources(session, given)),
    },
    Verb {
        name: "list-free-space",
        aliases: &["free-space"],
        category: Category::Volumes,
        short: "Tell how large a volume could be",
        long: "It is the size of one volume at that redundancy. With -m the fields are: that size, and the size of all pools together, \
               both in KiB.",
        args: &[&[
            Arg::place("redundancy", Takes::Count, "With how many replicas"),
            Arg::flag("machine-readable", Some('m'), "Print drbdmanage's comma separated fields"),
        ]],
        examples: &[Example { line: "list-free-space 2", does: "Tell how large a volume with two replicas could be" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list_free_space(session, given)),
    },
];

async fn add_volume(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let Target { resource, volume } = given.one("name");
    let deploy: Option<u32> = given.maybe("deploy");
    let patience = Duration::from_secs(given.one("wait"));
    let request = AddVolume {
        resource: resource.clone(),
        volume,
        bytes: given.one::<Size>("size").0,
        deploy,
        options: values(given),
        pool: given.maybe("pool"),
        metadata_pool: given.maybe("metadata-pool"),
    };
    let added = session.client.add_volume(request).await?;
    let mut notes = Vec::new();
    if !added.nodes.is_empty() {
        notes.extend(settle(session, &resource, added.volume, patience).await);
    }
    session.output.done(&added, &notes)
}

/// Waits until a volume is made and its resource well, or can at least be used and does not get better for a while. Returns what is not
/// well.
pub(super) async fn settle(session: &Session<'_>, name: &Name, added: VolumeId, patience: Duration) -> Option<String> {
    let (began, mut last) = (Instant::now(), None);
    let settled = wait::until(patience, async || {
        let request = ListVolumes { resource: Some(name.clone()) };
        let volumes = session.client.list_volumes(request).await.ok()?;
        let now = volumes.into_iter().find(|volume| volume.volume.volume == added)?;
        let good = match now.state {
            ResourceState::Ok | ResourceState::Syncing => true,
            ResourceState::Degraded => began.elapsed() > LULL,
            _ => false,
        };
        last = Some(now);
        good.then_some(())
    });
    let settled = settled.await;
    let Some(last) = last else { return Some(format!("whether {name}/{added} can be used is not known yet")) };
    match last.state {
        ResourceState::Ok => None,
        state if settled.is_some() => Some(format!("{name} is {state} ({})", last.detail)),
        state => Some(format!("{name}/{added} is {state} still; `blkrep status {name}` tells how far it is")),
    }
}

async fn remove_volume(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resource, volume) = target(given)?;
    let Some(volume) = volume else {
        let hint = format!("write {resource}/0 for its volume 0; `blkrep remove-resource {resource}` removes all");
        return Err(Failure::usage("which volume of the resource shall be removed?", hint));
    };
    session.confirm(format!("You are going to remove the volume {resource}/{volume}.\nIts data is lost on every node."))?;
    let done = session.client.remove_volume(RemoveVolume { resource, volume, force: given.flag("force") }).await?;
    session.output.done(&done, &done.notes)
}

/// A resource and, if one was named, its volume, as `RES/VOL` or, as drbdmanage has it, `RES VOL`.
fn target(given: Given<'_>) -> Result<(Name, Option<VolumeId>), Failure> {
    let Target { resource, volume } = given.one("name");
    match (volume, given.maybe::<VolumeId>("volume")) {
        (Some(_), Some(_)) => Err(Failure::usage("the volume is named twice", "write RES/VOL or RES VOL")),
        (one, other) => Ok((resource, one.or(other))),
    }
}

async fn resize_volume(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resource, volume) = target(given)?;
    let volume = volume.unwrap_or(VolumeId(0));
    let patience = Duration::from_secs(given.one("wait"));
    let request = ResizeVolume { resource: resource.clone(), volume, bytes: given.one::<Size>("size").0, by: given.flag("by") };
    let resized = session.client.resize_volume(request).await?;
    let grown = wait::until(patience, async || {
        let request = ListVolumes { resource: Some(resource.clone()) };
        let volumes = session.client.list_volumes(request).await.ok()?;
        volumes.iter().map(|v| &v.volume).find(|v| v.volume == volume && v.bytes >= resized.bytes).map(drop)
    });
    let mut notes = Vec::new();
    if grown.await.is_none() {
        notes.push(format!("not every replica has grown yet; `blkrep status {resource}` tells what is amiss with one"));
        notes.extend(resized.notes.iter().cloned());
    }
    session.output.done(&resized, &notes)
}

async fn list_volumes(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let only: Vec<Name> = given.many("resources");
    let mut volumes = or_none(session.client.list_volumes(ListVolumes { resource: single(&only) }).await)?;
    volumes.retain(|volume| only.is_empty() || only.contains(&volume.resource));
    VOLUMES.print(&session.output, given, volumes)
}

async fn add_resource(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let done = session.client.add_resource(AddResource { name: given.one("name"), options: values(given) }).await?;
    session.output.done(&done, &done.notes)
}

async fn remove_resource(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let resources: Vec<Name> = given.many("name");
    let names: Vec<&str> = resources.iter().map(Name::as_str).collect();
    session
        .confirm(format!("You are going to remove {} with all volumes.\nTheir data is lost on every node.", names.join(", ")))?;
    each(session, &resources, async |resource| {
        session.client.remove_resource(RemoveResource { resource: resource.clone(), force: given.flag("force") }).await
    })
    .await
}

/// Does something for each of these names. A refusal is told, and does not keep the others from being done; in the end it is told what was.
pub(super) async fn each(
    session: &Session<'_>,
    names: &[Name],
    mut act: impl AsyncFnMut(&Name) -> Result<Done, ApiError>,
) -> Result<(), Failure> {
    let (mut all, mut done, mut failed) = (Done::default(), Vec::new(), Vec::new());
    for name in names {
        match act(name).await {
            Ok(one) => {
                all.notes.extend(one.notes);
                done.push(name.as_str());
            }
            // Nobody else will be reached, either; of one alone there is no more to tell.
            Err(error) if names.len() == 1 || matches!(error.code, Code::Unreachable | Code::TimedOut) => failed.push(error),
            Err(error) => {
                session.output.failed(&error.clone().into());
                failed.push(error);
                continue;
            }
        }
        if !failed.is_empty() {
            break;
        }
    }
    match failed.pop() {
        None => session.output.done(&all, &all.notes),
        Some(error) if done.is_empty() && failed.is_empty() => Err(error.into()),
        Some(_) => {
            let left: Vec<&str> = names.iter().map(Name::as_str).filter(|name| !done.contains(name)).collect();
            let what = if done.is_empty() { "none".to_owned() } else { done.join(", ") };
            Err(ApiError::new(Code::BadRequest, format_args!("done: {what}; not done: {}", left.join(", ")))
                .hint("the reasons are above")
                .into())
        }
    }
}

async fn list_resources(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let only: Vec<Name> = given.many("resources");
    let mut resources = or_none(session.client.list_resources(ListResources { resource: single(&only) }).await)?;
    resources.retain(|resource| only.is_empty() || only.contains(&resource.name));
    RESOURCES.print(&session.output, given, resources)
}

/// Of a name that there is not, a list tells nothing, as drbdmanage's do: scripts wait for that after a removal.
pub(super) fn or_none<T>(all: Result<Vec<T>, ApiError>) -> Result<Vec<T>, Failure> {
    match all {
        Err(error) if error.code == Code::NotFound => Ok(Vec::new()),
        all => Ok(all?),
    }
}

/// The one name that the daemon shall look for; of many, it tells all and the rest is left out here.
pub(super) fn single(names: &[Name]) -> Option<Name> {
    match names {
        [name] => Some(name.clone()),
        _ => None,
    }
}

async fn list_free_space(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let redundancy: u32 = given.one("redundancy");
    let space = session.client.list_free_space(ListFreeSpace { redundancy }).await?;
    match session.output.format {
        Format::Json => session.output.json(&space),
        Format::Csv => session.output.line(format_args!("{},{}", space.largest / 1024, kib(space.total))),
        Format::Table => session.output.line(format_args!(
            "The maximum size for a {redundancy}x redundant volume is {} kiB ({})\n(Aggregate cluster storage size: {} kiB)",
            space.largest / 1024,
            human(space.largest),
            kib(space.total)
        )),
    }
}
