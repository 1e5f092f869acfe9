use super::{Draws, Protocol};
use crate::config::{Chunking, Config};
use crate::data::Batch;
use crate::diffusion::{Cost, Estimate, Estimator, Lengths, Method, Text};
use crate::learn::Reader;
use crate::model::Params;
use autograd::Store;
use engine::{Error, Result};

/// Replicates of the draws for a text: the least number that has an error estimate.
const REPLICATES: usize = 2;

/// Scores texts under a model of masked diffusion.
#[derive(Debug)]
pub(super) struct Judge {
    reader: Reader,
    method: Method,
    estimator: Estimator,
    /// Whether texts are documents, which pay for their lengths, and what they pay if it is known.
    pub documents: bool,
    pub lengths: Option<Lengths>,
}

impl Judge {
    pub fn new(config: &Config, method: Method, draws: usize, params: &Params, store: &mut Store) -> Result<Self> {
        if !draws.is_multiple_of(REPLICATES) {
            return Err(Error::usage(format!(
                "{draws} draws: masked diffusion needs an even number, because two independent halves show the error"
            )));
        }
        let reader = Reader::new(config, method, config.train.rows(), params, store)?;
        let estimator = Estimator::new(config.diffusion.schedule, config.train.seed, REPLICATES, draws / REPLICATES)?;
        Ok(Self { reader, method, estimator, documents: config.data.chunking == Chunking::Documents, lengths: None })
    }

    /// Draws for the texts of a batch.
    pub fn batch(&self, protocol: Protocol, store: &mut Store, batch: &Batch) -> Result<Vec<Draws>> {
        let mut texts = Text::of(batch, true);
        if protocol == Protocol::Prefix {
            texts = texts.iter().map(Text::later_half).collect();
        }
        let (network, estimator) = (&mut self.reader.on(store), self.estimator);
        let cost = if protocol == Protocol::Normalised { Cost::LogP } else { self.method.cost };
        // By replicate of the draws, or by order.
        let nats: Vec<(Vec<f64>, Option<f64>)> = if protocol == Protocol::Orders {
            estimator.orders(network, &texts)?.into_iter().map(|nll| (nll, None)).collect()
        } else {
            let estimates = match protocol {
                Protocol::Paper => estimator.paper(network, &texts)?,
                _ => estimator.elbo(network, &texts)?,
            };
            let log_z = |e: &Estimate| (cost == Cost::ScoreEntropy).then_some(e.log_z);
            estimates.iter().map(|e| (e.replicates(cost), log_z(e))).collect()
        };
        let draws = texts.iter().zip(nats).map(|(text, (nll, log_z))| {
            Ok(Draws {
                id: text.sample.id,
                tokens: text.maskable().len(),
                bytes: text.sample.bytes as f64,
                exact: text.sample.nats,
                nll,
                kl: self.length(text)?,
                log_z,
                ..Draws::default()
            })
        });
        draws.collect()
    }

    /// What a text pays for its length, in nats.
    fn length(&self, text: &Text) -> Result<f64> {
        match &self.lengths {
            _ if !self.documents => Ok(0.0),
            Some(lengths) => lengths.cost(text),
            None => Err(Error::new("the lengths of the training documents are not known, so no document has a bound")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelKind;
    use crate::data::Source;
    use crate::diffusion::{Exact, Schedule};
    use crate::evaluate::{Evaluator, SequenceScore};
    use crate::run::stories;
    use crate::train::Trainer;
    use engine::Device;
    use std::sync::Arc;

    const KINDS: [ModelKind; 3] = [ModelKind::Mdlm, ModelKind::Sedd, ModelKind::Md4];

    fn config(kind: ModelKind, batch: usize) -> Config {
        let mut config = Config::preset("demo").unwrap();
        let sizes =
            format!("model.kind={kind} model.dim=16 model.heads=2 train.batch={batch} train.steps=12 slow.warmup=2");
        config.set_all(&sizes).unwrap();
        if kind == ModelKind::Md4 {
            config.set_all("diffusion.masking=count diffusion.schedule=cosine").unwrap();
        }
        config.resolved().unwrap()
    }

    /// A model after some steps on stories, and the losses of these in nats per token.
    fn trained(kind: ModelKind, steps: u64) -> (Trainer, Vec<f64>) {
        let mut trainer = Trainer::new(config(kind, 4), &Device::CPU).unwrap();
        let source = stories(&trainer.config, 1, 4 * steps).unwrap();
        let mut batch = Batch::new(4, trainer.config.model.seq);
        let step = |step: u64| {
            batch.fill(&*source, (4 * step..).map(Some)).unwrap();
            let report = trainer.train(&batch).unwrap();
            report.nll / report.tokens as f64
        };
        let losses = (0..steps).map(step).collect();
        (trainer, losses)
    }

    fn scores(trainer: &mut Trainer, batch: usize, protocol: Protocol, source: &Arc<dyn Source>) -> Vec<SequenceScore> {
        let config = config(trainer.config.model.kind, batch);
        let mut evaluator = Evaluator::new(&config, protocol, 0, 4, &trainer.params, &mut trainer.store).unwrap();
        evaluator.cut(Chunking::Documents, Some(&Lengths::of(&**source, config.model.seq).unwrap()));
        evaluator.score(&mut trainer.store, source, None, |_| ()).unwrap()
    }

    #[test]
    fn every_method_learns_and_is_scored_the_same_in_any_batch() {
        for kind in KINDS {
            let (mut trainer, losses) = trained(kind, 12);
            let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
            assert!(mean(&losses[8..]) < 0.9 * mean(&losses[..4]), "{kind}: {losses:?}");
            let source = stories(&trainer.config, 2, 3).unwrap();
            let protocols = Protocol::of(kind).iter().filter(|&&protocol| protocol != Protocol::Orders);
            for &protocol in protocols {
                let [alone, together] = [1, 3].map(|batch| scores(&mut trainer, batch, protocol, &source));
                assert_eq!(format!("{alone:?}"), format!("{together:?}"), "{kind} {}", protocol.name());
                assert!(alone.iter().all(|score| score.nats == score.nll + score.kl && score.noise > 0.0));
                // What a length costs depends on the text alone.
                assert!(alone.iter().all(|score| score.kl > 0.0), "{kind} {}", protocol.name());
            }
        }
    }

    #[test]
    fn a_document_does_not_get_its_length_for_nothing() {
        let (mut trainer, _) = trained(ModelKind::Mdlm, 1);
        let source = stories(&trainer.config, 2, 1).unwrap();
        let config = config(ModelKind::Mdlm, 1);
        let evaluator = Evaluator::new(&config, Protocol::Bound, 0, 2, &trainer.params, &mut trainer.store).unwrap();
        let error = evaluator.score(&mut trainer.store, &source, None, |_| ()).unwrap_err().to_string();
        assert_eq!(error, "the lengths of the training documents are not known, so no document has a bound");
        let mut evaluator = evaluator;
        evaluator.cut(Chunking::Windows, None);
        let scores = evaluator.score(&mut trainer.store, &source, None, |_| ()).unwrap();
        assert_eq!(scores[0].kl, 0.0, "the length of a window is fixed");
        let error = Evaluator::new(&config, Protocol::Bound, 0, 3, &trainer.params, &mut trainer.store).unwrap_err();
        assert!(error.to_string().contains("needs an even number"), "{error}");
    }

    /// With the trained network: the bound by draws equals the enumeration of all masks, and random orders lie below it.
    #[test]
    fn draws_agree_with_enumeration() {
        let (mut trainer, _) = trained(ModelKind::Mdlm, 12);
        let source = stories(&trainer.config, 2, 1).unwrap();
        let mut batch = Batch::new(1, trainer.config.model.seq);
        batch.fill(&*source, [Some(0)]).unwrap();
        let mut text = Text::of(&batch, true).remove(0);
        text.tokens.truncate(7);
        let method = ModelKind::Mdlm.method().unwrap();
        let (config, Trainer { params, store, .. }) = (config(ModelKind::Mdlm, 8), &mut trainer);
        let reader = Reader::new(&config, method, 8, params, store).unwrap();
        let network = &mut reader.on(store);
        let exact = Exact::of(network, &text).unwrap();
        let estimator = Estimator::new(Schedule::Linear, 3, 8, 12).unwrap();
        let value = estimator.elbo(network, std::slice::from_ref(&text)).unwrap()[0].value(method.cost);
        assert!((value.nats - exact.nelbo).abs() < 4.0 * value.noise.sqrt(), "{value:?} {exact:?}");
        assert!(value.noise.sqrt() < 0.1 * exact.nelbo && exact.nll < exact.nelbo, "{value:?} {exact:?}");
    }
}
