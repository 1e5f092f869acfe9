//! `slow.gradient = trajectory`: the piles are the sum of the decoder's gradients met on the way.

use autograd::Store;
use engine::{DType, Device};
use ltm::config::{Config, SlowConfig};
use ltm::data::{Batch, SampleInfo};
use ltm::learn::{Fast, FastOptions, Inputs, Slow, WeightGradients};
use ltm::model::Params;

#[test]
fn gradients_pile_up_along_the_trajectory() {
    let mut config = Config::preset("tiny").unwrap();
    for (key, value) in [
        ("model.dim", "16"),
        ("model.heads", "2"),
        ("model.seq", "12"),
        ("model.window", "4"),
        ("model.latents", "2"),
        ("train.batch", "2"),
        ("fast.steps", "3"),
    ] {
        config.set(key, value).unwrap();
    }
    let config = config.resolved().unwrap();
    let mut store = Store::new(Device::Cpu);
    let params = Params::new(&config.model, DType::F64, &mut store);
    params.init(&mut store, 2);
    let inputs = Inputs::new(2, 12, DType::F64, &mut store);
    let mut batch = Batch::new(2, 12);
    for i in 0..24 {
        batch.tokens[i] = (i * 11 % 200) as i32;
        batch.targets[i] = if i % 7 == 3 { -1 } else { (i * 17 % 250) as i32 };
    }
    batch.samples[1] = SampleInfo { id: 1, ..SampleInfo::default() };
    let count = batch.targets.iter().filter(|&&t| t >= 0).count() as f64;
    inputs.load(&mut store, &config.model, &batch).unwrap();

    let piles: Vec<_> = params.iter().map(|p| store.alloc(p.spec)).collect();
    let options = FastOptions { weights: WeightGradients::PiledUp(piles.clone()), ..FastOptions::default() };
    let fast = Fast::new(&config.model, &config.fast, &params, &inputs, &mut store, &options).unwrap();
    // z before each step: the initial one, then what each update left.
    let plain = Fast::new(&config.model, &config.fast, &params, &inputs, &mut store, &FastOptions::default()).unwrap();
    let mut path = Vec::new();
    plain.fit(&mut store, 0.1, 0, |_, store| path.push(store.get(plain.latents.z).to_f64()));
    fast.fit(&mut store, 0.1, 0, |_, _| ());
    let first = {
        // The same seed draws the same start; a loop of no steps leaves it in z.
        let mut none = config.fast.clone();
        none.steps = 0;
        let none = Fast::new(&config.model, &none, &params, &inputs, &mut store, &FastOptions::default()).unwrap();
        none.fit(&mut store, 0.1, 0, |_, _| ());
        store.get(none.latents.z).to_f64()
    };
    path.insert(0, first);
    path.pop();

    let z = store.alloc(store.get(fast.latents.z).spec());
    let slow = Slow::new(&config.model, &SlowConfig::default(), &params, &inputs, Some(z), &[], &mut store).unwrap();
    let mut sums: Vec<Vec<f64>> = params.iter().map(|p| vec![0.0; p.spec.shape.numel()]).collect();
    for at in &path {
        store.get_mut(z).set_f64(at);
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
