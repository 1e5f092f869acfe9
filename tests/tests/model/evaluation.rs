//! Compares the protocols with their definitions, computed here independently from posterior and draws.

use crate::Bench;
use engine::DType;
use ltm::config::Noise;
use ltm::data::{Batch, SampleInfo};
use ltm::evaluate::{Evaluator, Protocol, SequenceScore, key};
use ltm::learn::FastOptions;

const STEPS: usize = 5;
const DRAWS: usize = 6;
/// The protocol `prefix` infers from the targets before this one and scores the others.
const HALF: usize = 10;

/// Two samples of 20 scored tokens; `late` is added to those of the second half.
fn batch(late: i32) -> Batch {
    let mut batch = Batch::new(2, 24);
    for i in 0..48 {
        let added = if i % 24 >= HALF { late } else { 0 };
        batch.targets[i] = if i % 24 < 20 { (i * 5 % 90) as i32 + added } else { -1 };
        batch.tokens[i] = if i % 24 == 0 { 256 } else { batch.targets[i - 1].max(0) };
    }
    for (b, sample) in batch.samples.iter_mut().enumerate() {
        *sample = SampleInfo { id: 3 + b as u32, scored: 20, bytes: 19, later_bytes: 9, ..SampleInfo::default() };
    }
    batch
}

/// The batch with only the targets of one half.
fn half(batch: &Batch, first: bool) -> Batch {
    let mut masked = batch.clone();
    (0..48).filter(|i| (i % 24 < HALF) != first).for_each(|i| masked.targets[i] = -1);
    // The noise is that of the tokens seen.
    for (b, sample) in masked.samples.iter_mut().enumerate() {
        let seen = batch.tokens[b * 24..][..=HALF].iter().map(|&token| token as u16);
        sample.id = key(0, &seen.collect::<Vec<_>>());
    }
    masked
}

fn model(kind: &str) -> Bench {
    let sizes = "model.dim=32 model.seq=24 model.window=5 model.latents=3 train.batch=2";
    let fast = "fast.noise=fresh fast.posterior=adamw fast.schedule=cosine fast.rate_start=0.1 fast.rate_end=0.1";
    let mut bench = Bench::new(&format!("{sizes} {fast} model.kind={kind}"), DType::F32, 1);
    if bench.config.model.kind.infers() {
        bench.enlarge();
    }
    bench
}

fn evaluate(kind: &str, protocol: Protocol, (steps, draws): (usize, usize), batch: &Batch) -> Vec<SequenceScore> {
    let Bench { config, mut store, params, .. } = model(kind);
    let evaluator = Evaluator::new(&config, protocol, steps, draws, &params, &mut store).unwrap();
    evaluator.batch(&mut store, batch).unwrap().iter().map(|draws| draws.score(protocol).unwrap()).collect()
}

/// The KL of posteriors, and the cost of a batch under them.
struct ByHand {
    mu: Vec<f64>,
    /// Posterior KL by sample.
    kl: Vec<f64>,
    /// `[sample][draw] = (nll, nll + log q/p)`.
    costs: Vec<Vec<(f64, f64)>>,
}

fn by_hand(noise: Noise, fit: &Batch, scored: &Batch) -> ByHand {
    let mut bench = model("ltm");
    bench.config.fast.noise = noise;
    let fast = bench.fast(STEPS, &FastOptions::default());
    let score = bench.score(&fast);
    bench.load(fit);
    fast.fit(&mut bench.store, bench.config.fast.rate_end, 0, |_, _| ());
    let mu = bench.store.get(fast.latents.mu).to_f64();
    let logvar = bench.store.get(fast.latents.logvar).to_f64();
    let parts: Vec<f64> = mu.iter().zip(&logvar).map(|(m, l)| 0.5 * (m * m + l.exp() - l - 1.0)).collect();
    let kl = parts.chunks(mu.len() / 2).map(|sample| sample.iter().sum()).collect();
    bench.load(scored);
    score.begin(&mut bench.store);
    let mut costs = vec![Vec::new(); 2];
    for s in 0..DRAWS as u32 {
        let draw = score.draw(&mut bench.store, s).unwrap();
        (0..2).for_each(|b| costs[b].push((draw.nll[b], draw.nll[b] + draw.log_ratio[b])));
    }
    ByHand { mu, kl, costs }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9 * b.abs().max(1.0)
}

/// Protocol `prefix` takes its logarithms in f64, the others in the type of the weights.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6 * b.abs()
}

fn mean(costs: impl Iterator<Item = f64>) -> f64 {
    costs.sum::<f64>() / DRAWS as f64
}

/// −log of the mean of e^−cost.
fn log_mean(costs: &[f64]) -> f64 {
    costs[0] - mean(costs.iter().map(|c| (costs[0] - c).exp())).ln()
}

#[test]
fn elbo_and_iwae_are_what_they_say() {
    let batch = batch(0);
    let ByHand { kl, costs, .. } = by_hand(Noise::Fresh, &batch, &batch);
    let elbo = evaluate("ltm", Protocol::Elbo, (STEPS, DRAWS), &batch);
    let iwae = evaluate("ltm", Protocol::Iwae, (STEPS, DRAWS), &batch);
    for b in 0..2 {
        let mean = mean(costs[b].iter().map(|c| c.0));
        assert!(kl[b] > 0.1, "the posterior has moved");
        assert!(close(elbo[b].nats, mean + kl[b]), "{} {}", elbo[b].nats, mean + kl[b]);
        assert!(close(elbo[b].nll, mean) && close(elbo[b].kl, kl[b]));
        assert!(close(iwae[b].nats, log_mean(&costs[b].iter().map(|c| c.1).collect::<Vec<_>>())));
        assert_eq!((elbo[b].tokens, elbo[b].bytes), (20, 19.0));
    }
}

#[test]
fn prefix_never_sees_what_it_scores() {
    let (a, b) = (batch(0), batch(90));
    let ByHand { mu, costs, .. } = by_hand(Noise::Fresh, &half(&a, true), &half(&a, false));
    let scores = evaluate("ltm", Protocol::Prefix, (STEPS, DRAWS), &a);
    for s in 0..2 {
        assert!(near(scores[s].nats, log_mean(&costs[s].iter().map(|c| c.0).collect::<Vec<_>>())));
        assert_eq!((scores[s].tokens, scores[s].bytes), (10, 9.0));
    }
    // With other second halves the posterior has the same bits, because it depends only on the first halves.
    assert_ne!(a.targets, b.targets);
    assert!(by_hand(Noise::Fresh, &half(&b, true), &half(&b, false)).mu == mu);
}

#[test]
fn fixed_reports_the_noise_it_was_fitted_to() {
    let batch = batch(0);
    let fixed = evaluate("ltm", Protocol::Fixed, (STEPS, DRAWS), &batch);
    let ByHand { kl, costs, .. } = by_hand(Noise::Fixed, &batch, &batch);
    for b in 0..2 {
        assert!(close(fixed[b].kl, kl[b]), "the same posterior");
        let fresh = mean(costs[b].iter().map(|c| c.0));
        assert!(fixed[b].nll < fresh, "the cost at the fitted noise is lower: {} against {fresh}", fixed[b].nll);
    }
}

/// The exact NLL of a token does not depend on later tokens, on draws or on steps; the halves add up to the whole.
#[test]
fn the_baselines_know_what_a_text_costs() {
    let (whole, other) = (batch(0), batch(90));
    for kind in ["ar", "ar-latent"] {
        let nll = evaluate(kind, Protocol::Nll, (1, 1), &whole);
        assert_eq!(nll, evaluate(kind, Protocol::Nll, (7, 3), &whole), "nothing is drawn");
        assert!(nll.iter().all(|s| s.kl == 0.0 && s.noise == 0.0 && s.nll == s.nats && s.tokens == 20));
        let second = evaluate(kind, Protocol::Prefix, (1, 1), &whole);
        let first = evaluate(kind, Protocol::Nll, (1, 1), &half(&whole, true));
        let first_other = evaluate(kind, Protocol::Nll, (1, 1), &half(&other, true));
        for b in 0..2 {
            assert!(near(first[b].nats + second[b].nats, nll[b].nats));
            assert_eq!(first[b].nats, first_other[b].nats, "later tokens have no effect");
            // Untrained logits have a standard deviation of about 2, which costs some nats more than a uniform guess.
            let above = nll[b].nats / 20.0 - 258f64.ln();
            assert!((0.0..5.0).contains(&above), "{kind}: {above}");
        }
    }
}

#[test]
fn each_kind_of_model_has_its_protocols() {
    let choices = [
        ("ar", Protocol::Elbo, "choose one of nll, prefix"),
        ("ar-latent", Protocol::Iwae, "choose one of nll, prefix"),
        ("oracle", Protocol::Prefix, "choose one of nll"),
        ("ltm", Protocol::Nll, "choose one of elbo, iwae, prefix, fixed"),
    ];
    for (kind, protocol, expected) in choices {
        let Bench { config, mut store, params, .. } = model(kind);
        let error = Evaluator::new(&config, protocol, 1, 1, &params, &mut store).unwrap_err().to_string();
        assert!(error.ends_with(&format!("for model.kind = {kind}: {expected}")), "{error}");
    }
}
