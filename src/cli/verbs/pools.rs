//! Pools: what nodes store volumes in.

use std::path::PathBuf;

use crate::api::setup::{CreatePoolOptions, PoolChoice};
use crate::api::{AddPool, DefaultPool, ListPools, RemovePool, Service};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::lists::{LISTING, POOLS};
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::cli::target::PoolArgument;
use crate::units::{Name, PoolKind};

use super::resources::single;

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "create-pool",
        aliases: &[],
        category: Category::Cluster,
        short: "Make a volume group, or a thin pool, of empty devices",
        long: "The devices must hold nothing: a partition table, a file system, swap space, a part of a volume group or array, or \
               whatever has a signature is named and left alone. Nothing is ever wiped. The new group is nobody's pool yet: `blkrep \
               init` takes one called drbdpool by itself, `blkrep add-pool` any other. Thin pools need a kernel with device-mapper.",
        args: &[&[
            Arg::places("device", Takes::Path, "The devices, such as /dev/sdb"),
            Arg::option("name", None, Takes::Text("GROUP"), "The volume group's name").default("drbdpool"),
            Arg::option("thin", None, Takes::Text("THINPOOL"), "Make a thin pool of that name in it"),
        ]],
        examples: &[
            Example { line: "create-pool /dev/sdb /dev/sdc", does: "Make the volume group drbdpool of two disks" },
            Example { line: "create-pool --name fast --thin thin /dev/nvme1n1", does: "Make the thin pool fast/thin" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(create(session, given)),
    },
    Verb {
        name: "add-pool",
        aliases: &[],
        category: Category::Cluster,
        short: "Give this node another pool",
        long: "Volumes name a pool by NAME on every node, so give pools that are alike the same name everywhere. The pool that a node \
               was made with is called default. A thin pool promises several times what it has; when it is nearly full it promises \
               nothing more, and `blkrep status` tells of it before. A thin pool of LVM should fail writes at once when it is full \
               (`lvchange --errorwhenfull y VG/POOL`, which `blkrep create-pool` sets): otherwise they wait for a minute first.",
        args: &[&[
            Arg::place("name", Takes::PoolName, "What it shall be called"),
            Arg::place("spec", Takes::Pool, "lvm:GROUP, lvm-thin:GROUP/THINPOOL, file:DIRECTORY or file-thin:DIRECTORY"),
            Arg::option("oversubscription", None, Takes::Count, "How many times its size a thin pool may promise [default: 20]"),
            Arg::flag("default", None, "Let volumes go to it when nobody says"),
        ]],
        examples: &[
            Example { line: "add-pool ssd lvm:fast", does: "Use the volume group fast as pool ssd" },
            Example { line: "add-pool bulk file-thin:/srv/bulk --oversubscription 3", does: "Use sparse files in a directory" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(add(session, given)),
    },
    Verb {
        name: "list-pools",
        aliases: &["pools"],
        category: Category::Cluster,
        short: "List the pools of the nodes",
        long: "What is free is what new volumes can have. Of a thin pool it is what it would promise; how full it is stands beside it. \
               With -m the fields of a line are: node, name, kind, location, size in KiB, free in KiB, percent full of data and of \
               metadata.",
        args: &[LISTING, &[Arg::options("nodes", Some('N'), Takes::Node, "Of these nodes only")]],
        examples: &[Example { line: "list-pools", does: "List the pools" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list(session, given)),
    },
    Verb {
        name: "default-pool",
        aliases: &[],
        category: Category::Cluster,
        short: "Choose this node's pool for volumes that name none",
        long: "Replicas that exist stay where they are.",
        args: &[&[Arg::place("name", Takes::PoolName, "The pool")]],
        examples: &[Example { line: "default-pool ssd", does: "Put new replicas into the pool ssd" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(default(session, given)),
    },
    Verb {
        name: "remove-pool",
        aliases: &["delete-pool"],
        category: Category::Cluster,
        short: "Take a pool from this node",
        long: "Nothing may be in it any more. Its volume group or directory stays, and is nobody's then.",
        args: &[&[Arg::place("name", Takes::PoolName, "The pool")]],
        examples: &[Example { line: "remove-pool bulk", does: "Take the pool bulk from this node" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(remove(session, given)),
    },
];

async fn create(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let group: String = given.one("name");
    let (kind, location) = match given.maybe::<String>("thin") {
        Some(thin) => (PoolKind::LvmThin, format!("{group}/{thin}")),
        None => (PoolKind::Lvm, group.clone()),
    };
    let devices: Vec<PathBuf> = given.many("device");
    let spec = format!("{kind}:{location}");
    session.setup.create_pool(CreatePoolOptions { pool: PoolChoice { kind, location }, devices }).await?;
    if session.output.format != Format::Json {
        session.output.note(format_args!("Made {spec}; `blkrep init --pool {spec}` or `blkrep add-pool NAME {spec}` uses it"));
    }
    session.output.done(&spec, &[])
}

async fn add(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let PoolArgument(pool) = given.one("spec");
    let request = AddPool {
        name: given.one("name"),
        pool,
        oversubscription: given.maybe("oversubscription"),
        default: given.flag("default"),
    };
    let done = session.client.add_pool(request).await?;
    session.output.done(&done, &done.notes)
}

async fn list(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let only: Vec<Name> = given.many("nodes");
    let mut pools = session.client.list_pools(ListPools { node: single(&only) }).await?;
    pools.retain(|pool| only.is_empty() || only.contains(&pool.node));
    POOLS.print(&session.output, given, pools)
}

async fn default(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let done = session.client.default_pool(DefaultPool { name: given.one("name") }).await?;
    session.output.done(&done, &done.notes)
}

async fn remove(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let done = session.client.remove_pool(RemovePool { name: given.one("name") }).await?;
    session.output.done(&done, &done.notes)
}
