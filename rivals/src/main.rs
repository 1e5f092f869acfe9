//! Compares our matrix product with `gemm`, `matrixmultiply` and OpenBLAS on the shapes of the presets:
//! `cargo run --release`.
//!
//! All contenders multiply the same matrices in turn, in one process, with a burst of pure multiply-adds before each
//! call. So other load on the machine affects all of them and the peak equally. Numbers are medians over the rounds.
//! The first round is a warm-up and compares the results with ours.

mod contenders;

use clap::Parser;
use contenders::{Contender, Form, Product};
use engine::{Buffer, DType, Spec};
use lab::bench::{fma_burst, median};
use std::process::ExitCode;
use std::time::Instant;

/// Tokens of a batch: N = 1024, B = 1.
const TOKENS: usize = 1024;
/// Inputs and outputs of the linear maps of the preset `small`, the language-model head last.
const MAPS: [[usize; 2]; 6] = [[512, 512], [512, 1536], [512, 1376], [512, 2752], [1376, 512], [512, 50_258]];
/// Steps of a burst of multiply-adds: one to two milliseconds.
const BURST: usize = 500_000;
/// Results may differ only by the order of their sums: in units of k·ε, this is five standard deviations.
const TOLERANCE: f64 = 3.0;
/// Our goal against the best rival at every shape.
const GOAL: f64 = 0.95;

/// Products of the presets' shapes, ours against `gemm`, `matrixmultiply` and OpenBLAS
#[derive(Parser)]
struct Args {
    /// Threads of every contender
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Measured seconds for each product; at least 5 rounds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Only the maps with this many outputs
    #[arg(long, value_parser = ["512", "1536", "1376", "2752", "50258"])]
    outputs: Option<String>,
}

/// The measurements of one product.
struct Measured {
    /// The product, e.g. `[1024, 512] · [512, 1536]ᵀ`.
    product: Product,
    /// Median seconds of each contender.
    seconds: Vec<f64>,
    /// Median over the rounds of our time divided by the contender's in the same round.
    ratio: Vec<f64>,
    /// Median FLOP/s of the bursts between the calls.
    peak: f64,
    /// The largest difference of a rival's result from ours, in units of k·ε.
    difference: f64,
}

impl Measured {
    /// The best rival's time divided by ours, packing at every call and before.
    fn speeds(&self) -> [f64; 2] {
        // ratio[i] is our time divided by that of contender i.
        let best = self.ratio[2..].iter().fold(0.0f64, |most, &ratio| most.max(ratio));
        [1.0 / best, self.ratio[1] / best]
    }

    /// One line of the table.
    fn row(&self) -> String {
        let Product { m, k, n, form } = self.product;
        let form = match form {
            Form::Forward => "y = x·wᵀ",
            Form::Input => "d_x = d_y·w",
            Form::Weight => "d_w = d_yᵀ·x",
        };
        let flops = (2 * m * k * n) as f64;
        let shares: Vec<_> = self.seconds.iter().map(|s| format!("{:.1} %", 100.0 * flops / s / self.peak)).collect();
        let ([speed, packed], peak) = (self.speeds(), self.peak / 1e9);
        format!("| {:?} | {form} | {peak:.0} | {} | {speed:.2} | {packed:.2} |", [m, k, n], shares.join(" | "))
    }
}

fn main() -> Result<ExitCode, String> {
    let args = Args::parse();
    // The library's threads read this when they start; no other thread runs yet. SAFETY: no other thread exists that
    // could read the environment at this time.
    unsafe { std::env::set_var("MATMUL_NUM_THREADS", args.threads.to_string()) };
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global().map_err(|e| e.to_string())?;
    let contenders = contenders::all(args.threads)?;
    // Runs on a thread of the pool, so that the threads of the bursts and of our products are awake.
    let agree = rayon::scope(|_| compare(&args, &contenders));
    Ok(if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures everything and prints it as Markdown. Returns whether all results agree.
fn compare(args: &Args, contenders: &[Contender]) -> bool {
    let (processor, level) = (engine::probe::processor_name(), engine::simd::level());
    println!("{processor}, {level}, {} thread(s), f32; share of the FMA peak measured between the calls", args.threads);
    println!("speed: the best rival's time divided by ours, medians of interleaved rounds\n");
    let names: Vec<_> = contenders.iter().map(Contender::name).collect();
    println!("| product [m, k, n] | form | peak GFLOP/s | {} | speed | packed |", names.join(" | "));
    println!("|---|---|---|{}---|---|", "---|".repeat(names.len()));
    let mut all = Vec::new();
    let chosen = |map: &[usize; 2]| args.outputs.as_ref().is_none_or(|n| *n == map[1].to_string());
    for product in MAPS.into_iter().filter(chosen).flat_map(|[i, o]| Product::of_map(TOKENS, i, o)) {
        let measured = measure(product, contenders, args.seconds);
        println!("{}", measured.row());
        all.push(measured);
    }
    let mean = |of: &dyn Fn(&Measured) -> f64| (all.iter().map(|m| of(m).ln()).sum::<f64>() / all.len() as f64).exp();
    for (which, name) in ["packing at every call", "packed beforehand"].into_iter().enumerate() {
        let least = all.iter().map(|m| m.speeds()[which]).fold(f64::INFINITY, f64::min);
        let mean = mean(&|m| m.speeds()[which]);
        println!("\n{name}: {mean:.2} × the speed of the best rival (geometric mean), at least {least:.2} × (goal \
                  {GOAL})");
    }
    for (i, name) in names.iter().enumerate().skip(2) {
        println!("{name}: ours is {:.2} × as fast (geometric mean)", 1.0 / mean(&|m| m.ratio[i]));
    }
    let difference = all.iter().map(|m| m.difference).fold(0.0, f64::max);
    let agree = difference <= TOLERANCE;
    println!("largest difference between results: {difference:.2}·k·ε{}", if agree { "" } else { ": THEY DISAGREE" });
    agree
}

/// Aligned to cache lines, as every buffer of the engine is.
fn random(len: usize, site: u32) -> Buffer {
    let mut all = Buffer::new(Spec::new(DType::F32, &[len]));
    engine::rng::Stream::new(1, site).fill_normal(0, all.as_mut_slice(), |x| x as f32);
    all
}

/// Runs all contenders in turn; each round starts with a different one.
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
            // k additions to sums of the size √k, each rounded: about √k·√k·ε/2. A NaN counts as an infinite
            // difference.
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
            let [flops, seconds] = fma_burst(BURST);
            peaks.push(flops / seconds);
            let start = Instant::now();
            contenders[i].multiply(product, a, b, packed, c);
            times[i].push(start.elapsed().as_secs_f64());
        }
        round += 1;
    }
    let ratio =
        |other: &Vec<f64>| median(&times[0].iter().zip(other).map(|(ours, other)| ours / other).collect::<Vec<_>>());
    let ratio = times.iter().map(ratio).collect();
    let seconds = times.iter().map(|times| median(times)).collect();
    Measured { product, seconds, ratio, peak: median(&peaks), difference }
}
