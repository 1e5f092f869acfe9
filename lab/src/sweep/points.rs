use super::spec::PRESET;
use super::{Settings, Sweep};
use engine::{Error, Result};
use ltm::config::{Config, ModelKind, SETTINGS};
use ltm::hash::sha256;
use ltm::json;
use serde_json::Value;
use std::collections::HashMap;

/// One run of a sweep.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its name and folder.
    pub name: String,
    /// The size's name.
    pub size: String,
    /// The sweep's token budget; each size rounds it up to a whole number of its own steps.
    pub budget: Option<u64>,
    /// The configuration before it is checked as a whole.
    pub asked: Config,
    /// The configuration for training, or its error.
    pub config: Result<Config>,
}

/// The configuration, with default values for settings that do not affect results.
fn identity(config: &Config) -> Config {
    let (mut config, usual) = (config.clone(), Config::default().train);
    config.train.threads = usual.threads;
    config.train.sample_every = usual.sample_every;
    config.train.checkpoint_every = usual.checkpoint_every;
    config.train.keep_checkpoints = usual.keep_checkpoints;
    config
}

/// SHA-256 of the settings that a result depends on, in hexadecimal.
pub fn config_sha256(config: &Config) -> String {
    sha256(json::line(&identity(config)))
}

impl Point {
    /// Token positions of all steps, padding included. Budgets and FLOPs count these.
    pub fn tokens(&self) -> u64 {
        let (train, seq) = (&self.asked.train, self.asked.model.seq);
        [train.batch, seq].iter().fold(train.steps as u64, |product, &n| product.saturating_mul(n as u64))
    }

    /// SHA-256 of its settings, see [`config_sha256`].
    pub fn config_sha256(&self) -> String {
        config_sha256(self.config.as_ref().unwrap_or(&self.asked))
    }

    /// The first setting in which the run in a folder differs from this point, with both values; such a run is not the
    /// point's. Settings that do not affect results may differ.
    pub fn difference(&self, found: &Config) -> Option<(&'static str, Value, Value)> {
        let (wanted, found) = (identity(self.config.as_ref().ok()?), identity(found));
        let values = SETTINGS.iter().map(|key| (key.name, key.value(&found), key.value(&wanted)));
        values.into_iter().find(|(_, found, wanted)| found != wanted)
    }
}

impl Sweep {
    /// Every point, small budgets first. `prepare` gets each configuration before it is checked as a whole, for example
    /// to make paths absolute.
    ///
    /// # Errors
    /// A usage error: an unknown preset, a size whose name cannot be a folder name, a value given both by an axis and
    /// by a setting, or two points with the same configuration. An inconsistent configuration is an error in its
    /// [`Point::config`].
    pub fn points(&self, prepare: impl Fn(&mut Config) -> Result<()>) -> Result<Vec<Point>> {
        let (preset, whole) = (self.preset.as_deref().unwrap_or(PRESET), Settings::default());
        let mut sizes = vec![(preset, &whole)];
        if !self.sizes.is_empty() {
            let mut named: Vec<_> = self.sizes.iter().collect();
            named.sort_by_key(|(_, size)| size.span().start);
            sizes = named.into_iter().map(|(name, size)| (name.as_str(), size.get_ref())).collect();
        }
        self.check_axes(&sizes)?;
        if let Some(samples) = self.samples.filter(|samples| self.diffusion && samples.get() % 2 == 1) {
            return Err(Error::usage(format!("samples = {samples}: masked diffusion needs an even number of draws")));
        }
        let mut points: Vec<Point> = Vec::new();
        // Seed after seed, so that an unfinished sweep has whole seeds.
        let by_seed =
            values(&self.seeds).into_iter().flat_map(|s| values(&self.tokens).into_iter().map(move |t| (t, s)));
        for (tokens, seed) in by_seed {
            for &size in &sizes {
                let baselines = [ModelKind::ArLatent, ModelKind::Ar].into_iter().filter(|_| self.baseline);
                let diffusion =
                    [ModelKind::Mdlm, ModelKind::Sedd, ModelKind::Md4].into_iter().filter(|_| self.diffusion);
                for kind in std::iter::once(ModelKind::Ltm).chain(baselines).chain(diffusion) {
                    // A baseline varies only in what it uses.
                    let axis = |of: &[u64], is_used: bool| if is_used { values(of) } else { vec![None] };
                    let (latents, steps) =
                        (axis(&self.latents, kind.reads_latents()), axis(&self.fast_steps, kind.infers()));
                    for (&latents, &steps) in latents.iter().flat_map(|l| steps.iter().map(move |s| (l, s))) {
                        points.push(self.point(size, kind, [tokens, latents, steps, seed], &prepare)?);
                    }
                }
            }
        }
        // The same point trained twice would count as two and have a wrong error bar.
        let mut seen = HashMap::new();
        for point in &points {
            if let Some(twin) = seen.insert(point.config_sha256(), &point.name) {
                return Err(Error::usage(format!(
                    "{twin} and {} have the same configuration: remove one of them",
                    point.name
                )));
            }
        }
        Ok(points)
    }

    /// A size's name must be a folder name, and a value must not come both from an axis and from a setting.
    fn check_axes(&self, sizes: &[(&str, &Settings)]) -> Result<()> {
        let is_odd = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if let Some((name, _)) = sizes.iter().find(|(name, _)| name.is_empty() || name.contains(is_odd)) {
            return Err(Error::usage(format!(
                "size {name:?}: use letters, digits, - and _, because the name is part of a folder name"
            )));
        }
        for (axis, values, key) in [
            ("fast_steps", &self.fast_steps, "fast.steps"),
            ("latents", &self.latents, "model.latents"),
            ("tokens", &self.tokens, "train.steps"),
            ("seeds", &self.seeds, "train.seed"),
        ] {
            let mut all = self.set.values.iter().chain(sizes.iter().flat_map(|(_, size)| &size.values));
            if !values.is_empty() && all.any(|(set, _)| set == key) {
                return Err(Error::usage(format!("{key} is already set by {axis} = {values:?}: remove one of them")));
            }
        }
        Ok(())
    }

    fn point(
        &self,
        (size, settings): (&str, &Settings),
        kind: ModelKind,
        [tokens, latents, steps, seed]: [Option<u64>; 4],
        prepare: &impl Fn(&mut Config) -> Result<()>,
    ) -> Result<Point> {
        let presets = [&settings.preset, &self.set.preset, &self.preset];
        let mut config = Config::preset(presets.into_iter().flatten().next().map_or(PRESET, |name| name))?;
        for (key, value) in self.set.values.iter().chain(&settings.values) {
            config.set_value(key, value)?;
        }
        config = config.of_kind(kind);
        let mut name = size.to_string();
        for (key, letter, value) in [("fast.steps", 'T', steps), ("model.latents", 'K', latents)] {
            if let Some(value) = value {
                config.set_value(key, &value.into())?;
                name.push_str(&format!("-{letter}{value}"));
            }
        }
        if !kind.infers() {
            name.push_str(&format!("-{kind}"));
        }
        if let Some(tokens) = tokens {
            let step = (config.train.batch as u64).saturating_mul(config.model.seq as u64).max(1);
            config.set_value("train.steps", &tokens.div_ceil(step).into())?;
            name.push_str(&format!("-{tokens}"));
        }
        if let Some(seed) = seed {
            config.set_value("train.seed", &seed.into())?;
            if self.seeds.len() > 1 {
                name.push_str(&format!("-s{seed}"));
            }
        }
        prepare(&mut config)?;
        let trained = config.resolved().and_then(|config| config.check_training().map(|()| config));
        Ok(Point { name, size: size.into(), budget: tokens, config: trained, asked: config })
    }
}

/// The values of an axis, or one empty value.
fn values(axis: &[u64]) -> Vec<Option<u64>> {
    if axis.is_empty() { vec![None] } else { axis.iter().copied().map(Some).collect() }
}
