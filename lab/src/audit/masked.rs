//! The audit of a model of masked diffusion: which of its numbers are bounds, and a check of the estimator on texts short enough to
//! enumerate all masks.

use crate::eval::Row;
use crate::table::{Table, digits, plus_minus};
use engine::Result;
use ltm::data::{Batch, Source};
use ltm::diffusion::{Estimator, Exact, Text, Told};
use ltm::evaluate::Protocol;
use ltm::learn::Reader;
use ltm::run::Loaded;
use std::sync::Arc;

/// Tokens of a text whose masks are enumerated.
const SHORT: usize = 8;
/// Such texts.
const TEXTS: u64 = 4;
/// Replicates of their draws, and draws in each.
const REPLICATES: usize = 16;
const DRAWS: usize = 16;

/// The exact cost of a short text under the model, and its estimate by draws.
#[derive(Clone, Copy, Debug)]
pub struct Toy {
    /// −log p of what generation one by one gives; the NELBO; both by enumeration, in nats.
    pub exact: Exact,
    /// The NELBO by draws, in nats, and its standard error.
    pub estimate: [f64; 2],
}

impl Toy {
    /// Whether the estimate is within four errors of the exact number.
    pub fn agrees(&self) -> bool {
        (self.estimate[0] - self.exact.nelbo).abs() <= 4.0 * self.estimate[1] + 1e-3
    }
}

/// Whether a protocol's number is a bound, and why.
pub fn why(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Bound => "yes: the mean over draws is the NELBO, and a document pays for its length",
        Protocol::Normalised => "yes: the NELBO of the scores divided by their sum, and a document pays for its length",
        Protocol::Orders => "yes: -log of a mean of probabilities, and a document pays for its length",
        Protocol::Prefix => "yes, of the second half given the first",
        Protocol::Paper => "no: it leaves out times below 0.001, and masks of probability above 0.999",
        _ => "",
    }
}

/// The first tokens of some texts, under a network that is not told the time; none for others, because their cost depends on the
/// schedule's times, not only on the masks.
///
/// # Errors
/// Sequences that cannot be read, and too little memory.
pub fn toys(model: &mut Loaded, source: &Arc<dyn Source>) -> Result<Vec<Toy>> {
    let config = &model.config;
    let Some(method) = config.model.kind.method().filter(|method| method.told == Told::Nothing) else {
        return Ok(Vec::new());
    };
    let mut batch = Batch::new(source.samples().map_or(TEXTS, |count| count.min(TEXTS)) as usize, config.model.seq);
    batch.fill(&**source, (0..).map(Some))?;
    let reader = Reader::new(config, method, config.train.rows(), &model.params, &mut model.store)?;
    let network = &mut reader.on(&mut model.store);
    let estimator = Estimator::new(config.diffusion.schedule, config.train.seed, REPLICATES, DRAWS)?;
    let mut toys = Vec::new();
    for mut text in Text::of(&batch, true) {
        text.tokens.truncate(text.context + SHORT);
        let estimate = estimator.elbo(network, std::slice::from_ref(&text))?[0].value(method.cost);
        let exact = Exact::of(network, &text)?;
        toys.push(Toy { exact, estimate: [estimate.nats, estimate.noise.sqrt()] });
    }
    Ok(toys)
}

/// The audit as text.
pub fn text(rows: &[Row], toys: &[Toy]) -> String {
    let bounds = Table::of(rows)
        .left("protocol", |row| row.figures.protocol.name())
        .right("nats/sequence", |row| plus_minus(row.total.per_sequence().mean, row.total.per_sequence().error, 2))
        .left("is it a bound?", |row| why(row.figures.protocol));
    let mut lines = vec![bounds.to_string()];
    if !toys.is_empty() {
        let table = Table::of(toys)
            .right("-log p", |toy| digits(toy.exact.nll, 4))
            .right("NELBO", |toy| digits(toy.exact.nelbo, 4))
            .right("NELBO by draws", |toy| plus_minus(toy.estimate[0], toy.estimate[1], 4))
            .left("agrees", |toy| if toy.agrees() { "yes" } else { "NO: please report this" });
        lines.push(format!(
            "The first {SHORT} tokens of some texts, by enumeration of all masks and by draws, in nats\n\n{table}"
        ));
    }
    lines.join("\n\n")
}
