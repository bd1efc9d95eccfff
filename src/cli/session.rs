//! What a handler works with.

use std::cell::RefCell;
use std::time::Duration;

use super::ask::Ask;
use super::exit::Failure;
use super::output::Output;
use crate::api::Client;
use crate::api::setup::{Root, Setup};

/// How long a change may take. A daemon that has to find a leader first gets the time for it.
const PATIENCE: Duration = Duration::from_secs(45);

/// One command line being done.
pub(super) struct Session<'s> {
    /// The node's root.
    pub(super) root: Root,
    /// Asks the node's daemon.
    pub(super) client: Client,
    /// What no daemon is asked for.
    pub(super) setup: &'s dyn Setup,
    /// Where to print to.
    pub(super) output: Output,
    ask: RefCell<Ask>,
}

impl<'s> Session<'s> {
    /// A session of the node in `root`.
    pub(super) fn new(root: Root, setup: &'s dyn Setup, output: Output, ask: Ask) -> Self {
        let client = Client::unix(root.api_socket()).patience(PATIENCE);
        Self { root, client, setup, output, ask: RefCell::new(ask) }
    }

    /// Goes on when whoever typed the command confirms what is about to happen.
    pub(super) fn confirm(&self, what: impl AsRef<str>) -> Result<(), Failure> {
        self.ask.borrow_mut().confirm(&self.output, what.as_ref())
    }
}
