//! The protocols against their definitions, recomputed here from posterior and draws.

use autograd::Store;
use engine::{DType, Device};
use ltm::config::{Config, FastConfig, Noise};
use ltm::data::{Batch, SampleInfo};
use ltm::evaluate::{Evaluator, Protocol, SequenceScore};
use ltm::learn::{Fast, FastOptions, Inputs, Score};
use ltm::model::Params;

const STEPS: usize = 5;
const DRAWS: usize = 6;

fn config() -> Config {
    let mut config = Config::preset("tiny").unwrap();
    for (key, value) in
        [("model.dim", "32"), ("model.seq", "24"), ("model.window", "5"), ("model.latents", "3"), ("train.batch", "2")]
    {
        config.set(key, value).unwrap();
    }
    config.resolved().unwrap()
}

fn batch(second_half: i32) -> Batch {
    let mut batch = Batch::new(2, 24);
    for i in 0..48 {
        let late = i % 24 >= 10;
        batch.targets[i] = if i % 24 < 20 { (i * 5 % 90) as i32 + if late { second_half } else { 0 } } else { -1 };
        batch.tokens[i] = if i % 24 == 0 { 256 } else { batch.targets[i - 1].max(0) };
    }
    for (b, sample) in batch.samples.iter_mut().enumerate() {
        *sample = SampleInfo { id: 3 + b as u32, scored: 20, bytes: 19, nats: None };
    }
    batch
}

fn model() -> (Config, Store, Params) {
    let config = config();
    let mut store = Store::new(Device::Cpu);
    let params = Params::new(&config.model, DType::F32, &mut store);
    params.init(&mut store, 1);
    // Weights large enough for the latents to matter.
    for p in params.iter().filter(|p| p.is_matrix()) {
        let scaled: Vec<f64> = store.get(p.id).to_f64().iter().map(|x| 8.0 * x).collect();
        store.get_mut(p.id).set_f64(&scaled);
    }
    (config, store, params)
}

fn evaluate(protocol: Protocol, batch: &Batch) -> Vec<SequenceScore> {
    let (config, mut store, params) = model();
    let evaluator = Evaluator::new(&config, protocol, STEPS, DRAWS, &params, &mut store).unwrap();
    scores(&evaluator, protocol, &mut store, batch)
}

fn scores(evaluator: &Evaluator, protocol: Protocol, store: &mut Store, batch: &Batch) -> Vec<SequenceScore> {
    evaluator.batch(store, batch).unwrap().iter().map(|draws| draws.score(protocol).unwrap()).collect()
}

/// Posterior KL and the costs of each draw, by hand: `[sample][draw] = (nll, nll + log q/p)`.
fn by_hand(noise: Noise, fit: &Batch, scored: &Batch) -> (Vec<f64>, Vec<Vec<(f64, f64)>>) {
    let (config, mut store, params) = model();
    let inputs = Inputs::new(2, 24, DType::F32, &mut store);
    let fast = FastConfig { steps: STEPS, noise, ..config.fast.clone() };
    let fast = Fast::new(&config.model, &fast, &params, &inputs, &mut store, &FastOptions::default()).unwrap();
    let score = Score::new(&config.model, &params, &inputs, Some(&fast.latents), 0, &mut store).unwrap();
    inputs.load(&mut store, &config.model, fit).unwrap();
    fast.fit(&mut store, config.fast.rate_end, 0, |_, _| ());
    let (mu, logvar) = (store.get(fast.latents.mu).to_f64(), store.get(fast.latents.logvar).to_f64());
    let n = mu.len() / 2;
    let kl = |b: usize| -> f64 {
        (b * n..(b + 1) * n).map(|i| 0.5 * (mu[i] * mu[i] + logvar[i].exp() - logvar[i] - 1.0)).sum()
    };
    inputs.load(&mut store, &config.model, scored).unwrap();
    score.begin(&mut store);
    let mut costs = vec![Vec::new(); 2];
    for s in 0..DRAWS as u32 {
        let draw = score.draw(&mut store, s).unwrap();
        (0..2).for_each(|b| costs[b].push((draw.nll[b], draw.nll[b] + draw.log_ratio[b])));
    }
    (vec![kl(0), kl(1)], costs)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9 * b.abs().max(1.0)
}

#[test]
fn elbo_and_iwae_are_what_they_say() {
    let batch = batch(0);
    let (kl, costs) = by_hand(Noise::Fresh, &batch, &batch);
    let (elbo, iwae) = (evaluate(Protocol::Elbo, &batch), evaluate(Protocol::Iwae, &batch));
    for b in 0..2 {
        let mean = costs[b].iter().map(|c| c.0).sum::<f64>() / DRAWS as f64;
        assert!(kl[b] > 0.1, "the posterior has moved");
        assert!(close(elbo[b].nats, mean + kl[b]), "{} {}", elbo[b].nats, mean + kl[b]);
        assert!(close(elbo[b].nll, mean) && close(elbo[b].kl, kl[b]));
        let weights = costs[b].iter().map(|c| (-c.1 + costs[b][0].1).exp()).sum::<f64>() / DRAWS as f64;
        assert!(close(iwae[b].nats, costs[b][0].1 - weights.ln()));
        assert_eq!((elbo[b].tokens, elbo[b].bytes), (20, 19.0));
    }
}

#[test]
fn prefix_never_sees_what_it_scores() {
    let (a, b) = (batch(0), batch(90));
    let mask = |keep_first: bool| {
        let mut masked = a.clone();
        (0..48).filter(|i| (i % 24 < 10) != keep_first).for_each(|i| masked.targets[i] = -1);
        masked
    };
    let (_, costs) = by_hand(Noise::Fresh, &mask(true), &mask(false));
    let scores = evaluate(Protocol::Prefix, &a);
    for s in 0..2 {
        let weights = costs[s].iter().map(|c| (-c.0 + costs[s][0].0).exp()).sum::<f64>() / DRAWS as f64;
        assert!(close(scores[s].nats, costs[s][0].0 - weights.ln()));
        assert_eq!(scores[s].tokens, 10);
    }
    // With other second halves the posterior has the same bits: it is made of the first halves alone.
    let posterior = |batch: &Batch| {
        let (config, mut store, params) = model();
        let inputs = Inputs::new(2, 24, DType::F32, &mut store);
        let fast = FastConfig { steps: STEPS, ..config.fast.clone() };
        let fast = Fast::new(&config.model, &fast, &params, &inputs, &mut store, &FastOptions::default()).unwrap();
        let mut first = batch.clone();
        (0..48).filter(|i| i % 24 >= 10).for_each(|i| first.targets[i] = -1);
        inputs.load(&mut store, &config.model, &first).unwrap();
        fast.fit(&mut store, 0.1, 0, |_, _| ());
        store.get(fast.latents.mu).as_bytes().to_vec()
    };
    assert_ne!(a.targets, b.targets);
    assert!(posterior(&a) == posterior(&b));
}

#[test]
fn fixed_reports_the_noise_it_was_fitted_to() {
    let batch = batch(0);
    let fixed = evaluate(Protocol::Fixed, &batch);
    let (kl, costs) = by_hand(Noise::Fixed, &batch, &batch);
    for b in 0..2 {
        assert!(close(fixed[b].kl, kl[b]), "the same posterior");
        let fresh = costs[b].iter().map(|c| c.0).sum::<f64>() / DRAWS as f64;
        assert!(fixed[b].nll < fresh, "the fitted noise flatters: {} against {fresh}", fixed[b].nll);
    }
}

fn baseline() -> (Config, Store, Params) {
    let mut config = config();
    config.model.ffn = 0;
    config.set("model.kind", "ar").unwrap();
    let config = config.resolved().unwrap();
    let mut store = Store::new(Device::Cpu);
    let params = Params::new(&config.model, DType::F32, &mut store);
    params.init(&mut store, 1);
    (config, store, params)
}

/// The exact number does not depend on what comes behind a token, on draws or on steps; the halves make the whole.
#[test]
fn the_baseline_knows_what_a_text_costs() {
    let evaluate = |protocol, steps, draws, batch: &Batch| {
        let (config, mut store, params) = baseline();
        let evaluator = Evaluator::new(&config, protocol, steps, draws, &params, &mut store).unwrap();
        scores(&evaluator, protocol, &mut store, batch)
    };
    let (whole, other) = (batch(0), batch(90));
    let nll = evaluate(Protocol::Nll, 1, 1, &whole);
    assert_eq!(nll, evaluate(Protocol::Nll, 7, 3, &whole), "nothing is drawn");
    assert!(nll.iter().all(|s| s.kl == 0.0 && s.noise == 0.0 && s.nll == s.nats && s.tokens == 20));
    let second = evaluate(Protocol::Prefix, 1, 1, &whole);
    let mut first = whole.clone();
    (0..48).filter(|i| i % 24 >= 10).for_each(|i| first.targets[i] = -1);
    let mut first_other = other.clone();
    (0..48).filter(|i| i % 24 >= 10).for_each(|i| first_other.targets[i] = -1);
    let (half, half_other) = (evaluate(Protocol::Nll, 1, 1, &first), evaluate(Protocol::Nll, 1, 1, &first_other));
    for b in 0..2 {
        assert!(close(half[b].nats + second[b].nats, nll[b].nats));
        assert_eq!(half[b].nats, half_other[b].nats, "what comes later has no say");
        // Small weights know next to nothing: about ln V a token.
        assert!((nll[b].nats / 20.0 - 258f64.ln()).abs() < 0.1, "{}", nll[b].nats);
    }
}

#[test]
fn each_kind_of_model_has_its_protocols() {
    let (config, mut store, params) = baseline();
    let error = Evaluator::new(&config, Protocol::Elbo, 1, 1, &params, &mut store).unwrap_err().to_string();
    assert!(error.ends_with("for model.kind = ar: choose one of nll, prefix"), "{error}");
    let (config, mut store, params) = model();
    let error = Evaluator::new(&config, Protocol::Nll, 1, 1, &params, &mut store).unwrap_err().to_string();
    assert!(error.ends_with("for model.kind = ltm: choose one of elbo, iwae, prefix, fixed"), "{error}");
}
