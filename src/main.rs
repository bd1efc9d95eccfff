//! The program: the command line, with the control plane for the verbs that no daemon can be asked for.

use std::process::ExitCode;
use std::sync::Arc;

use blkrep::api::{ApiError, Code};
use blkrep::control::setup::Control;

fn main() -> ExitCode {
    let control = Control::new(Arc::new(|_| Err(ApiError::new(Code::Internal, "this build has no data plane"))));
    blkrep::cli::run(std::env::args_os(), &control).into()
}
