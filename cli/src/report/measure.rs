//! What is computed for the page: results by protocol, the audit, the cost of every token, and texts.

use super::Args;
use crate::eval;
use crate::output::note;
use crate::progress::bar;
use autograd::Store;
use engine::{Device, Error, ErrorKind, Result};
use lab::audit::{self, Audit};
use lab::eval::{Options, Row, Text, evaluate};
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
    /// The step after which the weights were saved, their digest and their number.
    pub step: u64,
    pub weights: String,
    pub parameters: usize,
    /// What it was judged by.
    pub text: Option<Text>,
    /// One for every protocol; none if nothing was judged.
    pub results: Vec<Row>,
    /// Of a model with latents.
    pub audit: Option<Audited>,
    pub texts: Vec<Reading>,
    pub samples: Vec<String>,
    /// What could not be done, and why.
    pub notes: Vec<String>,
}

/// An audit's rows with its verdict in words.
pub type Audited = (Vec<audit::Row>, String);

/// A text under the posterior that was fitted to it.
pub struct Reading {
    /// Every token with −log p(token | z, what stands before) in nats, the mean over draws of z.
    pub tokens: Vec<(u16, f64)>,
    /// The posterior's KL in nats; `None` without latents.
    pub kl: Option<f64>,
}

/// Computes what `args` asks for.
///
/// # Errors
/// A run that cannot be loaded, data that were named and cannot be used, and what the device cannot do. Whatever else fails
/// is noted and missing.
pub fn measure(args: &Args, run: &Run, device: &Device) -> Result<Measured> {
    let mut model = run.load(device, Work::Evaluation)?;
    let mut measured = Measured {
        step: model.step,
        weights: model.weights.clone(),
        parameters: model.params.count(),
        text: None,
        results: Vec::new(),
        audit: None,
        texts: Vec::new(),
        samples: Vec::new(),
        notes: model.warnings.clone(),
    };
    let mut left_out = |what: &str, error: Error| -> Result<()> {
        match error.kind() {
            // Another device may succeed.
            ErrorKind::Device => Err(error),
            _ => {
                measured.notes.push(format!("{}: no {what}: {error}", run.path().display()));
                Ok(())
            }
        }
    };
    if args.limit > 0 {
        match eval::text(args.data.as_deref(), run, &model, args.limit) {
            Err(error) if args.data.is_some() => return Err(error),
            Err(error) => left_out("results, audit and texts", error)?,
            Ok((source, text)) => match judge(args, run, &mut model, &source, &text) {
                Ok((results, audit)) => {
                    (measured.results, measured.audit, measured.text) = (results, audit, Some(text));
                    match read(&mut model, &source, args.limit.min(TEXTS)) {
                        Ok(texts) => measured.texts = texts,
                        Err(error) => left_out("texts", error)?,
                    }
                }
                Err(error) => left_out("results, audit and texts", error)?,
            },
        }
    }
    if args.samples > 0 {
        // The plans of before are given back first.
        drop(model);
        match write(args, run, device) {
            Ok(samples) => measured.samples = samples,
            Err(error) => left_out("samples", error)?,
        }
    }
    measured.notes.iter().for_each(|line| note(format_args!("note: {line}")));
    Ok(measured)
}

/// Scores by all protocols, and audits what has latents.
fn judge(
    args: &Args,
    run: &Run,
    model: &mut Loaded,
    source: &Arc<dyn Source>,
    text: &Text,
) -> Result<(Vec<Row>, Option<Audited>)> {
    let config = model.config.clone();
    if !config.model.kind.has_latents() {
        let protocols = Protocol::of(config.model.kind).to_vec();
        let options = Options { protocols, steps: config.fast.steps, samples: DRAWS, limit: Some(args.limit) };
        let (bar, show) = eval::progress();
        let rows = evaluate(model, source, &options, show);
        bar.finish_and_clear();
        return Ok((rows?, None));
    }
    let trained = config.fast.steps;
    let mut steps = vec![(trained / 4).max(1), trained.max(1), 4 * trained.max(1)];
    steps.dedup();
    let options = audit::Options { steps, draws: DRAWS, sequences: args.limit };
    let bar = bar(1, "{bar:24} {percent}% of all fast steps  {msg}  ETA {eta}");
    bar.set_message(run.path().display().to_string());
    let audited = audit::audit(&config, &model.params, &mut model.store, source, &options, |done, work| {
        bar.set_length(work);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let audited = audited?;
    let corpus = (args.data.is_none() && config.data.paths.is_empty()).then(Corpus::default);
    let words = audit::verdict(&Audit { run, model, text, corpus, draws: DRAWS, rows: &audited });
    Ok((rows(&config, &audited), Some((audited, words))))
}

/// What an audit says of the protocols at the T of training.
fn rows(config: &Config, rows: &[audit::Row]) -> Vec<Row> {
    let at = rows.iter().find(|row| row.steps == config.fast.steps.max(1));
    at.map_or_else(Vec::new, |at| {
        let scores = [&at.elbo, &at.iwae, &at.prefix, &at.fixed];
        Protocol::of(config.model.kind)
            .iter()
            .zip(scores)
            .map(|(&protocol, scores)| Row::of(protocol, &scores.0))
            .collect()
    })
}

/// Reads the first `count` texts of `source`, one by one.
fn read(model: &mut Loaded, source: &Arc<dyn Source>, count: u64) -> Result<Vec<Reading>> {
    let Loaded { config, params, store, .. } = model;
    let inputs = Inputs::new(1, config.model.seq, params.dtype(), store);
    let fast = config.model.kind.has_latents().then(|| fast(config, params, &inputs, store)).transpose()?;
    let latents = fast.as_ref().map(|fast| &fast.latents);
    let score = Score::new(&config.model, params, &inputs, latents, config.train.seed, store)?;
    config.check_room(store, Work::Evaluation)?;
    let mut sampler = Sampler::new(source.clone(), Order::Once)?;
    let mut batch = Batch::new(1, config.model.seq);
    let mut readings = Vec::new();
    for first in 0..source.samples().map_or(count, |samples| samples.min(count)) {
        sampler.fill(first, &mut batch)?;
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
fn write(args: &Args, run: &Run, device: &Device) -> Result<Vec<String>> {
    let mut model = run.load(device, Work::Generation)?;
    let Loaded { config, params, store, .. } = &mut model;
    // Behind nothing there is room for as many tokens as there are positions.
    let room = if args.prompt.is_none() { config.model.positions() } else { None };
    let writing = Writing { tokens: args.tokens.min(room.unwrap_or(usize::MAX)), ..Writing::default() };
    let mut writer = Writer::new(config, params, store, lab::text::tokenizer(config.data.tokenizer), writing)?;
    (0..args.samples).map(|sample| writer.whole(store, args.prompt.as_deref(), sample)).collect()
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
            let args = Args {
                runs: vec![path],
                out: "report.html".into(),
                data: None,
                limit: 3,
                samples: 0,
                tokens: 1,
                prompt: None,
            };
            let (source, text) = lab::eval::stories(&run, 3).unwrap();
            let (rows, audit) = judge(&args, &run, &mut model, &source, &text).unwrap();
            assert_eq!(audit.is_some(), kind == "ltm");
            let protocols: Vec<Protocol> = rows.iter().map(|row| row.figures.protocol).collect();
            assert_eq!(protocols, Protocol::of(config.model.kind));
            let texts = read(&mut model, &source, 3).unwrap();
            for row in &rows {
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
                    for (text, score) in texts.iter().zip(&scores) {
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
