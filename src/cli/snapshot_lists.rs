//! The lists of snapshots and schedules, as [`lists`](super::lists) are.

use super::lists::List;
use super::span::{moment, written};
use super::table::{Cell, Table, left, right};
use crate::api::state::Level;
use crate::api::{Snapshot, SnapshotSchedule, SnapshotState};
use crate::units::human;

/// The list of snapshots.
pub(super) const SNAPSHOTS: List<Snapshot> = List {
    empty: "Snapshot list is empty",
    order: |one| vec![one.resource.to_string(), one.created.to_string(), one.name.to_string()],
    csv: |one| format!("{},{}", one.resource, one.name),
    table: |snapshots| {
        let titles = [left("Resource"), left("Name"), left("Taken"), right("Size"), left("Nodes"), left("By"), right("State")];
        let mut table = Table::new(titles);
        for one in snapshots {
            let nodes: Vec<&str> = one.nodes.iter().map(crate::units::Name::as_str).collect();
            table.row([
                Cell::from(&one.resource),
                Cell::from(&one.name),
                moment(one.created).into(),
                human(one.volumes.iter().map(|volume| volume.bytes).sum()).into(),
                nodes.join(" ").into(),
                (if one.scheduled { "schedule" } else { "hand" }).into(),
                snapshot_state(one),
            ]);
        }
        table
    },
    extra: &["By"],
};

/// The list of the parts of snapshots: of each one node.
pub(super) const SNAPSHOT_PARTS: List<Snapshot> = List {
    empty: "Snapshot assignment list is empty",
    order: |one| vec![one.resource.to_string(), one.created.to_string(), one.name.to_string(), format!("{:?}", one.nodes)],
    csv: |one| {
        let flags = if one.state == SnapshotState::Ok { "deploy" } else { "" };
        one.nodes.iter().map(|node| format!("{},{},{node},{flags},deploy", one.resource, one.name)).collect()
    },
    table: |parts| {
        let mut table = Table::new([left("Resource"), left("Name"), left("Node"), right("State")]);
        for one in parts {
            for node in &one.nodes {
                table.row([Cell::from(&one.resource), Cell::from(&one.name), Cell::from(node), snapshot_state(one)]);
            }
        }
        table
    },
    extra: &[],
};

/// The list of schedules.
pub(super) const SCHEDULES: List<SnapshotSchedule> = List {
    empty: "No schedules defined",
    order: |one| vec![one.resource.to_string()],
    csv: |one| {
        let last = one.last.map(|last| last.to_string()).unwrap_or_default();
        format!("{},{},{},{last},{}", one.resource, one.every, one.keep, one.next)
    },
    table: |schedules| {
        let mut table = Table::new([left("Resource"), right("Every"), right("Keep"), left("Last"), left("Next")]);
        for one in schedules {
            table.row([
                Cell::from(&one.resource),
                written(one.every).into(),
                one.keep.into(),
                one.last.map_or_else(|| "-".to_owned(), moment).into(),
                moment(one.next).into(),
            ]);
        }
        table
    },
    extra: &[],
};

fn snapshot_state(one: &Snapshot) -> Cell {
    Cell::state(one.state, if one.state == SnapshotState::Ok { Level::Normal } else { Level::Warning })
}
