//! `ltm generate`.

use super::evaluation::warn;
use super::output::{note, print, write};
use super::stream::TextStream;
use super::{device, memory, threads};
use engine::{Error, Result};
use ltm::config::{Config, ModelKind, Work};
use ltm::data::Tokenizer;
use ltm::generate::{Sampler, Sampling, Thinker, Walk, front};
use ltm::run::{Loaded, Run};
use std::path::PathBuf;
use std::sync::Arc;

/// Inferences of one text at most, and texts: both share the 32 bits that key an inference's noise.
pub const ROUNDS: u32 = 1 << 16;

/// Let a trained model write
///
/// With --prompt, latent thoughts are inferred from the prompt, then the text goes on with them held. With --unconditional
/// they are drawn from the prior. Tokens appear as they are drawn. The same seed gives the same text.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("from").required(true))]
pub struct Args {
    /// Folder of a training run
    run: PathBuf,
    /// Text to go on with
    #[arg(long, value_name = "TEXT", group = "from")]
    prompt: Option<String>,
    /// Begin with nothing
    #[arg(long, group = "from")]
    unconditional: bool,
    #[command(flatten)]
    pub writing: Writing,
}

/// How to write.
#[derive(clap::Args, Clone)]
pub struct Writing {
    /// Most tokens to draw; fewer if the document ends
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub tokens: usize,
    /// Logits are divided by it; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Only the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Seed of latents and tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// How many texts
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub samples: u32,
    /// Fast steps of inference [default: as in training]
    #[arg(long, value_name = "T")]
    pub steps: Option<usize>,
    /// Infer the latents again from all text so far every R tokens; 0 never
    #[arg(long, value_name = "R", default_value_t = 0)]
    pub refit: usize,
}

pub fn run(args: &Args, threads: Option<usize>, device: device::Choice) -> Result<()> {
    let run = Run::open(&args.run)?;
    threads::inside(threads.unwrap_or(run.config().train.threads), || {
        let (mut model, mut writer) = device::within(device, |device| {
            memory::check(run.config(), Work::Generation, device)?;
            let mut model = run.load(device, Work::Generation)?;
            let writer = Writer::new(&mut model, args.writing.clone())?;
            Ok((model, writer))
        })?;
        warn(&model);
        let begun = writer.beginning(&model.config, args.prompt.as_deref())?.len();
        writer.check_positions(&model.config, begun)?;
        limits(begun, args.writing.tokens, model.config.model.seq).iter().for_each(note);
        for sample in 0..args.writing.samples {
            if args.writing.samples > 1 {
                print(format_args!("{}--- {} ---", if sample > 0 { "\n" } else { "" }, sample + 1))?;
            }
            let prompt = args.prompt.as_deref();
            write(prompt.unwrap_or_default())?;
            writer.text(&mut model, prompt, sample, &mut |text| write(text))?;
            print("")?;
        }
        Ok(())
    })
}

/// What to say of a text that begins with `begun` tokens and goes on with up to `tokens`, where training had `seq`
/// positions.
fn limits(begun: usize, tokens: usize, seq: usize) -> Vec<String> {
    let mut notes = Vec::new();
    // Latents are inferred from `seq` pairs of a token and its successor.
    if begun > seq + 1 {
        notes.push(format!(
            "note: the prompt has {} tokens, a training sequence {seq}: only the last of them are read",
            begun - 1
        ));
    }
    // Only as much of the prompt is read as latents are inferred from, and the last token drawn not at all.
    let read = begun.min(seq + 1).saturating_add(tokens).saturating_sub(1);
    if read > seq {
        notes.push(format!(
            "note: prompt and --tokens make up to {read} positions, the model was trained on {seq}: what comes behind them may be worse"
        ));
    }
    notes
}

/// Writes texts with a model.
pub struct Writer {
    options: Writing,
    /// A model without latents does not think ahead.
    thinker: Option<Thinker>,
    walk: Walk,
    tokenizer: Arc<dyn Tokenizer>,
}

impl Writer {
    /// Plans the writing.
    ///
    /// # Errors
    /// Options that cannot be.
    pub fn new(model: &mut Loaded, options: Writing) -> Result<Self> {
        let config = &mut model.config;
        // The noise of inference comes from the configuration's seed.
        config.train.seed = options.seed;
        let steps = options.steps.unwrap_or(config.fast.steps);
        config.fast.steps = steps;
        config.resolved()?;
        Sampler::new(options.sampling(), 0)?;
        if options.samples == 0 {
            return Err(Error::usage("--samples 0: must be at least 1"));
        }
        if options.stop.iter().any(String::is_empty) {
            return Err(Error::usage("--stop is empty: every text would end before it begins"));
        }
        if options.samples >= ROUNDS {
            return Err(Error::usage(format!("--samples {}: must be less than {ROUNDS}", options.samples)));
        }
        if options.refit > 0 && options.tokens / options.refit >= ROUNDS as usize {
            return Err(Error::usage(format!(
                "--refit {} infers latents {} times in --tokens {}: must be less than {ROUNDS} times",
                options.refit,
                options.tokens / options.refit,
                options.tokens
            )));
        }
        let tokenizer = lab::text::tokenizer(config.data.tokenizer);
        let thinker = match config.model.kind {
            ModelKind::Ltm => Some(Thinker::new(config, steps, &model.params, &mut model.store)?),
            ModelKind::Ar | ModelKind::Gpt2 => None,
        };
        let walk = Walk::new(&config.model, &model.params, thinker.as_ref().map(Thinker::z), &mut model.store)?;
        config.check_room(&model.store, Work::Generation)?;
        Ok(Self { options, thinker, walk, tokenizer })
    }

    /// Writes text number `sample`, behind `prompt` if there is one; `show` gets it as it comes, without the prompt.
    ///
    /// # Errors
    /// A prompt without text, weights that are damaged, and the errors of `show`.
    pub fn text(
        &mut self,
        model: &mut Loaded,
        prompt: Option<&str>,
        sample: u32,
        show: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let mut text = self.beginning(&model.config, prompt)?;
        self.check_positions(&model.config, text.len())?;
        // Every inference, of every text, has its own noise.
        let mut round = sample * ROUNDS;
        match (&self.thinker, prompt) {
            (Some(thinker), Some(_)) => thinker.infer(&model.config, &mut model.store, &text, round)?,
            (Some(thinker), None) => thinker.prior(&mut model.store, self.options.seed, sample),
            (None, _) => {}
        }
        let mut sampler = Sampler::new(self.options.sampling(), sample)?;
        let mut stream = TextStream::new(&self.options.stop);
        let mut logits = self.read(model, &text);
        for drawn in 1..=self.options.tokens {
            let token = sampler.next(&logits[..self.tokenizer.vocab()])?;
            if token == self.tokenizer.end() {
                break;
            }
            text.push(token);
            let shown = stream.push(self.tokenizer.token_bytes(token).unwrap_or_default());
            show(&shown.text)?;
            if shown.stopped || drawn == self.options.tokens {
                break;
            }
            if let Some(thinker) = &self.thinker
                && self.options.refit > 0
                && drawn.is_multiple_of(self.options.refit)
            {
                round += 1;
                thinker.infer(&model.config, &mut model.store, &text, round)?;
                logits = self.read(model, &text);
            } else {
                logits = self.walk.step(&mut model.store, token);
            }
        }
        show(&stream.finish())
    }

    /// That a text that begins with `begun` tokens can be as long as it may become: learned positions have an end.
    fn check_positions(&self, config: &Config, begun: usize) -> Result<()> {
        // The last token drawn is not read.
        let needed = begun.saturating_add(self.options.tokens).saturating_sub(1);
        match config.model.positions() {
            Some(there) if needed > there => Err(Error::usage(format!(
                "the prompt's {begun} tokens and --tokens {} make up to {needed} positions, the model has {there}: {}",
                self.options.tokens,
                match (there + 1).saturating_sub(begun) {
                    0 => "shorten the prompt".to_string(),
                    most => format!("use at most --tokens {most}"),
                }
            ))),
            _ => Ok(()),
        }
    }

    /// The tokens that a text begins with.
    fn beginning(&self, config: &Config, prompt: Option<&str>) -> Result<Vec<u16>> {
        let mut text = front(&*self.tokenizer, config.data.chunking)?;
        match prompt {
            Some("") => return Err(Error::usage("--prompt is empty: give it some text, or use --unconditional")),
            Some(prompt) => self.tokenizer.encode(prompt.as_bytes(), &mut text)?,
            None => {}
        }
        Ok(text)
    }

    /// Reads `text` at the present latents, as much of it as they were inferred from; the logits of what comes next.
    fn read(&mut self, model: &mut Loaded, text: &[u16]) -> Vec<f64> {
        self.walk.begin(&mut model.store);
        let mut logits = Vec::new();
        for &token in &text[text.len().saturating_sub(model.config.model.seq + 1)..] {
            logits = self.walk.step(&mut model.store, token);
        }
        logits
    }
}

impl Writing {
    fn sampling(&self) -> Sampling {
        Sampling { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p, seed: self.seed }
    }
}
