//! The network of masked diffusion (Sahoo et al., arXiv 2406.07524; Lou et al., arXiv 2310.16834; Shi et al., arXiv 2406.04329): the
//! decoder of the baseline `ar` with attention in both directions. It reads texts in which a mask hides some tokens, and predicts
//! each of these. It may be told the time, which then modulates every layer (Peebles and Xie, arXiv 2212.09748).
//!
//! The mask's id is V, the one after all tokens. It has a row of the embedding, but no logit.

use crate::config::ModelConfig;
use crate::model::{Decoder, Params, Positions};
use autograd::{Graph, Id, Phase, Store, Value};
use engine::{DType, Error, Result, Shape, Spec};
use kernels::cross_entropy::LmHead;
use kernels::embedding::Embedding;
use kernels::matmul::Linear;
use kernels::reshape::Reshape;
use kernels::self_attention::{Sees, SelfAttention};
use kernels::slice::Slice;

/// How a denoiser is told the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEmbedding {
    /// Cosines and sines F of the time, even.
    pub frequencies: usize,
    /// Width C of the vector that modulates the layers.
    pub width: usize,
}

impl TimeEmbedding {
    /// That of a model of width d: F = 256, and C = 128 from d = 512 on. A narrower model has C = d/4; with 128, modulation
    /// alone would have more weights than an LTM's cross-attention, so models of equal size could not be compared.
    pub fn of(dim: usize) -> Self {
        Self { frequencies: 256, width: (dim / 4).clamp(1, 128) }
    }

    /// The cosines, then the sines, of τ·10000^(−k/(F/2)), k = 0, 1, … below F/2.
    pub fn features(self, tau: f64) -> Vec<f64> {
        let half = self.frequencies / 2;
        let angles = (0..half).map(|k| tau * 10_000f64.powf(-(k as f64) / half as f64));
        angles.clone().map(f64::cos).chain(angles.map(f64::sin)).collect()
    }
}

/// Hidden size of a denoiser's feed-forward part: `model.ffn`; if that is 0, so large that the denoiser has no fewer weights than an
/// LTM of the same width and depth, as the baseline `ar` does.
pub fn ffn_hidden(config: &ModelConfig, time: Option<TimeEmbedding>) -> usize {
    let (Some(TimeEmbedding { frequencies: f, width: c }), 0) = (time, config.ffn) else { return config.ffn_hidden() };
    let (d, layers) = (config.dim, config.layers);
    // In place of the four matrices and the norm of cross-attention: the mask's row, modulations and the map from the time.
    let others = layers * 6 * d * (c + 1) + 2 * d * (c + 1) + f * c + c * c + 2 * c + d;
    let instead = layers * (4 * d * d + d);
    let (usual, row) = ((8 * d / 3).next_multiple_of(32), 3 * d * layers);
    if instead > others {
        usual + (instead - others).div_ceil(row)
    } else {
        (usual - usual.min((others - instead) / row)).max(1)
    }
}

/// A text with masks.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedText {
    /// At most N ids, V for a mask. The rest of the row is padding.
    pub ids: Vec<i32>,
    /// The token of every position, −1 where none is to be predicted.
    pub targets: Vec<i32>,
    /// The factor of the cost of each of its predictions.
    pub weight: f64,
    /// What the denoiser is told of the time.
    pub tau: f64,
}

/// The buffers of a batch in the store.
#[derive(Clone, Copy, Debug)]
pub struct MaskedTexts {
    /// `[B, N]` i32.
    ids: Id,
    /// `[B]` i32.
    lengths: Id,
    /// `[B, N]` i32.
    targets: Id,
    /// `[B, N]`.
    weights: Id,
    /// `[B, F]`, if the denoiser is told the time.
    features: Option<(TimeEmbedding, Id)>,
    /// When they change.
    phase: Phase,
    batch: usize,
    sequence: usize,
    vocab: usize,
}

impl MaskedTexts {
    /// Allocates buffers for `batch` texts of at most `sequence` tokens.
    pub fn new(
        config: &ModelConfig,
        time: Option<TimeEmbedding>,
        [batch, sequence]: [usize; 2],
        float: DType,
        store: &mut Store,
    ) -> Self {
        let grid = Spec::new(DType::I32, &[batch, sequence]);
        Self {
            ids: store.alloc(grid),
            lengths: store.alloc(Spec::new(DType::I32, &[batch])),
            targets: store.alloc(grid),
            weights: store.alloc(Spec::new(float, &[batch, sequence])),
            features: time.map(|time| (time, store.alloc(Spec::new(float, &[batch, time.frequencies])))),
            phase: Phase::Step,
            batch,
            sequence,
            vocab: config.vocab,
        }
    }

    /// The same buffers for a network that reads them once in a batch of steps.
    #[must_use]
    pub fn once_per_batch(self) -> Self {
        Self { phase: Phase::Batch, ..self }
    }

    /// Loads a batch.
    ///
    /// # Errors
    /// If it has the wrong size or an id beyond the vocabulary.
    pub fn load(&self, store: &mut Store, texts: &[MaskedText]) -> Result<()> {
        let (n, mask) = (self.sequence, self.vocab as i32);
        if texts.len() != self.batch {
            return Err(Error::new(format!("a batch of {} texts, must be {}", texts.len(), self.batch)));
        }
        let mut ids = vec![0; self.batch * n];
        let mut targets = vec![-1; self.batch * n];
        let mut weights = vec![0.0; self.batch * n];
        for (row, text) in texts.iter().enumerate() {
            let (length, at) = (text.ids.len(), row * n);
            if length > n || text.targets.len() != length {
                let counts = format!("{length} ids and {} targets", text.targets.len());
                return Err(Error::new(format!("a text of {counts}, must be as many of both, at most {n}")));
            }
            if let Some(id) = text.ids.iter().find(|&&id| !(0..=mask).contains(&id)) {
                return Err(Error::new(format!("token {id} is beyond the vocabulary of {mask} and its mask")));
            }
            if let Some(target) = text.targets.iter().find(|&&target| !(-1..mask).contains(&target)) {
                return Err(Error::new(format!("target {target} is beyond the vocabulary of {mask}")));
            }
            ids[at..at + length].copy_from_slice(&text.ids);
            targets[at..at + length].copy_from_slice(&text.targets);
            weights[at..at + length].fill(text.weight);
        }
        let lengths: Vec<i32> = texts.iter().map(|text| text.ids.len() as i32).collect();
        store.get_mut(self.ids).write(&ids);
        store.get_mut(self.lengths).write(&lengths);
        store.get_mut(self.targets).write(&targets);
        store.get_mut(self.weights).set_f64(&weights);
        if let Some((time, id)) = self.features {
            let features: Vec<f64> = texts.iter().flat_map(|text| time.features(text.tau)).collect();
            store.get_mut(id).set_f64(&features);
        }
        Ok(())
    }
}

/// The recorded network, to which a loss or logits can be added. Without [`MaskedTexts::once_per_batch`], everything but the weights
/// changes at every step.
#[derive(Debug)]
pub struct Denoiser {
    /// The record.
    pub graph: Graph,
    /// The leaves of all parameters, in order.
    pub weights: Vec<Value>,
    /// `[B, N, d]`, after the final norm.
    pub hidden: Value,
    /// The rows of the embedding that have a logit, `[V, d]`.
    table: Value,
    texts: MaskedTexts,
}

/// The costs of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// The sum of weight times cost over all predictions.
    pub loss: Value,
    /// −log p of the target, `[B, N]`, 0 where none is predicted.
    pub nll: Value,
    /// The logarithm of the sum over the vocabulary of exponentials of logits, `[B, N]`, 0 where none is predicted.
    pub lse: Value,
}

impl Denoiser {
    /// Records the network for the batch in `texts`, with parameters from [`Params::denoiser`] and a configuration that reads no
    /// latents. Its window is not used.
    pub fn record(config: &ModelConfig, params: &Params, texts: &MaskedTexts, store: &mut Store) -> Result<Self> {
        let mut graph = Graph::new();
        let g = &mut graph;
        let positions = Positions::new(config, texts.batch, texts.sequence, store);
        let mut decoder = Decoder::new(config, params, &positions, g, Phase::Update)?;
        let ids = g.leaf("ids", texts.phase, texts.ids);
        let lengths = g.leaf("lengths", texts.phase, texts.lengths);
        if let Some((_, features)) = texts.features {
            let features = g.leaf("features", texts.phase, features);
            decoder.tell(g, features)?;
        }
        let attention = SelfAttention { heads: config.heads, sees: Sees::Text };
        let hidden = decoder.hidden(g, ids, None, |g, _, qkv| g.apply(attention, &[qkv, lengths]))?;
        let rows = Slice { axis: 0, start: 0, len: config.vocab };
        let table = g.apply(rows, &[decoder.weight("tok_embeddings")])?;
        let weights = decoder.leaves.clone();
        Ok(Self { graph, weights, hidden, table, texts: *texts })
    }

    /// The logits of all positions, `[B, N, V]`.
    pub fn logits(&mut self) -> Result<Value> {
        self.graph.apply(Linear, &[self.hidden, self.table])
    }

    /// The logits `[R, V]` of the positions `rows` of all texts together, `[R]` i32, which change at every step.
    pub fn logits_of(&mut self, rows: Id) -> Result<Value> {
        let (g, MaskedTexts { batch, sequence, .. }) = (&mut self.graph, self.texts);
        let width = g.spec(self.hidden).shape.last();
        let hidden = g.apply(Reshape(Shape::new(&[batch * sequence, width])), &[self.hidden])?;
        let rows = g.leaf("rows", Phase::Step, rows);
        let hidden = g.apply(Embedding, &[hidden, rows])?;
        g.apply(Linear, &[hidden, self.table])
    }

    /// The costs of the predictions: with the score entropy for SEDD, else with the cross-entropy.
    pub fn costs(&mut self, head: LmHead) -> Result<Costs> {
        let g = &mut self.graph;
        let targets = g.leaf("targets", Phase::Step, self.texts.targets);
        let weights = g.leaf("weights", Phase::Step, self.texts.weights);
        let loss = g.apply(head, &[self.hidden, self.table, targets, weights])?;
        Ok(Costs { loss, nll: g.output(loss, "nll"), lse: g.output(loss, "lse") })
    }
}

#[cfg(test)]
mod tests;
