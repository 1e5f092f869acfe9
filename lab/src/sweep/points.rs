use super::spec::MOST_POINTS;
use super::{Size, Sweep};
use engine::{Error, Result};
use ltm::config::{Config, ModelKind};
use ltm::hash::sha256;
use ltm::json;
use serde_json::Value;

/// The settings that change no result: where they differ, a point is still the same.
const FREE: [&str; 3] = ["train.threads", "train.checkpoint_every", "train.keep_checkpoints"];

/// One run of a sweep.
#[derive(Clone, Debug)]
pub struct Point {
    /// Its name, that of its folder.
    pub name: String,
    /// The size's name.
    pub size: String,
    /// Tokens that the sweep asked for: one budget is a whole number of steps for every size, not the same one.
    pub budget: Option<u64>,
    /// What the settings asked for, before it is checked as a whole.
    pub asked: Config,
    /// The configuration to train with, or why there is none.
    pub config: Result<Config>,
}

impl Point {
    /// Whether it has latents, and so fast steps.
    pub fn has_latents(&self) -> bool {
        self.asked.model.kind == ModelKind::Ltm
    }

    /// Token positions of all steps, padding included: what a budget and FLOPs are counted in.
    pub fn tokens(&self) -> u64 {
        let (train, seq) = (&self.asked.train, self.asked.model.seq);
        [train.batch, seq].iter().fold(train.steps as u64, |product, &n| product.saturating_mul(n as u64))
    }

    /// What the configuration is, but for settings that change no result.
    fn identity(config: &Config) -> Result<Config> {
        let (mut config, usual) = (config.clone(), Config::default());
        for key in FREE {
            config.set_value(key, &usual.get(key)?)?;
        }
        Ok(config)
    }

    /// SHA-256 of the settings that a result depends on, in hexadecimal.
    ///
    /// # Errors
    /// None that a configuration can cause.
    pub fn config_sha256(&self) -> Result<String> {
        let config = self.config.as_ref().unwrap_or(&self.asked);
        Ok(sha256(json::line(&Self::identity(config)?)))
    }

    /// The first setting by which the run in a folder differs from this point, with both values: such a run is none of its
    /// results. Settings that change no result may differ.
    ///
    /// # Errors
    /// None that a configuration can cause.
    pub fn difference(&self, found: &Config) -> Result<Option<(&'static str, Value, Value)>> {
        let Ok(config) = &self.config else { return Ok(None) };
        let (wanted, found) = (Self::identity(config)?, Self::identity(found)?);
        for key in Config::settings() {
            let (wanted, found) = (key.value(&wanted), key.value(&found));
            if wanted != found {
                return Ok(Some((key.name, found, wanted)));
            }
        }
        Ok(None)
    }
}

impl Sweep {
    /// Every point, small budgets first. `prepare` sees each configuration before it is checked as a whole: paths may be made
    /// absolute there.
    ///
    /// # Errors
    /// A usage error: an axis and a setting that decide the same, two points that are one, or too many points. A
    /// configuration that contradicts itself is in its [`Point::config`].
    pub fn points(&self, prepare: impl Fn(&mut Config) -> Result<()>) -> Result<Vec<Point>> {
        let whole = Size { name: self.preset.clone(), ..Size::default() };
        let sizes = if self.sizes.is_empty() { std::slice::from_ref(&whole) } else { &self.sizes[..] };
        self.check_axes()?;
        let axes = [&self.tokens, &self.latents, &self.fast_steps, &self.seeds].map(|axis| axis.len().max(1));
        let count = axes.iter().fold(sizes.len(), |product, &n| product.saturating_mul(n));
        if count > MOST_POINTS {
            return Err(Error::usage(format!("{count} points: at most {MOST_POINTS} make a sweep")));
        }
        let mut points: Vec<Point> = Vec::new();
        for tokens in values(&self.tokens) {
            for size in sizes {
                let kinds = [ModelKind::Ltm, ModelKind::Ar];
                for kind in kinds.into_iter().filter(|&kind| kind == ModelKind::Ltm || self.baseline) {
                    // Without latents there is nothing to vary in them.
                    let [latents, steps] = match kind {
                        ModelKind::Ltm => [values(&self.latents), values(&self.fast_steps)],
                        _ => [vec![None], vec![None]],
                    };
                    for (&latents, &steps) in latents.iter().flat_map(|l| steps.iter().map(move |s| (l, s))) {
                        for seed in values(&self.seeds) {
                            points.push(self.point(size, kind, tokens, latents, steps, seed, &prepare)?);
                        }
                    }
                }
            }
        }
        check_distinct(&points)?;
        Ok(points)
    }

    /// An axis leaves nothing to a setting.
    fn check_axes(&self) -> Result<()> {
        for (axis, values, key) in [
            ("fast_steps", &self.fast_steps, "fast.steps"),
            ("latents", &self.latents, "model.latents"),
            ("tokens", &self.tokens, "train.steps"),
            ("seeds", &self.seeds, "train.seed"),
        ] {
            let all = self.set.iter().chain(self.sizes.iter().flat_map(|size| &size.set));
            if !values.is_empty() && all.into_iter().any(|(set, _)| set == key) {
                return Err(Error::usage(format!("{key} is decided by {axis} = {values:?}: leave one of them out")));
            }
        }
        Ok(())
    }

    fn point(
        &self,
        size: &Size,
        kind: ModelKind,
        tokens: Option<u64>,
        latents: Option<u64>,
        steps: Option<u64>,
        seed: Option<u64>,
        prepare: &impl Fn(&mut Config) -> Result<()>,
    ) -> Result<Point> {
        let mut config = Config::preset(size.preset.as_ref().unwrap_or(&self.preset))?;
        for (key, value) in self.set.iter().chain(&size.set) {
            config.set_value(key, value)?;
        }
        config.model.kind = kind;
        let mut name = size.name.clone();
        if let Some(steps) = steps {
            config.set_value("fast.steps", &steps.into())?;
            name.push_str(&format!("-T{steps}"));
        }
        if let Some(latents) = latents {
            config.set_value("model.latents", &latents.into())?;
            name.push_str(&format!("-K{latents}"));
        }
        if kind == ModelKind::Ar {
            name.push_str("-ar");
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
        Ok(Point { name, size: size.name.clone(), budget: tokens, config: config.resolved(), asked: config })
    }
}

/// The values of an axis, or that it has none.
fn values(axis: &[u64]) -> Vec<Option<u64>> {
    if axis.is_empty() { vec![None] } else { axis.iter().copied().map(Some).collect() }
}

/// Two points of the same settings would be one result under two names.
fn check_distinct(points: &[Point]) -> Result<()> {
    let mut seen = std::collections::HashMap::new();
    for point in points {
        if let Some(other) = seen.insert(point.config_sha256()?, &point.name) {
            return Err(Error::usage(format!(
                "{other} and {} are the same run: what tells them apart changes no setting, or too little for one step",
                point.name
            )));
        }
    }
    Ok(())
}
