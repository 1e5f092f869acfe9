//! `slow.gradient = trajectory`: the sum of the decoder's gradients at all z on the way.

use autograd::Store;
use engine::{DType, Device};
use ltm::config::{FastConfig, SlowConfig};
use ltm::learn::{Fast, FastOptions, Inputs, Slow};
use ltm::model::Params;
use tests::{batch, tiny};

#[test]
fn gradients_pile_up_along_the_trajectory() {
    let config = tiny(&[
        ("model.dim", "16"),
        ("model.heads", "2"),
        ("model.seq", "12"),
        ("model.window", "4"),
        ("model.latents", "2"),
        ("fast.schedule", "constant"),
        ("train.batch", "2"),
    ]);
    let mut store = Store::new(Device::Cpu);
    let params = Params::new(&config.model, DType::F64, &mut store);
    params.init(&mut store, 2);
    let inputs = Inputs::new(2, 12, DType::F64, &mut store);
    let batch = batch(2, 12, 0);
    let count = batch.targets.iter().filter(|&&t| t >= 0).count() as f64;
    inputs.load(&mut store, &config.model, &batch).unwrap();
    let fit = |steps: usize, options: &FastOptions, store: &mut Store| {
        let fast = FastConfig { steps, ..config.fast.clone() };
        let fast = Fast::new(&config.model, &fast, &params, &inputs, store, options).unwrap();
        fast.fit(store, 0.1, 0, |_, _| ());
        store.get(fast.latents.z).clone()
    };

    let piles: Vec<_> = params.iter().map(|p| store.alloc(p.spec)).collect();
    let options = FastOptions { piles: piles.clone(), ..FastOptions::default() };
    let z = fit(3, &options, &mut store);
    let z = store.insert(z);
    let slow = Slow::new(&config.model, &SlowConfig::default(), &params, &inputs, Some(z), &[], &mut store).unwrap();
    let mut sums: Vec<Vec<f64>> = params.iter().map(|p| vec![0.0; p.spec.shape.numel()]).collect();
    // The same seed draws the same noise: a loop of fewer steps leaves in z what the next step starts from.
    for steps in 0..3 {
        let at = fit(steps, &FastOptions::default(), &mut store);
        store.get_mut(z).copy_from(&at);
        slow.gradient(&mut store);
        for (sum, &grad) in sums.iter_mut().zip(slow.grads()) {
            // The slow loss is the mean over tokens, the fast one the sum.
            sum.iter_mut().zip(store.get(grad).to_f64()).for_each(|(s, g)| *s += count * g);
        }
    }
    for (p, (sum, &pile)) in params.iter().zip(sums.iter().zip(&piles)) {
        let scale = sum.iter().fold(1e-300f64, |m, x| m.max(x.abs()));
        let worst = store.get(pile).to_f64().iter().zip(sum).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(scale > 1e-6 && worst <= 1e-10 * scale, "{}: off by {worst:e} of {scale:e}", p.name);
    }
}
