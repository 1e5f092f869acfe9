use crate::config::ModelConfig;
use crate::model::{Decoder, Params, Positions};
use autograd::{Graph, Id, Phase, Plan, Request, Store};
use engine::{Buffer, Result, Spec};
use kernels::matmul::Linear;
use kernels::ring_attention::{RingAttention, RingWrite};

/// The decoder, one token at a time: cross-attention keys and values of z are computed once, self-attention reads a ring of
/// the last k − 1 positions per layer.
#[derive(Debug)]
pub struct Walk {
    plan: Plan,
    token: Id,
    position: Id,
    logits: Id,
    next: i32,
}

impl Walk {
    /// Plans the walk at latents `z`, a buffer `[1, L·K, d]`, if the model infers them.
    pub fn new(config: &ModelConfig, params: &Params, z: Option<Id>, store: &mut Store) -> Result<Self> {
        let mut g = Graph::new();
        let positions = Positions::new(config, 1, 1, store);
        let position = positions.tokens;
        let decoder = Decoder::new(config, params, &positions, &mut g, Phase::Step)?;
        let token = store.insert(Buffer::from_slice(&[1, 1], &[0i32]));
        let tokens = g.leaf("token", Phase::Step, token);
        let at = g.leaf("position", Phase::Step, position);
        let z = z.map(|z| g.leaf("z", Phase::Batch, z));
        let width = (config.window - 1).max(1);
        let ring_spec = Spec::new(params.compute, &[1, width, 2 * config.dim]);
        let rings: Vec<Id> = (0..config.layers).map(|_| store.alloc(ring_spec)).collect();
        let attention = RingAttention { heads: config.heads, window: config.window };
        let mut fresh = Vec::new();
        let hidden = decoder.hidden(&mut g, tokens, z, |g, l, qkv| {
            fresh.push(qkv);
            let ring = g.leaf(format!("layers.{l}.ring"), Phase::Step, rings[l]);
            g.apply(attention, &[qkv, ring, at])
        })?;
        let logits = g.apply(Linear, &[hidden, decoder.weight("tok_embeddings")])?;
        let keep = fresh.iter().copied().chain([logits]).collect();
        let mut plan = Plan::new(&g, store, &Request { keep, ..Request::default() })?;
        for (l, (&qkv, &ring)) in fresh.iter().zip(&rings).enumerate() {
            let (qkv, scope) = (plan.value(qkv), format!("layers.{l}"));
            plan.push_update(store, Phase::Step, &scope, RingWrite, &[qkv, position], &[ring]);
        }
        let logits = plan.value(logits);
        Ok(Self { plan, token, position, logits, next: 0 })
    }

    /// Restarts at the current z.
    pub fn begin(&mut self, store: &mut Store) {
        self.next = 0;
        self.plan.run(store, Phase::Update);
        self.plan.run(store, Phase::Batch);
    }

    /// Reads one token and returns the logits `[V]` of the next.
    pub fn step(&mut self, store: &mut Store, token: u16) -> Result<Vec<f64>> {
        store.get_mut(self.token).write(&[i32::from(token)]);
        store.get_mut(self.position).write(&[self.next]);
        self.next += 1;
        self.plan.run(store, Phase::Step);
        store.get(self.logits).read_f64()
    }
}
