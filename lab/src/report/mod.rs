//! Runs beside each other in one HTML page: what is known and measured of each as data ([`Entry`]), and its layout ([`page`]).
//!
//! The page has no script and asks for nothing: its own policy forbids both. Names and texts come from outside of the program;
//! maud escapes them.

mod history;
mod measure;
mod page;
mod tables;
mod tokens;

pub use history::{History, Point};
pub use measure::{DRAWS, Measured, Reading};
pub use page::page;

use crate::suite;
use engine::{ErrorKind, Result};
use ltm::json;
use ltm::run::{Record, Run};
use std::path::{Path, PathBuf};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The text to judge all runs by; by default each run's own validation text.
    pub data: Option<PathBuf>,
    /// Only its first sequences; 0 to judge nothing.
    pub limit: u64,
    /// Texts that every run writes.
    pub samples: u32,
    /// Most tokens of each.
    pub tokens: usize,
    /// What they begin with; `None` for nothing.
    pub prompt: Option<String>,
}

impl Options {
    /// Whether weights are needed.
    pub fn measures(&self) -> bool {
        self.limit > 0 || self.samples > 0
    }
}

/// A run with all that the page says of it.
pub struct Entry {
    /// Its folder as it was named.
    pub name: String,
    /// The run.
    pub run: Run,
    /// Whether its weights come from elsewhere, so that nothing is known of their training.
    pub is_imported: bool,
    /// The version of the program that trained it last.
    pub program: Option<String>,
    /// How training went.
    pub history: History,
    /// The results of suites in its folder.
    pub suite: Vec<suite::Entry>,
    /// What was computed of it.
    pub measured: Option<Measured>,
    /// What is missing, and why.
    pub notes: Vec<String>,
}

impl Entry {
    /// Reads what the folder at `path` holds beside weights. What cannot be read becomes a note.
    ///
    /// # Errors
    /// If it is no run's.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Run::open(path)?;
        let is_imported = run.check_trained_here().is_err_and(|error| error.kind() == ErrorKind::Usage);
        let mut entry = Self {
            name: path.display().to_string(),
            run,
            is_imported,
            program: None,
            history: History::default(),
            suite: Vec::new(),
            measured: None,
            notes: Vec::new(),
        };
        let results = path.join(suite::RESULTS);
        if results.exists() {
            match json::read_lines(&results) {
                Ok(suite) => entry.suite = suite,
                Err(error) => entry.notes.push(format!("{error}: no results of a suite")),
            }
        }
        if !is_imported {
            match entry.run.metrics() {
                Ok(lines) if lines.is_empty() => {
                    entry.notes.push(format!("{}: no metrics, hence no curves", entry.name))
                }
                Ok(lines) => entry.history = History::of(&lines),
                Err(error) => entry.notes.push(format!("{error}: no curves of this run")),
            }
            match Record::all(path) {
                Ok(records) => entry.program = records.last().map(|record| record.program.version.clone()),
                Err(error) => entry.notes.push(error.to_string()),
            }
        }
        Ok(entry)
    }

    fn has_latents(&self) -> bool {
        self.run.config().model.kind.has_latents()
    }
}
