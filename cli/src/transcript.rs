//! A file that keeps every text that a model wrote for a measurement, one JSON object a line.

use super::output::{command, note};
use engine::{Error, Result};
use ltm::json::Value;
use ltm::run::{Loaded, Run};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

pub struct Transcript {
    path: PathBuf,
    file: File,
}

impl Transcript {
    /// A new file at `path`; by default `NAME.jsonl` in `folder`, or the first of `NAME-2.jsonl`, … that does not exist.
    ///
    /// # Errors
    /// If it exists or cannot be made.
    pub fn create(path: Option<&Path>, folder: &Path, name: &str) -> Result<Self> {
        let path = path.map_or_else(|| free_file(folder, name), Path::to_path_buf);
        let file = File::create_new(&path).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => Error::usage(format!("{} exists: name a new file", path.display())),
            _ => Error::io("create", &path, &e),
        })?;
        Ok(Self { path, file })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&mut self, line: &Value) -> Result<()> {
        writeln!(self.file, "{line}").map_err(|e| Error::io("write", &self.path, &e))
    }

    /// Says where it is.
    pub fn done(self) {
        note(format_args!("every text is in {}", self.path.display()));
    }
}

fn free_file(folder: &Path, name: &str) -> PathBuf {
    let numbered = (2..).map(|i: u32| format!("{name}-{i}.jsonl"));
    let mut names = std::iter::once(format!("{name}.jsonl")).chain(numbered).map(|name| folder.join(name));
    names.find(|path| !path.exists()).unwrap_or_else(|| folder.join(name))
}

/// The first entries of a file's header: by what its texts were made, and with which weights.
pub fn origin(run: &Run, model: &Loaded) -> [(&'static str, Value); 5] {
    [
        ("command", command().into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("run", run.path().display().to_string().into()),
        ("step", model.step.into()),
        ("weights_sha256", model.weights.as_str().into()),
    ]
}
