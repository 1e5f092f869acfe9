use engine::Result;

/// The sizes of a network's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Most texts in a call.
    pub rows: usize,
    /// Positions N of every text, padding included.
    pub positions: usize,
    /// Ids V that can be predicted. V itself is the mask.
    pub vocab: usize,
}

impl Shape {
    /// The mask's id.
    pub const fn mask(self) -> i32 {
        self.vocab as i32
    }
}

/// Texts with masks, as a network reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// `[B, N]` ids, B at most [`Shape::rows`].
    pub tokens: Vec<i32>,
    /// B lengths. Positions from there on are padding: no position may see them.
    pub lengths: Vec<i32>,
    /// B times in [0, 1], for a network that is told them.
    pub times: Vec<f64>,
}

impl Seen {
    /// Adds a row: a text padded to `positions`, at time `t`.
    pub(super) fn push(&mut self, tokens: &[i32], positions: usize, t: f64) {
        self.tokens.extend_from_slice(tokens);
        self.tokens.resize(self.tokens.len() + positions - tokens.len(), 0);
        self.lengths.push(tokens.len() as i32);
        self.times.push(t);
    }
}

/// What a token costs at a masked position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenCost {
    /// −log p, in nats.
    pub nll: f64,
    /// log Z = log Σ_y exp(logit_y) − log V.
    pub log_z: f64,
}

impl TokenCost {
    /// The cost of `token` under `logits` of V ids.
    pub fn of(logits: &[f64], token: i32) -> Self {
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = most + logits.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
        Self { nll: log_sum - logits[token as usize], log_z: log_sum - (logits.len() as f64).ln() }
    }

    /// Z − 1 − log Z, at least 0.
    pub fn price(self) -> f64 {
        self.log_z.exp_m1() - self.log_z
    }
}

/// A network that judges the tokens behind masks. What it says of a text must not depend on the other texts of a call.
pub trait Network {
    /// The sizes of its calls.
    fn shape(&self) -> Shape;

    /// The cost of each `(position of [B, N], token)`, at most one for a position.
    ///
    /// # Errors
    /// Those of the device.
    fn costs(&mut self, seen: &Seen, asked: &[(usize, i32)]) -> Result<Vec<TokenCost>>;
}

/// A network that gives the logits of tokens behind masks, also independent of other texts.
pub trait Predictor {
    /// The sizes of its calls.
    fn shape(&self) -> Shape;

    /// The logits `[at.len(), V]` of the positions `at` of `[B, N]`.
    ///
    /// # Errors
    /// Those of the device.
    fn logits(&mut self, seen: &Seen, at: &[usize]) -> Result<Vec<f64>>;
}

impl<P: Predictor> Network for P {
    fn shape(&self) -> Shape {
        Predictor::shape(self)
    }

    fn costs(&mut self, seen: &Seen, asked: &[(usize, i32)]) -> Result<Vec<TokenCost>> {
        let at: Vec<usize> = asked.iter().map(|&(at, _)| at).collect();
        let logits = self.logits(seen, &at)?;
        let rows = logits.chunks(Predictor::shape(self).vocab).zip(asked);
        Ok(rows.map(|(logits, &(_, token))| TokenCost::of(logits, token)).collect())
    }
}
