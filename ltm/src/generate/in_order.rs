use super::{Thinker, Walk, draw_prior};
use crate::config::{Config, ModelConfig, ModelKind};
use crate::corpus::{Corpus, FACTS};
use crate::model::{Params, oracle};
use autograd::{Id, Store};
use engine::{Result, Spec};

/// Draws tokens one after the other, with latents if the model takes some.
pub(super) struct InOrder {
    config: Config,
    /// `None` if no latents are inferred.
    thinker: Option<Thinker>,
    z: Option<Id>,
    /// The source of an oracle's facts.
    corpus: Option<Corpus>,
    walk: Walk,
    /// The number of the latest inference: every one of every text has separate noise.
    round: u32,
}

impl InOrder {
    /// Plans it. Without `infers`, latents are always drawn from the prior.
    pub fn new(config: &Config, infers: bool, params: &Params, store: &mut Store) -> Result<Self> {
        let model = &config.model;
        let thinker = infers.then(|| Thinker::new(config, params, store)).transpose()?;
        let z = thinker.as_ref().map(Thinker::z).or_else(|| free_latents(model, params, store));
        let walk = Walk::new(model, params, z, store)?;
        let corpus = (model.kind == ModelKind::Oracle).then(|| Corpus::of(config)).transpose()?;
        Ok(Self { config: config.clone(), thinker, z, corpus, walk, round: 0 })
    }

    /// Sets the latents for text number `sample`, which begins with `text`. An inference has noise number `round`.
    pub fn begin(
        &mut self,
        store: &mut Store,
        text: &[u16],
        prompt: Option<&str>,
        seed: u64,
        sample: u32,
        round: u32,
    ) -> Result<()> {
        self.round = round;
        match (&self.thinker, prompt, self.z, &self.corpus) {
            (Some(thinker), Some(_), ..) => thinker.infer(&self.config, store, text, self.round)?,
            (_, _, Some(z), Some(corpus)) => {
                let values = told(corpus, prompt, seed, sample);
                let mut numbers = vec![0.0; store.get(z).len()];
                oracle::code(values, &mut numbers);
                store.get_mut(z).set_f64(&numbers);
            }
            (_, _, Some(z), None) => draw_prior(z, store, seed, sample),
            (_, _, None, _) => {}
        }
        Ok(())
    }

    /// The KL of every latent vector of the latest inference to the prior, in nats, the first layer's first; nothing if none are
    /// inferred.
    pub fn kl_by_latent(&self, store: &Store) -> Result<Vec<f64>> {
        self.thinker.as_ref().map_or(Ok(Vec::new()), |thinker| thinker.kl_by_latent(store))
    }

    /// The logits of the token after `text`, `drawn` of whose tokens were drawn. The latents are inferred again every `refit`
    /// of them.
    pub fn logits(&mut self, store: &mut Store, text: &[u16], drawn: usize, refit: usize) -> Result<Vec<f64>> {
        match &self.thinker {
            _ if drawn == 0 => self.read(store, text),
            Some(thinker) if refit > 0 && drawn.is_multiple_of(refit) => {
                self.round += 1;
                thinker.infer(&self.config, store, text, self.round)?;
                self.read(store, text)
            }
            _ => self.walk.step(store, text[text.len() - 1]),
        }
    }

    /// Reads `text` with the current latents, as much of it as they were inferred from; returns the logits of the next
    /// token.
    fn read(&mut self, store: &mut Store, text: &[u16]) -> Result<Vec<f64>> {
        self.walk.begin(store);
        let mut logits = Vec::new();
        for &token in &text[text.len().saturating_sub(self.config.model.seq + 1)..] {
            logits = self.walk.step(store, token)?;
        }
        Ok(logits)
    }
}

/// The values of the facts that an oracle is told: those that the prompt mentions first, the others at random.
fn told(corpus: &Corpus, prompt: Option<&str>, seed: u64, sample: u32) -> [usize; FACTS.len()] {
    let mut values = corpus.values_of(seed, sample);
    for (fact, _, word) in corpus.mentions(prompt.unwrap_or_default().as_bytes()).into_iter().rev() {
        values[fact] = FACTS[fact].1.split(' ').position(|value| value == word).unwrap_or(values[fact]);
    }
    values
}

/// A buffer for the latents of a model that takes some, when none are inferred.
fn free_latents(model: &ModelConfig, params: &Params, store: &mut Store) -> Option<Id> {
    let spec = Spec::new(params.dtype, &[1, model.latent_count(), model.dim]);
    model.kind.takes_latents().then(|| store.alloc(spec))
}
