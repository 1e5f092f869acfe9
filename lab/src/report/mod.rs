//! Compares runs in one HTML page: the data of each run ([`Entry`]), and the layout ([`page`]).
//!
//! The page has no script and loads nothing: its own policy forbids both. maud escapes names and texts, which come from
//! outside of the program.

mod curves;
mod history;
mod measure;
mod page;
mod tables;
mod tokens;

pub use history::{History, Point, Seen};
pub use measure::{DRAWS, Measured};
pub use page::page;

use crate::suite;
use engine::{ErrorKind, Result};
use ltm::json;
use ltm::run::Run;
use std::path::{Path, PathBuf};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The text for evaluating all runs; by default each run's own validation text.
    pub data: Option<PathBuf>,
    /// Number of first sequences; 0 for no evaluation.
    pub limit: u64,
    /// Texts to generate per run.
    pub samples: u32,
    /// Most tokens per text.
    pub tokens: usize,
    /// Prompt of the texts, if any.
    pub prompt: Option<String>,
}

impl Options {
    /// Whether weights are needed.
    pub fn measures(&self) -> bool {
        self.limit > 0 || self.samples > 0
    }
}

/// A run with all its data for the page.
pub struct Entry {
    /// Its folder, as named by the user.
    pub name: String,
    /// The run.
    pub run: Run,
    /// Whether its weights were imported, so that nothing is known about their training.
    pub is_imported: bool,
    /// How training went.
    pub history: History,
    /// The results of suites in its folder.
    pub suite: Vec<suite::Entry>,
    /// Its measurements.
    pub measured: Option<Measured>,
    /// Notes on what could not be read, and why.
    pub notes: Vec<String>,
}

impl Entry {
    /// Reads everything in the folder at `path` except weights. An unreadable part becomes a note.
    ///
    /// # Errors
    /// If it is not a run folder.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Run::open(path)?;
        let is_imported = run.check_trained_here().is_err_and(|error| error.kind == ErrorKind::Usage);
        let (name, mut notes) = (path.display().to_string(), Vec::new());
        let results = path.join(suite::RESULTS);
        let suite = if results.exists() { noted(&mut notes, json::read_lines(&results)) } else { Vec::new() };
        let lines = if is_imported { Vec::new() } else { noted(&mut notes, run.metrics()) };
        let history = History::of(&lines);
        if history.steps.is_empty() && !is_imported {
            notes.push(format!("{name}: no metrics, so no curves"));
        }
        Ok(Self { name, run, is_imported, history, suite, measured: None, notes })
    }

    /// Notes on what is missing, and why.
    pub fn missing(&self) -> impl Iterator<Item = &String> {
        self.notes.iter().chain(self.measured.iter().flat_map(|measured| &measured.notes))
    }

    fn infers(&self) -> bool {
        self.run.config.model.kind.infers()
    }
}

/// The value, or the default and a note of the error.
fn noted<T: Default>(notes: &mut Vec<String>, read: Result<T>) -> T {
    read.unwrap_or_else(|error| {
        notes.push(error.to_string());
        T::default()
    })
}
