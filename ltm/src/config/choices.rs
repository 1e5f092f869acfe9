use engine::{DType, Device, Error, Result};
use serde::Serialize;

/// Declares settings with a few named values: the enum, the list of its values, and their names in configurations.
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum $name { $($(#[$value_doc])* #[serde(rename = $text)] $value,)+ }

        impl Choice for $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$value, $text),)+];
            fn name(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    )+};
}

/// A setting that takes one of a few named values.
pub trait Choice: Copy + PartialEq + 'static {
    /// Every value with its name.
    const ALL: &'static [(Self, &'static str)];

    /// The value's name in configurations.
    fn name(self) -> &'static str;

    /// The value of that name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
    }
}

choices! {
    /// What the decoder is conditioned on.
    ModelKind {
        /// Latent vectors, which every layer attends to.
        Ltm = "ltm",
        /// Nothing: the baseline, an autoregressive Transformer with the same layers less their cross-attention.
        Ar = "ar",
        /// Nothing: GPT-2's own layers, with layer norms, biases, GELU and learned positions. What imported weights need.
        Gpt2 = "gpt2",
    }
    /// Where the noise of the fast steps comes from.
    Noise {
        /// Drawn afresh at every step (Algorithm 1).
        Fresh = "fresh",
        /// Drawn once per sample and kept, also for the reported value (the public reference).
        Fixed = "fixed",
    }
    /// How a fast step moves the posterior.
    Posterior {
        /// AdamW on (μ, λ) (Algorithm 1).
        Adamw = "adamw",
        /// The natural gradient: steps in units of the posterior's variance, which follows the measured curvature.
        Natural = "natural",
    }
    /// The fast rate within a sample.
    Schedule {
        /// The same at every fast step.
        Constant = "constant",
        /// Falls by a cosine towards a tenth, which the step behind the last would have.
        Cosine = "cosine",
        /// Falls linearly towards 0; 0.05 is added throughout, so that the last steps still move.
        Linear = "linear",
    }
    /// Which gradient the decoder learns from.
    SlowGradient {
        /// That at a draw from the final posterior (Algorithm 1).
        Final = "final",
        /// The same plus all those met during the fast steps (the public reference).
        Trajectory = "trajectory",
    }
    /// How activations are stored while a GPU computes; arithmetic is f32 either way, and so is all that is learned. The CPU
    /// stores f32.
    Precision {
        /// 32 bits.
        F32 = "f32",
        /// 16 bits with the range of f32: half the memory traffic, and products on the tensor cores.
        Bf16 = "bf16",
    }
    /// What happens when a loss or gradient is not finite.
    NonFinite {
        /// The run stops with an error that names step, op and sample.
        Stop = "stop",
        /// The batch's update is left out, with a warning.
        Skip = "skip",
    }
    /// How text becomes tokens.
    Tokenizer {
        /// One token a byte, and a begin and an end token.
        Bytes = "bytes",
        /// GPT-2's byte pair encoding, and one token more, which begins documents.
        Gpt2 = "gpt2",
        /// GPT-2's byte pair encoding as it is: one token both ends a document and begins the next.
        Gpt2Plain = "gpt2-plain",
    }
    /// How a corpus becomes sequences.
    Chunking {
        /// Back-to-back windows of N tokens, across documents.
        Windows = "windows",
        /// One document a sequence, with a begin token in front, its end token scored, padded with ignored targets.
        Documents = "documents",
    }
}

impl Tokenizer {
    /// Tokens that it can produce, special ones included; the smallest vocabulary for it.
    pub const fn vocab(self) -> usize {
        match self {
            Self::Bytes => 256 + 2,
            Self::Gpt2 => 50_257 + 1,
            Self::Gpt2Plain => 50_257,
        }
    }
}

impl ModelKind {
    /// Whether there are latents to infer; without them a text's probability is known exactly.
    pub const fn has_latents(self) -> bool {
        match self {
            Self::Ltm => true,
            Self::Ar | Self::Gpt2 => false,
        }
    }
}

impl Precision {
    /// How activations are stored on `device` for learning.
    ///
    /// # Errors
    /// If the device cannot: bf16 needs a GPU.
    pub fn to_learn_on(self, device: &Device) -> Result<DType> {
        match (self, device) {
            (Self::Bf16, Device::Cpu) => Err(Error::usage(
                "train.precision = bf16 needs a GPU (--device cuda); the CPU computes with train.precision = f32",
            )),
            _ => Ok(self.to_use_on(device)),
        }
    }

    /// How activations are stored on `device` for using a model: as it learnt, where the device can.
    pub fn to_use_on(self, device: &Device) -> DType {
        match (self, device) {
            (Self::Bf16, Device::Cuda(_)) => DType::Bf16,
            _ => DType::F32,
        }
    }
}
