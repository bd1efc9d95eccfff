//! The command line.
//!
//! It is data first: `verbs` is one table of verbs with their aliases, arguments, help, examples and handlers. The parser,
//! `--help`, the manual pages and the shell completions are made from it, so that none of them can say something else than the
//! others.
//!
//! A handler asks the daemon through [`crate::api`] and prints through `output::Output`; it never prints on its own.
//! What a command line means when it ends is decided in [`exit`] alone.

mod ask;
mod demo;
pub mod exit;
mod given;
mod lists;
mod manual;
mod nbd;
mod output;
mod pace;
mod parser;
mod picture;
mod remote;
mod session;
mod size;
mod snapshot_lists;
mod span;
mod spec;
mod start;
mod table;
mod target;
mod verbs;
mod wait;

use std::ffi::OsString;

use crate::api::setup::{Root, Setup};
use exit::Exit;
use given::Given;
use output::Output;
use session::Session;

/// Runs one command line, the program's name first, and returns what to exit with. Everything that went wrong has been told on
/// standard error.
pub fn run(arguments: impl IntoIterator<Item = OsString>, setup: &dyn Setup) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = match parser::command().try_get_matches_from(&arguments) {
        Ok(matches) => matches,
        Err(error) => return parser::explain(&error, &arguments),
    };
    let (verb, matches) = parser::verb_of(&matches);
    let given = Given::new(matches);
    let output = Output::of_terminal(&given);
    let ask = ask::Ask::of_terminal(given.flag("quiet"));
    let session = Session::new(Root::new(given.one::<std::path::PathBuf>("root")), setup, output, ask);
    let result = verb.runtime.block_on((verb.run)(&session, given));
    result.map_or_else(|failure| session.output.failed(&failure), |()| Exit::Success)
}
