use super::{Config, nearest};
use engine::{Error, Result};

/// A named base configuration.
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its purpose, in one line.
    pub summary: &'static str,
    /// Its settings that differ from the table's defaults.
    settings: &'static [&'static str],
}

/// The paper's learning, by AdamW. From λ = −5 AdamW's rates make a random walk in latents without information, which costs KL,
/// and the more the smaller the model; the table's defaults do not.
const PAPER: &str = "fast.noise=fresh fast.posterior=adamw fast.schedule=constant fast.rate_start=0.3 fast.rate_end=0.34 \
                     fast.init_logvar=-5 slow.optimizer=adamw";

const MEDIUM: &str = "model.layers=6 model.latents=4";

const LARGE: &str = "model.layers=12 model.latents=8 fast.steps=64";

const TINY: &str = "model.layers=2 model.dim=128 model.heads=4 model.vocab=0 model.seq=256 model.window=32 \
                    fast.steps=8 slow.rate=2e-3 slow.min_rate=2e-4 slow.warmup=50 \
                    train.steps=1000 train.eval_every=100 train.sample_every=100 train.checkpoint_every=100 \
                    data.tokenizer=bytes";

/// Stories much longer than the window, so that their facts are out of sight when they come back. One latent per layer has
/// no other to average with, and two updates per inference train the decoder faster at equal time (docs/recipe.md).
const DEMO: &str = "model.dim=64 model.seq=512 model.window=16 model.latents=1 slow.updates=2 \
                    slow.rate=5e-3 slow.min_rate=5e-4 slow.warmup=30 train.batch=4 \
                    train.steps=1500 train.eval_every=500 train.sample_every=500 train.checkpoint_every=500 \
                    data.chunking=documents";

/// All presets: the paper's three sizes, the same with its learning, and two that train in minutes on two cores.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "small",
        summary: "the paper's 38 M parameters: 3 layers, 24 latents, 16 fast steps",
        settings: &[],
    },
    Preset {
        name: "medium",
        summary: "the paper's 51 M parameters: 6 layers, 24 latents, 16 fast steps",
        settings: &[MEDIUM],
    },
    Preset {
        name: "large",
        summary: "the paper's 76 M parameters: 12 layers, 96 latents, 64 fast steps",
        settings: &[LARGE],
    },
    Preset { name: "small-paper", summary: "small with the paper's learning", settings: &[PAPER] },
    Preset { name: "medium-paper", summary: "medium with the paper's learning", settings: &[MEDIUM, PAPER] },
    Preset { name: "large-paper", summary: "large with the paper's learning", settings: &[LARGE, PAPER] },
    Preset { name: "tiny", summary: "your own text as bytes, in minutes on two cores", settings: &[TINY] },
    Preset {
        name: "demo",
        summary: "the embedded corpus, one document per sequence, in minutes on two cores",
        settings: &[TINY, DEMO],
    },
];

impl Config {
    /// The preset of that name; its derived sizes are not yet resolved.
    ///
    /// # Errors
    /// A usage error that suggests the nearest name.
    pub fn preset(name: &str) -> Result<Self> {
        let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            let near = nearest(name, names.iter().copied());
            let names = names.join(", ");
            return Err(Error::usage(format!("unknown preset {name:?}, did you mean {near:?}? There are {names}")));
        };
        let mut config = Self::default();
        preset.settings.iter().try_for_each(|settings| config.set_all(settings))?;
        Ok(config)
    }

    /// Sets several, such as `model.dim=24 fast.steps=4`.
    pub fn set_all(&mut self, settings: &str) -> Result<()> {
        let mut pairs = settings.split_whitespace().filter_map(|setting| setting.split_once('='));
        pairs.try_for_each(|(key, text)| self.set(key, text))
    }
}
