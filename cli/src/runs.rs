//! The run folder that a command is about.

use engine::{Error, Result};
use ltm::run::Run;
use ltm::shell;
use std::fs;
use std::path::Path;

/// Where runs go unless told otherwise.
const RUNS: &str = "runs";

/// Opens the run folder at `path`.
///
/// # Errors
/// Those of [`Run::open`]; where there is no run, with the names of some that there are.
pub fn open(path: &Path) -> Result<Run> {
    Run::open(path).map_err(|error| explained(error, path))
}

/// The error of opening `path`; where there is no run, with the names of some that there are.
pub fn explained(error: Error, path: &Path) -> Error {
    if Run::exists(path) { error } else { error.hint(known()) }
}

fn known() -> String {
    let mut runs: Vec<_> = fs::read_dir(RUNS).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    runs.retain(|path| Run::exists(path));
    runs.sort();
    match &runs[..] {
        [] => format!("`ltm train` makes one, in {RUNS} unless told otherwise"),
        runs => {
            let names = runs.iter().take(8).map(|path| shell::path(path)).collect::<Vec<_>>().join(", ");
            let more = if runs.len() > 8 { ", …" } else { "" };
            format!("there are {names}{more}")
        }
    }
}
