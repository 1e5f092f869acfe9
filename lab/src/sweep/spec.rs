use crate::toml_file;
use ltm::config::Config;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use toml::Spanned;

/// The keys of a sweep file: axes, fixed settings, and the evaluation.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sweep {
    /// The base preset, if not demo.
    pub preset: Option<String>,
    /// Settings of all points.
    pub set: Settings,
    /// Named sizes, whose settings override those of all points; if empty, the preset's own size.
    #[serde(rename = "size")]
    pub sizes: BTreeMap<String, Spanned<Settings>>,
    /// Fast steps T; if empty, from the settings.
    #[serde(deserialize_with = "axis")]
    pub fast_steps: Vec<u64>,
    /// Latent vectors per layer K (a model has N_z = L·K); if empty, from the settings.
    #[serde(deserialize_with = "axis")]
    pub latents: Vec<u64>,
    /// Training tokens, each budget a separate run with its own learning-rate schedule; if empty, from `train.steps`.
    #[serde(deserialize_with = "axis")]
    pub tokens: Vec<u64>,
    /// Seeds; if empty, from the settings.
    #[serde(deserialize_with = "axis")]
    pub seeds: Vec<u64>,
    /// Whether to train also the baselines of the same size: `ar-latent` for every K, and `ar`.
    pub baseline: bool,
    /// Whether to train also models of masked diffusion of the same size: `mdlm`, `sedd` and `md4`.
    pub diffusion: bool,
    /// Validation sequences per point, if not 64.
    pub sequences: Option<NonZeroU64>,
    /// Draws per sequence, if not 16.
    pub samples: Option<NonZeroUsize>,
}

/// The default preset.
pub(super) const PRESET: &str = "demo";

/// Settings of the model or the run, with valid keys and values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The base preset, if not the sweep's: the key `preset`.
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
                    "a sweep varies models that infer latents; baseline = true adds the baselines ar-latent and ar, \
                     diffusion = true adds mdlm, sedd and md4",
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
