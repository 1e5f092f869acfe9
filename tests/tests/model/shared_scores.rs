//! Several processes score the sequences that one process scores, to the last digit.

use engine::{Alone, Collective, Device, Error, Result};
use lab::eval::{Options, evaluate};
use ltm::config::{Config, Work};
use ltm::data::{Bytes, Dataset, SampleInfo, Source, Tokenizer};
use ltm::evaluate::{Draws, Evaluator, Protocol};
use ltm::json;
use ltm::run::{Follower, Loaded, Material, NewFolder, Run, Session, stories};
use ltm::train::Trainer;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::threads::together;

pub fn config(settings: &str) -> Config {
    let mut config = Config::preset("demo").unwrap();
    config.set_all("model.dim=16 model.heads=2 model.seq=64 train.batch=8 train.micro=2 fast.steps=2").unwrap();
    config.set_all(settings).unwrap();
    config.resolved().unwrap()
}

/// A path for one test, at which there is nothing.
pub fn no_folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = fs::remove_dir_all(&path);
    path
}

/// Draws for the sequences of `source` under a model with initial weights, and how many were done after each call.
fn draws(
    config: &Config,
    protocol: Protocol,
    source: &Arc<dyn Source>,
    ranks: Arc<dyn Collective>,
) -> Result<(Vec<Draws>, Vec<u64>)> {
    let Trainer { params, mut store, .. } = Trainer::new(config.clone(), &Device::CPU)?;
    let mut evaluator = Evaluator::new(config, protocol, 2, 2, &params, &mut store)?;
    evaluator.ranks = ranks;
    let (mut all, mut counts) = (Vec::new(), Vec::new());
    evaluator.draws(&mut store, source, 3..14, |draws, done| {
        all.extend(draws);
        counts.push(done);
        Ok(())
    })?;
    Ok((all, counts))
}

#[test]
fn any_number_of_processes_scores_the_same() {
    for (kind, protocol) in [
        ("ltm", Protocol::Elbo),
        ("ltm", Protocol::Prefix),
        ("ltm", Protocol::Fixed),
        ("oracle", Protocol::Nll),
        ("ar", Protocol::Prefix),
        ("sedd data.chunking=windows", Protocol::Paper),
    ] {
        let config = config(&format!("model.kind={kind}"));
        let source = stories(&config, 1, 20).unwrap();
        let (alone, counts) = draws(&config, protocol, &source, Arc::new(Alone)).unwrap();
        let ids: Vec<u32> = alone.iter().map(|draws| draws.id).collect();
        assert_eq!((ids, counts), ((3..14).collect(), vec![5, 7, 9, 11, 13, 14]), "{kind} {protocol:?}");
        for (size, counts) in [(2, vec![7, 11, 14]), (4, vec![11, 14]), (8, vec![14])] {
            for done in together(size, |ranks| draws(&config, protocol, &source, ranks).unwrap()) {
                assert_eq!(done, (alone.clone(), counts.clone()), "{kind} {protocol:?}, {size} processes");
            }
        }
    }
}

/// Stories, one of which cannot be read.
struct Torn(Arc<dyn Source>);

impl Source for Torn {
    fn samples(&self) -> Option<u64> {
        self.0.samples()
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        if index == 6 { Err(Error::new("a torn story…")) } else { self.0.fill(index, tokens, targets) }
    }
}

#[test]
fn an_error_of_one_process_is_that_of_all() {
    let config = config("model.kind=ar");
    let source: Arc<dyn Source> = Arc::new(Torn(stories(&config, 1, 20).unwrap()));
    for said in together(2, |ranks| draws(&config, Protocol::Nll, &source, ranks).map(|_| ()).unwrap_err().to_string())
    {
        assert_eq!(said, "process 1: a torn story…");
    }
}

#[test]
fn validation_has_the_same_digits() {
    let config = config("train.steps=2 train.eval_every=1 train.sample_every=0 slow.warmup=1 train.micro=1");
    let bytes: Arc<dyn Tokenizer> = Arc::new(Bytes);
    let material = Material::open(&config, &|path, split| Dataset::open(path, split, &bytes)).unwrap();
    let validations = |size: usize| {
        let path = no_folder(&format!("validated-by-{size}"));
        let lines = together(size, |ranks| {
            let (rank, material) = (ranks.rank(), Material { ranks, ..material.clone() });
            if rank > 0 {
                let mut follower = Follower::join(&config, &material, &Device::CPU).unwrap();
                while !follower.is_done() {
                    assert!(follower.advance().unwrap());
                }
                return Vec::new();
            }
            let folder = NewFolder::at(&path).unwrap();
            let mut session = Session::begin(&folder, &config, &material, &Device::CPU).unwrap();
            let mut lines = Vec::new();
            while !session.is_done() {
                assert_eq!(session.advance().unwrap().warnings, [""; 0]);
                // Debug shows all digits.
                lines.push(format!("{:?}", session.validated().unwrap()));
            }
            lines
        });
        lines[0].clone()
    };
    let alone = validations(1);
    assert!(alone.len() == 2 && alone[1].contains("sequences: 32"), "{alone:?}");
    for size in [2, 4, 8] {
        assert_eq!(validations(size), alone, "{size} processes");
    }
}

/// The run of a model with initial weights.
pub fn untrained(name: &str, config: &Config) -> Run {
    let Trainer { params, store, .. } = Trainer::new(config.clone(), &Device::CPU).unwrap();
    Run::create_with_weights(&NewFolder::at(&no_folder(name)).unwrap(), config, &store, &params).unwrap()
}

fn load(run: &Run) -> Loaded {
    run.load(&Device::CPU, Work::Evaluation).unwrap()
}

#[test]
fn an_evaluation_has_the_same_digits() {
    let run = untrained("evaluated", &config(""));
    let source = stories(&run.config, 1, 9).unwrap();
    let options = Options { protocols: Protocol::all(run.config.model.kind), steps: 2, samples: 2, limit: None };
    let evaluated = |ranks| {
        let mut model = load(&run).among(ranks, &[]).unwrap();
        let mut counts = Vec::new();
        let rows = evaluate(&mut model, &source, &options, |done, _| counts.push(done)).unwrap();
        (json::pretty(&rows), *counts.last().unwrap())
    };
    let alone = evaluated(Arc::new(Alone));
    // elbo and iwae share their draws.
    assert_eq!((alone.0.matches("\"protocol\"").count(), alone.1), (4, 3 * 9));
    for size in [2, 4] {
        assert!(together(size, evaluated).iter().all(|rows| *rows == alone), "{size} processes");
    }
}

#[test]
fn processes_that_score_something_else_are_named() {
    let run = untrained("differs", &config("model.kind=ar"));
    let said = together(4, |ranks| {
        let options = format!("{} draws", if ranks.rank() < 2 { 16 } else { 4 });
        let facts = [("text", "the same".into()), ("options", options)];
        load(&run).among(ranks, &facts).unwrap_err().to_string()
    });
    assert!(said.iter().all(|said| said == "process 2 differs from process 0 in its options"), "{said:?}");
}
