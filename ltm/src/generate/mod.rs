//! Generation: p(y|x) ≈ E_q(z|x)[p(y|x, z)]. z is inferred from the prompt, or drawn from the prior, and then fixed.
//! Tokens are drawn one by one with a ring of the last keys and values, so memory does not grow with length.
//!
//! Masked diffusion replaces masks by tokens in a random order instead, in front of, between and behind given text.

mod any_order;
mod in_order;
mod sample;
mod stream;
mod teller;
mod walk;
mod writer;

pub use sample::Sampler;
pub use stream::TextStream;
pub use teller::{Each, Order, Teller};
pub use walk::Walk;
pub use writer::{GAP, ROUNDS, Shown, Writer, Writing};

use crate::config::{Chunking, Config, FastConfig, Noise};
use crate::data::Batch;
use crate::data::sources::IGNORED;
use crate::data::tokenizer::Tokenizer;
use crate::learn::{Fast, FastOptions, Inputs};
use crate::model::Params;
use autograd::{Id, Store};
use engine::Result;
use engine::rng::Stream;

/// Random-number site of latents drawn from the prior.
const PRIOR: u32 = 0x0050_0000;

/// The tokens before a text. A model of documents was trained on begin tokens, and a token that both ends and begins
/// documents also occurs between them in running text. Other running text has almost no begin tokens, so the text
/// starts after a new line there.
pub fn front(tokenizer: &dyn Tokenizer, chunking: Chunking) -> Result<Vec<u16>> {
    let mut text = Vec::new();
    if chunking == Chunking::Documents || tokenizer.begin() == tokenizer.end() {
        text.push(tokenizer.begin());
    } else {
        tokenizer.encode(b"\n", &mut text)?;
    }
    Ok(text)
}

/// Fills the latents `z` with a draw from the prior N(0, I).
fn draw_prior(z: Id, store: &mut Store, seed: u64, sample: u32) {
    let z = store.get_mut(z);
    let mut values = vec![0.0; z.len()];
    Stream::new(seed, PRIOR).sample(sample).fill_normal(0, &mut values, |x| x);
    z.set_f64(&values);
}

/// A source of latents for generation.
#[derive(Debug)]
pub struct Thinker {
    fast: Fast,
    inputs: Inputs,
}

impl Thinker {
    /// Plans inference on one text at a time.
    pub fn new(config: &Config, params: &Params, store: &mut Store) -> Result<Self> {
        let inputs = Inputs::new(&config.model, 1, config.model.seq, params.dtype, store);
        // Generation needs a draw from the posterior, not the noise that it was fitted to.
        let noise = if config.fast.ends_with_a_draw() { config.fast.noise } else { Noise::Fresh };
        let fast = FastConfig { noise, ..config.fast.clone() };
        let options = FastOptions { seed: config.train.seed, ..FastOptions::default() };
        let fast = Fast::new(&config.model, &fast, params, &inputs, store, &options)?;
        Ok(Self { fast, inputs })
    }

    /// Fits z on `text` (its latest N tokens, the begin token included) and leaves a draw from the posterior in
    /// [`z`](Self::z).
    ///
    /// # Errors
    /// If `text` has a token beyond the vocabulary.
    pub fn infer(&self, config: &Config, store: &mut Store, text: &[u16], round: u32) -> Result<()> {
        let n = config.model.seq;
        let text = &text[text.len().saturating_sub(n + 1)..];
        let mut batch = Batch::new(1, n);
        batch.targets.fill(IGNORED);
        for (i, pair) in text.windows(2).enumerate() {
            batch.tokens[i] = i32::from(pair[0]);
            batch.targets[i] = i32::from(pair[1]);
        }
        self.inputs.load(store, &config.model, &batch)?;
        self.fast.fit(store, config.fast.rate_end, round, |_, _| ());
        Ok(())
    }

    /// The KL of every latent vector of the posterior to the prior, in nats, the first layer's first.
    ///
    /// # Errors
    /// Those of the device.
    pub fn kl_by_latent(&self, store: &Store) -> Result<Vec<f64>> {
        Ok(self.fast.latents.kl_by_latent(store)?.concat())
    }

    /// Draws z from the prior N(0, I).
    pub fn prior(&self, store: &mut Store, seed: u64, sample: u32) {
        draw_prior(self.z(), store, seed, sample);
    }

    /// The latents, `[1, L·K, d]`.
    pub fn z(&self) -> Id {
        self.fast.latents.z
    }
}
