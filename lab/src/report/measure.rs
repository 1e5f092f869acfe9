use super::Options;
use crate::audit;
use crate::eval::{self, Row, Text};
use crate::ledger::{self, Ledger};
use crate::reading::{Reader, Reading};
use crate::text::writer;
use engine::{Device, Error, ErrorKind, Result};
use ltm::config::Work;
use ltm::data::Source;
use ltm::evaluate::Protocol;
use ltm::generate::Writing;
use ltm::run::{Loaded, Run};
use std::sync::Arc;

/// Draws from every posterior.
pub const DRAWS: usize = 8;

/// Number of texts whose tokens are shown.
const TEXTS: u64 = 3;

/// The measurements of a run.
#[derive(Default)]
pub struct Measured {
    /// The step after which the weights were saved; `None` if the run cannot be loaded.
    pub step: Option<u64>,
    /// SHA-256 of the weights.
    pub weights: Option<String>,
    /// The text of the evaluation.
    pub text: Option<Text>,
    /// One row per protocol; empty without an evaluation.
    pub results: Vec<Row>,
    /// The rows of the audit, for a model with latents.
    pub audit: Vec<audit::Row>,
    /// What the tokens cost by what they tell.
    pub ledger: Option<Ledger>,
    /// The first texts, token by token.
    pub readings: Vec<Reading>,
    /// The generated texts.
    pub samples: Vec<String>,
    /// Notes on what failed, and why.
    pub notes: Vec<String>,
}

impl Measured {
    /// Computes the measurements of `options`; calls `progress` with the work done and the total.
    ///
    /// # Errors
    /// If named data or a named checkpoint cannot be used, or the device fails. Other failures become notes, and their
    /// results are missing; without a checkpoint all results are.
    pub fn new(options: &Options, run: &Run, device: &Device, mut progress: impl FnMut(u64, u64)) -> Result<Self> {
        let mut measured = Self::default();
        let mut model = match run.load(device, Work::Evaluation) {
            Ok(model) => model,
            Err(error) if error.kind == ErrorKind::Usage => return Err(error),
            Err(error) => {
                measured.note(run, "results, audit, texts or samples", error)?;
                return Ok(measured);
            }
        };
        (measured.step, measured.weights) = (Some(model.step), Some(model.weights.clone()));
        measured.notes.clone_from(&model.warnings);
        if options.limit > 0 {
            let source = match eval::chosen(run, &model, options.data.as_deref(), options.limit) {
                Err(error) if options.data.is_some() => return Err(error),
                source => source,
            };
            let judged = source.and_then(|(source, text)| {
                let half = |done, all| progress(done, 2 * all);
                (measured.results, measured.audit) = judge(options.limit, &mut model, &source, half)?;
                if text.is_training_text {
                    measured.notes.push(format!("{}: {text}", run.path.display()));
                }
                measured.text = Some(text);
                if model.config.model.kind.method().is_some() {
                    // Tokens behind masks have no cost of their own.
                    return Ok(());
                }
                let steps = model.config.fast.steps;
                let wanted = ledger::Options {
                    steps,
                    draws: DRAWS,
                    sequences: options.limit,
                    stories: options.limit.min(32) as u32,
                    probe: 8 * options.limit.min(64),
                };
                let half = |done, all| progress(all + done, 2 * all);
                measured.ledger = Some(Ledger::new(&mut model, &source, &wanted, half)?);
                measured.readings =
                    Reader::new(&mut model, steps, DRAWS)?.read(&source, options.limit.min(TEXTS), |_| ())?;
                Ok(())
            });
            judged.or_else(|error| measured.note(run, "results, audit or texts", error))?;
        }
        if options.samples > 0 {
            // The memory of the evaluation is freed first.
            drop(model);
            let written = write(options, run, device).map(|samples| measured.samples = samples);
            written.or_else(|error| measured.note(run, "samples", error))?;
        }
        Ok(measured)
    }

    /// Notes a failure, unless it is the device's, because the CPU may work when a GPU cannot.
    fn note(&mut self, run: &Run, what: &str, error: Error) -> Result<()> {
        if error.kind == ErrorKind::Device {
            return Err(error);
        }
        self.notes.push(format!("{}: no {what}: {error}", run.path.display()));
        Ok(())
    }
}

/// Scores by all protocols, and audits a model with latents.
fn judge(
    limit: u64,
    model: &mut Loaded,
    source: &Arc<dyn Source>,
    progress: impl FnMut(u64, u64),
) -> Result<(Vec<Row>, Vec<audit::Row>)> {
    let config = model.config.clone();
    let protocols = Protocol::all(config.model.kind);
    if !config.model.kind.infers() {
        let limit = Some(limit);
        let options = eval::Options { protocols, steps: config.fast.steps, samples: DRAWS, limit };
        return Ok((eval::evaluate(model, source, &options, progress)?, Vec::new()));
    }
    let trained = config.fast.steps.max(1);
    let mut steps = vec![(trained / 4).max(1), trained, 4 * trained];
    steps.dedup();
    let wanted = audit::Options { steps, draws: DRAWS, sequences: limit };
    let rows = audit::audit(model, source, &wanted, progress)?;
    let at = audit::as_trained(&rows, &config);
    let scores = protocols.into_iter().zip([&at.elbo, &at.iwae, &at.prefix, &at.fixed]);
    let results = scores.map(|(protocol, scores)| Row::of(protocol, config.model.kind, &scores.0)).collect();
    Ok((results, rows))
}

/// Generates texts.
fn write(options: &Options, run: &Run, device: &Device) -> Result<Vec<String>> {
    let mut model = run.load(device, Work::Generation)?;
    // Without a prompt, as many tokens fit as there are positions.
    let room = if options.prompt.is_none() { model.config.model.positions() } else { None };
    // Masked diffusion does not begin a document without knowing its length, and draws that.
    let tokens = model.lengths.is_none().then_some(options.tokens.min(room.unwrap_or(usize::MAX)));
    let writing = Writing { tokens, ..Writing::default() };
    let mut writer = writer(&mut model, writing, options.samples.into())?;
    (0..options.samples).map(|sample| writer.whole(&mut model.store, options.prompt.as_deref(), sample)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use autograd::Store;
    use ltm::config::Config;
    use ltm::json::line;
    use ltm::model::Params;
    use ltm::run::{NewFolder, REPORT_SEED, stories};

    /// The audit's rows equal the protocols' rows, and the tokens' costs add up to them.
    #[test]
    fn the_page_says_what_eval_says() {
        for kind in ["ltm", "ar", "ar-latent"] {
            let mut config = Config::preset("demo").unwrap();
            config
                .set_all(&format!("model.kind={kind} model.dim=16 model.heads=2 train.batch=2 fast.steps=4"))
                .unwrap();
            let config = config.resolved().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("run");
            let mut store = Store::new(Device::CPU);
            let params = Params::new(&config.model, engine::DType::F32, &mut store);
            params.init(&mut store, 5);
            let run = Run::create_with_weights(&NewFolder::at(&path).unwrap(), &config, &store, &params).unwrap();
            let mut model = run.load(&Device::CPU, Work::Evaluation).unwrap();
            let source = stories(&config, REPORT_SEED, 3).unwrap();
            let mut last = (0, 1);
            let (results, audit) = judge(3, &mut model, &source, |done, work| last = (done, work)).unwrap();
            assert_eq!((last.0, audit.is_empty()), (last.1, kind != "ltm"));
            for row in audit {
                let kl = |scores: &audit::Scores| scores.0.iter().map(|score| score.kl).collect::<Vec<_>>();
                assert_eq!(kl(&row.fixed), kl(&row.fixed_at_fresh_noise));
                let mean = kl(&row.elbo).iter().sum::<f64>() / 3.0;
                assert!((row.kl_by_latent.iter().sum::<f64>() - mean).abs() < 1e-9 * mean);
                assert_eq!(row.kl_by_latent.len(), config.model.layers * config.model.latents);
            }
            let protocols = Protocol::of(config.model.kind).to_vec();
            let options = eval::Options { protocols, steps: 4, samples: DRAWS, limit: None };
            let expected = eval::evaluate(&mut model, &source, &options, |_, _| ()).unwrap();
            assert_eq!(line(&results), line(&expected), "{kind}");
            let mut reader = Reader::new(&mut model, 4, DRAWS).unwrap();
            let readings = reader.read(&source, 3, |_| ()).unwrap();
            for (text, nats) in readings.iter().zip(&expected[0].sequence_nats) {
                let found = text.tokens.iter().map(|(_, nll)| nll).sum::<f64>() + text.kl.unwrap_or(0.0);
                assert!((found - nats).abs() < 1e-4 * nats, "{found} {nats}");
            }
            assert_eq!(readings.len(), 3);
        }
    }
}
