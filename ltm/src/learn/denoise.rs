use crate::config::{Config, DiffusionConfig, ModelConfig};
use crate::data::Batch;
use crate::diffusion::{Cost, Masker, Method, Network, Predictor, Seen, Shape, Text, TokenCost};
use crate::learn::Loss;
use crate::model::{Costs, Denoiser, MaskedText, MaskedTexts, Params};
use autograd::{Id, Phase, Plan, Request, Store};
use engine::{DType, Result, Spec};
use kernels::cross_entropy::LmHead;

/// What stands before every text: its first input, which is seen and not scored. A network that sees no token at all gives every
/// position of a text the same distribution.
const CONTEXT: usize = 1;

/// The inputs of a network of masked diffusion, for batches of texts of N targets.
#[derive(Clone, Copy, Debug)]
pub struct Masked {
    texts: MaskedTexts,
    method: Method,
    masker: Masker,
    shape: Shape,
}

impl Masked {
    /// Allocates the inputs for `rows` texts.
    pub fn new(config: &Config, method: Method, rows: usize, params: &Params, store: &mut Store) -> Self {
        let model = &config.model;
        let shape = Shape { rows, positions: model.seq + CONTEXT, vocab: model.vocab };
        let sizes = [rows, shape.positions];
        let texts = MaskedTexts::new(model, method.told.embedding(model.dim), sizes, params.dtype, store);
        let DiffusionConfig { schedule, masking } = config.diffusion;
        let masker = Masker { schedule, masking, seed: config.train.seed };
        Self { texts, method, masker, shape }
    }

    /// Positions of a text, with what stands before it.
    pub fn positions(&self) -> usize {
        self.shape.positions
    }

    /// Loads part number `part` of a batch, as many texts as there are rows, with the masks of update number `update`.
    ///
    /// # Errors
    /// If a text is too long or has a token beyond the vocabulary.
    pub fn load(&self, store: &mut Store, batch: &Batch, part: usize, update: u32) -> Result<()> {
        let (texts, rows) = (Text::of(batch, true), self.shape.rows);
        let masked = self.masker.batch(&texts, part * rows..(part + 1) * rows, self.shape, update);
        self.load_texts(store, &masked.seen, &masked.targets, |row| masked.weights[row])
    }

    /// Loads texts with masks, and the weight of every row's predictions.
    fn load_texts(&self, store: &mut Store, seen: &Seen, targets: &[i32], weight: impl Fn(usize) -> f64) -> Result<()> {
        let n = self.shape.positions;
        let mut texts =
            vec![MaskedText { ids: Vec::new(), targets: Vec::new(), weight: 0.0, tau: 0.0 }; self.shape.rows];
        for (row, (text, &length)) in texts.iter_mut().zip(&seen.lengths).enumerate() {
            let own = row * n..row * n + length as usize;
            let tau = self.method.told.tau(seen.times[row]).unwrap_or_default();
            *text = MaskedText {
                ids: seen.tokens[own.clone()].to_vec(),
                targets: targets[own].to_vec(),
                weight: weight(row),
                tau,
            };
        }
        self.texts.load(store, &texts)
    }

    /// The head of the method.
    fn head(&self) -> LmHead {
        match self.method.cost {
            Cost::LogP => LmHead::CrossEntropy,
            Cost::ScoreEntropy => LmHead::ScoreEntropy,
        }
    }

    /// Records the training loss: an estimate of the bound in nats per token.
    pub(super) fn loss(&self, model: &ModelConfig, params: &Params, store: &mut Store) -> Result<Loss> {
        let mut denoiser = Denoiser::record(model, params, &self.texts, store)?;
        let Costs { loss, nll, .. } = denoiser.costs(self.head())?;
        let Denoiser { graph, weights, .. } = denoiser;
        Ok(Loss { graph, z: None, loss, nll, weights })
    }
}

/// A planned forward pass of the network, for costs.
#[derive(Debug)]
pub struct Reader {
    inputs: Masked,
    plan: Plan,
    nll: Id,
    lse: Id,
}

impl Reader {
    /// Plans calls on `rows` texts.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn new(config: &Config, method: Method, rows: usize, params: &Params, store: &mut Store) -> Result<Self> {
        let inputs = Masked::new(config, method, rows, params, store);
        let mut denoiser = Denoiser::record(&config.model, params, &inputs.texts, store)?;
        let Costs { nll, lse, .. } = denoiser.costs(inputs.head())?;
        let plan = Plan::new(&denoiser.graph, store, &Request { keep: vec![nll, lse], ..Request::default() })?;
        let (nll, lse) = (plan.value(nll), plan.value(lse));
        Ok(Self { inputs, plan, nll, lse })
    }

    /// The network with its memory, at the current weights.
    pub fn on<'a>(&'a self, store: &'a mut Store) -> impl Network + 'a {
        self.plan.run(store, Phase::Update);
        self.plan.run(store, Phase::Batch);
        Call { with: self, store }
    }
}

/// Positions whose logits are computed at once: most calls of generation reveal few.
const ROWS: usize = 16;

/// A planned forward pass for the logits of one text: up to the head once per call, then the head for some positions at a time.
#[derive(Debug)]
pub struct Foreteller {
    inputs: Masked,
    plan: Plan,
    /// `[ROWS]` i32.
    rows: Id,
    /// `[ROWS, V]`.
    logits: Id,
}

impl Foreteller {
    /// Plans calls on one text.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn new(config: &Config, method: Method, params: &Params, store: &mut Store) -> Result<Self> {
        let inputs = Masked::new(config, method, 1, params, store);
        Self::of(inputs, &config.model, params, store)
    }

    fn of(inputs: Masked, model: &ModelConfig, params: &Params, store: &mut Store) -> Result<Self> {
        let inputs = Masked { texts: inputs.texts.once_per_batch(), ..inputs };
        let mut denoiser = Denoiser::record(model, params, &inputs.texts, store)?;
        let rows = store.alloc(Spec::new(DType::I32, &[ROWS]));
        let logits = denoiser.logits_of(rows)?;
        let plan = Plan::new(&denoiser.graph, store, &Request { keep: vec![logits], ..Request::default() })?;
        let logits = plan.value(logits);
        Ok(Self { inputs, plan, rows, logits })
    }

    /// The network with its memory, at the current weights.
    pub fn on<'a>(&'a self, store: &'a mut Store) -> impl Predictor + 'a {
        self.plan.run(store, Phase::Update);
        Call { with: self, store }
    }
}

/// A planned pass and its memory.
struct Call<'a, W> {
    with: &'a W,
    store: &'a mut Store,
}

impl Network for Call<'_, Reader> {
    fn shape(&self) -> Shape {
        self.with.inputs.shape
    }

    fn costs(&mut self, seen: &Seen, asked: &[(usize, i32)]) -> Result<Vec<TokenCost>> {
        let Reader { inputs, plan, nll, lse } = self.with;
        let mut targets = vec![-1; seen.tokens.len()];
        asked.iter().for_each(|&(at, token)| targets[at] = token);
        inputs.load_texts(self.store, seen, &targets, |_| 1.0)?;
        plan.run(self.store, Phase::Step);
        let (nll, lse) = (self.store.get(*nll).read_f64()?, self.store.get(*lse).read_f64()?);
        let log_v = (inputs.shape.vocab as f64).ln();
        Ok(asked.iter().map(|&(at, _)| TokenCost { nll: nll[at], log_z: lse[at] - log_v }).collect())
    }
}

impl Predictor for Call<'_, Foreteller> {
    fn shape(&self) -> Shape {
        self.with.inputs.shape
    }

    fn logits(&mut self, seen: &Seen, at: &[usize]) -> Result<Vec<f64>> {
        let Foreteller { inputs, plan, rows, logits } = self.with;
        inputs.load_texts(self.store, seen, &vec![-1; seen.tokens.len()], |_| 0.0)?;
        plan.run(self.store, Phase::Batch);
        let mut all = Vec::with_capacity(at.len() * inputs.shape.vocab);
        for at in at.chunks(ROWS) {
            let mut places = [0; ROWS];
            places.iter_mut().zip(at).for_each(|(place, &at)| *place = at as i32);
            self.store.get_mut(*rows).write(&places);
            plan.run(self.store, Phase::Step);
            let logits = self.store.get(*logits).read_f64()?;
            all.extend_from_slice(&logits[..at.len() * inputs.shape.vocab]);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
