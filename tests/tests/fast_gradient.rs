//! The fast loop, unrolled: the gradients of the NELBO for μ and λ that every step computes, against numeric ones; and what is
//! hoisted changes no bit of any step.

use autograd::gradcheck::{Claim, Options, check_function};
use autograd::{Hoist, Id, Store};
use engine::{DType, Device};
use ltm::config::{Config, Noise};
use ltm::learn::{Fast, FastOptions, Inputs, Score};
use ltm::model::Params;

const STEPS: usize = 4;
const BETA1: f64 = 0.9;

/// The posterior, the noise, and AdamW's first moments, for μ and for λ.
struct State {
    mu: Vec<f64>,
    logvar: Vec<f64>,
    eps: Vec<f64>,
    first: [Vec<f64>; 2],
}

fn config(noise: Noise, steps: usize) -> Config {
    let mut config = tests::tiny(&[
        ("model.layers", "2"),
        ("model.dim", "8"),
        ("model.heads", "2"),
        ("model.seq", "6"),
        ("model.window", "3"),
        ("model.latents", "1"),
        ("train.batch", "2"),
        ("fast.init_logvar", "-0.5"),
        ("fast.head_filter", "0"),
        ("fast.posterior", "adamw"),
    ]);
    config.fast.noise = noise;
    config.fast.steps = steps;
    assert_eq!(config.fast.beta1, BETA1);
    config
}

struct Loop {
    store: Store,
    config: Config,
    params: Params,
    inputs: Inputs,
    fast: Fast,
}

/// A loop of so many steps, run once on the same batch, weights and noise; calls `after` behind every step.
fn fitted(noise: Noise, steps: usize, hoist: Hoist, after: impl FnMut(&Fast, &Store)) -> Loop {
    let config = config(noise, steps);
    let mut store = Store::new(Device::Cpu);
    let params = Params::new(&config.model, DType::F64, &mut store);
    params.init(&mut store, 3);
    // Weights large enough that what z is matters.
    for p in params.iter() {
        let larger: Vec<f64> =
            store.get(p.id).to_f64().iter().map(|w| if w.abs() < 0.5 { 8.0 * w } else { *w }).collect();
        store.get_mut(p.id).set_f64(&larger);
    }
    let inputs = Inputs::new(2, config.model.seq, DType::F64, &mut store);
    inputs.load(&mut store, &config.model, &tests::batch(2, config.model.seq, 0)).unwrap();
    let options = FastOptions { seed: 5, hoist, ..FastOptions::default() };
    let fast = Fast::new(&config.model, &config.fast, &params, &inputs, &mut store, &options).unwrap();
    let mut after = after;
    fast.fit(&mut store, 0.1, 0, |_, store| after(&fast, store));
    Loop { store, config, params, inputs, fast }
}

fn state(fast: &Fast, store: &Store) -> State {
    let of = |id: Id| store.get(id).to_f64();
    let [m_mu, _, m_logvar, _] = fast.latents.moments;
    let l = &fast.latents;
    State { mu: of(l.mu), logvar: of(l.logvar), eps: of(l.eps), first: [of(m_mu), of(m_logvar)] }
}

fn gradients_along_the_way(noise: Noise) {
    // A loop of no steps leaves the start.
    let start = fitted(noise, 0, Hoist::On, |_, _| ());
    let mut path = vec![state(&start.fast, &start.store)];
    let Loop { mut store, config, params, inputs, fast } =
        fitted(noise, STEPS, Hoist::On, |fast, store| path.push(state(fast, store)));
    let fixed = path.windows(2).filter(|w| w[0].eps == w[1].eps).count();
    assert_eq!(fixed, if noise == Noise::Fixed { STEPS } else { 0 }, "noise kept");

    let score = Score::new(&config.model, &params, &inputs, Some(&fast.latents), 0, &mut store).unwrap();
    let z = store.alloc(store.get(fast.latents.z).spec());
    score.begin(&mut store);
    for t in 0..STEPS {
        let (before, after) = (&path[t], &path[t + 1]);
        // What the step computed, from its mean of gradients: m ← β₁ m + (1 − β₁) g.
        let computed = |k: usize| -> Vec<f64> {
            let pairs = before.first[k].iter().zip(&after.first[k]);
            pairs.map(|(old, new)| (new - BETA1 * old) / (1.0 - BETA1)).collect()
        };
        let (d_mu, d_logvar) = (computed(0), computed(1));
        let nelbo = |point: &[Vec<f64>]| {
            let posterior = || point[0].iter().zip(&point[1]);
            let at: Vec<f64> = posterior().zip(&before.eps).map(|((m, l), e)| m + (0.5 * l).exp() * e).collect();
            store.get_mut(z).set_f64(&at);
            let kl: f64 = posterior().map(|(m, l)| 0.5 * (m * m + l.exp() - l - 1.0)).sum();
            score.at(&mut store, z).nll.iter().sum::<f64>() + kl
        };
        let claims = [
            Claim { name: "mu", at: &before.mu, gradient: &d_mu },
            Claim { name: "logvar", at: &before.logvar, gradient: &d_logvar },
        ];
        let options = Options { seed: t as u64, entrywise: 32, ..Options::default() };
        let report = check_function(&format!("nelbo after {t} steps"), &claims, nelbo, &options)
            .unwrap_or_else(|e| panic!("{noise:?}: {e}"));
        assert_eq!(report.certified, ["mu", "logvar"], "{noise:?} after {t} steps: {report}");
        assert!(report.checked > 50, "{noise:?} after {t} steps: {report}");
    }
}

#[test]
fn fast_steps_with_fresh_noise_descend_the_gradient_of_the_nelbo() {
    gradients_along_the_way(Noise::Fresh);
}

#[test]
fn fast_steps_with_fixed_noise_descend_the_gradient_of_the_nelbo() {
    gradients_along_the_way(Noise::Fixed);
}

#[test]
fn a_hoisted_fast_loop_has_the_bits_of_one_that_is_not() {
    for noise in [Noise::Fresh, Noise::Fixed] {
        let run = |hoist: Hoist| {
            let mut bytes: Vec<Vec<u8>> = Vec::new();
            let mut operations = 0;
            fitted(noise, STEPS, hoist, |fast, store| {
                let l = &fast.latents;
                let [a, b, c, d] = l.moments;
                bytes
                    .extend([l.mu, l.logvar, l.z, l.eps, l.kl, a, b, c, d].map(|id| store.get(id).as_bytes().to_vec()));
                bytes.push(fast.nll(store).iter().flat_map(|x| x.to_le_bytes()).collect());
                operations = fast.plan().cost(autograd::Phase::Step).flops;
            });
            (bytes, operations)
        };
        let (hoisted, not) = (run(Hoist::On), run(Hoist::Off));
        assert_eq!(hoisted.0.len(), STEPS * 10);
        assert!(hoisted.0 == not.0, "{noise:?}");
        assert!(hoisted.1 < not.1, "there was something to hoist");
    }
}
