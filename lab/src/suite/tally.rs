//! What many sequences cost, summed up one by one.

use engine::Result;
use ltm::evaluate::SequenceScore;
use ltm::json::Value;

/// Sums over sequences; memory does not grow with their number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Sequences.
    pub sequences: u64,
    /// Targets scored.
    pub tokens: u64,
    /// Bytes scored.
    pub bytes: f64,
    /// Σ nats.
    pub nats: f64,
    /// Σ NLL.
    pub nll: f64,
    /// Σ KL; for `iwae` the rest.
    pub kl: f64,
    /// Variance of Σ nats that is due to the finite number of draws.
    pub noise: f64,
    /// Σ exp(nats / tokens).
    perplexities: f64,
    /// Σ nats², Σ nats · tokens, Σ tokens².
    squares: [f64; 3],
}

impl Tally {
    /// Adds a sequence.
    pub fn add(&mut self, score: &SequenceScore) {
        let tokens = score.tokens as f64;
        self.sequences += 1;
        self.tokens += score.tokens as u64;
        self.bytes += score.bytes;
        self.nats += score.nats;
        self.nll += score.nll;
        self.kl += score.kl;
        self.noise += score.noise;
        self.perplexities += (score.nats / tokens.max(1.0)).exp();
        let products = [score.nats * score.nats, score.nats * tokens, tokens * tokens];
        self.squares.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
    }

    /// All sums, to be read again by [`from_json`](Self::from_json) to the last bit; those that are no numbers as null.
    pub fn to_json(&self) -> Value {
        Value::object([
            ("sequences", self.sequences.into()),
            ("tokens", self.tokens.into()),
            ("bytes", self.bytes.into()),
            ("nats", self.nats.into()),
            ("nll", self.nll.into()),
            ("kl", self.kl.into()),
            ("noise", self.noise.into()),
            ("perplexities", self.perplexities.into()),
            ("squares", Value::Array(self.squares.map(Value::from).to_vec())),
        ])
    }

    /// The tally that [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// If one of its sums is missing, or is no number and must be one.
    pub fn from_json(value: &Value) -> Result<Self> {
        let float = |key| value.read(key, Value::as_f64);
        // A single draw has no variance, and a mean of perplexities may be beyond all numbers.
        let any = |key| if *value.field(key)? == Value::Null { Ok(f64::NAN) } else { float(key) };
        let squares = value.read("squares", Value::as_array)?;
        let square = |i: usize| squares.get(i).unwrap_or(&Value::Null).as_f64();
        Ok(Self {
            sequences: value.read("sequences", Value::as_u64)?,
            tokens: value.read("tokens", Value::as_u64)?,
            bytes: float("bytes")?,
            nats: float("nats")?,
            nll: float("nll")?,
            kl: float("kl")?,
            noise: any("noise")?,
            perplexities: any("perplexities")?,
            squares: [square(0)?, square(1)?, square(2)?],
        })
    }

    /// Nats per token.
    pub fn rate(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// Standard error of [`rate`](Self::rate) over the choice of sequences, as a ratio of two sums: the spread of what is
    /// left of each sequence's nats beyond its tokens at that rate. Not a number for a single sequence.
    pub fn rate_error(&self) -> f64 {
        let (n, rate) = (self.sequences as f64, self.rate());
        let [nats, both, tokens] = self.squares;
        let spread = (nats - 2.0 * rate * both + rate * rate * tokens).max(0.0);
        if self.sequences > 1 { (spread * n / (n - 1.0)).sqrt() / self.tokens as f64 } else { f64::NAN }
    }

    /// exp(Σ nats / Σ tokens).
    pub fn perplexity(&self) -> f64 {
        self.rate().exp()
    }

    /// Σ nats / (ln 2 · Σ bytes).
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes
    }

    /// The public reference's average of exp(nats / tokens) over sequences.
    pub fn mean_perplexity(&self) -> f64 {
        self.perplexities / self.sequences as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::json;

    #[test]
    fn sums_and_their_errors_by_hand() {
        let mut tally = Tally::default();
        for (nats, tokens) in [(10.0, 10), (90.0, 30)] {
            tally.add(&SequenceScore {
                nats,
                nll: nats - 1.0,
                kl: 1.0,
                tokens,
                bytes: 2.0 * tokens as f64,
                noise: 0.5,
            });
        }
        assert!((tally.rate() - 2.5).abs() < 1e-12 && (tally.perplexity() - 2.5f64.exp()).abs() < 1e-9);
        // Beyond 2.5 nats a token: −15 and +15.
        assert!((tally.rate_error() - (450.0f64 * 2.0).sqrt() / 40.0).abs() < 1e-12);
        assert!((tally.bits_per_byte() - 100.0 / std::f64::consts::LN_2 / 80.0).abs() < 1e-12);
        assert!((tally.mean_perplexity() - (1f64.exp() + 3f64.exp()) / 2.0).abs() < 1e-12);
        assert_eq!((tally.nll, tally.kl, tally.noise, tally.sequences, tally.tokens), (98.0, 2.0, 1.0, 2, 40));
    }

    #[test]
    fn a_written_tally_is_read_to_the_last_bit() {
        let mut tally = Tally::default();
        for tokens in 1..40 {
            let x = tokens as f64;
            tally.add(&SequenceScore { nats: x.sqrt(), nll: x.ln(), kl: 0.1, tokens, bytes: x, noise: 1.0 / x });
        }
        let text = tally.to_json().to_string();
        assert_eq!(Tally::from_json(&json::parse(text.as_bytes()).unwrap()).unwrap(), tally);
        for key in ["sequences", "noise", "squares"] {
            let cut = text.replace(key, "other");
            assert!(Tally::from_json(&json::parse(cut.as_bytes()).unwrap()).is_err(), "{key}");
        }
        tally.noise = f64::NAN;
        let read = Tally::from_json(&json::parse(tally.to_json().to_string().as_bytes()).unwrap()).unwrap();
        assert!(read.noise.is_nan() && Tally { noise: 0.0, ..read } == Tally { noise: 0.0, ..tally.clone() });
        tally.nats = f64::INFINITY;
        assert!(Tally::from_json(&json::parse(tally.to_json().to_string().as_bytes()).unwrap()).is_err());
    }

    #[test]
    fn equal_rates_leave_no_error() {
        let mut tally = Tally::default();
        (1..9).for_each(|n| tally.add(&SequenceScore { nats: 1.5 * n as f64, tokens: n, ..SequenceScore::default() }));
        assert!(tally.rate_error() < 1e-7);
        assert!(Tally::default().rate_error().is_nan());
    }
}
