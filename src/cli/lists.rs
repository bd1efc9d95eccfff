//! The lists: which columns they have, for people and for programs.
//!
//! The columns and their order are drbdmanage's. With `-m` a line has these fields, separated by commas, as scripts expect them:
//!
//! | list | fields |
//! |---|---|
//! | nodes | name, address family (4 or 6), address, pool size in KiB, free in KiB (-1: not known), flags, site (always empty) |
//! | pools | node, name, kind, location, size in KiB, free in KiB (-1: not known), percent full of data and of metadata (thin ones) |
//! | resources | name, port, state |
//! | volumes | resource, its state, volume number, size in KiB, port, minor number (or empty), state |
//! | snapshots | resource, snapshot |
//! | snapshot assignments | resource, snapshot, node, current flags, target flags |
//! | schedules | resource, seconds between two, how many stay, last and next in seconds since 1970 |
//! | assignments | node, resource, node id, current flags, target flags |
//!
//! Flags are joined by `|`: of nodes `remove`, `drbdctrl` (a voter), `storage` and, new here, `offline`; of assignments
//! `connect`, `deploy` and `diskless`.

use serde::Serialize;

use super::exit::Failure;
use super::given::Given;
use super::output::{Format, Output};
use super::size::kib;
use super::spec::{Arg, Takes};
use super::table::{Cell, Natural, Table, left, right, same_title};
use crate::api::{Assignment, Membership, Node, NodePool, Pool, Replicas, Resource, Volume};
use crate::units::human;

/// Arguments of every list.
pub(super) const LISTING: &[Arg] = &[
    Arg::flag("machine-readable", Some('m'), "Print drbdmanage's comma separated fields"),
    Arg::flag("pastable", Some('p'), "Print no colours"),
    Arg::options("show", Some('s'), Takes::Text("COLUMN"), "Show these columns, too"),
    Arg::options("groupby", Some('g'), Takes::Text("COLUMN"), "Sort by these columns"),
    Arg::flag("separators", None, "Print a line between rows"),
];

/// A list of `T`.
pub(super) struct List<T> {
    /// What is printed when there are none.
    pub(super) empty: &'static str,
    /// What it is sorted by, in the natural order, the first being the most important.
    pub(super) order: fn(&T) -> Vec<String>,
    /// One as a line for programs.
    pub(super) csv: fn(&T) -> String,
    /// All as a table, with every column.
    pub(super) table: fn(&[T]) -> Table,
    /// The columns that are shown only when they are asked for.
    pub(super) extra: &'static [&'static str],
}

impl<T: Serialize> List<T> {
    /// Prints `all`, as the arguments of [`LISTING`] want it.
    pub(super) fn print(&self, output: &Output, given: Given<'_>, mut all: Vec<T>) -> Result<(), Failure> {
        all.sort_by_cached_key(|one| (self.order)(one).into_iter().map(Natural).collect::<Vec<_>>());
        match output.format {
            Format::Json => output.json(&all),
            Format::Csv => output.text(all.iter().map(|one| (self.csv)(one) + "\n").collect::<String>()),
            Format::Table if all.is_empty() => output.line(self.empty),
            Format::Table => output.text(self.arranged(given, &all)?.render(output.colours)),
        }
    }

    fn arranged(&self, given: Given<'_>, all: &[T]) -> Result<Table, Failure> {
        let table = (self.table)(all);
        let (show, group) = (given.many::<String>("show"), given.many::<String>("groupby"));
        if let Some(unknown) = show.iter().chain(&group).find(|typed| !table.has(typed)) {
            let titles: Vec<String> = table.titles().map(|title| title.replace(' ', "_")).collect();
            return Err(Failure::usage(
                format_args!("there is no column '{unknown}'"),
                format_args!("the columns are {}", titles.join(", ")),
            ));
        }
        let asked = |title: &str| show.iter().chain(&group).any(|typed| same_title(title, typed));
        let table = table.select(|title| !self.extra.contains(&title) || asked(title));
        let group: Vec<&str> = group.iter().map(String::as_str).collect();
        Ok(table.sorted(&group).separated(given.flag("separators")))
    }
}

/// The list of nodes.
pub(super) const NODES: List<Node> = List {
    empty: "No nodes defined",
    order: |node| vec![node.name.to_string()],
    csv: |node| {
        let (size, free) = match &node.pool {
            Some(pool) => (kib(pool.size).to_string(), (pool.free / 1024).to_string()),
            None => ("-1".to_owned(), "-1".to_owned()),
        };
        let family = if node.address.is_ipv4() { 4 } else { 6 };
        format!("{},{family},{},{size},{free},{},", node.name, node.address, node_flags(node))
    },
    table: |nodes| {
        let mut table = Table::new([
            left("Name"),
            right("Pool Size"),
            right("Pool Free"),
            left("Pool"),
            left("Family"),
            left("IP"),
            right("Port"),
            right("Node ID"),
            left("Vote"),
            left("Version"),
            right("State"),
        ]);
        for node in nodes {
            let mib = |bytes: u64| (bytes >> 20).to_string();
            let pool = node.pool.as_ref();
            let size = |part: fn(&Pool) -> u64| pool.map_or_else(|| "n/a".to_owned(), |pool| mib(part(pool)));
            let state = node.state();
            table.row([
                Cell::from(&node.name),
                size(|pool| pool.size).into(),
                size(|pool| pool.free).into(),
                pool.map_or_else(String::new, |pool| pool.location.clone()).into(),
                (if node.address.is_ipv4() { "ipv4" } else { "ipv6" }).into(),
                node.address.into(),
                node.port.into(),
                node.id.into(),
                node.membership.into(),
                node.version.clone().unwrap_or_default().into(),
                Cell::state(state, state.level()),
            ]);
        }
        table
    },
    extra: &["Pool", "Family", "IP", "Port", "Node ID", "Vote", "Version"],
};

/// The list of pools.
pub(super) const POOLS: List<NodePool> = List {
    empty: "No pools defined",
    order: |one| vec![one.node.to_string(), one.name.to_string()],
    csv: |one| {
        let pool = one.pool.as_ref();
        let number = |part: fn(&Pool) -> u64| pool.map_or_else(|| "-1".to_owned(), |pool| (part(pool) / 1024).to_string());
        let full = |level: Option<u16>| level.map_or_else(String::new, |level| format!("{}.{}", level / 10, level % 10));
        let fill = pool.and_then(|pool| pool.fill);
        let (data, metadata) = (full(fill.map(|fill| fill.data)), full(fill.and_then(|fill| fill.metadata)));
        let kind = pool.map_or_else(String::new, |pool| pool.kind.to_string());
        let location = pool.map_or_else(String::new, |pool| pool.location.clone());
        let (size, free) = (number(|pool| pool.size), number(|pool| pool.free));
        format!("{},{},{kind},{location},{size},{free},{data},{metadata}", one.node, one.name)
    },
    table: |pools| {
        let mut table = Table::new([
            left("Node"),
            left("Pool"),
            left("Kind"),
            left("Location"),
            right("Size"),
            right("Free"),
            right("Full"),
            right("Default"),
            right("State"),
        ]);
        for one in pools {
            let pool = one.pool.as_ref();
            let text = |part: fn(&Pool) -> String| pool.map_or_else(|| "n/a".to_owned(), part);
            let (state, level) = one.state();
            table.row([
                Cell::from(&one.node),
                (&one.name).into(),
                text(|pool| pool.kind.to_string()).into(),
                text(|pool| pool.location.clone()).into(),
                text(|pool| human(pool.size)).into(),
                text(|pool| human(pool.free)).into(),
                text(|pool| pool.fill.map_or_else(|| "-".to_owned(), |fill| fill.percent())).into(),
                (if one.usual { "yes" } else { "" }).into(),
                Cell::state(state, level),
            ]);
        }
        table
    },
    extra: &[],
};

/// The list of resources.
pub(super) const RESOURCES: List<Resource> = List {
    empty: "No resources defined",
    order: |resource| vec![resource.name.to_string()],
    csv: |resource| format!("{},{},{}", resource.name, resource.port, resource.state),
    table: |resources| {
        let mut table = Table::new([left("Name"), right("Port"), right("State")]);
        for resource in resources {
            let state = Cell::state(worded(resource.state, &resource.detail), resource.state.level());
            table.row([Cell::from(&resource.name), resource.port.into(), state]);
        }
        table
    },
    extra: &["Port"],
};

/// The list of volumes.
pub(super) const VOLUMES: List<Volume> = List {
    empty: "No volumes defined",
    order: |one| vec![one.resource.to_string(), one.volume.volume.to_string()],
    csv: |volume| {
        let info = &volume.volume;
        let minor = info.minor.map_or_else(String::new, |minor| minor.to_string());
        let (name, state) = (&volume.resource, volume.resource_state);
        format!("{name},{state},{},{},{},{minor},{}", info.volume, kib(info.bytes), volume.port, volume.state)
    },
    table: |volumes| {
        let columns = [left("Name"), right("Vol ID"), right("Size"), right("Minor"), right("Port"), right("State")];
        let mut table = Table::new(columns);
        for volume in volumes {
            let minor = volume.volume.minor.map_or_else(|| "-".to_owned(), |minor| minor.to_string());
            table.row([
                Cell::from(&volume.resource),
                volume.volume.volume.into(),
                human(volume.volume.bytes).into(),
                minor.into(),
                volume.port.into(),
                Cell::state(worded(volume.state, &volume.detail), volume.state.level()),
            ]);
        }
        table
    },
    extra: &["Port"],
};

/// The list of assignments.
pub(super) const ASSIGNMENTS: List<Assignment> = List {
    empty: "No assignments defined",
    order: |one| vec![one.node.to_string(), one.resource.to_string()],
    csv: |assignment| {
        let flags = |replicas| assignment_flags(replicas, assignment.diskless);
        let (current, target) = (flags(assignment.current), flags(assignment.target));
        format!("{},{},{},{current},{target}", assignment.node, assignment.resource, assignment.node_id)
    },
    table: |assignments| {
        let mut table = Table::new([left("Node"), left("Resource"), right("Vol ID"), right("Node ID"), right("State")]);
        for assignment in assignments {
            let state = Cell::state(worded(assignment.state, &assignment.detail), assignment.state.level());
            let (node, resource) = (Cell::from(&assignment.node), Cell::from(&assignment.resource));
            table.row([node, resource, "*".into(), assignment.node_id.into(), state]);
        }
        table
    },
    extra: &["Node ID"],
};

/// `ok`, `degraded (beta offline)`
fn worded(state: impl std::fmt::Display, detail: &str) -> String {
    if detail.is_empty() { state.to_string() } else { format!("{state} ({detail})") }
}

fn node_flags(node: &Node) -> String {
    let flags = [
        (node.removing, "remove"),
        (matches!(node.membership, Membership::Voter | Membership::Leader), "drbdctrl"),
        (node.pool.is_some(), "storage"),
        (!node.online, "offline"),
    ];
    joined(&flags)
}

fn assignment_flags(replicas: Replicas, diskless: bool) -> String {
    joined(&[
        (replicas.connected, "connect"),
        (replicas.deployed, "deploy"),
        (diskless && (replicas.connected || replicas.deployed), "diskless"),
    ])
}

fn joined(flags: &[(bool, &str)]) -> String {
    let set: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
    set.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::state::{AssignmentState, ResourceState};
    use crate::api::{Fill, VolumeInfo};
    use crate::units::{NodeId, PoolKind, ResourceId, VolumeId};

    fn node(name: &str, online: bool) -> Node {
        Node {
            name: name.parse().unwrap(),
            id: NodeId(1),
            address: "10.43.100.2".parse().unwrap(),
            port: 6999,
            membership: Membership::Voter,
            online,
            removing: false,
            pool: online.then(|| Pool {
                kind: PoolKind::Lvm,
                location: "drbdpool".to_owned(),
                size: 81916 << 20,
                free: 81908 << 20,
                fill: None,
            }),
            pools: std::collections::BTreeMap::new(),
            pool_failures: std::collections::BTreeMap::new(),
            version: Some("0.1.0".to_owned()),
        }
    }

    fn text<T>(list: &List<T>, all: &[T]) -> String {
        (list.table)(all).select(|title| !list.extra.contains(&title)).render(false)
    }

    #[test]
    fn pools() {
        let fill = Some(Fill { data: 119, metadata: Some(823) });
        let pool = Pool { kind: PoolKind::LvmThin, location: "vg/tp".to_owned(), size: 1 << 30, free: 3 << 30, fill };
        let one = |name: &str, pool: Option<Pool>, failure: Option<&str>| NodePool {
            node: "alpha".parse().unwrap(),
            name: name.parse().unwrap(),
            usual: name == "ssd",
            online: true,
            spec: None,
            pool,
            failure: failure.map(str::to_owned),
        };
        let all = [one("default", None, Some("it is gone")), one("ssd", Some(pool), None)];
        assert_eq!((POOLS.csv)(&all[0]), "alpha,default,,,-1,-1,,");
        assert_eq!((POOLS.csv)(&all[1]), "alpha,ssd,lvm-thin,vg/tp,1048576,3145728,11.9,82.3");
        let shown = text(&POOLS, &all);
        assert!(shown.contains("failing (it is gone)") && shown.contains("11.9% (metadata 82.3%)"), "{shown}");
    }

    #[test]
    fn nodes() {
        let all = [node("node01.centos.org", true), node("node2", false)];
        let expected = "\
+-----------------------------------------------------+
| Name              | Pool Size | Pool Free |   State |
|-----------------------------------------------------|
| node01.centos.org |     81916 |     81908 |      ok |
| node2             |       n/a |       n/a | OFFLINE |
+-----------------------------------------------------+
";
        assert_eq!(text(&NODES, &all), expected);
        assert_eq!((NODES.csv)(&all[0]), "node01.centos.org,4,10.43.100.2,83881984,83873792,drbdctrl|storage,");
        assert_eq!((NODES.csv)(&all[1]), "node2,4,10.43.100.2,-1,-1,drbdctrl|offline,");
    }

    #[test]
    fn resources_and_volumes() {
        let info = VolumeInfo { volume: VolumeId(0), bytes: 10_000_003_072, making: false, growth: None, minor: None };
        let resource = Resource {
            name: "resource01".parse().unwrap(),
            id: ResourceId(1),
            port: 6999,
            state: ResourceState::Degraded,
            detail: "beta offline".to_owned(),
            volumes: vec![info.clone()],
        };
        let expected = "\
+--------------------------------------+
| Name       |                   State |
|--------------------------------------|
| resource01 | degraded (beta offline) |
+--------------------------------------+
";
        assert_eq!(text(&RESOURCES, std::slice::from_ref(&resource)), expected);
        assert_eq!((RESOURCES.csv)(&resource), "resource01,6999,degraded");

        let volume = |minor| Volume {
            resource: "resource01".parse().unwrap(),
            port: 6999,
            resource_state: ResourceState::Ok,
            volume: VolumeInfo { minor, ..info.clone() },
            state: ResourceState::Ok,
            detail: String::new(),
        };
        let expected = "\
+------------------------------------------------+
| Name       | Vol ID |     Size | Minor | State |
|------------------------------------------------|
| resource01 |      0 | 9.31 GiB |     - |    ok |
+------------------------------------------------+
";
        assert_eq!(text(&VOLUMES, &[volume(None)]), expected);
        // The fourth field is the size in KiB: OpenNebula's driver reads it.
        assert_eq!((VOLUMES.csv)(&volume(None)), "resource01,ok,0,9765628,6999,,ok");
        assert_eq!((VOLUMES.csv)(&volume(Some(3))), "resource01,ok,0,9765628,6999,3,ok");
    }

    #[test]
    fn assignments() {
        let up = Replicas { deployed: true, connected: true };
        let assignment = |node: &str, diskless, current, target| Assignment {
            node: node.parse().unwrap(),
            node_id: NodeId(2),
            resource: "QM1".parse().unwrap(),
            diskless,
            current,
            target,
            state: AssignmentState::Ok,
            detail: String::new(),
            volumes: Vec::new(),
        };
        let all = [assignment("ip-10-0-1-161", false, up, up), assignment("b", true, up, Replicas::default())];
        let expected = "\
+-------------------------------------------+
| Node          | Resource | Vol ID | State |
|-------------------------------------------|
| ip-10-0-1-161 | QM1      |      * |    ok |
| b             | QM1      |      * |    ok |
+-------------------------------------------+
";
        assert_eq!(text(&ASSIGNMENTS, &all), expected);
        assert_eq!((ASSIGNMENTS.csv)(&all[0]), "ip-10-0-1-161,QM1,2,connect|deploy,connect|deploy");
        assert_eq!((ASSIGNMENTS.csv)(&all[1]), "b,QM1,2,connect|deploy|diskless,");
    }
}
