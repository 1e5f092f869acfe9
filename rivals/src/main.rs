//! Products of the presets' shapes, ours against `gemm`, `matrixmultiply` and OpenBLAS: `cargo run --release`.
//!
//! All contenders multiply the same matrices in turn, in one process, with a burst of pure multiply-adds before each call.
//! So whatever else the machine does in the meantime falls on all of them and on the peak alike. Numbers are medians over
//! the rounds. The first round is for warming up and for comparing the results with ours.

mod contenders;
mod peak;
mod report;

use contenders::{Contender, Product};
use engine::{Buffer, DType, Spec};
use std::process::ExitCode;
use std::time::Instant;

/// Tokens of a batch: N = 1024, B = 1.
const TOKENS: usize = 1024;
/// Inputs and outputs of the linear maps of the preset `small`, the language-model head last.
const MAPS: [[usize; 2]; 6] = [[512, 512], [512, 1536], [512, 1376], [512, 2752], [1376, 512], [512, 50_258]];

/// What the command line says.
struct Args {
    threads: usize,
    seconds: f64,
    outputs: Option<usize>,
}

const USAGE: &str = "usage: rivals [--threads N] [--seconds S] [--outputs N]
  S: measured time for each product, at least 5 rounds; N: only the maps with so many outputs,
  512, 1536, 1376, 2752 or 50258";

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut args = Self { threads: 1, seconds: 1.0, outputs: None };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--threads" => args.threads = words.next()?.parse().ok().filter(|&n| n > 0)?,
                "--seconds" => args.seconds = words.next()?.parse().ok().filter(|&s| s >= 0.0)?,
                "--outputs" => {
                    args.outputs = Some(words.next()?.parse().ok().filter(|n| MAPS.iter().any(|map| map[1] == *n))?);
                }
                _ => return None,
            }
        }
        Some(args)
    }
}

/// What one product gave.
pub struct Measured {
    /// Which, e.g. `[1024, 512] · [512, 1536]ᵀ`.
    pub product: Product,
    /// Median seconds of each contender.
    pub seconds: Vec<f64>,
    /// Median over the rounds of our time divided by the contender's in the same round.
    pub ratio: Vec<f64>,
    /// Median FLOP/s of the bursts between the calls.
    pub peak: f64,
    /// The largest difference of a rival's result from ours, in units of k·ε.
    pub difference: f64,
}

fn main() -> ExitCode {
    let Some(args) = Args::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // Read by its threads when they start; nobody else runs yet.
    // SAFETY: no other thread exists that could read the environment at this time.
    unsafe { std::env::set_var("MATMUL_NUM_THREADS", args.threads.to_string()) };
    let pool = match rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global() {
        Ok(()) => contenders::all(args.threads),
        Err(e) => Err(e.to_string()),
    };
    let contenders = match pool {
        Ok(contenders) => contenders,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    report::begin(args.threads, &contenders);
    // On a thread of the pool: what the bursts and our products run on is awake.
    if rayon::scope(|_| compare(&args, &contenders)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures and prints everything. Whether all results agree.
fn compare(args: &Args, contenders: &[Contender]) -> bool {
    let mut all = Vec::new();
    for [inputs, outputs] in MAPS.into_iter().filter(|map| args.outputs.is_none_or(|n| n == map[1])) {
        for product in Product::of_map(TOKENS, inputs, outputs) {
            let measured = measure(product, contenders, args.seconds);
            report::row(&measured);
            all.push(measured);
        }
    }
    report::end(contenders, &all)
}

/// Aligned to cache lines, as every buffer of the engine is.
fn random(len: usize, site: u32) -> Buffer {
    let mut all = Buffer::new(Spec::new(DType::F32, &[len]));
    engine::rng::Stream::new(1, site).fill_normal(all.as_mut_slice(), |x| x as f32);
    all
}

/// Runs all contenders in turn, each round beginning with another one.
fn measure(product: Product, contenders: &[Contender], seconds: f64) -> Measured {
    let Product { m, k, n, .. } = product;
    let (a, b, mut c) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
    let (a, b, c): (&[f32], &[f32], &mut [f32]) = (a.as_slice(), b.as_slice(), c.as_mut_slice());
    let packed = contenders::pack(product, b);
    let packed = packed.as_slice();
    let mut expected: Vec<f32> = Vec::new();
    let mut difference = 0.0f64;
    for contender in contenders {
        c.fill(f32::NAN);
        contender.multiply(product, a, b, packed, c);
        if expected.is_empty() {
            expected = c.to_vec();
        }
        for (x, y) in expected.iter().zip(&*c) {
            // k additions to sums of the size √k, each rounded: about √k·√k·ε/2. A NaN is as far away as can be.
            let d = f64::from((x - y).abs()) / (k as f64 * f64::from(f32::EPSILON));
            difference = if d.is_nan() { f64::INFINITY } else { difference.max(d) };
        }
    }
    let (mut times, mut peaks) = (vec![Vec::new(); contenders.len()], Vec::new());
    let start = Instant::now();
    let mut round = 0;
    while round < 5 || start.elapsed().as_secs_f64() < seconds {
        for turn in 0..contenders.len() {
            let i = (turn + round) % contenders.len();
            peaks.push(peak::rate());
            let start = Instant::now();
            contenders[i].multiply(product, a, b, packed, c);
            times[i].push(start.elapsed().as_secs_f64());
        }
        round += 1;
    }
    let ratio = |other: &Vec<f64>| median(times[0].iter().zip(other).map(|(ours, other)| ours / other).collect());
    let ratio = times.iter().map(ratio).collect();
    Measured { product, seconds: times.into_iter().map(median).collect(), ratio, peak: median(peaks), difference }
}

/// The middle of some numbers.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
