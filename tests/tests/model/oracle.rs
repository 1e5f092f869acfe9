//! Tests `oracle`, which is told the facts of every story.

use crate::Bench;
use engine::DType;
use ltm::corpus::Facts;
use ltm::data::{Batch, SampleInfo};
use ltm::evaluate::{Draws, Evaluator, Protocol};

/// Two texts of four tokens with the same tokens and these facts.
fn batch(facts: [Option<Facts>; 2]) -> Batch {
    let mut batch = Batch::new(2, 4);
    batch.targets.fill(65);
    for (sample, facts) in batch.samples.iter_mut().zip(facts) {
        *sample = SampleInfo { scored: 4, bytes: 4, nats: Some(3.0), facts, ..SampleInfo::default() };
    }
    batch
}

fn told(batch: &Batch) -> engine::Result<Vec<Draws>> {
    let sizes = "model.dim=32 model.seq=4 model.window=2 model.latents=1 train.batch=2 model.kind=oracle";
    let mut bench = Bench::new(sizes, DType::F32, 1);
    bench.enlarge();
    let Bench { config, mut store, params, .. } = bench;
    Evaluator::new(&config, Protocol::Nll, 1, 1, &params, &mut store)?.batch(&mut store, batch)
}

#[test]
fn a_story_costs_what_it_costs_given_its_facts() {
    let facts = |last| Some(Facts { values: [1, 2, 3, 4, 5, 6, last], nats: 2.5 });
    let costs = |batch: Batch| {
        let scores = told(&batch).unwrap().into_iter().map(|draws| draws.score(Protocol::Nll).unwrap());
        scores.collect::<Vec<_>>()
    };
    let same = costs(batch([facts(7), facts(7)]));
    assert_eq!((same[0].nats, same[0].exact, same[0].told), (same[1].nats, Some(0.5), 2.5));
    let other = costs(batch([facts(7), facts(8)]));
    assert!(other[0] == same[0] && other[1].nats != same[1].nats);
    // A row without a sample needs no facts.
    let mut short = batch([facts(7), None]);
    short.samples[1].scored = 0;
    assert_eq!(costs(short)[..], same[..1]);
}

#[test]
fn a_text_without_facts_is_refused() {
    let error = told(&batch([None, None])).unwrap_err().to_string();
    assert!(error.contains("model.kind = oracle") && !error.contains('\n'), "{error}");
}
