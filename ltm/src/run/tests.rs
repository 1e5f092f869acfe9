use super::*;
use crate::config::Config;
use crate::evaluate::SequenceScore;
use crate::json::Value;
use std::fs;

#[test]
fn metrics_go_back_to_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let line = |step: u64| Value::object([("step", step.into())]);
    let mut metrics = Metrics::open(&path, 0).unwrap();
    [1, 2, 2, 3, 4].into_iter().for_each(|step| metrics.write(&line(step)).unwrap());
    let busy = Metrics::open(&path, 2).unwrap_err().to_string();
    assert!(busy.contains("another process"), "{busy}");
    drop(metrics);
    // A line that a kill cut in two, and damage in the middle that must not cost what follows.
    let text = fs::read_to_string(&path).unwrap().replacen("\"step\":1", "\"stfp\":1", 1) + "{\"step\":";
    fs::write(&path, text).unwrap();
    Metrics::open(&path, 2).unwrap().write(&line(3)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text, "{\"stfp\":1}\n{\"step\":2}\n{\"step\":2}\n{\"step\":3}\n");
}

#[test]
fn a_run_can_be_changed_in_what_leaves_the_past_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::preset("demo").unwrap().resolved().unwrap();
    let mut run = Run::create(&folder.path().join("run"), &config).unwrap();
    for key in Config::keys() {
        let mut other = config.clone();
        // A value that every key of its kind takes, and that no preset has.
        let value = match config.get(key.name).unwrap() {
            Value::Number(x) if x > 0.0 && x < 1.0 => (x / 2.0).into(),
            Value::Number(x) if x < 0.0 => (x - 1.0).into(),
            Value::Number(x) => (x * 2.0 + 2.0).into(),
            Value::String(_) => continue,
            _ => "elsewhere".into(),
        };
        other.set_value(key.name, &value).unwrap();
        let Ok(other) = other.resolved() else { continue };
        let result = run.clone().change(other);
        assert_eq!(result.is_ok(), FREE_AT_RESUME.contains(&key.name), "{} = {value}: {result:?}", key.name);
    }
    let mut longer = config.clone();
    longer.train.steps = 7;
    run.change(longer.clone()).unwrap();
    run.write_config().unwrap();
    assert_eq!(*Run::open(run.path()).unwrap().config(), longer);
    assert!(FREE_AT_RESUME.iter().all(|name| config.get(name).is_ok()));
}

#[test]
fn the_excess_is_measured_pair_by_pair() {
    let score = |nats: f64| SequenceScore { nats, tokens: 1, bytes: 1.0, ..SequenceScore::default() };
    let scored = Scored { scores: vec![score(11.0), score(23.0)], exact: vec![10.0, 20.0] };
    let excess = scored.excess().unwrap();
    // Differences 1 and 3: mean 2, standard error √2/√2.
    assert_eq!((excess.exact, excess.mean, excess.error), (15.0, 2.0, 1.0));
    let with = |mean: f64, error: f64| Excess { exact: 0.0, mean, error }.holds();
    assert!(with(-0.5, 1.0) && !with(-1.5, 1.0) && with(0.0, f64::NAN) && !with(-0.1, f64::NAN));
    assert_eq!(Scored { exact: Vec::new(), ..scored }.excess(), None);
}
