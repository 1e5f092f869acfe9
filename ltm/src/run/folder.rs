use super::events::{self, Events};
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, ModelKind, Work};
use crate::hash;
use crate::json::{self, Value};
use crate::model::Params;
use crate::safetensors::SafeTensors;
use crate::train::write_weights;
use autograd::Store;
use engine::{DType, Device, Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const CONFIG: &str = "config.json";

/// The settings that may differ when a run goes on: none of them changes what was computed, and data may have moved (that
/// they are the same data is checked by their checksum). A new `train.steps` also moves the end of both learning rates'
/// schedules, for the steps still to come.
pub const FREE_AT_RESUME: &[&str] = &[
    "train.steps",
    "train.threads",
    "train.eval_every",
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
    path: PathBuf,
    config: Config,
}

/// A trained decoder, ready to be judged or to generate.
#[derive(Debug)]
pub struct Loaded {
    /// The run's settings.
    pub config: Config,
    /// All memory.
    pub store: Store,
    /// The weights, f32.
    pub params: Params,
    /// The step after which they were saved.
    pub step: u64,
    /// SHA-256 of the file of weights, in hexadecimal.
    pub weights: String,
    /// Fingerprint of the data that it learnt from, see [`Material::fingerprint`](super::Material::fingerprint).
    pub data: String,
    /// One line for each newer checkpoint that had to be skipped.
    pub warnings: Vec<String>,
}

impl Run {
    /// Makes a new run folder with a configuration as [`Config::resolved`] returns it.
    ///
    /// # Errors
    /// If `path` holds a run or anything else already, or cannot be written.
    pub fn create(path: &Path, config: &Config) -> Result<Self> {
        Self::check_new(path)?;
        fs::create_dir_all(path).map_err(|e| Error::io("create", path, &e))?;
        let run = Self { path: path.into(), config: config.clone() };
        run.write_config().inspect_err(|_| {
            // Only if nothing is in it: an empty folder is no run.
            let _ = fs::remove_dir(path);
        })?;
        Ok(run)
    }

    /// Makes a new run folder with weights that were not learnt in it, as a checkpoint of step 0: it can be judged and
    /// generate, and has nothing to go on learning with. On failure nothing is left of it.
    ///
    /// # Errors
    /// Those of [`create`](Self::create), and weights that cannot be written.
    pub fn create_with_weights(path: &Path, config: &Config, store: &Store, params: &Params) -> Result<Self> {
        let run = Self::create(path, config)?;
        let state =
            Value::object([("step", 0u64.into()), ("samples", 0u64.into()), ("data", IMPORTED.into())]).pretty();
        let files: [(&str, &checkpoint::FileWriter<'_>); 2] =
            [(WEIGHTS, &|out| write_weights(store, params, out)), (STATE, &|out| out.write_all(state.as_bytes()))];
        match checkpoint::write(path, 0, &files, 1) {
            Ok(_) => Ok(run),
            Err(error) => {
                // It was made a moment ago, in a folder that was empty or not there.
                let _ = fs::remove_dir_all(path);
                Err(error)
            }
        }
    }

    /// Whether a new run could begin at `path`.
    ///
    /// # Errors
    /// If there is a run or anything else already.
    pub fn check_new(path: &Path) -> Result<()> {
        if Self::exists(path) {
            return Err(Error::usage(format!(
                "{0} already holds a run: name another folder, or go on with it by `ltm train --resume {0}`",
                path.display()
            )));
        }
        match fs::read_dir(path) {
            // Temporary files are what an interrupted creation leaves.
            Ok(mut entries) => {
                let foreign = |name: std::ffi::OsString| !name.to_string_lossy().starts_with(checkpoint::TEMPORARY);
                if entries.any(|entry| entry.is_ok_and(|entry| foreign(entry.file_name()))) {
                    return Err(Error::usage(format!(
                        "{} is not empty and holds no run: name a new folder",
                        path.display()
                    )));
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("use as a run folder", path, &e)),
        }
        Ok(())
    }

    /// Whether a run has begun at `path`, whatever state it is in.
    pub fn exists(path: &Path) -> bool {
        path.join(CONFIG).exists()
    }

    /// Opens an existing run folder.
    ///
    /// # Errors
    /// If there is none at `path`, or its configuration is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(CONFIG);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound && path.is_dir() => {
                return Err(Error::new(format!("{} is not a run folder: it has no {CONFIG}", path.display())));
            }
            Err(e) => return Err(Error::io("read", &file, &e)),
        };
        let damaged = |e: Error| Error::new(format!("{}: {e}", file.display()));
        let config = json::parse(&text)
            .and_then(unsealed)
            .and_then(|value| json::to_serde::<Config>(&value))
            .map_err(damaged)?;
        Ok(Self { path: path.into(), config: config.resolved().map_err(damaged)? })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes another configuration to go on with. [`write_config`](Self::write_config) records it.
    ///
    /// # Errors
    /// A usage error if it differs in a setting that is not [free](FREE_AT_RESUME), naming it.
    pub fn change(&mut self, config: Config) -> Result<()> {
        let config = config.resolved()?;
        for key in Config::settings() {
            let (old, new) = (key.value(&self.config), key.value(&config));
            if old != new && !FREE_AT_RESUME.contains(&key.name) {
                return Err(Error::usage(format!(
                    "{0} = {new} cannot change a run that was started with {0} = {old}: at resume only {1} can be set",
                    key.name,
                    FREE_AT_RESUME.join(", ")
                )));
            }
        }
        self.config = config;
        Ok(())
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// If it cannot be written; the old one is then as it was.
    pub fn write_config(&self) -> Result<()> {
        checkpoint::write_atomic(&self.path.join(CONFIG), sealed(json::from_serde(&self.config)?).pretty().as_bytes())
    }

    /// Where the metrics are.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// Where event files for TensorBoard are, if there are any.
    pub(super) fn events_path(&self) -> PathBuf {
        self.path.join(events::FOLDER)
    }

    /// Whether the run has event files for TensorBoard.
    pub fn has_events(&self) -> bool {
        Events::exist(&self.events_path())
    }

    /// The newest checkpoint that is whole, or `None` if the run was stopped before its first; and a line for each newer
    /// one that had to be skipped.
    ///
    /// # Errors
    /// If there are checkpoints and none is whole.
    pub fn newest(&self) -> Result<(Option<Checkpoint>, Vec<String>)> {
        let latest = checkpoint::latest_valid(&self.path)?;
        match (&latest.checkpoint, latest.warnings.first()) {
            (None, Some(first)) => {
                Err(Error::new(format!("{} has no checkpoint that is whole: {first}", self.path.display())))
            }
            _ => Ok((latest.checkpoint, latest.warnings)),
        }
    }

    /// Whether learning may go on: imported weights have no optimiser's state.
    ///
    /// # Errors
    /// A usage error if the weights were imported, and those of [`newest`](Self::newest).
    pub fn check_trained_here(&self) -> Result<()> {
        // Looking into a checkpoint means reading all of it; only GPT-2's can come from elsewhere.
        let newest = if self.config.model.kind == ModelKind::Gpt2 { self.newest()?.0 } else { None };
        match newest.as_ref().map(fingerprint).transpose()?.as_deref() {
            Some(IMPORTED) => Err(Error::usage(format!(
                "{} was imported: it can be judged and can generate, but has no state to go on learning from",
                self.path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Loads the newest whole weights to `device`. Whether it had room for them is what [`Store::ready`] says.
    ///
    /// # Errors
    /// If there are none, they belong to another model, or the device's kernels cannot do `work` with it.
    pub fn load(&self, device: &Device, work: Work) -> Result<Loaded> {
        self.config.check_device(device, work)?;
        let (checkpoint, warnings) = self.newest()?;
        let checkpoint = checkpoint.ok_or_else(|| {
            Error::new(format!("{} has no checkpoint yet: train it further, by --resume", self.path.display()))
        })?;
        let (file, data) = (checkpoint.file(WEIGHTS)?, fingerprint(&checkpoint)?);
        let weights = checkpoint.files.iter().find(|file| file.name == WEIGHTS).map(|file| file.sha256.clone());
        let mut store = Store::new(device.clone());
        let params = Params::new(&self.config.model, DType::F32, &mut store);
        let params = params.computed_in(self.config.train.precision.to_use_on(store.device()));
        params.load(&mut store, &SafeTensors::open(&file)?, "").map_err(|e| e.at(file.display()))?;
        Ok(Loaded {
            config: self.config.clone(),
            store,
            params,
            step: checkpoint.step,
            weights: weights.unwrap_or_default(),
            data,
            warnings,
        })
    }
}

/// In the place of a [fingerprint](super::Material::fingerprint) where weights come from elsewhere and nobody knows what they
/// have learnt from.
pub const IMPORTED: &str = "imported";

/// The entry of `config.json` that vouches for the others.
const SEAL: &str = "checksum";

fn seal(config: &Value) -> String {
    hash::hex(&hash::sha256(config.to_string().as_bytes())[..8])
}

/// The settings with a checksum of them.
fn sealed(config: Value) -> Value {
    let seal = (SEAL.to_string(), seal(&config).into());
    match config {
        Value::Object(entries) => Value::Object(entries.into_iter().chain([seal]).collect()),
        other => other,
    }
}

/// The settings without their checksum, after comparing it. A file may have none.
///
/// # Errors
/// If they are others than those that were written.
fn unsealed(config: Value) -> Result<Value> {
    let Value::Object(mut entries) = config else { return Ok(config) };
    let found = entries.iter().position(|(key, _)| key == SEAL).map(|at| entries.remove(at).1);
    let config = Value::Object(entries);
    match found {
        Some(found) if found != seal(&config).as_str().into() => Err(Error::new(format!(
            "damaged, or changed by hand (checksum): what may change at resume changes by --set; without its line {SEAL:?} the \
             file is taken as it is"
        ))),
        _ => Ok(config),
    }
}

/// The fingerprint of the data that a checkpoint's weights have learnt from.
pub(super) fn fingerprint(checkpoint: &Checkpoint) -> Result<String> {
    let state = checkpoint.file(STATE)?;
    let text = fs::read(&state).map_err(|e| Error::io("read", &state, &e))?;
    let value = json::parse(&text).and_then(|value| value.read("data", Value::as_str).map(str::to_string));
    value.map_err(|e| e.at(state.display()))
}

pub(super) const WEIGHTS: &str = "weights.safetensors";
pub(super) const MOMENTS: &str = "moments.safetensors";
pub(super) const STATE: &str = "state.json";
