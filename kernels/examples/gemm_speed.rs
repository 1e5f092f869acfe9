//! Speed of the matrix product against the processor's peak of fused multiply-adds:
//! `cargo run --release -p kernels --example gemm_speed [threads]`.

use engine::simd::{self, FmaChains};
use kernels::matmul::gemm::{Accumulate, Mat, MatMut, gemm, gemm_packed, pack_b, packed_len};
use std::time::Instant;

/// The best of several runs of work that returns its FLOPs, in 10⁹ FLOP/s.
fn best(mut work: impl FnMut() -> f64) -> f64 {
    let start = Instant::now();
    let (mut most, mut runs) = (0.0f64, 0);
    while runs < 3 || (start.elapsed().as_secs_f64() < 1.0 && runs < 200) {
        let start = Instant::now();
        let flops = work();
        most = most.max(flops / start.elapsed().as_secs_f64() / 1e9);
        runs += 1;
    }
    most
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
        let peak = best(|| rayon::broadcast(|_| simd::dispatch(FmaChains(1_000_000))).into_iter().sum());
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
            let mut percent = |product: &dyn Fn(MatMut<'_, f32>)| {
                let rate = best(|| {
                    product(MatMut::new(&mut c, m, n));
                    flops
                });
                100.0 * rate / peak
            };
            let forms = [
                percent(&|c| gemm(c, plain_a, plain_b, Accumulate::Write)),
                percent(&|c| gemm(c, plain_a, b_t, Accumulate::Write)),
                percent(&|c| gemm(c, a_t, plain_b, Accumulate::Write)),
                percent(&|c| gemm_packed(c, plain_a, &packed, Accumulate::Write)),
            ];
            print!("{:>22}", format!("[{m}, {k}, {n}]"));
            for x in forms {
                print!("  {x:>6.1}%");
            }
            println!();
        }
    });
}
