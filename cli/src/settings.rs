//! The configuration of a command line: a preset, then a file, then single settings.

use engine::{Error, Result, file};
use lab::toml_file;
use ltm::config::{Config, PRESETS, SECTIONS, SETTINGS, Setting};
use ltm::data::tokenizer_of;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// The sources of settings; later ones override earlier ones.
#[derive(clap::Args)]
pub struct Settings {
    /// Base configuration [default: tiny for your own text, demo for the embedded corpus]
    #[arg(long, value_name = "NAME", long_help = preset_help())]
    pub preset: Option<String>,
    /// TOML file of settings, as in `[train]` `steps = 1000`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// ltm infers latents for each text; two baselines do not: ar-latent learns constant ones, ar has none; oracle is
    /// told the facts of the embedded corpus's stories; mdlm, sedd and md4 are masked diffusion; same as --set model.kind=
    #[arg(long, value_name = "ltm|ar-latent|ar|oracle|mdlm|sedd|md4")]
    pub model: Option<String>,
    #[command(flatten)]
    pub usual: Usual,
}

/// The most common settings of training, and all others.
#[derive(clap::Args)]
pub struct Usual {
    /// Training steps; same as --set train.steps=
    #[arg(long, value_name = "N")]
    steps: Option<String>,
    /// Samples per step; same as --set train.batch=
    #[arg(long, value_name = "N")]
    batch: Option<String>,
    /// Learning rate of the decoder; same as --set slow.rate=, and slow.min_rate changes by the same factor
    #[arg(long, value_name = "X")]
    lr: Option<String>,
    /// Seed of weights, noise and data order; same as --set train.seed=
    #[arg(long, value_name = "N")]
    seed: Option<String>,
    #[command(flatten)]
    single: Single,
}

/// Single settings.
#[derive(clap::Args)]
pub struct Single {
    /// Any settings, e.g. `--set fast.steps=32 model.window=64`; `ltm help settings` lists them all
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., value_parser = pair)]
    set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String)> {
    let pair = text.split_once('=').map(|(key, value)| (key.trim().into(), value.into()));
    pair.ok_or_else(|| Error::usage("must be KEY=VALUE, as in fast.steps=32"))
}

fn preset_help() -> String {
    let presets = PRESETS.iter().map(|preset| format!("\n  {:<14}{}", preset.name, preset.summary)).collect::<String>();
    format!("Base configuration [default: tiny for your own text, demo for the embedded corpus]:{presets}")
}

/// Every setting with its values, section by section: `ltm help settings`.
pub fn all() -> String {
    let presets = PRESETS.iter().filter_map(|preset| Some((preset.name, Config::preset(preset.name).ok()?)));
    let presets = presets.collect::<Vec<_>>();
    let text = |setting: &Setting, config: &Config| match setting.value(config) {
        Value::String(text) => text,
        value => value.to_string(),
    };
    let entry = |setting: &Setting| {
        let usual = text(setting, &Config::default());
        let others = presets.iter().map(|(name, config)| (name, text(setting, config)));
        let others = others.filter(|(_, value)| *value != usual).map(|(name, value)| format!("; {name}: {value}"));
        let (name, takes, doc) = (setting.name, setting.takes(), setting.doc);
        format!("  {name} = {usual}{}\n      {doc} Takes {takes}.\n", others.collect::<String>())
    };
    let section = |&(name, about): &(&str, &str)| {
        let keys =
            SETTINGS.iter().filter(|setting| setting.name.rsplit_once('.').is_some_and(|(path, _)| path == name));
        format!("\n{name}: {about}\n{}", keys.map(entry).collect::<String>())
    };
    let sections = SECTIONS.iter().map(section).collect::<String>();
    format!(
        "Every setting, with its value in preset small and in presets that differ. On the command line: --set \
         key=value.\nIn a file for --config: the key under its [section].\n{sections}"
    )
}

/// The settings of a TOML file: key, value, and line.
fn read(path: &Path) -> Result<Vec<(String, Value, String)>> {
    let text = file::text(path)?;
    let entries: BTreeMap<String, Spanned<Value>> = toml_file::parse(&text, path)?;
    // A key outside a section is refused, with suggestions.
    if let Some((key, value)) = entries.into_iter().find(|(_, value)| !value.get_ref().is_object()) {
        let place = toml_file::place(&text, path, value.span().start);
        return Ok(vec![(key, value.into_inner(), place)]);
    }
    let sections: BTreeMap<String, BTreeMap<String, Spanned<Value>>> = toml_file::parse(&text, path)?;
    let mut settings = Vec::new();
    for (section, keys) in sections {
        for (key, value) in keys {
            let place = toml_file::place(&text, path, value.span().start);
            settings.push((format!("{section}.{key}"), value.into_inner(), place));
        }
    }
    Ok(settings)
}

impl Settings {
    /// The configuration, resolved. `data` replaces `data.paths` unless it is empty.
    ///
    /// Prepared data name their tokenizer, which is used unless a file or a single setting names one.
    ///
    /// # Errors
    /// Unknown keys, values that a key does not take, and settings that contradict each other.
    pub fn configuration(&self, data: &[PathBuf]) -> Result<Config> {
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let sets = |key: &str| file.iter().any(|(k, ..)| k == key) || self.usual.single.sets(key);
        let own_text = !data.is_empty() || sets("data.paths");
        let mut config = Config::preset(self.preset.as_deref().unwrap_or(if own_text { "tiny" } else { "demo" }))?;
        for (key, value, place) in &file {
            config.set_value(key, value).map_err(|e| explained(e, key).at(place))?;
        }
        self.usual.apply(&mut config)?;
        self.usual.single.apply_flag(&mut config, "--model", "model.kind", self.model.as_deref())?;
        if !data.is_empty() && self.usual.single.sets("data.paths") {
            return Err(twice("--data", "data.paths"));
        }
        locate(&mut config, data)?;
        if !sets("data.tokenizer")
            && let Some(name) = config.data.paths.first().map(|path| tokenizer_of(path)).transpose()?.flatten()
        {
            let chosen = std::mem::replace(&mut config.data.tokenizer, name);
            if config.data.tokenizer != chosen && !sets("model.vocab") {
                config.model.vocab = 0;
            }
        }
        config.resolved()
    }
}

impl Usual {
    /// Sets them in `config`.
    ///
    /// # Errors
    /// Those of [`Single::apply`], or if a setting is given both by its flag and by --set.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        self.single.apply(config)?;
        let (rate, least) = (config.slow.rate, config.slow.min_rate);
        for (flag, key, value) in [
            ("--steps", "train.steps", &self.steps),
            ("--batch", "train.batch", &self.batch),
            ("--lr", "slow.rate", &self.lr),
            ("--seed", "train.seed", &self.seed),
        ] {
            self.single.apply_flag(config, flag, key, value.as_deref())?;
        }
        // The rate falls by the same factor from wherever it begins.
        if config.slow.rate != rate && rate > 0.0 && self.lr.is_some() && !self.single.sets("slow.min_rate") {
            config.slow.min_rate = least / rate * config.slow.rate;
        }
        Ok(())
    }
}

impl Single {
    fn sets(&self, key: &str) -> bool {
        self.set.iter().any(|(name, _)| name == key)
    }

    /// Sets `key` in `config` by its own flag, if given.
    fn apply_flag(&self, config: &mut Config, flag: &str, key: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(_) if self.sets(key) => Err(twice(flag, key)),
            Some(value) => config.set(key, value).map_err(|e| e.at(flag)),
            None => Ok(()),
        }
    }

    /// Sets them in `config`.
    ///
    /// # Errors
    /// Unknown keys, and values that a key does not take.
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        self.set.iter().try_for_each(|(key, value)| config.set(key, value).map_err(|e| explained(e, key).at("--set")))
    }
}

/// The error that a setting is given both by its flag and by --set.
fn twice(flag: &str, key: &str) -> Error {
    Error::usage(format!("{flag} and --set {key} are the same setting: use only one"))
}

/// The error for a key, with a hint if it is a common mistake.
fn explained(error: Error, key: &str) -> Error {
    if key.ends_with("preset") { error.hint("--preset names a preset") } else { error }
}

/// Uses `data` instead of `data.paths` unless it is empty. Paths are recorded as absolute, so that they stay valid in
/// another working folder.
///
/// # Errors
/// If the working folder no longer exists.
pub fn locate(config: &mut Config, data: &[PathBuf]) -> Result<()> {
    if !data.is_empty() {
        config.data.paths = data.to_vec();
    }
    for path in config.data.paths.iter_mut().chain(&mut config.data.validation) {
        *path = std::path::absolute(&*path).map_err(|e| Error::io("find", path, &e))?;
    }
    Ok(())
}
