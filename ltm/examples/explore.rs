//! Throwaway exploration.
use ltm::config::Config;
use ltm::corpus::Corpus;
use ltm::data::{Batch, Order, Sampler, Stories};
use ltm::evaluate::{Evaluator, Protocol, Total};
use ltm::train::Trainer;
use std::sync::Arc;
use std::time::Instant;
fn main() {
    let mut config = Config::preset("demo").unwrap();
    let mut evals = 64usize;
    let mut tsteps = 0usize;
    let mut every = 100u64;
    for a in std::env::args().skip(1) {
        let (k, v) = a.split_once('=').unwrap();
        match k {
            "evals" => evals = v.parse().unwrap(),
            "T" => tsteps = v.parse().unwrap(),
            "every" => every = v.parse().unwrap(),
            _ => config.set(k, v).unwrap(),
        }
    }
    let config = config.resolved().unwrap();
    let corpus = Corpus::default();
    let (n, b) = (config.model.seq, config.train.batch);
    let mut sampler =
        Sampler::new(Arc::new(Stories::new(Corpus::default(), 1, n, None).unwrap()), Order::Shuffled { seed: 0 })
            .unwrap();
    let mut held =
        Sampler::new(Arc::new(Stories::new(Corpus::default(), 2, n, Some(evals as u64)).unwrap()), Order::Once)
            .unwrap();
    let mut t = Trainer::new(config.clone()).unwrap();
    println!("params {} entropy {:.2} memoryless {:.2}", t.params.count(), corpus.entropy(), corpus.memoryless_nats());
    let t_eval = if tsteps == 0 { config.fast.steps } else { tsteps };
    let ev = Evaluator::new(&config, Protocol::Elbo, t_eval, 4, &t.params, &mut t.store).unwrap();
    let mut batch = Batch::new(b, n);
    let start = Instant::now();
    for s in 0..config.train.steps as u64 {
        sampler.fill(s * b as u64, &mut batch).unwrap();
        let r = t.train(&batch).unwrap();
        if r.step == 1 || r.step % every == 0 {
            let train_time = start.elapsed().as_secs_f64();
            let mut scores = Vec::new();
            let mut truth = 0.0;
            let mut eb = Batch::new(b, n);
            for i in 0..(evals as u64).div_ceil(b as u64) {
                held.fill(i * b as u64, &mut eb).unwrap();
                truth += eb.samples.iter().filter_map(|s| s.nats).sum::<f64>();
                scores.extend(ev.batch(&config, &mut t.store, &eb).unwrap());
            }
            let total = Total::of(&scores);
            let m = scores.len() as f64;
            println!(
                "step {:5} {:6.1}s train nll/doc {:6.2} kl/doc {:6.2} | elbo {:7.2} = nll {:6.2} + kl {:6.2} ± {:.2} truth {:.2} gn {:.2}",
                r.step,
                train_time,
                r.nll / b as f64,
                r.kl / b as f64,
                total.nats / m,
                total.nll / m,
                total.kl / m,
                total.sequence_error / m,
                truth / m,
                r.grad_norm
            );
        }
    }
}
