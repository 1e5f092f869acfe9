//! Processes with a GPU each, by NCCL.

use super::{PATIENCE, Seat};
use crate::output::be_quiet;
use engine::cuda::{Gpus, Settings};
use engine::{Collective, Error, ErrorKind, Result};
use std::process::ExitCode;
use std::sync::Arc;

/// See [`among`](super::among).
pub fn among(
    seat: Seat,
    address: &str,
    work: impl FnOnce(Arc<dyn Collective>) -> Result<ExitCode>,
) -> Result<ExitCode> {
    let Seat { size, rank, .. } = seat;
    if rank > 0 {
        be_quiet();
    }
    let done = Gpus::meet(&Settings::from_env(), address, rank, size, PATIENCE).map(Arc::new).map(|gpus| {
        let done = work(gpus.clone());
        let reports = gpus.leave(done.as_ref().err());
        done.map_err(|error| (error, reports))
    });
    // Who has not met the others speaks for itself.
    match done.unwrap_or_else(|error| Err((error, true))) {
        Err((error, reports)) if rank > 0 => {
            if reports {
                eprintln!("error: process {rank}: {error}");
            }
            Ok(code(&error))
        }
        done => done.map_err(|(error, _)| error),
    }
}

fn code(error: &Error) -> ExitCode {
    ExitCode::from(if error.kind == ErrorKind::Usage { 2 } else { 1 })
}
