use super::nearest::nearest;
use super::{
    Chunking, Config, DataConfig, FastConfig, ModelConfig, Posterior, Schedule, SlowConfig, Tokenizer, TrainConfig,
};
use engine::{Error, Result};

/// A named configuration to start from.
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in a line.
    pub summary: &'static str,
    build: fn() -> Config,
}

/// All presets: the paper's three sizes, and two that train in minutes on two cores.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "small",
        summary: "the paper's 38 M parameters: 3 layers, 24 latents, 16 fast steps",
        build: Config::default,
    },
    Preset {
        name: "medium",
        summary: "the paper's 51 M parameters: 6 layers, 24 latents, 16 fast steps",
        build: medium,
    },
    Preset {
        name: "large",
        summary: "the paper's 76 M parameters: 12 layers, 96 latents, 64 fast steps",
        build: large,
    },
    Preset { name: "tiny", summary: "bytes of your own text, in minutes on two cores", build: tiny },
    Preset {
        name: "demo",
        summary: "the embedded corpus, one document a sequence, in minutes on two cores",
        build: demo,
    },
];

impl Config {
    /// The preset of that name; its derived sizes are still to be resolved.
    ///
    /// # Errors
    /// A usage error that suggests the nearest name.
    pub fn preset(name: &str) -> Result<Self> {
        PRESETS.iter().find(|preset| preset.name == name).map(|preset| (preset.build)()).ok_or_else(|| {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            let near = nearest(name, names.iter().copied());
            Error::usage(format!("unknown preset {name:?}, did you mean {near:?}? There are {}", names.join(", ")))
        })
    }
}

fn medium() -> Config {
    Config { model: ModelConfig { layers: 6, latents: 4, ..ModelConfig::default() }, ..Config::default() }
}

fn large() -> Config {
    Config {
        model: ModelConfig { layers: 12, latents: 8, ..ModelConfig::default() },
        fast: FastConfig { steps: 64, ..FastConfig::default() },
        ..Config::default()
    }
}

fn tiny() -> Config {
    Config {
        model: ModelConfig { layers: 2, dim: 128, heads: 4, vocab: 0, seq: 256, window: 32, ..ModelConfig::default() },
        // The paper's rates make AdamW walk at random in latents that carry nothing; small models feel it most.
        fast: FastConfig {
            rate_start: 0.1,
            rate_end: 0.1,
            schedule: Schedule::Cosine,
            init_logvar: 0.0,
            ..FastConfig::default()
        },
        slow: SlowConfig { rate: 2e-3, min_rate: 2e-4, warmup: 50, ..SlowConfig::default() },
        train: TrainConfig { steps: 1000, eval_every: 100, checkpoint_every: 100, ..TrainConfig::default() },
        data: DataConfig { tokenizer: Tokenizer::Bytes, ..DataConfig::default() },
    }
}

fn demo() -> Config {
    let tiny = tiny();
    Config {
        // A narrow reach, so that the facts of a story are out of sight when it comes back to them.
        model: ModelConfig { dim: 64, window: 4, latents: 4, ..tiny.model },
        // Natural gradients pay for less than AdamW does. Latents are worth their KL only once the decoder has learnt what its
        // window shows, which takes some 1000 steps here, and more with a wider one (docs/recipe.md).
        fast: FastConfig {
            steps: 8,
            posterior: Posterior::Natural,
            schedule: Schedule::Linear,
            rate_start: 0.3,
            rate_end: 0.3,
            ..tiny.fast
        },
        slow: SlowConfig { rate: 5e-3, min_rate: 5e-4, warmup: 30, ..tiny.slow },
        train: TrainConfig { steps: 1200, eval_every: 400, checkpoint_every: 400, ..tiny.train },
        data: DataConfig { chunking: Chunking::Documents, ..tiny.data },
    }
}
