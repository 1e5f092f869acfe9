use crate::adamw::cpu::Step;
use crate::gaussian::cpu::{Draw, sigma, twice_kl};
use crate::lanes::{Piece, load, store};
use engine::rng::{self, Stream};
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Buffer, Shape, Want};
use rayon::prelude::*;

/// Operations per number: a normal by Box–Muller counts as half of a logarithm, a root, a sine, a cosine and two
/// products.
pub const NORMAL_FLOPS: u64 = 3;
/// μ + σ ⊙ ε, with σ from λ.
pub const DRAW_FLOPS: u64 = 4;
/// KL and both gradients.
pub const GRADIENT_FLOPS: u64 = 16;
/// KL, curvature, both averages, precision, mean, and a logarithm.
pub const NATURAL_FLOPS: u64 = 28;
/// z² − ε² − λ, halved and summed.
pub const RATIO_FLOPS: u64 = 6;

/// Random normal numbers for the rows of `[B, S, d]`.
#[derive(Clone, Copy)]
pub struct Drawn<'a> {
    stream: Stream,
    samples: &'a [i32],
    rows_per_sample: usize,
}

impl<'a> Drawn<'a> {
    /// The numbers of `stream` for each of the `samples` i32 [B] of a tensor of this `shape`.
    pub fn new(stream: Stream, samples: &'a Buffer, shape: Shape) -> Self {
        let samples = samples.as_slice::<i32>();
        assert_eq!(samples.len(), shape.dims()[0], "one identity per sample");
        Self { stream, samples, rows_per_sample: shape.rows() / samples.len() }
    }

    #[inline(always)]
    fn row<T>(&self, row: usize, out: &mut [T], cast: impl Fn(f64) -> T) {
        let (sample, within) = (row / self.rows_per_sample, row % self.rows_per_sample);
        let first = (within * out.len()) as u32;
        self.stream.sample(self.samples[sample] as u32).fill_normal(first, out, cast);
    }
}

/// The source of a step's noise.
#[derive(Clone, Copy)]
pub enum Supply<'a, T> {
    /// The noise is kept.
    Kept,
    /// The noise that is there, with its sign changed.
    Negated,
    /// Random numbers.
    Drawn(Drawn<'a>),
    /// These `[B, S, d]`.
    Given(&'a [T]),
}

impl<T: Real> Supply<'_, T> {
    #[inline(always)]
    fn row(&self, row: usize, eps: &mut [T]) {
        match self {
            Self::Kept => {}
            Self::Negated => eps.iter_mut().for_each(|x| *x = -*x),
            Self::Drawn(drawn) => drawn.row(row, eps, T::from_f64),
            Self::Given(noise) => eps.copy_from_slice(&noise[row * eps.len()..][..eps.len()]),
        }
    }
}

/// The eight tensors `[B, S, d]` of the state.
pub struct State<'a, T> {
    d: usize,
    mu: &'a mut [T],
    logvar: &'a mut [T],
    m_mu: &'a mut [T],
    v_mu: &'a mut [T],
    m_logvar: &'a mut [T],
    v_logvar: &'a mut [T],
    eps: &'a mut [T],
    z: &'a mut [T],
}

impl<'a, T: Real> State<'a, T> {
    /// The first eight of `buffers`.
    pub fn of(buffers: &'a mut [Buffer]) -> Self {
        let [mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z, ..] = buffers else {
            unreachable!("eight tensors of state")
        };
        let (spec, tensors) = (mu.spec(), [mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z]);
        assert!(tensors.iter().all(|b| b.spec() == spec), "{spec} eight times");
        let [mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z] = tensors.map(|b| b.as_mut_slice());
        Self { d: spec.shape.last(), mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z }
    }

    /// z from μ, λ and ε.
    #[inline(always)]
    fn draw<I: Isa>(self) {
        Piece { f: Draw, want: Want::Write, ins: [self.mu, self.logvar, self.eps], out: self.z }.run::<I>();
    }

    /// Its rows, for parallel loops.
    fn rows(self) -> impl IndexedParallelIterator<Item = State<'a, T>> {
        let Self { d, mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z } = self;
        let rows = [mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z].map(|x| x.par_chunks_mut(d));
        let row = move |(mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z)| -> State<'a, T> {
            State { d, mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z }
        };
        <(_, _, _, _, _, _, _, _)>::from(rows).into_par_iter().map(row)
    }
}

pub fn init<T: Real>(logvar: f64, std: f64, spread: Drawn, supply: Supply<T>, state: State<T>) {
    state.rows().enumerate().for_each(|(row, state)| simd::dispatch(Start { logvar, std, spread, supply, row, state }));
}

/// One row of the start.
struct Start<'a, 'b, T> {
    logvar: f64,
    std: f64,
    spread: Drawn<'a>,
    supply: Supply<'a, T>,
    row: usize,
    state: State<'b, T>,
}

impl<T: Real> Kernel for Start<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { logvar, std, spread, supply, row, state } = self;
        for zeros in [&mut *state.mu, state.m_mu, state.v_mu, state.m_logvar, state.v_logvar] {
            zeros.fill(T::ZERO);
        }
        spread.row(row, state.logvar, |x| T::from_f64(std.mul_add(x, logvar)));
        supply.row(row, state.eps);
        state.draw::<I>();
    }
}

/// The rule by which a fast step moves sixteen numbers of the posterior.
pub trait Rule<T: Real>: Copy + Sync {
    /// Moves the numbers of `state` from `i` on, given the gradient `d_z` of −log p at z; returns twice their KL before
    /// the step.
    fn lanes<I: Isa>(&self, d_z: T::Lanes<I>, state: &mut State<T>, i: usize) -> T::Lanes<I>;
}

/// One fast step; `kl` gets the KL of every row.
pub fn step<T: Real>(rule: impl Rule<T>, d_z: &[T], supply: Supply<T>, state: State<T>, kl: &mut [T]) {
    let d = state.d;
    assert_eq!(d_z.len(), state.z.len(), "gradient and latents have the same size");
    (state.rows(), d_z.par_chunks(d), kl).into_par_iter().enumerate().for_each(|(row, (state, d_z, kl))| {
        *kl = simd::dispatch(Descend { rule, d_z, supply, row, state });
    });
}

/// One row of a fast step; returns its KL.
struct Descend<'a, 'b, T, R> {
    rule: R,
    d_z: &'a [T],
    supply: Supply<'a, T>,
    row: usize,
    state: State<'b, T>,
}

impl<T: Real, R: Rule<T>> Kernel for Descend<'_, '_, T, R> {
    type Output = T;

    #[inline(always)]
    fn run<I: Isa>(self) -> T {
        let Self { rule, d_z, supply, row, state: mut s } = self;
        let mut twice = T::Lanes::<I>::zero();
        for i in (0..d_z.len()).step_by(LANES) {
            twice = twice.add(rule.lanes::<I>(load::<I, T>(d_z, i), &mut s, i));
        }
        supply.row(row, s.eps);
        s.draw::<I>();
        twice.sum() * T::from_f64(0.5)
    }
}

/// AdamW on μ and λ.
#[derive(Clone, Copy)]
pub struct AdamW<T> {
    pub step: Step<T>,
}

impl<T: Real> Rule<T> for AdamW<T> {
    #[inline(always)]
    fn lanes<I: Isa>(&self, d_z: T::Lanes<I>, s: &mut State<T>, i: usize) -> T::Lanes<I> {
        let one = T::Lanes::<I>::splat(T::ONE);
        let half = T::Lanes::<I>::splat(T::from_f64(0.5));
        let (mu, logvar, eps) = (load::<I, T>(s.mu, i), load::<I, T>(s.logvar, i), load::<I, T>(s.eps, i));
        let sigma = sigma::<I, T>(logvar);
        let var = sigma.mul(sigma);
        let g_mu = mu.add(d_z);
        let g_logvar = d_z.mul(eps).mul_add(sigma, var.sub(one)).mul(half);
        self.step.lanes::<I>(g_mu, s.mu, s.m_mu, s.v_mu, i);
        self.step.lanes::<I>(g_logvar, s.logvar, s.m_logvar, s.v_logvar, i);
        twice_kl::<I, T>(mu, logvar, var)
    }
}

/// The natural gradient; it stores the averages of g and of g ⊙ ε/σ in the buffers of AdamW's moments of μ.
#[derive(Clone, Copy)]
pub struct Natural<T> {
    pub rate: T,
    pub beta: T,
    /// 1 − beta.
    pub rest: T,
    /// 1 / (1 − betaᵗ).
    pub gain: T,
    /// 1 − share.
    pub kept: T,
    /// The newest curvature's share of the mean.
    pub share: T,
}

impl<T: Real> Rule<T> for Natural<T> {
    #[inline(always)]
    fn lanes<I: Isa>(&self, d_z: T::Lanes<I>, s: &mut State<T>, i: usize) -> T::Lanes<I> {
        let splat = T::Lanes::<I>::splat;
        let (mu, logvar, eps) = (load::<I, T>(s.mu, i), load::<I, T>(s.logvar, i), load::<I, T>(s.eps, i));
        let sigma = sigma::<I, T>(logvar);
        let g = load::<I, T>(s.m_mu, i).mul_add(splat(self.beta), d_z.mul(splat(self.rest)));
        let curvature = d_z.mul(eps).div(sigma).mul(splat(self.share));
        let h = load::<I, T>(s.v_mu, i).mul_add(splat(self.kept), curvature);
        // The zero is the first operand, so that a NaN propagates.
        let precision = T::Lanes::<I>::zero().max(h).add(splat(T::ONE));
        let descent = g.mul_add(splat(self.gain), mu).div(precision);
        store::<I, T>(descent.mul_add(splat(-self.rate), mu), s.mu, i);
        store::<I, T>(minus_ln::<I, T>(precision), s.logvar, i);
        store::<I, T>(g, s.m_mu, i);
        store::<I, T>(h, s.v_mu, i);
        twice_kl::<I, T>(mu, logvar, sigma.mul(sigma))
    }
}

/// −ln x, in f64.
#[inline(always)]
fn minus_ln<I: Isa, T: Real>(x: T::Lanes<I>) -> T::Lanes<I> {
    T::Lanes::<I>::load(&x.to_array().map(|x| T::from_f64(-rng::ln(x.to_f64()))))
}

/// A draw z; `log_ratio` gets log q(z) − log p(z) of every row.
pub fn draw<T: Real>(d: usize, mu: &[T], logvar: &[T], drawn: Drawn, eps: &mut [T], z: &mut [T], log_ratio: &mut [T]) {
    (mu.par_chunks(d), logvar.par_chunks(d), eps.par_chunks_mut(d), z.par_chunks_mut(d), log_ratio)
        .into_par_iter()
        .enumerate()
        .for_each(|(row, (mu, logvar, eps, z, log_ratio))| {
            *log_ratio = simd::dispatch(Score { mu, logvar, drawn, row, eps, z });
        });
}

/// One row of a draw; returns its log ratio.
struct Score<'a, T> {
    mu: &'a [T],
    logvar: &'a [T],
    drawn: Drawn<'a>,
    row: usize,
    eps: &'a mut [T],
    z: &'a mut [T],
}

impl<T: Real> Kernel for Score<'_, T> {
    type Output = T;

    #[inline(always)]
    fn run<I: Isa>(self) -> T {
        let Self { mu, logvar, drawn, row, eps, z } = self;
        drawn.row(row, eps, T::from_f64);
        let mut twice = T::Lanes::<I>::zero();
        for i in (0..z.len()).step_by(LANES) {
            let (logvar, eps) = (load::<I, T>(logvar, i), load::<I, T>(eps, i));
            let lanes = sigma::<I, T>(logvar).mul_add(eps, load::<I, T>(mu, i));
            store::<I, T>(lanes, z, i);
            twice = twice.add(lanes.mul_add(lanes, eps.mul_add(eps, logvar).neg()));
        }
        twice.sum() * T::from_f64(0.5)
    }
}

/// Sums the numbers of each sample's rows, in order.
pub fn sum_rows<T: Real>(rows: &[T], out: &mut [T]) {
    let per_sample = rows.len() / out.len();
    for (out, rows) in out.iter_mut().zip(rows.chunks_exact(per_sample)) {
        *out = rows.iter().fold(T::ZERO, |sum, &row| sum + row);
    }
}
