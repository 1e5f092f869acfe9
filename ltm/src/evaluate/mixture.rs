//! The probability of every token of a text given all tokens before it, also under a model that infers latents.
//!
//! The text is cut into blocks. For each block, S draws z₁ … z_S come from the posterior given the tokens before the block only. Token i
//! of the block then gets
//!
//! log p(xᵢ | x<ᵢ) = log Σₛ exp(−Σ_{k≤i} nllₛₖ) − log Σₛ exp(−Σ_{k<i} nllₛₖ), with sums over tokens k of the block.
//!
//! For given draws that is a mixture of S decoders, so the probabilities of all next tokens sum to one. The sum over a block is what
//! [`Protocol::Prefix`](super::Protocol::Prefix) gives. Noise is keyed by the tokens before the block, so that a result does not depend
//! on the rest of the batch.

use crate::config::{Config, ModelConfig};
use crate::data::Batch;
use crate::data::sources::IGNORED;
use crate::learn::{Draw, Fast, FastOptions, Inputs};
use crate::model::{Decoder, Params, Positions};
use autograd::{Graph, Id, Phase, Plan, Request, Store};
use engine::{Error, Result, Spec};
use kernels::matmul::Linear;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// The first cuts of a text: a question of a few words already has a posterior of its own.
pub const EARLY: [usize; 3] = [8, 16, 32];

/// The blocks of the places `1..end`: cut behind 8, 16, 32 and `every` tokens, and then every `every`. With a `context` of so many
/// tokens, the only cut is behind it.
pub fn blocks(end: usize, every: usize, context: Option<usize>) -> Vec<Range<usize>> {
    let cuts: Vec<usize> = match context {
        Some(context) => vec![context],
        None => EARLY.into_iter().filter(|&cut| cut < every).chain((every..end).step_by(every)).collect(),
    };
    let starts: Vec<usize> = std::iter::once(1).chain(cuts.into_iter().filter(|cut| (2..end).contains(cut))).collect();
    let ends = starts[1..].iter().copied().chain([end]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).filter(|block| !block.is_empty()).collect()
}

/// The number that keys the noise of latents inferred from `tokens`.
pub(crate) fn key(seed: u64, tokens: &[u16]) -> u32 {
    let mut hash = Sha256::new_with_prefix(seed.to_le_bytes());
    tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
    u32::from_le_bytes(std::array::from_fn({
        let digest = hash.finalize();
        move |i| digest[i]
    }))
}

/// A part of a text whose tokens are predicted.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// The text; only tokens before the last place are read.
    pub text: &'a [u16],
    /// The places predicted: from 1, because the first token has nothing before it, to `text.len()`, the token after the text.
    pub places: Range<usize>,
    /// The seed of its draws.
    pub seed: u64,
}

/// What is known of the token at one place.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The logarithm of every draw's weight `[S]`; the weights sum to one.
    log_weights: Vec<f64>,
    /// `[S, V]`.
    logits: Vec<f64>,
    /// The logarithm of every draw's sum of exponentials, `[S]`.
    lse: Vec<f64>,
}

impl Prediction {
    fn new(log_weights: Vec<f64>, logits: Vec<f64>) -> Self {
        let vocab = logits.len() / log_weights.len();
        let lse = logits.chunks(vocab).map(|logits| log_sum_exp(logits.iter().copied())).collect();
        Self { log_weights, logits, lse }
    }

    /// The size of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.logits.len() / self.lse.len()
    }

    /// The log-probability of a token, in nats.
    pub fn log_p(&self, token: u16) -> f64 {
        log_sum_exp(self.log_weights.iter().zip(self.by_draw(token)).map(|(weight, log_p)| weight + log_p))
    }

    /// Under every draw.
    fn by_draw(&self, token: u16) -> impl Iterator<Item = f64> + Clone {
        let logits = self.logits.iter().skip(token.into()).step_by(self.vocab());
        logits.zip(&self.lse).map(|(logit, lse)| logit - lse)
    }

    /// The weights after this token.
    fn after(&self, token: u16) -> Vec<f64> {
        let log_p = self.log_p(token);
        self.log_weights.iter().zip(self.by_draw(token)).map(|(weight, of_draw)| weight + of_draw - log_p).collect()
    }
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    most + values.map(|value| (value - most).exp()).sum::<f64>().ln()
}

/// Rows of the head's product: the logits of so many hidden vectors are computed at once.
const ROWS: usize = 32;

/// Predicts blocks, planned for batches of one size. The decoder runs once per draw, the head only where tokens are predicted.
#[derive(Debug)]
pub struct Mixture {
    model: ModelConfig,
    rate: f64,
    draws: usize,
    inputs: Inputs,
    /// `None` if no latents are inferred.
    latents: Option<(Fast, Draw)>,
    body: Plan,
    /// `[B, N, d]`.
    hidden: Id,
    head: Plan,
    /// `[ROWS, d]`.
    rows: Id,
    /// `[ROWS, V]`.
    logits: Id,
}

impl Mixture {
    /// Plans batches of `rows` blocks with `positions` positions, of the model with these parameters. A model that infers latents takes
    /// `config.fast.steps` steps and `draws` draws; others have a single prediction.
    ///
    /// # Errors
    /// If the model does not predict the next token from the tokens before it.
    pub fn new(
        config: &Config,
        [rows, positions]: [usize; 2],
        draws: usize,
        params: &Params,
        store: &mut Store,
    ) -> Result<Self> {
        let (model, seed) = (&config.model, config.train.seed);
        if model.kind.method().is_some() || model.kind.takes_latents() != model.kind.infers() {
            return Err(Error::usage(format!(
                "model.kind = {} does not give every token a probability from the tokens before it alone",
                model.kind
            )));
        }
        let inputs = Inputs::new(model, rows, positions, params.dtype, store);
        let mut latents = None;
        if model.kind.infers() {
            let options = FastOptions { seed, ..FastOptions::default() };
            let fast = Fast::new(model, &config.fast, params, &inputs, store, &options)?;
            let spec = store.get(fast.latents.z).spec();
            let at = [store.alloc(spec), store.alloc(spec)];
            let draw = Draw::new(&fast.latents, at, &inputs, seed, store)?;
            latents = Some((fast, draw));
        }
        let mut graph = Graph::new();
        let g = &mut graph;
        let places = Positions::new(model, rows, positions, store);
        let decoder = Decoder::new(model, params, &places, g, Phase::Update)?;
        let tokens = g.leaf("tokens", Phase::Batch, inputs.tokens);
        let z = latents.as_ref().map(|(_, draw)| g.leaf("z", Phase::Step, draw.z));
        let hidden = decoder.hidden(g, tokens, z, |g, _, qkv| decoder.window_attention(g, qkv))?;
        let body = Plan::new(&graph, store, &Request { keep: vec![hidden], ..Request::default() })?;
        let hidden = body.value(hidden);

        // In the type of the weights: rounded logits would change probabilities.
        let mut g = Graph::new();
        let table = params.iter().find(|p| p.name == "tok_embeddings").expect("every model has a table of tokens");
        let table = g.leaf("tok_embeddings", Phase::Update, table.id);
        let rows = store.alloc(Spec::new(params.dtype, &[ROWS, model.dim]));
        let leaf = g.leaf("hidden", Phase::Step, rows);
        let logits = g.apply(Linear, &[leaf, table])?;
        let head = Plan::new(&g, store, &Request { keep: vec![logits], ..Request::default() })?;
        let logits = head.value(logits);
        let (model, rate) = (model.clone(), config.fast.rate_end);
        Ok(Self { model, rate, draws, inputs, latents, body, hidden, head, rows, logits })
    }

    /// Predicts all places of some blocks, at most as many as were planned for; `each` gets the block's number, the place and
    /// what is known of its token.
    ///
    /// # Errors
    /// If a block does not fit the plan or has a token beyond the vocabulary, or a number is not finite.
    pub fn predict(
        &self,
        store: &mut Store,
        blocks: &[Block<'_>],
        each: impl FnMut(usize, usize, &Prediction),
    ) -> Result<()> {
        self.fit(store, blocks, |block| block.places.start)?;
        self.read(store, blocks, each)
    }

    /// Loads the blocks and fits their posteriors to the tokens before place `seen`.
    fn fit(&self, store: &mut Store, blocks: &[Block<'_>], seen: impl Fn(&Block<'_>) -> usize) -> Result<()> {
        let n = self.inputs.sequence;
        let mut batch = Batch::new(self.inputs.batch, n);
        batch.targets.fill(IGNORED);
        let fits = |block: &Block<'_>| {
            let Range { start, end } = block.places;
            (1..end).contains(&start) && end <= block.text.len() + 1 && end - 1 <= n
        };
        if blocks.len() > self.inputs.batch || !blocks.iter().all(fits) {
            return Err(Error::new(format!("blocks that do not fit {} rows of {n} positions", self.inputs.batch)));
        }
        for (row, block) in blocks.iter().enumerate() {
            let (seen, at) = (seen(block), row * n);
            for (i, &token) in block.text[..block.places.end - 1].iter().enumerate() {
                batch.tokens[at + i] = token.into();
            }
            for i in 1..seen {
                batch.targets[at + i - 1] = block.text[i].into();
            }
            batch.samples[row].id = key(block.seed, &block.text[..seen]);
        }
        self.inputs.load(store, &self.model, &batch)?;
        let Some((fast, _)) = &self.latents else { return Ok(()) };
        let nothing: Vec<bool> = blocks.iter().map(|block| seen(block) < 2).collect();
        if nothing.iter().any(|nothing| !nothing) {
            fast.fit(store, self.rate, 0, |_, _| ());
        }
        // Where nothing was seen, the posterior is the prior N(0, I).
        for id in [fast.latents.mu, fast.latents.logvar] {
            let mut values = store.get(id).read_f64()?;
            let one = values.len() / self.inputs.batch;
            for (row, _) in nothing.iter().enumerate().filter(|(_, nothing)| **nothing) {
                values[row * one..][..one].fill(0.0);
            }
            store.get_mut(id).set_f64(&values);
        }
        Ok(())
    }

    /// Predicts the places of the blocks that were loaded, by draws from their posteriors.
    fn read(
        &self,
        store: &mut Store,
        blocks: &[Block<'_>],
        mut each: impl FnMut(usize, usize, &Prediction),
    ) -> Result<()> {
        let (n, d) = (self.inputs.sequence, self.model.dim);
        let draws = if self.latents.is_some() { self.draws } else { 1 };
        // What predicts each place of each block, `[places, d]`, by draw.
        let mut hidden = vec![Vec::new(); draws];
        self.body.run(store, Phase::Update);
        self.body.run(store, Phase::Batch);
        for (number, hidden) in hidden.iter_mut().enumerate() {
            if let Some((_, draw)) = &self.latents {
                draw.run(store, number as u32)?;
            }
            self.body.run(store, Phase::Step);
            let all = store.get(self.hidden).read_f64()?;
            *hidden = blocks
                .iter()
                .enumerate()
                .map(|(row, block)| {
                    let Range { start, end } = block.places;
                    all[(row * n + start - 1) * d..(row * n + end - 1) * d].to_vec()
                })
                .collect::<Vec<_>>();
        }
        self.head.run(store, Phase::Update);
        self.head.run(store, Phase::Batch);
        let mut input = vec![0.0; ROWS * d];
        for (row, block) in blocks.iter().enumerate() {
            let mut log_weights = vec![-(draws as f64).ln(); draws];
            let (mut place, mut known) = (block.places.start, Vec::new());
            let asked: Vec<(usize, usize)> =
                (0..block.places.len()).flat_map(|at| (0..draws).map(move |draw| (at, draw))).collect();
            for asked in asked.chunks(ROWS) {
                for (input, &(at, draw)) in input.chunks_mut(d).zip(asked) {
                    input.copy_from_slice(&hidden[draw][row][at * d..][..d]);
                }
                store.get_mut(self.rows).set_f64(&input);
                self.head.run(store, Phase::Step);
                let logits = store.get(self.logits).read_f64()?;
                let vocab = logits.len() / ROWS;
                known.extend_from_slice(&logits[..asked.len() * vocab]);
                while known.len() >= draws * vocab {
                    let later = known.split_off(draws * vocab);
                    let prediction = Prediction::new(log_weights, std::mem::replace(&mut known, later));
                    if prediction.lse.iter().any(|lse| !lse.is_finite()) {
                        return Err(Error::new(
                            "a logit is not finite: training has diverged, or the weights are damaged",
                        ));
                    }
                    each(row, place, &prediction);
                    log_weights = match block.text.get(place) {
                        Some(&token) if place + 1 < block.places.end => prediction.after(token),
                        _ => prediction.log_weights,
                    };
                    place += 1;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
