use super::any_order::AnyOrder;
use super::in_order::InOrder;
use super::stream::TextStream;
use super::{Sampler, front};
use crate::config::{Chunking, Config, Work};
use crate::data::Tokenizer;
use crate::diffusion::Lengths;
use crate::model::Params;
use autograd::Store;
use engine::{Error, Result};
use serde::Serialize;
use std::sync::Arc;

/// Sampling options.
#[derive(Clone, Debug, Serialize)]
pub struct Writing {
    /// Most tokens to draw; fewer if the document ends. By default as many as fit beside the prompt into the positions
    /// of training, but at least a quarter of these; masked diffusion on documents draws a length.
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
    /// Fast steps of inference, if not those of training. Of masked diffusion: the steps that reveal tokens; 0, the
    /// default, for one position at a time.
    pub steps: Option<usize>,
    /// Number of tokens after which the latents are inferred again from all text so far; 0 for never.
    pub refit: usize,
    /// Text after the gap that masked diffusion fills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix: Option<String>,
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
            suffix: None,
        }
    }
}

/// What a writer shows of a text, without prompt and suffix.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// The next piece.
    Piece(&'a str),
    /// All of it so far, with [`GAP`] for every token that is still missing.
    Draft(&'a str),
}

/// Stands for a missing token in a draft.
pub const GAP: char = '_';

/// How tokens are drawn.
pub(super) enum Way {
    InOrder(Box<InOrder>),
    AnyOrder(Box<AnyOrder>),
}

/// Gives the token after a text.
type Next<'a> = Box<dyn FnMut(&[u16]) -> Result<u16> + 'a>;

/// Generates texts with a model.
pub struct Writer {
    config: Config,
    writing: Writing,
    /// The tokens after the gap.
    suffix: Vec<u16>,
    way: Way,
    tokenizer: Arc<dyn Tokenizer>,
}

/// Most texts, and most inferences per text: both share the 32 bits that key an inference's noise.
pub const ROUNDS: u32 = 1 << 16;

impl Writer {
    /// Plans generation with a model whose weights are in `store` and which uses `tokenizer`. Masked diffusion on documents
    /// draws their lengths from `lengths`.
    ///
    /// # Errors
    /// If options contradict each other, or the device lacks the memory.
    pub fn new(
        config: &Config,
        params: &Params,
        store: &mut Store,
        tokenizer: Arc<dyn Tokenizer>,
        lengths: Option<&Lengths>,
        writing: Writing,
    ) -> Result<Self> {
        let mut config = config.clone();
        config.train.seed = writing.seed;
        let (kind, method) = (config.model.kind, config.model.kind.method());
        if method.is_none() {
            config.fast.steps = writing.steps.unwrap_or(config.fast.steps);
        }
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
        let mut suffix = Vec::new();
        if let Some(text) = &writing.suffix {
            if method.is_none() {
                return Err(Error::usage(format!(
                    "model.kind = {kind} only continues text: a suffix needs masked diffusion, which fills the gap before it"
                )));
            }
            tokenizer.encode(text.as_bytes(), &mut suffix)?;
            if config.data.chunking == Chunking::Documents {
                suffix.push(tokenizer.end());
            }
        }
        let way = match method {
            Some(method) => Way::AnyOrder(AnyOrder::new(&config, method, &writing, lengths, params, store)?.into()),
            None => Way::InOrder(InOrder::new(&config, kind.infers(), params, store)?.into()),
        };
        config.check_room(store, Work::Generation)?;
        Ok(Self { config, writing, suffix, way, tokenizer })
    }

    /// Plans unconditional texts of at most this many tokens, no more than in training, with the same results as
    /// [`new`](Self::new) for models that write in order. Latents are always drawn from the prior, so no memory is needed to
    /// infer them.
    ///
    /// # Errors
    /// If the device lacks the memory.
    pub fn unprompted(
        config: &Config,
        params: &Params,
        store: &mut Store,
        tokenizer: Arc<dyn Tokenizer>,
        lengths: Option<&Lengths>,
        tokens: usize,
    ) -> Result<Self> {
        let (mut config, mut writing) = (config.clone(), Writing::default());
        let way = match config.model.kind.method() {
            Some(method) => {
                // Its documents are as long as they want to be, and no longer than the network's positions.
                config.model.seq = tokens;
                Way::AnyOrder(AnyOrder::new(&config, method, &writing, lengths, params, store)?.into())
            }
            None => {
                writing.tokens = Some(tokens);
                Way::InOrder(InOrder::new(&config, false, params, store)?.into())
            }
        };
        config.check_room(store, Work::Generation)?;
        Ok(Self { config, writing, suffix: Vec::new(), way, tokenizer })
    }

    /// Generates text number `sample`, after `prompt` if there is one; `show` gets the text piece by piece, without the
    /// prompt and the suffix. Masked diffusion shows drafts before. Returns the number of tokens.
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
        show: &mut dyn FnMut(Shown<'_>) -> Result<()>,
    ) -> Result<usize> {
        assert!(sample < ROUNDS, "text {sample} has no noise of its own");
        let mut text = self.beginning(prompt)?;
        let (begun, mut most) = (text.len(), self.most(text.len()));
        // Begin tokens are not part of the text.
        let front = front(&*self.tokenizer, self.config.data.chunking)?.len();
        let mut sampler = Sampler::new(&self.writing, sample)?;
        let Self { writing, tokenizer, suffix, .. } = self;
        let (ids, end, refit) = (tokenizer.vocab(), tokenizer.end(), writing.refit);
        let mut next: Next<'_> = match &mut self.way {
            Way::InOrder(way) => {
                way.begin(store, &text, prompt, writing.seed, sample, sample * ROUNDS)?;
                Box::new(move |text| {
                    let logits = way.logits(store, text, text.len() - begun, refit)?;
                    sampler.next(&logits[..ids], &text[front..])
                })
            }
            Way::AnyOrder(way) => {
                if writing.tokens.is_none() {
                    most = way.gap(begun - front + suffix.len(), writing.seed, sample).unwrap_or(most);
                }
                let draft = &mut |tokens: &[i32]| show(Shown::Draft(&draft(&**tokenizer, tokens)));
                let mut gap = way.fill(store, &text, most, suffix, &sampler, sample, ids, draft)?.into_iter();
                Box::new(move |_| Ok(gap.next().unwrap_or(end)))
            }
        };
        let mut stream = TextStream::new(&writing.stop);
        for _ in 0..most {
            let token = next(&text)?;
            if token == end {
                break;
            }
            text.push(token);
            let (shown, stopped) = stream.push(tokenizer.token_bytes(token).unwrap_or_default());
            show(Shown::Piece(&shown))?;
            if stopped {
                break;
            }
        }
        show(Shown::Piece(&stream.finish()))?;
        Ok(text.len() - begun)
    }

    /// Most tokens to draw after the first `begun` of a text.
    pub fn most(&self, begun: usize) -> usize {
        let model = &self.config.model;
        // Learned positions have an end, others only get worse.
        let (there, least) = match model.positions() {
            Some(there) => (there, 1),
            None if self.suffix.is_empty() => (model.seq, model.seq.div_ceil(4)),
            None => (model.seq, 1),
        };
        // The model reads only as much of the prompt as the latents are inferred from, and not the last drawn token.
        let given = begun + self.suffix.len();
        self.writing.tokens.unwrap_or((there + 1).saturating_sub(given).max(least))
    }

    /// All of text number `sample`, without the prompt and the suffix.
    pub fn whole(&mut self, store: &mut Store, prompt: Option<&str>, sample: u32) -> Result<String> {
        let mut text = String::new();
        self.text(store, prompt, sample, &mut |shown| {
            if let Shown::Piece(piece) = shown {
                text.push_str(piece);
            }
            Ok(())
        })?;
        Ok(text)
    }

    /// The tokens that a text begins with.
    ///
    /// # Errors
    /// If the prompt is empty, or leaves no space in learned positions or before a suffix, which are limited.
    pub fn beginning(&self, prompt: Option<&str>) -> Result<Vec<u16>> {
        let mut text = front(&*self.tokenizer, self.config.data.chunking)?;
        match prompt {
            Some("") => return Err(Error::usage("the prompt is empty")),
            Some(prompt) => self.tokenizer.encode(prompt.as_bytes(), &mut text)?,
            None => {}
        }
        let (begun, tokens, behind) = (text.len(), self.most(text.len()), self.suffix.len());
        // The last token drawn is not read; all that stands around a gap must be.
        let (there, read) = match behind {
            0 => (self.config.model.positions(), begun.saturating_add(tokens).saturating_sub(1)),
            _ => (Some(self.config.model.seq + 1), begun.saturating_add(tokens).saturating_add(behind)),
        };
        let (after, shorten) =
            if behind > 0 { (format!(" before a suffix of {behind}"), " or the suffix") } else { Default::default() };
        match there {
            Some(there) if read > there => Err(Error::usage(format!(
                "the prompt's {begun} tokens and {tokens} more{after} make up to {read} positions, the model has {there}: \
                 shorten the prompt{shorten} or draw fewer tokens"
            ))),
            _ => Ok(text),
        }
    }
}

/// The text of tokens up to the end of the document, with gaps for masks.
fn draft(tokenizer: &dyn Tokenizer, tokens: &[i32]) -> String {
    let mut gap = [0; 4];
    let mut text = Vec::new();
    let known = |&id: &i32| u16::try_from(id).ok().filter(|&id| usize::from(id) < tokenizer.vocab());
    for token in tokens.iter().map(known).take_while(|&token| token != Some(tokenizer.end())) {
        let bytes = token.and_then(|token| tokenizer.token_bytes(token));
        text.extend_from_slice(bytes.unwrap_or(GAP.encode_utf8(&mut gap).as_bytes()));
    }
    String::from_utf8_lossy(&text).into_owned()
}
