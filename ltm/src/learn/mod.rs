//! Dual-rate learning (Kong et al. 2025, Algorithm 1): fast gradient steps on a Gaussian posterior for the latents of
//! every text, and slow steps of the decoder at the final posterior.

mod denoise;
mod draw;
mod fast;
mod inputs;
mod score;
mod slow;
mod sum;

pub use denoise::{Foreteller, Masked, Reader};
pub use draw::Draw;
pub use fast::{Fast, FastOptions, Latents};
pub use inputs::Inputs;
pub use score::{Score, Scores};
pub use slow::Slow;
pub use sum::GradientSum;

use crate::config::{Config, ModelConfig, SlowGradient};
use crate::model::{Decoder, Params, Positions};
use autograd::{Graph, Id, Phase, Store, Value};
use engine::{DType, Result};
use kernels::cross_entropy::LmHead;

/// The decoder's loss, recorded for the fast loop, the slow step and the score.
struct Loss {
    graph: Graph,
    /// The inferred latents.
    z: Option<Value>,
    /// The sum over all targets that count.
    loss: Value,
    /// Of every token, `[B, N]`.
    nll: Value,
    /// The decoder's weights, in the parameters' order.
    weights: Vec<Value>,
}

impl Loss {
    /// Records the loss of the batch in `inputs` at latents `z`, a buffer `[B, L·K, d]`, if the model infers them. `scale`
    /// is the factor of the sum: its name, how often it changes, and its buffer.
    fn record(
        model: &ModelConfig,
        params: &Params,
        inputs: &Inputs,
        z: Option<Id>,
        scale: (&'static str, Phase, Id),
        store: &mut Store,
    ) -> Result<Self> {
        let mut graph = Graph::new();
        let g = &mut graph;
        let positions = Positions::new(model, inputs.batch, inputs.sequence, store);
        let decoder = Decoder::new(model, params, &positions, g, Phase::Update)?;
        let tokens = g.leaf("tokens", Phase::Batch, inputs.tokens);
        let targets = g.leaf("targets", Phase::Batch, inputs.targets);
        let (name, phase, id) = scale;
        let scale = g.leaf(name, phase, id);
        let told = inputs.told.map(|z| g.leaf("z", Phase::Batch, z));
        let z = z.map(|z| g.leaf("z", Phase::Step, z));
        let hidden = decoder.hidden(g, tokens, z.or(told), |g, _, qkv| decoder.window_attention(g, qkv))?;
        let loss = g.apply(LmHead::CrossEntropy, &[hidden, decoder.weight("tok_embeddings"), targets, scale])?;
        let nll = g.output(loss, "nll");
        let weights = decoder.leaves.clone();
        Ok(Self { graph, z, loss, nll, weights })
    }
}

/// A decoder with both of its loops, recorded and planned for batches of one size.
#[derive(Debug)]
pub struct Learner {
    /// The decoder's parameters.
    pub params: Params,
    /// Where batches are loaded.
    pub inputs: Inputs,
    /// It owns z, which the slow step reads. `None` for a model that infers no latents.
    pub fast: Option<Fast>,
    /// New draws into the z that the slow step reads; `None` if it takes one per batch.
    pub draw: Option<Draw>,
    /// μ and λ of every part of a batch, if there are several and further draws.
    pub fits: Vec<[Id; 2]>,
    /// Where batches are loaded for a model of masked diffusion, in place of `inputs`.
    pub masked: Option<Masked>,
    /// It owns the gradients accumulated during fast steps, if the configuration wants them.
    pub slow: Slow,
    /// The sum of the gradients of a batch's parts.
    pub sum: GradientSum,
    /// Bytes of the parameters, of the inputs and the fast loop, of the slow step, and of the sum of gradients.
    pub bytes: [usize; 4],
}

impl Learner {
    /// Plans training with a resolved configuration, activations stored as `activations`, if this process computes `parts` parts
    /// of a batch. The parameters are not initialised.
    pub fn new(config: &Config, activations: DType, parts: usize, store: &mut Store) -> Result<Self> {
        let model = &config.model;
        let params = Params::new(model, DType::F32, store).computed_in(activations);
        let with_params = store.bytes();
        let rows = config.train.rows();
        let inputs = Inputs::new(model, rows, model.seq, DType::F32, store);
        let piles: Vec<Id> = match config.slow.gradient {
            SlowGradient::Final => Vec::new(),
            SlowGradient::Trajectory => params.iter().map(|p| store.alloc(p.spec)).collect(),
        };
        let options = FastOptions { seed: config.train.seed, piles: piles.clone(), ..FastOptions::default() };
        let fast = || Fast::new(model, &config.fast, &params, &inputs, store, &options);
        let fast = model.kind.infers().then(fast).transpose()?;
        let again = fast.as_ref().filter(|_| config.slow.updates > 1).map(|fast| fast.latents);
        // A seed that no run has, so that an evaluation with the run's seed does not repeat these draws.
        let seed = config.train.seed ^ (1 << 62);
        let draw = again.map(|l| Draw::new(&l, [l.eps, l.z], &inputs, seed, store)).transpose()?;
        // The fits of all parts of a batch, for their later draws.
        let posterior = |l: &Latents| [l.mu, l.logvar].map(|id| store.alloc(store.get(id).spec()));
        let fits = again.filter(|_| parts > 1).iter().flat_map(|l| vec![l; parts]).map(posterior).collect();
        let with_fast = store.bytes();
        let z = fast.as_ref().map(|fast| fast.latents.z);
        let masked = model.kind.method().map(|method| Masked::new(config, method, rows, &params, store));
        let slow = match &masked {
            Some(masked) => Slow::of(masked.loss(model, &params, store)?, &config.slow, &params, &piles, store)?,
            None => Slow::new(model, &config.slow, &params, &inputs, z, &piles, store)?,
        };
        let with_slow = store.bytes();
        let sum = GradientSum::new(&slow.grads, parts, store)?;
        let bytes = [with_params, with_fast - with_params, with_slow - with_fast, store.bytes() - with_slow];
        Ok(Self { params, inputs, fast, draw, fits, masked, slow, sum, bytes })
    }
}
