//! Compares the fast loop's gradients for μ and λ, as passed to AdamW, with central differences of the NELBO, after
//! some steps, with every kind of noise.

use crate::Bench;
use autograd::gradcheck::{Check, Claim, Failure, Options, Report, check_function};
use engine::{Buffer, DType};
use ltm::config::Noise;
use ltm::learn::{FastOptions, Latents};
use tests::batch;

const SAMPLES: usize = 2;
const STEPS: usize = 5;
const RATE: f64 = 0.1;

/// A model with weights and a batch.
fn bench(noise: Noise) -> Bench {
    let sizes = "model.dim=8 model.heads=2 model.ffn=12 model.seq=12 model.window=4 model.latents=1 train.batch=2";
    let mut bench = Bench::new(&format!("{sizes} fast.posterior=adamw"), DType::F64, 2);
    bench.config.fast.noise = noise;
    bench.enlarge();
    bench.load(&batch(SAMPLES, bench.config.model.seq, 0));
    bench
}

/// The initial state of a fast step, and its gradients.
struct Step {
    mu: Vec<f64>,
    logvar: Vec<f64>,
    eps: Vec<f64>,
    d_mu: Vec<f64>,
    d_logvar: Vec<f64>,
}

/// Every step except the first, with the gradients recovered from the change of AdamW's first moments.
fn steps(bench: &mut Bench) -> Vec<Step> {
    let fast = bench.fast(STEPS, &FastOptions { seed: 7, ..FastOptions::default() });
    let Latents { mu, logvar, moments, eps, .. } = fast.latents;
    let mut states = Vec::new();
    fast.fit(&mut bench.store, RATE, 3, |_, store| {
        states.push([mu, logvar, eps, moments[0], moments[2]].map(|id| store.get(id).to_f64()));
    });
    let beta = bench.config.fast.beta1;
    // m ← β m + (1 − β) g
    let gradient = |before: &[f64], after: &[f64]| -> Vec<f64> {
        before.iter().zip(after).map(|(before, after)| (after - beta * before) / (1.0 - beta)).collect()
    };
    let pairs = states.windows(2).map(|pair| (&pair[0], &pair[1]));
    pairs
        .map(|(now, next)| Step {
            mu: now[0].clone(),
            logvar: now[1].clone(),
            eps: now[2].clone(),
            d_mu: gradient(&now[3], &next[3]),
            d_logvar: gradient(&now[4], &next[4]),
        })
        .collect()
}

/// Compares a step's gradients with those of `NELBO(μ, λ) = Σ −log p(x | μ + σ ⊙ ε) + Σ KL`.
fn check(bench: &mut Bench, step: &Step) -> Result<Report, Failure> {
    let model = &bench.config.model;
    let dims = [1, SAMPLES, model.layers * model.latents, model.dim];
    let table = bench.store.insert(Buffer::from_f64(DType::F64, &dims, &step.eps));
    let given = [&step.mu, &step.logvar].map(|x| bench.store.insert(Buffer::from_f64(DType::F64, &dims[1..], x)));
    let probe = bench.fast(1, &FastOptions { noise_table: Some(table), ..FastOptions::default() });
    let store = &mut bench.store;
    let nelbo = |x: &[Vec<f64>]| {
        given.iter().zip(x).for_each(|(&id, x)| store.get_mut(id).set_f64(x));
        probe.fit_from(store, (given[0], given[1]), RATE, |_, _| ()).unwrap();
        let kl: f64 = x[0].iter().zip(&x[1]).map(|(m, l)| 0.5 * (m * m + l.exp() - l - 1.0)).sum();
        probe.nll(store).unwrap().iter().sum::<f64>() + kl
    };
    let claims = [
        Claim { name: "mu", at: &step.mu, gradient: &step.d_mu },
        Claim { name: "logvar", at: &step.logvar, gradient: &step.d_logvar },
    ];
    check_function("nelbo", &claims, nelbo, &Options { entrywise: 32, ..Options::default() })
}

#[test]
fn the_gradient_of_every_fast_step_is_that_of_the_nelbo() {
    for noise in [Noise::Fresh, Noise::Antithetic, Noise::Fixed] {
        let mut bench = bench(noise);
        let steps = steps(&mut bench);
        assert_eq!(steps.len(), STEPS - 1);
        for (t, step) in (1..).zip(&steps) {
            let report = check(&mut bench, step).unwrap_or_else(|e| panic!("{noise:?} noise, after {t} steps: {e}"));
            assert_eq!(report.certified, ["mu", "logvar"], "{noise:?} noise, after {t} steps: {report}");
            // 32 entries and a projection of each.
            assert!(report.checked >= 60, "{noise:?} noise, after {t} steps: {report}");
        }
        let same = steps.windows(2).all(|pair| pair[0].eps == pair[1].eps);
        let differ = steps.windows(2).all(|pair| pair[0].eps != pair[1].eps);
        assert!(if noise == Noise::Fixed { same } else { differ }, "{noise:?} noise");
    }
}

/// The check can fail: with the noise of another step, and with half the KL.
#[test]
fn wrong_gradients_of_fast_steps_are_found() {
    let mut bench = bench(Noise::Fresh);
    let found = |result| match result {
        Err(Failure::Wrong(wrong)) => (wrong.input, wrong.check),
        other => panic!("not found: {other:?}"),
    };
    let mut honest = steps(&mut bench);
    honest[0].eps = honest[1].eps.clone();
    assert_eq!(found(check(&mut bench, &honest[0])), ("mu".into(), Check::Numeric));
    // Half the KL: ∂KL/∂μ = μ, and ∂KL/∂λ = ½ (σ² − 1).
    let mut light = steps(&mut bench).remove(2);
    light.d_mu.iter_mut().zip(&light.mu).for_each(|(d, mu)| *d -= 0.5 * mu);
    light.d_logvar.iter_mut().zip(&light.logvar).for_each(|(d, logvar)| *d -= 0.25 * (logvar.exp() - 1.0));
    assert_eq!(found(check(&mut bench, &light)), ("mu".into(), Check::Numeric));
    // After correcting one gradient, the other is still wrong.
    light.d_mu.iter_mut().zip(&light.mu).for_each(|(d, mu)| *d += 0.5 * mu);
    assert_eq!(found(check(&mut bench, &light)), ("logvar".into(), Check::Numeric));
}
