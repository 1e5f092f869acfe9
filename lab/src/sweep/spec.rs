use engine::{Error, Result};
use ltm::config::{Config, nearest};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The file's own keys; all others stand behind `set.` or `size.NAME.`.
const KEYS: [&str; 10] =
    ["preset", "fast_steps", "latents", "tokens", "seeds", "baseline", "sequences", "samples", "set", "size"];

/// More points than this are a slip of the hand.
pub(super) const MOST_POINTS: usize = 10_000;

/// What varies, what does not, and how every point is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// Where settings start.
    pub preset: String,
    /// Settings of all points, by dotted key.
    pub set: Vec<(String, Value)>,
    /// Named sizes; without any, the preset's own.
    pub sizes: Vec<Size>,
    /// Fast steps T; empty where the settings say it.
    pub fast_steps: Vec<u64>,
    /// Latent vectors per layer K, of which a model has N_z = L·K; empty where the settings say it.
    pub latents: Vec<u64>,
    /// Tokens to learn from, each a run of its own with rates that fall towards its end; empty where `train.steps` says it.
    pub tokens: Vec<u64>,
    /// Seeds; empty where the settings say it.
    pub seeds: Vec<u64>,
    /// Whether the autoregressive model of the same size is trained too.
    pub baseline: bool,
    /// Held-out sequences that a point is judged by.
    pub sequences: u64,
    /// Draws per sequence.
    pub samples: usize,
}

/// A named size: settings of its own, which win over those of the sweep.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Size {
    /// Its name, part of the folders' names.
    pub name: String,
    /// Where its settings start, if not where the sweep's do.
    pub preset: Option<String>,
    /// Settings by dotted key.
    pub set: Vec<(String, Value)>,
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            preset: "demo".into(),
            set: Vec::new(),
            sizes: Vec::new(),
            fast_steps: Vec::new(),
            latents: Vec::new(),
            tokens: Vec::new(),
            seeds: Vec::new(),
            baseline: false,
            sequences: 64,
            samples: 16,
        }
    }
}

impl Sweep {
    /// Takes one key of the file: `fast_steps`, `set.train.batch`, `size.wide.model.dim`.
    ///
    /// # Errors
    /// A usage error: an unknown key with the nearest one, or what the key takes.
    pub fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        if let Some(setting) = key.strip_prefix("set.") {
            self.set.push(checked(setting, value)?);
            return Ok(());
        }
        if let Some(rest) = key.strip_prefix("size.") {
            let (name, setting) = rest.split_once('.').unwrap_or((rest, ""));
            let size = self.size(name)?;
            match setting {
                // A table without settings of its own.
                "" if value.as_object().is_some_and(Map::is_empty) => {}
                "preset" => size.preset = Some(preset(value)?),
                setting => size.set.push(checked(setting, value)?),
            }
            return Ok(());
        }
        match key {
            "preset" => self.preset = preset(value)?,
            "fast_steps" => self.fast_steps = axis(value, 1)?,
            "latents" => self.latents = axis(value, 1)?,
            "tokens" => self.tokens = axis(value, 1)?,
            "seeds" => self.seeds = axis(value, 0)?,
            "baseline" => self.baseline = typed(value)?,
            "sequences" => self.sequences = positive(value)?,
            "samples" => self.samples = positive(value)? as usize,
            "set" | "size" => return Err(Error::usage("is a section, as in [set] or [size.small]")),
            _ => {
                let near = nearest(key, KEYS);
                return Err(Error::usage(format!("unknown key, did you mean {near:?}? There are {}", KEYS.join(", "))));
            }
        }
        Ok(())
    }

    /// The size of that name, made if it is new.
    fn size(&mut self, name: &str) -> Result<&mut Size> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            return Err(Error::usage(format!("size {name:?}: a name of letters, digits, - and _, as folders have it")));
        }
        let at = self.sizes.iter().position(|size| size.name == name).unwrap_or(self.sizes.len());
        if at == self.sizes.len() {
            self.sizes.push(Size { name: name.into(), ..Size::default() });
        }
        Ok(&mut self.sizes[at])
    }
}

/// A setting of the model or the run, which must exist and take the value.
fn checked(key: &str, value: &Value) -> Result<(String, Value)> {
    if key == "model.kind" {
        return Err(Error::usage("a sweep is over models with latents; baseline = true adds the one without"));
    }
    Config::default().set_value(key, value)?;
    Ok((key.into(), value.clone()))
}

/// A value of the type that the key takes.
fn typed<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|error| Error::usage(error.to_string()))
}

fn preset(value: &Value) -> Result<String> {
    let name: String = typed(value)?;
    Config::preset(&name).map(|_| name)
}

/// One value or several, each at least `least`.
fn axis(value: &Value, least: u64) -> Result<Vec<u64>> {
    let values: Vec<u64> = if value.is_array() { typed(value)? } else { vec![typed(value)?] };
    if let Some((_, twice)) = values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)) {
        return Err(Error::usage(format!("{twice} stands there twice")));
    }
    match values.iter().min() {
        None => Err(Error::usage("must have at least one value, or be left out")),
        Some(&lowest) if lowest < least => Err(Error::usage(format!("must be at least {least}"))),
        Some(_) => Ok(values),
    }
}

fn positive(value: &Value) -> Result<u64> {
    match typed(value)? {
        0 => Err(Error::usage("must be at least 1")),
        n => Ok(n),
    }
}
