//! Compares our matrix products with those of other libraries on the shapes of the presets: `cargo run --release`. In f32
//! with `gemm`, `matrixmultiply` and OpenBLAS, in bf16 with oneDNN.
//!
//! All contenders multiply the same matrices in turn, in one process, with a burst of pure multiply-adds before each
//! call. So other load on the machine affects all of them and the peak equally. Numbers are medians over the rounds.
//! The first round is a warm-up and compares the results with ours.

mod contenders;

use clap::Parser;
use contenders::{Contender, Form, Product};
use engine::{Buffer, DType, Spec};
use roofline::{bf16_burst, fma_burst, median, quantile};
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

/// Products of the presets' shapes, ours against `gemm`, `matrixmultiply` and OpenBLAS, or against oneDNN
#[derive(Parser)]
struct Args {
    /// Type of the factors; bf16 is compared with oneDNN
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    dtype: String,
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
    /// Seconds of each contender in every round.
    seconds: Vec<Vec<f64>>,
    /// Of each contender in every round: our time divided by the contender's.
    ratios: Vec<Vec<f64>>,
    /// Median FLOP/s of the bursts between the calls.
    peak: f64,
    /// The largest difference of a rival's result from ours, in units of k·ε.
    difference: f64,
}

impl Measured {
    /// The best rival's time divided by that of each of the first `ours` contenders, in every round. The best rival is the one
    /// with the best median.
    fn speeds(&self, ours: usize) -> Vec<Vec<f64>> {
        // ratios[i] is the first contender's time divided by that of contender i.
        let best = self.ratios[ours..].iter().max_by(|a, b| median(a).total_cmp(&median(b))).expect("a rival");
        let speed = |of: &Vec<f64>| of.iter().zip(best).map(|(ours, rival)| ours / rival).collect();
        self.ratios[..ours].iter().map(speed).collect()
    }

    /// One line of the table.
    fn row(&self, ours: usize) -> String {
        let Product { m, k, n, form } = self.product;
        let form = match form {
            Form::Forward => "y = x·wᵀ",
            Form::Input => "d_x = d_y·w",
            Form::Weight => "d_w = d_yᵀ·x",
        };
        let flops = (2 * m * k * n) as f64;
        let rate = |seconds: f64| flops / seconds / 1e9;
        let share = |seconds: &Vec<f64>| {
            let [middle, slow, fast] = [0.5, 0.8, 0.2].map(|q| rate(quantile(seconds, q)));
            format!("{middle:.0} ({slow:.0} to {fast:.0}), {:.1} %", 1e11 * middle / self.peak)
        };
        let shares: Vec<_> = self.seconds.iter().map(share).collect();
        let speed = |speeds: &Vec<f64>| {
            let [middle, low, high] = [0.5, 0.2, 0.8].map(|q| quantile(speeds, q));
            format!("{middle:.2} ({low:.2} to {high:.2})")
        };
        let speeds: Vec<_> = self.speeds(ours).iter().map(speed).collect();
        let peak = self.peak / 1e9;
        format!("| {form} | {:?} | {peak:.0} | {} | {} |", [m, k, n], shares.join(" | "), speeds.join(" | "))
    }
}

fn main() -> Result<ExitCode, String> {
    let args = Args::parse();
    // The libraries' threads read these when they start. SAFETY: no other thread exists yet that could read the environment
    // at this time.
    unsafe {
        std::env::set_var("MATMUL_NUM_THREADS", args.threads.to_string());
        std::env::set_var("OMP_NUM_THREADS", args.threads.to_string());
    }
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global().map_err(|e| e.to_string())?;
    let rounds = args.dtype == "bf16";
    let contest = Contest {
        contenders: if rounds { contenders::halves()? } else { contenders::singles(args.threads)? },
        ours: if rounds { 1 } else { 2 },
        burst: if rounds { bf16_burst } else { fma_burst },
    };
    // Runs on a thread of the pool, so that the threads of the bursts and of our products are awake.
    let agree = engine::parallel::in_pool(|| contest.run(&args));
    Ok(if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Who competes, and how.
struct Contest {
    contenders: Vec<Contender>,
    /// How many of them are ours, the first ones.
    ours: usize,
    /// Runs pure multiply-adds; returns FLOPs and seconds.
    burst: fn(usize) -> [f64; 2],
}

impl Contest {
    /// Measures everything and prints it as Markdown. Returns whether all results agree.
    fn run(&self, args: &Args) -> bool {
        let (processor, level) = (engine::probe::processor_name(), engine::simd::level());
        println!("{processor}, {level}, {} thread(s), {}", args.threads, args.dtype);
        println!("contenders: median GFLOP/s (20 to 80 % of the rounds), share of the peak measured between the calls");
        println!("rival / ours: the best rival's time divided by ours in the same round, median (20 to 80 %); above 1 ours is faster\n");
        let names: Vec<_> = self.contenders.iter().map(|contender| contender.name).collect();
        let speeds: Vec<_> = names[..self.ours].iter().map(|name| format!("rival / {name}")).collect();
        println!("| form | m, k, n | peak GFLOP/s | {} | {} |", names.join(" | "), speeds.join(" | "));
        println!("|---|---|---|{}", "---|".repeat(names.len() + self.ours));
        let mut all = Vec::new();
        let chosen = |map: &[usize; 2]| args.outputs.as_ref().is_none_or(|n| *n == map[1].to_string());
        for product in MAPS.into_iter().filter(chosen).flat_map(|[i, o]| Product::of_map(TOKENS, i, o)) {
            let measured = self.measure(product, args.seconds);
            println!("{}", measured.row(self.ours));
            all.push(measured);
        }
        let mean =
            |of: &dyn Fn(&Measured) -> f64| (all.iter().map(|m| of(m).ln()).sum::<f64>() / all.len() as f64).exp();
        for (which, name) in names[..self.ours].iter().enumerate() {
            let speed = |m: &Measured| median(&m.speeds(self.ours)[which]);
            let least = all.iter().map(speed).fold(f64::INFINITY, f64::min);
            let mean = mean(&speed);
            println!("\n{name}: {mean:.2} × the speed of the best rival (geometric mean), at least {least:.2} ×");
        }
        for (i, name) in names.iter().enumerate().skip(self.ours) {
            println!("{name}: ours is {:.2} × as fast (geometric mean)", 1.0 / mean(&|m| median(&m.ratios[i])));
        }
        let difference = all.iter().map(|m| m.difference).fold(0.0, f64::max);
        let agree = difference <= TOLERANCE;
        println!(
            "largest difference between results: {difference:.2}·k·ε{}",
            if agree { "" } else { ": THEY DISAGREE" }
        );
        agree
    }

    /// Runs all contenders in turn; each round starts with a different one.
    fn measure(&self, product: Product, seconds: f64) -> Measured {
        let Product { m, k, n, .. } = product;
        let (a, b, mut c) = (random(m * k, 1), random(k * n, 2), random(m * n, 3));
        let (a, b, c): (&[f32], &[f32], &mut [f32]) = (a.as_slice(), b.as_slice(), c.as_mut_slice());
        let runs: Vec<_> = self.contenders.iter().map(|contender| (contender.prepare)(product, a, b)).collect();
        let mut expected: Vec<f32> = Vec::new();
        let mut difference = 0.0f64;
        for run in &runs {
            c.fill(f32::NAN);
            run(c);
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
        let (mut times, mut peaks) = (vec![Vec::new(); runs.len()], Vec::new());
        let start = Instant::now();
        let mut round = 0;
        while round < 5 || start.elapsed().as_secs_f64() < seconds {
            for turn in 0..runs.len() {
                let i = (turn + round) % runs.len();
                let [flops, seconds] = (self.burst)(BURST);
                peaks.push(flops / seconds);
                let start = Instant::now();
                runs[i](c);
                times[i].push(start.elapsed().as_secs_f64());
            }
            round += 1;
        }
        let ratios = |other: &Vec<f64>| times[0].iter().zip(other).map(|(ours, other)| ours / other).collect();
        let ratios = times.iter().map(ratios).collect();
        Measured { product, seconds: times, ratios, peak: median(&peaks), difference }
    }
}

/// Aligned to cache lines, as every buffer of the engine is.
fn random(len: usize, site: u32) -> Buffer {
    let mut all = Buffer::new(Spec::new(DType::F32, &[len]));
    engine::rng::Stream::new(1, site).fill_normal(0, all.as_mut_slice(), |x| x as f32);
    all
}
