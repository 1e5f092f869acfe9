//! Checks event files with TensorBoard's own reader.
//!
//! Needs a Python with the package `tensorboard`: the one that `LTM_PYTHON` names (which must have it), else `python3`.
//! Without it the test reports that it was skipped.

use super::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;

/// Prints a JSON array of `[tag, step, value]`, with numbers as f32.
const READER: &str = "
import json, sys
from tensorboard.backend.event_processing import event_accumulator as ea
events = ea.EventAccumulator(sys.argv[1], size_guidance={ea.SCALARS: 0})
events.Reload()
told = [[t, e.step, e.value] for t in events.Tags()['scalars'] for e in events.Scalars(t)]
json.dump(told, sys.stdout)
";

/// The reader's values in `folder`, by tag and step.
fn read(python: &str, folder: &Path) -> BTreeMap<(String, u64), Value> {
    let said = Command::new(python).args(["-c", READER]).arg(folder).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let told: Vec<(String, u64, Value)> = serde_json::from_slice(&said.stdout).unwrap();
    let count = told.len();
    let found: BTreeMap<_, _> = told.into_iter().map(|(tag, step, value)| ((tag, step), value)).collect();
    assert_eq!(found.len(), count, "a tag has one value a step");
    found
}

/// The same from the run's metrics, the source of event files.
fn expected(run: &Path) -> BTreeMap<(String, u64), Value> {
    let mut expected = BTreeMap::new();
    for line in ltm::json::read_lines::<Value>(&run.join("metrics.jsonl")).unwrap() {
        let about = if line.get("protocol").is_some() { "validation" } else { "train" };
        let step = line["step"].as_u64().unwrap();
        for (key, value) in line.as_object().unwrap() {
            if let Some(x) = value.as_f64().filter(|_| key != "step") {
                expected.insert((format!("{about}/{key}"), step), f64::from(x as f32).into());
            }
        }
    }
    expected
}

#[test]
fn tensorboard_reads_what_the_metrics_say() {
    let named = std::env::var("LTM_PYTHON").ok();
    let python = named.as_deref().unwrap_or("python3");
    let import = ["-c", "from tensorboard.backend.event_processing import event_accumulator"];
    if named.is_none() && !Command::new(python).args(import).output().is_ok_and(|said| said.status.success()) {
        // Not by `println!`, whose output is hidden in a passing test.
        let why = "skipped: python3 has no package tensorboard: event files were not read by TensorBoard's own reader";
        writeln!(std::io::stderr(), "{why}").unwrap();
        return;
    }
    let lab = Lab::new();
    let settings = ["train.steps=120", "train.eval_every=40", "train.checkpoint_every=50"];
    let args = [train_args("run", &settings), vec!["--tensorboard"]].concat();
    lab.run(&args).succeeds();
    let (run, events) = (lab.path("run"), lab.path("run/tensorboard"));
    let found = read(python, &events);
    assert_eq!(found, expected(&run));
    let tag = |tag: &str, step| found.contains_key(&(tag.to_string(), step));
    assert!(tag("train/loss", 120) && tag("validation/loss", 80), "{found:?}");

    // Resumed from step 100: the first file's later steps are dropped.
    fs::remove_dir_all(run.join("checkpoints/step-00000120")).unwrap();
    lab.run(&["train", "--resume", "run", "--set", "train.steps=130"]).succeeds();
    assert_eq!(fs::read_dir(&events).unwrap().count(), 1);
    let found = read(python, &events);
    assert_eq!(found, expected(&run));
    assert!(found.contains_key(&("train/loss".to_string(), 130)));
}
