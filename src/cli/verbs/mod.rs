//! The table of verbs.
//!
//! Each file holds the lines of one subject with the handlers right below them. A verb's arguments are read in its handler, and
//! nowhere else.

mod adopt;
mod attachments;
mod connections;
mod docker;
mod found;
mod metadata;
mod nodes;
mod operate;
mod options;
mod pools;
mod program;
mod replicas;
mod resources;
mod snapshots;
mod split_brain;
mod watch;

use super::spec::Verb;

/// Every verb, in the order of `--help`.
pub(super) fn all() -> impl Iterator<Item = &'static Verb> {
    [
        found::VERBS,
        nodes::VERBS,
        pools::VERBS,
        resources::VERBS,
        adopt::VERBS,
        options::VERBS,
        snapshots::VERBS,
        replicas::VERBS,
        operate::VERBS,
        connections::VERBS,
        split_brain::VERBS,
        metadata::VERBS,
        attachments::VERBS,
        watch::VERBS,
        docker::VERBS,
        program::VERBS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
