//! Runs beside each other in one HTML page: what is known and measured of each as data ([`Entry`]), and its layout ([`page`]).
//!
//! The page has no script and asks for nothing: its own policy forbids both. Names and texts come from outside of the program;
//! maud escapes them.

mod curves;
mod history;
mod measure;
mod page;
mod tables;
mod tokens;

pub use history::{History, Point, Seen};
pub use measure::{DRAWS, Measured, Reading};
pub use page::page;

use crate::suite;
use engine::{ErrorKind, Result};
use ltm::json;
use ltm::run::Run;
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
    /// How training went.
    pub history: History,
    /// The results of suites in its folder.
    pub suite: Vec<suite::Entry>,
    /// What was computed of it.
    pub measured: Option<Measured>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

impl Entry {
    /// Reads what the folder at `path` holds beside weights. What cannot be read becomes a note.
    ///
    /// # Errors
    /// If it is no run's.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Run::open(path)?;
        let is_imported = run.check_trained_here().is_err_and(|error| error.kind == ErrorKind::Usage);
        let (name, mut notes) = (path.display().to_string(), Vec::new());
        let results = path.join(suite::RESULTS);
        let suite = if results.exists() { noted(&mut notes, json::read_lines(&results)) } else { Vec::new() };
        let lines = if is_imported { Vec::new() } else { noted(&mut notes, run.metrics()) };
        let history = History::of(&lines);
        if history.steps.is_empty() && !is_imported {
            notes.push(format!("{name}: no metrics, hence no curves"));
        }
        Ok(Self { name, run, is_imported, history, suite, measured: None, notes })
    }

    /// What is missing of it, and why.
    pub fn missing(&self) -> impl Iterator<Item = &String> {
        self.notes.iter().chain(self.measured.iter().flat_map(|measured| &measured.notes))
    }

    fn has_latents(&self) -> bool {
        self.run.config.model.kind.has_latents()
    }
}

/// What was read, or nothing and a note of why.
fn noted<T: Default>(notes: &mut Vec<String>, read: Result<T>) -> T {
    read.unwrap_or_else(|error| {
        notes.push(error.to_string());
        T::default()
    })
}
