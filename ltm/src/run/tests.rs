use super::folder::{MOMENTS, WEIGHTS};
use super::*;
use crate::checkpoint;
use crate::config::{Config, SETTINGS};
use crate::data::{Bytes, Dataset, Tokenizer};
use crate::evaluate::{Protocol, Total};
use crate::hash::sha256;
use crate::safetensors::SafeTensors;
use engine::Device;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[test]
fn a_run_can_be_changed_in_what_leaves_the_past_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::preset("demo").unwrap().resolved().unwrap();
    let (mut run, _metrics) = Run::create(&NewFolder::at(&folder.path().join("run")).unwrap(), &config).unwrap();
    for key in SETTINGS {
        let mut other = config.clone();
        // A value that is valid for every key of its kind, and that no preset has.
        let value = match key.value(&config) {
            Value::Number(x) if x.is_u64() => (2 * x.as_u64().unwrap() + 2).into(),
            Value::Number(x) => match x.as_f64().unwrap() {
                x if x > 0.0 && x < 1.0 => x / 2.0,
                x if x < 0.0 => x - 1.0,
                x => x * 2.0 + 2.0,
            }
            .into(),
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
    assert_eq!(Run::open(&run.path).unwrap().config, longer);
    assert!(FREE_AT_RESUME.iter().all(|&name| SETTINGS.iter().any(|key| key.name == name)));
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_text_is_told_in_one_line() {
    use std::os::unix::ffi::OsStringExt;
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.data.paths = vec![std::ffi::OsString::from_vec(b"caf\xe9.txt".to_vec()).into()];
    let path = folder.path().join("run");
    let run = Run::create(&NewFolder::at(&path).unwrap(), &config.resolved().unwrap());
    let error = run.unwrap_err().to_string();
    assert_eq!(error, "cannot write config.json: path contains invalid UTF-8 characters");
    assert!(!path.exists(), "nothing remains");
}

/// Of processes that found the same folder free, one gets it. The others leave its run alone.
#[test]
fn a_folder_is_for_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [1, 2].map(|seed| {
        let mut config = Config::preset("demo").unwrap();
        config.train.seed = seed;
        config.resolved().unwrap()
    });
    for name in ["missing", "empty", "left"] {
        let path = folder.path().join(name);
        if name != "missing" {
            fs::create_dir(&path).unwrap();
        }
        if name == "left" {
            fs::write(path.join("metrics.jsonl"), "").unwrap();
            fs::write(path.join(".tmp-1-config.json"), "").unwrap();
        }
        let new = NewFolder::at(&path).unwrap();
        let begun = Run::create(&new, &first).unwrap();
        let config = fs::read(path.join("config.json")).unwrap();
        let refused = || Run::create(&new, &second).unwrap_err().to_string();
        // Before the first process has written its configuration, while it runs, and after it.
        fs::remove_file(path.join("config.json")).unwrap();
        assert!(refused().contains("is being written by another process"), "{}", refused());
        fs::write(path.join("config.json"), &config).unwrap();
        assert!(refused().contains("already has a run"), "{}", refused());
        drop(begun);
        assert!(refused().contains("already has a run"), "{}", refused());
        assert_eq!(fs::read(path.join("config.json")).unwrap(), config);
    }
    // Metrics with lines belong to a run that has lost its configuration.
    fs::remove_file(folder.path().join("left/config.json")).unwrap();
    fs::write(folder.path().join("left/metrics.jsonl"), "{}\n").unwrap();
    assert!(NewFolder::at(&folder.path().join("left")).is_err());
}

#[test]
fn a_run_of_an_older_version_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for (old, commit) in [
        (r#"{"checksum": "0f"}"#, "9d2716f"),
        (r#"{"fast": {"hoist": "on", "damping": 0.25}}"#, "9d2716f"),
        (r#"{"fast": {"damping": 0.25}}"#, "ff9be54"),
        (r#"{"fast": {"kl_warmup": 0}}"#, "ff9be54"),
        (r#"{"slow": {"updates": 2}}"#, "e8c851a"),
    ] {
        fs::write(folder.path().join("config.json"), old).unwrap();
        let error = Run::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("by an older version") && error.contains(&format!("commit {commit} can")), "{error}");
    }
    fs::write(folder.path().join("sessions.jsonl"), "{\"after\": 0}\n").unwrap();
    assert!(Record::any(folder.path()).is_err(), "nothing is appended behind it");
}

/// Begins or resumes a run on running text in `folder`.
fn session(folder: &Path, settings: &[(&str, &str)]) -> Session {
    let text = folder.join("text.bin");
    let words = ["one ", "other ", "sea, ", "stone ", "bird. "];
    let draw = engine::rng::Stream::new(1, 1);
    let bytes = (0..4000).flat_map(|i| words[draw.below(i, 5)].bytes().map(u16::from)).chain([Bytes.end()]);
    let tokens: Vec<u8> = bytes.flat_map(u16::to_le_bytes).collect();
    fs::write(&text, tokens).unwrap();
    let mut config = Config::preset("tiny").unwrap();
    let model = "model.layers=1 model.dim=16 model.heads=2 model.seq=32 model.window=4 model.latents=2";
    let training = "fast.steps=2 slow.warmup=10 train.steps=300 train.eval_every=0 train.checkpoint_every=0";
    config.set_all(&format!("{model} {training}")).unwrap();
    settings.iter().for_each(|(key, value)| config.set(key, value).unwrap());
    config.data.paths = vec![text];
    let config = config.resolved().unwrap();
    let tokenizer: Arc<dyn Tokenizer> = Arc::new(Bytes);
    let material = Material::open(&config, &|path, split| Dataset::open(path, split, &tokenizer)).unwrap();
    let path = folder.join("run");
    match Run::open(&path) {
        Ok(run) => Session::resume(&run, &material, &Device::CPU).unwrap().0,
        Err(_) => Session::begin(&NewFolder::at(&path).unwrap(), &config, &material, &Device::CPU).unwrap(),
    }
}

/// Trains such a run up to step `stop`, saves it, and returns the warnings.
fn train(folder: &Path, settings: &[(&str, &str)], stop: u64) -> Vec<String> {
    let mut session = session(folder, settings);
    let mut warnings = Vec::new();
    while session.step() < stop {
        warnings.extend(session.advance().unwrap().warnings);
    }
    session.save().unwrap();
    warnings
}

/// Muon keeps no second moments of the layers' matrices, and a run stopped between two steps continues with the same bits.
#[test]
fn each_optimizer_saves_its_moments_and_continues_with_them() {
    for (optimizer, seconds) in [("muon", 5), ("adamw", 16)] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let settings = [("slow.optimizer", optimizer)];
        for (folder, stops) in folders.iter().zip([&[4][..], &[2, 4]]) {
            stops.iter().for_each(|&stop| _ = train(folder.path(), &settings, stop));
        }
        let [whole, parts] = folders.each_ref().map(|folder| {
            let checkpoint = checkpoint::at_step(&folder.path().join("run"), 4).unwrap();
            [WEIGHTS, MOMENTS].map(|file| checkpoint.file(file).unwrap())
        });
        let bytes = |files: &[PathBuf; 2]| files.each_ref().map(|file| fs::read(file).unwrap());
        assert!(bytes(&whole) == bytes(&parts), "{optimizer}: the bits of a run that was stopped differ");
        let moments = SafeTensors::open(&whole[1]).unwrap();
        let count = |prefix: &str| moments.names().iter().filter(|name| name.starts_with(prefix)).count();
        assert_eq!([count("m."), count("v.")], [16, seconds], "{optimizer}");
    }
}

/// Older programs saved such weights. No checkpoint is said to be unaffected.
#[test]
fn a_checkpoint_with_useless_weights_is_not_recommended() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &[], 2);
    let run = &folder.path().join("run");
    let weights = checkpoint::at_step(run, 2).unwrap().file(WEIGHTS).unwrap();
    let mut bytes = fs::read(&weights).unwrap();
    let (good, half) = (sha256(&bytes), bytes.len() / 2);
    bytes[half..].fill(0xff);
    fs::write(&weights, &bytes).unwrap();
    let manifest = weights.with_file_name("manifest.json");
    fs::write(&manifest, fs::read_to_string(&manifest).unwrap().replace(&good, &sha256(&bytes))).unwrap();
    let error = session(folder.path(), &[]).advance().unwrap_err().to_string();
    assert!(error.starts_with("training has diverged: after step 2, "), "{error}");
    assert!(error.ends_with("try a new run with a lower slow.rate"), "{error}");
}

/// Steps and names of the troubles in the metrics.
fn troubles(folder: &Path) -> Vec<(u64, Trouble)> {
    let lines = Run::open(&folder.join("run")).unwrap().metrics().unwrap();
    let told = lines.into_iter().filter_map(|line| match line {
        Line::Trouble(line) => Some((line.step, line.trouble)),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_run_says_that_its_latents_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    // The window shows all that can be known of the next letter of random words. At first the KL is tens of nats.
    let settings = [("slow.updates", "2"), ("slow.optimizer", "adamw")];
    assert_eq!(train(folder.path(), &settings, 150), [""; 0]);
    // Stopped and resumed in the middle of a window, the run gives the same warnings.
    let warnings = train(folder.path(), &settings, 200);
    assert!(warnings.len() == 1 && warnings[0].contains("ignores its latents"), "{warnings:?}");
    assert_eq!(troubles(folder.path()), [(200, Trouble::LatentsIgnored)]);
}

#[test]
fn the_best_validation_is_a_number_and_has_a_checkpoint() {
    let lines = [9.0, f64::NAN, 2.0, 3.0, f64::INFINITY, 3.0].iter().zip(1..).map(|(&loss, step)| {
        let mut line = ValidationLine::new(step, Protocol::Elbo, &Total::default(), None);
        line.cost.loss = loss;
        Line::Validation(line)
    });
    let lines: Vec<Line> = lines.collect();
    let best = |steps: &[u64]| metrics::best(&lines, steps).map(|line| line.step);
    assert_eq!(best(&[1, 2, 3, 4, 5, 6]), Some(3));
    assert_eq!(best(&[1, 2, 4, 5, 6, 7]), Some(4), "the first of equals");
    assert_eq!(best(&[2, 5, 7]), None);
}

/// With the settings of the public reference code the training loss falls; the validation shows the problem.
#[test]
fn a_run_at_fixed_noise_says_that_its_kl_runs_away() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("fast.noise", "fixed"),
        ("fast.posterior", "adamw"),
        ("fast.schedule", "constant"),
        ("fast.rate_start", "0"),
        ("fast.rate_end", "2"),
        ("slow.optimizer", "adamw"),
        ("slow.rate", "1e-2"),
        ("train.eval_every", "50"),
    ];
    let warnings = train(folder.path(), &settings, 300);
    let worse = "the KL grows while the bound on validation text gets worse";
    assert!(warnings.iter().any(|line| line.starts_with(worse)), "{warnings:?}");
    let mut kinds: Vec<Trouble> = troubles(folder.path()).into_iter().map(|(_, kind)| kind).collect();
    kinds.dedup();
    assert_eq!(kinds.len(), warnings.len(), "each is said once");
}
