use super::{Draws, Protocol};
use crate::config::{Chunking, Config};
use crate::data::Batch;
use crate::diffusion::{Estimator, Lengths, Method, Text};
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
    documents: bool,
    pub lengths: Option<Lengths>,
}

impl Judge {
    pub fn new(config: &Config, method: Method, draws: usize, params: &Params, store: &mut Store) -> Result<Self> {
        if !draws.is_multiple_of(REPLICATES) {
            return Err(Error::usage(format!(
                "{draws} draws: masked diffusion needs an even number, because two independent halves show the error"
            )));
        }
        let reader = Reader::new(config, method, config.train.batch, params, store)?;
        let estimator = Estimator::new(method.schedule, config.train.seed, REPLICATES, draws / REPLICATES)?;
        Ok(Self { reader, method, estimator, documents: config.data.chunking == Chunking::Documents, lengths: None })
    }

    /// Draws for the texts of a batch.
    pub fn batch(&self, protocol: Protocol, store: &mut Store, batch: &Batch) -> Result<Vec<Draws>> {
        let mut texts = Text::of(batch, true);
        if protocol == Protocol::Prefix {
            texts = texts.iter().map(Text::later_half).collect();
        }
        let (network, estimator, cost) = (&mut self.reader.on(store), self.estimator, self.method.cost);
        let nats: Vec<Vec<f64>> = match protocol {
            Protocol::Orders => estimator.orders(network, &texts)?,
            Protocol::Paper => estimator.paper(network, &texts)?.iter().map(|e| e.replicates(cost)).collect(),
            _ => estimator.elbo(network, &texts)?.iter().map(|e| e.replicates(cost)).collect(),
        };
        let draws = texts.iter().zip(nats).map(|(text, nll)| {
            Ok(Draws {
                id: text.sample.id,
                tokens: text.maskable().len(),
                bytes: text.sample.bytes as f64,
                exact: text.sample.nats,
                nll,
                kl: self.length(text)?,
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
