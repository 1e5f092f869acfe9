//! Opens the run folder that a command names.

use engine::{Error, Result};
use ltm::run::Run;
use ltm::shell;
use std::fs;
use std::path::Path;

/// The default folder of runs.
const RUNS: &str = "runs";

/// Opens the run folder at `path`.
///
/// # Errors
/// Those of [`Run::open`]; if there is no run, the error names some existing runs.
pub fn open(path: &Path) -> Result<Run> {
    Run::open(path).map_err(|error| explained(error, path))
}

/// The error for opening `path`; if there is no run, it names some existing runs.
pub fn explained(error: Error, path: &Path) -> Error {
    if Run::exists(path) { error } else { error.hint(known()) }
}

fn known() -> String {
    let mut runs: Vec<_> = fs::read_dir(RUNS).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    runs.retain(|path| Run::exists(path));
    runs.sort();
    match &runs[..] {
        [] => format!("`ltm train` makes one, by default in {RUNS}"),
        runs => {
            let names = runs.iter().take(8).map(|path| shell::path(path)).collect::<Vec<_>>().join(", ");
            let more = if runs.len() > 8 { ", …" } else { "" };
            format!("there are {names}{more}")
        }
    }
}
