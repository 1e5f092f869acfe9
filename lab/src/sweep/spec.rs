use crate::toml_file;
use ltm::config::Config;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use toml::Spanned;

/// What varies, what does not, and how every point is judged: a file of these keys.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sweep {
    /// Where settings start, if not with the demo's.
    pub preset: Option<String>,
    /// Settings of all points.
    pub set: Settings,
    /// Named sizes, whose settings win over those of all points; without any, the preset's own.
    #[serde(rename = "size")]
    pub sizes: BTreeMap<String, Spanned<Settings>>,
    /// Fast steps T; empty where the settings say it.
    #[serde(deserialize_with = "axis")]
    pub fast_steps: Vec<u64>,
    /// Latent vectors per layer K, of which a model has N_z = L·K; empty where the settings say it.
    #[serde(deserialize_with = "axis")]
    pub latents: Vec<u64>,
    /// Tokens to learn from, each a run of its own with rates that fall towards its end; empty where `train.steps` says it.
    #[serde(deserialize_with = "axis")]
    pub tokens: Vec<u64>,
    /// Seeds; empty where the settings say it.
    #[serde(deserialize_with = "axis")]
    pub seeds: Vec<u64>,
    /// Whether the autoregressive model of the same size is trained too.
    pub baseline: bool,
    /// Validation sequences that a point is judged by, if not 64.
    pub sequences: Option<NonZeroU64>,
    /// Draws per sequence, if not 16.
    pub samples: Option<NonZeroUsize>,
}

/// The preset where no other is named.
pub(super) const PRESET: &str = "demo";

/// Settings of the model or the run, each known to exist and to take its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Where they start, if not where the sweep's do: the key `preset`.
    pub preset: Option<String>,
    /// Values by dotted key.
    pub values: Vec<(String, Value)>,
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut settings = Self::default();
        for (section, value) in BTreeMap::<String, Value>::deserialize(deserializer)? {
            match value {
                Value::String(name) if section == "preset" => settings.preset = Some(name),
                Value::Object(values) => {
                    settings.values.extend(values.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
                }
                value => settings.values.push((section, value)),
            }
        }
        for (key, value) in &settings.values {
            if key == "model.kind" {
                return Err(D::Error::custom(
                    "a sweep is over models with latents; baseline = true adds the one without",
                ));
            }
            Config::default().set_value(key, value).map_err(D::Error::custom)?;
        }
        Ok(settings)
    }
}

/// One value or several.
fn axis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    toml_file::Several::deserialize(deserializer).map(|values| values.0)
}
