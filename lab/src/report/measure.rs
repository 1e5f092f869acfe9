use super::Options;
use crate::audit::{self, Audit};
use crate::eval::{self, Row, Text};
use crate::text::tokenizer;
use autograd::Store;
use engine::{Device, ErrorKind, Result};
use ltm::config::{Config, Work};
use ltm::corpus::Corpus;
use ltm::data::{Batch, Order, Sampler, Source};
use ltm::evaluate::Protocol;
use ltm::generate::{Writer, Writing};
use ltm::learn::{Fast, FastOptions, Inputs, Score};
use ltm::model::Params;
use ltm::run::{Loaded, Run};
use std::sync::Arc;

/// Draws from every posterior.
pub const DRAWS: usize = 8;

/// Texts whose tokens are shown.
const TEXTS: u64 = 3;

/// What was computed of a run.
pub struct Measured {
    /// The step after which the weights were saved.
    pub step: u64,
    /// SHA-256 of the weights.
    pub weights: String,
    /// The number of weights.
    pub parameters: usize,
    /// The text that the run was judged by.
    pub text: Option<Text>,
    /// A row for every protocol; none if nothing was judged.
    pub results: Vec<Row>,
    /// The audit's rows, and its verdict in words, of a model with latents.
    pub audit: Option<(Vec<audit::Row>, String)>,
    /// The first texts, token by token.
    pub readings: Vec<Reading>,
    /// What the run wrote.
    pub samples: Vec<String>,
    /// What could not be done, and why.
    pub notes: Vec<String>,
}

/// A text under the posterior that was fitted to it.
pub struct Reading {
    /// Every token with −log p(token | z, the tokens before it) in nats, the mean over draws of z.
    pub tokens: Vec<(u16, f64)>,
    /// The posterior's KL in nats; `None` without latents.
    pub kl: Option<f64>,
}

/// Calls with the work done, of all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Measured {
    /// Computes what `options` ask for.
    ///
    /// # Errors
    /// A run that cannot be loaded, data that were named and cannot be used, and failures of the device. Whatever else fails is
    /// noted and missing.
    pub fn new(options: &Options, run: &Run, device: &Device, progress: Progress<'_>) -> Result<Self> {
        let mut model = run.load(device, Work::Evaluation)?;
        let mut measured = Self::of(&model);
        if options.limit > 0 {
            let source = match &options.data {
                Some(path) => Ok(eval::named(path, run)?),
                None => eval::validation(run, &model, options.limit),
            };
            let judged = source.and_then(|(source, text)| {
                measured.judge(options, run, &mut model, &source, &text, progress)?;
                if text.is_training_text {
                    measured.notes.push(format!("{}: {text}", run.path().display()));
                }
                measured.text = Some(text);
                measured.readings = read(&mut model, &source, options.limit.min(TEXTS))?;
                Ok(())
            });
            measured.note(run, "results, audit or texts", judged)?;
        }
        if options.samples > 0 {
            // The plans of the evaluation are given back first.
            drop(model);
            let written = write(options, run, device).map(|samples| measured.samples = samples);
            measured.note(run, "samples", written)?;
        }
        Ok(measured)
    }

    /// What a model says of itself.
    fn of(model: &Loaded) -> Self {
        Self {
            step: model.step,
            weights: model.weights.clone(),
            parameters: model.params.count(),
            text: None,
            results: Vec::new(),
            audit: None,
            readings: Vec::new(),
            samples: Vec::new(),
            notes: model.warnings.clone(),
        }
    }

    /// Notes what failed, unless it is the device: what a GPU cannot do, the CPU may.
    fn note(&mut self, run: &Run, what: &str, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if error.kind() == ErrorKind::Device => Err(error),
            Err(error) => {
                self.notes.push(format!("{}: no {what}: {error}", run.path().display()));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Scores by all protocols, and audits what has latents.
    fn judge(
        &mut self,
        options: &Options,
        run: &Run,
        model: &mut Loaded,
        source: &Arc<dyn Source>,
        text: &Text,
        progress: Progress<'_>,
    ) -> Result<()> {
        let config = model.config.clone();
        let trained = config.fast.steps.max(1);
        if !config.model.kind.has_latents() {
            let protocols = Protocol::of(config.model.kind).to_vec();
            let limit = Some(options.limit);
            let options = eval::Options { protocols, steps: config.fast.steps, samples: DRAWS, limit };
            self.results = eval::evaluate(model, source, &options, |_, done, all| progress(done, all))?;
            return Ok(());
        }
        let mut steps = vec![(trained / 4).max(1), trained, 4 * trained];
        steps.dedup();
        let wanted = audit::Options { steps, draws: DRAWS, sequences: options.limit };
        let rows = audit::audit(&config, &model.params, &mut model.store, source, &wanted, progress)?;
        let corpus = (options.data.is_none() && config.data.paths.is_empty()).then(Corpus::default);
        let words = audit::verdict(&Audit { run, model, text, corpus, draws: DRAWS, rows: &rows });
        self.results = results(&config, &rows);
        self.audit = Some((rows, words));
        Ok(())
    }
}

/// The protocols at the T of training, from the audit's row.
fn results(config: &Config, rows: &[audit::Row]) -> Vec<Row> {
    let Some(at) = rows.iter().find(|row| row.steps == config.fast.steps.max(1)) else { return Vec::new() };
    let scores = [
        (Protocol::Elbo, &at.elbo),
        (Protocol::Iwae, &at.iwae),
        (Protocol::Prefix, &at.prefix),
        (Protocol::Fixed, &at.fixed),
    ];
    scores.map(|(protocol, scores)| Row::of(protocol, &scores.0)).into()
}

/// Reads the first `count` texts of `source`, one by one.
fn read(model: &mut Loaded, source: &Arc<dyn Source>, count: u64) -> Result<Vec<Reading>> {
    let Loaded { config, params, store, .. } = model;
    let inputs = Inputs::new(1, config.model.seq, params.dtype, store);
    let fast = config.model.kind.has_latents().then(|| fast(config, params, &inputs, store)).transpose()?;
    let latents = fast.as_ref().map(|fast| &fast.latents);
    let score = Score::new(&config.model, params, &inputs, latents, config.train.seed, store)?;
    config.check_room(store, Work::Evaluation)?;
    let mut sampler = Sampler::new(source.clone(), Order::Once);
    let mut batch = Batch::new(1, config.model.seq);
    let mut readings = Vec::new();
    for first in 0..source.samples().map_or(count, |samples| samples.min(count)) {
        sampler.fill(first, &mut batch);
        inputs.load(store, &config.model, &batch)?;
        let mut kl = None;
        if let Some(fast) = &fast {
            fast.fit(store, config.fast.rate_end, 0, |_, _| ());
            kl = Some(fast.latents.posterior_kl(store)?[0]);
        }
        score.begin(store);
        let draws = if fast.is_some() { DRAWS } else { 1 };
        let mut nll = vec![0.0; config.model.seq];
        for draw in 0..draws {
            match fast {
                Some(_) => _ = score.draw(store, draw as u32)?,
                None => _ = score.exact(store)?,
            }
            nll.iter_mut().zip(score.token_nll(store)?).for_each(|(sum, x)| *sum += x / draws as f64);
        }
        let scored = batch.targets.iter().zip(&nll).filter(|(target, _)| **target >= 0);
        readings.push(Reading { tokens: scored.map(|(&target, &nll)| (target as u16, nll)).collect(), kl });
    }
    Ok(readings)
}

fn fast(config: &Config, params: &Params, inputs: &Inputs, store: &mut Store) -> Result<Fast> {
    let options = FastOptions { seed: config.train.seed, ..FastOptions::default() };
    Fast::new(&config.model, &config.fast, params, inputs, store, &options)
}

/// Lets the run write.
fn write(options: &Options, run: &Run, device: &Device) -> Result<Vec<String>> {
    let mut model = run.load(device, Work::Generation)?;
    let Loaded { config, params, store, .. } = &mut model;
    // Behind nothing there is room for as many tokens as there are positions.
    let room = if options.prompt.is_none() { config.model.positions() } else { None };
    let writing = Writing { tokens: options.tokens.min(room.unwrap_or(usize::MAX)), ..Writing::default() };
    let mut writer = Writer::new(config, params, store, tokenizer(config.data.tokenizer), writing)?;
    (0..options.samples).map(|sample| writer.whole(store, options.prompt.as_deref(), sample)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::evaluate::{Evaluator, Total};
    use ltm::run::NewFolder;

    /// The tokens' costs add up to what the protocol prints, and the audit's rows are the protocols'.
    #[test]
    fn the_page_says_what_eval_says() {
        for kind in ["ltm", "ar"] {
            let mut config = Config::preset("demo").unwrap();
            let settings = [
                ("model.kind", kind),
                ("model.dim", "16"),
                ("model.heads", "2"),
                ("train.batch", "2"),
                ("fast.steps", "4"),
            ];
            settings.iter().for_each(|(key, value)| config.set(key, value).unwrap());
            let config = config.resolved().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run");
            let mut store = Store::new(Device::Cpu);
            let params = Params::new(&config.model, engine::DType::F32, &mut store);
            params.init(&mut store, 5);
            let run = Run::create_with_weights(&NewFolder::at(&path).unwrap(), &config, &store, &params).unwrap();
            let mut model = run.load(&Device::Cpu, Work::Evaluation).unwrap();
            let options = Options { data: None, limit: 3, samples: 0, tokens: 1, prompt: None };
            let (source, text) = eval::stories(&run, 3).unwrap();
            let mut measured = Measured::of(&model);
            measured.judge(&options, &run, &mut model, &source, &text, &mut |_, _| ()).unwrap();
            measured.readings = read(&mut model, &source, 3).unwrap();
            assert_eq!(measured.audit.is_some(), kind == "ltm");
            let protocols: Vec<Protocol> = measured.results.iter().map(|row| row.figures.protocol).collect();
            assert_eq!(protocols, Protocol::of(config.model.kind));
            for row in &measured.results {
                let evaluator =
                    Evaluator::new(&config, row.figures.protocol, 4, DRAWS, &model.params, &mut model.store).unwrap();
                let scores = evaluator.score(&mut model.store, &source, None, |_| ()).unwrap();
                let total = Total::of(&scores);
                let close = |a: f64, b: f64| {
                    assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{kind} {:?}: {a} {b}", row.figures.protocol)
                };
                close(row.figures.nats, total.nats);
                close(row.figures.nll, total.nll);
                close(row.figures.perplexity, total.perplexity());
                close(row.figures.bits_per_byte, total.bits_per_byte());
                if matches!(row.figures.protocol, Protocol::Elbo | Protocol::Nll) {
                    for (text, score) in measured.readings.iter().zip(&scores) {
                        let nll: f64 = text.tokens.iter().map(|(_, nll)| nll).sum();
                        assert!((nll - score.nll).abs() < 1e-4 * score.nll, "{nll} {}", score.nll);
                        assert_eq!(text.tokens.len(), score.tokens);
                        assert!((text.kl.unwrap_or(0.0) - score.kl).abs() < 1e-4, "{:?} {}", text.kl, score.kl);
                    }
                }
            }
        }
    }
}
