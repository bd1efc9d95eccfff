//! The program: the command line, with the control plane for the verbs that no daemon can be asked for, and the data plane for
//! the daemon.

use std::process::ExitCode;
use std::sync::Arc;

use blkrep::api::{ApiError, Code};
use blkrep::control::daemon::{self, PlaneSetup};
use blkrep::control::replica::FormatMaker;
use blkrep::control::setup::Control;
use blkrep::runtime::{Plane, PlaneOptions};

fn main() -> ExitCode {
    let control = Control::new(Arc::new(data_plane));
    blkrep::cli::run(std::env::args_os(), &control).into()
}

/// The daemon's data plane: its shards, and the maker of metadata in this program's format.
fn data_plane(setup: PlaneSetup) -> Result<daemon::Plane, ApiError> {
    let events = setup.events;
    let plane = Plane::start(PlaneOptions::default(), move |event| {
        // The control plane that asks no more is ending, and the data plane with it.
        let _ = events.send(event);
    });
    let plane = plane.map_err(|error| ApiError::new(Code::Internal, error))?;
    Ok(daemon::Plane { plane: Arc::new(plane), maker: Arc::new(FormatMaker) })
}
