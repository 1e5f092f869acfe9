use crate::diffusion::{MD4, MDLM, Method, SEDD};
use engine::{DType, Device, Products};
use serde::{Deserialize, Serialize};

/// A setting that takes one of a few named values.
pub trait Choice: Copy + 'static {
    /// Every value with its name in configurations.
    const ALL: &'static [(Self, &'static str)];
}

/// Declares enums with a name and a sentence for each of their values.
macro_rules! choices {
    ($($(#[$doc:meta])* $Enum:ident { $($Value:ident = $name:literal, $about:literal;)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $Enum { $(#[doc = $about] #[serde(rename = $name)] $Value,)+ }

        impl Choice for $Enum {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$Value, $name),)+];
        }

        impl std::fmt::Display for $Enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$Value => $name,)+ })
            }
        }
    )+};
}

choices! {
    /// What the decoder is conditioned on.
    ModelKind {
        Ltm = "ltm", "Latent vectors inferred for each text, which every layer attends to.";
        ArLatent = "ar-latent", "Learned latent vectors, the same for every text: the baseline with the same layers. Latents \
                                 have fixed positions, so attending to two or more in a layer tells a token where it \
                                 stands, whatever they hold; this baseline knows that too.";
        Ar = "ar", "Nothing: the baseline without cross-attention. It has relative positions only, so it does not know how \
                    long a text already is.";
        Oracle = "oracle", "A fixed random code of the facts of a story of the embedded corpus, in place of inferred latents. \
                            It shows what the decoder could do with a perfect posterior.";
        Mdlm = "mdlm", "Nothing: masked diffusion, which predicts masked tokens from all others (Sahoo et al. 2024).";
        Sedd = "sedd", "Nothing: masked diffusion by score entropy, whose network is told the noise (Lou et al. 2024).";
        Md4 = "md4", "Nothing: masked diffusion whose network is told the time (Shi et al. 2024).";
        Gpt2 = "gpt2", "Nothing: GPT-2's own layers, with layer norms, biases, GELU and learned positions.";
    }

    /// The noise of the fast steps.
    Noise {
        Fresh = "fresh", "Drawn anew at every step (Algorithm 1).";
        Antithetic = "antithetic", "Drawn anew at every second step, and used with the opposite sign at the step after it: the \
                                    mean gradient then cancels in the curvature that the natural gradient measures.";
        Fixed = "fixed", "Drawn once per sample and kept, also for the reported value (the public reference code).";
    }

    /// The update rule of a fast step.
    Posterior {
        Adamw = "adamw", "AdamW on (μ, λ) (Algorithm 1).";
        Natural = "natural", "The natural gradient: steps in units of the posterior's variance, which follows the curvature.";
    }

    /// The fast rate within a sample.
    Schedule {
        Constant = "constant", "The same at every fast step.";
        Cosine = "cosine", "Falls by a cosine towards a tenth, the rate of the step after the last.";
        Linear = "linear", "Falls linearly towards 0, plus 0.05 at every step, so that the last steps still move.";
    }

    /// The gradient that trains the decoder.
    SlowGradient {
        Final = "final", "The gradient at a draw from the final posterior (Algorithm 1).";
        Trajectory = "trajectory", "The same plus the gradients at all fast steps (the public reference code).";
    }

    /// The update of the decoder's weights.
    Optimizer {
        Muon = "muon", "Muon for the matrices of the layers, whose updates are made nearly orthogonal (Jordan et al. 2024); \
                        AdamW for embeddings, gains, biases and learned latents.";
        Adamw = "adamw", "AdamW for all weights (Algorithm 1).";
    }

    /// How a training step of masked diffusion draws masks. Both have the same expectation.
    Masking {
        Bernoulli = "bernoulli", "A time for each text, then every position independently with probability a(t) (the papers).";
        Count = "count", "A number of masks for each text: its positions with the least uniforms. Less noise.";
    }

    /// The type of the factors of products, and on a GPU of stored activations. Sums, weights and latents are always f32.
    Precision {
        F32 = "f32", "32 bits.";
        Bf16 = "bf16", "16 bits with the range of f32: products on a GPU's tensor cores or by a processor's AMX, and on a GPU half \
                        the memory traffic.";
    }

    /// What happens when a loss or gradient is not finite.
    NonFinite {
        Stop = "stop", "The run stops with an error that names step, op and sample.";
        Skip = "skip", "The batch's update is skipped, with a warning; ten skipped updates in a row end the run.";
    }

    /// How text becomes tokens.
    Tokenizer {
        Bytes = "bytes", "One token per byte, and a begin and an end token.";
        Gpt2 = "gpt2", "GPT-2's byte pair encoding, with one additional token that begins documents.";
        Gpt2Plain = "gpt2-plain", "GPT-2's byte pair encoding: one token both ends a document and begins the next.";
    }

    /// How a corpus becomes sequences.
    Chunking {
        Windows = "windows", "Back-to-back windows of N tokens, across documents.";
        Documents = "documents", "One document per sequence, from a begin token to its end token, then ignored \
                                  targets.";
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
    /// Whether latents are inferred for each text; without inference a text's probability is exact.
    pub const fn infers(self) -> bool {
        matches!(self, Self::Ltm)
    }

    /// The method of a model of masked diffusion; `None` for one that predicts the next token.
    pub const fn method(self) -> Option<Method> {
        match self {
            Self::Mdlm => Some(MDLM),
            Self::Sedd => Some(SEDD),
            Self::Md4 => Some(MD4),
            _ => None,
        }
    }

    /// Whether each text has latents of its own, inferred or known.
    pub const fn takes_latents(self) -> bool {
        matches!(self, Self::Ltm | Self::Oracle)
    }

    /// Whether every layer attends to latents, inferred or not.
    pub const fn reads_latents(self) -> bool {
        matches!(self, Self::Ltm | Self::ArLatent | Self::Oracle)
    }
}

impl Precision {
    /// `device` as it computes in this precision: the CPU rounds the factors of products in bf16.
    #[must_use]
    pub fn on(self, device: &Device) -> Device {
        device.with(if self == Self::Bf16 { Products::Bf16 } else { Products::F32 })
    }

    /// The storage type of activations on `device`.
    pub fn stored_on(self, device: &Device) -> DType {
        if self == Self::Bf16 && matches!(device, Device::Cuda(_)) { DType::Bf16 } else { DType::F32 }
    }
}
