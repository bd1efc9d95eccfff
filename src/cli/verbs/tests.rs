//! The table holds what it promises.

use std::collections::BTreeSet;

use super::*;
use crate::cli::spec::{Form, Takes};
use crate::cli::{ask, exit, given, output, parser, session};

/// A command line as a shell would split it; the examples have no quotes and end at a redirection.
fn words(line: &str) -> Vec<&str> {
    line.split(' ').take_while(|word| *word != ">").collect()
}

#[test]
fn names_and_aliases_are_unique() {
    let mut seen = BTreeSet::new();
    for name in all().flat_map(|verb| std::iter::once(&verb.name).chain(verb.aliases)) {
        assert!(seen.insert(name), "{name} names two verbs");
    }
}

#[test]
fn every_drbdmanage_name_of_a_verb_is_known() {
    let known: BTreeSet<&str> = all().flat_map(|verb| std::iter::once(verb.name).chain(verb.aliases.iter().copied())).collect();
    let theirs = "init add-node nn new-node an remove-node rn delete-node dn howto-join join-cluster join list-nodes n nodes \
                  add-resource nr new-resource ar remove-resource rr delete-resource dr add-volume nv new-volume av \
                  resize-volume resize remove-volume rv delete-volume dv deploy-resource deploy undeploy-resource undeploy assign-resource assign \
                  unassign-resource unassign list-resources r resources list-volumes v volumes list-assignments a assignments \
                  add-snapshot ns create-snapshot cs new-snapshot as remove-snapshot delete-snapshot ds remove-snapshot-assignment rsa \
                  delete-snapshot-assignment dsa restore-snapshot rs list-snapshots s snapshots list-snapshot-assignments sa \
                  snapshot-assignments list-free-space free-space list-options show-options resource-options net-options shutdown ping server-version";
    for name in theirs.split_whitespace() {
        assert!(known.contains(name), "{name} is missing");
    }
}

#[test]
fn help_is_written_in_the_houses_style() {
    for verb in all() {
        let name = verb.name;
        assert!(verb.short.starts_with(char::is_uppercase) && !verb.short.ends_with('.'), "{name}: short help");
        assert!(verb.short.len() <= 56, "{name}: the short help does not fit into a line of the list");
        assert!(verb.long.ends_with('.'), "{name}: long help");
        assert!(!verb.examples.is_empty(), "{name}: no example");
        for arg in verb.args.iter().copied().flatten() {
            assert!(!arg.help.ends_with('.') && !arg.help.is_empty(), "{name} {}: help", arg.id);
            assert_eq!(matches!(arg.takes, Takes::Nothing), matches!(arg.form, Form::Flag(_)), "{name} {}: takes", arg.id);
        }
    }
}

#[test]
fn every_example_is_a_command_line_of_its_verb() {
    for verb in all() {
        for example in verb.examples {
            let line = std::iter::once("blkrep").chain(words(example.line));
            let matches =
                parser::command().try_get_matches_from(line).unwrap_or_else(|error| panic!("{}: {error}", example.line));
            assert_eq!(parser::verb_of(&matches).0.name, verb.name, "{}", example.line);
        }
    }
}

/// Runs every example against a daemon that is not there: each handler reads its arguments, asks, and tells that nobody answers.
#[test]
fn every_example_gets_as_far_as_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_str().unwrap();
    // These do not ask a daemon, or never end.
    let other = [
        "init",
        "create-pool",
        "join",
        "recover",
        "daemon",
        "demo",
        "status --watch",
        "generate",
        "attach-helper",
        "metadata",
        "docker",
    ];
    for example in all().flat_map(|verb| verb.examples).filter(|e| !other.iter().any(|o| e.line.starts_with(o))) {
        let line = ["blkrep", "--root", root, "-q"].into_iter().chain(words(example.line));
        let matches = parser::command().try_get_matches_from(line).unwrap();
        let (verb, matches) = parser::verb_of(&matches);
        let given = given::Given::new(matches);
        let output = output::Output::to(&given, Box::new(std::io::sink()), Box::new(std::io::sink()));
        let root = crate::api::setup::Root::new(directory.path());
        let session = session::Session::new(root, &NoSetup, output, ask::Ask::Quiet);
        let result = verb.runtime.block_on((verb.run)(&session, given));
        assert_eq!(result.unwrap_err().exit(), exit::Exit::Unreachable, "{}", example.line);
    }
}

/// Nothing here may be called.
struct NoSetup;

impl crate::api::setup::Setup for NoSetup {
    fn listeners(&self) -> Result<Vec<crate::api::setup::Listener>, crate::api::ApiError> {
        panic!("listeners was called")
    }

    fn init(&self, _: crate::api::setup::InitOptions) -> crate::api::Promise<'_, crate::api::setup::Founded> {
        panic!("init was called")
    }

    fn join(&self, _: crate::api::setup::JoinOptions) -> crate::api::Promise<'_, crate::api::setup::Founded> {
        panic!("join was called")
    }

    fn recover(&self, _: crate::api::setup::RecoverOptions) -> crate::api::Promise<'_, crate::api::setup::Founded> {
        panic!("recover was called")
    }

    fn create_pool(&self, _: crate::api::setup::CreatePoolOptions) -> crate::api::Promise<'_, ()> {
        panic!("create_pool was called")
    }

    fn metadata_report(
        &self,
        _: crate::api::setup::Root,
        _: crate::api::metadata::MetadataOf,
    ) -> crate::api::Promise<'_, crate::api::metadata::MetadataReport> {
        panic!("metadata_report was called")
    }

    fn metadata_dump(&self, _: crate::api::setup::Root, _: crate::api::metadata::MetadataOf) -> crate::api::Promise<'_, String> {
        panic!("metadata_dump was called")
    }

    fn metadata_restore(&self, _: crate::api::metadata::RestoreMetadata) -> crate::api::Promise<'_, crate::api::Done> {
        panic!("metadata_restore was called")
    }

    fn daemon(&self, _: crate::api::setup::DaemonOptions) -> crate::api::Promise<'_, ()> {
        panic!("daemon was called")
    }

    fn attach_helper(&self, _: crate::api::setup::HelperOptions) -> crate::api::Promise<'_, ()> {
        panic!("attach-helper was called")
    }

    fn docker_relay(&self, _: crate::api::setup::RelayOptions) -> crate::api::Promise<'_, ()> {
        panic!("docker relay was called")
    }
}
