use crate::config::{ModelConfig, ModelKind};
use crate::diffusion::MOST_ORDERED;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// A way to score a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Fit a posterior, then S fresh draws: mean NLL plus the KL. An upper bound on −log p(x) in expectation.
    Elbo,
    /// −log of the mean importance weight over S draws. A tighter upper bound.
    Iwae,
    /// −log p(x) of a model that infers no latents, exactly.
    Nll,
    /// Fit on the first half of each sequence; −log of the second half's mean likelihood over S draws. A code length
    /// comparable with an autoregressive model's.
    Prefix,
    /// The NELBO of masked diffusion, by S draws of masks by their number, plus the cost of a document's length. An upper bound on
    /// −log p(x) in expectation.
    Bound,
    /// The same for SEDD's scores divided by their sum, which is what it generates from; never above [`Bound`](Self::Bound).
    Normalised,
    /// −log of the mean probability over S random orders of revealing the tokens one by one, plus the cost of a document's length. A
    /// tighter upper bound, of a network that is not told the time.
    Orders,
    /// The estimator of the public code of masked diffusion, which leaves out the most expensive thousandth. Not a bound.
    Paper,
    /// The NELBO at the noise that the posterior was fitted to, as the public reference code scores. Not a bound.
    Fixed,
}

impl Protocol {
    /// The protocols for a kind of model, in the order of tables; the model is validated by the first. For a model
    /// that infers no latents, −log p of a text and of its second half are exact.
    pub const fn of(kind: ModelKind) -> &'static [Self] {
        match kind {
            ModelKind::Ltm => &[Self::Elbo, Self::Iwae, Self::Prefix, Self::Fixed],
            ModelKind::Oracle => &[Self::Nll],
            ModelKind::Mdlm => &[Self::Bound, Self::Orders, Self::Prefix, Self::Paper],
            ModelKind::Sedd => &[Self::Bound, Self::Normalised, Self::Prefix, Self::Paper],
            ModelKind::Md4 => &[Self::Bound, Self::Prefix, Self::Paper],
            ModelKind::ArLatent | ModelKind::Ar | ModelKind::Gpt2 => &[Self::Nll, Self::Prefix],
        }
    }

    /// The protocols for a kind of model, without random orders, which take a call per token and draw: those only on request.
    pub fn all(kind: ModelKind) -> Vec<Self> {
        Self::of(kind).iter().copied().filter(|&protocol| protocol != Self::Orders).collect()
    }

    /// Checks that it can score a model.
    ///
    /// # Errors
    /// If it is not for such a model, or takes too many calls for texts of this length.
    pub fn check(self, model: &ModelConfig) -> Result<()> {
        Self::by_name(self.name(), model.kind)?;
        let seq = model.seq;
        if self != Self::Orders || seq <= MOST_ORDERED {
            return Ok(());
        }
        Err(Error::usage(format!(
            "protocol orders calls the network once per token: model.seq = {seq} must be at most {MOST_ORDERED}; use bound"
        )))
    }

    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Elbo => "elbo",
            Self::Iwae => "iwae",
            Self::Nll => "nll",
            Self::Prefix => "prefix",
            Self::Bound => "bound",
            Self::Normalised => "normalised",
            Self::Orders => "orders",
            Self::Paper => "paper",
            Self::Fixed => "fixed",
        }
    }

    /// The kind of number that it gives for a kind of model.
    pub const fn status(self, kind: ModelKind) -> &'static str {
        match self {
            Self::Elbo | Self::Bound | Self::Normalised => "upper bound",
            Self::Iwae | Self::Orders => "tighter upper bound",
            Self::Nll => "exact",
            Self::Prefix if kind.infers() => "second half, an estimate",
            Self::Prefix if kind.method().is_some() => "second half, upper bound",
            Self::Prefix => "second half, exact",
            Self::Fixed | Self::Paper => "not a bound",
        }
    }

    /// Whether its number for a kind of model is an upper bound on −log p(x), in expectation; by `prefix`, on that of the second half
    /// given the first.
    pub const fn is_bound(self, kind: ModelKind) -> bool {
        match self {
            Self::Elbo | Self::Iwae | Self::Bound | Self::Normalised | Self::Orders => true,
            Self::Prefix => kind.method().is_some(),
            Self::Nll | Self::Paper | Self::Fixed => false,
        }
    }

    /// Whether its number contains an NLL, and whether it adds the KL, which for masked diffusion is the cost of the length. `iwae` is not such a sum. `prefix` does not pay
    /// for its posterior, which it infers from the first half.
    pub const fn parts(self) -> [bool; 2] {
        match self {
            Self::Elbo | Self::Bound | Self::Normalised | Self::Orders | Self::Paper | Self::Fixed => [true, true],
            Self::Nll | Self::Prefix => [true, false],
            Self::Iwae => [false, false],
        }
    }

    /// Whether both fit the same posterior and score it by the same draws, so that one pass gives both numbers.
    pub fn shares_draws(self, other: Self) -> bool {
        self == other || matches!((self, other), (Self::Elbo, Self::Iwae) | (Self::Iwae, Self::Elbo))
    }

    /// The protocols of `asked`, each once, in groups that [share their draws](Self::shares_draws).
    pub fn groups(asked: &[Self]) -> Vec<Vec<Self>> {
        let mut groups: Vec<Vec<Self>> = Vec::new();
        for &protocol in asked {
            match groups.iter_mut().find(|group| group[0].shares_draws(protocol)) {
                Some(group) if group.contains(&protocol) => {}
                Some(group) => group.push(protocol),
                None => groups.push(vec![protocol]),
            }
        }
        groups
    }

    /// The protocol called `name` for a kind of model.
    ///
    /// # Errors
    /// If there is none.
    pub fn by_name(name: &str, kind: ModelKind) -> Result<Self> {
        Self::of(kind).iter().copied().find(|p| p.name() == name).ok_or_else(|| {
            let names = Self::of(kind).iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
            Error::usage(format!("there is no protocol {name:?} for model.kind = {kind}: choose one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Protocol::*;
    use super::*;

    #[test]
    fn orders_are_for_short_texts_and_on_request() {
        let model = |seq| ModelConfig { kind: ModelKind::Mdlm, seq, ..ModelConfig::default() };
        assert!(Orders.check(&model(64)).is_ok());
        let error = Orders.check(&model(65)).unwrap_err().to_string();
        assert!(error.contains("model.seq = 65 must be at most 64"), "{error}");
        assert_eq!(Protocol::all(ModelKind::Mdlm), [Bound, Prefix, Paper]);
        assert!(Elbo.check(&model(64)).is_err());
    }

    #[test]
    fn a_second_half_is_exact_an_estimate_or_a_bound() {
        for (kind, status, is_bound) in [
            (ModelKind::Ar, "second half, exact", false),
            (ModelKind::Ltm, "second half, an estimate", false),
            (ModelKind::Mdlm, "second half, upper bound", true),
        ] {
            assert_eq!((Prefix.status(kind), Prefix.is_bound(kind)), (status, is_bound));
        }
    }

    #[test]
    fn the_bounds_share_a_fit() {
        assert_eq!(Protocol::groups(&[Fixed, Iwae, Fixed, Elbo]), [vec![Fixed], vec![Iwae, Elbo]]);
        assert!(Protocol::groups(&[]).is_empty());
    }
}
