use super::NewFolder;
use super::metrics::{Line, best};
use crate::checkpoint::{self, Checkpoint, latest_valid};
use crate::config::{Config, ModelKind, SETTINGS};
use crate::diffusion::Lengths;
use crate::hash::sha256;
use crate::json;
use crate::model::Params;
use crate::shell;
use crate::train::write_parameters;
use autograd::Store;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

const CONFIG: &str = "config.json";

pub(super) const METRICS: &str = "metrics.jsonl";

/// The settings that may differ when a run is resumed: none of them changes earlier results. Data may have moved; their
/// checksum must be the same. A new `train.steps` also moves the end of both learning-rate schedules for the remaining
/// steps.
pub const FREE_AT_RESUME: &[&str] = &[
    "train.steps",
    "train.threads",
    "train.eval_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.precision",
    "train.non_finite",
    "data.paths",
    "data.validation",
];

/// A run folder with its configuration.
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder.
    pub path: PathBuf,
    /// The run's settings.
    pub config: Config,
    /// The checkpoint that [`load`](Self::load) uses; by default the latest.
    pub choice: Choice,
}

/// One of a run's checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The newest intact one.
    #[default]
    Latest,
    /// The one with the least validation loss. The loss is that of a few batches; the validations' `draw_error` is its
    /// error.
    Best,
    /// The one of that step.
    Step(u64),
}

impl FromStr for Choice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "latest" => Ok(Self::Latest),
            "best" => Ok(Self::Best),
            step => step.parse().map(Self::Step).map_err(|_| Error::usage("must be latest, best, or a step as in 400")),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Best => f.write_str("best"),
            Self::Step(step) => step.fmt(f),
        }
    }
}

impl Run {
    /// Makes the folder of a new run with a configuration as [`Config::resolved`] returns it, and locks its metrics. Of
    /// several processes that want the same folder, only one succeeds.
    ///
    /// # Errors
    /// If it cannot be written, or has become the run of another process.
    pub(super) fn create(folder: &NewFolder, config: &Config) -> Result<(Self, json::Lines)> {
        let run = Self { path: folder.make()?, config: config.clone(), choice: Choice::Latest };
        let metrics = json::Lines::lock(&run.path.join(METRICS)).inspect_err(|_| _ = fs::remove_dir(&run.path))?;
        Self::refuse_existing(&run.path)?;
        run.write_config().inspect_err(|_| {
            _ = fs::remove_file(run.path.join(METRICS));
            // Only if it is empty.
            _ = fs::remove_dir(&run.path);
        })?;
        Ok((run, metrics))
    }

    /// Makes a new run folder with imported weights, as a checkpoint of step 0. It can be evaluated and can generate,
    /// but cannot be trained further. On failure nothing remains.
    ///
    /// # Errors
    /// If it cannot be written, or has become the run of another process.
    pub fn create_with_weights(folder: &NewFolder, config: &Config, store: &Store, params: &Params) -> Result<Self> {
        let (run, _metrics) = Self::create(folder, config)?;
        let path = &run.path;
        let state = State { step: 0, samples: 0, data: IMPORTED.into(), lengths: None };
        let files: [(&str, &checkpoint::FileWriter<'_>); 2] = [
            (WEIGHTS, &|out| write_parameters(store, &[("", params.clone())], out)),
            (STATE, &|out| out.write_all(json::pretty(&state).as_bytes())),
        ];
        // This process has just made it, or found it empty.
        checkpoint::write(path, 0, &files, &[]).inspect_err(|_| _ = fs::remove_dir_all(path))?;
        Ok(run)
    }

    /// A usage error if a run has begun at `path`.
    pub(super) fn refuse_existing(path: &Path) -> Result<()> {
        if !Self::exists(path) {
            return Ok(());
        }
        // Imported weights cannot be trained further, nor can a damaged run.
        let goes_on = Self::open(path).is_ok_and(|run| run.check_trained_here().is_ok());
        let resume = format!(", or continue it with `ltm train --resume {}`", shell::path(path));
        Err(Error::usage(format!(
            "{} already has a run: name another folder{}",
            path.display(),
            if goes_on { &resume } else { "" }
        )))
    }

    /// Whether a run has begun at `path`, in any state.
    pub fn exists(path: &Path) -> bool {
        path.join(CONFIG).exists()
    }

    /// Opens an existing run folder.
    ///
    /// # Errors
    /// If there is none at `path`, or its configuration is damaged or of an older version.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(CONFIG);
        let missing = |e: std::io::Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        if fs::metadata(&file).is_err_and(missing) {
            return Err(Error::new(format!("{} is not a run folder: it has no {CONFIG}", path.display())));
        }
        let mut entries: Map<String, Value> = json::read(&file)?;
        let fast = |key: &str| entries.get("fast").is_some_and(|fast| fast.get(key).is_some());
        let names_no_optimizer = entries.get("slow").is_some_and(|slow| slow.get("optimizer").is_none());
        let readers = [
            ("9d2716f", entries.contains_key("checksum") || fast("hoist")),
            ("ff9be54", fast("damping") || fast("kl_warmup")),
            ("e8c851a", names_no_optimizer),
        ];
        if let Some((commit, _)) = readers.into_iter().find(|(_, reads)| *reads) {
            let file = file.display();
            return Err(Error::new(format!(
                "{file}: written by an older version of the program, which this one cannot read; commit {commit} can"
            )));
        }
        if let Some(found) = entries.remove(SEAL)
            && found != seal(&entries)
        {
            return Err(Error::new(format!(
                "{}: damaged, or changed by hand ({SEAL}): what may change at resume changes by --set; without its line \
                 {SEAL:?} the file is taken as it is",
                file.display()
            )));
        }
        let config = serde_json::from_value::<Config>(Value::Object(entries)).map_err(|e| Error::new(e.to_string()));
        let config = config.and_then(|config| config.resolved()).map_err(|e| e.at(file.display()))?;
        Ok(Self { path: path.into(), config, choice: Choice::Latest })
    }

    /// Sets another configuration to continue with. [`write_config`](Self::write_config) records it.
    ///
    /// # Errors
    /// A usage error if it differs in a setting that is not [free](FREE_AT_RESUME), naming it.
    pub fn change(&mut self, config: Config) -> Result<()> {
        // Check this first, so that hints do not name other settings that must stay the same.
        let resolved = config.resolved().map_err(|error| self.check_fixed(&config).err().unwrap_or(error))?;
        self.check_fixed(&resolved)?;
        self.config = resolved;
        Ok(())
    }

    /// Checks that every setting that is not [free](FREE_AT_RESUME) is the run's.
    fn check_fixed(&self, config: &Config) -> Result<()> {
        for key in SETTINGS {
            let old = key.value(&self.config);
            let new = key.value(config);
            if old != new && !FREE_AT_RESUME.contains(&key.name) {
                return Err(Error::usage(format!(
                    "{0} = {new} cannot change a run started with {0} = {old}: a resumed run can only change {1}",
                    key.name,
                    FREE_AT_RESUME.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// If it cannot be written; the old one is then as it was.
    pub fn write_config(&self) -> Result<()> {
        #[derive(Serialize)]
        struct Sealed<'a> {
            #[serde(flatten)]
            config: &'a Config,
            settings_sha256: String,
        }
        let entries = serde_json::to_value(&self.config).and_then(serde_json::from_value);
        // A path that is no text.
        let entries = entries.map_err(|error| Error::new(format!("cannot write {CONFIG}: {error}")))?;
        let sealed = Sealed { config: &self.config, settings_sha256: seal(&entries) };
        checkpoint::write_atomic(&self.path.join(CONFIG), json::pretty(&sealed).as_bytes())
    }

    /// The lines of the metrics, in order; empty for a run that has not begun.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn metrics(&self) -> Result<Vec<Line>> {
        let path = self.path.join(METRICS);
        if path.exists() { json::read_lines(&path) } else { Ok(Vec::new()) }
    }

    /// Number of training tokens, and the seconds of training.
    ///
    /// # Errors
    /// If the metrics cannot be read.
    pub fn effort(&self) -> Result<(u64, f64)> {
        let steps = self.metrics()?.into_iter().filter_map(|line| match line {
            Line::Step(line) => Some((line.tokens, line.seconds)),
            _ => None,
        });
        Ok(steps.fold((0, 0.0), |sum, step| (sum.0 + step.0, sum.1 + step.1)))
    }

    /// Checks that the run can be trained further: imported weights have no optimiser state.
    ///
    /// # Errors
    /// A usage error if the weights were imported, and those of [`latest_valid`].
    pub fn check_trained_here(&self) -> Result<()> {
        // Checking a checkpoint means reading all of it; only GPT-2 models can be imported.
        let newest = if self.config.model.kind == ModelKind::Gpt2 { latest_valid(&self.path)?.0 } else { None };
        match newest.as_ref().map(State::of).transpose()? {
            Some(state) if state.data == IMPORTED => Err(Error::usage(format!(
                "{} was imported: it can be evaluated and can generate, but cannot be trained further",
                self.path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// The chosen checkpoint, verified; and a line for each newer checkpoint that was skipped.
    ///
    /// # Errors
    /// If there is no such checkpoint, or it is damaged.
    pub fn checkpoint(&self) -> Result<(Checkpoint, Vec<String>)> {
        let path = self.path.display();
        let none = || Error::new(format!("{path} has no checkpoint: none of its steps has been saved"));
        if self.choice == Choice::Latest {
            let (latest, warnings) = latest_valid(&self.path)?;
            return latest.map(|checkpoint| (checkpoint, warnings)).ok_or_else(none);
        }
        loop {
            let steps = checkpoint::steps(&self.path)?;
            let there = || steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let step = match self.choice {
                Choice::Step(step) => Some(step),
                _ => best(&self.metrics()?, &steps).map(|validation| validation.step),
            };
            let error = match step {
                Some(step) if steps.contains(&step) => match checkpoint::at_step(&self.path, step) {
                    // A run under way has removed it, and may have a better one.
                    Err(_) if checkpoint::is_gone(&self.path, step) => continue,
                    found => return Ok((found?, Vec::new())),
                },
                _ if steps.is_empty() => none(),
                Some(step) => Error::usage(format!("{path} has no checkpoint of step {step}, but of {}", there())),
                None => Error::usage(format!(
                    "{path} has no checkpoint with a validation; its checkpoints are of steps {}",
                    there()
                )),
            };
            return Err(error);
        }
    }
}

/// The [fingerprint](super::Data::fingerprint) of imported weights, whose training data are unknown.
pub const IMPORTED: &str = "imported";

/// The entry of `config.json` with the SHA-256 of all the others.
const SEAL: &str = "settings_sha256";

fn seal(entries: &Map<String, Value>) -> String {
    sha256(json::line(entries))
}

/// The content of a checkpoint's `state.json`.
#[derive(Serialize, Deserialize)]
pub(super) struct State {
    /// Steps done.
    pub step: u64,
    /// Samples seen.
    pub samples: u64,
    /// Fingerprint of the training data.
    pub data: String,
    /// How long the training documents are, for masked diffusion on documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lengths: Option<Lengths>,
}

impl State {
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        json::read(&checkpoint.file(STATE)?)
    }
}

pub(super) const WEIGHTS: &str = "weights.safetensors";
pub(super) const MOMENTS: &str = "moments.safetensors";
pub(super) const STATE: &str = "state.json";
