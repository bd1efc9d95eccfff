//! The program: the command line, with the control plane for the verbs that no daemon can be asked for.

use std::process::ExitCode;
use std::sync::Arc;

use blkrep::api::{ApiError, Code};
use blkrep::control::daemon::{Plane, PlaneSetup};
use blkrep::control::replica::FormatMaker;
use blkrep::control::setup::Control;
use blkrep::runtime::{self, PlaneOptions};

fn main() -> ExitCode {
    let control = Control::new(Arc::new(data_plane));
    blkrep::cli::run(std::env::args_os(), &control).into()
}

/// The data plane of a daemon.
fn data_plane(setup: PlaneSetup) -> Result<Plane, ApiError> {
    let events = setup.events;
    // At the daemon's end nobody listens any more.
    let tell = move |event| drop(events.send(event));
    let plane = runtime::Plane::start(PlaneOptions::default(), tell).map_err(|error| ApiError::new(Code::Internal, error))?;
    Ok(Plane { plane: Arc::new(plane), maker: Arc::new(FormatMaker) })
}
