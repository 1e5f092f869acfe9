//! Tests `ar-latent`, whose latents are a parameter.

use crate::Bench;
use engine::DType;
use ltm::data::{Batch, SampleInfo};
use ltm::evaluate::{Evaluator, Protocol};
use ltm::learn::Slow;

const SETTINGS: &str = "model.layers=2 model.dim=16 model.heads=2 model.seq=12 model.window=3 model.latents=2";

fn bench(kind: &str, rows: usize) -> Bench {
    let mut bench = Bench::new(&format!("{SETTINGS} model.kind={kind} train.batch={rows}"), DType::F64, 3);
    bench.enlarge();
    bench
}

/// Text `id`, and others after it.
fn batch(ids: &[u32]) -> Batch {
    let mut batch = Batch::new(ids.len(), 12);
    for (b, &id) in ids.iter().enumerate() {
        for i in 0..12 {
            batch.tokens[12 * b + i] = (id as usize * 31 + i * i) as i32 % 256;
            batch.targets[12 * b + i] = (id as usize * 31 + (i + 1) * (i + 1)) as i32 % 256;
        }
        batch.samples[b] = SampleInfo { id, scored: 12, bytes: 12, ..SampleInfo::default() };
    }
    batch
}

/// The gradient at every latent vector, summed over the texts of a batch, equals a central difference of the loss.
#[test]
fn the_gradient_reaches_the_latents() {
    let mut bench = bench("ar-latent", 3);
    bench.load(&batch(&[1, 2, 3]));
    let Bench { config, mut store, params, inputs } = bench;
    let slow = Slow::new(&config.model, &config.slow, &params, &inputs, None, &[], &mut store).unwrap();
    let latents = params.get("latents");
    assert!(!latents.decays() && latents.spec.shape.dims() == [4, 16]);
    let place = params.iter().position(|p| p.name == "latents").unwrap();
    slow.gradient(&mut store);
    let gradient = store.get(slow.grads[place]).to_f64();
    let values = store.get(latents.id).to_f64();
    for i in (0..values.len()).step_by(5) {
        let mut loss = |step: f64| {
            let mut moved = values.clone();
            moved[i] += step;
            store.get_mut(latents.id).set_f64(&moved);
            slow.gradient(&mut store);
            slow.nll(&store).unwrap().iter().sum::<f64>() / 36.0
        };
        let difference = (loss(1e-4) - loss(-1e-4)) / 2e-4;
        assert!(
            (gradient[i] - difference).abs() < 1e-5 * difference.abs().max(1e-3),
            "{i}: {} {difference}",
            gradient[i]
        );
    }
    assert!(gradient.iter().any(|g| g.abs() > 1e-4), "the latents matter");
}

#[test]
fn a_text_costs_the_same_in_any_batch() {
    let cost = |ids: &[u32], protocol| {
        let Bench { config, mut store, params, .. } = bench("ar-latent", ids.len());
        let evaluator = Evaluator::new(&config, protocol, 1, 1, &params, &mut store).unwrap();
        evaluator.batch(&mut store, &batch(ids)).unwrap().last().unwrap().score(protocol).unwrap()
    };
    for protocol in [Protocol::Nll, Protocol::Prefix] {
        assert_eq!(cost(&[7], protocol), cost(&[1, 2, 7], protocol));
    }
}

/// Only the latents are added, so both kinds begin with the same decoder.
#[test]
fn it_begins_as_the_model_that_infers() {
    let [constant, inferring] = ["ar-latent", "ltm"].map(|kind| bench(kind, 1));
    let all = |bench: &Bench| {
        let value = |p: &ltm::model::Param| (p.name.clone(), bench.store.get(p.id).to_f64());
        bench.params.iter().map(value).collect::<Vec<_>>()
    };
    let (constant, inferring) = (all(&constant), all(&inferring));
    assert!(constant[..inferring.len()] == inferring && constant.len() == inferring.len() + 1);
}
