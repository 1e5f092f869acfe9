use crate::config::{ModelConfig, ModelKind};
use crate::model::Params;
use crate::model::params::LATENTS;
use autograd::{Graph, Id, Phase, Store, Value};
use engine::{Buffer, DType, Result};
use kernels::cast::Cast;
use kernels::cross_attention::CrossAttention;
use kernels::elementwise::Elementwise;
use kernels::embedding::Embedding;
use kernels::layernorm::LayerNorm;
use kernels::matmul::{Linear, LinearResidual};
use kernels::modulate::Modulate;
use kernels::rmsnorm::RmsNorm;
use kernels::rope::{Rope, RopeTable};
use kernels::self_attention::{Sees, SelfAttention};
use kernels::slice::Slice;
use kernels::swiglu::SwiGlu;

/// Positions of tokens and latents, as constants of the store.
#[derive(Clone, Copy, Debug)]
pub struct Positions {
    /// `[N]`: 0, 1, 2, …; token-by-token generation changes it.
    pub tokens: Id,
    /// `[K]`: latent j of every layer sits at j·⌊N_max / N_z⌋, N_z = L·K.
    latents: Id,
    /// `[B, N_z]`: 0, 1, 2, … in every row, which repeats learned latents, if there are any, for every sample.
    shared: Option<Id>,
}

impl Positions {
    /// Positions for `batch` samples of `tokens` tokens of the model.
    pub fn new(config: &ModelConfig, batch: usize, tokens: usize, store: &mut Store) -> Self {
        let ids = |n: usize, stride: usize| -> Vec<i32> { (0..n).map(|i| (i * stride) as i32).collect() };
        let stride = config.longest() / (config.layers * config.latents).max(1);
        let shared = (config.kind == ModelKind::ArLatent).then(|| {
            let count = config.latent_count();
            store.insert(Buffer::from_slice(&[batch, count], &ids(count, 1).repeat(batch)))
        });
        Self {
            tokens: store.insert(Buffer::from_slice(&[tokens], &ids(tokens, 1))),
            latents: store.insert(Buffer::from_slice(&[config.latents], &ids(config.latents, stride))),
            shared,
        }
    }
}

/// Records the decoder. The formulas are next to the ops.
///
/// If activations have another type than the parameters (bf16 with f32 master weights), a `cast` follows every weight,
/// which runs once per weight update, and a `cast` follows z, which runs at every step. Gradients pass back through the
/// casts, so that weights and latents get gradients of their own type. Rotation tables, statistics and losses stay in
/// f32.
pub struct Decoder<'a> {
    config: &'a ModelConfig,
    params: &'a Params,
    /// The leaves of all parameters, in order.
    pub leaves: Vec<Value>,
    /// The same in the type of the activations.
    weights: Vec<Value>,
    places: Places,
    /// Learned latents for every sample, if the model has them.
    constant: Option<Value>,
    /// c [B, C], if the model is told the time.
    time: Option<Value>,
}

/// The position encoding.
enum Places {
    /// Rotations of queries and keys, and of the latents' keys if there are latents.
    Rotary { tokens: Value, latents: Option<Value> },
    /// Indices of the vectors added to the embedding.
    Learned(Value),
}

impl<'a> Decoder<'a> {
    /// Adds the parameters and the rotation tables to `graph`. Token positions change as often as `phase` says.
    pub fn new(
        config: &'a ModelConfig,
        params: &'a Params,
        positions: &Positions,
        graph: &mut Graph,
        phase: Phase,
    ) -> Result<Self> {
        let leaves: Vec<Value> = params.iter().map(|p| graph.leaf(p.name.as_str(), Phase::Update, p.id)).collect();
        graph.scope("weights");
        let weights = leaves.iter().map(|&leaf| cast(graph, leaf, params.compute)).collect::<Result<_>>()?;
        let tokens = graph.leaf("positions", phase, positions.tokens);
        if config.positions().is_some() {
            return Ok(Self {
                config,
                params,
                leaves,
                weights,
                places: Places::Learned(tokens),
                constant: None,
                time: None,
            });
        }
        let table = RopeTable { head_dim: config.dim / config.heads, theta: config.rope_theta, dtype: params.dtype };
        graph.scope("positions");
        let rope = graph.apply(table, &[tokens])?;
        let mut latents = None;
        if config.kind.reads_latents() {
            let leaf = graph.leaf("latent_positions", Phase::Update, positions.latents);
            latents = Some(graph.apply(table, &[leaf])?);
        }
        let places = Places::Rotary { tokens: rope, latents };
        let mut decoder = Self { config, params, leaves, weights, places, constant: None, time: None };
        if let Some(rows) = positions.shared {
            graph.scope("latents");
            let rows = graph.leaf("latent_rows", Phase::Update, rows);
            decoder.constant = Some(graph.apply(Embedding, &[decoder.weight(LATENTS), rows])?);
        }
        Ok(decoder)
    }

    /// Parameter `name` in the type of the activations.
    ///
    /// # Panics
    /// If there is none.
    pub fn weight(&self, name: &str) -> Value {
        let i = self.params.iter().position(|p| p.name == name).unwrap_or_else(|| panic!("no parameter {name}"));
        self.weights[i]
    }

    /// Tells the layers the time of every sample, by `features` [B, F]: c = silu(T2 · silu(T1 e + b1) + b2).
    pub fn tell(&mut self, g: &mut Graph, features: Value) -> Result<()> {
        g.scope("time");
        let mut c = cast(g, features, self.params.compute)?;
        for name in ["time_embedding.w1", "time_embedding.w2"] {
            c = self.biased(g, c, name)?;
            c = g.apply(Elementwise::Silu, &[c])?;
        }
        self.time = Some(c);
        Ok(())
    }

    /// W x + b
    fn biased(&self, g: &mut Graph, x: Value, name: &str) -> Result<Value> {
        g.apply(LinearResidual, &[x, self.weight(&format!("{name}.weight")), self.weight(&format!("{name}.bias"))])
    }

    /// A c + a, cut into shifts, scales and gates [B, d]; none if the model is not told the time.
    fn modulation<const N: usize>(&self, g: &mut Graph, name: &str) -> Result<[Option<Value>; N]> {
        let mut parts = [None; N];
        if let Some(c) = self.time {
            let all = self.biased(g, c, name)?;
            let len = self.config.dim;
            for (i, part) in parts.iter_mut().enumerate() {
                *part = Some(g.apply(Slice { axis: 1, start: i * len, len }, &[all])?);
            }
        }
        Ok(parts)
    }

    /// rmsnorm(h, gain), with a modulation ⊙ (1 + scale) + shift.
    fn norm(&self, g: &mut Graph, h: Value, gain: Value, [shift, scale]: [Option<Value>; 2]) -> Result<Value> {
        let x = g.apply(RmsNorm { eps: self.config.norm_eps }, &[h, gain])?;
        match (shift, scale) {
            (Some(shift), Some(scale)) => g.apply(Modulate { base: 1.0 }, &[x, shift, scale]),
            _ => Ok(x),
        }
    }

    /// h + W x, with a gate h + gate ⊙ W x.
    fn onto(&self, g: &mut Graph, h: Value, weight: Value, x: Value, gate: Option<Value>) -> Result<Value> {
        let Some(gate) = gate else { return g.apply(LinearResidual, &[x, weight, h]) };
        let x = g.apply(Linear, &[x, weight])?;
        g.apply(Modulate { base: 0.0 }, &[x, h, gate])
    }

    /// tokens [B, N], z [B, L·K, d] → hidden [B, N, d], after the final norm. Without z and without learned latents there is
    /// no cross-attention.
    ///
    /// `attend(graph, layer, qkv)` computes self-attention from rotated queries, keys and values [B, N, 3d].
    ///
    /// # Panics
    /// If there is a z and the model takes none, or the other way round.
    pub fn hidden(
        &self,
        g: &mut Graph,
        tokens: Value,
        z: Option<Value>,
        mut attend: impl FnMut(&mut Graph, usize, Value) -> Result<Value>,
    ) -> Result<Value> {
        let c = self.config;
        assert_eq!(z.is_some(), c.kind.takes_latents(), "z must be given exactly for models that take it");
        let (rope, rope_latents) = match self.places {
            Places::Rotary { tokens, latents } => (tokens, latents),
            Places::Learned(places) => return self.gpt2(g, tokens, places, attend),
        };
        g.scope("latents");
        let z = z.map(|z| cast(g, z, self.params.compute)).transpose()?.or(self.constant);
        // h = E[x]
        g.scope("embedding");
        let mut h = g.apply(Embedding, &[self.weight("tok_embeddings"), tokens])?;
        for l in 0..c.layers {
            g.scope(format!("layers.{l}"));
            let w = |name: &str| self.weight(&format!("layers.{l}.{name}"));
            let [shift1, scale1, gate1, shift2, scale2, gate2] =
                self.modulation(g, &format!("layers.{l}.modulation"))?;
            // a = rmsnorm(h, g1);  h += Wo · window_attention(rope(Wq a), rope(Wk a), Wv a)
            let a = self.norm(g, h, w("attention_norm.weight"), [shift1, scale1])?;
            let qkv = g.apply(Linear, &[a, w("attention.wqkv")])?;
            let qkv = g.apply(Rope { heads: 3 * c.heads, rotated: 2 * c.heads }, &[qkv, rope])?;
            let y = attend(g, l, qkv)?;
            h = self.onto(g, h, w("attention.wo"), y, gate1)?;
            if let (Some(z), Some(rope_latents)) = (z, rope_latents) {
                // c = rmsnorm(h, g2);  h += Co · cross_attention(rope(Cq c), rope_z(Ck z_l), Cv z_l)
                let a = self.norm(g, h, w("cross_attention_norm.weight"), [None; 2])?;
                let q = g.apply(Linear, &[a, w("cross_attention.wq")])?;
                let q = g.apply(Rope { heads: c.heads, rotated: c.heads }, &[q, rope])?;
                let kv = self.latent_kv(g, l, z, rope_latents)?;
                let y = g.apply(CrossAttention { heads: c.heads }, &[q, kv])?;
                h = g.apply(LinearResidual, &[y, w("cross_attention.wo"), h])?;
            }
            // f = rmsnorm(h, g3);  h += W2 · (silu(W1 f) ⊙ (W3 f))
            let f = self.norm(g, h, w("ffn_norm.weight"), [shift2, scale2])?;
            let u = g.apply(Linear, &[f, w("feed_forward.w13")])?;
            let u = g.apply(SwiGlu, &[u])?;
            h = self.onto(g, h, w("feed_forward.w2"), u, gate2)?;
        }
        g.scope("head");
        let modulation = self.modulation(g, "final_modulation")?;
        self.norm(g, h, self.weight("norm.weight"), modulation)
    }

    /// Keys (rotated) and values of layer `l`'s latents: [B, K, 2d].
    fn latent_kv(&self, g: &mut Graph, l: usize, z: Value, rope: Value) -> Result<Value> {
        let c = self.config;
        let z = g.apply(Slice { axis: 1, start: l * c.latents, len: c.latents }, &[z])?;
        let kv = g.apply(Linear, &[z, self.weight(&format!("layers.{l}.cross_attention.wkv"))])?;
        g.apply(Rope { heads: 2 * c.heads, rotated: c.heads }, &[kv, rope])
    }

    /// GPT-2's decoder (Radford et al., "Language models are unsupervised multitask learners", 2019).
    fn gpt2(
        &self,
        g: &mut Graph,
        tokens: Value,
        places: Value,
        mut attend: impl FnMut(&mut Graph, usize, Value) -> Result<Value>,
    ) -> Result<Value> {
        let c = self.config;
        let norm = |g: &mut Graph, h: Value, name: &str| {
            let (gain, bias) = (self.weight(&format!("{name}.weight")), self.weight(&format!("{name}.bias")));
            g.apply(LayerNorm { eps: c.norm_eps }, &[h, gain, bias])
        };
        // h = E[x] + P[i]
        g.scope("embedding");
        let h = g.apply(Embedding, &[self.weight("tok_embeddings"), tokens])?;
        let place = g.apply(Embedding, &[self.weight("pos_embeddings"), places])?;
        let mut h = g.apply(Elementwise::Add, &[h, place])?;
        for l in 0..c.layers {
            let layer = format!("layers.{l}");
            g.scope(layer.as_str());
            let linear = |g: &mut Graph, x: Value, name: &str, onto: Option<Value>| {
                let [weight, bias] = ["weight", "bias"].map(|of| self.weight(&format!("{layer}.{name}.{of}")));
                let onto = onto.map_or(Ok(bias), |h| g.apply(Elementwise::Add, &[h, bias]))?;
                g.apply(LinearResidual, &[x, weight, onto])
            };
            // a = layernorm₁(h);  h += Wo · attention(Wq a + bq, Wk a + bk, Wv a + bv) + bo
            let a = norm(g, h, &format!("{layer}.attention_norm"))?;
            let qkv = linear(g, a, "attention.wqkv", None)?;
            let y = attend(g, l, qkv)?;
            h = linear(g, y, "attention.wo", Some(h))?;
            // f = layernorm₂(h);  h += W2 · gelu(W1 f + b1) + b2
            let f = norm(g, h, &format!("{layer}.ffn_norm"))?;
            let u = linear(g, f, "feed_forward.w1", None)?;
            let u = g.apply(Elementwise::Gelu, &[u])?;
            h = linear(g, u, "feed_forward.w2", Some(h))?;
        }
        g.scope("head");
        norm(g, h, "norm")
    }

    /// Self-attention over whole sequences: token i sees j in [i−k+1, i].
    pub fn window_attention(&self, g: &mut Graph, qkv: Value) -> Result<Value> {
        g.apply(SelfAttention { heads: self.config.heads, sees: Sees::Window(self.config.window) }, &[qkv])
    }
}

/// `x` in another type, or `x` itself if it has that type.
fn cast(g: &mut Graph, x: Value, to: DType) -> Result<Value> {
    if g.spec(x).dtype == to { Ok(x) } else { g.apply(Cast { to }, &[x]) }
}
