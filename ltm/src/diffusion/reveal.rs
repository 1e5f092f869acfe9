use super::{SITE, Schedule};
use engine::rng::Stream;
use serde::Serialize;
use std::f64::consts::FRAC_PI_2;

/// Sites of the uniforms that decide when a position is revealed, and which token it gets.
const WHEN: u32 = SITE + 5;
const WHICH: u32 = SITE + 6;

/// The times of the T steps of generation, from 1 down to 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grid {
    /// 1 − i/T.
    Uniform,
    /// cos(πi/2T): short steps first. MD4's authors find it better.
    Cosine,
}

impl Grid {
    /// 1 = t_0 > … > t_T = 0.
    pub fn times(self, steps: usize) -> Vec<f64> {
        let time = |i| match self {
            // Otherwise rounding leaves positions unrevealed.
            _ if i == steps => 0.0,
            Self::Uniform => 1.0 - i as f64 / steps as f64,
            Self::Cosine => (FRAC_PI_2 * i as f64 / steps as f64).cos(),
        };
        (0..=steps).map(time).collect()
    }
}

/// Positions to reveal by one call of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Reveal {
    /// The time that the network may be told.
    pub t: f64,
    /// The positions, each with the uniform number in [0, 1) that draws its token.
    pub positions: Vec<(usize, f64)>,
}

/// Decides which positions are revealed when. This depends on no network, so a network is called only where it is needed: at
/// most min(T, n) times for n positions. Uniform numbers depend on the seed, the text's number, the step and the position.
#[derive(Clone, Copy, Debug)]
pub struct Revealer {
    /// The schedule a(t).
    pub schedule: Schedule,
    /// The times of the steps.
    pub grid: Grid,
    /// Steps T; 0 for one position at a time in random order, the limit of ever more steps.
    pub steps: usize,
    /// Seed of all draws.
    pub seed: u64,
}

impl Revealer {
    /// The calls that reveal the positions `masked` of text number `sample`.
    pub fn reveals(&self, masked: &[usize], sample: u32) -> Vec<Reveal> {
        let stream = |site, step: usize| Stream::new(self.seed, site).sample(sample).step(step as u32);
        let uniforms = |step, i: usize| [WHEN, WHICH].map(|site| stream(site, step).uniform(i as u32));
        if self.steps == 0 {
            one_by_one(masked, self.schedule, |i| uniforms(0, i))
        } else {
            by_grid(masked, self.schedule, &self.grid.times(self.steps), uniforms)
        }
    }
}

/// Reveals along a grid: in the step from t to s a masked position is revealed with probability (a(t) − a(s))/a(t). `uniforms`
/// gives two numbers for a step and a position: whether it is revealed then, and which token it gets.
pub fn by_grid(
    masked: &[usize],
    schedule: Schedule,
    grid: &[f64],
    uniforms: impl Fn(usize, usize) -> [f64; 2],
) -> Vec<Reveal> {
    let (mut left, mut reveals) = (masked.to_vec(), Vec::new());
    for (step, pair) in grid.windows(2).enumerate() {
        let (t, revealed) = (pair[0], schedule.revealed(pair[0], pair[1]));
        let mut positions = Vec::new();
        left.retain(|&i| {
            let [when, which] = uniforms(step, i);
            let stays = when >= revealed;
            if !stays {
                positions.push((i, which));
            }
            stays
        });
        if !positions.is_empty() {
            reveals.push(Reveal { t, positions });
        }
    }
    reveals
}

/// Reveals one position at a time: each when a(t), falling from 1 to 0, passes the first of its two uniforms.
pub(super) fn one_by_one(masked: &[usize], schedule: Schedule, uniforms: impl Fn(usize) -> [f64; 2]) -> Vec<Reveal> {
    let mut order: Vec<_> = masked.iter().map(|&i| (i, uniforms(i))).collect();
    order.sort_by(|(_, [a, _]), (_, [b, _])| b.total_cmp(a));
    let reveal = |(i, [when, which]): (usize, [f64; 2])| Reveal { t: schedule.time(when), positions: vec![(i, which)] };
    order.into_iter().map(reveal).collect()
}
