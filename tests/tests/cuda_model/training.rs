//! Whole training steps by kernels: the fast loop, captured and replayed, the slow step, and scoring, on the host shim in f32
//! against the CPU in f64.

use crate::{config, shim};
use autograd::Store;
use engine::{DType, Device, Result};
use ltm::learn::{Fast, FastOptions, Inputs, Score, Slow};
use ltm::model::Params;
use tests::shim::Order;

/// Name and numbers.
type Named = (String, Vec<f64>);

/// Two slow steps, each behind a fast loop, and a score; everything that comes out on the way.
fn train(device: &Device, dtype: DType, compute: DType) -> Result<Vec<Named>> {
    let config = config(&[]);
    let (samples, tokens) = (config.train.batch, config.model.seq);
    let mut store = Store::new(device.clone());
    let params = Params::new(&config.model, dtype, &mut store).computed_in(compute);
    params.init(&mut store, 2);
    let inputs = Inputs::new(samples, tokens, dtype, &mut store);
    let fast = Fast::new(&config.model, &config.fast, &params, &inputs, &mut store, &FastOptions::default());
    let fast = fast.expect("a fast loop");
    let z = fast.latents.z;
    let slow = Slow::new(&config.model, &config.slow, &params, &inputs, Some(z), &[], &mut store).expect("a slow step");
    let score = Score::new(&config.model, &params, &inputs, Some(&fast.latents), 5, &mut store).expect("a score");
    store.ready().expect("room");

    let mut out: Vec<(String, Result<Vec<f64>>)> = vec![];
    for round in 0..2 {
        inputs.load(&mut store, &config.model, &tests::batch(samples, tokens, round)).expect("a batch that fits");
        fast.fit(&mut store, 0.1, round as u32, |t, store| {
            out.push((format!("nll of step {t} of round {round}"), fast.nll(store)));
            out.push((format!("kl of step {t} of round {round}"), fast.kl(store)));
            for (name, id) in [("mu", fast.latents.mu), ("logvar", fast.latents.logvar), ("z", z)] {
                out.push((format!("{name} after step {t} of round {round}"), store.get(id).read_f64()));
            }
        });
        slow.gradient(&mut store);
        for (p, &grad) in params.iter().zip(&slow.grads) {
            out.push((format!("gradient of {} in round {round}", p.name), store.get(grad).read_f64()));
        }
        out.push((format!("gradient norm of round {round}"), slow.grad_norm(&mut store).map(|norm| vec![norm])));
        slow.apply(&mut store, 1e-3, round as u64 + 1);
        for p in params.iter() {
            out.push((format!("{} after round {round}", p.name), store.get(p.id).read_f64()));
        }
    }
    score.begin(&mut store);
    let scores = score.draw(&mut store, 3)?;
    out.extend([("score".into(), Ok(scores.nll)), ("log ratio".into(), Ok(scores.log_ratio))]);
    out.into_iter().map(|(name, numbers)| Ok((name, numbers?))).collect()
}

/// ‖ours − exact‖ / ‖exact‖ of everything; infinity if there is NaN.
fn errors<'a>(ours: &'a [Named], exact: &'a [Named]) -> impl Iterator<Item = (&'a str, f64)> {
    assert_eq!(ours.len(), exact.len());
    ours.iter().zip(exact).map(|((name, ours), (_, exact))| {
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let size = norm(&mut exact.iter().copied());
        let error = norm(&mut ours.iter().zip(exact).map(|(a, b)| a - b)) / size.max(1e-30);
        (name.as_str(), if error.is_nan() { f64::INFINITY } else { error })
    })
}

#[test]
fn a_device_learns_as_the_cpu_does() {
    let exact = train(&Device::Cpu, DType::F64, DType::F64).expect("the CPU does not fail");
    let ours = train(&shim(Order::Forward), DType::F32, DType::F32).expect("sound kernels");
    for (name, error) in errors(&ours, &exact) {
        assert!(error < 2e-4, "{name} is off by {error:.1e}");
    }
    assert!(train(&shim(Order::Shuffled), DType::F32, DType::F32) == Ok(ours), "the order of threads shows");
}

/// What is learned lies in f32, so what bf16 loses is lost per step: a few in a thousand of every gradient. (AdamW's first
/// steps have the size of the rate whatever the gradient, so where that is close to zero they may point elsewhere.)
#[test]
fn a_device_learns_in_bf16() {
    let exact = train(&Device::Cpu, DType::F64, DType::F64).expect("the CPU does not fail");
    let ours = train(&shim(Order::Forward), DType::F32, DType::Bf16).expect("sound kernels");
    let most = |name: &str| match name.split_whitespace().next() {
        Some("nll" | "kl" | "score") => 1e-3,
        Some("gradient") => 5e-2,
        Some("mu" | "logvar" | "z" | "log") => 0.5,
        _ => 3e-2, // weights
    };
    let mut worst = 0.0f64;
    for (name, error) in errors(&ours, &exact) {
        assert!(error < most(name), "{name} is off by {error:.1e}");
        worst = worst.max(error);
    }
    assert!(worst > 1e-3, "{worst:.1e} is closer than bf16 can be: it was not used");
    assert!(train(&shim(Order::Shuffled), DType::F32, DType::Bf16) == Ok(ours), "the order of threads shows");
}
