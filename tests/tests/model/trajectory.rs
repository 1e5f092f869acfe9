//! `slow.gradient = trajectory`: the sum of the decoder's gradients at the z of all fast steps.

use crate::Bench;
use engine::DType;
use ltm::config::SlowConfig;
use ltm::learn::{FastOptions, Slow};
use tests::batch;

#[test]
fn gradients_pile_up_along_the_trajectory() {
    let sizes = "model.dim=16 model.heads=2 model.seq=12 model.window=4 model.latents=2 train.batch=2";
    let mut bench = Bench::new(&format!("{sizes} fast.schedule=constant"), DType::F64, 2);
    let batch = batch(2, 12, 0);
    let count = batch.targets.iter().filter(|&&t| t >= 0).count() as f64;
    bench.load(&batch);
    let fit = |bench: &mut Bench, steps: usize, options: &FastOptions| {
        let fast = bench.fast(steps, options);
        fast.fit(&mut bench.store, 0.1, 0, |_, _| ());
        bench.store.get(fast.latents.z).clone()
    };

    let piles: Vec<_> = bench.params.iter().map(|p| bench.store.alloc(p.spec)).collect();
    let z = fit(&mut bench, 3, &FastOptions { piles: piles.clone(), ..FastOptions::default() });
    let z = bench.store.insert(z);
    let Bench { config, params, inputs, store } = &mut bench;
    let slow = Slow::new(&config.model, &SlowConfig::default(), params, inputs, Some(z), &[], store).unwrap();
    let mut sums: Vec<Vec<f64>> = params.iter().map(|p| vec![0.0; p.spec.shape.numel()]).collect();
    // The same seed draws the same noise, so a loop of fewer steps ends with the z at which the next step starts.
    for steps in 0..3 {
        let at = fit(&mut bench, steps, &FastOptions::default());
        bench.store.get_mut(z).copy_from(&at);
        slow.gradient(&mut bench.store);
        for (sum, &grad) in sums.iter_mut().zip(&slow.grads) {
            // The slow loss is the mean over tokens, the fast one the sum.
            sum.iter_mut().zip(bench.store.get(grad).to_f64()).for_each(|(s, g)| *s += count * g);
        }
    }
    for (p, (sum, &pile)) in bench.params.iter().zip(sums.iter().zip(&piles)) {
        let scale = sum.iter().fold(1e-300f64, |m, x| m.max(x.abs()));
        let worst = bench.store.get(pile).to_f64().iter().zip(sum).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(scale > 1e-6 && worst <= 1e-10 * scale, "{}: an error of {worst:e} of {scale:e}", p.name);
    }
}
