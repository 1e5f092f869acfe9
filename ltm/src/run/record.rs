//! What it takes to repeat a run: `sessions.jsonl`, a line for each time that it was begun or gone on with.

use super::{Material, Run};
use crate::config::Config;
use crate::data;
use crate::json;
use engine::{Device, Error, Result, probe, simd};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FILE: &str = "sessions.jsonl";

/// Files that a message names; there may be thousands.
const SHOWN: usize = 3;

/// The beginning of a run, or one of its continuations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Steps that were done already.
    pub after: u64,
    /// The program.
    pub program: Program,
    /// Where it ran.
    pub machine: Machine,
    /// Its data.
    pub data: Data,
    /// Every setting, as it was then.
    pub config: Config,
}

/// SHA-256 of all sources of the library and the program, with the lock file.
pub const SOURCES: &str = env!("LTM_BUILD_SOURCES");

/// What a program was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// As [`SOURCES`].
    pub sources: String,
    /// The commit that was checked out when they were last compiled; empty if that is not known.
    pub commit: String,
    /// The compiler, by its version.
    pub compiler: String,
    /// What it compiled for.
    pub target: String,
    /// The compiler's profile.
    pub profile: String,
    /// The compiler's flags.
    pub flags: String,
}

impl Program {
    /// This program.
    pub fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            sources: SOURCES.into(),
            commit: env!("LTM_BUILD_COMMIT").into(),
            compiler: env!("LTM_BUILD_COMPILER").into(),
            target: env!("LTM_BUILD_TARGET").into(),
            profile: env!("LTM_BUILD_PROFILE").into(),
            flags: env!("LTM_BUILD_FLAGS").into(),
        }
    }
}

/// Where a program runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Its instruction sets that the program knows.
    pub features: Vec<String>,
    /// The one in use.
    pub feature_used: String,
    /// Threads.
    pub threads: usize,
    /// `CPU`, or the GPU's name.
    pub device: String,
}

impl Machine {
    /// This machine, computing on `device`.
    pub fn this(device: &Device) -> Self {
        Self {
            processor: probe::processor_name(),
            features: simd::supported().iter().map(ToString::to_string).collect(),
            feature_used: simd::level().to_string(),
            threads: rayon::current_num_threads(),
            device: match device {
                Device::Cpu => "CPU".into(),
                Device::Cuda(gpu) => gpu.name().into(),
            },
        }
    }
}

/// The data of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Tells data and splits of them apart: a hash of every file's SHA-256 and of which tokens are for what, or the embedded
    /// corpus's name.
    pub fingerprint: String,
    /// The files; none if the run trains on the embedded corpus, which is a part of the program.
    pub files: Vec<DataFile>,
}

/// A file of training or validation text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// What it was, and where.
    #[serde(flatten)]
    pub file: data::DataFile,
    /// Whether it holds training text; else all of it is validation text.
    #[serde(rename = "learnt")]
    pub training: bool,
}

impl Data {
    /// What is other in `now`: the first few files by name, or that they are used otherwise.
    fn changes(&self, now: &Self) -> String {
        let lacking = |from: &Self, other: &Self| -> Vec<PathBuf> {
            let known = |sha256: &str| other.files.iter().any(|other| other.file.sha256 == sha256);
            from.files.iter().filter(|f| !known(&f.file.sha256)).map(|f| f.file.path.clone()).collect()
        };
        // The folder may have moved.
        let (gone, mut new) = (lacking(self, now), lacking(now, self));
        let mut changes = Vec::new();
        for old in gone {
            changes.push(match new.iter().position(|path| path.file_name() == old.file_name()) {
                Some(i) => format!("{} has other content", new.remove(i).display()),
                None => format!("{} is missing", old.display()),
            });
        }
        changes.extend(new.iter().map(|path| format!("{} is new", path.display())));
        let more = changes.len().saturating_sub(SHOWN);
        if changes.is_empty() {
            return "the files are the same, but in another order, or other parts of them are validation text".into();
        }
        changes.truncate(SHOWN);
        changes.join(", ") + &if more > 0 { format!(", and {more} more files") } else { String::new() }
    }
}

impl Record {
    /// Appends a record of this moment to the run's, all of which can be read but for what a crash cut in two.
    pub(super) fn append(run: &Run, after: u64, material: &Material, device: &Device) -> Result<()> {
        let (mut lines, _) = json::Lines::open::<Self>(&run.path.join(FILE), |_| true)?;
        let (data, config) = (material.data.clone(), run.config.clone());
        lines.write(&Self { after, program: Program::this(), machine: Machine::this(device), data, config })?;
        lines.sync()
    }

    /// All records of the run in the folder at `run`, in the order written.
    ///
    /// # Errors
    /// If it has none, or they cannot be read.
    pub fn all(run: &Path) -> Result<Vec<Self>> {
        let mut records: Vec<Self> = json::read_lines(&run.join(FILE))?;
        for record in &mut records {
            record.config = record.config.resolved()?;
        }
        Ok(records)
    }

    /// As [`all`](Self::all); none of a run that has not begun, or whose weights were imported.
    pub(super) fn any(run: &Path) -> Result<Vec<Self>> {
        if run.join(FILE).exists() { Self::all(run) } else { Ok(Vec::new()) }
    }

    /// What of this program, machine and `device` is not as it was then, and can have a say in the bits: one line each.
    pub fn differences(&self, device: &Device) -> Vec<String> {
        let (program, machine) = (Program::this(), Machine::this(device));
        let parts = [
            ("source", &self.program.sources, program.sources),
            ("compiler", &self.program.compiler, program.compiler),
            ("target", &self.program.target, program.target),
            ("compiler's flags", &self.program.flags, program.flags),
            ("device", &self.machine.device, machine.device),
        ];
        let differ = parts.into_iter().filter(|(_, then, now)| *then != now);
        differ.map(|(what, then, now)| format!("another {what}: {then:?} then, {now:?} now")).collect()
    }
}

impl Run {
    /// That `now` are the data of this fingerprint, which the run was trained on.
    ///
    /// # Errors
    /// If they are not, with what has changed as far as the run's records tell.
    pub fn check_data(&self, fingerprint: &str, now: &Data) -> Result<()> {
        if fingerprint == now.fingerprint {
            return Ok(());
        }
        let records = Record::any(&self.path).unwrap_or_default();
        let then = records.iter().rfind(|record| record.data.fingerprint == fingerprint);
        let what = then.map_or_else(String::new, |then| format!(": {}", then.data.changes(now)));
        Err(Error::new(format!("the data have changed since {} was trained on them{what}", self.path.display())))
    }

    /// Whether one of `files` is training text of this run by its records; those of imported weights say nothing. Files are
    /// recognised by their bytes or their tokens, wherever they lie now and however they are packed; a text that was cut since
    /// then is another one.
    ///
    /// # Errors
    /// Records that cannot be read.
    pub fn was_trained_on_one_of(&self, files: &[data::DataFile]) -> Result<bool> {
        let records = Record::any(&self.path)?.into_iter();
        let mut known = records.flat_map(|record| record.data.files).filter(|known| known.training);
        Ok(known.any(|known| files.iter().any(|file| file.is_copy_of(&known.file))))
    }
}
