use crate::adamw::cpu::Step;
use crate::gaussian::cpu::{Draw, sigma, twice_kl};
use crate::lanes::{load, store};
use engine::rng::Stream;
use engine::simd::{self, Isa, Kernel, LANES, Lanes, Real};
use engine::{Buffer, Shape};
use rayon::prelude::*;

/// Per number: a normal by Box–Muller counts as its half of a logarithm, a root, a sine, a cosine and two products.
pub const NORMAL_FLOPS: u64 = 3;
/// μ + σ ⊙ ε, with σ from λ.
pub const DRAW_FLOPS: u64 = 4;
/// KL and both gradients.
pub const GRADIENT_FLOPS: u64 = 14;
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
        self.stream.sample(self.samples[sample] as u32).fill_normal_from(first, out, cast);
    }
}

/// Where the noise of a step comes from.
#[derive(Clone, Copy)]
pub enum Supply<'a, T> {
    /// It stays.
    Kept,
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
        let spec = mu.spec();
        assert!(
            [&*logvar, m_mu, v_mu, m_logvar, v_logvar, eps, z].iter().all(|b| b.spec() == spec),
            "{spec} eight times"
        );
        Self {
            d: spec.shape.last(),
            mu: mu.as_mut_slice(),
            logvar: logvar.as_mut_slice(),
            m_mu: m_mu.as_mut_slice(),
            v_mu: v_mu.as_mut_slice(),
            m_logvar: m_logvar.as_mut_slice(),
            v_logvar: v_logvar.as_mut_slice(),
            eps: eps.as_mut_slice(),
            z: z.as_mut_slice(),
        }
    }

    /// Its rows, which can be worked on in parallel.
    fn rows(self) -> impl IndexedParallelIterator<Item = State<'a, T>> {
        let d = self.d;
        (
            (self.mu.par_chunks_mut(d), self.logvar.par_chunks_mut(d)),
            (self.m_mu.par_chunks_mut(d), self.v_mu.par_chunks_mut(d)),
            (self.m_logvar.par_chunks_mut(d), self.v_logvar.par_chunks_mut(d)),
            (self.eps.par_chunks_mut(d), self.z.par_chunks_mut(d)),
        )
            .into_par_iter()
            .map(move |((mu, logvar), (m_mu, v_mu), (m_logvar, v_logvar), (eps, z))| State {
                d,
                mu,
                logvar,
                m_mu,
                v_mu,
                m_logvar,
                v_logvar,
                eps,
                z,
            })
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
        Draw { mu: state.mu, logvar: state.logvar, eps: state.eps, z: state.z }.run::<I>();
    }
}

/// One fast step; `kl` gets the KL of every row.
pub fn step<T: Real>(step: &Step<T>, d_z: &[T], supply: Supply<T>, state: State<T>, kl: &mut [T]) {
    let d = state.d;
    assert_eq!(d_z.len(), state.z.len(), "gradient and latents are of one size");
    (state.rows(), d_z.par_chunks(d), kl).into_par_iter().enumerate().for_each(|(row, (state, d_z, kl))| {
        *kl = simd::dispatch(Descend { step, d_z, supply, row, state });
    });
}

/// One row of a fast step; returns its KL.
struct Descend<'a, 'b, T> {
    step: &'a Step<T>,
    d_z: &'a [T],
    supply: Supply<'a, T>,
    row: usize,
    state: State<'b, T>,
}

impl<T: Real> Kernel for Descend<'_, '_, T> {
    type Output = T;

    #[inline(always)]
    fn run<I: Isa>(self) -> T {
        let Self { step, d_z, supply, row, state: s } = self;
        let one = T::Lanes::<I>::splat(T::ONE);
        let half = T::Lanes::<I>::splat(T::from_f64(0.5));
        let mut twice = T::Lanes::<I>::zero();
        for i in (0..d_z.len()).step_by(LANES) {
            let (mu, logvar) = (load::<I, T>(s.mu, i), load::<I, T>(s.logvar, i));
            let (d_z, eps) = (load::<I, T>(d_z, i), load::<I, T>(s.eps, i));
            let sigma = sigma::<I, T>(logvar);
            let var = sigma.mul(sigma);
            twice = twice.add(twice_kl::<I, T>(mu, logvar, var));
            let g_mu = d_z.add(mu);
            let g_logvar = d_z.mul(eps).mul_add(sigma, var.sub(one)).mul(half);
            step.lanes::<I>(g_mu, s.mu, s.m_mu, s.v_mu, i);
            step.lanes::<I>(g_logvar, s.logvar, s.m_logvar, s.v_logvar, i);
        }
        supply.row(row, s.eps);
        Draw { mu: s.mu, logvar: s.logvar, eps: s.eps, z: s.z }.run::<I>();
        twice.sum() * T::from_f64(0.5)
    }
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

/// One number per sample from those of its rows, in their order.
pub fn sum_rows<T: Real>(rows: &[T], out: &mut [T]) {
    let per_sample = rows.len() / out.len();
    for (out, rows) in out.iter_mut().zip(rows.chunks_exact(per_sample)) {
        *out = rows.iter().fold(T::ZERO, |sum, &row| sum + row);
    }
}
