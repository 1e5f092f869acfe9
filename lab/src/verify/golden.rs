//! Compares the model with numbers that an independent implementation computed in f64.

use super::denoiser;
use autograd::{Graph, Id, Phase, Plan, Request, Store};
use engine::eager::relative_error;
use engine::{Buffer, DType, Device, Error, Result, Spec};
use kernels::cross_entropy::LmHead;
use kernels::elementwise::Elementwise;
use kernels::gaussian::{GaussianKl, Reparameterize};
use kernels::matmul::Linear;
use kernels::reduce::Reduce;
use ltm::config::{
    Config, FastConfig, ModelConfig, ModelKind, Noise, Optimizer, Posterior, Schedule, SlowConfig, Work,
};
use ltm::data::{Batch, SampleInfo};
use ltm::learn::{Fast, FastOptions, Inputs, Slow};
use ltm::model::{Decoder, Params, Positions};
use ltm::safetensors::SafeTensors;
use std::path::Path;

/// One quantity of the golden file.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Its name in the file.
    pub name: String,
    /// ‖ours − golden‖ / ‖golden‖.
    pub error: f64,
    /// Whether it is a posterior after four fast steps by AdamW, on a CPU that rounds the factors of products.
    pub fitted: bool,
}

impl Comparison {
    /// Our numbers beside those of the file.
    ///
    /// # Errors
    /// If the file lacks them or has another number of them.
    pub(super) fn of(file: &SafeTensors, name: &str, ours: &[f64]) -> Result<Self> {
        let golden = file.get_f64(name)?;
        if golden.len() != ours.len() {
            let (found, expected) = (golden.len(), ours.len());
            return Err(Error::new(format!("tensor {name:?} has {found} numbers, expected {expected}")));
        }
        Ok(Self { name: name.into(), error: relative_error(ours, &golden), fitted: false })
    }

    /// Whether the error is acceptable in `dtype`.
    pub fn is_good(&self, dtype: DType) -> bool {
        self.error <= if self.fitted && dtype == DType::Bf16 { FITTED_IN_BF16 } else { tolerance(dtype) }
    }
}

/// The relative error that is accepted of a posterior with bf16 products on the CPU. AdamW's first step moves a number by its rate, whatever the
/// size of its gradient: if rounding changes the sign of 3 of 512 gradients, μ is off by 0.11.
pub const FITTED_IN_BF16: f64 = 3e-1;

/// The relative error that is accepted of everything else in `dtype`. In bf16 the rounding errors of single ops add up.
pub fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-9,
        DType::Bf16 => 1e-1,
        _ => 1e-4,
    }
}

/// The embedded golden files.
const OWN: [&[u8]; 2] = [
    include_bytes!("../../../tests/fixtures/golden_tiny.safetensors"),
    include_bytes!("../../../tests/fixtures/diffusion_tiny.safetensors"),
];

/// Computes all quantities in the golden file at `path` (the embedded ones by default) and compares: on the CPU in f32
/// or f64, on a GPU in f32, or with activations in bf16. In f32 on the CPU, `device` may round the factors of products.
///
/// # Errors
/// If the file cannot be read, lacks a tensor or an entry of its metadata, or describes a model that cannot be or that the
/// device has no kernels or no memory for.
pub fn golden(path: Option<&Path>, dtype: DType, device: &Device) -> Result<Vec<Comparison>> {
    match path {
        Some(path) => compare(&SafeTensors::open(path)?, dtype, device).map_err(|e| e.at(path.display())),
        None => {
            let own = |bytes: &'static [u8]| compare(&SafeTensors::parse(bytes)?, dtype, device);
            Ok(OWN.into_iter().map(own).collect::<Result<Vec<_>>>()?.concat())
        }
    }
}

fn compare(file: &SafeTensors, dtype: DType, device: &Device) -> Result<Vec<Comparison>> {
    // Only texts of masked diffusion may be masked.
    if file.names().iter().any(|name| *name == "maskable") {
        return denoiser::compare(file, dtype, device);
    }
    let mut golden = Golden::new(file, dtype, device)?;
    golden.objective()?;
    golden.slow()?;
    golden.fast(Noise::Fresh)?;
    golden.fast(Noise::Fixed)?;
    Ok(golden.results)
}

struct Golden<'a> {
    file: &'a SafeTensors<'a>,
    model: ModelConfig,
    store: Store,
    params: Params,
    inputs: Inputs,
    latents: Spec,
    /// Whether products round their factors.
    rounds: bool,
    results: Vec<Comparison>,
}

impl<'a> Golden<'a> {
    fn new(file: &'a SafeTensors<'a>, dtype: DType, device: &Device) -> Result<Self> {
        let size = |key: &str| file.metadata::<usize>(key);
        let model = ModelConfig {
            kind: ModelKind::Ltm,
            layers: size("n_layers")?,
            dim: size("dim")?,
            heads: size("n_heads")?,
            ffn: size("ffn_hidden")?,
            vocab: size("vocab")?,
            seq: size("seq")?,
            max_seq: size("max_seq_len")?,
            window: size("window")?,
            latents: size("z_per_layer")?,
            norm_eps: file.metadata("norm_eps")?,
            rope_theta: file.metadata("rope_theta")?,
        };
        let batch = size("batch")?;
        let mut config = Config { model: model.clone(), ..Config::default() };
        config.train.batch = batch;
        config.check_ranges()?;
        model.check()?;
        config.check_device(device, Work::Training)?;
        let mut store = Store::new(device.clone());
        // Weights are in f32 even if activations are not.
        let (compute, dtype) = (dtype, if dtype == DType::Bf16 { DType::F32 } else { dtype });
        let params = Params::new(&model, dtype, &mut store).computed_in(compute);
        params.load(&mut store, file, "w.")?;
        let inputs = Inputs::new(&model, batch, model.seq, dtype, &mut store);
        let int = |x: i64| i32::try_from(x).map_err(|_| Error::new(format!("{x} is not a token")));
        let ints = |name| file.get_i64(name)?.into_iter().map(int).collect::<Result<Vec<_>>>();
        let (tokens, targets) = (ints("tokens")?, ints("targets")?);
        let samples = (0..batch as u32).map(|id| SampleInfo { id, ..SampleInfo::default() }).collect();
        inputs.load(&mut store, &model, &Batch { tokens, targets, samples })?;
        let latents = Spec::new(dtype, &[batch, model.layers * model.latents, model.dim]);
        let rounds = device.rounds_products();
        Ok(Self { file, model, store, params, inputs, latents, rounds, results: Vec::new() })
    }

    fn tensor(&mut self, name: &str, dims: &[usize]) -> Result<Id> {
        self.file.expect_shape(name, dims)?;
        Ok(self.store.insert(Buffer::from_f64(self.latents.dtype, dims, &self.file.get_f64(name)?)))
    }

    fn latent(&mut self, name: &str) -> Result<Id> {
        let dims = self.latents.shape;
        self.tensor(name, dims.dims())
    }

    fn compare(&mut self, name: &str, ours: &[f64]) -> Result<()> {
        self.results.push(Comparison::of(self.file, name, ours)?);
        Ok(())
    }

    fn compare_id(&mut self, name: &str, id: Id) -> Result<()> {
        let ours = self.store.get(id).read_f64()?;
        self.compare(name, &ours)
    }

    /// Forward, NELBO = Σ nll + Σ KL, and its gradients with respect to μ and λ.
    fn objective(&mut self) -> Result<()> {
        let (mu, logvar, eps) = (self.latent("mu")?, self.latent("logvar")?, self.latent("eps")?);
        let mut g = Graph::new();
        let positions = Positions::new(&self.model, self.inputs.batch, self.model.seq, &mut self.store);
        let decoder = Decoder::new(&self.model, &self.params, &positions, &mut g, Phase::Update)?;
        let mu = g.leaf("mu", Phase::Step, mu);
        let logvar = g.leaf("logvar", Phase::Step, logvar);
        let eps = g.leaf("eps", Phase::Step, eps);
        let tokens = g.leaf("tokens", Phase::Batch, self.inputs.tokens);
        let targets = g.leaf("targets", Phase::Batch, self.inputs.targets);
        let one = g.leaf("one", Phase::Update, self.inputs.one);
        g.scope("objective");
        let z = g.apply(Reparameterize, &[mu, logvar, eps])?;
        let kl = g.apply(GaussianKl, &[mu, logvar])?;
        let hidden = decoder.hidden(&mut g, tokens, Some(z), |g, _, qkv| decoder.window_attention(g, qkv))?;
        let table = decoder.weight("tok_embeddings");
        let logits = g.apply(Linear, &[hidden, table])?;
        let loss = g.apply(LmHead::CrossEntropy, &[hidden, table, targets, one])?;
        let nll = g.output(loss, "nll");
        let total = g.apply(Reduce::sum(), &[kl])?;
        let nelbo = g.apply(Elementwise::Add, &[loss, total])?;
        let named = [("z", z), ("hidden", hidden), ("logits", logits), ("nll", nll), ("kl", kl), ("nelbo", nelbo)];
        let keep = named.iter().map(|(_, v)| *v).collect();
        let request = Request { root: Some(nelbo), wants: vec![mu, logvar], keep, ..Request::default() };
        let plan = Plan::new(&g, &mut self.store, &request)?;
        self.store.ready()?;
        plan.run_all(&mut self.store);
        for (name, value) in named {
            self.compare_id(name, plan.value(value))?;
        }
        self.compare_id("grad.mu", plan.grad(mu))?;
        self.compare_id("grad.logvar", plan.grad(logvar))
    }

    /// Mean cross-entropy at the given z, its gradients, their norm, and the weights after one AdamW step.
    fn slow(&mut self) -> Result<()> {
        let z = self.latent("z")?;
        let config = SlowConfig { rate: 4e-4, optimizer: Optimizer::Adamw, ..SlowConfig::default() };
        let slow = Slow::new(&self.model, &config, &self.params, &self.inputs, Some(z), &[], &mut self.store)?;
        self.store.ready()?;
        slow.gradient(&mut self.store);
        let counted = self.file.get_i64("targets")?.iter().filter(|&&t| t >= 0).count();
        let mean = slow.nll(&self.store)?.iter().sum::<f64>() / counted as f64;
        self.compare("mean_ce", &[mean])?;
        self.compare_parts("grad.w.", &slow.grads)?;
        let norm = slow.grad_norm(&mut self.store)?;
        self.compare("slow.grad_norm", &[norm])?;
        slow.apply(&mut self.store, config.rate, 1);
        let ids: Vec<Id> = self.params.iter().map(|p| p.id).collect();
        self.compare_parts("slow.w.", &ids)?;
        self.params.load(&mut self.store, self.file, "w.")
    }

    fn compare_parts(&mut self, prefix: &str, ids: &[Id]) -> Result<()> {
        for (p, &id) in self.params.clone().iter().zip(ids) {
            let values = self.store.get(id).read_f64()?;
            for part in p.parts() {
                self.compare(&format!("{prefix}{}", part.name), &values[part.range])?;
            }
        }
        Ok(())
    }

    /// Four fast steps from the golden posterior with the golden noise.
    fn fast(&mut self, noise: Noise) -> Result<()> {
        let steps = 4;
        let dims = [&[steps], self.latents.shape.dims()].concat();
        let table = self.tensor("fast.noise", &dims)?;
        let (mu, logvar) = (self.latent("mu")?, self.latent("logvar")?);
        let (posterior, schedule) = (Posterior::Adamw, Schedule::Cosine);
        let config = FastConfig { steps, noise, posterior, schedule, weight_decay: 0.01, ..FastConfig::default() };
        let options = FastOptions { noise_table: Some(table), ..FastOptions::default() };
        let fast = Fast::new(&self.model, &config, &self.params, &self.inputs, &mut self.store, &options)?;
        self.store.ready()?;
        let mut seen = Vec::new();
        fast.fit_from(&mut self.store, (mu, logvar), 0.3, |_, store| {
            seen.push(fast.nll(store).and_then(|nll| Ok([nll, fast.kl(store)?].concat())));
        })?;
        for (t, parts) in seen.into_iter().enumerate() {
            self.compare(&format!("fast.{noise}.nelbo.{t}"), &[parts?.iter().sum()])?;
        }
        let from = self.results.len();
        self.compare_id(&format!("fast.{noise}.mu"), fast.latents.mu)?;
        self.compare_id(&format!("fast.{noise}.logvar"), fast.latents.logvar)?;
        self.results[from..].iter_mut().for_each(|posterior| posterior.fitted = self.rounds);
        Ok(())
    }
}
