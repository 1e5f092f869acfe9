use super::stream::TextStream;
use super::{Sampler, Thinker, Walk, draw_prior, front};
use crate::config::{Config, ModelConfig, ModelKind, Work};
use crate::corpus::{Corpus, FACTS};
use crate::data::Tokenizer;
use crate::model::{Params, oracle};
use autograd::{Id, Store};
use engine::{Error, Result, Spec};
use serde::Serialize;
use std::sync::Arc;

/// Sampling options.
#[derive(Clone, Debug, Serialize)]
pub struct Writing {
    /// Most tokens to draw; fewer if the document ends. By default as many as fit after the prompt into the positions
    /// of training, but at least a quarter of these.
    pub tokens: Option<usize>,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only the `top_k` most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 for all.
    pub top_p: f64,
    /// Only tokens at least `min_p` times as likely as the most likely one, from 0 (all tokens) to 1 (Nguyen et al.
    /// 2024, arXiv 2407.01082): with p(i) ∝ exp(logit_i / temperature), those with p(i) ≥ `min_p` · max p.
    pub min_p: f64,
    /// Penalty for tokens that occur in the prompt or the text, applied first: it divides a positive logit and multiplies
    /// a negative one. Keskar et al. (2019, arXiv 1909.05858) divide both; Hugging Face's transformers multiplies, because
    /// division makes a negative logit likelier. From 0.01 to 100; 1 changes nothing.
    pub repetition_penalty: f64,
    /// Seed of latents and tokens: the same seed gives the same text.
    pub seed: u64,
    /// The text ends before the first of these.
    pub stop: Vec<String>,
    /// Fast steps of inference, if not those of training.
    pub steps: Option<usize>,
    /// Number of tokens after which the latents are inferred again from all text so far; 0 for never.
    pub refit: usize,
}

impl Default for Writing {
    fn default() -> Self {
        Self {
            tokens: None,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            stop: Vec::new(),
            steps: None,
            refit: 0,
        }
    }
}

/// Generates texts with a model.
pub struct Writer {
    config: Config,
    writing: Writing,
    /// `None` for a model that infers no latents.
    thinker: Option<Thinker>,
    z: Option<Id>,
    /// The source of an oracle's facts.
    corpus: Option<Corpus>,
    walk: Walk,
    tokenizer: Arc<dyn Tokenizer>,
}

/// The corpus whose facts an oracle is told; `None` for other models.
fn corpus_of(config: &Config) -> Result<Option<Corpus>> {
    (config.model.kind == ModelKind::Oracle).then(|| Corpus::of(config)).transpose()
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

/// Most texts, and most inferences per text: both share the 32 bits that key an inference's noise.
pub const ROUNDS: u32 = 1 << 16;

impl Writer {
    /// Plans generation with a model whose weights are in `store` and which uses `tokenizer`.
    ///
    /// # Errors
    /// If options contradict each other, or the device lacks the memory.
    pub fn new(
        config: &Config,
        params: &Params,
        store: &mut Store,
        tokenizer: Arc<dyn Tokenizer>,
        writing: Writing,
    ) -> Result<Self> {
        let mut config = config.clone();
        config.train.seed = writing.seed;
        config.fast.steps = writing.steps.unwrap_or(config.fast.steps);
        let config = config.resolved()?;
        Sampler::new(&writing, 0)?;
        if writing.stop.iter().any(String::is_empty) {
            return Err(Error::usage("an empty stop text would end every text at its start"));
        }
        let tokens = writing.tokens.unwrap_or(config.model.seq);
        let inferences = tokens.checked_div(writing.refit).unwrap_or(0);
        if inferences >= ROUNDS as usize {
            return Err(Error::usage(format!(
                "inferring the latents every {} of {tokens} tokens takes {inferences} inferences: must be less than {ROUNDS}",
                writing.refit
            )));
        }
        let thinks = config.model.kind.infers();
        let thinker = thinks.then(|| Thinker::new(&config, params, store)).transpose()?;
        let z = thinker.as_ref().map(Thinker::z).or_else(|| free_latents(&config.model, params, store));
        let walk = Walk::new(&config.model, params, z, store)?;
        config.check_room(store, Work::Generation)?;
        let corpus = corpus_of(&config)?;
        Ok(Self { config, writing, thinker, z, corpus, walk, tokenizer })
    }

    /// Plans unconditional texts of at most this many tokens, with the same results as [`new`](Self::new). Latents are
    /// always drawn from the prior, so no memory is needed to infer them.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn unprompted(
        config: &Config,
        params: &Params,
        store: &mut Store,
        tokenizer: Arc<dyn Tokenizer>,
        tokens: usize,
    ) -> Result<Self> {
        let model = &config.model;
        let z = free_latents(model, params, store);
        let walk = Walk::new(model, params, z, store)?;
        config.check_room(store, Work::Generation)?;
        let writing = Writing { tokens: Some(tokens), ..Writing::default() };
        Ok(Self { config: config.clone(), writing, thinker: None, z, corpus: corpus_of(config)?, walk, tokenizer })
    }

    /// Generates text number `sample`, after `prompt` if there is one; `show` gets the text piece by piece, without the
    /// prompt. Returns the number of tokens.
    ///
    /// # Errors
    /// If the prompt is empty or too long, or the weights are damaged, and the errors of `show`.
    ///
    /// # Panics
    /// If `sample` is not less than [`ROUNDS`].
    pub fn text(
        &mut self,
        store: &mut Store,
        prompt: Option<&str>,
        sample: u32,
        show: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<usize> {
        assert!(sample < ROUNDS, "text {sample} has no noise of its own");
        let mut text = self.beginning(prompt)?;
        let (begun, most) = (text.len(), self.most(text.len()));
        // Begin tokens are not part of the text.
        let front = front(&*self.tokenizer, self.config.data.chunking)?.len();
        // Every inference of every text has separate noise.
        let mut round = sample * ROUNDS;
        match (&self.thinker, prompt, self.z, &self.corpus) {
            (Some(thinker), Some(_), ..) => thinker.infer(&self.config, store, &text, round)?,
            (_, _, Some(z), Some(corpus)) => {
                let values = told(corpus, prompt, self.writing.seed, sample);
                let mut numbers = vec![0.0; store.get(z).len()];
                oracle::code(values, &mut numbers);
                store.get_mut(z).set_f64(&numbers);
            }
            (_, _, Some(z), None) => draw_prior(z, store, self.writing.seed, sample),
            (_, _, None, _) => {}
        }
        let mut sampler = Sampler::new(&self.writing, sample)?;
        let mut stream = TextStream::new(&self.writing.stop);
        let mut logits = self.read(store, &text)?;
        for drawn in 1..=most {
            let token = sampler.next(&logits[..self.tokenizer.vocab()], &text[front..])?;
            if token == self.tokenizer.end() {
                break;
            }
            text.push(token);
            let (shown, stopped) = stream.push(self.tokenizer.token_bytes(token).unwrap_or_default());
            show(&shown)?;
            if stopped || drawn == most {
                break;
            }
            if let Some(thinker) = &self.thinker
                && self.writing.refit > 0
                && drawn.is_multiple_of(self.writing.refit)
            {
                round += 1;
                thinker.infer(&self.config, store, &text, round)?;
                logits = self.read(store, &text)?;
            } else {
                logits = self.walk.step(store, token)?;
            }
        }
        show(&stream.finish())?;
        Ok(text.len() - begun)
    }

    /// Most tokens to draw after the first `begun` of a text.
    pub fn most(&self, begun: usize) -> usize {
        let model = &self.config.model;
        // Learned positions have an end, others only get worse.
        let (there, least) = model.positions().map_or((model.seq, model.seq.div_ceil(4)), |there| (there, 1));
        // The model reads only as much of the prompt as the latents are inferred from, and not the last drawn token.
        self.writing.tokens.unwrap_or((there + 1).saturating_sub(begun).max(least))
    }

    /// All of text number `sample`, without the prompt.
    pub fn whole(&mut self, store: &mut Store, prompt: Option<&str>, sample: u32) -> Result<String> {
        let mut text = String::new();
        self.text(store, prompt, sample, &mut |piece| {
            text.push_str(piece);
            Ok(())
        })?;
        Ok(text)
    }

    /// The tokens that a text begins with.
    ///
    /// # Errors
    /// If the prompt is empty, or leaves no space in learned positions, which are limited.
    pub fn beginning(&self, prompt: Option<&str>) -> Result<Vec<u16>> {
        let mut text = front(&*self.tokenizer, self.config.data.chunking)?;
        match prompt {
            Some("") => return Err(Error::usage("the prompt is empty")),
            Some(prompt) => self.tokenizer.encode(prompt.as_bytes(), &mut text)?,
            None => {}
        }
        // The last token drawn is not read.
        let (begun, tokens) = (text.len(), self.most(text.len()));
        let needed = begun.saturating_add(tokens).saturating_sub(1);
        match self.config.model.positions() {
            Some(there) if needed > there => Err(Error::usage(format!(
                "the prompt's {begun} tokens and {tokens} more make up to {needed} positions, the model has {there}: \
                 shorten the prompt or draw fewer tokens"
            ))),
            _ => Ok(text),
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
