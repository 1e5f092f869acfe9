//! The records for repeating a run: `sessions.jsonl`, one line per start or resume.

use super::{Material, Run};
use crate::config::Config;
use crate::data;
use crate::json;
use engine::cuda::Software;
use engine::{Device, Error, Result, probe, simd};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const FILE: &str = "sessions.jsonl";

/// Most files that a message names; there may be thousands.
const SHOWN: usize = 3;

/// A start or resume of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Steps done before.
    pub after: u64,
    /// The program.
    pub program: Program,
    /// The machine, of process 0 if there were several.
    pub machine: Machine,
    /// Processes.
    #[serde(default = "alone")]
    pub ranks: usize,
    /// Its data.
    pub data: Data,
    /// Every setting at that time.
    pub config: Config,
}

/// The number of processes of a run that does not say it.
fn alone() -> usize {
    1
}

/// SHA-256 of all sources of the library and the program, with the lock file.
pub const SOURCES: &str = env!("LTM_BUILD_SOURCES");

/// The build of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// As [`SOURCES`].
    pub sources: String,
    /// The commit checked out at the last compilation; empty if unknown.
    pub commit: String,
    /// The compiler, by its version.
    pub compiler: String,
    /// The compilation target.
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

/// The machine of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Its instruction sets that the program supports.
    pub features: Vec<String>,
    /// The one in use.
    pub feature_used: String,
    /// Threads of a process.
    pub threads: usize,
    /// `CPU`, or the GPU's name.
    pub device: String,
    /// The GPU's driver, what computes its products, and what compiled its kernels. Empty on the CPU, and in records of
    /// earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// See [`driver`](Self::driver).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub products: String,
    /// See [`driver`](Self::driver).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kernels: String,
}

impl Machine {
    /// This machine, computing on `device`.
    pub fn this(device: &Device) -> Self {
        let (name, software) = match device {
            Device::Cpu(_) => ("CPU", Software::default()),
            Device::Cuda(gpu) => (gpu.name(), gpu.software()),
        };
        Self {
            processor: probe::processor_name(),
            features: simd::supported().iter().map(ToString::to_string).collect(),
            feature_used: simd::level().to_string(),
            threads: rayon::current_num_threads(),
            device: name.into(),
            driver: software.driver,
            products: software.products,
            kernels: software.compiler,
        }
    }

    /// The differences of the GPU's software between this machine and `now`, one line each. What one of them does not
    /// know does not count.
    fn changes(&self, now: &Self) -> Vec<String> {
        let parts = [
            ("GPU's driver", &self.driver, &now.driver),
            ("GPU's library of products", &self.products, &now.products),
            ("compiler of the GPU's kernels", &self.kernels, &now.kernels),
        ];
        let known = parts.into_iter().filter(|(_, then, now)| !then.is_empty() && !now.is_empty());
        known.filter_map(|(what, then, now)| change(what, then, now)).collect()
    }
}

/// A line that says what differs, if it does.
fn change(what: &str, then: &str, now: &str) -> Option<String> {
    (then != now).then(|| format!("the {what} differs: {then:?} then, {now:?} now"))
}

/// The data of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// Identifies data and their split: a hash of every file's SHA-256 and of the use of token ranges, or the embedded
    /// corpus's name.
    pub fingerprint: String,
    /// The files; none for the embedded corpus, which is part of the program.
    pub files: Vec<DataFile>,
}

/// A file of training or validation text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// The file and its path.
    #[serde(flatten)]
    pub file: data::DataFile,
    /// Whether it has training text; else all of it is validation text.
    #[serde(rename = "learnt")]
    pub training: bool,
}

impl Data {
    /// The differences of `now`: the first few files by name, or a different use of the same files.
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
                Some(i) => format!("{} has different content", new.remove(i).display()),
                None => format!("{} is missing", old.display()),
            });
        }
        changes.extend(new.iter().map(|path| format!("{} is new", path.display())));
        let more = changes.len().saturating_sub(SHOWN);
        if changes.is_empty() {
            return "the files are the same, but in another order, with another validation split, or tokenised differently \
                    by this version"
                .into();
        }
        changes.truncate(SHOWN);
        changes.join(", ") + &if more > 0 { format!(", and {more} more files") } else { String::new() }
    }
}

impl Record {
    /// Appends a record of the current session. All records stay readable, except one truncated by a crash.
    pub(super) fn append(run: &Run, after: u64, material: &Material, device: &Device) -> Result<()> {
        let (mut lines, _) = json::Lines::open::<Self>(&run.path.join(FILE), |_| true)?;
        let (data, config) = (material.data.clone(), run.config.clone());
        let (machine, ranks) = (Machine::this(device), material.ranks.size());
        lines.write(&Self { after, program: Program::this(), machine, ranks, data, config })?;
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

    /// As [`all`](Self::all); empty for a run that has not begun, or whose weights were imported.
    pub(super) fn any(run: &Path) -> Result<Vec<Self>> {
        if run.join(FILE).exists() { Self::all(run) } else { Ok(Vec::new()) }
    }

    /// The differences of this program, machine and `device` that may change bits, one line each.
    pub fn differences(&self, device: &Device) -> Vec<String> {
        let (program, machine) = (Program::this(), Machine::this(device));
        let parts = [
            ("source", &self.program.sources, &program.sources),
            ("compiler", &self.program.compiler, &program.compiler),
            ("target", &self.program.target, &program.target),
            ("compiler's flags", &self.program.flags, &program.flags),
            ("device", &self.machine.device, &machine.device),
        ];
        let differ = parts.into_iter().filter_map(|(what, then, now)| change(what, then, now));
        differ.chain(self.machine.changes(&machine)).collect()
    }

    /// Warnings for a session on `device` that goes on after this one: the GPU's software has changed.
    pub(super) fn warnings(&self, device: &Device) -> Vec<String> {
        let changes = self.machine.changes(&Machine::this(device));
        changes
            .into_iter()
            .map(|change| format!("{change}; so the bits may differ from those of one session"))
            .collect()
    }
}

impl Run {
    /// Checks that `now` are the data that the run was trained on, by their fingerprint.
    ///
    /// # Errors
    /// If they are not; the error names the changes known from the run's records.
    pub fn check_data(&self, fingerprint: &str, now: &Data) -> Result<()> {
        if fingerprint == now.fingerprint {
            return Ok(());
        }
        let records = Record::any(&self.path).unwrap_or_default();
        let then = records.iter().rfind(|record| record.data.fingerprint == fingerprint);
        let what = then.map_or_else(String::new, |then| format!(": {}", then.data.changes(now)));
        Err(Error::new(format!("the data have changed since {} was trained on them{what}", self.path.display())))
    }

    /// Whether one of `files` is training text of this run by its records; imported weights have none. Files are
    /// recognised by their bytes or their tokens, under any path and in any packing, but not if they were cut
    /// afterwards.
    ///
    /// # Errors
    /// Records that cannot be read.
    pub fn was_trained_on_one_of(&self, files: &[data::DataFile]) -> Result<bool> {
        let records = Record::any(&self.path)?.into_iter();
        let mut known = records.flat_map(|record| record.data.files).filter(|known| known.training);
        Ok(known.any(|known| files.iter().any(|file| file.is_copy_of(&known.file))))
    }
}
