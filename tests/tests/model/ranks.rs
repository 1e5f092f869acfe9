//! Several processes train the model that one process trains, bit for bit.

use engine::{Alone, Buffer, Collective, Device, Result};
use ltm::config::Config;
use ltm::data::{Batch, Bytes, Dataset};
use ltm::evaluate::{Evaluator, Protocol};
use ltm::run::{Follower, Material, stories};
use ltm::train::{StepReport, Trainer};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tests::threads::together;

#[test]
fn a_sum_is_the_same_tree_for_every_process() {
    for size in [1, 2, 4, 8] {
        for len in [0, 1, 5, 64, 1001] {
            let own = |rank: usize| (0..len).map(move |i| (1.0 + i as f32).powi(rank as i32 * 3 - 7) + rank as f32);
            let mut tree: Vec<Vec<f32>> = (0..size).map(|rank| own(rank).collect()).collect();
            while tree.len() > 1 {
                let pairs = tree.chunks(2).map(|pair| pair[0].iter().zip(&pair[1]).map(|(a, b)| a + b).collect());
                tree = pairs.collect();
            }
            let sums = together(size, |ranks| {
                let mut x = Buffer::from_slice(&[len], &own(ranks.rank()).collect::<Vec<f32>>());
                ranks.sum(&mut [&mut x]).unwrap();
                let mut first = Buffer::from_slice(&[1], &[ranks.rank() as f32 + 1.0]);
                ranks.broadcast(&mut first).unwrap();
                assert_eq!(first.as_slice::<f32>(), [1.0]);
                assert_eq!(ranks.gather(&[ranks.rank() as u64]).unwrap(), (0..size as u64).collect::<Vec<_>>());
                x
            });
            assert!(sums.iter().all(|sum| *sum.as_slice::<f32>() == tree[0]), "{size} processes, {len} numbers");
        }
    }
}

/// Two steps, and the checksum of the state after them.
fn train(settings: &str, ranks: Arc<dyn Collective>) -> (Vec<StepReport>, Option<u64>) {
    let mut config = Config::preset("demo").unwrap();
    config.set_all("model.dim=16 model.heads=2 model.seq=96 train.batch=8 train.micro=1 fast.steps=2").unwrap();
    config.set_all(settings).unwrap();
    let mut trainer = Trainer::among(config, &Device::CPU, ranks).unwrap();
    let source = stories(&trainer.config, 1, 16).unwrap();
    let mut batch = Batch::new(8, 96);
    let step = |step: u64| {
        batch.fill(&*source, (8 * step..).map(Some)).unwrap();
        trainer.train(&batch).unwrap()
    };
    ((0..2).map(step).collect(), trainer.checksum())
}

#[test]
fn any_number_of_processes_trains_the_same_model() {
    let kinds = [
        "",
        "slow.updates=1 slow.gradient=trajectory slow.optimizer=adamw",
        "model.kind=ar fast.posterior=adamw",
        "model.kind=mdlm train.micro=2",
    ];
    for settings in kinds {
        let alone = train(settings, Arc::new(Alone));
        for size in [2, 4, 8].into_iter().take(if settings.contains("micro") { 2 } else { 3 }) {
            for (rank, done) in together(size, |ranks| train(settings, ranks)).into_iter().enumerate() {
                assert_eq!(done, alone, "{settings}: process {rank} of {size}");
            }
        }
    }
}

#[test]
fn processes_that_cannot_share_a_batch_are_refused() {
    for (size, settings, said) in [
        (
            2,
            "train.micro=8",
            "2 processes cannot share train.batch = 8 in 1 parts of train.micro = 8: use 1, or train.micro = 4 with 2",
        ),
        (
            3,
            "",
            "3 processes cannot share train.batch = 8 in 8 parts of train.micro = 1: use 2, or train.micro = 2 with 4",
        ),
    ] {
        let mut config = Config::preset("demo").unwrap();
        config.set_all(&format!("train.batch=8 train.micro=1 {settings}")).unwrap();
        let errors =
            together(size, |ranks| Trainer::among(config.clone(), &Device::CPU, ranks).unwrap_err().to_string());
        assert!(errors.iter().all(|error| error == said), "{errors:?}");
    }
}

/// A process that keeps what it hands to the others.
#[derive(Debug)]
struct Keeping(Arc<dyn Collective>, Mutex<Vec<Vec<u64>>>);

impl Collective for Keeping {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn sum(&self, xs: &mut [&mut Buffer]) -> Result<()> {
        self.0.sum(xs)
    }

    fn broadcast(&self, x: &mut Buffer) -> Result<()> {
        self.0.broadcast(x)
    }

    fn gather(&self, own: &[u64]) -> Result<Vec<u64>> {
        self.1.lock().unwrap().push(own.to_vec());
        self.0.gather(own)
    }
}

/// The NLL of a part tells which sample a process computed: parts have one sample, and no update changes the weights.
#[test]
fn every_epoch_has_every_sample_once() {
    const SAMPLES: u64 = 20;
    let mut config = Config::preset("demo").unwrap();
    config.set_all("model.kind=ar model.dim=16 model.heads=2 model.seq=96 train.batch=8 train.micro=1").unwrap();
    config.set_all("slow.rate=0 slow.min_rate=0 slow.updates=1 train.steps=5").unwrap();
    let config = config.resolved().unwrap();
    let source = stories(&config, 1, SAMPLES).unwrap();
    let samples: HashMap<u64, u64> = {
        let mut trainer = Trainer::new(config.clone(), &Device::CPU).unwrap();
        let Trainer { params, store, .. } = &mut trainer;
        let evaluator = Evaluator::new(&config, Protocol::Nll, 0, 1, params, store).unwrap();
        let scores = evaluator.score(store, &source, None, |_| ()).unwrap();
        scores.iter().map(|score| score.nats.to_bits()).zip(0..).collect()
    };
    assert_eq!(samples.len(), SAMPLES as usize, "every sample has its NLL");
    let bytes: Arc<dyn ltm::data::Tokenizer> = Arc::new(Bytes);
    let material = Material::open(&config, &|path, split| Dataset::open(path, split, &bytes)).unwrap();
    let material = Material { training: source, validation: None, ..material };
    for size in [1, 2, 4, 8] {
        let computed = together(size, |ranks| {
            let ranks = Arc::new(Keeping(ranks, Mutex::default()));
            let material = Material { ranks: ranks.clone(), ..material.clone() };
            let mut process = Follower::join(&config, &material, &Device::CPU).unwrap();
            ranks.1.lock().unwrap().clear();
            while !process.is_done() {
                assert!(process.advance().unwrap());
            }
            // NLL and KL of each of its parts, for every step.
            let steps = ranks.1.lock().unwrap().clone();
            steps.iter().map(|step| step.iter().step_by(2).map(|nll| samples[nll]).collect()).collect::<Vec<Vec<_>>>()
        });
        let order = |step: usize| computed.iter().flat_map(move |process| process[step].clone());
        let order: Vec<u64> = (0..5).flat_map(order).collect();
        for epoch in order.chunks(SAMPLES as usize) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..SAMPLES), "{size} processes: {epoch:?}");
        }
        assert!(computed.iter().all(|process| process.len() == 5 && process.iter().all(|step| step.len() == 8 / size)));
        assert_ne!(order[..20], order[20..]);
    }
}
