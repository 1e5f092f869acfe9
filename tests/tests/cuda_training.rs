//! Whole training steps by kernels: the fast loop, captured and replayed, the slow step, and scoring, on the host shim in f32
//! against the CPU in f64.

use autograd::Store;
use engine::{DType, Device};
use kernels::registry::modules;
use ltm::config::Config;
use ltm::data::{Batch, SampleInfo};
use ltm::learn::{Fast, FastOptions, Inputs, Score, Slow};
use ltm::model::Params;
use tests::shim::{Order, Shim};

/// Name and numbers.
type Named = (String, Vec<f64>);

const SAMPLES: usize = 2;
const TOKENS: usize = 13;

fn config() -> Config {
    let mut config = Config::preset("tiny").expect("a preset");
    for (key, value) in [
        ("model.dim", "24"),
        ("model.heads", "2"),
        ("model.layers", "2"),
        ("model.seq", "13"),
        ("model.window", "5"),
        ("model.latents", "3"),
        ("train.batch", "2"),
        ("fast.steps", "4"),
    ] {
        config.set(key, value).expect("a setting");
    }
    config.resolved().expect("a configuration")
}

fn batch(round: usize) -> Batch {
    let mut batch = Batch::new(SAMPLES, TOKENS);
    for i in 0..SAMPLES * TOKENS {
        batch.tokens[i] = ((i + round) * 11 % 200) as i32;
        batch.targets[i] = if i % 7 == 3 { -1 } else { (i * 17 % 250) as i32 };
    }
    batch.samples[1] = SampleInfo { id: 1, ..SampleInfo::default() };
    batch
}

/// Two slow steps, each behind a fast loop, and a score; everything that comes out on the way.
fn train(device: &Device, dtype: DType) -> Vec<Named> {
    let config = config();
    let mut store = Store::new(device.clone());
    let params = Params::new(&config.model, dtype, &mut store);
    params.init(&mut store, 2);
    let inputs = Inputs::new(SAMPLES, TOKENS, dtype, &mut store);
    let fast = Fast::new(&config.model, &config.fast, &params, &inputs, &mut store, &FastOptions::default());
    let fast = fast.expect("a fast loop");
    let z = fast.latents.z;
    let slow = Slow::new(&config.model, &config.slow, &params, &inputs, z, &[], &mut store).expect("a slow step");
    let score = Score::new(&config.model, &params, &inputs, &fast.latents, 5, &mut store).expect("a score");
    store.ready().expect("room");

    let mut out: Vec<Named> = vec![];
    for round in 0..2 {
        inputs.load(&mut store, &config.model, &batch(round)).expect("a batch that fits");
        fast.fit(&mut store, 0.1, round as u32, |t, store| {
            out.push((format!("nll of step {t} of round {round}"), fast.nll(store)));
            out.push((format!("kl of step {t} of round {round}"), fast.kl(store)));
            for (name, id) in [("mu", fast.latents.mu), ("logvar", fast.latents.logvar), ("z", z)] {
                out.push((format!("{name} after step {t} of round {round}"), store.get(id).to_f64()));
            }
        });
        slow.gradient(&mut store);
        for (p, &grad) in params.iter().zip(slow.grads()) {
            out.push((format!("gradient of {} in round {round}", p.name), store.get(grad).to_f64()));
        }
        out.push((format!("gradient norm of round {round}"), vec![slow.grad_norm(&mut store)]));
        slow.apply(&mut store, 1e-3, round as u64 + 1);
        for p in params.iter() {
            out.push((format!("{} after round {round}", p.name), store.get(p.id).to_f64()));
        }
    }
    score.begin(&mut store);
    let scores = score.draw(&mut store, 3);
    out.extend([("score".into(), scores.nll), ("log ratio".into(), scores.log_ratio)]);
    out
}

fn shim(order: Order) -> Device {
    let device = Shim::device(order);
    let Device::Cuda(gpu) = &device else { unreachable!("the shim is a GPU") };
    gpu.load(&modules()).expect("kernels");
    device
}

#[test]
fn a_device_learns_as_the_cpu_does() {
    let exact = train(&Device::Cpu, DType::F64);
    let ours = train(&shim(Order::Forward), DType::F32);
    assert_eq!(ours.len(), exact.len());
    for ((name, ours), (_, exact)) in ours.iter().zip(&exact) {
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let size = norm(&mut exact.iter().copied());
        let error = norm(&mut ours.iter().zip(exact).map(|(a, b)| a - b)) / size.max(1e-30);
        // Written so that NaN fails.
        let close = error < 2e-4;
        assert!(close, "{name} is off by {error:.1e} of {size:.1e}");
    }
    assert!(train(&shim(Order::Shuffled), DType::F32) == ours, "the order of threads shows");
}
