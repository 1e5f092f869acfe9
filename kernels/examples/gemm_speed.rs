//! Speed of the matrix product against the processor's peak of fused multiply-adds:
//! `cargo run --release -p kernels --example gemm_speed [threads]`.

use engine::simd::{self, Isa, Kernel, Lanes, Real};
use kernels::matmul::gemm::{Accumulate, Mat, MatMut, gemm, gemm_packed, pack_b, packed_len};
use std::hint::black_box;
use std::time::Instant;

/// Independent chains of multiply-adds that never leave the registers; returns their number of FLOPs.
struct Peak(usize);

impl Kernel for Peak {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self) -> f64 {
        const CHAINS: usize = 12;
        let x = <f32 as Real>::Lanes::<I>::splat(black_box(0.999));
        let mut sums = [x; CHAINS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = sum.mul_add(x, x);
            }
        }
        black_box(sums.map(|sum| sum.sum()));
        (2 * CHAINS * simd::LANES * self.0) as f64
    }
}

/// The best of several runs, in 10⁹ FLOP/s.
fn best(flops: f64, mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut least = f64::INFINITY;
    let mut runs = 0;
    while runs < 3 || (start.elapsed().as_secs_f64() < 1.5 && runs < 200) {
        let start = Instant::now();
        work();
        least = least.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    flops / least / 1e9
}

fn random(len: usize) -> Vec<f32> {
    let mut all = vec![0.0; len];
    engine::rng::Stream::new(1, 1).fill_normal(&mut all, |x| x as f32);
    all
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads");
    pool.install(|| {
        let work = Peak(20_000_000);
        let peak = best((2 * 12 * simd::LANES * work.0 * threads) as f64, || {
            rayon::broadcast(|_| simd::dispatch(Peak(work.0)));
        });
        println!("{} on {threads} threads: peak {peak:.0} GFLOP/s", simd::level());
        println!("{:>22}  {:>7}  {:>7}  {:>7}  {:>7}", "[m, k, n]", "A·B", "A·Bᵀ", "Aᵀ·B", "packed");
        for [m, k, n] in [
            [1024, 512, 512],
            [1024, 512, 1536],
            [1024, 512, 2752],
            [1024, 2752, 512],
            [1024, 512, 50_258],
            [1024, 50_258, 512],
            [50_258, 1024, 512],
            [64, 512, 512],
            [8, 512, 50_258],
            [1, 512, 1536],
            [1, 512, 50_258],
        ] {
            let (a, b, mut c) = (random(m * k), random(k * n), vec![0.0; m * n]);
            let mut packed = vec![0.0; packed_len(k, n)];
            pack_b(Mat::new(&b, k, n), &mut packed);
            let flops = (2 * m * k * n) as f64;
            let (plain_a, plain_b) = (Mat::new(&a, m, k), Mat::new(&b, k, n));
            let (a_t, b_t) = (Mat::new(&a, k, m).transposed(), Mat::new(&b, n, k).transposed());
            let mut percent =
                |a, b| 100.0 / peak * best(flops, || gemm(MatMut::new(&mut c, m, n), a, b, Accumulate::Write));
            let forms = [percent(plain_a, plain_b), percent(plain_a, b_t), percent(a_t, plain_b)];
            let prepacked = 100.0 / peak
                * best(flops, || gemm_packed(MatMut::new(&mut c, m, n), plain_a, &packed, Accumulate::Write));
            print!("{:>22}", format!("[{m}, {k}, {n}]"));
            for x in forms.into_iter().chain([prepacked]) {
                print!("  {x:>6.1}%");
            }
            println!();
        }
    });
}
