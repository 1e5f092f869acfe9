//! The probability of every token of a text given all tokens before it, also under a model that infers latents.
//!
//! The text is cut into blocks. For each block, S draws z₁ … z_S come from the posterior given the tokens before the block only. Token i
//! of the block then gets
//!
//! log p(xᵢ | x<ᵢ) = log Σₛ exp(−Σ_{k≤i} nllₛₖ) − log Σₛ exp(−Σ_{k<i} nllₛₖ), with sums over tokens k of the block.
//!
//! For given draws that is a mixture of S decoders, so the probabilities of all next tokens sum to one. Noise is keyed by the run's
//! seed and the tokens before the block, so that a result does not depend on the rest of the batch.
//! [`Protocol::Prefix`](super::Protocol::Prefix) is the sum over the second half of a text as one block.

use crate::config::{Config, ModelConfig};
use crate::data::Batch;
use crate::data::sources::IGNORED;
use crate::learn::{Draw, Fast, FastOptions, Inputs};
use crate::model::{Decoder, Params, Positions};
use autograd::{Graph, Id, Phase, Plan, Request, Store};
use engine::{Error, Result, Spec};
use kernels::matmul::Linear;
use rayon::prelude::*;
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

/// The number that keys the noise of latents inferred from `tokens`, as a sample's identity does elsewhere.
pub fn key(seed: u64, tokens: &[u16]) -> u32 {
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
        let lse = logits.par_chunks(vocab).map(|logits| log_sum_exp(logits.iter().copied())).collect();
        Self { log_weights, logits, lse }
    }

    /// The size of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.logits.len() / self.lse.len()
    }

    /// The number of draws, 1 if none are drawn.
    pub fn draws(&self) -> usize {
        self.lse.len()
    }

    /// The log-probability of a token, in nats.
    pub fn log_p(&self, token: u16) -> f64 {
        log_sum_exp(self.log_weights.iter().zip(self.by_draw(token)).map(|(weight, log_p)| weight + log_p))
    }

    /// The same under every draw alone.
    pub fn by_draw(&self, token: u16) -> impl Iterator<Item = f64> + Clone {
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

/// Infers latents from the tokens before a block, and draws them.
#[derive(Debug)]
struct Posterior {
    seen: Inputs,
    fast: Fast,
    draw: Draw,
}

/// Rows of the head's product: the logits of so many hidden vectors are computed at once.
const ROWS: usize = 32;

/// Predicts blocks, planned for batches of one size. The decoder runs once per draw, the head only where tokens are predicted.
#[derive(Debug)]
pub struct Mixture {
    model: ModelConfig,
    seed: u64,
    rate: f64,
    draws: usize,
    inputs: Inputs,
    /// `None` if no latents are inferred.
    latents: Option<Posterior>,
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
    /// Plans batches of `rows` blocks with `positions` positions, of which latents are inferred from at most `seen`, of the model with
    /// these parameters. A model that infers latents takes `config.fast.steps` steps and `draws` draws; others have a single
    /// prediction. Neither `rows` nor the positions change a bit.
    ///
    /// # Errors
    /// If the model does not predict the next token from the tokens before it.
    pub fn new(
        config: &Config,
        [rows, seen, positions]: [usize; 3],
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
            let seen = Inputs::new(model, rows, seen, params.dtype, store);
            let options = FastOptions { seed, ..FastOptions::default() };
            let fast = Fast::new(model, &config.fast, params, &seen, store, &options)?;
            let spec = store.get(fast.latents.z).spec();
            let at = [store.alloc(spec), store.alloc(spec)];
            let draw = Draw::new(&fast.latents, at, &seen, seed, store)?;
            latents = Some(Posterior { seen, fast, draw });
        }
        let mut graph = Graph::new();
        let g = &mut graph;
        let places = Positions::new(model, rows, positions, store);
        let decoder = Decoder::new(model, params, &places, g, Phase::Update)?;
        let tokens = g.leaf("tokens", Phase::Batch, inputs.tokens);
        let z = latents.as_ref().map(|latents| g.leaf("z", Phase::Step, latents.draw.z));
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
        Ok(Self { model, seed, rate, draws, inputs, latents, body, hidden, head, rows, logits })
    }

    /// The inference of latents, if there is one. After [`fit`](Self::fit) it has the posteriors of the blocks.
    pub(super) fn fast(&self) -> Option<&Fast> {
        self.latents.as_ref().map(|latents| &latents.fast)
    }

    /// Sets another number of fast steps.
    ///
    /// # Panics
    /// If they are more than it was planned for.
    pub fn take_steps(&mut self, steps: usize) {
        if let Some(latents) = &mut self.latents {
            latents.fast.take_steps(steps);
        }
    }

    /// The KL of every latent vector of the latest blocks' posteriors to the prior, in nats: for each block the first layer's first.
    /// Empty if no latents are inferred.
    ///
    /// # Errors
    /// Those of the device.
    pub fn kl_by_latent(&self, store: &Store) -> Result<Vec<Vec<f64>>> {
        self.fast().map_or(Ok(Vec::new()), |fast| fast.latents.kl_by_latent(store))
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
        self.read(store, blocks, each).map(drop)
    }

    /// Loads the blocks and fits their posteriors to the tokens before place `seen` of each.
    pub(super) fn fit(
        &self,
        store: &mut Store,
        blocks: &[Block<'_>],
        seen: impl Fn(&Block<'_>) -> usize,
    ) -> Result<()> {
        let (rows, n) = (self.inputs.batch, self.inputs.sequence);
        let most = self.latents.as_ref().map_or(n, |latents| latents.seen.sequence);
        let fits = |block: &Block<'_>| {
            let Range { start, end } = block.places;
            (1..end).contains(&start) && end <= block.text.len() + 1 && end - 1 <= n && seen(block) - 1 <= most
        };
        if blocks.len() > rows || !blocks.iter().all(fits) {
            return Err(Error::new(format!(
                "blocks that do not fit {rows} rows of {n} positions, {most} of them seen"
            )));
        }
        let mut batch = empty(rows, n);
        for (row, block) in blocks.iter().enumerate() {
            put(&mut batch.tokens[row * n..], &block.text[..block.places.end - 1]);
        }
        self.inputs.load(store, &self.model, &batch)?;

        let Some(Posterior { seen: inputs, fast, .. }) = &self.latents else { return Ok(()) };
        let mut batch = empty(rows, most);
        for (row, block) in blocks.iter().enumerate() {
            let text = &block.text[..seen(block)];
            put(&mut batch.tokens[row * most..], &text[..text.len() - 1]);
            put(&mut batch.targets[row * most..], &text[1..]);
            batch.samples[row].id = key(self.seed, text);
        }
        inputs.load(store, &self.model, &batch)?;
        if blocks.iter().any(|block| seen(block) > 1) {
            fast.fit(store, self.rate, 0, |_, _| ());
        }
        // A single token has predicted nothing: the posterior is the prior N(0, I).
        for id in [fast.latents.mu, fast.latents.logvar] {
            let mut values = store.get(id).read_f64()?;
            let each = values.len() / rows;
            for (row, _) in blocks.iter().enumerate().filter(|(_, block)| seen(block) == 1) {
                values[row * each..][..each].fill(0.0);
            }
            store.get_mut(id).set_f64(&values);
        }
        Ok(())
    }

    /// Predicts the places of the blocks that were loaded, by draws from their posteriors. Returns log q(z|x) − log p(z) of each draw
    /// for every row.
    pub(super) fn read(
        &self,
        store: &mut Store,
        blocks: &[Block<'_>],
        mut each: impl FnMut(usize, usize, &Prediction),
    ) -> Result<Vec<Vec<f64>>> {
        let (n, d) = (self.inputs.sequence, self.model.dim);
        let draws = if self.latents.is_some() { self.draws } else { 1 };
        // What predicts each place of each block, `[places, d]`, by draw.
        let (mut hidden, mut log_ratio) = (vec![Vec::new(); draws], Vec::new());
        self.body.run(store, Phase::Update);
        self.body.run(store, Phase::Batch);
        for (number, hidden) in hidden.iter_mut().enumerate() {
            if let Some(latents) = &self.latents {
                log_ratio.push(latents.draw.run(store, number as u32)?);
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
        Ok(log_ratio)
    }
}

/// A batch without tokens or targets.
fn empty(rows: usize, sequence: usize) -> Batch {
    let mut batch = Batch::new(rows, sequence);
    batch.targets.fill(IGNORED);
    batch
}

fn put(places: &mut [i32], tokens: &[u16]) {
    places.iter_mut().zip(tokens).for_each(|(place, &token)| *place = token.into());
}

#[cfg(test)]
mod tests;
