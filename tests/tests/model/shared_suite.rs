//! Several processes score a suite as one process does, also after an interrupt.

use crate::shared_scores::{config, no_folder, untrained};
use engine::{Alone, Collective, Device, Error, Result};
use lab::eval::Options;
use lab::suite::{RESULTS, Request, Suite, Watch};
use ltm::config::Work;
use ltm::evaluate::Protocol;
use ltm::json;
use ltm::run::Run;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tests::threads::together;

/// Stops after so many reports of progress.
struct Until(AtomicUsize);

impl Watch for Until {
    fn note(&self, _: String) {}

    fn progress(&self, _: &str, _: u64, _: u64) -> Result<()> {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(1);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { Err(Error::new("interrupted")) } else { Ok(()) }
    }

    fn stops(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

/// The outcome of every set, with the times that it took left out; `None` if it was stopped, after `patience` reports of progress.
fn score(run: &Run, file: &Path, ranks: Arc<dyn Collective>, patience: usize) -> Option<Value> {
    let mut model = run.load(&Device::CPU, Work::Evaluation).unwrap().among(ranks, &[]).unwrap();
    let options = Options { protocols: vec![Protocol::Elbo, Protocol::Prefix], steps: 2, samples: 2, limit: None };
    let request = Request { file, data: None, results: None, options, command: "a test".into() };
    let watch = Until(AtomicUsize::new(patience));
    let judged = Suite::new(run, &mut model, &request, &Device::CPU, &watch).unwrap().all().unwrap()?;
    let mut sets: Value = serde_json::from_str(&json::pretty(&judged)).unwrap();
    for result in sets.as_array_mut().unwrap().iter_mut().flat_map(|set| set["results"].as_array_mut().unwrap()) {
        assert!(result.as_object_mut().unwrap().remove("seconds").is_some());
    }
    Some(sets)
}

/// A run, and a suite of two sets and one that is missing.
fn lab(name: &str) -> (Run, PathBuf) {
    let folder = no_folder(name);
    fs::create_dir_all(&folder).unwrap();
    let text = |lines: usize| (0..lines).map(|i| format!("{i} green bottles on the wall.\n")).collect::<String>();
    fs::write(folder.join("short.txt"), text(5)).unwrap();
    fs::write(folder.join("long.txt"), text(50)).unwrap();
    let sets = "[short]\npath = 'short.txt'\nformat = 'text'\n[none]\npath = 'none.txt'\nformat = 'text'\n[long]\n\
                path = 'long.txt'\nformat = 'text'\n";
    fs::write(folder.join("suite.toml"), sets).unwrap();
    (untrained(&format!("{name}/run"), &config("")), folder.join("suite.toml"))
}

const ALWAYS: usize = usize::MAX;

#[test]
fn a_suite_has_the_same_figures() {
    let (run, file) = lab("suite");
    let results = run.path.join(RESULTS);
    let alone = score(&run, &file, Arc::new(Alone), ALWAYS).unwrap();
    let count = |set: usize, key: &str| alone[set][key].as_array().map_or(0, Vec::len);
    assert_eq!([0, 1, 2].map(|set| count(set, "results")), [2, 0, 2]);
    for size in [2, 4] {
        fs::remove_file(&results).unwrap();
        let done = together(size, |ranks| score(&run, &file, ranks, ALWAYS).unwrap());
        assert!(done.iter().all(|sets| *sets == alone), "{size} processes: {}", done[0]);
        assert_eq!(fs::read_to_string(&results).unwrap().lines().count(), 4, "one process writes");
    }
}

#[test]
fn an_interrupt_of_one_process_stops_all_and_any_number_continues() {
    let (run, file) = lab("stopped-suite");
    let alone = score(&run, &file, Arc::new(Alone), ALWAYS).unwrap();
    let results = run.path.join(RESULTS);
    let whole = fs::read_to_string(&results).unwrap();
    for patience in [1, 2, 3, 8] {
        fs::remove_file(&results).unwrap();
        let stopped = together(2, |ranks| {
            let patience = if ranks.rank() == 1 { patience } else { ALWAYS };
            score(&run, &file, ranks, patience)
        });
        assert!(stopped.iter().all(Option::is_none), "{patience}");
        let done = if patience % 2 == 0 {
            together(4, |ranks| score(&run, &file, ranks, ALWAYS)).remove(3).unwrap()
        } else {
            score(&run, &file, Arc::new(Alone), ALWAYS).unwrap()
        };
        assert_eq!(done, alone, "{patience}");
        assert_eq!(fs::read_to_string(&results).unwrap().lines().count(), whole.lines().count());
    }
    let left = fs::read_dir(&run.path)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "begun"));
    assert_eq!(left.count(), 0);
}
