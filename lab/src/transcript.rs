//! Files with the texts that a model generated for a measurement.

use crate::sweep::config_sha256;
use engine::{Error, Result, file};
use ltm::json::{self, Lines};
use ltm::run::{Loaded, Run, SOURCES};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

/// A file of JSON lines with every text of a measurement, after a line that records their origin.
pub struct Transcript {
    /// Its path.
    pub path: PathBuf,
    file: Lines,
}

impl Transcript {
    /// A new file at `path` with `head` as its first line; by default `NAME.jsonl` in `folder`, or the first of
    /// `NAME-2.jsonl`, `NAME-3.jsonl`, … that does not exist.
    ///
    /// # Errors
    /// If it exists or cannot be made.
    pub fn create(path: Option<&Path>, folder: &Path, name: &str, head: &impl Serialize) -> Result<Self> {
        let new = |path: PathBuf| (File::create_new(&path), path);
        let exists = |file: &io::Result<File>| file.as_ref().is_err_and(|e| e.kind() == ErrorKind::AlreadyExists);
        let (file, path) = match path {
            Some(path) => new(path.into()),
            // The first that can be created, not the first that is missing, because another process may do the same.
            None => names(folder, name).map(new).find(|(file, _)| !exists(file)).expect("one of endless names is free"),
        };
        file.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => Error::usage(format!("{} exists: name a new file", path.display())),
            _ => Error::io("create", &path, &e),
        })?;
        let mut transcript = Self { file: Lines::lock(&path)?, path };
        transcript.keep(head).map(|()| transcript)
    }

    /// The file at `path` with the complete lines after `head`, so that a measurement can continue after them; a new
    /// file if there is none. By default, the first of `NAME.jsonl`, `NAME-2.jsonl`, … in `folder` that has this head.
    /// `allowed` are the entries of the head that may differ.
    ///
    /// # Errors
    /// If the file at `path` has another head or is not a transcript, or cannot be read, written or created.
    pub fn resume<T: DeserializeOwned>(
        path: Option<&Path>,
        folder: &Path,
        name: &str,
        head: &impl Serialize,
        allowed: &[&str],
    ) -> Result<(Self, Vec<T>)> {
        let same = |path: PathBuf| Ok(has_head(&path, head, allowed)?.then_some(path));
        let found = match path {
            Some(path) if !path.exists() => None,
            Some(path) => Some(same(path.into())?.ok_or_else(|| {
                let path = path.display();
                Error::usage(format!(
                    "{path} has no texts of these weights, options and program to continue: name a new file"
                ))
            })?),
            None => {
                // What cannot be read is not this transcript.
                names(folder, name).take_while(|path| path.exists()).find_map(|path| same(path).ok().flatten())
            }
        };
        let Some(path) = found else {
            return Self::create(path, folder, name, head).map(|transcript| (transcript, Vec::new()));
        };
        let (file, lines) = Lines::open(&path, |_: &Value| true)?;
        let mut transcript = Self { file, path };
        if lines.is_empty() {
            // The head lacked its line break.
            transcript.keep(head)?;
        }
        let kept: std::result::Result<Vec<T>, _> = lines.into_iter().skip(1).map(serde_json::from_value).collect();
        let kept = kept.map_err(|error| Error::new(format!("{} is damaged: {error}", transcript.path.display())))?;
        Ok((transcript, kept))
    }

    /// Appends a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&mut self, line: &impl Serialize) -> Result<()> {
        self.file.write(line)
    }
}

/// `NAME.jsonl`, `NAME-2.jsonl`, … in `folder`.
fn names(folder: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let numbered = (2..).map(move |i: u32| format!("{name}-{i}.jsonl"));
    std::iter::once(format!("{name}.jsonl")).chain(numbered).map(|name| folder.join(name))
}

/// Whether the first line of the file at `path` is `head`, except for the entries `allowed`.
///
/// # Errors
/// If it cannot be read.
fn has_head(path: &Path, head: &impl Serialize, allowed: &[&str]) -> Result<bool> {
    let shared = |mut head: Value| {
        head.as_object_mut().into_iter().for_each(|head| head.retain(|key, _| !allowed.contains(&key.as_str())));
        head
    };
    let mut first = Vec::new();
    BufReader::new(file::open(path)?).read_until(b'\n', &mut first).map_err(|e| Error::io("read", path, &e))?;
    let first: Result<Value> = json::from_bytes(first);
    Ok(first.is_ok_and(|first| shared(first) == shared(serde_json::to_value(head).expect("a head is JSON"))))
}

/// The origin of texts: the command and the weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Origin {
    /// The command line.
    pub command: String,
    /// The version of this program.
    pub version: &'static str,
    /// SHA-256 of its sources.
    pub sources: &'static str,
    /// The run's folder.
    pub run: PathBuf,
    /// The step after which the weights were saved.
    pub step: u64,
    /// SHA-256 of the file of weights.
    pub weights_sha256: String,
    /// SHA-256 of the run's settings, see [`config_sha256`]: how to infer latents and how to round are among them.
    pub config_sha256: String,
    /// The device, because other devices round differently.
    pub device: &'static str,
}

impl Origin {
    /// The origin of texts that the model of `run` generates for `command`.
    pub fn new(run: &Run, model: &Loaded, command: &str) -> Self {
        Self {
            command: command.into(),
            version: env!("CARGO_PKG_VERSION"),
            sources: SOURCES,
            run: run.path.clone(),
            step: model.step,
            weights_sha256: model.weights.clone(),
            config_sha256: config_sha256(&model.config),
            device: model.store.device.name(),
        }
    }
}
