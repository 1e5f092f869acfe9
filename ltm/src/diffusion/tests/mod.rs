//! What must hold for every network is tested with random tables in place of one; the rest against numbers of an independent
//! implementation in PyTorch.

mod bounds;
mod golden;
mod planted;
mod samples;
mod schedules;

use super::*;
use crate::data::SampleInfo;
use engine::Result;
use engine::rng::Stream;

/// A network with random logits for every text with masks.
struct Table {
    shape: Shape,
    seed: u64,
    /// Standard deviation of the logits; with 0 all tokens are equally likely.
    spread: f64,
    told: bool,
    calls: usize,
}

impl Table {
    fn new(vocab: usize, positions: usize) -> Self {
        Self { shape: Shape { rows: 5, positions, vocab }, seed: 1, spread: 1.0, told: false, calls: 0 }
    }

    /// The logits of position `i` of a row.
    fn row(&self, tokens: &[i32], t: f64, i: usize) -> Vec<f64> {
        let code = tokens.iter().fold(1, |code: u32, &id| code * (self.shape.vocab as u32 + 1) + id as u32);
        let (stream, v) = (Stream::new(self.seed, 1).sample(code), self.shape.vocab);
        let normals = (0..v).map(|y| stream.normal((i * v + y) as u32));
        let sways = normals.map(|x| if self.told { x * (4.0 * t).sin() } else { x });
        sways.map(|x| self.spread * x).collect()
    }
}

impl Predictor for Table {
    fn shape(&self) -> Shape {
        self.shape
    }

    fn logits(&mut self, seen: &Seen, at: &[usize]) -> Result<Vec<f64>> {
        self.calls += 1;
        let n = self.shape.positions;
        assert!(seen.tokens.len() == n * seen.times.len() && seen.times.len() <= self.shape.rows);
        let row = |&at: &usize| {
            let (b, i) = (at / n, at % n);
            let tokens = &seen.tokens[b * n..][..seen.lengths[b] as usize];
            self.row(tokens, seen.times[b], i)
        };
        Ok(at.iter().flat_map(row).collect())
    }
}

/// A text of these tokens after the first `context`.
fn text(id: u32, tokens: &[i32], context: usize) -> Text {
    let scored = (tokens.len() - context) as u32;
    Text { sample: SampleInfo { id, scored, ..SampleInfo::default() }, tokens: tokens.to_vec(), context, given: 0 }
}

/// All texts of `n` tokens out of `v`.
fn all_texts(v: i32, n: u32) -> Vec<Vec<i32>> {
    (0..v.pow(n)).map(|code| (0..n).map(|i| code / v.pow(i) % v).collect()).collect()
}

#[track_caller]
fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{got} {want}");
}
