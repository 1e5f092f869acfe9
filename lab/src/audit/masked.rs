//! The audit of a model of masked diffusion: which of its numbers are bounds, and a check of the estimator on texts short enough to
//! enumerate all masks.

use crate::eval::Row;
use crate::table::{Table, digits, or_dash, plus_minus};
use engine::{Error, Result};
use ltm::data::{Batch, Source};
use ltm::diffusion::{Estimator, Exact, Text, Told, integral};
use ltm::evaluate::Protocol;
use ltm::learn::Reader;
use ltm::run::Loaded;
use serde::Serialize;
use std::sync::Arc;

/// Tokens of a text whose masks are enumerated: for a network that is not told the time, and for one that is, whose masks are
/// enumerated at each of so many times. Enough times for the fastest wave that tells a network the time: it has 159 periods.
const SHORT: usize = 8;
const SHORTER: usize = 4;
const TIMES: u32 = 400;
/// Such texts, and how many the network reads at once.
const TEXTS: u64 = 4;
const ROWS: usize = 16;
/// Replicates of their draws, and draws in each.
const REPLICATES: usize = 32;
const DRAWS: usize = 16;

/// The exact cost of a short text under the model, and its estimate by draws.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Toy {
    /// Tokens of the text.
    pub tokens: usize,
    /// −log p of what generation one by one gives, by enumeration, in nats; only of a network that is not told the time.
    pub nll: Option<f64>,
    /// The NELBO by enumeration, in nats.
    pub nelbo: f64,
    /// The NELBO by draws, in nats.
    pub estimate: f64,
    /// Its standard error.
    pub estimate_error: f64,
}

impl Toy {
    /// Whether the estimate is within five errors of the exact number; with so many replicates chance exceeds them
    /// once in 40 000 texts.
    pub fn agrees(&self) -> bool {
        (self.estimate - self.nelbo).abs() <= 5.0 * self.estimate_error + 1e-3
    }
}

/// Checks that all estimates agree with enumeration.
///
/// # Errors
/// If one does not.
pub fn check(toys: &[Toy]) -> Result<()> {
    match toys.iter().filter(|toy| !toy.agrees()).count() {
        0 => Ok(()),
        wrong => Err(Error::new(format!(
            "the estimate by draws disagrees with enumeration on {wrong} of {} texts: please report this",
            toys.len()
        ))),
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

/// The first tokens of some texts, by enumeration of all masks and by draws. If the network is told the time, its cost depends on
/// it, so the masks are enumerated at many times.
///
/// # Errors
/// Sequences that cannot be read, and too little memory.
///
/// # Panics
/// If the model is not one of masked diffusion.
pub fn toys(model: &mut Loaded, source: &Arc<dyn Source>) -> Result<Vec<Toy>> {
    let mut config = model.config.clone();
    let method = config.model.kind.method().expect("a model of masked diffusion");
    let is_told = method.told != Told::Nothing;
    let mut batch = Batch::new(source.samples().map_or(TEXTS, |count| count.min(TEXTS)) as usize, config.model.seq);
    batch.fill(&**source, (0..).map(Some))?;
    let most = if is_told { SHORTER } else { SHORT };
    config.model.seq = most;
    let reader = Reader::new(&config, method, ROWS, &model.params, &mut model.store)?;
    let network = &mut reader.on(&mut model.store);
    let schedule = config.diffusion.schedule;
    let estimator = Estimator::new(schedule, config.train.seed, REPLICATES, DRAWS)?;
    let mut toys = Vec::new();
    for long in Text::of(&batch, true) {
        // The last token that is seen, and the first ones that are not.
        let tokens: Vec<i32> = long.tokens[long.maskable().start - 1..].iter().copied().take(1 + most).collect();
        let text = Text { tokens, context: 1, given: 0, ..long };
        let value = estimator.elbo(network, std::slice::from_ref(&text))?[0].value(method.cost);
        let (nll, nelbo) = if is_told {
            (None, integral(network, &text, schedule, method.cost, TIMES)?)
        } else {
            let exact = Exact::of(network, &text)?;
            (Some(exact.nll), exact.nelbo)
        };
        let (tokens, estimate, estimate_error) = (text.maskable().len(), value.nats, value.noise.sqrt());
        toys.push(Toy { tokens, nll, nelbo, estimate, estimate_error });
    }
    Ok(toys)
}

/// The audit as text.
pub fn text(rows: &[Row], toys: &[Toy]) -> String {
    let bounds = Table::of(rows)
        .left("protocol", |row| row.figures.protocol.name())
        .right("nats/sequence", |row| plus_minus(row.total.per_sequence().mean, row.total.per_sequence().error, 2))
        .left("is it a bound?", |row| why(row.figures.protocol));
    let table = Table::of(toys)
        .right("tokens", |toy| toy.tokens)
        .right("-log p", |toy| or_dash(toy.nll.map(|nll| digits(nll, 4))))
        .right("NELBO", |toy| digits(toy.nelbo, 4))
        .right("NELBO by draws", |toy| plus_minus(toy.estimate, toy.estimate_error, 4))
        .left("agrees", |toy| if toy.agrees() { "yes" } else { "NO: please report this" });
    format!("{bounds}\n\nThe first tokens of some texts, by enumeration of all masks and by draws, in nats\n\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_estimate_is_an_error() {
        let toy = |estimate| Toy { tokens: 8, nll: None, nelbo: 20.0, estimate, estimate_error: 0.1 };
        assert!(check(&[toy(20.4), toy(19.6)]).is_ok());
        let error = check(&[toy(20.4), toy(19.4)]).unwrap_err().to_string();
        assert!(error.contains("on 1 of 2 texts") && text(&[], &[toy(19.4)]).contains("NO: please"), "{error}");
    }
}
