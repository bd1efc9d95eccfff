//! Which node has a replica of what.

use crate::api::{AssignResource, DeployResource, ListAssignments, Relative, Service, UnassignResource, UndeployResource};
use crate::cli::exit::Failure;
use crate::cli::given::Given;
use crate::cli::lists::{ASSIGNMENTS, LISTING};
use crate::cli::session::Session;
use crate::cli::spec::{Arg, Category, Example, Runtime, Takes, Verb};
use crate::units::Name;

use super::resources::{each, or_none, single};

const POOL: Arg = Arg::option("pool", None, Takes::PoolName, "The pool of new replicas [default: where the volumes want to be]");

/// The verbs.
pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "deploy-resource",
        aliases: &["deploy"],
        category: Category::Replicas,
        short: "Set how many replicas a resource has",
        long: "Nodes are chosen by their free space. Replicas that are too many are given up, the ones with the least to lose first.",
        args: &[&[
            Arg::place("resource", Takes::Resource, "The resource"),
            Arg::place("count", Takes::Count, "How many replicas"),
            Arg::flag("increase", Some('i'), "So many more than now"),
            Arg::flag("decrease", Some('d'), "So many fewer than now"),
            Arg::flag("with-clients", None, "Let every other node use it, without a replica"),
            POOL,
        ]],
        examples: &[
            Example { line: "deploy-resource web 3", does: "Keep three replicas of web" },
            Example { line: "deploy-resource web 1 --increase", does: "Keep one more" },
        ],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(deploy(session, given)),
    },
    Verb {
        name: "undeploy-resource",
        aliases: &["undeploy"],
        category: Category::Replicas,
        short: "Remove all replicas of a resource, keep its definition",
        long: "The data of its volumes is lost.",
        args: &[&[
            Arg::place("resource", Takes::Resource, "The resource"),
            Arg::flag("force", Some('f'), "Also when clients are connected, which are cut off"),
        ]],
        examples: &[Example { line: "undeploy-resource web", does: "Remove the replicas of web" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(undeploy(session, given)),
    },
    Verb {
        name: "assign-resource",
        aliases: &["assign"],
        category: Category::Replicas,
        short: "Put a replica of a resource on nodes",
        long: "A new replica is brought up to date by a resync. With --client the nodes use the resource without a replica.",
        args: &[&[
            Arg::place("resource", Takes::Resource, "The resource"),
            Arg::places("node", Takes::Node, "The nodes"),
            Arg::flag("client", None, "Without a replica"),
            POOL,
        ]],
        examples: &[Example { line: "assign-resource web alpha beta", does: "Put replicas of web on alpha and beta" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(assign(session, given)),
    },
    Verb {
        name: "unassign-resource",
        aliases: &["unassign"],
        category: Category::Replicas,
        short: "Remove the replica of a resource from nodes",
        long: "The last up-to-date replica, and one with clients, is not removed without --force.",
        args: &[&[
            Arg::place("resource", Takes::Resource, "The resource"),
            Arg::places("node", Takes::Node, "The nodes"),
            Arg::flag("force", Some('f'), "Also when clients are connected there, or it is the last up-to-date replica"),
        ]],
        examples: &[Example { line: "unassign-resource web beta", does: "Remove the replica of web from beta" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(unassign(session, given)),
    },
    Verb {
        name: "list-assignments",
        aliases: &["a", "assignments"],
        category: Category::Replicas,
        short: "List which resource is on which node",
        long: "With -m the fields of a line are: node, resource, node id, current flags, target flags.",
        args: &[
            LISTING,
            &[
                Arg::options("resources", Some('R'), Takes::Resource, "Of these resources only"),
                Arg::options("nodes", Some('N'), Takes::Node, "On these nodes only"),
            ],
        ],
        examples: &[Example { line: "list-assignments -m -N alpha -R web", does: "Tell whether web is on alpha, for a script" }],
        runtime: Runtime::Small,
        run: |session, given| Box::pin(list(session, given)),
    },
];

async fn deploy(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let relative = match (given.flag("increase"), given.flag("decrease")) {
        (true, true) => return Err(Failure::usage("more replicas or fewer?", "write --increase or --decrease")),
        (true, false) => Some(Relative::More),
        (false, true) => Some(Relative::Fewer),
        (false, false) => None,
    };
    let (resource, count, with_clients) = (given.one("resource"), given.one("count"), given.flag("with-clients"));
    let request = DeployResource { resource, count, relative, with_clients, pool: given.maybe("pool") };
    let placement = session.client.deploy_resource(request).await?;
    session.output.done(&placement, &[])
}

async fn undeploy(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let resource: Name = given.one("resource");
    session.confirm(format!("You are going to remove every replica of {resource}.\nThe data of its volumes is lost."))?;
    let done = session.client.undeploy_resource(UndeployResource { resource, force: given.flag("force") }).await?;
    session.output.done(&done, &done.notes)
}

async fn assign(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let resource: Name = given.one("resource");
    each(session, &given.many::<Name>("node"), async |node| {
        let (diskless, pool) = (given.flag("client"), given.maybe("pool"));
        let request = AssignResource { resource: resource.clone(), node: node.clone(), diskless, pool };
        session.client.assign_resource(request).await
    })
    .await
}

async fn unassign(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let resource: Name = given.one("resource");
    let nodes: Vec<Name> = given.many("node");
    let names: Vec<&str> = nodes.iter().map(Name::as_str).collect();
    session.confirm(format!("You are going to remove the replica of {resource} from {}.", names.join(", ")))?;
    each(session, &nodes, async |node| {
        let request = UnassignResource { resource: resource.clone(), node: node.clone(), force: given.flag("force") };
        session.client.unassign_resource(request).await
    })
    .await
}

async fn list(session: &Session<'_>, given: Given<'_>) -> Result<(), Failure> {
    let (resources, nodes): (Vec<Name>, Vec<Name>) = (given.many("resources"), given.many("nodes"));
    let request = ListAssignments { resource: single(&resources), node: single(&nodes) };
    let mut assignments = or_none(session.client.list_assignments(request).await)?;
    assignments.retain(|one| resources.is_empty() || resources.contains(&one.resource));
    assignments.retain(|one| nodes.is_empty() || nodes.contains(&one.node));
    ASSIGNMENTS.print(&session.output, given, assignments)
}
