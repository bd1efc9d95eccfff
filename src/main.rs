//! The program: the command line, with the control plane for the verbs that no daemon can be asked for.

use std::process::ExitCode;

use blkrep::api::setup::{DaemonOptions, Founded, InitOptions, JoinOptions, RecoverOptions, Setup};
use blkrep::api::{ApiError, Code, Promise};

fn main() -> ExitCode {
    blkrep::cli::run(std::env::args_os(), &NoControlPlane).into()
}

/// What this build says of the verbs that make or are a daemon.
struct NoControlPlane;

impl NoControlPlane {
    fn refuse<T: Send + 'static>() -> Promise<'static, T> {
        Box::pin(async { Err(ApiError::new(Code::Internal, "this build has no control plane")) })
    }
}

impl Setup for NoControlPlane {
    fn init(&self, _: InitOptions) -> Promise<'_, Founded> {
        Self::refuse()
    }

    fn join(&self, _: JoinOptions) -> Promise<'_, Founded> {
        Self::refuse()
    }

    fn recover(&self, _: RecoverOptions) -> Promise<'_, Founded> {
        Self::refuse()
    }

    fn daemon(&self, _: DaemonOptions) -> Promise<'_, ()> {
        Self::refuse()
    }
}
