//! Files that keep the texts that a model wrote for a measurement.

use engine::{Error, Result};
use ltm::json;
use ltm::run::{Loaded, Run};
use serde::Serialize;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A new file of JSON lines that keeps every text of a measurement, behind a line that says where they come from.
pub struct Transcript {
    /// Where it is.
    pub path: PathBuf,
    file: File,
}

impl Transcript {
    /// A new file at `path` with `head` as its first line; by default `NAME.jsonl` in `folder`, or the first of
    /// `NAME-2.jsonl`, `NAME-3.jsonl`, … that does not exist.
    ///
    /// # Errors
    /// If it exists or cannot be made.
    pub fn create(path: Option<&Path>, folder: &Path, name: &str, head: &impl Serialize) -> Result<Self> {
        let numbered = (2..).map(|i: u32| format!("{name}-{i}.jsonl"));
        let names = std::iter::once(format!("{name}.jsonl")).chain(numbered).map(|name| folder.join(name));
        let new = |path: PathBuf| (File::create_new(&path), path);
        let exists = |file: &io::Result<File>| file.as_ref().is_err_and(|e| e.kind() == ErrorKind::AlreadyExists);
        let (file, path) = match path {
            Some(path) => new(path.into()),
            // The first that can be made, not the first that is not there: another process may look too.
            None => names.map(new).find(|(file, _)| !exists(file)).expect("one of infinitely many names is free"),
        };
        let file = file.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => Error::usage(format!("{} exists: name a new file", path.display())),
            _ => Error::io("create", &path, &e),
        })?;
        let mut transcript = Self { path, file };
        transcript.keep(head).map(|()| transcript)
    }

    /// Appends a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&mut self, line: &impl Serialize) -> Result<()> {
        writeln!(self.file, "{}", json::line(line)).map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// Where texts come from: the command and the weights that made them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Origin {
    /// The command line.
    pub command: String,
    /// The version of this program.
    pub version: &'static str,
    /// The run's folder.
    pub run: PathBuf,
    /// The step after which the weights were saved.
    pub step: u64,
    /// SHA-256 of the file of weights.
    pub weights_sha256: String,
}

impl Origin {
    /// Texts that the model of `run` writes for `command`.
    pub fn new(run: &Run, model: &Loaded, command: &str) -> Self {
        Self {
            command: command.into(),
            version: env!("CARGO_PKG_VERSION"),
            run: run.path.clone(),
            step: model.step,
            weights_sha256: model.weights.clone(),
        }
    }
}
