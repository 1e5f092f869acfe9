//! What a GPU is asked for once training is under way: no memory, and within a batch's fast steps nothing that goes to
//! or comes from the host; every step is one launch of what was recorded.

use autograd::Store;
use engine::cuda::{Captured, Gpu, Grid, Kernel, Module, Product};
use engine::{DType, Device, Result};
use kernels::registry::modules;
use ltm::config::Config;
use ltm::learn::{Fast, FastOptions, Inputs, Slow};
use ltm::model::Params;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tests::shim::{Order, Shim};

/// How often each thing was asked for.
#[derive(Debug, Default)]
struct Counts {
    memory: AtomicUsize,
    transfers: AtomicUsize,
    work: AtomicUsize,
    replays: AtomicUsize,
}

/// Memory, transfers, single launches, replays.
type Seen = [usize; 4];

impl Counts {
    fn seen(&self) -> Seen {
        [&self.memory, &self.transfers, &self.work, &self.replays].map(|n| n.load(Relaxed))
    }
}

/// A GPU that counts.
#[derive(Debug)]
struct Watched {
    gpu: Arc<dyn Gpu>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Replay {
    work: Box<dyn Captured>,
    counts: Arc<Counts>,
}

impl Captured for Replay {
    fn launch(&self) {
        self.counts.replays.fetch_add(1, Relaxed);
        self.work.launch();
    }
}

impl Gpu for Watched {
    fn name(&self) -> &str {
        self.gpu.name()
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.counts.memory.fetch_add(1, Relaxed);
        self.gpu.alloc(bytes)
    }

    fn free(&self, address: u64) {
        self.counts.memory.fetch_add(1, Relaxed);
        self.gpu.free(address);
    }

    fn free_bytes(&self) -> usize {
        self.gpu.free_bytes()
    }

    fn shared_bytes(&self) -> usize {
        self.gpu.shared_bytes()
    }

    fn write(&self, to: u64, from: &[u8]) {
        self.counts.transfers.fetch_add(1, Relaxed);
        self.gpu.write(to, from);
    }

    fn read(&self, from: u64, to: &mut [u8]) {
        self.counts.transfers.fetch_add(1, Relaxed);
        self.gpu.read(from, to);
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) {
        self.counts.work.fetch_add(1, Relaxed);
        self.gpu.copy(from, to, bytes);
    }

    fn clear(&self, at: u64, bytes: usize) {
        self.counts.work.fetch_add(1, Relaxed);
        self.gpu.clear(at, bytes);
    }

    fn load(&self, modules: &[&'static Module]) -> Result<()> {
        self.gpu.load(modules)
    }

    fn launch(&self, kernel: &Kernel, grid: Grid, args: &[engine::cuda::Arg]) {
        self.counts.work.fetch_add(1, Relaxed);
        self.gpu.launch(kernel, grid, args);
    }

    fn product(&self, product: &Product) {
        self.counts.work.fetch_add(1, Relaxed);
        self.gpu.product(product);
    }

    fn begin_capture(&self) {
        self.gpu.begin_capture();
    }

    fn end_capture(&self) -> Box<dyn Captured> {
        Box::new(Replay { work: self.gpu.end_capture(), counts: self.counts.clone() })
    }

    fn finish(&self) {
        self.gpu.finish();
    }
}

const SAMPLES: usize = 2;
const TOKENS: usize = 13;
const STEPS: usize = 6;

fn config() -> Config {
    tests::tiny(&[
        ("model.dim", "16"),
        ("model.heads", "2"),
        ("model.layers", "2"),
        ("model.seq", "13"),
        ("model.window", "5"),
        ("model.latents", "3"),
        ("train.batch", "2"),
        ("fast.steps", "6"),
    ])
}

fn train(compute: DType) {
    let Device::Cuda(gpu) = Shim::device(Order::Forward) else { unreachable!("the shim is a GPU") };
    gpu.load(&modules()).expect("kernels");
    let counts = Arc::new(Counts::default());
    let device = Device::Cuda(Arc::new(Watched { gpu, counts: counts.clone() }));
    let config = config();
    let mut store = Store::new(device);
    let params = Params::new(&config.model, DType::F32, &mut store).computed_in(compute);
    params.init(&mut store, 2);
    let inputs = Inputs::new(SAMPLES, TOKENS, DType::F32, &mut store);
    let options = FastOptions::default();
    let fast = Fast::new(&config.model, &config.fast, &params, &inputs, &mut store, &options).expect("a fast loop");
    let z = fast.latents.z;
    let slow = Slow::new(&config.model, &config.slow, &params, &inputs, Some(z), &[], &mut store).expect("a slow step");
    for round in 0..3 {
        let before = counts.seen();
        inputs.load(&mut store, &config.model, &tests::batch(SAMPLES, TOKENS, round)).expect("a batch that fits");
        let mut behind: Vec<Seen> = Vec::new();
        fast.fit(&mut store, 0.1, round as u32, |_, _| behind.push(counts.seen()));
        slow.gradient(&mut store);
        slow.apply(&mut store, 1e-3, round as u64 + 1);
        assert_eq!(behind.len(), STEPS);
        for (t, pair) in behind.windows(2).enumerate() {
            let [memory, transfers, work, replays] = [0, 1, 2, 3].map(|i| pair[1][i] - pair[0][i]);
            let place = format!("{compute}, batch {round}, fast step {}", t + 1);
            assert_eq!((memory, transfers), (0, 0), "{place}: nothing is allocated, sent or fetched");
            // The first batch's first steps are run and recorded.
            if round > 0 || t > 1 {
                assert_eq!((work, replays), (0, 1), "{place}: one launch of what was recorded");
            }
        }
        if round > 0 {
            assert_eq!(counts.seen()[0], before[0], "{compute}: no memory after the first batch");
        }
    }
}

#[test]
fn a_fast_step_is_one_launch_in_f32() {
    train(DType::F32);
}

#[test]
fn a_fast_step_is_one_launch_in_bf16() {
    train(DType::Bf16);
}
