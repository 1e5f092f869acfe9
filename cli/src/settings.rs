//! Which configuration a command line asks for: a preset, then a file, then single settings.

use engine::{Error, Result};
use ltm::config::{Config, PRESETS};
use ltm::data::tokenizer_of;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Where settings come from; what is named later in this list wins.
#[derive(clap::Args)]
pub struct Settings {
    /// Configuration to start from [default: tiny for your own text, demo for the embedded corpus]
    #[arg(long, value_name = "NAME", long_help = preset_help())]
    pub preset: Option<String>,
    /// TOML file of settings, as in `[train]` `steps = 1000`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// With latents, or the autoregressive baseline without; the same as --set model.kind=
    #[arg(long, value_name = "ltm|ar")]
    pub model: Option<String>,
    #[command(flatten)]
    pub single: Single,
}

/// Single settings.
#[derive(clap::Args)]
pub struct Single {
    /// Single settings, e.g. `--set fast.steps=32 train.seed=1`; --help lists all keys
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., long_help = key_help())]
    pub set: Vec<String>,
}

fn preset_help() -> String {
    let mut text =
        "Configuration to start from [default: tiny for your own text, demo for the embedded corpus]:".to_string();
    PRESETS.iter().for_each(|preset| text.push_str(&format!("\n  {:<8}{}", preset.name, preset.summary)));
    text
}

fn key_help() -> String {
    let mut text =
        "Single settings, e.g. `--set fast.steps=32 train.seed=1`. The keys, with preset small's values:".to_string();
    let defaults = Config::default();
    for setting in Config::settings() {
        let value = setting.value(&defaults);
        let choices = if value.is_string() { format!(" ({})", setting.expects()) } else { String::new() };
        text.push_str(&format!("\n  {} = {value}: {}{choices}", setting.name, setting.doc()));
    }
    text
}

/// A setting of a file.
struct Setting {
    key: String,
    value: serde_json::Value,
    /// File and line, for messages.
    place: String,
}

/// The settings of the TOML file at `path`.
///
/// # Errors
/// If it cannot be read or is not TOML in sections; the message names the line.
fn read(path: &Path) -> Result<Vec<Setting>> {
    parse(&fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?, path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Setting>> {
    let place = |at: usize| {
        let before = &text.as_bytes()[..at.min(text.len())];
        format!("{}:{}", path.display(), 1 + before.iter().filter(|&&byte| byte == b'\n').count())
    };
    let sections: BTreeMap<String, BTreeMap<String, Spanned<toml::Value>>> = toml::from_str(text).map_err(|e| {
        let message = e.message().replace('\n', ", ");
        Error::usage(message).at(place(e.span().map_or(0, |span| span.start)))
    })?;
    let mut settings = Vec::new();
    for (section, entries) in sections {
        for (name, value) in entries {
            let place = place(value.span().start);
            // What has no JSON is null, which no setting but an empty path is.
            let value = serde_json::to_value(value.into_inner()).unwrap_or_default();
            settings.push(Setting { key: format!("{section}.{name}"), value, place });
        }
    }
    Ok(settings)
}

impl Settings {
    /// The configuration, resolved. `data` replaces `data.paths` unless it is empty.
    ///
    /// Prepared data say which tokenizer made them; that is taken unless a file or a single setting chooses one.
    ///
    /// # Errors
    /// Unknown keys, values that a key does not take, and settings that contradict each other.
    pub fn configuration(&self, data: &[PathBuf]) -> Result<Config> {
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let single = self.single.pairs()?;
        let sets = |key: &str| file.iter().any(|s| s.key == key) || single.iter().any(|(k, _)| *k == key);
        let own_text = !data.is_empty() || sets("data.paths");
        let mut config = Config::preset(self.preset.as_deref().unwrap_or(if own_text { "tiny" } else { "demo" }))?;
        for Setting { key, value, place } in &file {
            config.set_value(key, value).map_err(|e| e.at(place))?;
        }
        for (key, value) in &single {
            config.set(key, value).map_err(|e| e.at("--set"))?;
        }
        if let Some(kind) = &self.model {
            config.set("model.kind", kind).map_err(|e| e.at("--model"))?;
        }
        if !data.is_empty() {
            config.data.paths = data.to_vec();
        }
        absolute(&mut config)?;
        if !sets("data.tokenizer")
            && let Some(name) = config.data.paths.first().map(|path| tokenizer_of(path)).transpose()?.flatten()
        {
            let chosen = config.data.tokenizer;
            config.set("data.tokenizer", &name)?;
            if config.data.tokenizer != chosen && !sets("model.vocab") {
                config.model.vocab = 0;
            }
        }
        config.resolved()
    }
}

impl Single {
    /// Keys and values.
    ///
    /// # Errors
    /// If one is not `key=value`.
    pub fn pairs(&self) -> Result<Vec<(&str, &str)>> {
        let pairs = self.set.iter().map(|text| {
            let pair = text.split_once('=').map(|(key, value)| (key.trim(), value));
            pair.ok_or_else(|| Error::usage(format!("--set {text}: must be KEY=VALUE, as in fast.steps=32")))
        });
        pairs.collect()
    }
}

/// Paths are recorded so that they mean the same wherever the program is started next.
///
/// # Errors
/// If the working folder is gone.
pub fn absolute(config: &mut Config) -> Result<()> {
    for path in config.data.paths.iter_mut().chain(&mut config.data.validation) {
        *path = std::path::absolute(&*path).map_err(|e| Error::io("find", path, &e))?;
    }
    Ok(())
}

/// `base`, or the first of `base-2`, `base-3`, … that does not exist.
pub fn free_name(base: &str) -> PathBuf {
    let names = std::iter::once(base.to_string()).chain((2..).map(|n: u32| format!("{base}-{n}")));
    names.map(PathBuf::from).find(|path| !Path::exists(path)).unwrap_or_else(|| base.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::mutate;

    fn settings(text: &str) -> Result<Vec<Setting>> {
        parse(text, Path::new("run.toml"))
    }

    #[test]
    fn sections_and_dotted_keys_are_settings() {
        let text = "train.steps = 1_000\n[fast]\nrate_start = 0.1\nnoise = 'fresh'\n[data]\npaths = [\"a\", \"b\"]\n";
        let found: Vec<String> =
            settings(text).unwrap().iter().map(|s| format!("{} {} {}", s.place, s.key, s.value)).collect();
        let expected = [
            "run.toml:6 data.paths [\"a\",\"b\"]",
            "run.toml:4 fast.noise \"fresh\"",
            "run.toml:3 fast.rate_start 0.1",
            "run.toml:1 train.steps 1000",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, message) in [
            ("a.b = 1\nc = \n", ":2: ", "string"),
            ("[train]\nsteps = 1\nsteps = 2\n", ":3: ", "duplicate"),
            ("\n\nd = 3\n", ":3: ", "expected"),
        ] {
            let error = settings(text).err().unwrap();
            let text = error.to_string();
            assert!(text.contains(line) && text.contains(message) && !text.contains('\n'), "{text}");
            assert_eq!(error.kind(), engine::ErrorKind::Usage);
        }
    }

    /// Whatever a file says, it is refused in one line or sets what can be read back.
    #[test]
    fn damaged_files_never_panic() {
        let good = b"train.steps = 1_000\n[fast]\nrate_start = 1e-1\nnoise = 'fresh'\n[data]\npaths = [\"a\", \"b\"]\n\
            [model]\ndim = 0x80\nwindow = 32 # tokens\n";
        let refused = |error: &Error| assert!(!error.to_string().contains('\n'), "{error}");
        let mut accepted = 0;
        for case in 0..mutate::cases(5_000) {
            let damaged = mutate::damage(good, case);
            let Ok(text) = std::str::from_utf8(&damaged) else { continue };
            match settings(text) {
                Err(error) => refused(&error),
                Ok(settings) => {
                    accepted += 1;
                    let mut config = Config::default();
                    for Setting { key, value, .. } in settings {
                        config.set_value(&key, &value).unwrap_or_else(|error| refused(&error));
                    }
                    let text = serde_json::to_string(&config).unwrap();
                    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config, "case {case}");
                }
            }
        }
        assert!(accepted > 100, "only {accepted} files got past the reader: the damage is too coarse to test it");
    }
}
