//! The decoder's parameters: fused for the matrix products, and named and split on disk as in the reference code.

use crate::config::{ModelConfig, ModelKind};
use crate::model::denoiser::{TimeEmbedding, ffn_hidden};
use crate::safetensors::SafeTensors;
use autograd::{Id, Store};
use engine::rng::Stream;
use engine::{DType, Error, Result, Spec};

/// One parameter: a matrix `[out, in]` whose row blocks may be several tensors on disk, or a vector of gains.
#[derive(Clone, Debug)]
pub struct Param {
    /// Name in plans and errors.
    pub name: String,
    /// Its buffer.
    pub id: Id,
    /// Type and shape.
    pub spec: Spec,
    /// Tensors on disk, top to bottom, with their rows.
    parts: Vec<(String, usize)>,
    init: Init,
}

/// Initial values.
#[derive(Clone, Copy, Debug)]
enum Init {
    /// Normal with this standard deviation.
    Normal(f64),
    /// All the same.
    Constant(f64),
}

impl Param {
    /// Whether it is a matrix, not a vector of gains or biases.
    pub fn is_matrix(&self) -> bool {
        self.spec.shape.rank() == 2
    }

    /// Whether it is a matrix of a layer, not an embedding, learned latents, or the map from the time to a layer's modulation.
    pub fn is_hidden(&self) -> bool {
        self.is_matrix() && self.name.starts_with("layers.") && !self.name.ends_with(".modulation.weight")
    }

    /// Whether weight decay applies: to matrices, except learned latents, which stand for draws from N(0, I) and would
    /// leave that scale.
    pub fn decays(&self) -> bool {
        self.is_matrix() && self.name != LATENTS
    }

    /// The tensors on disk that form the parameter, top to bottom.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let cols = if self.is_matrix() { self.spec.shape.last() } else { 1 };
        let mut start = 0;
        self.parts.iter().map(move |(name, rows)| {
            let range = start..start + rows * cols;
            start = range.end;
            let shape = if self.is_matrix() { vec![*rows, cols] } else { vec![*rows] };
            Part { name, shape, range }
        })
    }
}

/// A tensor on disk: a block of rows of a parameter.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Name on disk.
    pub name: &'a str,
    /// Sizes on disk.
    pub shape: Vec<usize>,
    /// The parameter's elements that it holds.
    pub range: std::ops::Range<usize>,
}

/// All parameters of a decoder, in the order in which the model uses them; the embedding, tied with the output, is first.
#[derive(Clone, Debug)]
pub struct Params {
    list: Vec<Param>,
    /// Element type of all parameters and latents.
    pub dtype: DType,
    /// Element type of the activations.
    pub compute: DType,
}

/// The name of learned latents `[L·K, d]`.
pub(super) const LATENTS: &str = "latents";

/// A matrix keeps the scale of its inputs (LeCun et al., "Efficient BackProp", 1998).
fn matrix_std(inputs: usize) -> f64 {
    1.0 / (inputs as f64).sqrt()
}

/// The 2L sums into the residual stream together have the scale of one (Radford et al., "Language models are unsupervised
/// multitask learners", 2019).
fn onto_residual_std(inputs: usize, config: &ModelConfig) -> f64 {
    matrix_std(inputs) / (2.0 * config.layers as f64).sqrt()
}

/// Tokens must stand out against what the layers, and above all the latents' noise, add to them: with 0.02, repeated facts
/// cost a model that is given them 1.8 nats, with this 1.2 (at d = 64, see docs/recipe.md).
fn embedding_std(dim: usize) -> f64 {
    2.0 / (dim as f64).sqrt()
}

/// As in the public code of diffusion transformers.
const TIME_STD: f64 = 0.02;

/// Random-number site of the first parameter tensor; the others follow.
const SITE: u32 = 0x1000;

impl Params {
    /// Allocates the parameters of a model.
    pub fn new(config: &ModelConfig, dtype: DType, store: &mut Store) -> Self {
        if let Some(method) = config.kind.method() {
            return Self::denoiser(config, method.told.embedding(config.dim), dtype, store);
        }
        let mut params = Self { list: Vec::new(), dtype, compute: dtype };
        if let Some(positions) = config.positions() {
            params.push_gpt2(config, positions, store);
            return params;
        }
        params.push_decoder(config, config.vocab, config.ffn_hidden(), store);
        // At the end, so that all other weights begin with the bits of a model that infers its latents.
        if config.kind == ModelKind::ArLatent {
            params.matrix(store, LATENTS, config.dim, &[(LATENTS, config.latent_count())], 1.0);
        }
        params
    }

    /// Allocates the parameters of a [`Denoiser`](super::Denoiser): those of the baseline `ar`, a row of the embedding for the mask,
    /// and what modulates the layers if it is told the time.
    pub fn denoiser(config: &ModelConfig, time: Option<TimeEmbedding>, dtype: DType, store: &mut Store) -> Self {
        let mut params = Self { list: Vec::new(), dtype, compute: dtype };
        params.push_decoder(config, config.vocab + 1, ffn_hidden(config, time), store);
        // At the end, so that all other weights begin with the bits of a model that is told nothing.
        if let Some(time) = time {
            params.push_modulation(config, time, store);
        }
        params
    }

    /// The decoder's, with `ids` rows of the embedding and `f` hidden numbers in the feed-forward part.
    fn push_decoder(&mut self, config: &ModelConfig, ids: usize, f: usize, store: &mut Store) {
        let d = config.dim;
        self.matrix(store, "tok_embeddings", d, &[("tok_embeddings.weight", ids)], embedding_std(d));
        let (std, out_std) = (matrix_std(d), onto_residual_std(d, config));
        for l in 0..config.layers {
            let p = |name: &str| format!("layers.{l}.{name}");
            let w = |name: &str| format!("layers.{l}.{name}.weight");
            self.gain(store, &w("attention_norm"), d);
            let (q, k, v) = (w("attention.wq"), w("attention.wk"), w("attention.wv"));
            self.matrix(store, &p("attention.wqkv"), d, &[(&q, d), (&k, d), (&v, d)], std);
            self.matrix(store, &p("attention.wo"), d, &[(&w("attention.wo"), d)], out_std);
            if config.kind.reads_latents() {
                self.gain(store, &w("cross_attention_norm"), d);
                self.matrix(store, &p("cross_attention.wq"), d, &[(&w("cross_attention.wq"), d)], std);
                let (k, v) = (w("cross_attention.wk"), w("cross_attention.wv"));
                self.matrix(store, &p("cross_attention.wkv"), d, &[(&k, d), (&v, d)], std);
                self.matrix(store, &p("cross_attention.wo"), d, &[(&w("cross_attention.wo"), d)], out_std);
            }
            self.gain(store, &w("ffn_norm"), d);
            let (w1, w3) = (w("feed_forward.w1"), w("feed_forward.w3"));
            self.matrix(store, &p("feed_forward.w13"), d, &[(&w1, f), (&w3, f)], std);
            self.matrix(store, &p("feed_forward.w2"), f, &[(&w("feed_forward.w2"), d)], onto_residual_std(f, config));
        }
        self.gain(store, "norm.weight", d);
    }

    /// The map from the time to c [B, C], and those from c to shifts, scales and gates. These begin as zeros, so that at first every
    /// layer is the identity (Peebles and Xie, arXiv 2212.09748).
    fn push_modulation(&mut self, config: &ModelConfig, time: TimeEmbedding, store: &mut Store) {
        let TimeEmbedding { frequencies, width } = time;
        let mut linear = |name: &str, outputs, inputs, init| {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            self.push(store, &weight, &[outputs, inputs], &[(&weight, outputs)], init);
            self.push(store, &bias, &[outputs], &[(&bias, outputs)], Init::Constant(0.0));
        };
        linear("time_embedding.w1", width, frequencies, Init::Normal(TIME_STD));
        linear("time_embedding.w2", width, width, Init::Normal(TIME_STD));
        for l in 0..config.layers {
            linear(&format!("layers.{l}.modulation"), 6 * config.dim, width, Init::Constant(0.0));
        }
        linear("final_modulation", 2 * config.dim, width, Init::Constant(0.0));
    }

    /// GPT-2's: learned positions, and a bias for every product and norm.
    fn push_gpt2(&mut self, config: &ModelConfig, positions: usize, store: &mut Store) {
        let (d, f) = (config.dim, config.ffn_hidden());
        self.matrix(store, "tok_embeddings", d, &[("tok_embeddings.weight", config.vocab)], embedding_std(d));
        self.matrix(store, "pos_embeddings", d, &[("pos_embeddings.weight", positions)], 0.5 * embedding_std(d));
        for l in 0..config.layers {
            let p = |name: &str| format!("layers.{l}.{name}");
            let mut linear = |name: &str, outputs, inputs, std| {
                let (weight, bias) = (p(&format!("{name}.weight")), p(&format!("{name}.bias")));
                self.matrix(store, &weight, inputs, &[(&weight, outputs)], std);
                self.push(store, &bias, &[outputs], &[(&bias, outputs)], Init::Constant(0.0));
            };
            linear("attention.wqkv", 3 * d, d, matrix_std(d));
            linear("attention.wo", d, d, onto_residual_std(d, config));
            linear("feed_forward.w1", f, d, matrix_std(d));
            linear("feed_forward.w2", d, f, onto_residual_std(f, config));
            self.norm(store, &p("attention_norm"), d);
            self.norm(store, &p("ffn_norm"), d);
        }
        self.norm(store, "norm", d);
    }

    /// Initial values under `seed`. Standard deviations follow the width: 1/√inputs for matrices, this by 1/√(2L) for those
    /// that write into the residual stream, 2/√d for the embedding, half of it for learned positions, 1 for learned latents,
    /// 0.02 for the map from the time; gains one, biases and modulations zero.
    pub fn init(&self, store: &mut Store, seed: u64) {
        let mut site = SITE;
        for p in &self.list {
            let mut values = vec![0.0; p.spec.shape.numel()];
            for part in p.parts() {
                match p.init {
                    Init::Normal(std) => Stream::new(seed, site).fill_normal(0, &mut values[part.range], |x| std * x),
                    Init::Constant(value) => values[part.range].fill(value),
                }
                site += 1;
            }
            store.get_mut(p.id).set_f64(&values);
        }
    }

    /// The parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.list.iter()
    }

    /// The parameter called `name`.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, name: &str) -> &Param {
        self.list.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("no parameter {name}"))
    }

    /// The same parameters in other buffers, e.g. their moments, without those that have none.
    #[must_use]
    pub fn with_ids(&self, ids: impl IntoIterator<Item = Option<Id>>) -> Self {
        let list = self.list.iter().zip(ids).filter_map(|(p, id)| Some(Param { id: id?, ..p.clone() })).collect();
        Self { list, ..*self }
    }

    /// The same parameters in a decoder that computes with activations of type `compute`, see
    /// [`Decoder`](super::Decoder).
    #[must_use]
    pub fn computed_in(self, compute: DType) -> Self {
        Self { compute, ..self }
    }

    /// Number of scalars.
    pub fn count(&self) -> usize {
        self.list.iter().map(|p| p.spec.shape.numel()).sum()
    }

    /// Reads the parameters from the tensors of a file whose names begin with `prefix`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, or if a tensor with the prefix is left over.
    pub fn load(&self, store: &mut Store, file: &SafeTensors, prefix: &str) -> Result<()> {
        let mut known = 0;
        for p in &self.list {
            let mut values = Vec::with_capacity(p.spec.shape.numel());
            for part in p.parts() {
                let name = format!("{prefix}{}", part.name);
                file.expect_shape(&name, &part.shape)?;
                values.extend(file.get_f64(&name)?);
                known += 1;
            }
            store.get_mut(p.id).set_f64(&values);
        }
        let names = file.names().iter().filter(|n| n.starts_with(prefix)).count();
        if names != known {
            return Err(Error::new(format!(
                "{names} tensors, but the configuration has {known}: the file is of another model"
            )));
        }
        Ok(())
    }

    fn matrix(&mut self, store: &mut Store, name: &str, cols: usize, parts: &[(&str, usize)], std: f64) {
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        self.push(store, name, &[rows, cols], parts, Init::Normal(std));
    }

    fn gain(&mut self, store: &mut Store, name: &str, dim: usize) {
        self.push(store, name, &[dim], &[(name, dim)], Init::Constant(1.0));
    }

    /// Gain and bias of a layer norm.
    fn norm(&mut self, store: &mut Store, name: &str, dim: usize) {
        self.gain(store, &format!("{name}.weight"), dim);
        let bias = format!("{name}.bias");
        self.push(store, &bias, &[dim], &[(&bias, dim)], Init::Constant(0.0));
    }

    fn push(&mut self, store: &mut Store, name: &str, dims: &[usize], parts: &[(&str, usize)], init: Init) {
        let spec = Spec::new(self.dtype, dims);
        let id = store.alloc(spec);
        let parts = parts.iter().map(|(name, rows)| (name.to_string(), *rows)).collect();
        self.list.push(Param { name: name.into(), id, spec, parts, init });
    }
}
