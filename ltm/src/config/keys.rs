use super::nearest::nearest;
use super::{Choice, Config};
use crate::json::{self, Value};
use engine::{Error, Result};
use std::path::PathBuf;

/// A setting: its dotted name, what it means, and where it lies.
pub struct Key {
    /// `group.setting`.
    pub name: &'static str,
    /// What it means, in a line.
    pub help: &'static str,
    field: fn(&mut Config) -> &mut dyn Setting,
}

const fn key(name: &'static str, help: &'static str, field: fn(&mut Config) -> &mut dyn Setting) -> Key {
    Key { name, help, field }
}

/// Every setting, by group.
const KEYS: &[Key] = &[
    key(
        "model.kind",
        "ltm: with latents; ar: the autoregressive baseline, without; gpt2: GPT-2's layers, without",
        |c| &mut c.model.kind,
    ),
    key("model.layers", "layers L", |c| &mut c.model.layers),
    key("model.dim", "width d", |c| &mut c.model.dim),
    key("model.heads", "attention heads H; d/H must be even", |c| &mut c.model.heads),
    key(
        "model.ffn",
        "hidden size of the feed-forward part; 0: 8d/3 rounded up to a multiple of 32, for ar as many weights as ltm, for gpt2 4d",
        |c| &mut c.model.ffn,
    ),
    key("model.vocab", "vocabulary V; 0: the tokenizer's", |c| &mut c.model.vocab),
    key("model.seq", "tokens per sample N", |c| &mut c.model.seq),
    key("model.max_seq", "longest sequence, over which the latents' positions are spread; 0: model.seq", |c| {
        &mut c.model.max_seq
    }),
    key("model.window", "tokens that self-attention sees, the current one included", |c| &mut c.model.window),
    key("model.latents", "latent vectors per layer K", |c| &mut c.model.latents),
    key("model.norm_eps", "added to the mean square in every norm", |c| &mut c.model.norm_eps),
    key("model.rope_theta", "base of the rotary positions' wavelengths", |c| &mut c.model.rope_theta),
    key("fast.steps", "fast steps T per sample", |c| &mut c.fast.steps),
    key("fast.noise", "noise of the fast steps: fresh at each, or fixed per sample", |c| &mut c.fast.noise),
    key("fast.posterior", "how a fast step moves the posterior: by adamw, or by the natural gradient", |c| {
        &mut c.fast.posterior
    }),
    key("fast.rate_start", "fast rate at the beginning of training", |c| &mut c.fast.rate_start),
    key("fast.rate_end", "fast rate at the end of training, reached linearly", |c| &mut c.fast.rate_end),
    key(
        "fast.schedule",
        "fast rate within a sample: constant, falling by a cosine towards a tenth, or linearly to 0.05",
        |c| &mut c.fast.schedule,
    ),
    key("fast.beta1", "adamw: decay of the fast first moment", |c| &mut c.fast.beta1),
    key("fast.beta2", "adamw: decay of the fast second moment", |c| &mut c.fast.beta2),
    key("fast.eps", "adamw: added to the root of the fast second moment", |c| &mut c.fast.eps),
    key("fast.weight_decay", "adamw: decoupled decay of the posterior's mean and log-variance", |c| {
        &mut c.fast.weight_decay
    }),
    key("fast.damping", "natural: the part of the measured curvature that counts, 1 for all of it", |c| {
        &mut c.fast.damping
    }),
    key("fast.init_logvar", "mean of the initial log-variance", |c| &mut c.fast.init_logvar),
    key("fast.init_logvar_std", "standard deviation of the initial log-variance", |c| &mut c.fast.init_logvar_std),
    key("fast.kl_warmup", "slow steps in which the KL's weight in the fast gradients rises to 1; 0: it is 1", |c| {
        &mut c.fast.kl_warmup
    }),
    key("slow.gradient", "decoder gradient: at the final posterior, or summed along the trajectory", |c| {
        &mut c.slow.gradient
    }),
    key("slow.rate", "slow rate after the warm-up", |c| &mut c.slow.rate),
    key("slow.min_rate", "slow rate at the last step", |c| &mut c.slow.min_rate),
    key("slow.warmup", "slow steps in which the rate rises", |c| &mut c.slow.warmup),
    key("slow.beta1", "decay of the slow first moment", |c| &mut c.slow.beta1),
    key("slow.beta2", "decay of the slow second moment", |c| &mut c.slow.beta2),
    key("slow.eps", "added to the root of the slow second moment", |c| &mut c.slow.eps),
    key("slow.weight_decay", "decoupled decay of the decoder's matrices", |c| &mut c.slow.weight_decay),
    key("slow.clip", "largest global norm of the decoder's gradient", |c| &mut c.slow.clip),
    key("train.batch", "samples per slow step", |c| &mut c.train.batch),
    key("train.steps", "slow steps", |c| &mut c.train.steps),
    key("train.seed", "seed of weights, noise and data order", |c| &mut c.train.seed),
    key("train.eval_every", "slow steps between evaluations; 0: only at the end", |c| &mut c.train.eval_every),
    key("train.checkpoint_every", "slow steps between checkpoints; 0: only at the end", |c| {
        &mut c.train.checkpoint_every
    }),
    key("train.keep_checkpoints", "checkpoints kept, the newest ones", |c| &mut c.train.keep_checkpoints),
    key("train.precision", "storage of activations: f32, or bf16 on a GPU", |c| &mut c.train.precision),
    key("train.non_finite", "when a number is not finite: stop, or skip the update", |c| &mut c.train.non_finite),
    key("train.threads", "threads; 0: all cores", |c| &mut c.train.threads),
    key("data.paths", "files or folders to train on; none: the embedded corpus", |c| &mut c.data.paths),
    key("data.validation", "held-out file or folder; empty: a part of data.paths", |c| &mut c.data.validation),
    key("data.validation_fraction", "part of data.paths held out without data.validation", |c| {
        &mut c.data.validation_fraction
    }),
    key("data.tokenizer", "how text becomes tokens", |c| &mut c.data.tokenizer),
    key("data.chunking", "how tokens become sequences: windows, or one document each", |c| &mut c.data.chunking),
];

/// Settings that no longer exist, and the only value, as JSON, with which a file may still name them.
const RETIRED: &[(&str, &str)] = &[("fast.hoist", "\"on\""), ("fast.head_filter", "0")];

impl Key {
    /// What values it takes, e.g. `one of fresh, fixed`.
    pub fn expects(&self) -> String {
        (self.field)(&mut Config::default()).expects()
    }

    /// Its value in [`Config::default`].
    pub fn default_value(&self) -> Value {
        (self.field)(&mut Config::default()).value()
    }
}

impl Config {
    /// Every setting, by group.
    pub fn keys() -> &'static [Key] {
        KEYS
    }

    /// Sets a key from text, as on a command line: `set("fast.steps", "16")`.
    ///
    /// # Errors
    /// A usage error: an unknown key with the nearest one, or what the key expects.
    pub fn set(&mut self, key: &str, text: &str) -> Result<()> {
        let value = (find(key)?.field)(self).read_text(text);
        self.set_value(key, &value)
    }

    /// Sets a key from a typed value, as in a file.
    ///
    /// # Errors
    /// As [`Config::set`].
    pub fn set_value(&mut self, key: &str, value: &Value) -> Result<()> {
        let field = (find(key)?.field)(self);
        match field.assign(value) {
            Some(()) => Ok(()),
            None => Err(Error::usage(format!("{key} = {value}: expected {}", field.expects()))),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// A usage error if there is no such key.
    pub fn get(&self, key: &str) -> Result<Value> {
        // The one accessor of a key needs a configuration that it could change; a copy costs little.
        Ok((find(key)?.field)(&mut self.clone()).value())
    }

    /// All keys and values, an object per group.
    pub fn to_json(&self) -> Value {
        let mut groups: Vec<(String, Value)> = Vec::new();
        let mut copy = self.clone();
        for key in KEYS {
            let (group, setting) = key.name.split_once('.').unwrap_or(("", key.name));
            let entry = (setting.to_owned(), (key.field)(&mut copy).value());
            match groups.last_mut() {
                Some((name, Value::Object(entries))) if name == group => entries.push(entry),
                _ => groups.push((group.into(), Value::Object(vec![entry]))),
            }
        }
        Value::Object(groups)
    }

    /// The reverse of [`Config::to_json`]. A missing key keeps its default and a retired key is skipped, so that old files
    /// stay readable.
    ///
    /// # Errors
    /// If a key does not exist (with the nearest one), does not take its value, or is retired and had another value.
    pub fn from_json(value: &Value) -> Result<Self> {
        let mut config = Self::default();
        for (group, settings) in value.as_object()? {
            let Value::Object(settings) = settings else {
                return Err(unknown(group));
            };
            for (setting, value) in settings {
                let key = format!("{group}.{setting}");
                match RETIRED.iter().find(|(name, _)| *name == key) {
                    None => config.set_value(&key, value)?,
                    Some((_, only)) if value.to_string() == *only => {}
                    Some((_, only)) => {
                        let message = format!("{key} = {value} is no longer supported: {key} is always {only}");
                        return Err(Error::usage(message));
                    }
                }
            }
        }
        Ok(config)
    }
}

fn find(name: &str) -> Result<&'static Key> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    Error::usage(format!("unknown key {name:?}, did you mean {:?}?", nearest(name, KEYS.iter().map(|key| key.name))))
}

/// A value that a key can refer to.
trait Setting {
    /// What values it takes, to follow "expected".
    fn expects(&self) -> String;

    /// Takes `value`, or is left alone and returns `None`.
    fn assign(&mut self, value: &Value) -> Option<()>;

    /// What [`Setting::assign`] would take to set it to what it is.
    fn value(&self) -> Value;

    /// What is meant by text from a command line.
    fn read_text(&self, text: &str) -> Value {
        text.into()
    }
}

/// A number if it reads as one, else text, for the message about it.
fn number_from(text: &str) -> Value {
    text.trim().parse::<f64>().map_or_else(|_| text.into(), Value::Number)
}

impl Setting for u64 {
    fn expects(&self) -> String {
        "an integer of 0 or more, below 2^53".into()
    }

    fn assign(&mut self, value: &Value) -> Option<()> {
        *self = value.as_u64().ok()?;
        Some(())
    }

    fn value(&self) -> Value {
        (*self).into()
    }

    fn read_text(&self, text: &str) -> Value {
        number_from(text)
    }
}

impl Setting for usize {
    fn expects(&self) -> String {
        "an integer of 0 or more".into()
    }

    fn assign(&mut self, value: &Value) -> Option<()> {
        *self = value.as_usize().ok()?;
        Some(())
    }

    fn value(&self) -> Value {
        (*self).into()
    }

    fn read_text(&self, text: &str) -> Value {
        number_from(text)
    }
}

impl Setting for f64 {
    fn expects(&self) -> String {
        "a finite number".into()
    }

    fn assign(&mut self, value: &Value) -> Option<()> {
        *self = value.as_f64().ok().filter(|x| x.is_finite())?;
        Some(())
    }

    fn value(&self) -> Value {
        (*self).into()
    }

    fn read_text(&self, text: &str) -> Value {
        number_from(text)
    }
}

impl<T: Choice> Setting for T {
    fn expects(&self) -> String {
        let names: Vec<&str> = T::ALL.iter().map(|(_, name)| *name).collect();
        match names[..] {
            [only] => only.into(),
            _ => format!("one of {}", names.join(", ")),
        }
    }

    fn assign(&mut self, value: &Value) -> Option<()> {
        let text = value.as_str().ok()?;
        *self = T::ALL.iter().find(|(_, name)| *name == text)?.0;
        Some(())
    }

    fn value(&self) -> Value {
        self.name().into()
    }
}

impl Setting for Option<PathBuf> {
    fn expects(&self) -> String {
        "a path, or nothing".into()
    }

    fn assign(&mut self, value: &Value) -> Option<()> {
        *self = match value {
            Value::Null => None,
            value => Some(value.as_str().ok()?).filter(|path| !path.is_empty()).map(PathBuf::from),
        };
        Some(())
    }

    fn value(&self) -> Value {
        self.as_ref().map_or(Value::Null, |path| path.display().to_string().into())
    }
}

impl Setting for Vec<PathBuf> {
    fn expects(&self) -> String {
        "a path, or a list of paths such as [\"a.txt\", \"b.txt\"]".into()
    }

    fn assign(&mut self, value: &Value) -> Option<()> {
        let one = std::slice::from_ref(value);
        let paths = value.as_array().unwrap_or(one).iter();
        let path = |item: &Value| item.as_str().ok().filter(|path| !path.is_empty()).map(PathBuf::from);
        *self = paths.map(path).collect::<Option<_>>()?;
        Some(())
    }

    fn value(&self) -> Value {
        self.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().into()
    }

    fn read_text(&self, text: &str) -> Value {
        json::parse(text).ok().filter(|value| matches!(value, Value::Array(_))).unwrap_or_else(|| text.into())
    }
}
